"""Checks of the machine: versions, permissions, throttling, memory, disk, the list of cameras.

Any thread may call them. Nothing that identifies the owner is reported: no host name, address or serial number.
"""

import os
import platform
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from softcam import __version__
from softcam.camera.picamera.library import libcamera_version, list_cameras, picamera2
from softcam.diagnose.devices import camera_devices, device_users, may_open
from softcam.diagnose.report import CHECK_CABLE, Finding, Status
from softcam.errors import CameraMissing
from softcam.system import resources
from softcam.system.advice import Advice, advice
from softcam.system.monitor import SystemMonitor
from softcam.system.reader import Reader

_MODEL: Final = "proc/device-tree/model"
_PACKAGES: Final = {"picamera2": "picamera2", "numpy": "numpy", "simplejpeg": "simplejpeg", "pyav": "av"}
_MB: Final = 1_000_000
_LEAST_FREE_BYTES: Final = 100 * _MB  # a still of 12 megapixels and its JPEG take half of it
_FRAME_BUFFERS: Final = 6  # as many as the camera has
_STILL_BYTES: Final = 2 * 4608 * 2592 * 3 // 2  # two buffers of the Camera Module 3's sensor
_INSTALL: Final = "sudo apt install python3-picamera2 python3-simplejpeg; do not upgrade numpy or simplejpeg with pip"
_DISK: Final = "disk_nearly_full"


class MachineChecks:
    """The checks of one machine, for a camera of Picamera2 (`is_real`) or another one."""

    def __init__(
        self,
        *,
        is_real: bool,
        frame_size: tuple[int, int],
        folders: Mapping[str, Path],
        root: Path = Path("/"),
        is_allowed: Callable[[Path], bool] = may_open,
    ) -> None:
        """`folders` are those that the portal writes to, by the name of the setting.

        `is_allowed` returns whether this user may open a device.
        """
        self._is_allowed = is_allowed
        self._is_real = is_real
        self._frame_size = frame_size
        self._folders = folders
        self._reader = Reader(root)
        self._monitor = SystemMonitor(next(iter(folders.values()), Path("/")), root=root)

    def versions(self) -> Finding:
        reader = self._reader
        release = dict(line.partition("=")[::2] for line in reader.lines("etc/os-release"))
        found: dict[str, str | None] = {
            "soft_stream": __version__,
            "model": (reader.text(_MODEL) or "").strip("\0\n ") or None,
            "os": release.get("PRETTY_NAME", "").strip("\"'") or None,
            "kernel": (reader.text("proc/sys/kernel/osrelease") or "").strip() or None,
            "architecture": platform.machine(),
            "python": platform.python_version(),
            **{name: _version(package) for name, package in _PACKAGES.items()},
            "libcamera": None,
        }
        problem = None
        if self._is_real:
            try:
                picamera2()
                found["libcamera"] = libcamera_version()
            except CameraMissing as error:
                problem = str(error)
            except Exception as error:  # noqa: BLE001 - a broken installation raises anything, such as numpy's ValueError
                problem = f"picamera2 cannot be imported: {type(error).__name__}: {error}"
        if problem is not None:
            return Finding(Status.FAILED, problem, _INSTALL, found)
        known = [f"{name.replace('_', ' ')} {value}" for name, value in found.items() if value]
        return Finding(Status.OK, ", ".join(known), data=found)

    def permissions(self) -> Finding:
        """Whether this user may open the devices and write to the folders."""
        devices = camera_devices(self._reader, self._is_allowed)
        denied = [name for name, may_open in devices.items() if not may_open] if self._is_real else []
        closed = [f"{name} {folder}" for name, folder in self._folders.items() if not _may_write(folder)]
        data = {"devices": len(devices), "devices_denied": denied, "folders_denied": closed}
        if denied:
            message = f"no access to {', '.join(denied[:4])}{', …' if len(denied) > 4 else ''}"
            cure = 'add the user to the group: sudo usermod -aG video "$USER", then log out and in again'
            return Finding(Status.FAILED, message, cure, data)
        if closed:
            message = f"this user may not write to {', '.join(closed)}"
            return Finding(Status.WARNING, message, "run it as the user of the service, or change the owner", data)
        folders = ", ".join(self._folders) or "none"
        if not self._is_real:
            message = f"folders are writable: {folders}; this camera uses no device"
        elif devices:
            message = f"{len(devices)} devices can be opened; folders are writable: {folders}"
        else:
            message = f"there are no camera devices in /dev; folders are writable: {folders}"
        return Finding(Status.OK, message, data=data)

    def throttling(self) -> Finding:
        """Power supply and temperature."""
        state = self._monitor.state()
        if state.throttling is None and state.temperature_c is None:
            return Finding(Status.NOT_APPLICABLE, "this machine reports neither throttling nor temperature")
        data: dict[str, Any] = {"temperature_c": state.temperature_c}
        words = [] if state.temperature_c is None else [f"{state.temperature_c:.0f} °C"]
        if state.throttling is None:
            words.append("no throttling flags on this machine")
        else:
            flags = state.throttling
            data |= {"flags": flags.raw, "now": flags.by_name(flags.now), "ever": flags.by_name(flags.since_boot)}
            words.append("not throttled")
        found = [each for each in advice(state, has_quota=False) if each.code != _DISK]
        return _advised(found, ", ".join(words), data)

    def memory(self) -> Finding:
        """Free memory, and whether the contiguous memory has room for a stream and a still."""
        memory, contiguous = resources.memory(self._reader), resources.contiguous_memory(self._reader)
        if memory is None:
            return Finding(Status.NOT_APPLICABLE, "this machine does not report its memory")
        width, height = self._frame_size
        needed = _FRAME_BUFFERS * width * height * 3 // 2 + _STILL_BYTES
        data: dict[str, Any] = {"total_bytes": memory.total, "available_bytes": memory.available}
        text = f"{memory.available // _MB} of {memory.total // _MB} MB available"
        if contiguous is None:
            text += ", no contiguous memory (CMA)"
        else:
            text += f"; contiguous memory (CMA): {contiguous.free // _MB} of {contiguous.total // _MB} MB free"
            data |= {"cma_total_bytes": contiguous.total, "cma_free_bytes": contiguous.free}
        if memory.available < _LEAST_FREE_BYTES:
            cure = "stop other programs, or use a smaller stream: --width, --height"
            return Finding(Status.WARNING, f"little memory: {text}", cure, data)
        if self._is_real and contiguous is not None and contiguous.total < needed:
            message = f"{text}; the stream and a full-size still need about {needed // _MB} MB of it"
            cure = "'dtoverlay=vc4-kms-v3d,cma-256' in /boot/firmware/config.txt, then restart the machine"
            return Finding(Status.WARNING, message, cure, data)
        return Finding(Status.OK, text, data=data)

    def disk(self) -> Finding:
        """The disk of the folder that the portal writes most to."""
        state = self._monitor.state()
        if state.disk is None:
            return Finding(Status.NOT_APPLICABLE, "the disk cannot be read")
        data = {
            "total_bytes": state.disk.total,
            "free_bytes": state.disk.free,
            "file_system": state.disk.file_system,
        }
        found = [each for each in advice(state, has_quota=False) if each.code == _DISK]
        return _advised(found, f"{state.disk.free // _MB} of {state.disk.total // _MB} MB free", data)

    def cameras(self) -> Finding:
        """The cameras in Picamera2's list."""
        try:
            entries = list_cameras()
        except CameraMissing as error:
            if self._is_real:
                raise
            return Finding(Status.NOT_APPLICABLE, str(error).partition(":")[0])
        users = device_users(self._reader, os.getpid())
        data = {
            "cameras": [{"number": each.number, "model": each.model, "id": each.id} for each in entries],
            "used_by": [{"pid": user.pid, "name": user.name, "devices": list(user.devices)} for user in users],
        }
        names = ", ".join(f"{each.number} is {each.model} ({each.id})" for each in entries)
        if users:
            names += f"; devices are open in {', '.join(f'{user.name} ({user.pid})' for user in users)}"
        if entries:
            return Finding(Status.OK, names, data=data)
        return Finding(
            Status.FAILED if self._is_real else Status.NOT_APPLICABLE, f"no camera found{names}", CHECK_CABLE, data
        )


def _advised(found: list[Advice], normal: str, data: Mapping[str, Any]) -> Finding:
    """A warning with the most urgent advice, or `normal`."""
    if not found:
        return Finding(Status.OK, normal, data=data)
    message = " ".join(each.message for each in found)
    return Finding(Status.WARNING, message, found[0].remedy, {**data, "advice": [each.code for each in found]})


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _may_write(folder: Path) -> bool:
    """Whether files can be created in a folder, which may have to be created first."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
