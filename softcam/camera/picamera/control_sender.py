"""What an open camera was told: each start tells it again, for a start forgets what was set before it.

One object for each opening. Any thread may `send`; the holder's camera thread starts.

Picamera2 keeps controls in an object of its own until a request takes them along, and puts a new one in its place: when
a buffer goes back, under its `request_lock` (request.py), and when the camera starts, under no lock at all. A control
that arrives in between lands in the object that nobody looks at any more. So every control is set under that lock, and
what came while the camera started is set once more.
"""

import logging
import threading
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from softcam.camera.session.sent_controls import MOMENTARY_CONTROLS, min_frame_duration_s

log = logging.getLogger(__name__)

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})


class ControlSender:
    """The controls of one open Picamera2."""

    def __init__(self, picam2: Any) -> None:
        self._picam2 = picam2
        # Guards _sent, and is held while Picamera2 is told, so that it gets in the same order what is noted here. None
        # of these calls blocks: they only write into dictionaries.
        self._lock = threading.Lock()
        self._sent: dict[str, Any] = {}

    def send(self, controls: Mapping[str, Any]) -> None:
        """With the next request, and with every start from now on. The camera knows all of these controls."""
        with self._lock:
            self._sent.update({name: value for name, value in controls.items() if name not in MOMENTARY_CONTROLS})
            try:
                self._tell(controls)
            except RuntimeError as error:
                # Picamera2 knows no control while it is being configured anew, and gets this one again right after.
                log.debug("Controls were not taken at once: %s", error)

    def start(self, first: Mapping[str, Any], last: Mapping[str, Any] = _NONE) -> None:
        """Start with `first`, then all that was sent since the camera was opened, then `last`, which count so long."""
        with self._lock:
            before = dict(self._sent)
            self._tell(self._known({**first, **before, **last}))
        self._picam2.start()
        with self._lock:
            late = {name: value for name, value in self._sent.items() if name not in before or before[name] != value}
            self._tell(self._known({name: value for name, value in late.items() if name not in last}))

    def frame_s(self, more: Mapping[str, Any] = _NONE) -> float:
        """How long a frame may take by what was sent and `more`; 0 where nothing says so."""
        with self._lock:
            return min_frame_duration_s({**self._sent, **more})

    def _known(self, controls: Mapping[str, Any]) -> dict[str, Any]:
        known = self._picam2.camera_controls
        return {name: value for name, value in controls.items() if name in known}

    def _tell(self, controls: Mapping[str, Any]) -> None:
        if controls:
            with self._picam2.request_lock:  # see above; whoever holds it does nothing that could wait for us
                self._picam2.set_controls(dict(controls))
