"""The switch of the sensor's HDR: it is moved where the driver says that it stands wrong, whoever left it so."""

import logging
from pathlib import Path
from typing import Any, Self

import pytest

from softcam.camera.picamera import hdr as hdr_module
from softcam.camera.picamera.hdr import SensorHdr
from softcam.errors import NotSupported


class Switch:
    """Picamera2's device over the kernel's switch, which stays where it is when a process ends."""

    def __init__(self) -> None:
        self.is_on = False
        self.is_stuck = False
        self.tells = True
        self.moves: list[bool] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def set_sensor_hdr_mode(self, enable: bool) -> None:
        self.moves.append(enable)
        if not self.is_stuck:  # otherwise Picamera2 prints, and goes on
            self.is_on = enable


@pytest.fixture
def switch(monkeypatch: pytest.MonkeyPatch) -> Switch:
    switch = Switch()
    monkeypatch.setattr(hdr_module, "hdr_switch", lambda place: switch)
    monkeypatch.setattr(hdr_module, "is_hdr_on", lambda device: device.is_on if device.tells else None)
    return switch


@pytest.mark.parametrize("tells", [True, False])
def test_what_another_process_left_on_is_switched_off(switch: Switch, tells: bool) -> None:
    switch.is_on, switch.tells = True, tells
    hdr = SensorHdr()
    hdr.switch(0, "off", "a camera")
    assert (switch.is_on, switch.moves, hdr.is_on) == (False, [False], False)
    hdr.switch(0, "off", "a camera")
    assert switch.moves == [False]


@pytest.mark.parametrize("wish", ["sensor", "auto"])
def test_it_is_switched_on_once(switch: Switch, wish: str) -> None:
    hdr = SensorHdr()
    for _ in range(2):
        hdr.switch(0, wish, "a camera")
    assert (switch.moves, hdr.is_on, hdr.is_there) == ([True], True, True)


def test_one_that_does_not_move_is_told(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    switch.is_stuck = True
    hdr = SensorHdr()
    with pytest.raises(NotSupported, match="a camera: the sensor's HDR cannot be switched on now"):
        hdr.switch(0, "sensor", "a camera")
    switch.is_on = True
    with caplog.at_level(logging.WARNING):
        hdr.switch(0, "off", "a camera")  # the camera works all the same
    assert "cannot be switched off now" in caplog.text
    assert hdr.is_on is True


def test_a_sensor_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdr_module, "hdr_switch", lambda place: None)
    hdr = SensorHdr()
    hdr.switch(0, "auto", "a camera")
    assert (hdr.is_there, hdr.is_on) == (False, None)
    with pytest.raises(NotSupported, match="its sensor has no HDR"):
        hdr.switch(0, "sensor", "a camera")


def test_a_driver_that_does_not_tell() -> None:
    device: Any = type("Device", (), {"device_fd": None})()
    assert hdr_module.is_hdr_on(device) is None
    with Path("/dev/null").open("rb") as nothing:
        device.device_fd = nothing
        assert hdr_module.is_hdr_on(device) is None
