"""Files that are replaced as a whole."""

from pathlib import Path

import pytest

from softcam.runtime.atomic_file import replace_file


def test_replace_file(tmp_path: Path) -> None:
    path = tmp_path / "state" / "controls.json"
    replace_file(path, b"one")
    replace_file(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(path.parent.iterdir()) == [path]


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="irectory"):
        replace_file(tmp_path / "folder", b"one")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
