"""Test of publishing H.264 of the real Picamera2 to an FFmpeg RTSP server that exits and restarts."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.rig.rig import Rig
from tests.support.rig_client import decode, recognise, start_portal, wait_until
from tests.support.timeouts import RUN_LIMIT_S, TIMEOUT_FACTOR

SMALL = ("--camera", "Virtual0", "--width", "640", "--height", "360", "--fps", "20", "--bitrate", "2000000")
FRAMES = 60
BACK_S = 5.0 * TIMEOUT_FACTOR  # the documented limit for publishing again after the server returns


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def take_film(url: str, film: Path) -> None:
    """Run the server until it has received this many frames."""
    argv = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", "-rtsp_flags", "listen", "-timeout", "20", "-i", url]
    argv += ["-c", "copy", "-frames:v", str(FRAMES), str(film)]
    subprocess.run(argv, check=True, capture_output=True, timeout=RUN_LIMIT_S)


def frames_of(film: Path) -> int:
    argv = ["ffprobe", "-v", "error", "-count_frames", "-of", "csv=p=0", "-show_entries", "stream=nb_read_frames"]
    return int(subprocess.check_output([*argv, str(film)], timeout=RUN_LIMIT_S).decode().strip().rstrip(","))


def picture_of(film: Path) -> bytes:
    argv = ["ffmpeg", "-nostdin", "-v", "error", "-ss", "1", "-i", str(film), "-frames:v", "1", "-q:v", "2"]
    return subprocess.check_output([*argv, "-f", "mjpeg", "-"], timeout=RUN_LIMIT_S)


def test_publish_and_reconnect(rig: Rig, tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    url = f"rtsp://127.0.0.1:{free_port()}/cam"
    portal = start_portal(rig, *SMALL, "--rtsp-url", url)
    with portal.watch() as viewer:
        portal.wait_for_status(state="open", streaming=True)
        for number in range(2):
            wait_until(lambda: portal.status["publishing"]["state"] == "failed", lambda: f"{portal.status}")
            film = tmp_path / f"film{number}.mp4"
            began_s = time.monotonic()
            take_film(url, film)
            # FFmpeg starts and reads three seconds of video.
            took_s = time.monotonic() - began_s - FRAMES / 20
            print(f"figure: Picamera2 in the rig: ffmpeg had the stream after {took_s:.1f} s", file=sys.stderr)
            assert took_s < BACK_S + 3 * TIMEOUT_FACTOR
            assert frames_of(film) == FRAMES
            recognise(rig, decode(picture_of(film)))
        viewer.wait_for_pictures(20)
    status = portal.status
    assert status["publishing"]["reconnects"] == 1
    assert (status["restarts"], status["opens"]) == (0, 1)
    assert {entry["kind"] for entry in status["held_by"]} >= {"publish"}
