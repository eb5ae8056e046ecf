"""The checks of the camera on the pattern camera in a session, also with its faults."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.pattern.camera import PatternCamera
from softcam.camera.session.manager import CameraManager, SessionLimits, SessionState
from softcam.components.diagnosis import NoStore
from softcam.controls.controller import ControlManager
from softcam.controls.writer import BackgroundWriter
from softcam.diagnose.camera import CheckedCamera, CheckedParts
from softcam.diagnose.controls import PROBES, check_group
from softcam.diagnose.encoders import check_h264, check_jpeg
from softcam.diagnose.openings import check_openings
from softcam.diagnose.report import Finding, Status
from softcam.diagnose.stream import (
    check_autofocus,
    check_first_frame,
    check_frame_rate,
    check_sensor_modes,
    check_still,
)
from softcam.errors import CameraBusy, CameraError, CameraStuck, NotSupported
from softcam.h264.bitrate import automatic_bitrate
from softcam.h264.encoder import VideoEncoder
from softcam.runtime.deadline import Deadline
from tests.support.background import soon
from tests.support.timeouts import PATIENCE_S

REQUEST = StreamRequest(320, 180, 25.0)
NOT_REPORTED = {"autofocus", "autofocus_range", "hdr", "transform"}


def no_crash(reason: str) -> None:
    raise AssertionError(reason)


def connect(
    faults: Path,
    limits: SessionLimits,
    on_failure: Callable[[CameraError], None],
    *,
    expects_hardware: bool = False,
    watchdog_timeout_s: float = PATIENCE_S,
    require: Callable[[], None] = lambda: None,
) -> CheckedParts:
    session = SessionState(
        PatternCamera(REQUEST, faults_file=faults),
        linger_s=0.0,
        watchdog_timeout_s=watchdog_timeout_s,
        on_failure=on_failure,
        limits=limits,
    )
    manager = CameraManager(session, autofocus_timeout_s=2.0, has_autofocus=True)
    controls = ControlManager(manager, REQUEST, NoStore(), BackgroundWriter(no_crash))
    video = VideoEncoder(manager.frames, lambda: controls.stream_fps, automatic_bitrate, no_crash, require=require)
    return CheckedParts(manager, controls, video, lambda: expects_hardware)


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    return tmp_path / "faults"


@pytest.fixture
def camera(faults: Path) -> Iterator[CheckedCamera]:
    """A camera that is not connected yet."""
    checked = CheckedCamera(partial(connect, faults, SessionLimits()))
    yield checked
    faults.unlink(missing_ok=True)
    assert checked.close(soon())


@pytest.fixture
def watched_camera(faults: Path) -> Iterator[CheckedCamera]:
    """As `camera`, with a watchdog that restarts the stream soon."""
    checked = CheckedCamera(partial(connect, faults, SessionLimits(), watchdog_timeout_s=0.5))
    yield checked
    faults.unlink(missing_ok=True)
    assert checked.close(soon())


@pytest.fixture(scope="module")
def open_camera(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CheckedCamera]:
    """A camera that delivers frames, for all tests that leave it so."""
    checked = CheckedCamera(partial(connect, tmp_path_factory.mktemp("faults") / "none", SessionLimits()))
    assert check_first_frame(checked).status is Status.OK
    yield checked
    assert checked.error is None
    assert checked.close(soon())


# Without faults


def test_first_frame(camera: CheckedCamera) -> None:
    assert camera.error == "the camera delivers no frames"
    finding = check_first_frame(camera)
    assert finding.status is Status.OK
    assert camera.error is None
    assert (finding.data["backend"], finding.data["width"], finding.data["pixel_format"]) == ("pattern", 320, "YUV420")
    assert 0 < finding.data["first_frame_s"] < soon().remaining_s
    assert "AfMode" in finding.data["controls"]


def test_sensor_modes(open_camera: CheckedCamera) -> None:
    finding = check_sensor_modes(open_camera)
    assert finding.status is Status.OK
    assert finding.message.startswith("3 modes: 1536x864 10 bit up to 120.13 fps, ")
    assert finding.message.endswith("; used: 2304x1296")
    assert finding.data["modes"][finding.data["used"]]["size"] == (2304, 1296)


def test_frame_rate(open_camera: CheckedCamera) -> None:
    finding = check_frame_rate(open_camera, 0.5)
    assert finding.data["requested_fps"] == 25.0
    # The last of the frames ends the time.
    assert finding.data["frames"] + finding.data["missing_frames"] >= 12


def test_autofocus(open_camera: CheckedCamera) -> None:
    finding = check_autofocus(open_camera)
    assert finding.status is Status.OK
    assert finding.data["verdict"] == "focused"
    assert finding.data["lens_position"] == pytest.approx(1.8, abs=0.2)


def test_still(open_camera: CheckedCamera) -> None:
    finding = check_still(open_camera)
    assert finding.status is Status.OK
    assert (finding.data["width"], finding.data["height"]) == (4608, 2592)
    assert finding.data["pause_ms"] >= finding.data["took_ms"] * 0.9
    assert finding.data["jpeg_bytes"] > 100_000


@pytest.mark.parametrize("name", PROBES)
def test_control(open_camera: CheckedCamera, name: str) -> None:
    finding = check_group(open_camera, name)
    assert finding.status is Status.OK, finding.message
    assert ("accepted" in finding.message) == (name in NOT_REPORTED)
    assert open_camera.parts.controls.requested.is_empty, "the controls were not reset"


def test_jpeg(open_camera: CheckedCamera) -> None:
    finding = check_jpeg(open_camera, 80)
    assert finding.data["frames"] == 20
    assert 0 < finding.data["ms_per_frame"] <= finding.data["max_ms"]
    assert finding.data["bytes_per_frame"] > 1_000


def test_h264(open_camera: CheckedCamera) -> None:
    finding = check_h264(open_camera)
    assert finding.data["encoder"] == "libx264"
    assert (finding.data["width"], finding.data["height"]) == (320, 180)
    assert finding.data["packets"] >= 40
    assert 0 < finding.data["ms_per_frame"] <= finding.data["max_ms"]


def test_openings(camera: CheckedCamera) -> None:
    check_first_frame(camera)
    finding = check_openings(camera, 5)
    assert finding.status in (Status.OK, Status.WARNING), finding.message  # other threads of the tests count, too
    assert len(finding.data["rounds"]) == finding.data["openings"] == 5
    assert camera.manager.status().opens == 6
    assert camera.manager.state == "closed"


# With faults


def test_busy_camera(camera: CheckedCamera, faults: Path) -> None:
    faults.write_text("busy")
    with pytest.raises(CameraBusy, match="in use by another program"):
        check_first_frame(camera)
    assert camera.error == "camera failed: the pattern camera is in use by another program"


def test_camera_without_frames(watched_camera: CheckedCamera, faults: Path) -> None:
    """It is restarted and reopened as in the portal, and then given up."""
    faults.write_text("hang")
    with pytest.raises(CameraError, match="no frame"):
        check_first_frame(watched_camera)
    assert watched_camera.error is not None


def test_camera_that_stops(watched_camera: CheckedCamera, faults: Path) -> None:
    check_first_frame(watched_camera)
    watched_camera.manager.wait_settled(soon().at_s)
    faults.write_text("hang-once")
    finding = check_frame_rate(watched_camera, 2.0)
    assert finding.status is Status.FAILED
    assert finding.message.startswith("the stream had to be restarted: no frame for")


@pytest.mark.parametrize(
    ("fault", "status", "verdict"),
    [("no-focus", Status.WARNING, "failed"), ("endless-focus", Status.FAILED, "timed out")],
)
def test_autofocus_without_result(
    camera: CheckedCamera, faults: Path, fault: str, status: Status, verdict: str
) -> None:
    faults.write_text(fault)
    check_first_frame(camera)
    finding = check_autofocus(camera)
    assert (finding.status, finding.data["verdict"]) == (status, verdict)
    assert "contrast" in str(finding.cure)


def hanging(call: str, faults: Path, check: Callable[[CheckedCamera], Finding]) -> CheckedCamera:
    limits = {
        "open": SessionLimits(open_s=0.2),
        "still": SessionLimits(still_s=0.2),
        "close": SessionLimits(close_s=0.2),
    }
    camera = CheckedCamera(partial(connect, faults, limits[call]))
    if call != "open":
        check_first_frame(camera)
    faults.write_text(f"hang-{call}")
    with pytest.raises(CameraStuck, match="the camera hangs"):
        check(camera)
    assert "hangs" in str(camera.error)
    return camera


@pytest.mark.parametrize(
    ("call", "check"), [("open", check_first_frame), ("still", check_still), ("close", check_openings)]
)
def test_camera_that_hangs(faults: Path, call: str, check: Callable[[CheckedCamera], Finding]) -> None:
    camera = hanging(call, faults, check)
    assert not camera.close(Deadline.after(0.1)), "it hangs"
    faults.unlink()
    assert camera.close(soon())


def test_control_that_the_camera_refuses(camera: CheckedCamera, faults: Path) -> None:
    check_first_frame(camera)
    faults.write_text("refuse")
    with pytest.raises(CameraError, match="does not start mirrored"):
        check_group(camera, "transform")
    assert camera.wait_frames(1, 5.0)


def test_h264_without_encoder(faults: Path) -> None:
    def require() -> None:
        raise NotSupported("H.264 requires PyAV")

    camera = CheckedCamera(partial(connect, faults, SessionLimits(), require=require))
    check_first_frame(camera)
    finding = check_h264(camera)
    assert (finding.status, finding.message) == (Status.WARNING, "no H.264: H.264 requires PyAV")
    assert finding.cure == "sudo apt install python3-av"
    assert camera.close(soon())


def test_h264_with_another_encoder_than_expected(faults: Path) -> None:
    camera = CheckedCamera(partial(connect, faults, SessionLimits(), expects_hardware=True))
    check_first_frame(camera)
    finding = check_h264(camera)
    assert finding.status is Status.WARNING
    assert finding.message.endswith("the hardware encoder did not work")
    assert camera.close(soon())


def test_end_while_connecting(faults: Path) -> None:
    """The diagnosis was interrupted: a camera that is found later is not opened any more."""
    camera = CheckedCamera(partial(connect, faults, SessionLimits()))
    assert camera.close(soon())
    with pytest.raises(CameraError, match="the diagnosis has ended"):
        check_first_frame(camera)


def test_disabled_camera() -> None:
    camera = CheckedCamera(None)
    assert camera.error == "the camera is disabled in the settings"
    began_s = time.monotonic()
    assert camera.close(Deadline.after(100.0))
    assert time.monotonic() - began_s < soon().remaining_s
