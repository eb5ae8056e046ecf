"""The checks of the machine, on trees of `/proc`, `/sys` and `/dev` as machines have them."""

import os
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import softcam
from softcam.diagnose.devices import DeviceUser, device_users, may_open
from softcam.diagnose.machine import MachineChecks
from softcam.diagnose.report import Status
from softcam.errors import CameraMissing
from softcam.system.reader import Reader
from tests.support.machines import MACHINES, MODEL, PI_3, PI_4, PI_5_HOT, ZERO_2_W, Files, meminfo, write_tree

CMA = "CmaTotal:       {total:8} kB\nCmaFree:        {free:8} kB\n"
DEVICES = ("dev/media0", "dev/media1", "dev/video0", "dev/v4l-subdev0", "dev/dma_heap/linux,cma", "dev/dma_heap/system")


def machine(
    root: Path,
    files: Files,
    *,
    is_real: bool = True,
    folders: dict[str, Path] | None = None,
    is_allowed: Callable[[Path], bool] = may_open,
) -> MachineChecks:
    write_tree(root, files)
    return MachineChecks(
        is_real=is_real,
        frame_size=(1536, 864),
        folders={"state_dir": root} if folders is None else folders,
        root=root,
        is_allowed=is_allowed,
    )


# Versions


def test_versions(tmp_path: Path) -> None:
    files = {
        **PI_4,
        "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n',
        "proc/sys/kernel/osrelease": "6.6.51+rpt-rpi-v8\n",
    }
    finding = machine(tmp_path, files, is_real=False).versions()
    assert finding.status is Status.OK
    assert finding.data["model"] == "Raspberry Pi 4 Model B Rev 1.5"
    assert finding.data["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert finding.data["kernel"] == "6.6.51+rpt-rpi-v8"
    assert finding.data["soft_stream"] == softcam.__version__
    assert finding.data["python"] == ".".join(map(str, sys.version_info[:3]))
    assert finding.data["simplejpeg"] is not None
    assert "model Raspberry Pi 4 Model B Rev 1.5, os Debian" in finding.message


def test_versions_without_picamera2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    finding = machine(tmp_path, PI_4).versions()
    assert finding.status is Status.FAILED
    assert finding.message.startswith("picamera2 is missing")
    assert "apt install" in str(finding.cure)


def test_picamera2_that_does_not_fit_numpy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an upgrade of numpy with pip does to the modules of the system."""
    folder = tmp_path / "modules"
    write_tree(folder, {"picamera2/__init__.py": "raise ValueError('numpy.dtype size changed')\n"})
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "picamera2", raising=False)
    finding = machine(tmp_path, PI_4).versions()
    assert finding.status is Status.FAILED
    assert finding.message == "picamera2 cannot be imported: ValueError: numpy.dtype size changed"
    assert "do not upgrade numpy" in str(finding.cure)


# Permissions


def test_devices_that_can_be_opened(tmp_path: Path) -> None:
    files = {**PI_4, **dict.fromkeys(DEVICES, "")}
    finding = machine(tmp_path, files).permissions()
    assert finding.status is Status.OK
    assert finding.message == "5 devices can be opened; folders are writable: state_dir"


def test_devices_of_another_group(tmp_path: Path) -> None:
    files = {**PI_4, **dict.fromkeys(DEVICES, "")}
    checks = machine(tmp_path, files, is_allowed=lambda path: path.name != "media0")
    finding = checks.permissions()
    assert (finding.status, finding.message) == (Status.FAILED, "no access to /dev/media0")
    assert "usermod -aG video" in str(finding.cure)
    assert finding.data == {"devices": 5, "devices_denied": ["/dev/media0"], "folders_denied": []}


def test_permissions_without_devices(tmp_path: Path) -> None:
    finding = machine(tmp_path, PI_4).permissions()
    assert (finding.status, finding.data["devices"]) == (Status.OK, 0)
    assert finding.message.startswith("there are no camera devices in /dev")


def test_devices_do_not_matter_to_other_cameras(tmp_path: Path) -> None:
    files = {**PI_4, **dict.fromkeys(DEVICES, "")}
    finding = machine(tmp_path, files, is_real=False, is_allowed=lambda _: False).permissions()
    assert finding.status is Status.OK
    assert "uses no device" in finding.message


def test_folder_that_cannot_be_created(tmp_path: Path) -> None:
    """A folder that does not exist yet is created in the one above it, but not in a file."""
    (tmp_path / "file").touch()
    folders = {"recordings": tmp_path / "file" / "recordings", "state_dir": tmp_path / "new" / "state"}
    finding = machine(tmp_path, PI_4, folders=folders).permissions()
    assert finding.status is Status.WARNING
    assert finding.message == f"this user may not write to recordings {tmp_path}/file/recordings"


# Throttling, memory, disk


@pytest.mark.parametrize(
    ("files", "status", "message", "codes"),
    [
        (PI_3, Status.WARNING, "The supply voltage is too low.", ["under_voltage"]),
        (PI_5_HOT, Status.WARNING, "The processor is slowed down because it is too hot.", ["throttled"]),
        (PI_4, Status.OK, "62 °C, not throttled", None),
        (ZERO_2_W, Status.NOT_APPLICABLE, "this machine reports neither throttling nor temperature", None),
    ],
)
def test_throttling(tmp_path: Path, files: Files, status: Status, message: str, codes: list[str] | None) -> None:
    finding = machine(tmp_path, files).throttling()
    assert finding.status is status
    assert finding.message.startswith(message)
    assert finding.data.get("advice") == codes
    assert (finding.cure is not None) == (status is Status.WARNING)


def test_flags_of_throttled_machine(tmp_path: Path) -> None:
    data = machine(tmp_path, PI_3).throttling().data
    assert data["flags"] == 0x50005
    assert data["temperature_c"] == pytest.approx(58.312)
    assert data["now"] == {
        "under_voltage": True,
        "frequency_capped": False,
        "throttled": True,
        "soft_temperature_limit": False,
    }


@pytest.mark.parametrize(
    ("available_kb", "cma", "is_real", "status", "message"),
    [
        (3_100_208, (524_288, 400_000), True, Status.OK, "contiguous memory (CMA): 409 of 536 MB free"),
        (3_100_208, None, True, Status.OK, "no contiguous memory (CMA)"),
        (88_004, (262_144, 100_000), True, Status.WARNING, "little memory: 90 of 3977 MB available"),
        (3_100_208, (32_768, 32_000), True, Status.WARNING, "the stream and a full-size still need about 47 MB of it"),
        (3_100_208, (32_768, 32_000), False, Status.OK, "contiguous memory (CMA): 32 of 33 MB free"),
    ],
)
def test_memory(
    tmp_path: Path, available_kb: int, cma: tuple[int, int] | None, is_real: bool, status: Status, message: str
) -> None:
    text = meminfo(3_884_712, available_kb) + ("" if cma is None else CMA.format(total=cma[0], free=cma[1]))
    finding = machine(tmp_path, {**PI_4, "proc/meminfo": text}, is_real=is_real).memory()
    assert finding.status is status
    assert message in finding.message
    assert (finding.cure is not None) == (status is Status.WARNING)
    assert finding.data.get("cma_total_bytes") == (None if cma is None else cma[0] * 1024)


def test_machine_without_files(tmp_path: Path) -> None:
    checks = machine(tmp_path, {}, is_real=False)
    assert checks.memory().status is Status.NOT_APPLICABLE
    assert checks.throttling().status is Status.NOT_APPLICABLE
    assert checks.versions().data["model"] is None


@pytest.mark.parametrize("name", MACHINES)
def test_disk(tmp_path: Path, name: str) -> None:
    finding = machine(tmp_path, MACHINES[name]).disk()
    status = os.statvfs(tmp_path)
    assert finding.data["total_bytes"] == status.f_blocks * status.f_frsize
    assert finding.status in (Status.OK, Status.WARNING)
    assert (finding.status is Status.WARNING) == ("advice" in finding.data)


# Cameras


def fake_list(monkeypatch: pytest.MonkeyPatch, entries: list[dict[str, Any]]) -> None:
    package, platform = types.ModuleType("picamera2"), types.ModuleType("picamera2.platform")
    package.Picamera2 = types.SimpleNamespace(global_camera_info=lambda: entries)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", package)
    monkeypatch.setitem(sys.modules, "picamera2.platform", platform)


def test_list_of_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_list(monkeypatch, [{"Model": "imx708", "Id": "/base/i2c@1a"}, {"Model": "imx477", "Id": "/base/i2c@2b"}])
    finding = machine(tmp_path, PI_4).cameras()
    assert finding.status is Status.OK
    assert finding.message == "0 is imx708 (/base/i2c@1a), 1 is imx477 (/base/i2c@2b)"
    assert finding.data["cameras"][1] == {"number": 1, "model": "imx477", "id": "/base/i2c@2b"}


@pytest.mark.parametrize(("is_real", "status"), [(True, Status.FAILED), (False, Status.NOT_APPLICABLE)])
def test_empty_list_of_cameras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_real: bool, status: Status) -> None:
    fake_list(monkeypatch, [])
    finding = machine(tmp_path, PI_4, is_real=is_real).cameras()
    assert (finding.status, finding.message) == (status, "no camera found")
    assert "ribbon cable" in str(finding.cure)


def test_list_of_cameras_without_picamera2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CameraMissing, match="apt install"):
        machine(tmp_path, PI_4).cameras()
    assert machine(tmp_path, PI_4, is_real=False).cameras().status is Status.NOT_APPLICABLE


def test_programs_that_use_the_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {f"{MODEL}": "x", "proc/812/comm": "rpicam-vid\n", "proc/7/comm": "bash\n", "proc/self/comm": "python3\n"}
    write_tree(tmp_path, files)
    for pid, targets in {
        "812": ["/dev/video0", "/dev/media2", "/dev/null", "/dev/media2", "/dev/video-data"],
        "7": ["/dev/pts/0", "socket:[1]"],
        str(os.getpid()): ["/dev/media0"],
    }.items():
        folder = tmp_path / "proc" / pid / "fd"
        folder.mkdir(parents=True)
        for number, target in enumerate(targets):
            (folder / str(number)).symlink_to(target)
    (tmp_path / "proc" / "99").mkdir()  # of another user: its descriptors cannot be listed
    expected = DeviceUser(812, "rpicam-vid", ("/dev/media2", "/dev/video0"))
    assert device_users(Reader(tmp_path), os.getpid()) == [expected]
    fake_list(monkeypatch, [{"Model": "imx708", "Id": "/base/i2c@1a"}])
    finding = machine(tmp_path, {}).cameras()
    assert finding.message == "0 is imx708 (/base/i2c@1a); devices are open in rpicam-vid (812)"
