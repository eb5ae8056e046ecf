"""A whole diagnosis in this process: the order of the checks, both forms of the report, the log, its end."""

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from softcam.components.diagnosis import build_diagnosis
from softcam.config.loader import load
from softcam.controls.schema import GROUPS
from softcam.diagnose.camera import CheckedCamera
from softcam.diagnose.diagnosis import Diagnosis
from softcam.diagnose.libcamera_log import LibcameraLog, problems_in
from softcam.diagnose.machine import MachineChecks
from softcam.runtime.log.logbook import Logbook
from softcam.runtime.redact import Redactor
from tests.support.diagnose import checks_of, parse_report, statuses_of
from tests.support.machines import PI_3, write_tree

KEY = "correct-horse-battery"
MACHINE = ["versions", "permissions", "throttling", "memory", "disk", "cameras"]
CAMERA = [
    *("sensor_modes", "frame_rate", "autofocus", "still"),
    *(f"control.{group.name}" for group in GROUPS),
    *("jpeg", "h264", "openings"),
]
LOG_VARIABLE = "LIBCAMERA_LOG_FILE"


@pytest.fixture(autouse=True)
def _variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LOG_VARIABLE, "")


@pytest.fixture
def logbook() -> Iterator[Logbook]:
    book = Logbook()
    book.install()
    level = logging.getLogger().level
    logging.getLogger().setLevel(logging.INFO)
    yield book
    logging.getLogger().setLevel(level)
    logging.getLogger().removeHandler(book._handler)


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(logbook: Logbook, tmp_path: Path) -> Run:
    """Run a diagnosis with these flags; returns the exit code and what it wrote."""

    def start(*flags: str, as_json: bool = True, interrupt: bool = False) -> tuple[int, str]:
        settings = load([*flags, "--state-dir", str(tmp_path)], {"CAMERA_API_KEY": KEY})
        diagnosis = build_diagnosis(settings, logbook.memory)
        if interrupt:
            diagnosis.interrupt(signal.SIGINT)
        lines: list[str] = []
        return diagnosis.run(lines.append, as_json=as_json), "\n".join(lines)

    return start


@pytest.fixture
def busy(tmp_path: Path) -> tuple[str, ...]:
    """The flags of a pattern camera that another program uses."""
    faults = tmp_path / "faults"
    faults.write_text("busy")
    return "--camera", "pattern", "--pattern-faults", str(faults)


def test_busy_camera_as_json(run: Run, busy: tuple[str, ...]) -> None:
    code, text = run(*busy, "--width", "640")
    assert code == 1
    report = parse_report(text)
    assert [check["id"] for check in report["checks"]] == [*MACHINE, "first_frame", *CAMERA]
    first = checks_of(report)["first_frame"]
    assert (first["status"], first["message"]) == ("failed", "the pattern camera is in use by another program")
    assert "systemctl stop" in first["cure"]
    statuses = statuses_of(report)
    assert {statuses[name] for name in CAMERA} == {"not_applicable"}
    assert "width = 640  (--width)" in report["settings"]
    assert "api_key = set  (CAMERA_API_KEY)" in report["settings"]
    assert not [line for line in report["settings"] if line.endswith(("(default)", "(as the stream)"))]
    assert any("in use by another program" in line for line in report["log"])
    assert KEY not in text


def test_busy_camera_as_text(run: Run, busy: tuple[str, ...]) -> None:
    code, text = run(*busy, as_json=False)
    assert code == 1
    lines = text.splitlines()
    assert lines[0].startswith("Soft Stream ")
    assert [line for line in ("Machine", "Camera", "Settings", "Log") if line not in lines] == []
    (failed,) = [number for number, line in enumerate(lines) if line.startswith("failed")]
    assert lines[failed].split(maxsplit=2)[1:] == ["first_frame", "the pattern camera is in use by another program"]
    assert lines[failed + 1].lstrip().startswith("> stop the other program")
    (skipped,) = [line for line in lines if f"{len(CAMERA)} more checks" in line]
    assert "camera failed: the pattern camera is in use" in skipped
    assert " 1 failed, " in lines[-1]


def test_disabled_camera(run: Run) -> None:
    code, text = run("--camera", "pattern", "--disabled")
    report = parse_report(text)
    assert [check["id"] for check in report["checks"]] == [*MACHINE, *CAMERA]
    assert checks_of(report)["still"]["message"] == "the camera is disabled in the settings"
    assert code == 0


def test_invalid_tuning_file(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong with the configuration only turns out when the camera is found."""
    monkeypatch.setattr("softcam.diagnose.machine.list_cameras", list)
    monkeypatch.setattr("softcam.diagnose.machine.picamera2", lambda: None)
    monkeypatch.setattr("softcam.diagnose.machine.libcamera_version", lambda: "v0.5.2")
    code, text = run("--camera", "0", "--tuning-file", "/none.json")
    assert code == 1
    checks = checks_of(parse_report(text))
    assert checks["versions"]["data"]["libcamera"] == "v0.5.2"
    assert checks["cameras"]["status"] == "failed"
    assert checks["first_frame"]["status"] == "failed"
    assert "tuning_file /none.json: must be a file" in checks["first_frame"]["message"]


def test_throttled_machine(logbook: Logbook, tmp_path: Path) -> None:
    """A Raspberry Pi 3 with a weak power supply: a warning, which is not a failure."""
    machine = MachineChecks(
        is_real=False, frame_size=(640, 360), folders={"state_dir": tmp_path}, root=write_tree(tmp_path, PI_3)
    )
    diagnosis = Diagnosis(
        machine,
        CheckedCamera(None),
        camera_name="pattern",
        quality=80,
        settings=[],
        redact=Redactor(),
        log_memory=logbook.memory,
        libcamera_log=LibcameraLog({}),
    )
    lines: list[str] = []
    assert diagnosis.run(lines.append, as_json=True) == 0
    report = parse_report("\n".join(lines))
    checks = checks_of(report)
    assert report["status"] == "warning"
    assert checks["versions"]["data"]["model"] == "Raspberry Pi 3 Model B Plus Rev 1.3"
    assert checks["throttling"]["status"] == "warning"
    assert checks["throttling"]["message"].startswith("The supply voltage is too low.")
    assert checks["throttling"]["cure"].startswith("Use the official power supply")
    assert checks["throttling"]["data"]["now"]["under_voltage"] is True


def test_interruption(run: Run, busy: tuple[str, ...]) -> None:
    code, text = run(*busy, interrupt=True)
    report = parse_report(text)
    assert (code, report["status"], report["interrupted_by"]) == (1, "failed", "SIGINT")
    assert report["checks"] == []


def test_saved_controls_are_left_alone(run: Run, busy: tuple[str, ...], tmp_path: Path) -> None:
    saved = tmp_path / "controls-pattern.json"
    saved.write_text("damaged")
    run(*busy)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["controls-pattern.json", "faults"]
    assert saved.read_text() == "damaged"


# The log of libcamera


def test_log_of_libcamera() -> None:
    environ: dict[str, str] = {}
    log = LibcameraLog(environ)
    path = Path(environ[LOG_VARIABLE])
    path.write_text(
        "[0:00:01] [7]  INFO Camera camera_manager.cpp:1 v0.5\n\n[0:00:02] [7] ERROR V4L2 v4l2.cpp:2 \x1b[1m\n"
    )
    assert log.lines() == [
        "[0:00:01] [7]  INFO Camera camera_manager.cpp:1 v0.5",
        "[0:00:02] [7] ERROR V4L2 v4l2.cpp:2 \\x1b[1m",
    ]
    assert problems_in(log.lines()) == log.lines()[1:]
    log.close()
    assert not path.exists()
    assert log.lines() == []


def test_log_of_libcamera_that_the_user_directed_elsewhere(tmp_path: Path) -> None:
    own = tmp_path / "own.log"
    own.write_text("[0:00:01] [7] ERROR something\n")
    environ = {LOG_VARIABLE: str(own)}
    log = LibcameraLog(environ)
    assert environ == {LOG_VARIABLE: str(own)}
    assert log.lines() == []
    log.close()
    assert own.exists()


def test_no_temporary_file_is_left(run: Run, busy: tuple[str, ...]) -> None:
    run(*busy)
    path = os.environ[LOG_VARIABLE]
    assert path
    assert not Path(path).exists()
