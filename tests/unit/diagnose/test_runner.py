"""The runner: order, errors, deadlines, checks that need the camera, interruption."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator

import pytest

from softcam.diagnose.report import Finding, Result, Status
from softcam.diagnose.runner import Check, Runner
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck, NoPicture, NotSupported
from tests.support.timeouts import PATIENCE_S

FINE = Finding(Status.OK, "fine")


def check(name: str, run: Callable[[], Finding] = lambda: FINE, *, uses_camera: bool = False) -> Check:
    return Check(name, "Machine", run, PATIENCE_S, uses_camera=uses_camera)


def raising(error: Exception) -> Callable[[], Finding]:
    def run() -> Finding:
        raise error

    return run


def run_all(*checks: Check, camera_error: str | None = None) -> list[Result]:
    shown: list[Result] = []
    results = Runner(lambda: camera_error).run(checks, shown.append)
    assert shown == results
    return results


@pytest.fixture
def ended() -> Iterator[threading.Event]:
    """For checks that hang: they end with the test."""
    event = threading.Event()
    yield event
    event.set()


def test_order() -> None:
    order: list[str] = []

    def run(name: str) -> Callable[[], Finding]:
        def note() -> Finding:
            order.append(f"{name} in {threading.current_thread().name}")
            return FINE

        return note

    results = run_all(check("first", run("first")), check("second", run("second")))
    assert order == ["first in check-first", "second in check-second"]
    assert [(result.id, result.finding, result.is_skipped) for result in results] == [
        ("first", FINE, False),
        ("second", FINE, False),
    ]


@pytest.mark.parametrize(
    ("error", "status", "message", "cure"),
    [
        (CameraBusy("it is busy"), Status.FAILED, "it is busy", "systemctl stop"),
        (CameraMissing("it is gone"), Status.FAILED, "it is gone", "ribbon cable"),
        (CameraStuck("it hangs"), Status.FAILED, "it hangs", "restart the machine"),
        (NoPicture("no frame"), Status.FAILED, "no frame", "restart the machine"),
        (CameraError("something else"), Status.FAILED, "something else", None),
        (NotSupported("no autofocus"), Status.NOT_APPLICABLE, "no autofocus", None),
    ],
)
def test_errors_of_the_camera(error: CameraError, status: Status, message: str, cure: str | None) -> None:
    failed, after = run_all(check("broken", raising(error)), check("after"))
    assert (failed.finding.status, failed.finding.message) == (status, message)
    assert failed.finding.cure is None if cure is None else cure in str(failed.finding.cure)
    assert after.finding is FINE


def test_unexpected_error_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    (result,) = run_all(check("broken", raising(ZeroDivisionError("by zero"))))
    assert result.finding == Finding(Status.FAILED, "unexpected error: ZeroDivisionError: by zero")
    assert [record.getMessage() for record in caplog.records if record.exc_info] == ["Check broken failed"]


def test_check_that_hangs(ended: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    def hang() -> Finding:
        ended.wait(PATIENCE_S)
        return FINE

    caplog.set_level(logging.ERROR)
    hanging = Check("first_frame", "Camera", hang, 0.05)
    results = run_all(hanging, check("still", uses_camera=True), check("disk"))
    assert [result.finding.status for result in results] == [Status.FAILED, Status.NOT_APPLICABLE, Status.OK]
    assert results[0].finding.message == "no result within 0 s: it hangs"
    assert "restart the machine" in str(results[0].finding.cure)
    assert (results[1].finding.message, results[1].is_skipped) == ("the check first_frame hangs", True)
    assert caplog.messages == ["Check first_frame hangs"]


def test_late_result_of_a_check_that_hung(ended: threading.Event) -> None:
    """It is not taken for that of the next check."""
    late = Finding(Status.OK, "late")

    def hang() -> Finding:
        ended.wait(PATIENCE_S)
        return late

    def release() -> Finding:
        ended.set()
        for thread in threading.enumerate():
            if thread.name == "check-slow":
                thread.join(PATIENCE_S)
        return FINE

    slow, after = run_all(Check("slow", "Machine", hang, 0.05), check("after", release))
    assert slow.finding.status is Status.FAILED
    assert after.finding is FINE


def test_checks_without_open_camera() -> None:
    machine, camera = run_all(check("disk"), check("still", uses_camera=True), camera_error="no camera")
    assert machine.finding is FINE
    assert (camera.finding, camera.is_skipped) == (Finding(Status.NOT_APPLICABLE, "no camera"), True)


def test_interruption(ended: threading.Event) -> None:
    runner = Runner(lambda: None)

    def hang() -> Finding:
        runner.interrupt(signal.SIGTERM)
        ended.wait(PATIENCE_S)
        return FINE

    results = runner.run([check("done"), check("hanging", hang), check("never")], lambda _: None)
    assert [result.id for result in results] == ["done"]
    assert runner.interrupted_by is signal.SIGTERM
