"""A small file system that a test fills, so that a portal has no space left."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.conftest import Portal

DISK_BYTES = 6_000_000


class SmallDisk:
    """A small tmpfs if the machine allows mounting it, else a limit on the size of the portal's files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_mounted = False

    def mount(self) -> None:
        command = [*_as_root(), "mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=777", "tmpfs", str(self.folder)]
        is_known = shutil.which(command[0]) is not None
        self.is_mounted = is_known and subprocess.run(command, capture_output=True).returncode == 0

    def fill(self, portal: Portal) -> None:
        """Let all further writes fail."""
        if not self.is_mounted:
            subprocess.run(["prlimit", "--pid", str(portal.pid), "--fsize=1000:unlimited"], check=True)
            return
        with (self.folder / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(bytes(4096))
            except OSError:
                return

    def empty(self, portal: Portal) -> None:
        if self.is_mounted:
            (self.folder / "filler").unlink()
        else:
            subprocess.run(["prlimit", "--pid", str(portal.pid), "--fsize=unlimited:unlimited"], check=True)

    def unmount(self) -> None:
        subprocess.run([*_as_root(), "umount", "--lazy", str(self.folder)], check=True)
        self.is_mounted = False


def _as_root() -> list[str]:
    return [] if os.geteuid() == 0 else ["sudo", "-n"]


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk]:
    """Create the folder and mount the file system on it, until the end of the block."""
    folder.mkdir()
    disk = SmallDisk(folder)
    disk.mount()
    try:
        yield disk
    finally:
        if disk.is_mounted:
            disk.unmount()
