"""Recordings of a portal in tests: requests, and files as FFmpeg reads them."""

import json
import subprocess
from pathlib import Path
from typing import Any

from tests.conftest import Portal
from tests.support.http_client import Listening, ask, post
from tests.support.timeouts import RUN_LIMIT_S

SMALL = ("--width", "320", "--height", "180", "--fps", "20", "--no-autofocus")
FPS = 20


def listed(portal: Listening) -> dict[str, Any]:
    answer = ask(portal, "/v1/recordings")
    assert answer.status == 200, answer.body
    content: dict[str, Any] = answer.json
    return content


def start(portal: Portal, **options: Any) -> dict[str, Any]:
    answer = post(portal, "/v1/recordings/start", options)
    assert answer.status == 200, answer.body
    running: dict[str, Any] = answer.json["recording"]
    return running


def stop(portal: Portal) -> dict[str, Any]:
    answer = post(portal, "/v1/recordings/stop", {})
    assert answer.status == 200, answer.body
    ended: dict[str, Any] = answer.json["recording"]
    return ended


def elapsed_s(portal: Portal) -> float:
    return float(listed(portal)["running"]["video"]["elapsed_s"])


def recorded_s(portal: Portal) -> float:
    """The duration of the newest file."""
    return float(listed(portal)["recordings"][0]["duration_s"] or 0.0)


def probe(path: Path) -> tuple[int, float, list[float]]:
    """Decodable frames, the duration that the file declares, and the time of each frame, as FFmpeg reads them."""
    command = ["ffprobe", "-v", "error", "-show_entries", "format=duration:frame=pts_time", "-of", "json", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=RUN_LIMIT_S, check=True)
    assert answer.stderr == ""
    found = json.loads(answer.stdout)
    times = [float(frame["pts_time"]) for frame in found["frames"]]
    return len(times), float(found["format"]["duration"]), times


def has_date_of_its_name(path: Path) -> bool:
    """Whether the creation date, as FFmpeg reads it, is that of the name."""
    command = ["ffprobe", "-v", "error", "-show_entries", "format_tags=creation_time", "-of", "csv=p=0", str(path)]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return answer.stdout.strip() == f"{path.name[:10]}T{path.name[11:19].replace('-', ':')}.000000Z"


def videos(folder: Path) -> list[Path]:
    return sorted(folder.glob("2*.mp4"))
