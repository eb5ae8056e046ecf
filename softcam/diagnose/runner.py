"""Runs checks one after the other, each in its own thread, so that one that hangs ends with a finding.

The main thread waits in a `SimpleQueue`, which a signal handler may put into at any moment. A thread that hangs is
abandoned: the process then exits without it.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Final

from softcam.diagnose.report import CHECK_CABLE, Finding, Result, Status
from softcam.errors import CameraBusy, CameraMissing, CameraStuck, NoPicture, NotSupported, PortalError
from softcam.runtime.deadline import Deadline

log = logging.getLogger(__name__)

_HANGS: Final = "restart the machine; check the ribbon cable and the power supply; look for errors in 'sudo dmesg'"
_CURES: Final[tuple[tuple[type[PortalError], str], ...]] = (
    (CameraMissing, CHECK_CABLE),
    (CameraBusy, "stop the other program; if it is the portal: sudo systemctl stop 'camera-soft-cam@*'"),
    (CameraStuck, _HANGS),
    (NoPicture, _HANGS),
)


@dataclass(frozen=True, slots=True, eq=False)
class Check:
    """One check. It counts as hanging after `limit_s`; `uses_camera`: it needs the open camera."""

    id: str
    section: str
    run: Callable[[], Finding]
    limit_s: float
    uses_camera: bool = False


class Runner:
    """Runs the checks. The main thread calls `run`; `interrupt` may be called in a signal handler."""

    def __init__(self, camera_error: Callable[[], str | None]) -> None:
        """`camera_error` returns why there is no open camera to check; None if there is one."""
        self._camera_error = camera_error
        self._events: SimpleQueue[tuple[Check, Finding] | signal.Signals] = SimpleQueue()
        # Of the main thread only:
        self._hanging: Check | None = None
        self.interrupted_by: signal.Signals | None = None

    def interrupt(self, number: signal.Signals) -> None:
        self._events.put(number)

    def run(self, checks: Iterable[Check], on_result: Callable[[Result], None]) -> list[Result]:
        """The results of all checks, or of those that ended before a signal."""
        results: list[Result] = []
        for check in checks:
            began_s = time.monotonic()
            error = self._skip_reason(check)
            finding = self._run_check(check) if error is None else Finding(Status.NOT_APPLICABLE, error)
            if finding is None:
                break
            took_s = time.monotonic() - began_s
            results.append(Result(check.id, check.section, finding, took_s, is_skipped=error is not None))
            on_result(results[-1])
        return results

    def _skip_reason(self, check: Check) -> str | None:
        if not check.uses_camera:
            return None
        return self._camera_error() if self._hanging is None else f"the check {self._hanging.id} hangs"

    def _run_check(self, check: Check) -> Finding | None:
        """The finding; None after a signal."""
        thread = threading.Thread(target=self._find, args=[check], name=f"check-{check.id}", daemon=True)
        thread.start()
        deadline = Deadline.after(check.limit_s)
        while True:
            try:
                event = self._events.get(timeout=deadline.remaining_s)
            except Empty:
                self._hanging = check
                log.error("Check %s hangs", check.id)
                return Finding(Status.FAILED, f"no result within {check.limit_s:.0f} s: it hangs", _HANGS)
            if isinstance(event, signal.Signals):
                self.interrupted_by = event
                return None
            if event[0] is check:
                thread.join(deadline.remaining_s)
                return event[1]

    def _find(self, check: Check) -> None:
        """Run the check, on its thread."""
        try:
            finding = check.run()
        except NotSupported as error:
            finding = Finding(Status.NOT_APPLICABLE, str(error))
        except PortalError as error:
            finding = Finding(Status.FAILED, str(error), _cure_of(error))
        except Exception as error:
            log.exception("Check %s failed", check.id)
            finding = Finding(Status.FAILED, f"unexpected error: {type(error).__name__}: {error}")
        self._events.put((check, finding))


def _cure_of(error: PortalError) -> str | None:
    return next((cure for kind, cure in _CURES if isinstance(error, kind)), None)
