"""Tests of `/stream.m3u8` on a running portal: players, start and end, recovery, a change of size, a restart."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from tests.conftest import Portal
from tests.support.http_client import ask, post, status_of, wait_for_status
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S, TIMEOUT_FACTOR

Start = Callable[..., Portal]
FLAGS = ("--width", "320", "--height", "180", "--fps", "20", "--bitrate", "500000")
SHARED_FLAGS = ("--watchdog-timeout", "2", *FLAGS)
IDLE_S = 10.0


@dataclass(frozen=True, slots=True)
class Segment:
    number: int
    era: int  # discontinuity number
    duration_s: float
    date: str
    initial: str
    path: str


class Player:
    """Follows the playlist as RFC 8216 describes, and keeps every segment that it has seen."""

    def __init__(self, portal: Portal, query: str = "") -> None:
        self.portal = portal
        variants = self._text(f"/stream.m3u8{query}")
        (address,) = _addresses(variants)
        self.attributes = re.findall(r"#EXT-X-STREAM-INF:(.*)", variants)[0]
        self.path = urljoin("/stream.m3u8", address)
        self.seen: dict[int, Segment] = {}
        self.update()

    def update(self) -> list[Segment]:
        """Load the playlist; returns the segments that are new."""
        text = self._text(self.path)
        tags = dict(re.findall(r"#EXT-X-([A-Z-]+):(\d+)$", text, re.MULTILINE))
        self.target_s = int(tags["TARGETDURATION"])
        number, era = int(tags["MEDIA-SEQUENCE"]), int(tags["DISCONTINUITY-SEQUENCE"])
        new, initial, date, duration_s = [], "", "", 0.0
        for line in text.splitlines():
            tag, _, value = line.partition(":")
            match tag:
                case "#EXT-X-DISCONTINUITY":
                    era += 1
                case "#EXT-X-MAP":
                    initial = urljoin(self.path, value.split('"')[1])
                case "#EXT-X-PROGRAM-DATE-TIME":
                    date = value
                case "#EXTINF":
                    duration_s = float(value.rstrip(","))
                    assert duration_s < self.target_s + 0.5
            if not line.startswith("#"):
                segment = Segment(number, era, duration_s, date, initial, urljoin(self.path, line))
                assert self.seen.setdefault(number, segment) == segment, "a segment has changed"
                new.append(segment)
                number += 1
        return new

    def follow(self, is_over: Callable[[Segment], bool]) -> Segment:
        """Load the playlist again and again until it has such a segment."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            for segment in self.update():
                if is_over(segment):
                    return segment
            time.sleep(0.2)
        raise AssertionError(f"no such segment: {list(self.seen.values())[-3:]}\n{self.portal.log}")

    def _text(self, path: str) -> str:
        answer = ask(self.portal, path)
        assert answer.status == 200, answer.body
        assert answer.headers["Content-Type"] == "application/vnd.apple.mpegurl"
        return answer.body.decode()


def _addresses(playlist: str) -> list[str]:
    return [line for line in playlist.splitlines() if not line.startswith("#")]


def run(*command: str) -> tuple[str, str]:
    """Run an FFmpeg program, which must succeed; return its standard output and error."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]}")
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


@pytest.mark.measurement
def test_first_playlist(start_portal: Start, capsys: pytest.CaptureFixture[str]) -> None:
    """From a closed camera in less than three seconds, with more than a second of video."""
    portal = start_portal(*FLAGS)
    assert portal.url
    began_s = time.monotonic()
    player = Player(portal)
    took_s = time.monotonic() - began_s
    with capsys.disabled():
        print(f"\n/stream.m3u8: the first playlist after {took_s:.2f} s")
    assert took_s < 3
    assert sum(segment.duration_s for segment in player.seen.values()) >= 1
    assert player.target_s == 1
    assert re.fullmatch(
        r'BANDWIDTH=\d+,CODECS="avc1\.42[0-9a-f]{4}",RESOLUTION=320x180,FRAME-RATE=20\.000', player.attributes
    )


def test_ffprobe(portal: Portal) -> None:
    shown, complaints = run(
        *("ffprobe", "-v", "error", "-of", "json", "-read_intervals", "%+4", "-show_streams", "-show_packets"),
        f"{portal.url}/stream.m3u8",
    )
    assert complaints == ""
    report: dict[str, Any] = json.loads(shown)
    (stream,) = report["streams"]
    assert (stream["codec_name"], stream["width"], stream["height"]) == ("h264", 320, 180)
    times = [float(packet["pts_time"]) for packet in report["packets"]]
    assert "K" in report["packets"][0]["flags"]
    assert all(after > before for before, after in pairwise(times))
    assert times[-1] - times[0] > 3


def test_ffmpeg_decodes_all_frames(portal: Portal) -> None:
    _, complaints = run(
        *("ffmpeg", "-nostdin", "-v", "error", "-xerror", "-i", f"{portal.url}/stream.m3u8", "-t", "5"),
        *("-fps_mode", "passthrough", "-f", "null", "-"),
    )
    assert complaints == ""


def test_camera_is_open_only_while_there_are_requests(portal: Portal) -> None:
    wait_for_status(portal, viewers=0, held_by=[])
    player = Player(portal)
    other = Player(portal)
    status = status_of(portal)
    assert status["viewers"] == 2
    assert [(lease["kind"], lease["count"]) for lease in status["held_by"]] == [("stream", 1)]
    player.follow(lambda segment: segment.number > max(other.seen) + 2)
    wait_for_status(portal, held_by=[])
    portal.wait_for_log("HLS stopped: no request for 10 s")
    assert ask(portal, next(iter(player.seen.values())).path).status == 404
    last = player.seen[max(player.seen)]
    first = player.update()[0]  # the same playlist opens the camera again
    assert first.number > last.number
    assert first.era == last.era + 1


def test_segments_after_removal_from_the_playlist(portal: Portal) -> None:
    player = Player(portal)
    first = next(iter(player.seen.values()))
    player.follow(lambda segment: segment.number == first.number + 8)
    assert ask(portal, first.path).status == 200
    assert ask(portal, first.initial).status == 200


def test_dates_are_those_of_the_exposures(portal: Portal) -> None:
    player = Player(portal)
    newest = list(player.seen.values())[-1]
    age_s = time.time() - datetime.fromisoformat(newest.date).timestamp()
    assert newest.duration_s < age_s < newest.duration_s + 2 * TIMEOUT_FACTOR


def test_recovery_is_a_discontinuity(portal: Portal, shared_faults: Path) -> None:
    player = Player(portal)
    before = max(player.seen.values(), key=lambda segment: segment.number)
    shared_faults.write_text("hang-once")
    portal.wait_for_log("restarting the stream")
    shared_faults.write_text("")
    portal.wait_for_log("Camera recovered")
    after = player.follow(lambda segment: segment.era > before.era)
    player.follow(lambda segment: segment.number > after.number + 1)
    assert player.target_s == 1
    assert player.seen[after.number].initial == before.initial


def test_size_change_is_a_discontinuity(portal: Portal) -> None:
    player = Player(portal)
    before = max(player.seen.values(), key=lambda segment: segment.number)
    assert post(portal, "/v1/camera/stream", {"width": 240, "height": 136}).status == 200
    after = player.follow(lambda segment: segment.era > before.era)
    assert after.initial != before.initial
    contents = [ask(portal, each.initial).body for each in (before, after)]
    assert [(320).to_bytes(2, "big") + (180).to_bytes(2, "big") in each for each in contents] == [True, False]
    assert (240).to_bytes(2, "big") + (136).to_bytes(2, "big") in contents[1]


def test_restart_of_the_portal(start_portal: Start) -> None:
    """A player continues with its playlist, and is never sent to a segment of the time before.

    A restart that takes three seconds; a quicker one may repeat numbers, with other names.
    """
    portal = start_portal(*FLAGS)
    player = Player(portal)
    before = dict(player.seen)
    port = portal.url.rpartition(":")[2]
    portal.stop()
    time.sleep(3.0)  # numbers run ahead of the time by up to three
    player.portal = start_portal(*FLAGS, "--port", port)
    assert player.portal.url
    new = player.update()
    assert min(segment.number for segment in new) > max(before)
    assert {segment.era for segment in new}.isdisjoint(segment.era for segment in before.values())
    assert {segment.path for segment in new}.isdisjoint(segment.path for segment in before.values())
    assert ask(player.portal, new[0].path).status == 200


def test_missing_camera(start_portal: Start, tmp_path: Path) -> None:
    faults = tmp_path / "faults"
    faults.write_text("")
    portal = start_portal("--pattern-faults", str(faults), *FLAGS)
    assert portal.url
    faults.write_text("missing")
    answer = ask(portal, "/stream.m3u8")
    assert answer.status == 503
    assert "missing" in answer.detail
    assert portal.wait() == 66


def test_view_key(start_portal: Start) -> None:
    portal = start_portal(*FLAGS, environment={"CAMERA_API_KEY": "full-key", "CAMERA_VIEW_KEY": "s3/cret"})
    assert ask(portal, "/stream.m3u8").status == 401
    player = Player(portal, "?key=s3%2Fcret")
    for segment in player.seen.values():
        for path in (segment.initial, segment.path):
            assert path.endswith("?key=s3%2Fcret")
            assert ask(portal, path).status == 200
            assert ask(portal, path.partition("?")[0]).status == 401
    source = f"{portal.url}/stream.m3u8?key=s3%2Fcret"
    _, complaints = run("ffmpeg", "-nostdin", "-v", "error", "-i", source, "-t", "2", "-f", "null", "-")
    assert complaints == ""
    assert "s3" not in portal.log
