"""A hook that starts a recording when it detects motion.

soft_stream.py --hook integrations.hooks.motion:watch --recordings /srv/recordings --recordings-preroll 5

It compares each frame with a moving average of the previous ones, in blocks and by brightness, so that noise and clouds
have little effect. A change of most of the image at once is light: a lamp, the sun, or the exposure that follows it. It
is ignored until the image has settled. Motion must last for a moment: a lamp that brightens slowly, or while the sensor
is read out, changes a part of the image first.

The camera is open only while it has clients, and there are no frames while it is closed: --recordings-preroll keeps it
open, and adds the pre-roll to the recording. POST /camera/start keeps it open, too, until the portal exits. A change
while the camera was closed is not motion.

Environment variables: MOTION_SECONDS (20), the duration of a recording; MOTION_SHARE (0.01), the share of the image
that has to change; MOTION_PORTAL (default: this portal), the URL of the portal that records; CAMERA_API_KEY, if it has
one. Without it, the key of the cameras (cam0_api_key) is used for this portal, if they all have the same.
"""

import http.client
import json
import logging
import os
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from softcam.hook_api import Image, Metadata

log = logging.getLogger(__name__)

_BLOCK = 16  # pixels per side of the blocks that are compared
_DIFFERENCE = 20  # grey levels; the noise of a whole block is far below
_MEMORY = 0.05  # weight of each frame in the average
_LIGHT_SHARE = 0.5  # of the image, changed by half of _DIFFERENCE or more: more than what moves in front of a camera
_SETTLING_S = 2.0  # of the exposure, after the first frame and after each change of light
_CONFIRMATION_S = 0.2  # how long motion must last, in at least two frames
# A gap of that many seconds, and frame intervals: the camera was closed, and the light may have changed.
_CLOSED_S = 4.0
_CLOSED_INTERVALS = 5
_RESPONSE_TIMEOUT_S = 5.0


class MotionDetector:
    """Detects that an image differs from the previous ones."""

    def __init__(self, share: float, on_motion: Callable[[], None], interval_s: float) -> None:
        """`share` is that of the image, 0 to 1; `on_motion` is called at most once per `interval_s`."""
        self._share = share
        self._on_motion = on_motion
        self._interval_s = interval_s
        self._average: npt.NDArray[np.float32] | None = None
        self._next_s = 0.0
        self._settled_s = 0.0  # until then the average is the last frame
        self._began_s: float | None = None  # of the motion that is going on
        self._last_s = 0.0  # time of the last frame
        self._frame_interval_s = 0.0  # between the last two frames

    def process_frame(self, image: Image, now_s: float) -> float:
        """Returns the share of the image that changed, 0 to 1."""
        rows, columns = image.shape[0] // _BLOCK * _BLOCK, image.shape[1] // _BLOCK * _BLOCK
        # Green contributes most to the brightness; every fourth pixel is enough.
        green = image[:rows:4, :columns:4, 1]
        blocks = green.reshape(rows // _BLOCK, _BLOCK // 4, columns // _BLOCK, _BLOCK // 4).mean((1, 3), np.float32)
        gap_s, self._last_s = now_s - self._last_s, now_s
        was_closed = gap_s > max(_CLOSED_S, _CLOSED_INTERVALS * self._frame_interval_s)
        self._frame_interval_s = gap_s
        if self._average is None or self._average.shape != blocks.shape or was_closed:
            self._average = blocks
            self._settled_s = now_s + _SETTLING_S
        difference = np.abs(blocks - self._average)
        if np.mean(difference > _DIFFERENCE / 2) > _LIGHT_SHARE:
            self._settled_s = now_s + _SETTLING_S
        if now_s < self._settled_s:
            self._average = blocks
            self._began_s = None
            return 0.0
        self._average += _MEMORY * (blocks - self._average)
        changed = float(np.mean(difference > _DIFFERENCE))
        if changed < self._share:
            self._began_s = None
        elif self._began_s is None:
            self._began_s = now_s
        elif now_s >= max(self._next_s, self._began_s + _CONFIRMATION_S):
            self._next_s = now_s + self._interval_s
            self._on_motion()
        return changed


def start_recording(portal: str) -> None:
    """Request a recording; on a separate thread, since the stream waits for the hook."""
    headers = {"Content-Type": "application/json"}
    if key := _api_key():
        headers["X-API-Key"] = key
    body = json.dumps({"duration_s": _seconds()}).encode()
    url = f"{portal.rstrip('/')}/v1/recordings/start"
    try:
        request = urllib.request.Request(url, body, headers)  # noqa: S310 - the URL is configured
        with urllib.request.urlopen(request, timeout=_RESPONSE_TIMEOUT_S) as response:  # noqa: S310
            log.info("Motion detected, recording %s", json.load(response)["recording"]["name"])
    except urllib.error.HTTPError as error:
        with error:
            log.warning("Motion detected, but recording failed: %s", _reason(error))
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError) as error:  # or not a portal
        log.warning("Motion detected, but recording failed: %s: %s", type(error).__name__, error)


def _api_key() -> str | None:
    """The key for the portal. A hook does not know the number of its camera; another portal gets no camera's key."""
    if (shared := os.environ.get("CAMERA_API_KEY")) or os.environ.get("MOTION_PORTAL"):
        return shared
    keys = {key for name, key in os.environ.items() if key and re.fullmatch(r"(?i:cam)[0-9]+_(?i:api_key)", name)}
    return keys.pop() if len(keys) == 1 else None


def _reason(error: urllib.error.HTTPError) -> str:
    """The error of the portal; a proxy in front of it may return an HTML page instead."""
    try:
        return str(json.load(error)["detail"])
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError):
        return str(error)


def _seconds() -> float:
    return float(os.environ.get("MOTION_SECONDS", "20"))


_motion: MotionDetector | None = None


def watch(image: Image, metadata: Metadata) -> None:
    """Process each frame and show it unchanged."""
    global _motion  # a hook is one function and has to keep state
    if _motion is None:
        share = float(os.environ.get("MOTION_SHARE", "0.01"))
        portal = os.environ.get("MOTION_PORTAL") or metadata["portal"]
        _motion = MotionDetector(
            share, lambda: threading.Thread(target=start_recording, args=(portal,), daemon=True).start(), _seconds() + 1
        )
    _motion.process_frame(image, time.monotonic())
