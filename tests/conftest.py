"""What all tests may ask for: the real portal as a process, a watch over leaks, and the rule that CI skips nothing.

No product code is imported here, so that a fault in it fails tests and not the collection.
"""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

PROJECT = Path(__file__).resolve().parent.parent
LISTENING = re.compile(r"Listening on (http://\S+)")
PATIENCE_S = 20.0  # for what takes a moment on an idle machine: only a fault ever waits so long


def pytest_configure() -> None:
    """Whoever is started in the background ignores Ctrl+C, and so would all that tests start and interrupt."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


# What hypothesis and schemathesis think up is the same in every run: a check that fails tells of the change, and not of
# its luck. `SOFT_STREAM_FRESH_CASES=1` looks for new cases; what it finds becomes a test of its own. No case has a
# deadline, as how long it takes tells of the machine.

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


# In CI a skipped test would be green without having shown anything, so there it fails, and says what it lacked.


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
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_where_skipped(report)
    return report


# Side by side, with `-n`: a group is done by one worker, from its first test to its last, and a group is a file unless
# it is named here. Those named come first, the longest before the others, so that the end finds every worker at work.
# Files with tests that want to be alone come last: while the virtual machine boots, they would make all others wait.

_GROUPS = (
    ("tests/deploy/test_devices.py", "virtual machine"),
    ("tests/deploy/", "container"),  # one for all of them; and they look for what deployments left in /tmp
    ("tests/process/", None),
    ("tests/browser/", None),
    ("tests/rig/", None),
    ("", None),
)


def _place(nodeid: str) -> tuple[int, str]:
    """When the test's group has its turn, and the group's name."""
    path = nodeid.partition("::")[0]
    turn, name = next((turn, name) for turn, (start, name) in enumerate(_GROUPS) if path.startswith(start))
    return turn, name or path


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if hasattr(config, "workerinput"):  # alone, the quick tests come first
        is_early = {item.path: True for item in items}
        for item in items:
            if item.get_closest_marker("alone") is not None and _place(item.nodeid)[1] != "container":
                is_early[item.path] = False
        items.sort(key=lambda item: (not is_early[item.path], _place(item.nodeid)[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling  # only where it is installed

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _place(nodeid)[1]

    config.option.loadscopereorder = False  # it would take the order of the groups' numbers of tests
    return GroupScheduling(config, log)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest-timeout's: waiting for others is no test's time
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    if not hasattr(item.config, "workerinput"):
        return (yield)
    # Any two things that can be opened would do, as long as every worker takes the same.
    gate, room = (os.open(path, os.O_RDONLY) for path in (__file__, Path(__file__).parent))
    try:
        fcntl.flock(gate, fcntl.LOCK_EX)  # one who waits to be alone in the room lets nobody else in
        fcntl.flock(room, fcntl.LOCK_SH if item.get_closest_marker("alone") is None else fcntl.LOCK_EX)
        fcntl.flock(gate, fcntl.LOCK_UN)
        return (yield)
    finally:
        os.close(room)
        os.close(gate)


class Portal:
    """A running `soft_stream.py`, seen from outside: its address, its log, its exit code."""

    def __init__(self, arguments: list[str], environment: Mapping[str, str]) -> None:
        self._grown = threading.Condition()  # guards lines and _is_log_over
        self.lines: list[str] = []
        self._is_log_over = False
        self.process = subprocess.Popen(
            [sys.executable, "-u", str(PROJECT / "soft_stream.py"), *arguments],
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
        """Everything that was printed until now."""
        with self._grown:
            return "".join(self.lines)

    @property
    def url(self) -> str:
        """Where it listens, without a slash at the end; waits until the log says so."""
        return self.wait_for_log(LISTENING)[1].rstrip("/")

    def wait_for_log(
        self, pattern: str | re.Pattern[str], *, timeout_s: float = PATIENCE_S, nth: int = 1
    ) -> re.Match[str]:
        """The `nth` match of `pattern` in the log, since the start; an AssertionError with the log where none comes."""
        deadline_s = time.monotonic() + timeout_s
        with self._grown:
            while True:
                found = [match for line in self.lines if (match := re.search(pattern, line))]
                if len(found) >= nth:
                    return found[nth - 1]
                left_s = deadline_s - time.monotonic()
                if left_s <= 0 or self._is_log_over:
                    why = "the process ended" if self._is_log_over else f"{timeout_s} s passed"
                    raise AssertionError(f"no line {nth} with {pattern!r} before {why}:\n{''.join(self.lines)}")
                self._grown.wait(left_s)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """The exit code; an AssertionError with the log where it does not end."""
        try:
            code = self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout_s} s:\n{self.log}") from None
        self._reader.join(timeout_s)
        return code

    def stop(self, by: signal.Signals = signal.SIGTERM, *, timeout_s: float = PATIENCE_S) -> int:
        """Ask it to stop, and give its exit code; the one it had where it ended before."""
        if self.process.poll() is None:
            self.process.send_signal(by)
        return self.wait(timeout_s)

    def end(self) -> None:
        """Whatever happened, leave nothing running: this very process, and nothing else."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join(PATIENCE_S)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def threads(self) -> list[str]:
        """The names of its threads, as the kernel knows them (15 characters)."""
        return [_read_or_nothing(task / "comm") for task in Path(f"/proc/{self.pid}/task").iterdir()]

    def descriptors(self) -> list[str]:
        """What its open descriptors lead to."""
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
    except OSError:  # the thread ended meanwhile
        return ""


def _open_descriptors(pid: int | str = "self") -> list[str]:
    leads_to = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            leads_to.append(str(link.readlink()))
        except OSError:  # closed meanwhile, as the listing's own descriptor always is
            continue
    return sorted(leads_to)


@pytest.fixture
def start_portal(tmp_path: Path) -> Iterator[Callable[..., Portal]]:
    """`start_portal(*flags, camera="pattern", environment={…})` starts the real process on a port of its own.

    Settings of whoever runs the tests do not reach it, and its state lies in the test's folder. All that were started
    are ended after the test.
    """
    started: list[Portal] = []

    def start(*flags: str, camera: str | None = "pattern", environment: Mapping[str, str] | None = None) -> Portal:
        clean = {
            name: value
            for name, value in os.environ.items()
            if not re.match(r"CAMERA$|CAMERA_|cam\d+_|STATE_DIRECTORY$|NOTIFY_SOCKET$|WATCHDOG_", name)
        }
        clean["XDG_STATE_HOME"] = str(tmp_path / "state")
        arguments = [*([] if camera is None else ["--camera", camera]), *flags]
        if "--port" not in flags:
            arguments += ["--port", "0"]
        portal = Portal(arguments, clean | dict(environment or {}))
        started.append(portal)
        return portal

    yield start
    for portal in started:
        portal.end()


@pytest.fixture
def portal(start_portal: Callable[..., Portal]) -> Portal:
    """The portal on the pattern camera, listening."""
    portal = start_portal()
    portal.wait_for_log(LISTENING)
    return portal


@pytest.fixture
def wait_until() -> Callable[..., None]:
    """`wait_until(predicate, what="…")` for what nobody announces: returns when it holds, fails after a while."""
    return _wait_until


def _wait_until(predicate: Callable[[], Any], what: str = "it", timeout_s: float = PATIENCE_S) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not predicate():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what} did not come true within {timeout_s} s")
        time.sleep(0.01)


@pytest.fixture
def no_leaks() -> Callable[..., AbstractContextManager[None]]:
    """`with no_leaks(timeout_s=5):` fails where the block leaves threads or descriptors of this process behind."""
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

    deadline_s = time.monotonic() + timeout_s  # a thread that was told to end may need a moment
    while left() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert left() == []
