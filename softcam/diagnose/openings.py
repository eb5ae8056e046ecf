"""The check that opens and closes the camera several times, and counts what is left behind each time."""

import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from softcam.diagnose.camera import CheckedCamera
from softcam.diagnose.report import Finding, Status
from softcam.runtime import memory
from softcam.runtime.deadline import Deadline

OPENINGS: Final = 10
_TIMEOUT_S: Final = 25.0  # for the first frame, as in `stream`
_WARM_UP: Final = 1  # the first opening creates objects that stay
_COMPARED: Final = 3  # at the beginning and at the end; the least of each, as threads end a moment later
_MAX_RSS_BYTES: Final = 1_000_000  # growth for each opening
_CURE: Final = "attach this report to a bug report; until then, a longer --linger means fewer openings"


@dataclass(frozen=True, slots=True)
class Usage:
    """What this process uses: open descriptors, threads, and resident memory in bytes."""

    descriptors: int
    threads: int
    rss_bytes: int

    @classmethod
    def now(cls) -> "Usage":
        process = Path("/proc/self")
        return cls(
            len(os.listdir(process / "fd")),  # noqa: PTH208 - paths of descriptors that are closed again
            len(os.listdir(process / "task")),  # noqa: PTH208
            memory.resident_bytes(),
        )


def check_openings(camera: CheckedCamera, count: int = OPENINGS) -> Finding:
    """The camera is open at first, and closed at the end."""
    usages, opening_s = list[Usage](), list[float]()
    if not camera.release():
        return Finding(Status.FAILED, "the camera was not closed in time")
    for number in range(1, count + 1):
        opening_s.append(camera.open(Deadline.after(_TIMEOUT_S)))
        if not camera.release():
            return Finding(Status.FAILED, f"the camera was not closed in time after opening {number}")
        memory.release_unused()  # as the portal does
        usages.append(Usage.now())
    return judge_openings(usages, opening_s)


def judge_openings(usages: Sequence[Usage], opening_s: Sequence[float]) -> Finding:
    """The finding from the usage after each closing, and the time of each opening until its first frame."""
    early = usages[_WARM_UP : _WARM_UP + _COMPARED]
    late = usages[-_COMPARED:]
    rounds = max(1, len(usages) - _WARM_UP - _COMPARED)  # between the least of both, at least
    grown = {
        name: min(getattr(each, name) for each in late) - min(getattr(each, name) for each in early)
        for name in ("descriptors", "threads", "rss_bytes")
    }
    data = {
        "openings": len(usages),
        "first_frame_s": round(statistics.median(opening_s), 3),
        "longest_s": round(max(opening_s), 3),
        "leaked_descriptors": grown["descriptors"],
        "leaked_threads": grown["threads"],
        "grown_rss_bytes": grown["rss_bytes"],
        "rounds": [
            {"descriptors": each.descriptors, "threads": each.threads, "rss_bytes": each.rss_bytes} for each in usages
        ],
    }
    message = f"{len(usages)} openings, {data['first_frame_s']:.2f} s until the first frame"
    message += f", at most {data['longest_s']:.2f} s; more descriptors: {grown['descriptors']}"
    message += f", threads: {grown['threads']}, memory: {grown['rss_bytes'] / 1e6:.1f} MB"
    if max(grown["descriptors"], grown["threads"]) >= rounds:
        return Finding(Status.FAILED, f"{message}: each opening leaves some behind", _CURE, data)
    if max(grown["descriptors"], grown["threads"]) > 0 or grown["rss_bytes"] > rounds * _MAX_RSS_BYTES:
        return Finding(Status.WARNING, message, _CURE, data)
    return Finding(Status.OK, message, data=data)
