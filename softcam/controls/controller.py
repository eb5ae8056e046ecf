"""Requests to read and change one camera's controls: validation, capabilities, saving, and errors of the camera.

Any thread may call it.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from softcam.camera.base import Remote, StreamConfig, StreamRequest
from softcam.camera.sensor_modes import FovMode
from softcam.camera.session.autofocus_cycle import AfMode
from softcam.camera.session.manager import CameraManager
from softcam.controls import capabilities, geometry, mapping
from softcam.controls.day_night import Light, Scene
from softcam.controls.fields import NO_NAMES, Group
from softcam.controls.safe_mode import SafeMode
from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls
from softcam.controls.state_file import FileProblems
from softcam.controls.store import Store
from softcam.controls.sync import ControlSync
from softcam.controls.writer import BackgroundWriter
from softcam.errors import CameraError, NotSupported

_FOV: Final = BY_NAME["fov_mode"]
_LIMITED: Final = 0.9  # a source that delivers more than this share of the limit may be limited by it
_REOPEN_TIMEOUT_S: Final = 40.0  # above the session's own limits for closing and opening
_CHANGE_TIMEOUT_S: Final = 30.0  # for the changes before, each of which may reopen the camera


@dataclass(frozen=True, slots=True)
class ChangeResult:
    """The result of a change, before another one could follow.

    `stream` is the request with which the camera was opened, or would be opened now; `config` its configuration, None
    if the camera has not been opened with this request yet.
    """

    requested: RequestedControls
    stream: StreamRequest
    config: StreamConfig | None

    @property
    def size(self) -> tuple[int, int]:
        """The size of the stream, (width, height)."""
        size = self.stream if self.config is None else self.config
        return size.width, size.height


@dataclass(frozen=True, slots=True)
class FrameRate:
    """The frame rate that was set for the size of `result`; `highest_fps` is that of the sensor, None if unknown.

    `limit_fps` is None, except for a source that decides its rate: no more of it passes.
    """

    fps: float
    highest_fps: float | None
    limit_fps: float | None
    result: ChangeResult


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
        self._safe_mode = SafeMode(configured, store, writer)
        self._file_problems = FileProblems(store, writer)
        self._light = light or Light()  # read here without the lock of `_sync`, at worst one frame late
        self._sync = ControlSync(manager, self._safe_mode, self._light)
        self._change_timeout_s = change_timeout_s
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
    def rated_config(self) -> StreamConfig | None:
        """As `config`, but None if the frame rates of the current request do not follow from it."""
        return self._sync.rated_config

    @property
    def stream_request(self) -> StreamRequest:
        """The request with which the camera was opened, or would be opened now."""
        current = self._safe_mode.stream_request()
        return replace(self._safe_mode.opened_with or current, fov=current.fov)

    @property
    def stream_fps(self) -> float:
        """The frame rate of the stream: the requested one, as far as the camera reaches it at the current size."""
        return capabilities.clamped_fps(self.stream_request.fps, self.current_config)

    @property
    def knows_frame_rates(self) -> bool:
        """Whether the sensor's frame rates at the current size are known, or cannot be found out by opening it."""
        return self._manager is None or isinstance(self._manager.camera, Remote) or self.rated_config is not None

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
        """The fields of the status that report what differs from the request, and why. Does not wait for the disk."""
        return {**self._file_problems.fields(), "controls_not_applied": list(self._sync.not_applied)}

    def unsaved_note(self) -> str | None:
        """Why the controls in effect are not saved, for the response to a change; None if they are."""
        return self._file_problems.note()

    def change(
        self,
        group: Group,
        values: Mapping[str, Any],
        names: Mapping[str, str] = NO_NAMES,
        *,
        fov: FovMode | None = None,
        deadline_s: float = math.inf,
    ) -> ChangeResult:
        """Set these validated values, all or none; returns when they were sent, at once if the camera is closed.

        A requested autofocus cycle is only checked here. `names` renames fields in errors. `fov` is set in the same
        step. Another change is waited for until the deadline (monotonic clock) at most. Raises BadValue for
        contradictions, NotSupported if the camera does not support the values, and the CameraError with which it
        rejected them.
        """
        stored = {name: value for name, value in values.items() if (group.name, name) != ("autofocus", "trigger")}

        def merge(requested: RequestedControls) -> RequestedControls:
            if fov is not None:
                self._require_supported(_FOV, {"mode": fov}, {"mode": _FOV.name})
                requested = requested.with_values(_FOV, {"mode": fov})
            self._require_supported(group, values, names)
            if group.name == "autofocus" and values.get("trigger") and mapping.focus_mode(requested) is AfMode.MANUAL:
                name = names.get("trigger", "trigger")
                raise NotSupported(f"{name}: the focus is manual; set autofocus_mode to auto or continuous first")
            return requested.with_values(group, stored)

        return self._apply(merge, deadline_s)

    def set_frame_rate(self, fps: float) -> FrameRate:
        """Set the frame rate nearest to `fps` that the sensor reaches at the current size. Raises CameraError."""
        group = BY_NAME["stream"]
        row = group.row("fps")
        applied_fps, highest_fps = fps, None
        remote = self._manager if self._manager is not None and isinstance(self._manager.camera, Remote) else None

        def merge(requested: RequestedControls) -> RequestedControls:
            # In the same step as the change, so that the size is the one for which the rate is set.
            nonlocal applied_fps, highest_fps
            stream = self._safe_mode.stream_request()
            highest_fps = capabilities.fastest_fps((stream.width, stream.height), stream.fov, self.rated_config)
            applied_fps = max(row.low, min(fps, row.high, row.high if highest_fps is None else highest_fps))
            return requested.with_values(group, {row.name: applied_fps})

        before_fps = self.stream_request.fps
        delivered_fps = None if remote is None else remote.status().fps
        result = self._apply(merge)
        if remote is None:
            return FrameRate(applied_fps, highest_fps, None, result)
        if delivered_fps and delivered_fps < _LIMITED * before_fps:  # otherwise the source may be faster
            highest_fps = delivered_fps
        return FrameRate(min(applied_fps, highest_fps or math.inf), highest_fps, applied_fps, result)

    def change_several(self, change: Callable[[RequestedControls, StreamConfig | None], RequestedControls]) -> None:
        """Make the result of `change` the requested controls: sent together, with one reopening at most, or reverted.

        `change` gets the current controls and `config`, and returns values that this camera supports. Automatics that
        it switches off are frozen at the values of this moment, which a reopening would lose. Raises the CameraError
        with which the camera rejected the change.
        """
        metadata = None
        if self._manager is not None and self._manager.is_settled:
            metadata = self._manager.status().metadata
        self._apply(lambda requested: change(requested, self.config).frozen_at(metadata or {}))

    def reset(self) -> None:
        """Reset all controls to their defaults."""
        self._apply(lambda _: RequestedControls())

    def still_view(self, *, is_whole: bool) -> mapping.StillView:
        """The controls of a still: what the stream shows, in the still's own shape, or the whole sensor."""
        stream = self.stream_request
        if is_whole or stream.fov == "scale":
            return mapping.StillView(None if is_whole else self.requested.groups.get("roi"))
        size = self.current_config or stream
        return mapping.StillView(self.requested.groups.get("roi"), (size.width, size.height))

    def _require_supported(self, group: Group, values: Mapping[str, Any], names: Mapping[str, str]) -> None:
        reason = None if self.config is None else capabilities.unsupported_reason(group, values, self.config, names)
        if reason is not None:
            raise NotSupported(reason)

    def _apply(
        self, change: Callable[[RequestedControls], RequestedControls], deadline_s: float = math.inf
    ) -> ChangeResult:
        """Send a change to the camera, then save it; reverts it if the camera rejects it. Waits for another change."""
        timeout_s = min(self._change_timeout_s, deadline_s - time.monotonic())
        if not self._changing.acquire(timeout=max(0.0, timeout_s)):
            raise CameraError("another control change is in progress; retry later")
        try:
            needs_reopening = self._safe_mode.start_change(change)
            if needs_reopening is not None:
                self._send(needs_reopening=needs_reopening)
                if not self._safe_mode.accept_change():
                    raise CameraError("change reverted: the camera delivered no frames with it")
            return ChangeResult(self.requested, self.stream_request, self.current_config)
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
