"""Recordings after a power cut: on a real ext4 file system, cut off from its disk while the portal writes.

The shutdown request of ext4 stops all of its writes at once; what it had not written by then is lost. The disk is an
image, of which a copy shows what the next start finds.
"""

import fcntl
import io
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import pytest
from PIL import Image

from tests.conftest import Portal
from tests.support.http_client import ask, post

Start = Callable[..., Portal]
WaitUntil = Callable[..., None]
SMALL = ("--width", "320", "--height", "180", "--fps", "20", "--no-autofocus")
DISK_BYTES = 64_000_000
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_WITHOUT_LOG = 2  # not even the journal is written


def _run(*command: str | Path) -> str:
    tool = [] if os.geteuid() == 0 else ["sudo", "-n"]
    done = subprocess.run([*tool, *map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Disk:
    """An ext4 file system in an image."""

    def __init__(self, folder: Path) -> None:
        self.image, self.path = folder / "disk.img", folder / "disk"
        with self.image.open("wb") as image:
            image.truncate(DISK_BYTES)
        _run("mkfs.ext4", "-q", "-F", self.image)
        self.path.mkdir()
        self.is_mounted = False

    def mount(self) -> None:
        free = int(re.sub(r"\D", "", _run("losetup", "--find")))
        for number in range(free, free + 4):  # a container may not have the nodes of new loop devices
            if not Path(f"/dev/loop{number}").exists():
                _run("mknod", f"/dev/loop{number}", "b", "7", str(number))
        _run("mount", "-o", "loop", self.image, self.path)
        self.is_mounted = True

    def cut_power(self) -> None:
        """Nothing is written to the disk from now on."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_LOG))
        finally:
            os.close(descriptor)

    def replace(self) -> None:
        """Mount a copy: the disk itself remains shut down as long as any namespace has it mounted."""
        self.image = Path(shutil.copyfile(self.image, f"{self.image}.copy"))
        self.unmount()
        self.mount()

    def unmount(self) -> None:
        if self.is_mounted:
            _run("umount", self.path)
            self.is_mounted = False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    disk.mount()
    yield disk
    disk.unmount()


@pytest.fixture
def folder(disk: Disk) -> Path:
    return disk.path / "recordings"


def listed(portal: Portal) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in ask(portal, "/v1/recordings").json["recordings"]}


def running(portal: Portal, kind: str) -> dict[str, Any]:
    content: dict[str, Any] = ask(portal, "/v1/recordings").json["running"][kind]
    return content


def count_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def assert_whole(picture: bytes) -> None:
    Image.open(io.BytesIO(picture)).load()


def restart_after_power_cut(
    portal: Portal, disk: Disk, folder: Path, start_portal: Start, request: pytest.FixtureRequest
) -> Portal:
    disk.cut_power()
    portal.end()
    disk.replace()
    # With another state folder, so that nothing is resumed.
    again = start_portal(*SMALL, "--recordings", str(folder), "--state-dir", str(disk.path / "state"))
    request.addfinalizer(again.end)
    return again


def test_what_was_reported_survives(
    disk: Disk, folder: Path, start_portal: Start, wait_until: WaitUntil, request: pytest.FixtureRequest
) -> None:
    portal = start_portal(*SMALL, "--recordings", str(folder))
    request.addfinalizer(portal.end)  # before the disk is unmounted
    lapse = post(portal, "/v1/recordings/start", {"kind": "timelapse", "interval_s": 0.5}).json["recording"]["name"]
    video = post(portal, "/v1/recordings/start", {}).json["recording"]["name"]
    deleted = post(portal, "/v1/recordings/still", {}).json["recording"]["name"]
    wait_until(lambda: running(portal, "timelapse")["stills"] >= 4)
    wait_until(lambda: (listed(portal)[video]["duration_s"] or 0) > 3)
    assert ask(portal, f"/v1/recordings/{deleted}", method="DELETE").status == 200
    stills = running(portal, "timelapse")["stills"]
    before = listed(portal)
    photo = post(portal, "/v1/recordings/still", {}).json["recording"]["name"]
    again = restart_after_power_cut(portal, disk, folder, start_portal, request)
    again.wait_for_log(f"Recovered interrupted recording {video}")
    again.wait_for_log(f"Recovered interrupted recording {lapse}")
    after = listed(again)
    assert {lapse, video, photo} <= after.keys()
    assert deleted not in after
    assert after[video]["duration_s"] > before[video]["duration_s"] - 2.0
    assert count_frames(folder / video) > 20
    pictures = sorted((folder / lapse.removesuffix(".mp4")).iterdir())
    assert len(pictures) >= stills - 1
    assert count_frames(folder / lapse) >= stills - 1
    for path in pictures:
        assert_whole(path.read_bytes())
    for name in after:
        assert ask(again, f"/v1/recordings/{name}").body
        thumbnail = ask(again, f"/v1/recordings/{name}/thumbnail")
        assert thumbnail.status == 200
        assert_whole(thumbnail.body)
    left = [path for path in folder.rglob("*") if path.is_file() and not path.stat().st_size]
    assert left == [], "empty files"


def test_first_second_of_a_recording(
    disk: Disk, folder: Path, start_portal: Start, request: pytest.FixtureRequest
) -> None:
    portal = start_portal(*SMALL, "--recordings", str(folder))
    request.addfinalizer(portal.end)
    name = post(portal, "/v1/recordings/start", {}).json["recording"]["name"]
    assert name is not None
    again = restart_after_power_cut(portal, disk, folder, start_portal, request)
    again.wait_for_log(f"Recovered interrupted recording {name}")
    assert count_frames(folder / name) >= 1
