"""Chromium plays `/stream.mp4` by Media Source: how far behind the camera, whether it stays so, in what colours.

The player is a small one of the test's own; that of the page is another matter. The movie's time and
`X-Timestamp-Zero` tell a frame's moment, requestVideoFrameCallback when it was shown, both by this machine's clock.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.visiting import Visitor
from tests.conftest import Portal

Start = Callable[..., Portal]
WATCHED_S = 15
MOST_BEHIND_MS = 300  # what is promised
MOST_DRIFT_MS = 100
FLAGS = ("--width", "1280", "--height", "720", "--fps", "30")

PLAYER = """
async (edge) => {
  const video = document.createElement("video");
  video.muted = true;
  document.body.replaceChildren(video);
  const answer = await fetch("/stream.mp4");
  const zero = Number(answer.headers.get("X-Timestamp-Zero"));
  const reader = answer.body.getReader();
  const first = (await reader.read()).value;
  const at = new TextDecoder("latin1").decode(first).indexOf("avcC");
  const codec = "avc1." + [...first.slice(at + 5, at + 8)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const source = new MediaSource();
  video.src = URL.createObjectURL(source);
  await new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
  const buffer = source.addSourceBuffer(`video/mp4; codecs="${codec}"`);
  const movie = (window.movie = { video, codec, shown: [], waits: 0, jumps: 0, error: null });
  video.addEventListener("waiting", () => (movie.waits += 1));
  video.addEventListener("error", () => (movie.error = video.error.message));
  const look = (now, frame) => {
    const shown_s = (performance.timeOrigin + frame.presentationTime) / 1000;
    movie.shown.push([shown_s, (shown_s - zero - frame.mediaTime) * 1000]);
    video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
  const feed = async () => {
    for (let chunk = first; chunk; chunk = (await reader.read()).value) {
      const done = new Promise((resolve) => buffer.addEventListener("updateend", resolve, { once: true }));
      buffer.appendBuffer(chunk);
      await done;
      const { buffered, currentTime } = video;
      if (!buffered.length) continue;
      const start = buffered.start(buffered.length - 1), end = buffered.end(buffered.length - 1);
      const behind = end - currentTime;
      if (currentTime < start || behind > 1) {
        video.currentTime = Math.max(start, end - edge);
        movie.jumps += 1;
      } else video.playbackRate = behind > edge + 0.03 ? 1.05 : behind < edge - 0.03 ? 0.95 : 1;
      if (video.paused) video.play();
    }
  };
  feed().catch((error) => (movie.error = String(error)));
}
"""
# The mean colour of what an element shows.
COLOUR = """
(picture) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [64, 36];
  const context = canvas.getContext("2d");
  context.drawImage(picture, 0, 0, 64, 36);
  const sums = [0, 0, 0];
  context.getImageData(0, 0, 64, 36).data.forEach((value, at) => at % 4 < 3 && (sums[at % 4] += value));
  return sums.map((sum) => sum / (64 * 36));
}
"""
SNAPSHOT = """
async () => {
  const image = new Image();
  image.src = "/snapshot.jpg?" + Math.random();
  await image.decode();
  window.snapshot = image;
}
"""


def play(visitor: Visitor, portal: Portal, edge_s: float = 0.15) -> Page:
    """A page of the portal's origin, with nothing but the player in it."""
    page = visitor.open(portal)
    page.goto(f"{portal.url}/health")
    page.evaluate(PLAYER, edge_s)
    page.wait_for_function("movie.shown.length > 10")
    return page


def told(page: Page) -> dict[str, Any]:
    report: dict[str, Any] = page.evaluate(
        "({shown: movie.shown, waits: movie.waits, jumps: movie.jumps, error: movie.error, codec: movie.codec,"
        " quality: movie.video.getVideoPlaybackQuality().droppedVideoFrames})"
    )
    return report


@pytest.mark.alone
def test_is_close_behind_the_camera_and_stays_there(
    start_portal: Start, visitor: Visitor, capsys: pytest.CaptureFixture[str]
) -> None:
    page = play(visitor, start_portal(*FLAGS))
    began_s = page.evaluate("movie.shown.at(-1)[0]")
    page.wait_for_function(f"movie.shown.at(-1)[0] > {began_s + WATCHED_S}", timeout=(WATCHED_S + 20) * 1000)
    report = told(page)
    shown = [delay for moment, delay in report["shown"] if moment > began_s + 2]  # at first it finds its place
    half = len(shown) // 2
    median, drift = statistics.median(shown), statistics.median(shown[half:]) - statistics.median(shown[:half])
    late = sorted(shown)[int(0.95 * len(shown))]
    rate = len(shown) / (WATCHED_S - 2)
    with capsys.disabled():
        print(
            f"\nChromium, {report['codec']}: {median:.0f} ms behind the camera (95th: {late:.0f} ms), "
            f"drift {drift:+.1f} ms, {rate:.1f} frames a second, {report['waits']} waits, {report['jumps']} jumps"
        )
    assert report["error"] is None
    assert 0 < median < MOST_BEHIND_MS
    assert abs(drift) < MOST_DRIFT_MS
    assert rate > 10


def test_goes_on_when_the_camera_is_back(start_portal: Start, visitor: Visitor, faults: Path) -> None:
    portal = start_portal("--pattern-faults", str(faults), "--watchdog-timeout", "1", *FLAGS)
    page = play(visitor, portal)
    faults.write_text("hang-once")
    portal.wait_for_log("restarting the stream")
    faults.write_text("")
    portal.wait_for_log("Frames come again")
    seen = page.evaluate("movie.shown.length")
    page.wait_for_function(f"movie.shown.length > {seen + 30}")
    report = told(page)
    assert report["error"] is None
    assert statistics.median(delay for _, delay in report["shown"][-20:]) < 1000


def test_shows_the_colours_of_a_snapshot(start_portal: Start, visitor: Visitor) -> None:
    page = play(visitor, start_portal(*FLAGS))
    page.evaluate(SNAPSHOT)
    movie = page.evaluate(f"({COLOUR})(movie.video)")
    snapshot = page.evaluate(f"({COLOUR})(snapshot)")
    assert movie == pytest.approx(snapshot, abs=3)
