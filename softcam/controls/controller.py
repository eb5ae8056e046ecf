"""Requests to read and change one camera's controls: validation, capabilities, saving, and errors of the camera.

Any thread may call it.
"""

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from softcam.camera.base import StreamConfig, StreamRequest
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.camera.session.manager import CameraManager
from softcam.controls import capabilities, geometry, mapping
from softcam.controls.day_night import Light, Scene
from softcam.controls.fields import Group
from softcam.controls.safe_mode import SafeMode
from softcam.controls.state import RequestedControls
from softcam.controls.store import Store
from softcam.controls.sync import ControlSync
from softcam.controls.writer import BackgroundWriter
from softcam.errors import CameraError, NotSupported

_REOPEN_TIMEOUT_S: Final = 40.0  # above the session's own limits for closing and opening
_CHANGE_TIMEOUT_S: Final = 10.0  # for the change before, which may reopen the camera


class ControlManager:
    """The controls of one camera. Any thread may call it; changes are applied one at a time."""

    def __init__(
        self,
        manager: CameraManager | None,
        configured: StreamRequest,
        store: Store,
        writer: BackgroundWriter,
        *,
        light: Light | None = None,
        change_timeout_s: float = _CHANGE_TIMEOUT_S,
    ) -> None:
        """Load the saved controls and subscribe to the camera session.

        Without a `manager` the camera is disabled; controls are validated and saved as for a closed one.
        `change_timeout_s` is how long a change waits for another one.
        """
        self._manager = manager
        self._writer = writer
        self._store = store
        self._safe_mode = SafeMode(configured, store, self._writer)
        self._light = light or Light()  # read here without the lock of `_sync`, at worst one frame late
        self._sync = ControlSync(manager, self._safe_mode, self._light)
        self._change_timeout_s = change_timeout_s
        self._quarantine_check = threading.Event()  # set while none is under way; two at once do no harm
        self._quarantine_check.set()
        self._changing = threading.Lock()  # held during a change; no thread of the camera acquires it

    @property
    def requested(self) -> RequestedControls:
        return self._safe_mode.requested

    @property
    def in_effect(self) -> RequestedControls:
        """As `requested`, with the night profile at night."""
        return mapping.at_night(self.requested) if self.is_night else self.requested

    @property
    def config(self) -> StreamConfig | None:
        """The camera's configuration, the last one while it is closed; None before the first opening."""
        return self._sync.config

    @property
    def current_config(self) -> StreamConfig | None:
        """As `config`, but None if the closed camera has not been opened with the current request yet."""
        return self._sync.current_config

    @property
    def stream_request(self) -> StreamRequest:
        """The request with which the camera was opened, or would be opened now."""
        return self._safe_mode.opened_with or self._safe_mode.stream_request()

    @property
    def is_night(self) -> bool:
        return self._light.is_night

    @property
    def orientation(self) -> int:
        """The EXIF orientation of every image."""
        return geometry.exif_orientation(self.requested.get("transform", "rotation"))

    def scene(self, lux: float | None) -> Scene | None:
        """The scene for the status, by the light of the newest frame."""
        return self._light.scene(lux)

    def problems(self) -> dict[str, Any]:
        """The fields of the status that report what differs from the request, and why. Does not wait for the disk.

        Whether the quarantined file was deleted is known one call later.
        """
        if self._store.quarantine_reason is not None and self._quarantine_check.is_set():
            self._quarantine_check = self._writer.submit_job(self._store.refresh_quarantine)
        return {
            "controls_set_aside": self._store.quarantine_reason,
            "controls_not_kept": self._writer.health_error() or self._store.error,
            "controls_not_applied": list(self._sync.not_applied),
        }

    def change(self, group: Group, values: Mapping[str, Any]) -> None:
        """Set these validated values, all or none; returns when they were sent, at once if the camera is closed.

        A requested autofocus cycle is only checked here. Raises BadValue for contradictions, NotSupported if the camera
        does not support the values, and the CameraError with which it rejected them.
        """
        stored = {name: value for name, value in values.items() if (group.name, name) != ("autofocus", "trigger")}

        def merge(requested: RequestedControls) -> RequestedControls:
            reason = None if self.config is None else capabilities.unsupported_reason(group, values, self.config)
            if reason is not None:
                raise NotSupported(reason)
            if group.name == "autofocus" and values.get("trigger") and mapping.focus_mode(requested) is AfMode.MANUAL:
                raise NotSupported("trigger: the focus is manual; set autofocus_mode to auto or continuous first")
            return requested.with_values(group, stored)

        self._apply(merge)

    def reset(self) -> None:
        """Reset all controls to their defaults."""
        self._apply(lambda _: RequestedControls())

    def still_view(self, *, is_whole: bool) -> mapping.StillView:
        """The controls of a still: the zoom in the still's own shape, or none if it is of the whole sensor."""
        return mapping.StillView(None if is_whole else self.requested.groups.get("roi"))

    def _apply(self, change: Callable[[RequestedControls], RequestedControls]) -> None:
        """Send a change to the camera, then save it; reverts it if the camera rejects it. Waits for another change."""
        if not self._changing.acquire(timeout=self._change_timeout_s):
            raise CameraError("another control change is in progress; retry later")
        try:
            needs_reopening = self._safe_mode.start_change(change)
            if needs_reopening is not None:
                self._send(needs_reopening=needs_reopening)
                if not self._safe_mode.accept_change():
                    raise CameraError("change reverted: the camera delivered no frames with it")
        finally:
            self._changing.release()

    def _send(self, *, needs_reopening: bool) -> None:
        self._sync.refresh_decisions()
        try:
            if needs_reopening and self._manager is not None:
                with self._manager.lease("hold"):
                    self._manager.reopen(time.monotonic() + _REOPEN_TIMEOUT_S)
            else:
                self._sync.send_changes(is_strict=True)
        except CameraError:
            self._safe_mode.revert_change()
            self._sync.refresh_decisions()
            self._sync.send_changes()
            raise
