"""`--diagnose` of a real process: whole reports, cameras that fail, signals, secrets."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.conftest import PROJECT, Portal
from tests.support.diagnose import checks_of, parse_report, statuses_of
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]

SMALL = ("--width", "320", "--height", "180", "--fps", "10")
NOT_HERE = {"cameras", "throttling"}  # machines for tests may not have them
STOP_LIMIT_S = 5.0 * TIMEOUT_FACTOR
NO_PICAMERA2 = "raise ModuleNotFoundError(\"No module named 'picamera2'\", name='picamera2')\n"
NO_CAMERA = "class Picamera2:\n    @staticmethod\n    def global_camera_info():\n        return []\n"
HANGING_LIST = f"import time\n{NO_CAMERA.replace('return []', 'time.sleep(1000)')}"


def diagnose(
    *flags: str, camera: str = "pattern", environment: Mapping[str, str] = {}, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run `--diagnose` to its end, with a state folder in `folder`."""
    command = [sys.executable, str(PROJECT / "soft_stream.py"), "--camera", camera, "--diagnose", *flags]
    return subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "XDG_STATE_HOME": str(folder), **environment},
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
        check=False,
    )


def fake_picamera2(folder: Path, source: str) -> Mapping[str, str]:
    """An environment in which `import picamera2` imports this source."""
    package = folder / "picamera2"
    package.mkdir()
    (package / "__init__.py").write_text(source)
    (package / "platform.py").write_text("")
    (folder / "libcamera.py").write_text("class CameraManager:\n    version = 'v0.5.2'\n")
    return {"PYTHONPATH": str(folder)}


@pytest.mark.timeout(2 * RUN_LIMIT_S)
def test_report_of_pattern_camera(tmp_path: Path) -> None:
    done = diagnose("--json", *SMALL, folder=tmp_path)
    assert done.stderr == ""
    report = parse_report(done.stdout)
    statuses = statuses_of(report)
    assert {name for name, status in statuses.items() if status == "not_applicable"} <= NOT_HERE
    assert {name: status for name, status in statuses.items() if status == "failed"} == {}
    assert done.returncode == 0
    checks = checks_of(report)
    assert checks["first_frame"]["data"]["backend"] == "pattern"
    assert checks["frame_rate"]["data"]["requested_fps"] == 10
    assert checks["frame_rate"]["took_s"] >= 5
    assert checks["still"]["data"]["width"] == 4608
    assert checks["control.manual_exposure"]["data"]["expected"]["ExposureTime"] == 10_000
    assert checks["h264"]["data"]["encoder"] == "libx264"
    openings = checks["openings"]["data"]
    assert openings["openings"] == 10
    assert (openings["leaked_descriptors"], openings["leaked_threads"]) == (0, 0)
    assert sum("Camera closed" in line for line in report["log"]) >= 10
    assert list(tmp_path.iterdir()) == [], "nothing is saved"


@pytest.mark.parametrize(
    ("source", "message", "cure"),
    [(NO_PICAMERA2, "picamera2 is missing", "python3-picamera2"), (NO_CAMERA, "no camera found", "ribbon cable")],
)
def test_machine_without_camera(tmp_path: Path, source: str, message: str, cure: str) -> None:
    done = diagnose(camera="0", environment=fake_picamera2(tmp_path, source), folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr == ""
    lines = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert [line.split()[1] for line in lines][-2:] == ["cameras", "first_frame"]
    assert message in lines[-2]
    assert cure in done.stdout
    assert "more checks" in done.stdout


def test_list_of_cameras_that_hangs(tmp_path: Path) -> None:
    done = diagnose("--json", camera="0", environment=fake_picamera2(tmp_path, HANGING_LIST), folder=tmp_path)
    assert done.returncode == 1
    checks = checks_of(parse_report(done.stdout))
    assert checks["cameras"]["message"] == "no result within 20 s: it hangs"
    assert checks["first_frame"]["message"] == "no result within 45 s: it hangs"
    assert checks["still"]["message"] == "the check first_frame hangs"


def test_camera_that_hangs(tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    faults.write_text("hang-open")
    done = diagnose("--pattern-faults", str(faults), folder=tmp_path / "state")
    assert done.returncode == 1
    (failed,) = [line for line in done.stdout.splitlines() if line.startswith("failed")]
    assert failed.endswith("opening the camera takes more than 20 s: the camera hangs")
    assert "Camera did not close in time" in done.stdout


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_signal(start_portal: Start, by: signal.Signals) -> None:
    portal = start_portal("--diagnose", *SMALL)
    portal.wait_for_log("^ok .*sensor_modes")
    began_s = time.monotonic()
    assert portal.stop(by) == 1
    assert time.monotonic() - began_s < STOP_LIMIT_S
    assert portal.log.rstrip().endswith(f"interrupted by {by.name}")
    assert "Traceback" not in portal.log


def test_signal_while_the_camera_hangs(start_portal: Start, tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    faults.write_text("hang-open")
    portal = start_portal("--diagnose", *SMALL, "--pattern-faults", str(faults))
    portal.wait_for_log("cameras")
    assert portal.stop(signal.SIGTERM) == 1
    assert portal.log.rstrip().endswith("interrupted by SIGTERM")


def test_reader_that_leaves(tmp_path: Path) -> None:
    """As with `| head -1`: the diagnosis ends in order."""
    faults = tmp_path / "faults"
    faults.write_text("busy")
    command = [sys.executable, str(PROJECT / "soft_stream.py"), "--camera", "pattern", "--diagnose"]
    with subprocess.Popen(
        [*command, "--pattern-faults", str(faults)],
        env={"PATH": "/usr/bin:/bin", "XDG_STATE_HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE_S) == 1


def test_secrets_do_not_appear(tmp_path: Path) -> None:
    password, key = "tr0ub4dor-and-three", "correct-horse-battery"
    environment = {"CAMERA_API_KEY": key, "CAMERA_RTSP_URL": f"rtsp://user:{password}@127.0.0.1:9/cam0"}
    camera = f"http://user:{password}@127.0.0.1:9/stream.mjpg?token={key}"
    for flags in (("--json",), ()):
        done = diagnose(*flags, camera=camera, environment=environment, folder=tmp_path)
        assert done.returncode == 1
        assert "no image from http://127.0.0.1:9/stream.mjpg: Connection refused" in done.stdout
        assert "check that the source is running" in done.stdout
        for secret in (password, key):
            assert secret not in done.stdout + done.stderr


@pytest.mark.parametrize("flags", [("--json",), ("--diagnose", "--check"), ("--diagnose", "--width", "wide")])
def test_invalid_flags(start_portal: Start, flags: tuple[str, ...]) -> None:
    assert start_portal(*flags).wait() == 2
