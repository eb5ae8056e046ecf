"""Processor, memory, temperature, uptime and boot, from the files of known machines and from damaged ones."""

from pathlib import Path

import pytest

from softcam.system import resources
from softcam.system.reader import Reader
from softcam.system.resources import Memory, ProcessorTimes
from tests.support.machines import BOOT_ID, PI_3, ZONE, meminfo, stat, write_tree, zone


def read(root: Path, files: dict[str, str]) -> Reader:
    return Reader(write_tree(root, files))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (zone(58_312), 58.312),
        (zone(-5_000), -5.0),
        (zone(33_000, "iwlwifi_1") | zone(47_000, number=1), 47.0),
        (zone(27_800, "acpitz"), 27.8),
        (zone(200_000), None),
        (zone(-274_000), None),
        ({f"{ZONE}/type": "cpu-thermal\n"}, None),
        # The first processor's sensor is off (EINVAL), another one works.
        ({f"{ZONE}/type": "cpu-thermal\n"} | zone(51_000, "soc-thermal", 2), 51.0),
        # That of another chip does not stand for the processor's.
        ({f"{ZONE}/type": "cpu-thermal\n"} | zone(51_000, "rp1_adc", 1), None),
        ({}, None),
    ],
)
def test_temperature(files: dict[str, str], expected: float | None, tmp_path: Path) -> None:
    assert resources.temperature_c(read(tmp_path, files)) == expected


def test_processor_times(tmp_path: Path) -> None:
    times = resources.processor_times(read(tmp_path, {"proc/stat": stat(1_000, 8_000, cores=4)}))
    assert times == ProcessorTimes(total=1_000 + 1_000 + 8_000 + 2_190 + 310, idle=8_000 + 2_190, cores=4)


@pytest.mark.parametrize(
    "text", ["", "cpu\n", "cpu  1 2 3\n", "cpu  1 2 3 4 5 6 7 -8 0 0\ncpu0 1\n", "intr 1 2 3 4 5 6 7 8\n"]
)
def test_damaged_processor_times(text: str, tmp_path: Path) -> None:
    assert resources.processor_times(read(tmp_path, {"proc/stat": text})) is None


@pytest.mark.parametrize(
    ("total", "idle", "percent"),
    [
        (400, 300, 25.0),
        (400, 0, 100.0),
        (400, 400, 0.0),
        (400, -3, 100.0),
        (400, 420, 0.0),
        (0, 0, None),
        (-9, 0, None),
    ],
)
def test_busy_percent(total: int, idle: int, percent: float | None) -> None:
    before = ProcessorTimes(1_000, 500, 4)
    assert resources.busy_percent(before, ProcessorTimes(1_000 + total, 500 + idle, 4)) == percent


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.88 0.62 0.56 1/211 4021\n", (0.88, 0.62, 0.56)),
        ("0.88 0.62\n", None),
        ("nan nan nan 1/2 3\n", None),
        ("-1.00 0.62 0.56 1/211 4021\n", None),
        ("99999999 0.62 0.56 1/211 4021\n", None),
        ("", None),
    ],
)
def test_load_average(text: str, expected: object, tmp_path: Path) -> None:
    assert resources.load_average(read(tmp_path, {"proc/loadavg": text})) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PI_3["proc/meminfo"], Memory(948_012 * 1024, 512_004 * 1024)),
        (meminfo(1_000, 0), Memory(1_024_000, 0)),
        (meminfo(1_000, 1_001), None),
        (meminfo(0, 0), None),
        ("MemTotal:        1000 kB\n", None),
        ("MemTotal: 1000 MB\nMemAvailable: 10 MB\n", None),
        ("", None),
    ],
)
def test_memory(text: str, expected: Memory | None, tmp_path: Path) -> None:
    assert resources.memory(read(tmp_path, {"proc/meminfo": text})) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("93784.21 301265.40\n", 93784.21), ("-1 2\n", None), ("\n", None), ("x", None)]
)
def test_uptime(text: str, expected: float | None, tmp_path: Path) -> None:
    assert resources.uptime_s(read(tmp_path, {"proc/uptime": text})) == expected


@pytest.mark.parametrize(("text", "expected"), [(f"{BOOT_ID}\n", BOOT_ID), (f"{BOOT_ID}0\n", None), ("", None)])
def test_boot_id(text: str, expected: str | None, tmp_path: Path) -> None:
    assert resources.boot_id(read(tmp_path, {"proc/sys/kernel/random/boot_id": text})) == expected
