"""Sends controls to an open Picamera2, and sends them again with each start, which forgets what was set before.

One object per opening. Any thread may call `send_controls`; the session's camera thread calls `start`.

Picamera2 keeps controls in an object until a request takes them, and replaces that object when a buffer is returned,
under its `request_lock` (request.py), and when the camera starts, under no lock at all. A control that is set in
between ends up in the discarded object. So every control is set under that lock, and those that were set while the
camera started are set once more.
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
        # Guards _sent, and is held while controls are passed to Picamera2, so that both have the same order. None of
        # these calls blocks: they only write into dictionaries.
        self._lock = threading.Lock()
        self._sent: dict[str, Any] = {}

    def send_controls(self, controls: Mapping[str, Any]) -> None:
        """Set controls with the next request and with every start from now on; the camera supports all of them."""
        with self._lock:
            self._sent.update({name: value for name, value in controls.items() if name not in MOMENTARY_CONTROLS})
            try:
                self._set(controls)
            except RuntimeError as error:
                # While it is being reconfigured, Picamera2 knows no controls; the start that follows sends this one.
                log.debug("Controls are deferred: %s", error)

    def start(self, first: Mapping[str, Any], last: Mapping[str, Any] = _NONE) -> None:
        """Start the camera with `first`, all controls sent since it was opened, and `last`, for this start only."""
        with self._lock:
            before = dict(self._sent)
            self._set(self._supported({**first, **before, **last}))
        self._picam2.start()
        with self._lock:
            late = {name: value for name, value in self._sent.items() if name not in before or before[name] != value}
            self._set(self._supported({name: value for name, value in late.items() if name not in last}))

    def frame_s(self, more: Mapping[str, Any] = _NONE) -> float:
        """How long a frame may take with the controls sent and `more`; 0 if they do not determine it."""
        with self._lock:
            return min_frame_duration_s({**self._sent, **more})

    def _supported(self, controls: Mapping[str, Any]) -> dict[str, Any]:
        supported = self._picam2.camera_controls
        return {name: value for name, value in controls.items() if name in supported}

    def _set(self, controls: Mapping[str, Any]) -> None:
        if controls:
            with self._picam2.request_lock:  # see above; its holders never wait for us
                self._picam2.set_controls(dict(controls))
