"""The Picamera2 backend's controls: sent with the next request and again with each start."""

import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from softcam.camera.base import StreamConfig
from softcam.camera.picamera.camera import PicameraCamera
from softcam.errors import NotSupported
from tests.support.fake_picamera2 import CONTROLS, PATIENCE_S, REQUEST, SENSOR, FakePicamera2, OpenedCamera

pytestmark = pytest.mark.usefixtures("fake")


def test_unknown_control_is_not_supported() -> None:
    opened = OpenedCamera()
    with pytest.raises(NotSupported, match="has no control Rubbish"):
        opened.camera.set_controls({"ExposureTime": 1000, "Rubbish": 1})
    assert opened.picam2.pending == {}
    opened.camera.restart()
    assert opened.picam2.started_with[-1] == {"FrameDurationLimits": (50_000, 50_000)}


def test_controls_ignored_while_closed() -> None:
    opened = OpenedCamera()
    opened.camera.close()
    opened.camera.set_controls({"ExposureTime": 1000, "Rubbish": 1})
    assert opened.picam2.pending == {}


def test_controls_after_restart_and_still() -> None:
    opened = OpenedCamera()
    opened.camera.set_controls({"AfMode": 1, "AfTrigger": 0, "ExposureTime": 1000})
    assert opened.picam2.pending == {"AfMode": 1, "AfTrigger": 0, "ExposureTime": 1000}
    opened.deliver().release()
    assert opened.picam2.pending == {}
    opened.camera.set_controls({"ExposureTime": 2000})
    kept = {"AfMode": 1, "ExposureTime": 2000}
    rate = {"FrameDurationLimits": (50_000, 50_000)}
    opened.camera.restart()
    assert opened.picam2.started_with[-1] == {**rate, **kept}
    opened.picam2.on_start = opened.deliver_still
    opened.camera.still(None)
    still, stream = opened.picam2.started_with[-2:]
    assert still == kept
    assert stream == {**rate, **kept}
    # A new opening starts without controls: their owner sends them again.
    opened.camera.close()
    again = opened.camera.open(opened.frames.append)
    picam2 = FakePicamera2.made[-1]()
    assert picam2 is not None
    opened.camera.restart()
    assert picam2.started_with == [rate, rate]
    assert again.has_autofocus


def test_control_sent_while_still_is_configured() -> None:
    opened = OpenedCamera()
    opened.picam2.on_configure = lambda: opened.camera.set_controls({"ExposureTime": 3000})
    opened.picam2.on_start = opened.deliver_still
    opened.camera.still(None)
    assert [each.get("ExposureTime") for each in opened.picam2.started_with[-2:]] == [3000, 3000]


def test_controls_sent_in_on_configured() -> None:
    camera = PicameraCamera(0, None, REQUEST)
    configs = []

    def configured(config: StreamConfig) -> None:
        configs.append(config)
        camera.set_controls({"ExposureTime": 3000})

    opened_config = camera.open(lambda frame: frame.release(), configured)
    picam2 = FakePicamera2.made[-1]()
    assert picam2 is not None
    assert picam2.started_with == [{"FrameDurationLimits": (50_000, 50_000), "ExposureTime": 3000}]
    assert configs == [opened_config]


def test_control_sent_while_camera_starts() -> None:
    opened = OpenedCamera()
    opened.camera.set_controls({"ExposureTime": 1000})
    opened.picam2.on_starting = lambda: opened.camera.set_controls({"AnalogueGain": 2.0})
    opened.camera.restart()
    assert opened.picam2.started_with[-1]["ExposureTime"] == 1000
    assert opened.picam2.pending == {"AnalogueGain": 2.0}


def test_order_of_controls() -> None:
    opened = OpenedCamera()
    opened.camera.set_controls({"ExposureTime": 1000})
    newer = threading.Thread(target=opened.camera.set_controls, args=({"ExposureTime": 2000},))

    def meanwhile() -> None:
        opened.picam2.on_controls = lambda: None
        newer.start()
        newer.join(0.1)  # if it is not locked out, it is sent first

    opened.picam2.on_controls = meanwhile
    opened.camera.restart()
    newer.join(PATIENCE_S)
    assert (opened.picam2.started_with[-1] | opened.picam2.pending)["ExposureTime"] == 2000


def test_still_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = OpenedCamera()
    calls: list[tuple[Any, tuple[int, int]]] = []

    def configured() -> None:
        if len(opened.picam2.requested_sizes) == 2:
            monkeypatch.setitem(CONTROLS, "ScalerCrop", ((0, 0, 64, 64), (0, 0, *SENSOR), None))

    def controls_for(ranges: Mapping[str, Any], size: tuple[int, int]) -> Mapping[str, Any]:
        calls.append((ranges["ScalerCrop"], size))
        return {"ScalerCrop": (0, 0, 800, 600)}

    opened.picam2.on_configure = configured
    opened.picam2.on_start = opened.deliver_still
    opened.camera.still((800, 600), controls_for).release()
    assert calls == [(((0, 0, 64, 64), (0, 0, *SENSOR), None), (800, 600))]
    _, still, stream = opened.picam2.started_with
    assert still == {"ScalerCrop": (0, 0, 800, 600)}
    assert "ScalerCrop" not in stream


@pytest.mark.parametrize(("platform", "has_modes"), [("VC4", False), ("PISP", True)])
def test_hdr_modes_by_platform(fake: type[FakePicamera2], platform: str, has_modes: bool) -> None:
    fake.platform = sys.modules["picamera2.platform"].Platform[platform]
    assert OpenedCamera().config.has_hdr_modes is has_modes
