"""The smaller stream of `--substream` on a running portal, as ffprobe reads it by RTSP and over HTTP."""

import json
import shutil
import statistics
import subprocess
from itertools import pairwise

import pytest

from tests.conftest import Portal
from tests.support.http_client import status_of
from tests.support.timeouts import RUN_LIMIT_S

FPS, SUB_FPS = 20, 5
SHARED_FLAGS = (
    *("--width", "480", "--height", "360", "--fps", str(FPS), "--bitrate", "500000", "--rtsp-port", "0"),
    *("--substream", f"320x320@{SUB_FPS}"),  # the stream's aspect ratio within it: 320x240
)
PROBE = (
    *("ffprobe", "-v", "error", "-of", "json", "-probesize", "65536", "-fpsprobesize", "0"),
    *("-read_intervals", "%+3", "-show_streams", "-show_packets"),
)


def test_size_and_frame_rate(portal: Portal) -> None:
    """Of both streams at once: the smaller one is not at the expense of the other."""
    if shutil.which("ffprobe") is None:
        pytest.skip("needs ffprobe")
    rtsp = status_of(portal)["rtsp"]["url"].rstrip("/")
    expected = {
        f"{rtsp}/": (480, 360, FPS),
        f"{rtsp}/sub": (320, 240, SUB_FPS),
        f"{portal.url}/stream.mp4": (480, 360, FPS),
        f"{portal.url}/stream.mp4?sub=1": (320, 240, SUB_FPS),
    }
    probes = {
        url: subprocess.Popen(
            [*PROBE, *(("-rtsp_transport", "tcp") if url.startswith("rtsp:") else ()), url], stdout=subprocess.PIPE
        )
        for url in expected
    }
    try:
        reports = {url: json.loads(probe.communicate(timeout=RUN_LIMIT_S)[0]) for url, probe in probes.items()}
    finally:
        for probe in probes.values():
            probe.kill()
            probe.wait()
    for url, (width, height, fps) in expected.items():
        (stream,) = reports[url]["streams"]
        assert (stream["codec_name"], stream["width"], stream["height"]) == ("h264", width, height), url
        times = [float(packet["pts_time"]) for packet in reports[url]["packets"] if "pts_time" in packet]
        intervals_s = [after - before for before, after in pairwise(times)]
        assert statistics.median(intervals_s) == pytest.approx(1 / fps, rel=0.25), url
