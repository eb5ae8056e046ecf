"""The state of a machine at one moment: what it consists of, how often it is read, and that nothing delays it."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from softcam.system import firmware
from softcam.system.monitor import MachineState, SystemMonitor
from softcam.system.network import WifiSignal
from tests.support.machines import MACHINES, PI_3, PI_4, stat, wireless, write_tree


class Clock:
    def __init__(self) -> None:
        self.now_s = 5_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def monitor(tmp_path: Path, clock: Clock) -> SystemMonitor:
    write_tree(tmp_path, PI_3)
    return SystemMonitor(tmp_path, root=tmp_path, clock=clock, pause=lambda _: None)


def fields(state: MachineState) -> dict[str, object]:
    return {name: getattr(state, name) for name in MachineState.__slots__}


def test_state(monitor: SystemMonitor, clock: Clock, tmp_path: Path) -> None:
    write_tree(tmp_path, {"proc/stat": stat(40_000 + 150, 300_000 + 100)})
    clock.now_s += 2
    state = monitor.state()
    assert state.busy_percent == pytest.approx(75)
    assert (state.cores, state.load_average, state.uptime_s) == (4, (1.52, 1.07, 0.61), 93784.21)
    assert state.temperature_c == pytest.approx(58.312)
    assert state.service_uptime_s == 2.0
    assert state.wifi == WifiSignal("wlan0", -58)
    assert None not in fields(state).values()


@pytest.mark.parametrize("name", MACHINES)
def test_machines(name: str, tmp_path: Path) -> None:
    state = SystemMonitor(tmp_path, root=write_tree(tmp_path, MACHINES[name]), pause=lambda _: None).state()
    missing = {field for field, value in fields(state).items() if value is None}
    assert missing == {"busy_percent"} | {
        "Pi 5, hot": {"wifi"},
        "Zero 2 W": {"wifi", "temperature_c", "throttling"},
    }.get(name, set())


def test_empty_machine(tmp_path: Path) -> None:
    state = SystemMonitor(tmp_path, root=tmp_path, pause=lambda _: None).state()
    assert {field for field, value in fields(state).items() if value is not None} == {"disk", "service_uptime_s"}


def test_interval(monitor: SystemMonitor, clock: Clock, tmp_path: Path) -> None:
    first = monitor.state()
    clock.now_s += 0.9
    assert monitor.state() is first
    clock.now_s += 0.1
    assert monitor.state() is not first


@pytest.mark.parametrize(("passed_s", "pauses"), [(59.0, []), (61.0, [0.1])])
def test_old_reading_is_not_used(passed_s: float, pauses: list[float], tmp_path: Path, clock: Clock) -> None:
    """After an hour without a request, the average over that hour is not how busy the processor is now."""
    made: list[float] = []

    def pause(duration_s: float) -> None:
        made.append(duration_s)
        write_tree(tmp_path, {"proc/stat": stat(1_010, 9_980)})

    write_tree(tmp_path, {"proc/stat": stat(0, 0)})
    monitor = SystemMonitor(tmp_path, root=tmp_path, clock=clock, pause=pause)
    write_tree(tmp_path, {"proc/stat": stat(1_000, 9_000)})
    clock.now_s += passed_s
    expected = 100 * 20 / 1_000 if pauses else 100 * 2_000 / 11_000
    assert monitor.state().busy_percent == pytest.approx(expected)
    assert made == pauses


def test_signal_of_the_interface_in_use(tmp_path: Path, clock: Clock) -> None:
    write_tree(tmp_path, PI_3 | {"proc/net/wireless": wireless(("wlan1", -40), ("wlan0", -58))})
    assert SystemMonitor(tmp_path, root=tmp_path).state().wifi == WifiSignal("wlan0", -58)
    write_tree(tmp_path, PI_4)
    assert SystemMonitor(tmp_path, root=tmp_path).state().wifi == WifiSignal("wlan0", -71), "not in use, but connected"


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Replaces a file by a pipe that blocks its readers, as drivers do that wait for a lock."""
    writers = []
    really_open = os.open

    def open_blocking(path: os.PathLike[str], flags: int, *more: int) -> int:
        return really_open(path, flags & ~os.O_NONBLOCK if Path(path).is_fifo() else flags, *more)

    def hang(path: str) -> None:
        Path(path).unlink()
        os.mkfifo(path)
        writers.append(really_open(path, os.O_RDWR))

    monkeypatch.setattr(os, "open", open_blocking)
    yield hang
    for writer in writers:
        os.write(writer, b"\n")
        os.close(writer)


def test_wifi_driver_that_hangs(hang: Callable[[str], None], tmp_path: Path, clock: Clock) -> None:
    write_tree(tmp_path, PI_3)
    monitor = SystemMonitor(tmp_path, root=tmp_path, clock=clock, timeout_s=0.01)
    hang(str(tmp_path / "proc/net/wireless"))
    began_s = time.monotonic()
    for _ in range(3):
        state = monitor.state()
        assert state.wifi is None
        assert state.memory is not None
        clock.now_s += 1
    assert time.monotonic() - began_s < 5


def test_firmware(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firmware, "throttled_flags", lambda root: 0xE0000)
    write_tree(tmp_path, PI_4 | {firmware.DEVICE: ""})
    state = SystemMonitor(tmp_path, root=tmp_path).state()
    assert state.throttling is not None
    assert state.throttling.raw == 0xE0000
