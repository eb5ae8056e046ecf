"""The state of the machine at one moment. Any thread may request it; there is no thread that samples.

What can block in the kernel is read in short-lived threads (see `bounded`), so a request takes half a second at most.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from softcam.net.event_loop import EventLoop
from softcam.runtime.deadline import Clock, Deadline
from softcam.system import firmware, resources
from softcam.system.bounded import BoundedRead
from softcam.system.disk import DiskSpace, disk_space
from softcam.system.network import Network, WifiSignal, network, wifi_signals
from softcam.system.reader import Reader
from softcam.system.throttling import Throttling, ThrottlingWatch

_MIN_INTERVAL_S: Final = 1.0  # a more recent state is returned again
_MAX_INTERVAL_S: Final = 60.0  # between the two readings that the processor's load is the difference of
_PAUSE_S: Final = 0.1  # between two readings for that, where the previous one is older: ten ticks of a processor
_TIMEOUT_S: Final = 0.5  # for everything that may block


@dataclass(frozen=True, slots=True)
class MachineState:
    """None where this machine does not have it, it cannot be read, or what is read is not plausible."""

    temperature_c: float | None
    busy_percent: float | None  # of all processors
    load_average: tuple[float, float, float] | None
    cores: int | None
    memory: resources.Memory | None
    network: Network | None
    wifi: WifiSignal | None
    disk: DiskSpace | None
    throttling: Throttling | None
    uptime_s: float | None
    boot_id: str | None
    service_uptime_s: float


class SystemMonitor:
    """Reads the state of the machine, at most once a second."""

    def __init__(
        self,
        folder: Path,
        loop: EventLoop | None = None,
        record_folder: Path | None = None,
        *,
        root: Path = Path("/"),
        clock: Clock = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
        timeout_s: float = _TIMEOUT_S,
    ) -> None:
        """`folder` is where the portal writes; its disk is reported. `loop` and `record_folder` are for
        `ThrottlingWatch`."""
        self._reader = reader = Reader(root)
        self._clock = clock
        self._pause = pause
        self._timeout_s = timeout_s
        self._throttling = ThrottlingWatch(reader, loop, record_folder, clock=clock)
        self._began_s = clock()
        self._lock = threading.Lock()  # guards the fields below
        self._signals = BoundedRead("system-wifi", partial(wifi_signals, reader), (root / "proc/net/wireless").exists)
        self._flags = BoundedRead(
            "system-firmware", partial(firmware.throttled_flags, root), (root / firmware.DEVICE).exists
        )
        self._disk = BoundedRead("system-disk", partial(disk_space, reader, folder))
        self._times = resources.processor_times(reader)
        self._times_s = self._began_s
        self._state: MachineState | None = None
        self._state_s = 0.0

    def state(self) -> MachineState:
        """The state now, or that of less than a second ago."""
        with self._lock:
            if self._state is None or self._clock() - self._state_s >= _MIN_INTERVAL_S:
                self._state = self._read()
                self._state_s = self._clock()
            return self._state

    def _read(self) -> MachineState:
        """With the lock held."""
        reader = self._reader
        deadline = Deadline.after(self._timeout_s)
        for slow in (self._signals, self._flags, self._disk):
            slow.start_read()
        found = network(reader)
        busy_percent = self._read_busy_percent()
        signals = self._signals.value(deadline) or []
        # That of the interface in use; else of another one, which may be a second way into the machine.
        wifi = min(signals, key=lambda signal: found is None or signal.interface != found.interface, default=None)
        return MachineState(
            temperature_c=resources.temperature_c(reader),
            busy_percent=busy_percent,
            load_average=resources.load_average(reader),
            cores=None if self._times is None else self._times.cores,
            memory=resources.memory(reader),
            network=found,
            wifi=wifi,
            disk=self._disk.value(deadline),
            throttling=self._throttling.read(self._flags.value(deadline)),
            uptime_s=resources.uptime_s(reader),
            boot_id=resources.boot_id(reader),
            service_uptime_s=self._clock() - self._began_s,
        )

    def _read_busy_percent(self) -> float | None:
        """Since the previous reading, unless that was too long ago for a state "now"."""
        if self._clock() - self._times_s > _MAX_INTERVAL_S:
            self._times = resources.processor_times(self._reader)
            self._pause(_PAUSE_S)
        before, self._times = self._times, resources.processor_times(self._reader)
        self._times_s = self._clock()
        return None if before is None or self._times is None else resources.busy_percent(before, self._times)
