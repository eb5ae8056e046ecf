"""The state of known machines as JSON, as clients of Pi Camera Service read it. Damaged files are no error."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from softcam.system.monitor import SystemMonitor
from softcam.web.api.openapi import describe
from softcam.web.api.system import SYSTEM_SCHEMA, SystemApi
from softcam.web.http.messages import Response
from tests.support.machines import BOOT_ID, FLAGS, PI_3, PI_4, PI_5, PI_5_HOT, ZERO_2_W, Files, write_tree
from tests.support.raw_http import make_request

VALIDATOR = jsonschema_rs.validator_for(SYSTEM_SCHEMA)


def make_api(root: Path, folder: Path | None = None) -> SystemApi:
    return SystemApi(SystemMonitor(folder or root, root=root, pause=lambda _: None))


def ask(api: SystemApi) -> dict[str, Any]:
    answer = api.status(make_request("/v1/system/status"))
    assert isinstance(answer, Response)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    content = json.loads(answer.body, parse_constant=refuse)
    VALIDATOR.validate(content)
    assert isinstance(content, dict)
    return content


def status_of(root: Path, files: Files) -> dict[str, Any]:
    return ask(make_api(write_tree(root, files)))


NO_FLAGS = dict.fromkeys(("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit"), False)
ONLY_VOLTAGE = {**dict.fromkeys(NO_FLAGS), "under_voltage": False}


def test_fields_of_a_weak_power_supply(tmp_path: Path) -> None:
    content = status_of(tmp_path, PI_3)
    assert content["temperature"] == {"cpu_c": 58.3, "status": "normal"}
    assert content["cpu"]["load_average"] == {"1min": 1.52, "5min": 1.07, "15min": 0.61}
    assert content["cpu"]["cores"] == 4
    assert content["memory"] == {"total_mb": 925.8, "used_mb": 425.8, "available_mb": 500.0, "percent": 46.0}
    assert content["network"] == {
        "interface": "wlan0",
        "bytes_sent": 912_334_000,
        "bytes_received": 88_120_000,
        "packets_sent": 912_334,
        "packets_received": 88_120,
        "wifi": {"signal_dbm": -58, "quality_percent": 84, "status": "good", "interface": "wlan0"},
    }
    assert content["disk"].keys() == {"total_gb", "used_gb", "free_gb", "percent", "path", "device", "file_system"}
    assert content["disk"]["path"] == str(tmp_path)
    assert content["uptime"]["service_seconds"] >= 0
    assert (content["uptime"]["system_seconds"], content["uptime"]["system_days"]) == (93784.2, 1.1)
    assert content["uptime"]["boot_id"] == BOOT_ID
    flags = {**NO_FLAGS, "under_voltage": True, "throttled": True}
    throttled = content["throttled"]
    assert throttled.pop("observed_seconds") >= 0
    assert throttled == {
        "currently_throttled": True,
        "under_voltage_detected": True,
        "frequency_capped": False,
        "currently_throttled_temperature": False,
        "has_occurred": True,
        "raw_value": "0x50005",
        "now": flags,
        "since_boot": flags,
    }
    (warning,) = content["warnings"]
    assert (warning["code"], warning["is_current"]) == ("under_voltage", True)


def test_fine_machine(tmp_path: Path) -> None:
    content = status_of(tmp_path, PI_4)
    assert content["temperature"] == {"cpu_c": 61.8, "status": "warm"}
    assert content["network"]["interface"] == "eth0"
    assert content["network"]["wifi"]["status"] == "weak", "connected, too"
    assert content["uptime"]["system_days"] == 4.0
    assert (content["throttled"]["now"], content["throttled"]["since_boot"]) == (NO_FLAGS, NO_FLAGS)
    assert (content["throttled"]["raw_value"], content["throttled"]["has_occurred"]) == ("0x0", False)
    assert content["warnings"] == []


def test_hot_machine(tmp_path: Path) -> None:
    content = status_of(tmp_path, PI_5_HOT)
    assert content["temperature"] == {"cpu_c": 83.2, "status": "critical"}
    throttled = content["throttled"]
    assert throttled["raw_value"] == "0xe000e"
    assert (throttled["currently_throttled"], throttled["currently_throttled_temperature"]) == (True, True)
    assert throttled["under_voltage_detected"] is False
    assert "wifi" not in content["network"]
    assert [each["code"] for each in content["warnings"]] == ["throttled"]


def test_kernel_that_reports_only_under_voltage(tmp_path: Path) -> None:
    content = status_of(tmp_path, PI_5)
    throttled = content["throttled"]
    assert throttled["now"] == throttled["since_boot"] == {**ONLY_VOLTAGE, "under_voltage": True}
    assert throttled["raw_value"] is None
    assert throttled["has_occurred"] is True
    assert throttled["currently_throttled_temperature"] is None
    assert content["network"]["wifi"]["status"] == "excellent"
    assert [each["code"] for each in content["warnings"]] == ["under_voltage"]


def test_small_machine(tmp_path: Path) -> None:
    content = status_of(tmp_path, ZERO_2_W)
    assert content["temperature"] is None
    assert content["network"]["interface"] == "wlan0"
    assert "wifi" not in content["network"]
    assert content["throttled"] is None
    assert content["warnings"] == []


def test_machine_without_anything(tmp_path: Path) -> None:
    content = status_of(tmp_path, {})
    for part in ("temperature", "cpu", "memory", "network", "throttled"):
        assert content[part] is None
    assert (content["uptime"]["system_seconds"], content["uptime"]["boot_id"]) == (None, None)
    assert content["warnings"] == []


def test_this_machine() -> None:
    content = ask(SystemApi(SystemMonitor(Path("/"))))
    assert content["memory"]["total_mb"] > 100
    assert content["cpu"]["cores"] >= 1
    assert content["uptime"]["system_seconds"] > 0
    assert content["disk"]["total_gb"] > 0


def test_client_of_pi_camera_service(tmp_path: Path) -> None:
    """What its documented examples do with the answer, on a machine without Wi-Fi and with it."""
    for machine in (PI_3, PI_5, PI_5_HOT):
        shutil.rmtree(tmp_path)
        tmp_path.mkdir()
        status = status_of(tmp_path, machine)
        assert f"{status['temperature']['cpu_c']}°C ({status['temperature']['status']})"
        if "wifi" in status.get("network", {}):
            assert status["network"]["wifi"]["signal_dbm"] < 0
            assert status["network"]["wifi"]["status"] in ("excellent", "good", "fair", "weak")
        assert status["throttled"]["has_occurred"] in (True, False)
        assert 0 <= status["disk"]["percent"] <= 100


# Damaged files

CONTENTS = {
    "empty": b"",
    "a blank": b" ",
    "binary": bytes(range(256)) * 8,
    "zeros": bytes(4096),
    "huge": b"9" * 5000,
    "many huge": b"9" * 400 + b" " + b"9" * 25 + b": " + b"18446744073709551616 " * 60,
    "negative": b"-1 -1 -1 -1 -1 -1 -1 -1 -1\n" * 8,
    "not a number": b"nan inf -inf 1e999 NaN\n" * 8,
    "not UTF-8": b"cpu\xff 1\xff\n" * 8,
    "many lines": b"\n" * 300_000,
}
ALL_NINES = bytes.maketrans(b"012345678", b"9" * 9)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_last_line(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def fill_with_nines(path: Path) -> None:
    path.write_bytes(path.read_bytes().translate(ALL_NINES))


def double(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


def overwrite(content: bytes) -> Callable[[Path], None]:
    return replace_by(lambda path: path.write_bytes(content))


DAMAGES: dict[str, Callable[[Path], None]] = {
    **{name: overwrite(content) for name, content in CONTENTS.items()},
    "truncated": cut,
    "without its last line": cut_last_line,
    "only nines": fill_with_nines,
    "doubled": double,
    "a folder": replace_by(Path.mkdir),
    "a pipe": replace_by(os.mkfifo),
    "a link to itself": replace_by(lambda path: path.symlink_to(path.name)),
    "unreadable": replace_by(lambda path: path.symlink_to("/proc/self/mem")),
}
FILES: Files = PI_3 | {
    "proc/net/ipv6_route": PI_5["proc/net/ipv6_route"],
    "proc/self/mountinfo": "24 1 179:2 / / rw - ext4 /dev/mmcblk0p2 rw\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file(damage: str, tmp_path: Path) -> None:
    root = write_tree(tmp_path / "machine", FILES)
    for name in FILES:
        path = root / name
        path.rename(tmp_path / "whole")
        shutil.copyfile(tmp_path / "whole", path)
        DAMAGES[damage](path)
        content = ask(make_api(root))
        assert content["disk"]["total_gb"] > 0
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        (tmp_path / "whole").rename(path)


@pytest.mark.parametrize("damage", DAMAGES)
def test_all_files_damaged(damage: str, tmp_path: Path) -> None:
    # Without the file of all flags, the alarm is read.
    for files in (FILES, {name: text for name, text in FILES.items() if name != FLAGS}):
        root = write_tree(tmp_path / str(len(files)), files)
        for name in files:
            DAMAGES[damage](root / name)
        ask(make_api(root))


# Over HTTP


def test_other_origins_cannot_read(tmp_path: Path) -> None:
    answer = make_api(write_tree(tmp_path, PI_4)).status(make_request("/v1/system/status"))
    assert isinstance(answer, Response)
    assert answer.headers["Cache-Control"] == "no-store"


def test_route(tmp_path: Path) -> None:
    (route,) = make_api(tmp_path).routes()
    assert route.paths == ("/v1/system/status", "/system/status")
    assert not route.is_public
    assert not route.accepts_query_key
    paths = describe([route], has_key=True)["paths"]
    schema = paths["/v1/system/status"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == SYSTEM_SCHEMA
