"""Which warnings a state of the machine leads to."""

from dataclasses import replace

import pytest

from softcam.system.advice import advice, temperature_status
from softcam.system.disk import DiskSpace
from softcam.system.monitor import MachineState
from softcam.system.throttling import ALL, UNDER_VOLTAGE, Throttling

FINE = MachineState(
    temperature_c=45.0,
    busy_percent=20.0,
    load_average=(0.5, 0.5, 0.5),
    cores=4,
    memory=None,
    network=None,
    wifi=None,
    disk=DiskSpace("/srv", 32_000_000_000, 10_000_000_000, 20_000_000_000, "/dev/mmcblk0p2", "ext4"),
    throttling=Throttling(0, 0, ALL, 3600.0),
    uptime_s=3600.0,
    boot_id=None,
    service_uptime_s=3590.0,
)


def codes(state: MachineState, *, has_quota: bool = False) -> list[str]:
    found = advice(state, has_quota=has_quota)
    assert all(each.message.endswith(".") and each.remedy.endswith(".") for each in found)
    return [each.code for each in found]


@pytest.mark.parametrize(
    ("now", "since_boot", "expected"),
    [
        (0b0000, 0b0000, []),
        (0b0001, 0b0001, ["under_voltage"]),
        (0b0101, 0b0101, ["under_voltage"]),
        (0b0000, 0b0001, ["under_voltage_occurred"]),
        (0b0000, 0b0101, ["under_voltage_occurred", "throttled_occurred"]),
        (0b0000, 0b1001, ["under_voltage_occurred", "throttled_occurred"]),
        (0b0101, 0b1101, ["under_voltage", "throttled_occurred"]),
        (0b1101, 0b1101, ["under_voltage", "throttled"]),
        (0b0100, 0b0101, ["throttled", "under_voltage_occurred"]),
        (0b0100, 0b0100, ["throttled"]),
        (0b0010, 0b0010, ["throttled"]),
        (0b1000, 0b1000, ["throttled"]),
        (0b0000, 0b1000, ["throttled_occurred"]),
        (0b0000, 0b0110, ["throttled_occurred"]),
    ],
)
def test_throttling(now: int, since_boot: int, expected: list[str]) -> None:
    state = replace(FINE, throttling=Throttling(now, since_boot, ALL, 1.0))
    assert codes(state) == expected
    for each in advice(state, has_quota=False):
        assert each.is_current == (not each.code.endswith("_occurred"))


@pytest.mark.parametrize(
    ("since_boot", "low_voltage", "heat"), [(0b0100, False, True), (0b0101, True, True), (0b1101, False, True)]
)
def test_reason_of_past_throttling(since_boot: int, low_voltage: bool, heat: bool) -> None:
    """Under-voltage may have been the reason for it, unless the limit of the temperature was reached."""
    found = advice(replace(FINE, throttling=Throttling(0, since_boot, ALL, 1.0)), has_quota=False)[-1]
    assert found.code == "throttled_occurred"
    assert ("voltage" in found.message, "hot" in found.message) == (low_voltage, heat)
    assert ("power supply" in found.remedy, "fan" in found.remedy) == (low_voltage, heat)


def test_unknown_flags() -> None:
    assert codes(replace(FINE, throttling=Throttling(0b1111, 0b1111, UNDER_VOLTAGE, 1.0))) == ["under_voltage"]
    unknown = dict.fromkeys(("throttling", "temperature_c", "disk"))
    assert codes(replace(FINE, **unknown)) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("temperature_c", "status", "expected"),
    [
        (-5.0, "normal", []),
        (59.9, "normal", []),
        (60.0, "warm", []),
        (69.9, "warm", []),
        (70.0, "hot", ["hot"]),
        (79.9, "hot", ["hot"]),
        (80.0, "critical", ["critical_temperature"]),
        (110.0, "critical", ["critical_temperature"]),
    ],
)
def test_temperature(temperature_c: float, status: str, expected: list[str]) -> None:
    assert temperature_status(temperature_c) == status
    assert codes(replace(FINE, temperature_c=temperature_c)) == expected


def test_current_warnings_come_first() -> None:
    past = Throttling(0, 0b0101, ALL, 1.0)
    expected = ["hot", "under_voltage_occurred", "throttled_occurred"]
    assert codes(replace(FINE, temperature_c=71.0, throttling=past)) == expected


def test_one_warning_about_heat() -> None:
    hot = Throttling(0b1110, 0b1110, ALL, 1.0)
    assert codes(replace(FINE, temperature_c=83.0, throttling=hot)) == ["throttled"]


@pytest.mark.parametrize(
    ("total", "free", "expected"),
    [
        (32_000_000_000, 1_000_000_000, []),
        (32_000_000_000, 999_000_000, ["disk_nearly_full"]),
        (4_000_000_000, 400_000_000, []),
        (4_000_000_000, 399_000_000, ["disk_nearly_full"]),
        (0, 0, []),
    ],
)
def test_disk(total: int, free: int, expected: list[str]) -> None:
    disk = DiskSpace("/srv", total, total - free, free, None, None)
    assert codes(replace(FINE, disk=disk)) == expected


@pytest.mark.parametrize(("free", "expected"), [(200_000_000, []), (99_000_000, ["disk_nearly_full"])])
def test_disk_that_is_kept_full(free: int, expected: list[str]) -> None:
    """With a limit, recordings are deleted when 200 MB are left: that is how it should be."""
    disk = DiskSpace("/srv", 32_000_000_000, 31_000_000_000, free, None, None)
    assert codes(replace(FINE, disk=disk), has_quota=True) == expected
