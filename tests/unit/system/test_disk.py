"""The space of a folder's disk, and the name of what is mounted there."""

from pathlib import Path

import pytest

from softcam.system.disk import DiskSpace, disk_space
from softcam.system.reader import Reader
from tests.support.machines import write_tree

MOUNTS = """\
24 1 179:2 / / rw,noatime shared:1 - ext4 /dev/mmcblk0p2 rw
25 24 0:22 / /proc rw shared:12 - proc proc rw
31 24 8:1 / {folder}/media rw shared:30 - exfat /dev/sda1 rw
32 24 8:17 / {folder}/my\\040disk rw,relatime - vfat /dev/sdb1 rw
33 24 0:41 / {folder}/media/nas rw shared:31 master:2 - nfs4 nas:/srv\\040camera rw
34 31 8:33 / {folder}/media/nas rw - ext4 /dev/sdc1 rw
"""


def space(root: Path, folder: Path, mounts: str = MOUNTS) -> DiskSpace | None:
    write_tree(root, {"proc/self/mountinfo": mounts.format(folder=root)})
    return disk_space(Reader(root), folder)


@pytest.mark.parametrize(
    ("name", "device", "file_system"),
    [
        ("", "/dev/mmcblk0p2", "ext4"),
        ("media", "/dev/sda1", "exfat"),
        ("media/recordings/cam0", "/dev/sda1", "exfat"),
        ("mediathek", "/dev/mmcblk0p2", "ext4"),
        ("my disk/recordings", "/dev/sdb1", "vfat"),
        pytest.param("media/nas", "/dev/sdc1", "ext4", id="mounted on top of another"),
    ],
)
@pytest.mark.parametrize("is_created", [True, False])
def test_device(name: str, device: str, file_system: str, is_created: bool, tmp_path: Path) -> None:
    folder = tmp_path / name
    (folder if is_created else tmp_path).mkdir(parents=True, exist_ok=True)
    found = space(tmp_path, folder)
    assert found is not None
    assert found.folder == str(folder)
    if is_created:
        assert (found.device, found.file_system) == (device, file_system)
    else:  # the folder of a disk that is not mounted is on the one below, whatever is known about the place
        assert (found.device, found.file_system) == ("/dev/mmcblk0p2", "ext4")


def test_sizes(tmp_path: Path) -> None:
    found = space(tmp_path, tmp_path)
    assert found is not None
    assert 0 < found.free <= found.total
    assert 0 <= found.used <= found.total
    assert 0 <= found.percent <= 100
    assert DiskSpace("/", 1000, 600, 200, None, None).percent == 75.0
    assert DiskSpace("/proc", 0, 0, 0, None, None).percent == 0.0


@pytest.mark.parametrize(
    "mounts", ["", "24 1 179:2 / / rw - \n", "24 1 - ext4\n", "\0\0", "24 1 179:2 / / rw ext4 /dev/sda rw\n"]
)
def test_damaged_list_of_mounts(mounts: str, tmp_path: Path) -> None:
    found = space(tmp_path, tmp_path, mounts)
    assert found is not None
    assert (found.device, found.file_system) == (None, None)


def test_folder_that_cannot_exist(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert space(tmp_path, tmp_path / "loop" / "folder") is None


def test_name_that_is_not_utf_8(tmp_path: Path) -> None:
    folder = tmp_path / "a\udcffb"
    folder.mkdir()
    found = space(tmp_path, folder)
    assert found is not None
    assert found.folder.encode().endswith("a\N{REPLACEMENT CHARACTER}b".encode())
