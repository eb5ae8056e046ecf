"""From which frame of an opening on pictures count: exposure and colours have come to rest, as the light wants them.

No thread and no camera in here. The camera's frame thread asks; others read `are_over`, one frame late at worst.
"""

from collections.abc import Callable, Mapping
from typing import Any

from softcam.camera.changes import Changes
from softcam.controls.settling import Settling


class FirstFrames:
    """Fed with the frames of one camera, over all its openings."""

    def __init__(self, changes: Changes) -> None:
        self._changes = changes
        self.are_over = False
        self._settling: Settling | None = None
        self._is_at_rest = False
        self._shows: Callable[[Mapping[str, Any]], bool] | None = None
        self._is_shown = False

    def begin(self) -> None:
        """The camera is opened."""
        self.are_over = self._is_at_rest = self._is_shown = False
        self._settling = self._shows = None

    def are_at_rest(self, metadata: Mapping[str, Any], now_s: float) -> bool:
        """Whether this frame tells what the light is."""
        if not self._is_at_rest:
            if self._settling is None:
                self._settling = Settling(now_s)
            self._is_at_rest = self._settling.step(metadata, now_s)
        return self._is_at_rest

    def judge(self, metadata: Mapping[str, Any], now_s: float) -> None:
        """What follows from the light was told to the camera, if anything: it has to be in the picture, and at rest."""
        if self.are_over or not self._is_at_rest:
            return
        if self._shows is None:
            self._shows = self._changes.seen_from(now_s)
            self._settling = None
        # Once is enough: libcamera tells colours and contrast with a single frame, the first that has them.
        self._is_shown = self._is_shown or self._shows(metadata)
        if not self._is_shown:
            self._settling = Settling(now_s)
        elif self._settling is None or self._settling.step(metadata, now_s):
            self.are_over = True
