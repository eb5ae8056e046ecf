"""Fixtures for all tests: the real portal as a process, a leak check, and the rule that CI skips nothing.

No product code is imported here, so that an error in it fails tests and not the collection.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from tests.support import guard, scheduling
from tests.support.timeouts import PATIENCE_S, TEST_LIMIT_S

PROJECT = Path(__file__).resolve().parent.parent
_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
BYTECODE = PROJECT / ".cache" / "bytecode"  # of the portals, which would compile the package at each start without it
LISTENING = re.compile(r"Listening on (http://\S+)")


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads its options
def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(scheduling, "test order")
    if not hasattr(config, "workerinput"):  # a worker of xdist is guarded as all others that the run starts
        guard.start(os.environ)
    if getattr(config.option, "timeout", 0) is None:
        config.option.timeout = TEST_LIMIT_S
    # A program that a shell starts in the background ignores Ctrl+C, and so would all programs that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # SIGTERM ends a run as Ctrl+C does: the fixtures stop what they started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


# hypothesis and schemathesis generate the same cases in every run, so that a failure is caused by the change under
# test. `SOFT_STREAM_FRESH_CASES=1` generates new cases; one that fails becomes a test. No case has a deadline, which
# would depend on the machine.

HAS_FRESH_CASES = os.environ.get("SOFT_STREAM_FRESH_CASES", "") not in ("", "0", "false")
hypothesis_settings.register_profile(
    "soft stream",
    hypothesis_settings.get_profile("default"),
    derandomize=not HAS_FRESH_CASES,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
hypothesis_settings.load_profile("soft stream")


# In CI a skipped test fails with the reason for the skip: it would pass without having tested anything.


def _fail_where_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    is_expected_failure = hasattr(report, "wasxfail")  # these count as "skipped" inside pytest
    if os.environ.get("CI", "") in ("", "0", "false") or not report.skipped or is_expected_failure:
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    report.outcome = "failed"
    report.longrepr = f"{report.nodeid}: in CI nothing may be skipped ({reason})"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_where_skipped(report)
    # A lone surrogate cannot be sent by a worker of pytest-xdist.
    report.sections = [(name, text.encode(errors="backslashreplace").decode()) for name, text in report.sections]
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_where_skipped(report)
    return report


class Portal:
    """A running `soft_stream.py` process: its address, its log, its exit code.

    The kernel kills it when the thread that started it ends, so that a killed test run leaves no portal behind.
    """

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._grown = threading.Condition()  # guards lines, _first_line and _is_log_over
        self.environment = environment
        self.lines: list[str] = []
        self._first_line = 0  # of the log that tests see
        self._is_log_over = False
        self.process = subprocess.Popen(
            [*_WITH_PARENT, sys.executable, "-u", str(PROJECT / "soft_stream.py"), *arguments],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, name="portal log", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """All output so far."""
        with self._grown:
            return "".join(self.lines[self._first_line :])

    def forget_log(self) -> None:
        """Start an empty log, for the next test that uses this portal."""
        assert self.url
        with self._grown:
            self._first_line = len(self.lines)

    @cached_property
    def url(self) -> str:
        """The address from the log without a final slash; waits until the portal listens."""
        return self.wait_for_log(LISTENING)[1].rstrip("/")

    def wait_for_log(
        self, pattern: str | re.Pattern[str], *, timeout_s: float = PATIENCE_S, nth: int = 1
    ) -> re.Match[str]:
        """Wait for the `nth` match of `pattern` in the whole log; AssertionError with the log on a timeout."""
        deadline_s = time.monotonic() + timeout_s
        with self._grown:
            while True:
                found = [match for line in self.lines[self._first_line :] if (match := re.search(pattern, line))]
                if len(found) >= nth:
                    return found[nth - 1]
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or self._is_log_over:
                    why = "the process ended" if self._is_log_over else f"{timeout_s} s passed"
                    raise AssertionError(f"no line {nth} with {pattern!r} before {why}:\n{''.join(self.lines)}")
                self._grown.wait(left_s)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for the exit code; AssertionError with the log on a timeout."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s:\n{self.log}") from None
        self._reader.join(timeout_s)
        return code

    def stop(self, by: signal.Signals = signal.SIGTERM, *, timeout_s: float = PATIENCE_S) -> int:
        """Send the signal `by` unless it has exited already, and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        return self.wait(timeout_s)

    def end(self) -> None:
        """Kill the process if it is still running, and close its output."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def threads(self) -> list[str]:
        """The names of its threads in the kernel (at most 15 characters)."""
        return [_read_or_nothing(task / "comm") for task in Path(f"/proc/{self.pid}/task").iterdir()]

    def descriptors(self) -> list[str]:
        """The targets of its open file descriptors."""
        return _open_descriptors(self.pid)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._grown:
                self.lines.append(line)
                self._grown.notify_all()
        with self._grown:
            self._is_log_over = True
            self._grown.notify_all()


def _read_or_nothing(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # the thread has ended
        return ""


def _open_descriptors(pid: int | str = "self") -> list[str]:
    targets = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            targets.append(str(link.readlink()))
        except OSError:  # closed since the listing, as its own descriptor always is
            continue
    return sorted(targets)


@contextmanager
def portals(state_home: Path) -> Iterator[Callable[..., Portal]]:
    """Yield the function that the fixture `start_portal` describes; end what it started on exit."""
    started: list[Portal] = []

    def start(*flags: str, camera: str | None = "pattern", environment: Mapping[str, str] | None = None) -> Portal:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not re.match(
                r"CAMERA$|CAMERA_|cam\d+_|STATE_DIRECTORY$|RUNTIME_DIRECTORY$|XDG_RUNTIME_DIR$|NOTIFY_SOCKET$|WATCHDOG_|"
                r"PYTHONDONTWRITEBYTECODE$",
                name,
            )
        }
        clean |= {"XDG_STATE_HOME": str(state_home), "PYTHONPYCACHEPREFIX": str(BYTECODE)}
        arguments = [*([] if camera is None else ["--camera", camera]), *flags]
        if "--port" not in flags:
            arguments += ["--port", "0"]
        portal = Portal(arguments, clean | dict(environment or {}))
        started.append(portal)
        return portal

    try:
        yield start
    finally:
        for portal in started:
            portal.end()


@pytest.fixture
def start_portal(tmp_path: Path) -> Iterator[Callable[..., Portal]]:
    """`start_portal(*flags, camera="pattern", environment={…})` starts the real process on a free port.

    The settings of the surrounding shell are removed from its environment, and its state directory is in the test's
    folder. All started processes are ended after the test.
    """
    with portals(tmp_path / "state") as start:
        yield start


@pytest.fixture(scope="module")
def start_shared_portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Portal]]:
    """Like `start_portal`, for portals that all tests of a module share; see `tests.support.http_client.reset`."""
    with portals(tmp_path_factory.mktemp("shared") / "state") as start:
        yield start


@pytest.fixture(scope="module")
def portal_flags() -> tuple[str, ...]:
    """The flags of the portal that a module shares; modules override them."""
    return ()


@pytest.fixture(scope="module")
def _shared_portals() -> list[Portal]:
    return []


@pytest.fixture
def portal(
    start_shared_portal: Callable[..., Portal], portal_flags: tuple[str, ...], _shared_portals: list[Portal]
) -> Portal:
    """A portal on the pattern camera, listening: shared by a module, without controls, clients and log of other tests.

    Its counters and files remain. If a test has stopped it, the next test gets a new one.
    """
    from tests.support.http_client import reset  # imports this module

    if not _shared_portals or _shared_portals[-1].process.poll() is not None:
        _shared_portals.append(start_shared_portal(*portal_flags))
    reset(_shared_portals[-1])
    return _shared_portals[-1]


@pytest.fixture(scope="module")
def shared_faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `faults`, for a portal that the tests of a module share; a test leaves it empty."""
    path = tmp_path_factory.mktemp("pattern") / "faults"
    path.write_text("")
    return path


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    """The file that injects faults into the pattern camera; initially empty."""
    path = tmp_path / "faults"
    path.write_text("")
    return path


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """`wait_until(predicate, what="…")` polls a condition that no event reports; it fails on a timeout."""
    return _wait_until


def _wait_until(predicate: Callable[[], Any], what: str = "it", timeout_s: float = PATIENCE_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what}: not within {timeout_s} s")
        time.sleep(0.01)


@pytest.fixture
def no_leaks() -> Callable[..., AbstractContextManager[None]]:
    """`with no_leaks(timeout_s=5):` fails if the block leaves threads or file descriptors of this process open."""
    return _no_leaks


@contextmanager
def _no_leaks(timeout_s: float = 5.0) -> Iterator[None]:
    threads_before = set(threading.enumerate())
    descriptors_before = _open_descriptors()
    yield

    def left() -> list[str]:
        threads = [thread.name for thread in threading.enumerate() if thread not in threads_before]
        descriptors = _open_descriptors()
        for known in descriptors_before:
            if known in descriptors:
                descriptors.remove(known)
        return [f"thread {name}" for name in threads] + [f"descriptor to {target}" for target in descriptors]

    deadline_s = time.monotonic() + timeout_s  # a stopped thread may need a moment
    while left() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert left() == []
