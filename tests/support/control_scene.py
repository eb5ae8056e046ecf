"""A control manager on a fake camera that supports most controls."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from softcam.camera.base import StreamRequest
from softcam.camera.sensor_modes import FovMode
from softcam.controls.controller import ControlManager
from softcam.controls.day_night import Light
from softcam.controls.schema import BY_NAME
from softcam.controls.store import Store
from softcam.controls.writer import BackgroundWriter
from softcam.errors import CameraStuck
from tests.support.fakes import STEADY, FakeCamera, SessionRig

CONFIGURED = StreamRequest(32, 16, 20.0)
CONTROLS: Mapping[str, Any] = {
    "AeEnable": (False, True, True),
    "AfMode": (0, 2, 0),
    "AfSpeed": (0, 1, 0),
    "AfTrigger": (0, 1, 0),
    "AnalogueGain": (1.0, 16.0, 1.0),
    "AwbEnable": (False, True, True),
    "AwbMode": (0, 7, 0),
    "Brightness": (-1.0, 1.0, 0.0),
    "ColourGains": (0.0, 32.0, None),
    "Contrast": (0.0, 4.0, 1.0),
    "ExposureTime": (10, 1_000_000, 20_000),
    "FrameDurationLimits": (10_000, 1_000_000, None),
    "LensPosition": (0.0, 15.0, 1.0),
    "Saturation": (0.0, 32.0, 1.0),
    "ScalerCrop": ((0, 0, 8, 4), (0, 0, 64, 32), (0, 0, 64, 32)),
}
DARK = {**STEADY, "Lux": 1.0}
FOCUSED = {**STEADY, "AfState": 2, "LensPosition": 1.8}


class ControllableCamera(FakeCamera):
    """Records the requests with which it is opened."""

    def __init__(self) -> None:
        super().__init__(CONTROLS)
        self.requests: list[StreamRequest] = []

    def prepare(self, request: StreamRequest) -> None:
        self.requests.append(request)


class ControlScene:
    """A control manager and a session on a camera that the test controls; another one on `folder` is the next process.

    The watchdog and autofocus are disabled unless their timeouts are set.
    """

    def __init__(
        self,
        folder: Path,
        *,
        autofocus_timeout_s: float | None = None,
        watchdog_timeout_s: float = 0.0,
        writer: BackgroundWriter | None = None,
        light_delay_s: float = 2.0,
        change_timeout_s: float = 10.0,
        fps: float = CONFIGURED.fps,
        fov: FovMode = CONFIGURED.fov,
        camera: ControllableCamera | None = None,
    ) -> None:
        self.camera = camera or ControllableCamera()
        self.held = SessionRig(
            self.camera,
            linger_s=0.0,
            autofocus_timeout_s=autofocus_timeout_s,
            watchdog_timeout_s=watchdog_timeout_s,
        )
        self.store = Store(folder, "cam0")
        self.writer = writer or BackgroundWriter(lambda reason: self.held.failures.append(CameraStuck(reason)))
        self.control_manager = ControlManager(
            self.held.manager,
            replace(CONFIGURED, fps=fps, fov=fov),
            self.store,
            self.writer,
            light=Light(light_delay_s),
            change_timeout_s=change_timeout_s,
        )

    def change(self, name: str, **values: Any) -> None:
        self.control_manager.change(BY_NAME[name], BY_NAME[name].parse(values))

    def value(self, group: str, name: str) -> Any:
        return self.control_manager.requested.get(group, name)

    def problem(self, name: str) -> Any:
        """`set_aside`, `not_kept` or `not_applied`."""
        return self.control_manager.problems()[f"controls_{name}"]

    def settle(self, metadata: Mapping[str, Any] = STEADY) -> None:
        """Emit frames until exposure and white balance count as settled."""
        for _ in range(6):
            self.camera.emit(metadata)

    def take_sent(self) -> dict[str, Any]:
        """All controls sent since the last call, merged."""
        merged: dict[str, Any] = {}
        for controls in self.camera.sent:
            merged |= controls
        self.camera.sent.clear()
        return merged
