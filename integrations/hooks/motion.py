"""A hook that starts a recording when something moves in the picture.

soft_stream.py --hook integrations.hooks.motion:watch --recordings /srv/recordings --recordings-preroll 5

It compares each frame with a slow average of those before, coarsely and in grey, so that noise and clouds count little.
A camera is open only while somebody watches, and a closed one sees nothing: --recordings-preroll keeps it open, and
puts the seconds before the movement into the recording. Without it, POST /camera/start does, until the portal ends.
What changed while the camera was closed is no movement.

From the environment: MOTION_SECONDS (20) is how long a recording is, MOTION_SHARE (0.01) which part of the picture has
to move, MOTION_PORTAL (the hook's own) which portal records. CAMERA_API_KEY is used where it is set.
"""

import http.client
import json
import logging
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

log = logging.getLogger(__name__)

_BLOCK = 16  # pixels of a side of what is compared
_DIFFERENCE = 20  # levels of grey; noise of a whole block is far below
_MEMORY = 0.05  # how much of each frame goes into the average
_LEARNING_S = 2.0  # after the first frame: the exposure is still settling
_AWAY_S = 4.0  # without a frame, and many times as long as between two: the camera was closed, and the light may differ
_AWAY_FRAMES = 5
_ANSWER_S = 5.0


class Motion:
    """Says when a picture differs from those before it."""

    def __init__(self, share: float, on_motion: Callable[[], None], pause_s: float) -> None:
        """`share` is the part of the picture, 0 to 1; `on_motion` is called once in `pause_s` at most."""
        self._share = share
        self._on_motion = on_motion
        self._pause_s = pause_s
        self._average: npt.NDArray[np.float32] | None = None
        self._next_s = 0.0
        self._seen_s = 0.0  # the newest frame
        self._step_s = 0.0  # between the last two

    def see(self, image: npt.NDArray[np.uint8], now_s: float) -> float:
        """The part of the picture that moved, 0 to 1."""
        rows, columns = image.shape[0] // _BLOCK * _BLOCK, image.shape[1] // _BLOCK * _BLOCK
        # Green has most of what the eye sees as brightness; every fourth pixel is enough.
        green = image[:rows:4, :columns:4, 1]
        blocks = green.reshape(rows // _BLOCK, _BLOCK // 4, columns // _BLOCK, _BLOCK // 4).mean((1, 3), np.float32)
        step_s, self._seen_s = now_s - self._seen_s, now_s
        was_away = step_s > max(_AWAY_S, _AWAY_FRAMES * self._step_s)
        self._step_s = step_s
        if self._average is None or self._average.shape != blocks.shape or was_away:
            self._average = blocks
            self._next_s = max(self._next_s, now_s + _LEARNING_S)
            return 0.0
        moved = float(np.mean(np.abs(blocks - self._average) > _DIFFERENCE))
        self._average += _MEMORY * (blocks - self._average)
        if moved >= self._share and now_s >= self._next_s:
            self._next_s = now_s + self._pause_s
            self._on_motion()
        return moved


def _record(portal: str) -> None:
    """Ask the portal for a recording; on a thread of its own, since the frame waits for the hook."""
    headers = {"Content-Type": "application/json"}
    if key := os.environ.get("CAMERA_API_KEY"):
        headers["X-API-Key"] = key
    body = json.dumps({"duration_s": _seconds()}).encode()
    url = f"{portal.rstrip('/')}/v1/recordings/start"
    try:
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - the owner's setting
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as answer:  # noqa: S310
            log.info("Something moves: recording %s", json.load(answer)["recording"]["name"])
    except urllib.error.HTTPError as error:
        with error:
            log.warning("Something moves, and is not recorded: %s", _reason(error))
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:  # or no portal at all
        log.warning("Something moves, and is not recorded: %s: %s", type(error).__name__, error)


def _reason(error: urllib.error.HTTPError) -> str:
    """The portal's own words; what stands before it may have others, on a page."""
    try:
        return str(json.load(error)["detail"])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return str(error)


def _seconds() -> float:
    return float(os.environ.get("MOTION_SECONDS", "20"))


_motion: Motion | None = None


def watch(image: npt.NDArray[np.uint8], metadata: Mapping[str, Any]) -> None:
    """Looks at each frame, and leaves it as it is."""
    global _motion  # a hook is one function, and has to remember something
    if _motion is None:
        share = float(os.environ.get("MOTION_SHARE", "0.01"))
        portal = os.environ.get("MOTION_PORTAL") or metadata["portal"]
        _motion = Motion(
            share, lambda: threading.Thread(target=_record, args=(portal,), daemon=True).start(), _seconds() + 1
        )
    _motion.see(image, time.monotonic())
