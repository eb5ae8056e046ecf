"""Recordings on a disk that is full, removed, or mounted later, and on a file system with a limit."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.support.http_client import StreamClient, ask, post, status_of
from tests.support.recording_client import (
    FPS,
    SMALL,
    elapsed_s,
    listed,
    probe,
    start,
    stop,
    videos,
)
from tests.support.small_disk import DISK_BYTES, SmallDisk, small_disk
from tests.support.timeouts import RUN_LIMIT_S

Start = Callable[..., Portal]
WaitUntil = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


@pytest.fixture
def portal(start_portal: Start, folder: Path) -> Portal:
    return start_portal(*SMALL, "--recordings", str(folder))


@pytest.fixture
def disk(folder: Path) -> Iterator[SmallDisk]:
    with small_disk(folder) as disk:
        yield disk


def test_full_disk(disk: SmallDisk, start_portal: Start, wait_until: WaitUntil) -> None:
    portal = start_portal(*SMALL, "--recordings", str(disk.folder))
    with StreamClient(portal) as viewer:
        viewer.next()
        start(portal)
        wait_until(lambda: elapsed_s(portal) > 2.0)
        disk.fill(portal)
        wait_until(lambda: listed(portal)["last_error"], "the error")
        error = listed(portal)["last_error"]
        assert status_of(portal)["recording"]["last_error"] == error
        print(error)
        portal.wait_for_log("recording paused, retrying")
        # The stream continues, and so does everything else.
        for _ in range(FPS):
            assert not viewer.next().is_placeholder
        health = ask(portal, "/health")
        assert (health.status, health.json["problems"]) == (503, ["recording"])
        assert listed(portal)["running"]["video"]["segments"] == 1
        assert probe(videos(disk.folder)[0])[0] > FPS
        disk.empty(portal)
        wait_until(lambda: listed(portal)["running"]["video"]["segments"] == 2, "the next file")
        wait_until(lambda: ask(portal, "/health").status == 200, "healthy again")
        for _ in range(FPS):
            viewer.next()
        stop(portal)
    first, second = videos(disk.folder)
    assert probe(first)[0] > FPS
    assert probe(second)[0] >= 1
    assert portal.stop() == 0
    assert "Traceback" not in portal.log


def test_disk_that_is_mounted_later(disk: SmallDisk, start_portal: Start, wait_until: WaitUntil) -> None:
    """Without the folder of the recordings, which is created on it."""
    if not disk.is_mounted:
        pytest.skip("mounting a disk is not permitted here")
    disk.unmount()
    folder = disk.folder / "videos" / "cam0"
    portal = start_portal(*SMALL, "--recordings", str(folder), "--recordings-autostart", "video")
    wait_until(lambda: videos(folder), "a file below the mount point")
    disk.mount()
    wait_until(lambda: folder.exists() and videos(folder), "a file on the disk")
    wait_until(lambda: status_of(portal)["recording"]["last_error"] is None)
    assert (folder / status_of(portal)["recording"]["video"]["name"]).exists()
    portal.stop()


def test_files_end_at_the_limit_of_the_file_system(portal: Portal, folder: Path, wait_until: WaitUntil) -> None:
    subprocess.run(["prlimit", "--pid", str(portal.pid), "--fsize=300000:unlimited"], check=True)
    start(portal)
    wait_until(lambda: listed(portal)["running"]["video"]["segments"] >= 3, timeout_s=RUN_LIMIT_S)
    assert status_of(portal)["recording"]["last_error"] is None
    stop(portal)
    # Only the first file meets the limit; the next one ends a tenth before it, which is more than a second of video.
    assert portal.log.count("the largest size that the file system supports") == 1
    assert all(path.stat().st_size <= 300_000 and probe(path)[0] > FPS for path in videos(folder)[:-1])


def test_removed_disk_is_reported(disk: SmallDisk, start_portal: Start, wait_until: WaitUntil) -> None:
    if not disk.is_mounted:
        pytest.skip("mounting a disk is not permitted here")
    portal = start_portal(*SMALL, "--recordings", str(disk.folder))
    start(portal)
    wait_until(lambda: elapsed_s(portal) > 2.0)
    disk.unmount()
    wait_until(lambda: "is gone" in str(listed(portal)["last_error"]), "the error")
    error = listed(portal)["last_error"]
    assert f"the disk mounted at {disk.folder} is gone" in error
    assert list(disk.folder.iterdir()) == [], "files below the mount point"
    assert listed(portal)["running"]["video"]["segments"] == 1
    stop(portal)
    refused = post(portal, "/v1/recordings/start", {})
    assert (refused.status, "is gone" in refused.detail) == (409, True)
    assert portal.stop() == 0
    assert "Traceback" not in portal.log


def test_recording_pauses_before_disk_is_full(disk: SmallDisk, start_portal: Start, wait_until: WaitUntil) -> None:
    portal = start_portal("--fps", "20", "--no-autofocus", "--bitrate", "20000000", "--recordings", str(disk.folder))
    if disk.is_mounted:
        (disk.folder / "other").write_bytes(bytes(DISK_BYTES - 800_000))  # some seconds of the pattern fit
    else:
        disk.fill(portal)  # the limit on files is all that can be tested here
    start(portal)
    wait_until(lambda: listed(portal)["last_error"], "the error")
    content = listed(portal)
    if disk.is_mounted:
        assert content["last_error"].startswith("recording paused, retrying: the disk is full")
        running = status_of(portal)["recording"]["video"]
        assert (running["name"], running["paused"].startswith("the disk is full, ")) == (None, True)
        recorded_s = sum(entry["duration_s"] for entry in content["recordings"])
        assert running["elapsed_s"] == pytest.approx(recorded_s, abs=0.5), "it counts only what was recorded"
    assert content["running"]["video"] is not None
    stop(portal)
    for path in videos(disk.folder):
        assert probe(path)[0] >= 1
