"""File names of recordings: how they are formed and parsed. Pure functions; any thread.

A name states the kind and the start in UTC: `2026-11-20_23-15-02.mp4`, `…_timelapse.mp4` with a folder of stills next
to it, and `….jpg` for a still. Each recording may have a thumbnail next to it under a hidden name.
"""

import math
import re
from datetime import UTC, datetime
from typing import Final, Literal

Kind = Literal["video", "timelapse", "still"]
SortKey = tuple[str, int, str]

NAME_PATTERN: Final = r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}(-\d{1,3})?(_timelapse\.mp4|\.mp4|\.jpg)"
MAX_PER_SECOND: Final = 999  # recordings that start in the same second are numbered
_NAME: Final = re.compile(NAME_PATTERN, re.ASCII)
_TIME: Final = "%Y-%m-%d_%H-%M-%S"
_TIME_LENGTH: Final = 19
_SUFFIXES: Final[dict[Kind, str]] = {"video": ".mp4", "timelapse": "_timelapse.mp4", "still": ".jpg"}


def is_recording(name: str) -> bool:
    """Whether the name has the form of a recording's; only such names are ever opened."""
    return _NAME.fullmatch(name) is not None


def format_name(kind: Kind, began_s: float, number: int) -> str:
    """The name of the recording `number`, from 1 on, among those that start in the second of `began_s` (Unix time)."""
    moment = datetime.fromtimestamp(began_s, UTC).strftime(_TIME)
    return f"{moment}{'' if number == 1 else f'-{number}'}{_SUFFIXES[kind]}"


def kind_of(name: str) -> Kind:
    if name.endswith(_SUFFIXES["still"]):
        return "still"
    return "timelapse" if name.endswith(_SUFFIXES["timelapse"]) else "video"


def is_timelapse(name: str) -> bool:
    return is_recording(name) and kind_of(name) == "timelapse"


def sort_key(name: str) -> SortKey:
    """A key that orders recordings by their start; within a second by number."""
    match = _NAME.fullmatch(name)
    number = match[1] if match is not None else None
    return name[:_TIME_LENGTH], int(number[1:]) if number else 1, name


def sort_key_at(moment_s: float) -> SortKey:
    """A key that is before those of recordings that start at that moment (Unix time) or later."""
    return datetime.fromtimestamp(math.ceil(moment_s), UTC).strftime(_TIME), 0, ""


def start_of(name: str) -> float:
    """When the recording started, Unix time."""
    try:
        return datetime.strptime(name[:_TIME_LENGTH], _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:  # an impossible date, as 31 February, named by hand
        return 0.0


def thumbnail_of(name: str) -> str:
    """The name of the recording's thumbnail."""
    return f".{name}.jpg"


def keep_mark_of(name: str) -> str:
    """The name of the file that marks the recording as one to keep."""
    return f".{name}.keep"


def owner_of(hidden: str) -> str | None:
    """The recording whose thumbnail or mark has this name, or whose photo, thumbnail or mark was not written to its end
    (`atomic_file.write_file`); None for other names."""
    for name in (hidden[1:], hidden[1:-4], hidden[2:-4], hidden[1:-5], hidden[2:-5]):
        thumbnail, mark = thumbnail_of(name), keep_mark_of(name)
        if is_recording(name) and hidden in (f".{name}", thumbnail, f".{thumbnail}", mark, f".{mark}"):
            return name
    return None


def stills_of(name: str) -> str:
    """The name of the folder with a time-lapse's stills."""
    return name.removesuffix(".mp4")
