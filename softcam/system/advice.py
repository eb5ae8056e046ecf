"""What is wrong with the machine, in plain words, and what to do about it. Pure functions; any thread."""

from dataclasses import dataclass
from typing import Final

from softcam.system.disk import DiskSpace
from softcam.system.monitor import MachineState
from softcam.system.throttling import Throttling

_WARM_C: Final = 60.0
HOT_C: Final = 70.0
CRITICAL_C: Final = 80.0  # from here on the firmware slows the processor down; it does not let it exceed 85
# Free space below which a disk is nearly full: for one that fills up, time to react; for one on which old recordings
# are deleted in time, less than what is kept free then.
_FREE_BYTES: Final = 1_000_000_000
_FREE_PART: Final = 0.1
_QUOTA_FREE_BYTES: Final = 100_000_000
_QUOTA_FREE_PART: Final = 0.025

_COOL: Final = "Give the case openings or a fan, put a heat sink on the processor, and keep it out of the sun."
_POWER: Final = (
    "Use the official power supply of this model, plugged in directly and with a short cable, and disconnect USB"
    " devices that draw much current."
)


@dataclass(frozen=True, slots=True)
class Advice:
    """`code` is for programs, the sentences in `message` and `remedy` are for people.

    `is_current`: it is so now. Otherwise it was so before, since the boot.
    """

    code: str
    message: str
    remedy: str
    is_current: bool = True


def temperature_status(temperature_c: float) -> str:
    """`normal`, `warm`, `hot` or `critical`."""
    if temperature_c < _WARM_C:
        return "normal"
    if temperature_c < HOT_C:
        return "warm"
    return "hot" if temperature_c < CRITICAL_C else "critical"


def advice(state: MachineState, *, has_quota: bool) -> list[Advice]:
    """The most urgent first. `has_quota`: old recordings are deleted before the disk is full."""
    found: list[Advice] = []
    is_slow = False
    if state.throttling is not None:
        power, speed = _about_power(state.throttling), _about_speed(state.throttling)
        found += [each for each in (power, speed) if each is not None]
        is_slow = speed is not None and speed.is_current
    if state.temperature_c is not None and state.temperature_c >= HOT_C and not is_slow:
        found.append(_about_temperature(state.temperature_c))
    if state.disk is not None and state.disk.free < _least_free(state.disk.total, has_quota=has_quota):
        found.append(_about_disk(state.disk, has_quota=has_quota))
    return sorted(found, key=lambda each: not each.is_current)


def _about_power(throttling: Throttling) -> Advice | None:
    if throttling.has("under_voltage"):
        message = (
            "The supply voltage is too low. The Raspberry Pi slows down, and the camera, USB devices or the SD card may"
            " fail."
        )
        return Advice("under_voltage", message, _POWER)
    if throttling.has_occurred("under_voltage"):
        message = "The supply voltage was too low at least once since the Raspberry Pi started. It is sufficient now."
        return Advice("under_voltage_occurred", message, _POWER, is_current=False)
    return None


def _about_speed(throttling: Throttling) -> Advice | None:
    """Under-voltage slows the processor down, too, and has its own warning; the soft limit is only reached by heat."""
    either, heat = ("frequency_capped", "throttled"), "soft_temperature_limit"
    if throttling.has(heat) or (throttling.has(*either) and not throttling.has("under_voltage")):
        message = "The processor is slowed down because it is too hot. Streams may lose frames."
        return Advice("throttled", message, _COOL)
    if throttling.has_occurred(heat) or (
        throttling.has_occurred(*either) and not throttling.has_occurred("under_voltage")
    ):
        message = "The processor was slowed down at least once since the Raspberry Pi started, because it was too hot."
        return Advice("throttled_occurred", message, _COOL, is_current=False)
    if throttling.has_occurred(*either) and not throttling.has("under_voltage"):
        message = (
            "The processor was slowed down at least once since the Raspberry Pi started, because the supply voltage was"
            " too low or because it was too hot."
        )
        remedy = f"Improve the power supply first. If it happens again: {_COOL}"
        return Advice("throttled_occurred", message, remedy, is_current=False)
    return None


def _about_temperature(temperature_c: float) -> Advice:
    if temperature_c >= CRITICAL_C:
        message = f"The processor is at {temperature_c:.0f} °C and slows down from 80 °C on. Streams may lose frames."
        return Advice("critical_temperature", message, _COOL)
    return Advice("hot", f"The processor is at {temperature_c:.0f} °C. It slows down from 80 °C on.", _COOL)


def _about_disk(disk: DiskSpace, *, has_quota: bool) -> Advice:
    message = f"The disk of {disk.folder} is nearly full: {disk.free / 1e6:.0f} MB free."
    remedy = "Delete files that are not needed, or use a larger disk."
    if not has_quota:
        remedy += " With --recordings-max-bytes, the oldest recordings are deleted in time."
    return Advice("disk_nearly_full", message, remedy)


def _least_free(total: int, *, has_quota: bool) -> int:
    if has_quota:
        return min(_QUOTA_FREE_BYTES, int(total * _QUOTA_FREE_PART))
    return min(_FREE_BYTES, int(total * _FREE_PART))
