"""The flags of each source, and those that are collected since the boot."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

import pytest

from softcam.net.event_loop import EventLoop, Handler
from softcam.runtime.log.events import Event
from softcam.system.reader import Reader
from softcam.system.throttling import CONDITIONS, Throttling, ThrottlingWatch, parse_flags
from tests.support.background import eventually, soon
from tests.support.log_events import logged_events
from tests.support.machines import ALARM, FLAGS, FLAGS_OF_PI_5, MODEL, Files, hwmon, write_tree
from tests.support.timeouts import PATIENCE_S

UNDER_VOLTAGE, CAPPED, THROTTLED, HOT = CONDITIONS
ALARM_0 = {"sys/class/hwmon/hwmon0/name": "cpu_thermal\n", "sys/class/hwmon/hwmon1/name": "rpi_volt\n", ALARM: "0\n"}
ALARM_1 = ALARM_0 | {ALARM: "1\n"}


def active(flags: dict[str, bool | None]) -> list[str]:
    return [name for name, flag in flags.items() if flag]


def read(root: Path, files: Files) -> Throttling | None:
    return ThrottlingWatch(Reader(write_tree(root, files))).read()


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("50005\n", 0x50005),
        ("0\n", 0),
        ("0x50000", 0x50000),
        ("throttled=0xe0008\n", 0xE0008),
        ("ffffffff", 0xFFFFFFFF),
        ("fffffffff", None),
        ("", None),
        ("-5", None),
        ("under-voltage", None),
        ("\0\0", None),
        ("5 5", None),
        ("٣", None),
    ],
)
def test_parse_flags(text: str, flags: int | None) -> None:
    assert parse_flags(text) == flags


@pytest.mark.parametrize("name", [FLAGS, FLAGS_OF_PI_5])
@pytest.mark.parametrize(
    ("text", "now", "since_boot", "raw"),
    [
        ("0", [], [], 0),
        ("1", [UNDER_VOLTAGE], [UNDER_VOLTAGE], 0x10001),
        ("2", [CAPPED], [CAPPED], 0x20002),
        ("4", [THROTTLED], [THROTTLED], 0x40004),
        ("8", [HOT], [HOT], 0x80008),
        ("10000", [], [UNDER_VOLTAGE], 0x10000),
        ("20000", [], [CAPPED], 0x20000),
        ("40000", [], [THROTTLED], 0x40000),
        ("80000", [], [HOT], 0x80000),
        ("50005", [UNDER_VOLTAGE, THROTTLED], [UNDER_VOLTAGE, THROTTLED], 0x50005),
        ("e0008", [HOT], [CAPPED, THROTTLED, HOT], 0xE0008),
        ("fffffff0", [], [*CONDITIONS], 0xF0000),
    ],
)
def test_all_flags(name: str, text: str, now: list[str], since_boot: list[str], raw: int, tmp_path: Path) -> None:
    found = read(tmp_path, {name: text, **ALARM_1})
    assert found is not None
    assert (active(found.by_name(found.now)), active(found.by_name(found.since_boot))) == (now, since_boot)
    assert None not in found.by_name(found.now).values()
    assert found.raw == raw


@pytest.mark.parametrize(("files", "is_active"), [(ALARM_0, False), (ALARM_1, True)])
def test_under_voltage_alone(files: Files, is_active: bool, tmp_path: Path) -> None:
    found = read(tmp_path, files)
    assert found is not None
    unknown = dict.fromkeys(CONDITIONS[1:])
    assert found.by_name(found.now) == {UNDER_VOLTAGE: is_active, **unknown}
    assert found.by_name(found.since_boot) == {UNDER_VOLTAGE: is_active, **unknown}
    assert found.raw is None
    assert not found.has(*CONDITIONS[1:])


def test_model_that_does_not_measure_its_voltage(tmp_path: Path) -> None:
    model = {MODEL: "Raspberry Pi Zero 2 W Rev 1.0\0"}
    found = read(tmp_path, model | {FLAGS: "80008\n"})
    assert found is not None
    assert found.by_name(found.now) == {UNDER_VOLTAGE: None, CAPPED: False, THROTTLED: False, HOT: True}
    assert found.raw == 0x80008
    (tmp_path / FLAGS).unlink()
    assert read(tmp_path, ALARM_0) is None


@pytest.mark.parametrize(
    "files",
    [
        {},
        hwmon("cpu_thermal", "rp1_adc"),
        {"sys/class/hwmon/hwmon1/in0_lcrit_alarm": "1\n"},  # a device without a name
        ALARM_0 | {ALARM: ""},
        ALARM_0 | {ALARM: "yes"},
        {FLAGS: ""},
        {FLAGS: "\0\1\2"},
        {FLAGS: "f" * 100},
    ],
)
def test_unknown(files: Files, tmp_path: Path) -> None:
    assert read(tmp_path, files) is None


def test_firmware_has_priority(tmp_path: Path) -> None:
    watch = ThrottlingWatch(Reader(write_tree(tmp_path, {FLAGS: "0\n"})), clock=lambda: 160.0)
    assert watch.read(0xE0008) == Throttling(0b1000, 0b1110, 0b1111, observed_s=160.0)


def test_flags_are_collected(tmp_path: Path) -> None:
    """The kernel forgets a flag after two seconds."""
    write_tree(tmp_path, {FLAGS: "50005\n"})
    watch = ThrottlingWatch(Reader(tmp_path), clock=lambda: 20.0)
    assert watch.read() == Throttling(0b0101, 0b0101, 0b1111, observed_s=0.0)
    write_tree(tmp_path, {FLAGS: "20000\n"})
    assert watch.read() == Throttling(0b0000, 0b0111, 0b1111, observed_s=0.0)


def test_under_voltage_is_logged_once_per_boot(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder := tmp_path / "run").mkdir()
    for text in ("20000", "50005", "0", "10001"):
        write_tree(tmp_path, {FLAGS: text})
        ThrottlingWatch(Reader(tmp_path), folder=folder, clock=lambda: 20.0).read()
    assert logged_events(caplog) == [Event.UNDER_VOLTAGE]


def test_restart_of_the_portal(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    reader = Reader(tmp_path)
    for text, now_s, since_boot in (
        ("0", 20.0, 0),
        ("0", 50.0, 0),
        ("10000", 70.0, 1),
        ("80000", 80.0, 9),
        ("0", 90.0, 9),
    ):
        write_tree(tmp_path, {FLAGS: text})
        watch = ThrottlingWatch(reader, folder=folder, clock=lambda now_s=now_s: now_s)  # type: ignore[misc]
        assert watch.read() == Throttling(0, since_boot, 0b1111, observed_s=now_s - 20)


@pytest.mark.parametrize(
    "record",
    [
        "",
        "1",
        "1 20.0",
        "1 20.0 30.0 4",
        "1 20.0 3.0",
        "x 20.0 30.0",
        "1 nan 30.0",
        "1 20.0 nan",
        "1 -5 30.0",
        "1 20.0 99999.0",
        "\0\xff",
        "f" * 9 + " 20.0 30.0",
    ],
)
def test_damaged_record(record: str, tmp_path: Path) -> None:
    (tmp_path / "throttling").write_text(record)
    reader = Reader(write_tree(tmp_path, {FLAGS: "0\n"}))
    watch = ThrottlingWatch(reader, folder=tmp_path, clock=lambda: 80.0)
    assert watch.read() == Throttling(0, 0, 0b1111, observed_s=0.0)


def test_time_without_the_portal(tmp_path: Path) -> None:
    """Nobody watched while it was stopped: the flags are still those of this boot, but not all of them."""
    folder = tmp_path / "run"
    folder.mkdir()
    reader = Reader(tmp_path)
    now_s = 100.0
    for text, wait_s, since_boot, observed_s in (
        ("10000", 0.0, 1, 0.0),
        ("0", 60.0, 1, 60.0),
        ("0", 61.0, 1, 0.0),
        ("80000", 30.0, 9, 30.0),
        ("0", 86_400.0, 9, 0.0),
        ("0", 5.0, 9, 5.0),
    ):
        now_s += wait_s
        write_tree(tmp_path, {FLAGS: text})
        watch = ThrottlingWatch(reader, folder=folder, clock=lambda now_s=now_s: now_s)  # type: ignore[misc]
        assert watch.read() == Throttling(0, since_boot, 0b1111, observed_s)


def test_killed_portal_was_watching_until_the_last_read(tmp_path: Path) -> None:
    """A read saves the time, but not each of many."""
    times_s = [100.0]
    reader = Reader(write_tree(tmp_path, {FLAGS: "0\n"}))
    watch = ThrottlingWatch(reader, folder=tmp_path, clock=lambda: times_s[-1])
    saved = set()
    for second in range(60):
        times_s.append(100.0 + second)
        assert watch.read() is not None
        saved.add((tmp_path / "throttling").read_text())
    assert len(saved) == 3
    times_s.append(190.0)
    assert ThrottlingWatch(reader, folder=tmp_path, clock=lambda: times_s[-1]).read() == Throttling(0, 0, 15, 90.0)
    times_s.append(300.0)
    assert ThrottlingWatch(reader, folder=tmp_path, clock=lambda: times_s[-1]).read() == Throttling(0, 0, 15, 0.0)


def test_record_that_cannot_be_written(tmp_path: Path) -> None:
    reader = Reader(write_tree(tmp_path, {FLAGS: "50005\n"}))
    watch = ThrottlingWatch(reader, folder=tmp_path / "missing")
    assert watch.read() is not None
    found = watch.read()
    assert found is not None
    assert found.has_occurred(UNDER_VOLTAGE)


# On the event loop


class SysfsLoop(EventLoop):
    """A loop on which any file can be registered, as those of sysfs can. `notify` is what the kernel does."""

    def __init__(self, crashes: list[str]) -> None:
        super().__init__("test loop", crashes.append)
        self.registered: dict[int, Handler] = {}

    def register(self, fd: int, handler: Handler) -> None:
        self.registered[fd] = handler

    def unregister(self, fd: int) -> None:
        del self.registered[fd]

    def run(self, function: Callable[[], None]) -> None:
        is_done = threading.Event()

        def call() -> None:
            function()
            is_done.set()

        assert self.call(call)
        assert is_done.wait(PATIENCE_S)

    def notify(self) -> None:
        for handler in [*self.registered.values()]:
            self.run(partial(handler, 0))

    @property
    def files(self) -> list[str]:
        self.run(lambda: None)
        return [str(Path(f"/proc/self/fd/{fd}").readlink()) for fd in self.registered]


@pytest.fixture
def loop(no_leaks: Callable[[], AbstractContextManager[None]]) -> Iterator[SysfsLoop]:
    crashes: list[str] = []
    with no_leaks():
        loop = SysfsLoop(crashes)
        loop.start()
        yield loop
        loop.stop(soon())
    assert crashes == []
    assert loop.registered == {}


@pytest.mark.parametrize(("files", "name", "flag"), [({FLAGS: "0\n"}, FLAGS, "10000\n"), (ALARM_0, ALARM, "1\n")])
def test_changes_between_two_reads(files: Files, name: str, flag: str, loop: SysfsLoop, tmp_path: Path) -> None:
    watch = ThrottlingWatch(Reader(write_tree(tmp_path, files)), loop)
    assert loop.files == [str(tmp_path / name)]
    for text in (flag, "0\n"):
        write_tree(tmp_path, {name: text})
        loop.notify()
    found = watch.read()
    assert found is not None
    assert active(found.by_name(found.now)) == []
    assert active(found.by_name(found.since_boot)) == [UNDER_VOLTAGE]


def test_watching_until_the_stop(tmp_path: Path, no_leaks: Callable[[], AbstractContextManager[None]]) -> None:
    """Without a request, too."""
    crashes: list[str] = []
    reader = Reader(write_tree(tmp_path, {FLAGS: "0\n"}))
    times_s = [100.0]
    with no_leaks():
        for began_s, stopped_s in ((100.0, 5000.0), (5020.0, 9000.0)):
            times_s.append(began_s)
            loop = SysfsLoop(crashes)
            ThrottlingWatch(reader, loop, tmp_path, clock=lambda: times_s[-1])
            loop.start()
            assert loop.files
            times_s.append(stopped_s)
            loop.stop(soon())
    assert crashes == []
    for now_s, observed_s in ((9010.0, 8910.0), (90_000.0, 0.0)):
        found = ThrottlingWatch(reader, folder=tmp_path, clock=lambda now_s=now_s: now_s).read()  # type: ignore[misc]
        assert found == Throttling(0, 0, 0b1111, observed_s)


def test_machine_without_flags_has_no_record(tmp_path: Path) -> None:
    crashes: list[str] = []
    loop = SysfsLoop(crashes)
    ThrottlingWatch(Reader(tmp_path), loop, tmp_path)
    loop.start()
    loop.stop(soon())
    assert crashes == []
    assert not (tmp_path / "throttling").exists()


def test_driver_is_loaded_and_unloaded(loop: SysfsLoop, tmp_path: Path) -> None:
    watch = ThrottlingWatch(Reader(tmp_path), loop)
    assert watch.read() is None
    assert loop.files == []
    write_tree(tmp_path, ALARM_1)
    assert watch.read() is not None
    assert loop.files == [str(tmp_path / ALARM)]
    (tmp_path / ALARM).unlink()
    loop.notify()
    assert loop.files == []
    assert watch.read() is None


def test_file_that_cannot_be_polled(tmp_path: Path, no_leaks: Callable[[], AbstractContextManager[None]]) -> None:
    """The real epoll rejects a regular file; then requests alone notice the flags."""
    crashes: list[str] = []
    with no_leaks():
        loop = EventLoop("test loop", crashes.append)
        watch = ThrottlingWatch(Reader(write_tree(tmp_path, {FLAGS: "10000\n"})), loop)
        loop.start()
        is_turn_over = threading.Event()
        loop.call(is_turn_over.set)
        eventually(is_turn_over.is_set)
        assert watch.read() is not None
        loop.stop(soon())
    assert crashes == []
