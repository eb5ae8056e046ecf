"""Recordings by the whole process: files in other players, kills, restarts, limits."""

import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Portal
from tests.support.http_client import ask, cpu_s, post, status_of, wait_for_status
from tests.support.recording_client import (
    FPS,
    SMALL,
    elapsed_s,
    has_date_of_its_name,
    listed,
    probe,
    recorded_s,
    start,
    stop,
    videos,
)
from tests.support.timeouts import RUN_LIMIT_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]
WaitUntil = Callable[..., None]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "recordings"


@pytest.fixture
def portal(start_portal: Start, folder: Path) -> Portal:
    return start_portal(*SMALL, "--recordings", str(folder))


def test_ffprobe_recordings(portal: Portal, folder: Path, wait_until: WaitUntil) -> None:
    running = start(portal, segment_s=2)
    wait_until(lambda: elapsed_s(portal) > 4.6 + running["elapsed_s"])  # the camera opens first
    ended = stop(portal)
    nothing = {"video": None, "timelapse": None}
    assert status_of(portal)["recording"] == {**nothing, "cut_short": nothing, "last_error": None, "not_kept": None}
    files = videos(folder)
    assert files[0].name == running["name"]
    assert len(files) == ended["segments"] >= 3
    assert all(has_date_of_its_name(path) for path in files)
    seen = [probe(path) for path in files]
    lasted_s = ended["elapsed_s"] - running["elapsed_s"]
    assert sum(duration_s for _, duration_s, _ in seen) == pytest.approx(lasted_s, abs=1.0)
    for count, duration_s, times in seen:
        assert times[0] == 0.0
        assert times == sorted(times)
        assert duration_s == pytest.approx(times[-1] + 1 / FPS, abs=0.2)
        assert count <= duration_s * FPS + 2
    for entry, (_, duration_s, _) in zip(reversed(listed(portal)["recordings"]), seen, strict=True):
        assert entry["duration_s"] == pytest.approx(duration_s, abs=0.01)
        assert (entry["width"], entry["height"], entry["has_thumbnail"]) == (320, 180, True)


def test_nothing_is_for_others(start_portal: Start, folder: Path, tmp_path: Path, wait_until: WaitUntil) -> None:
    """Neither other users of the machine, whatever the umask was, nor pages of other origins."""
    before = os.umask(0)
    try:
        portal = start_portal(*SMALL, "--recordings", str(folder))
    finally:
        os.umask(before)
    start(portal)
    start(portal, kind="timelapse", interval_s=1)
    assert post(portal, "/v1/recordings/still", {}).status == 200
    assert post(portal, "/v1/camera/manual_exposure", {"exposure_us": 5000, "gain": 2.0}).status == 200
    wait_until(lambda: list(folder.glob("*/*.jpg")) and listed(portal)["running"]["video"]["bytes"])
    stop(portal)
    names = [entry["name"] for entry in listed(portal)["recordings"]]
    assert len(names) == 3
    assert post(portal, f"/v1/recordings/{names[0]}/keep", {}).status == 200
    for target in (
        "/v1/recordings",
        *(f"/v1/recordings/{name}{more}" for name in names for more in ("", "/thumbnail", "/nothing")),
        "/v1/recordings/video-2020-01-01_00-00-00.mp4",
        "/v1/system/status",
        "/v1/system/logs",
        "/metrics",
    ):
        answer = ask(portal, target)
        is_known = not target.endswith("/nothing")
        assert (answer.headers["Access-Control-Allow-Origin"] is None) == is_known, target
        assert (answer.headers["Cross-Origin-Resource-Policy"] == "same-origin") == is_known, target
    assert portal.stop() == 0
    files = [folder, *folder.rglob("*"), *(tmp_path / "state").rglob("*")]
    assert {path.suffix for path in files} >= {".mp4", ".jpg", ".json"}
    assert [path for path in files if path.stat().st_mode & 0o007] == []


def test_kill_loses_less_than_a_second(
    portal: Portal, folder: Path, start_portal: Start, wait_until: WaitUntil
) -> None:
    assert post(portal, "/camera/start", {}).status == 200
    wait_for_status(portal, state="open")
    running = start(portal)
    wait_until(lambda: elapsed_s(portal) > 4.0)
    lasted_s = time.time() - running["began"] - running["elapsed_s"]  # since the first fragment
    portal.process.send_signal(signal.SIGKILL)
    portal.wait()
    (path,) = videos(folder)
    count, _, times = probe(path)
    print(f"killed after {lasted_s:.2f} s, the recording plays {times[-1]:.2f} s")
    assert lasted_s - times[-1] < TIMEOUT_FACTOR
    # The next start lists and recovers it.
    again = start_portal(*SMALL, "--recordings", str(folder))
    again.wait_for_log("Recovered interrupted recording")
    (entry,) = [each for each in listed(again)["recordings"] if each["name"] == path.name]  # another one was resumed
    assert not entry["is_running"]
    assert entry["duration_s"] == pytest.approx(times[-1] + 1 / FPS, abs=0.1)
    assert probe(path)[0] == count
    assert ask(again, f"/v1/recordings/{path.name}").body == path.read_bytes()


def test_restart_and_crash_are_resumed(
    portal: Portal, folder: Path, start_portal: Start, wait_until: WaitUntil
) -> None:
    began = start(portal, segment_s=60, duration_s=3600)["began"]
    start(portal, kind="timelapse", interval_s=0.5)
    for end in (signal.SIGKILL, signal.SIGTERM):
        portal.process.send_signal(end)
        portal.wait()
        ended_s = time.time()
        portal = start_portal(*SMALL, "--recordings", str(folder))
        portal.wait_for_log("Video recording resumed; interrupted at 2")
        portal.wait_for_log("Time-lapse resumed: a still every 0.5 s; interrupted at 2")
        wait_until(lambda: all(running["bytes"] for running in listed(portal)["running"].values()))  # noqa: B023
        for running in listed(portal)["running"].values():
            assert running["interrupted"] == pytest.approx(ended_s, abs=2.0)
        video = status_of(portal)["recording"]["video"]
        assert video["began"] == began
        health = ask(portal, "/health").json
        assert (health["recording_active"], health["recording_error"]) == (True, None)
        assert health["recording_interrupted"] == pytest.approx(ended_s, abs=2.0)
        assert b'soft_stream_recording_active{kind="video"} 1' in ask(portal, "/metrics").body
    assert post(portal, "/v1/recordings/stop", {}).status == 200
    portal.stop()
    portal = start_portal(*SMALL, "--recordings", str(folder), "--recordings-autostart", "timelapse:30")
    wait_until(lambda: listed(portal)["running"]["timelapse"] is not None)
    running = listed(portal)["running"]
    assert running["video"] is None, "it was stopped on request"
    assert (running["timelapse"]["interval_s"], running["timelapse"]["interrupted"]) == (30.0, None)


def test_exit_finishes_files(portal: Portal, folder: Path) -> None:
    start(portal)
    start(portal, kind="timelapse", interval_s=0.5)
    assert portal.stop() == 0
    files = videos(folder)
    assert len(files) == 2
    for path in files:
        assert b"moov" in path.read_bytes()[-4000:]
        assert probe(path)[0] >= 1


def test_preroll(start_portal: Start, folder: Path, wait_until: WaitUntil) -> None:
    portal = start_portal(*SMALL, "--recordings", str(folder), "--recordings-preroll", "3")
    wait_for_status(portal, state="open")
    assert [held["kind"] for held in status_of(portal)["held_by"]] == ["recording"]
    frames = status_of(portal)["frames"]
    wait_until(lambda: status_of(portal)["frames"] - frames > 5 * FPS)
    start(portal)
    ended = stop(portal)
    (path,) = videos(folder)
    _, duration_s, _ = probe(path)
    assert ended["elapsed_s"] < 2.0
    assert duration_s - ended["elapsed_s"] > 2.5  # from the keyframe before the pre-roll, which is up to 2 s earlier
    assert duration_s - ended["elapsed_s"] < 5.5
    assert status_of(portal)["state"] == "open"


def test_no_gap_between_two_recordings(start_portal: Start, folder: Path, wait_until: WaitUntil) -> None:
    portal = start_portal(*SMALL, "--recordings", str(folder), "--recordings-preroll", "5")
    wait_for_status(portal, state="open")
    start(portal)
    stop(portal)
    ended_s = time.monotonic()
    frames = status_of(portal)["frames"]
    wait_until(lambda: status_of(portal)["frames"] - frames > FPS)
    start(portal)
    lasted_s = time.monotonic() - ended_s
    stop(portal)
    second = folder / listed(portal)["recordings"][0]["name"]
    assert lasted_s - 0.2 < probe(second)[1] < lasted_s + 4.0


def test_quota_deletes_oldest_recording(start_portal: Start, folder: Path, wait_until: WaitUntil) -> None:
    folder.mkdir()
    old = [folder / f"2020-01-0{day}_00-00-00.mp4" for day in (1, 2, 3)]
    for path in old:
        path.write_bytes(bytes(4_000_000))
    portal = start_portal(*SMALL, "--recordings", str(folder), "--recordings-max-bytes", "10000000")
    start(portal)
    wait_until(lambda: not old[0].exists(), "deletion of the oldest")
    stop(portal)
    content = listed(portal)
    assert content["used_bytes"] <= content["max_bytes"] == 10_000_000
    assert old[2].exists()
    assert len(videos(folder)) >= 2


def test_download_while_recording(portal: Portal, tmp_path: Path, wait_until: WaitUntil) -> None:
    name = start(portal)["name"]
    wait_until(lambda: recorded_s(portal) > 1.5)
    first = ask(portal, f"/v1/recordings/{name}")
    assert first.status == 200
    begin = len(first.body)
    wait_until(lambda: recorded_s(portal) > 3.0)
    more = ask(portal, f"/v1/recordings/{name}", headers={"Range": f"bytes={begin}-"})
    assert more.status == 206
    (tmp_path / "some.mp4").write_bytes(first.body)
    some, duration_s, _ = probe(tmp_path / "some.mp4")
    (tmp_path / "more.mp4").write_bytes(first.body + more.body)
    assert probe(tmp_path / "more.mp4")[0] > some > FPS
    assert duration_s > 1.0
    # If-Range fails, because the file has changed.
    changed = ask(portal, f"/v1/recordings/{name}", headers={"Range": "bytes=0-9", "If-Range": first.headers["ETag"]})
    assert changed.status == 200


def test_timelapse_opens_camera_for_stills_only(start_portal: Start, folder: Path, wait_until: WaitUntil) -> None:
    portal = start_portal(*SMALL, "--recordings", str(folder), "--linger", "0")
    name = start(portal, kind="timelapse", interval_s=2, fps=5)["name"]
    wait_for_status(portal, state="closed")
    wait_until(lambda: status_of(portal)["opens"] >= 3)
    wait_for_status(portal, state="closed")
    ended = stop(portal)
    assert ended["stills"] >= 2
    count, duration_s, _ = probe(folder / name)
    assert has_date_of_its_name(folder / name)
    assert count == ended["stills"]
    assert duration_s == pytest.approx(count / 5, abs=0.01)
    assert status_of(portal)["h264"] is None, "stills need no H.264 encoder"


def test_pyav_is_not_loaded_without_recordings(start_portal: Start) -> None:
    portal = start_portal()
    answer = post(portal, "/v1/recordings/start", {})
    assert (answer.status, "CAMERA_RECORDINGS" in answer.detail) == (409, True)
    assert status_of(portal)["recording"] is None
    maps = Path(f"/proc/{portal.pid}/maps").read_text()
    assert "libavcodec" not in maps


def test_15000_files(start_portal: Start, folder: Path, wait_until: WaitUntil) -> None:
    """The list is in pages, also during a recording with a size limit, whose few frames cost nothing beside a page."""
    folder.mkdir()
    for minute in range(15_000):
        (folder / f"{datetime.fromtimestamp(60 * minute, UTC):%Y-%m-%d_%H-%M-%S}.jpg").write_bytes(b"x")
    limits = ("--recordings", str(folder), "--recordings-max-bytes", "100000000")
    portal = start_portal("--width", "320", "--height", "180", "--fps", "2", "--no-autofocus", *limits)

    def listed(query: str) -> dict[str, Any]:
        content: dict[str, Any] = ask(portal, f"/v1/recordings?{query}", timeout_s=RUN_LIMIT_S).json
        return content

    assert post(portal, "/v1/recordings/start", {}, timeout_s=RUN_LIMIT_S).status == 200
    wait_until(lambda: videos(folder), "a video", timeout_s=RUN_LIMIT_S)
    used_s = cpu_s(portal.pid)
    content = listed("limit=100")
    used_s = cpu_s(portal.pid) - used_s
    print(f"a page of 15,000: {used_s:.2f} s of processor time")
    assert used_s < 2.0 * TIMEOUT_FACTOR
    assert (len(content["recordings"]), content["total"], content["used_bytes"] > 15_000) == (100, 15_001, True)
    assert listed("day=1970-01-05")["total"] == 24 * 60
    seen, query = set[str](), "kind=still"
    while query:
        content = listed(query)
        assert content["total"] == 15_000
        seen |= {entry["name"] for entry in content["recordings"]}
        query = f"kind=still&before={content['next']}" if content["next"] else ""
    assert len(seen) == 15_000
