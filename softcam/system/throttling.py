"""Whether the firmware of a Raspberry Pi slows the processor down, and why: its flags, now and since the boot.

The flags are those of `vcgencmd get_throttled`: bits 0 to 3 now, the same since the boot in bits 16 to 19
(https://www.raspberrypi.com/documentation/computers/os.html#get_throttled). A Linux process can read them in three
places; which of them exist depends on the kernel:

- `/dev/vcio_gencmd`, kernels of Raspberry Pi since May 2026: all flags (see `firmware`).
- `/sys/devices/platform/soc/soc:firmware/get_throttled`, kernels of Raspberry Pi up to 6.6
  (https://github.com/raspberrypi/linux/pull/6697): all flags, but those since the boot last only until the kernel asks
  the firmware again, which it does every two seconds, and clears them. On a Raspberry Pi 5 the folder has another name.
- `in0_lcrit_alarm` of the hwmon device `rpi_volt`, all kernels since 4.19, Debian's too: under-voltage in the last two
  seconds, and nothing else.

The kernel notifies programs that poll the last two of each change (sysfs_notify in drivers/hwmon/raspberrypi-hwmon.c).
`ThrottlingWatch` does, on the event loop, which makes "since the boot" true while the portal runs. The Zero models do
not measure their voltage.
"""

import contextlib
import logging
import os
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softcam.net.event_loop import EventLoop
from softcam.runtime.atomic_file import replace_file
from softcam.runtime.deadline import Clock
from softcam.runtime.log.events import Event
from softcam.system.reader import Reader, decimal

log = logging.getLogger(__name__)

CONDITIONS: Final = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")  # bits 0 to 3
ALL: Final = 0b1111
UNDER_VOLTAGE: Final = 0b0001
_SINCE_BOOT: Final = 16  # the number of the first bit of those since the boot

_MODEL: Final = "proc/device-tree/model"  # for example "Raspberry Pi Zero 2 W Rev 1.0"
_RECORD: Final = "throttling"
_SAVE_INTERVAL_S: Final = 20.0  # at most one save, which is a write to memory; a process may be killed at any time
_MAX_GAP_S: Final = 60.0  # without the portal: longer than a restart, and longer than between two saves
_HWMON: Final = "sys/class/hwmon"
_FLAGS: Final = re.compile(r"(?:throttled=)?(?:0x)?([0-9a-f]{1,8})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, slots=True)
class Throttling:
    """Flags as bits 0 to 3, of which only those in the mask `known` are known.

    `observed_s` is for how long no flag was missed; `since_boot` may contain earlier ones.
    """

    now: int
    since_boot: int
    known: int
    observed_s: float

    @property
    def raw(self) -> int | None:
        """The number that `vcgencmd get_throttled` prints; None if only under-voltage is known."""
        return self.now | self.since_boot << _SINCE_BOOT if self.known & ~UNDER_VOLTAGE else None

    def has(self, *conditions: str) -> bool:
        """Whether one of them is known to be active now."""
        return any(self.by_name(self.now)[name] for name in conditions)

    def has_occurred(self, *conditions: str) -> bool:
        """Whether one of them is known to have been active since the boot."""
        return any(self.by_name(self.since_boot)[name] for name in conditions)

    def by_name(self, flags: int) -> dict[str, bool | None]:
        """`now` or `since_boot` by condition; None if unknown."""
        bits = {name: 1 << bit for bit, name in enumerate(CONDITIONS)}
        return {name: bool(flags & bit) if self.known & bit else None for name, bit in bits.items()}


def parse_flags(text: str) -> int | None:
    """The number in the forms of the kernel, `50005`, and of vcgencmd, `throttled=0x50005`."""
    found = _FLAGS.fullmatch(text.strip())
    return None if found is None else int(found[1], 16)


class ThrottlingWatch:
    """Collects the flags that were set since the boot, while it runs. Any thread may call `read`.

    They are saved in `folder`, if any, which does not survive a boot. So a restart of the portal forgets nothing; after
    a longer time without the portal, the flags are still those since the boot, but `observed_s` begins again.
    """

    def __init__(
        self,
        reader: Reader,
        loop: EventLoop | None = None,
        folder: Path | None = None,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        """Without a loop, only `read` notices the flags. `clock` is in seconds since the boot."""
        self._reader = reader
        self._loop = loop
        self._record = None if folder is None else folder / _RECORD
        self._clock = clock
        self._reported = ALL & ~UNDER_VOLTAGE if " Zero " in (reader.text(_MODEL) or "") else ALL
        saved = _load(self._record, clock())
        self._lock = threading.Lock()  # guards _seen, _saved_s and the file
        self._saved_s: float | None = None
        self._seen, self._began_s = saved or (0, clock())
        # Used by the loop's thread; any thread may read the name.
        self._watched: str | None = None
        self._handle: int | None = None
        if loop is not None:
            loop.on_stop(self._stop)
            loop.call(self._watch)

    def read(self, firmware: int | None = None) -> Throttling | None:
        """The flags; None if this machine has none. `firmware` is the firmware's number, where that is available."""
        if firmware is not None:
            since_boot = self._collect(firmware >> _SINCE_BOOT | firmware)
            return Throttling(firmware & ALL, since_boot, self._reported, self._clock())
        name = self._find()
        if self._loop is not None and name != self._watched:
            self._loop.call(self._watch)  # drivers are loaded at any time
        return None if name is None else self._read(name)

    def _read(self, name: str) -> Throttling | None:
        text = self._reader.text(name) or ""
        if name.startswith(_HWMON):
            alarm = decimal(text)
            flags, known = None if alarm is None else int(alarm != 0), UNDER_VOLTAGE
        else:
            flags, known = parse_flags(text), self._reported
        if flags is None:
            return None
        since_boot = self._collect(flags >> _SINCE_BOOT | flags)
        return Throttling(flags & ALL, since_boot, known, self._clock() - self._began_s)

    def _collect(self, flags: int) -> int:
        """Add flags to those since the boot, and return all."""
        with self._lock:
            seen = self._seen | flags & ALL
            new, self._seen = seen & ~self._seen, seen
            if new & UNDER_VOLTAGE:
                log.warning("The supply voltage is too low", extra=Event.UNDER_VOLTAGE.extra)
            if new or self._saved_s is None or self._clock() - self._saved_s >= _SAVE_INTERVAL_S:
                self._save()
            return seen

    def _save(self) -> None:
        """With the lock held."""
        self._saved_s = self._clock()
        if self._record is not None:
            with contextlib.suppress(OSError):
                replace_file(self._record, f"{self._seen:x} {self._began_s:.3f} {self._saved_s:.3f}\n".encode())

    def _find(self) -> str | None:
        """The file to read, the more complete one first."""
        # The names of both folders follow the device tree: `soc`, on a Raspberry Pi 5 also `soc@107c000000`.
        for path in sorted(self._reader.root.glob("sys/devices/platform/soc*/soc*:firmware/get_throttled")):
            return str(path.relative_to(self._reader.root))
        if self._reported & UNDER_VOLTAGE:
            for name in self._reader.names(_HWMON, "hwmon"):
                if (self._reader.text(f"{_HWMON}/{name}/name") or "").strip() == "rpi_volt":
                    return f"{_HWMON}/{name}/in0_lcrit_alarm"
        return None

    # --- the loop's thread ------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Poll the file that exists now."""
        name = self._find()
        if self._loop is None or name == self._watched:
            return
        self._unwatch()
        self._watched = name
        if name is not None:
            with contextlib.suppress(OSError):  # EPERM: not a file of sysfs, which could be polled
                self._handle = os.open(self._reader.root / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
                self._loop.register(self._handle, self._on_change)

    def _on_change(self, _events: int) -> None:
        """The kernel has noticed a change; these files never block."""
        if self._watched is None or self._read(self._watched) is None:
            self._unwatch()  # the driver was unloaded

    def _stop(self) -> None:
        if self._watched is not None:
            with self._lock:
                self._save()
        self._unwatch()

    def _unwatch(self) -> None:
        self._watched = None
        if self._handle is not None and self._loop is not None:
            self._loop.unregister(self._handle)
            os.close(self._handle)
            self._handle = None


def _load(record: Path | None, now_s: float) -> tuple[int, float] | None:
    """The saved flags, and since when all are collected, in seconds since the boot."""
    fields = [] if record is None else (Reader(record.parent).text(record.name) or "").split()
    if len(fields) != 3:
        return None
    flags, began_s, saved_s = parse_flags(fields[0]), decimal(fields[1]), decimal(fields[2])
    if flags is None or began_s is None or saved_s is None or not 0 <= began_s <= saved_s <= now_s:
        return None
    return flags & ALL, began_s if now_s - saved_s <= _MAX_GAP_S else now_s
