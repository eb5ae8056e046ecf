"""The control of the sensor's HDR: it is set if the driver reports another value, whichever process set that."""

import logging
from pathlib import Path
from typing import Any, Self

import pytest

from softcam.camera.base import HdrMode
from softcam.camera.picamera import hdr as hdr_module
from softcam.camera.picamera.hdr import SensorHdr
from softcam.errors import NotSupported


class Switch:
    """Picamera2's device for the kernel's control, which keeps its value when a process exits."""

    def __init__(self) -> None:
        self.is_on = False
        self.is_stuck = False
        self.is_readable = True
        self.moves: list[bool] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def set_sensor_hdr_mode(self, enable: bool) -> None:
        self.moves.append(enable)
        if not self.is_stuck:  # otherwise Picamera2 prints a message and continues
            self.is_on = enable


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    switch = Switch()
    monkeypatch.setattr(hdr_module, "hdr_device", lambda number: switch)
    monkeypatch.setattr(hdr_module, "is_hdr_on", lambda device: device.is_on if device.is_readable else None)
    return switch


@pytest.mark.parametrize("is_readable", [True, False])
def test_switched_off_after_another_process(switch: Switch, is_readable: bool) -> None:
    switch.is_on, switch.is_readable = True, is_readable
    hdr = SensorHdr()
    hdr.switch_mode(0, "off", "a camera")
    assert (switch.is_on, switch.moves, hdr.is_on) == (False, [False], False)
    hdr.switch_mode(0, "off", "a camera")
    assert switch.moves == [False]


@pytest.mark.parametrize("mode", ["sensor", "auto"])
def test_switched_on_once(switch: Switch, mode: HdrMode) -> None:
    hdr = SensorHdr()
    for _ in range(2):
        hdr.switch_mode(0, mode, "a camera")
    assert (switch.moves, hdr.is_on, hdr.is_available) == ([True], True, True)


def test_control_that_cannot_be_set(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    switch.is_stuck = True
    hdr = SensorHdr()
    with pytest.raises(NotSupported, match="a camera: the sensor's HDR cannot be switched on now"):
        hdr.switch_mode(0, "sensor", "a camera")
    switch.is_on = True
    with caplog.at_level(logging.WARNING):
        hdr.switch_mode(0, "off", "a camera")  # the camera works without it
    assert "Failed to switch off the sensor's HDR" in caplog.text
    assert hdr.is_on is True


def test_sensor_without_hdr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdr_module, "hdr_device", lambda number: None)
    hdr = SensorHdr()
    hdr.switch_mode(0, "auto", "a camera")
    assert (hdr.is_available, hdr.is_on) == (False, None)
    with pytest.raises(NotSupported, match="its sensor has no HDR"):
        hdr.switch_mode(0, "sensor", "a camera")


def test_unreadable_control() -> None:
    device: Any = type("Device", (), {"device_fd": None})()
    assert hdr_module.is_hdr_on(device) is None
    with Path("/dev/null").open("rb") as nothing:
        device.device_fd = nothing
        assert hdr_module.is_hdr_on(device) is None
