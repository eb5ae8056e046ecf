"""The devices of cameras: which this user may open, and which programs have them open. No state; any thread."""

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softcam.system.reader import Reader

_PATTERNS: Final = (
    "dev/media*",
    "dev/video*",
    "dev/v4l-subdev*",
    "dev/dma_heap/linux,cma",
    "dev/dma_heap/vidbuf_cached",
)
_CAMERA_DEVICE: Final = re.compile(r"/dev/(?:media|video)\d+")
_MAX_USERS: Final = 10


@dataclass(frozen=True, slots=True)
class DeviceUser:
    """A process that has camera devices open."""

    pid: int
    name: str
    devices: tuple[str, ...]


def may_open(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK)


def camera_devices(reader: Reader, is_allowed: Callable[[Path], bool] = may_open) -> dict[str, bool]:
    """The devices that libcamera and Picamera2 use, and whether this process may open them."""
    paths = [path for pattern in _PATTERNS for path in sorted(reader.root.glob(pattern))]
    return {f"/{path.relative_to(reader.root)}": is_allowed(path) for path in paths}


def device_users(reader: Reader, own_pid: int) -> list[DeviceUser]:
    """Other processes with open camera devices, as far as this user may see them: root sees all."""
    found = []
    for name in reader.names("proc", ""):
        devices = sorted(set(_open_devices(reader.root / "proc" / name / "fd")))
        if devices and int(name) != own_pid:
            found.append(DeviceUser(int(name), (reader.text(f"proc/{name}/comm") or "?").strip(), tuple(devices)))
    return found[:_MAX_USERS]


def _open_devices(folder: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):  # of another user, or it has ended
        for link in folder.iterdir():
            with contextlib.suppress(OSError):
                target = str(link.readlink())
                if _CAMERA_DEVICE.fullmatch(target):
                    yield target
