"""Tests of `/stream.mp4` on the real Picamera2 and the PyAV that it depends on: frame rate and colours in ffmpeg."""

import io
import json
import shutil
import statistics
import subprocess
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from tests.rig.rig import Rig
from tests.support.rig_client import Portal, decode, photographs, psnr_db, recognise, shrunk, start_portal
from tests.support.timeouts import RUN_LIMIT_S

_HD = ("--camera", "Virtual0", "--width", "1280", "--height", "720", "--fps", "30")
_NEAR_DB = 27.0  # of the photograph, after libcamera's scaling and H.264


def run(*command: str) -> bytes:
    """Return the output of an FFmpeg program, which must succeed without messages.

    Conversions to RGB run with `-v error`, as the scaler warns about full-range input.
    """
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(command, capture_output=True, timeout=RUN_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    return done.stdout


def probe(portal: Portal, seconds: int) -> tuple[dict[str, object], list[float]]:
    """The properties of the stream, and the times of its packets."""
    shown = run(
        *("ffprobe", "-v", "warning", "-of", "json", "-show_streams", "-show_packets"),
        *("-read_intervals", f"%+{seconds}", f"{portal.url}/stream.mp4"),
    )
    report = json.loads(shown)
    (stream,) = report["streams"]
    return stream, [float(packet["pts_time"]) for packet in report["packets"]]


def test_fmp4_frame_rate(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    portal = start_portal(rig, *_HD)
    stream, times = probe(portal, 4)
    assert (stream["codec_name"], stream["profile"]) == ("h264", "Constrained Baseline")
    assert (stream["width"], stream["height"], stream["color_range"]) == (1280, 720, "pc")
    gaps = [after - before for before, after in pairwise(times)]
    with capsys.disabled():
        rate = (len(times) - 1) / (times[-1] - times[0])
        print(f"\n/stream.mp4 of Picamera2: {rate:.1f} frames a second, {1000 * statistics.median(gaps):.1f} ms apart")
    assert min(gaps) > 0
    assert len(times) > 40
    portal.wait_for_status(viewers=0, h264=None)


def test_fmp4_colours(rig: Rig) -> None:
    """Virtual0 delivers NV12 in one buffer, which is read without a copy."""
    portal = start_portal(rig, *_HD)
    shown = run(
        *("ffmpeg", "-nostdin", "-v", "error", "-t", "3", "-i", f"{portal.url}/stream.mp4"),
        *("-fps_mode", "passthrough", "-enc_time_base", "1:90000", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"),
    )
    pictures = np.frombuffer(shown, np.uint8).reshape(-1, 720, 1280, 3)
    assert len(pictures) > 20
    seen = {recognise(rig, picture) for picture in pictures[:: len(pictures) // 4]}
    assert len(seen) > 1
    picture = pictures[-1]
    wanted = photographs(rig.root)[recognise(rig, picture)]
    assert psnr_db(shrunk(picture), shrunk(wanted)) > _NEAR_DB


def test_fmp4_matches_snapshot(rig: Rig) -> None:
    portal = start_portal(rig, "--camera", "Virtual1", "--width", "640", "--height", "480")
    shown = run(
        *("ffmpeg", "-nostdin", "-v", "error", "-i", f"{portal.url}/stream.mp4", "-frames:v", "10"),
        *("-update", "1", "-f", "image2pipe", "-c:v", "png", "-"),
    )
    last = shown[shown.rindex(b"\x89PNG") :]
    with Image.open(io.BytesIO(last)) as image:
        movie = np.asarray(image.convert("RGB"))
    snapshot = decode(portal.get("/snapshot.jpg").body)
    assert movie.shape == snapshot.shape
    assert np.abs(movie.mean(axis=(0, 1)) - snapshot.mean(axis=(0, 1))).max() < 4
    assert np.percentile(movie, (5, 95)) == pytest.approx(np.percentile(snapshot, (5, 95)), abs=4)
