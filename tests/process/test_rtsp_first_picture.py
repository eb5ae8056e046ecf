"""How long a player waits for its first picture by RTSP: ffmpeg, from its start to one decoded picture."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.conftest import Portal
from tests.support.http_client import post, wait_for_status
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

pytestmark = pytest.mark.measurement
Start = Callable[..., Portal]
CLOSED_S = 0.8 * TIMEOUT_FACTOR  # the goals, for ten of ten
OPEN_S = 0.3 * TIMEOUT_FACTOR
TIMES = 10
FPS = 20
# One thread: with more of them FFmpeg's decoder holds pictures back. As documented in docs/h264.md.
FFMPEG = ("ffmpeg", "-nostdin", "-v", "error", "-threads", "1", "-probesize", "32", "-analyzeduration", "0")


def first_picture_s(url: str, transport: str) -> float:
    began_s = time.monotonic()
    command = [*FFMPEG, "-rtsp_transport", transport, "-i", url, "-frames:v", "1", "-f", "null", "-"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (run.returncode, run.stderr) == (0, "")
    return time.monotonic() - began_s


def test_first_picture(start_portal: Start) -> None:
    """Over TCP and UDP, closed and open cameras by turns: a portal closes its camera while others are used."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    size = ("--width", "1280", "--height", "720", "--fps", str(FPS))
    cases = [(transport, is_open) for is_open in (False, True) for transport in ("tcp", "udp")]
    portals = {case: start_portal(*size, "--rtsp-port", "0", "--linger", "0") for case in cases}
    urls = {case: portal.wait_for_log(re.compile(r"Listening on (rtsp://\S+)"))[1] for case, portal in portals.items()}
    for (_, is_open), portal in portals.items():
        if is_open:
            post(portal, "/camera/start", {})
            wait_for_status(portal, state="open")
    took_s: dict[tuple[str, bool], list[float]] = {case: [] for case in cases}
    asked_s = dict.fromkeys(cases, 0.0)
    for number in range(TIMES):
        for case, portal in portals.items():
            transport, is_open = case
            if is_open:
                # Another phase of the frame interval, and no keyframe of the picture before.
                time.sleep(max(0.0, asked_s[case] + 1 + number / TIMES / FPS - time.monotonic()))
            else:
                wait_for_status(portal, state="closed")
            took_s[case].append(first_picture_s(urls[case], transport))
            asked_s[case] = time.monotonic()
    for (transport, is_open), all_s in took_s.items():
        print(f"{transport}, camera {'open' if is_open else 'closed'}: {sorted(all_s)} s")
    assert all(max(all_s) < (OPEN_S if is_open else CLOSED_S) for (_, is_open), all_s in took_s.items()), took_s
