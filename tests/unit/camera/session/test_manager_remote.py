"""`CameraManager` with a remote camera, which is waited for and never ends the process."""

import logging
import time
from collections.abc import Callable, Iterator

import pytest

from softcam.camera.base import Remote, StreamConfig
from softcam.camera.session.decision import Wait
from softcam.camera.session.manager import SessionLimits, State
from softcam.errors import CameraMissing, NoPicture
from softcam.imaging.frame import Frame
from tests.support.background import eventually, soon_s
from tests.support.fakes import FakeCamera, SessionRig

AWAY = "rtsp://camera/: Connection refused"
OTHER = StreamConfig(32, 24, "YUV420", (64, 48), can_flip=False)


class RemoteCamera(FakeCamera):
    """A `FakeCamera` that can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.disconnect_reason: str | None = None
        self._on_disconnect: Callable[[], None] = lambda: None

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        self._on_disconnect = callback

    def cancel_open(self) -> None:
        self.is_cancelled = True

    def disconnect(self, reason: str = AWAY) -> None:
        self.disconnect_reason = reason
        self._on_disconnect()

    def reconnect(self) -> Frame:
        frame = self.emit()
        self.disconnect_reason = None
        return frame


@pytest.fixture
def camera() -> RemoteCamera:
    return RemoteCamera()


@pytest.fixture
def held(camera: RemoteCamera) -> Iterator[SessionRig]:
    with SessionRig(camera, watchdog_timeout_s=60.0, limits=SessionLimits(absence_s=0.1)) as held:
        yield held


def test_disconnected_when_opened(held: SessionRig, camera: RemoteCamera) -> None:
    camera.disconnect_reason = AWAY
    with held.manager.lease("stream"):
        held.wait_for(State.RECOVERING)
        assert held.manager.recovery_reason == AWAY
        assert held.manager.wait_ready(soon_s()) is camera.config, "viewers stay and see the placeholder"
        camera.reconnect()
        held.wait_for(State.OPEN)
        assert held.manager.recovery_reason is None
        assert held.manager.status().last_error is None


def test_log_does_not_say_that_an_absent_source_streams(
    held: SessionRig, camera: RemoteCamera, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    camera.disconnect_reason = AWAY
    with held.manager.lease("stream"):
        held.wait_for(State.RECOVERING)
    assert f"Camera waits for its source: {AWAY}" in caplog.messages
    assert "Camera open" not in caplog.text


def test_disconnect_while_open(held: SessionRig, camera: RemoteCamera) -> None:
    with held.manager.lease("stream"):
        held.wait_for(State.OPEN)
        camera.reconnect()
        camera.disconnect()
        held.wait_for(State.RECOVERING)
        assert held.manager.recovery_reason == AWAY
        camera.disconnect("rtsp://camera/: it does not answer")
        eventually(lambda: held.manager.recovery_reason == "rtsp://camera/: it does not answer")
        assert held.manager.frames.held() is None
        assert held.manager.health_error() is None
        assert held.decision(3600) == Wait(), "it is waited for without an end"
        camera.reconnect()
        held.wait_for(State.OPEN)
        status = held.manager.status()
        assert (status.restarts, status.last_error) == (1, None)
    assert camera.calls == ["open"]


def test_short_disconnect(held: SessionRig, camera: RemoteCamera) -> None:
    with held.manager.lease("stream"):
        held.wait_for(State.OPEN)
        camera.reconnect()
        camera.disconnect()
        camera.reconnect()
        assert isinstance(held.decision(0.15), Wait)
        assert held.manager.status().restarts == 0


def test_silence_while_connected_restarts_without_limit(held: SessionRig, camera: RemoteCamera) -> None:
    with held.manager.lease("stream"):
        held.wait_for(State.OPEN)
        for _ in range(4):
            held.stall()
        assert camera.calls == ["open"] + ["restart"] * 4


def test_reconnect_with_another_size(held: SessionRig, camera: RemoteCamera) -> None:
    with held.manager.lease("stream"):
        held.wait_for(State.OPEN)
        camera.reconnect()
        camera.config = OTHER
        camera.reconnect()
        eventually(lambda: held.manager.status().config is OTHER)
        assert held.manager.wait_ready(soon_s()) is OTHER


def test_reason_in_the_error_of_a_snapshot(held: SessionRig, camera: RemoteCamera) -> None:
    camera.disconnect_reason = AWAY
    with held.manager.lease("snapshot"):
        held.wait_for(State.RECOVERING)
        with pytest.raises(NoPicture, match="Connection refused"):
            held.manager.wait_frame(0.0, time.monotonic() + 0.1)
    held.wait_for(State.CLOSED)
    assert held.manager.status().last_error == AWAY
    camera.disconnect_reason = None
    with held.manager.lease("snapshot"):
        held.wait_for(State.OPEN)
        assert held.manager.status().last_error is None, "it is there again"


def test_short_leases_of_a_disconnected_camera(held: SessionRig, camera: RemoteCamera) -> None:
    camera.disconnect_reason = AWAY
    for _ in range(5):
        with held.manager.lease("snapshot"):
            held.wait_for(State.RECOVERING)
        held.wait_for(State.CLOSED)
    assert camera.count("open") == 5


def test_unplugged_device(held: SessionRig, camera: RemoteCamera) -> None:
    lease = held.open()
    camera.is_there = False
    camera.disconnect("/dev/video0: No such device")
    assert isinstance(held.take_failure(), CameraMissing)
    lease.release()


def test_remote_protocol(camera: RemoteCamera) -> None:
    assert isinstance(camera, Remote)
    assert not isinstance(FakeCamera(), Remote)
