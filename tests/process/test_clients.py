"""Tests of the portal with other programs: curl, ffmpeg, ffprobe, urllib, and with measure_fps.py."""

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PROJECT, Portal
from tests.support.http_client import decode, size_of, wait_for_status
from tests.support.timeouts import PATIENCE_S

Start = Callable[..., Portal]
SIZE = (640, 360)
LIMIT_S = 3 * PATIENCE_S


@pytest.fixture
def small(start_portal: Start) -> Portal:
    return start_portal("--width", str(SIZE[0]), "--height", str(SIZE[1]), "--linger", "60")


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run a program of the system; the test is skipped without it (an error in CI)."""
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"needs {program}")
    return subprocess.run([path, *arguments], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S)


def test_curl_snapshot(small: Portal, tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    answer = run(
        "curl", "-sS", "--fail", "-o", str(path), "-w", "%{http_code} %{content_type}", f"{small.url}/snapshot"
    )
    assert answer.stdout == b"200 image/jpeg"
    assert size_of(path.read_bytes()) == SIZE


def test_curl_stream(small: Portal) -> None:
    answer = run("curl", "-sSN", "-i", "--max-time", "2", f"{small.url}/?action=stream")
    assert answer.returncode == 28  # curl timed out, the stream did not end
    assert answer.stdout.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.stdout.count(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: ") > 3


@pytest.mark.parametrize("quality", [6, 18, 80])
def test_reader_that_searches_for_markers(small: Portal, quality: int) -> None:
    """As Home Assistant and many scripts with OpenCV do: FFD8 is the start of an image, and the next FFD9 its end."""
    stream = run("curl", "-sSN", "--max-time", "2", f"{small.url}/stream.mjpg?quality={quality}").stdout
    images = re.findall(rb"(?s)\xff\xd8.*?\xff\xd9", stream)
    assert len(images) > 3
    assert {decode(image).shape for image in images} == {(SIZE[1], SIZE[0], 3)}


def test_curl_error_response(small: Portal) -> None:
    answer = run("curl", "-sS", "-w", "%{http_code}", f"{small.url}/snapshot.jpg?quality=0")
    assert answer.stdout.startswith(b'{"detail":"quality')
    assert answer.stdout.endswith(b"400")


@pytest.mark.parametrize("target", ["/stream.mjpg", "/?action=stream"])
def test_ffmpeg_decodes_stream(small: Portal, target: str) -> None:
    answer = run(
        "ffmpeg", "-hide_banner", "-loglevel", "warning", "-stats", "-xerror",
        "-f", "mpjpeg", "-i", f"{small.url}{target}", "-frames:v", "30", "-f", "null", "-",
    )  # fmt: skip
    said = answer.stderr.decode()
    assert answer.returncode == 0, said
    assert "frame=   30" in said
    assert "error" not in said.lower()


def test_ffmpeg_detects_format(small: Portal) -> None:
    answer = run("ffmpeg", "-hide_banner", "-i", f"{small.url}/stream.mjpg", "-frames:v", "30", "-f", "null", "-")
    said = answer.stderr.decode()
    assert answer.returncode == 0, said
    assert "frame=   30" in said


def test_ffprobe_stream(small: Portal) -> None:
    answer = run("ffprobe", "-v", "error", "-show_streams", "-of", "json", f"{small.url}/stream.mjpg")
    assert answer.returncode == 0, answer.stderr
    (stream,) = json.loads(answer.stdout)["streams"]
    assert stream["codec_name"] == "mjpeg"
    assert (stream["width"], stream["height"]) == SIZE
    assert stream["pix_fmt"] == "yuvj420p"  # full range, 4:2:0


def test_ffprobe_snapshot(small: Portal) -> None:
    answer = run("ffprobe", "-v", "error", "-show_streams", "-of", "json", f"{small.url}/snapshot.jpg?width=320")
    (stream,) = json.loads(answer.stdout)["streams"]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("mjpeg", 320, 180)


def test_python_snapshot(small: Portal) -> None:
    with urllib.request.urlopen(f"{small.url}/snapshot.jpg", timeout=LIMIT_S) as answer:
        assert answer.headers.get_content_type() == "image/jpeg"
        assert size_of(answer.read()) == SIZE


def test_python_stream_by_boundaries(small: Portal) -> None:
    """Like many scripts: split only at FFD8 and FFD9."""
    pictures: list[bytes] = []
    data = b""
    with urllib.request.urlopen(f"{small.url}/stream.mjpg", timeout=LIMIT_S) as stream:
        assert stream.headers.get_content_type() == "multipart/x-mixed-replace"
        assert stream.headers.get_boundary() == "frame"
        while len(pictures) < 5:
            data += stream.read(4096)
            begin, end = data.find(b"\xff\xd8"), data.find(b"\xff\xd9")
            if begin != -1 and end != -1:
                pictures.append(data[begin : end + 2])
                data = data[end + 2 :]
    assert [size_of(picture) for picture in pictures] == [SIZE] * 5


def test_measure_fps(small: Portal) -> None:
    answer = subprocess.run(
        [sys.executable, str(PROJECT / "measure_fps.py"), f"{small.url}/stream.mjpg", "--frames", "20", "--json"],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert answer.returncode == 0, answer.stderr
    measured = json.loads(answer.stdout)
    assert measured["frames"] == 20
    assert 1 < measured["fps"] < 25
    wait_for_status(small, viewers=0)
