"""MP4 files as other programs read them, while they are written and afterwards."""

from pathlib import Path

import av

from softcam.recording.library import Library
from tests.support.recordings import open_video


def dates(path: Path) -> tuple[str, str]:
    """Of the file and of its track."""
    with av.open(str(path)) as container:
        return container.metadata["creation_time"], container.streams.video[0].metadata["creation_time"]


def test_date_is_that_of_the_start(tmp_path: Path) -> None:
    video = open_video(Library(tmp_path, None))
    running = dates(tmp_path / video.name)
    video.close()
    assert dates(tmp_path / video.name) == running == ("2026-11-20T23:15:02.000000Z",) * 2


def test_title(tmp_path: Path) -> None:
    video = open_video(Library(tmp_path, None, title="Gärten 庭"))
    path = str(tmp_path / video.name)
    with av.open(path) as running:
        assert running.metadata["title"] == "Gärten 庭"
    video.close()
    with av.open(path) as finished:
        assert finished.metadata["title"] == "Gärten 庭"
