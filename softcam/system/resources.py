"""Processor, memory, temperature, uptime and boot from `/proc` and `/sys`. No state; any thread.

https://docs.kernel.org/filesystems/proc.html and https://docs.kernel.org/driver-api/thermal/sysfs-api.html
"""

import re
from dataclasses import dataclass
from typing import Final

from softcam.system.reader import Reader, decimal, whole

_ZONES: Final = "sys/class/thermal"
_IS_PROCESSOR: Final = re.compile("cpu|soc|pkg", re.IGNORECASE)  # Raspberry Pi: cpu-thermal
_MIN_C: Final = -40.0
_MAX_C: Final = 150.0
_TIMES: Final = 8  # user, nice, system, idle, iowait, irq, softirq, steal; those of guests are in user and nice
_IDLE: Final = slice(3, 5)
_MAX_LOAD: Final = 1e6
_BOOT_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class ProcessorTimes:
    """Time of all processors since the boot in ticks, and how many processors there are."""

    total: int
    idle: int
    cores: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory in bytes; `available` is what programs can get without swapping, and at most `total`."""

    total: int
    available: int


@dataclass(frozen=True, slots=True)
class ContiguousMemory:
    """The contiguous memory (CMA) in bytes. `free` excludes what the kernel lends to programs until it is needed."""

    total: int
    free: int


def temperature_c(reader: Reader) -> float | None:
    """The temperature of the processor, in degrees Celsius."""
    zones = reader.names(_ZONES, "thermal_zone")
    named = [zone for zone in zones if _IS_PROCESSOR.search(reader.text(f"{_ZONES}/{zone}/type") or "")]
    # Other zones are those of a Wi-Fi chip or a battery; if none has a known name, the first one is the processor's.
    for zone in named or zones[:1]:
        millidegrees = decimal(reader.text(f"{_ZONES}/{zone}/temp") or "")
        if millidegrees is not None and _MIN_C <= millidegrees / 1000 <= _MAX_C:
            return millidegrees / 1000
    return None


def processor_times(reader: Reader) -> ProcessorTimes | None:
    lines = reader.lines("proc/stat")
    fields = lines[0].split() if lines else []
    times = [whole(field) for field in fields[1 : _TIMES + 1]]
    known = [time for time in times if time is not None]
    if fields[:1] != ["cpu"] or len(known) != _TIMES:
        return None
    cores = sum(1 for line in lines if re.match(r"cpu\d", line))
    return ProcessorTimes(sum(known), sum(known[_IDLE]), cores) if cores else None


def busy_percent(before: ProcessorTimes, after: ProcessorTimes) -> float | None:
    """How busy all processors were between two moments, 0 to 100; None if no time has passed."""
    total = after.total - before.total
    if total <= 0:
        return None
    # The kernel's count of waiting for disks may decrease.
    return min(100.0, max(0.0, 100 * (1 - (after.idle - before.idle) / total)))


def load_average(reader: Reader) -> tuple[float, float, float] | None:
    """Over 1, 5 and 15 minutes."""
    loads = [decimal(field) for field in (reader.text("proc/loadavg") or "").split()[:3]]
    match loads:
        case [float(one), float(five), float(fifteen)] if all(0 <= load < _MAX_LOAD for load in (one, five, fifteen)):
            return one, five, fifteen
    return None


def memory(reader: Reader) -> Memory | None:
    values = _memory_values(reader, "MemTotal", "MemAvailable")
    total, available = values.get("MemTotal"), values.get("MemAvailable")
    return Memory(total, available) if total and available is not None and available <= total else None


def contiguous_memory(reader: Reader) -> ContiguousMemory | None:
    """None for a kernel without contiguous memory."""
    values = _memory_values(reader, "CmaTotal", "CmaFree")
    total, free = values.get("CmaTotal"), values.get("CmaFree")
    return ContiguousMemory(total, free) if total and free is not None and free <= total else None


def _memory_values(reader: Reader, *names: str) -> dict[str, int]:
    """The lines with these names, in bytes."""
    values = {}
    for line in reader.lines("proc/meminfo"):
        name, _, value = line.partition(":")
        if name in names and (kibibytes := whole(value.removesuffix(" kB"))) is not None:
            values[name] = kibibytes * 1024
    return values


def uptime_s(reader: Reader) -> float | None:
    """Seconds since the boot."""
    fields = (reader.text("proc/uptime") or "").split()
    value = decimal(fields[0]) if fields else None
    return value if value is not None and value >= 0 else None


def boot_id(reader: Reader) -> str | None:
    """A random number of this boot, as a UUID."""
    text = (reader.text("proc/sys/kernel/random/boot_id") or "").strip()
    return text if _BOOT_ID.fullmatch(text) else None
