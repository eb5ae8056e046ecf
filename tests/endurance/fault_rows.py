"""What clients see of each fault of the pattern camera: the rows of the tables in docs/reliability.md.

`test_fault_matrix.py` runs each row, and `tools/render_docs.py` renders the tables. Data and text only.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

CLIENTS: Final = ("viewer", "mp4", "rtsp", "snapshot", "recording", "publishing")

# What a client sees.
CONTINUES: Final = "continues"
WAITS: Final = "waits, starts"
PAUSES: Final = "pauses, continues"  # on the same connection, and in the same file
NOTICES: Final = "notice, continues"
ANSWERED: Final = "200"
REFUSED: Final = "503"
ENDS: Final = "ends"
NOTICE_ENDS: Final = "notice, ends"
NEW_FILE: Final = "paused with a reason, continues in a new file"
RESUMED: Final = "resumed after the restart"  # in another file; the first is complete


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One row; the name is also that of the test."""

    name: str
    words: str  # in the faults file
    event: str
    is_open: bool = True  # whether clients are connected before the fault, or connect when it is there
    until: str = ""  # the fault ends after this line of the log
    hold_s: float = 0.0  # and so much later
    request: tuple[str, str, Any] | None = None  # method, path and body of a request that meets the fault
    flags: tuple[str, ...] = ()
    seen: Mapping[str, str]  # by the names in `CLIENTS`
    recovery: float = 0.0  # at most so many times --watchdog-timeout, from the fault on, or from its end with `hold_s`
    exit_code: int | None = None
    counted: Mapping[str, int] = field(default_factory=dict)  # by metric
    logged: Sequence[str] = ()  # regular expressions: all warnings and errors
    noted: str = ""  # a line of another level


def _all(seen: str, **different: str) -> dict[str, str]:
    return dict.fromkeys(CLIENTS, seen) | different


_RESTARTS: Final = "soft_stream_restarts_total"
_OPENS: Final = "soft_stream_camera_opens_total"
_RESTARTING: Final = r"No frame for \d\.\d s: restarting the stream"
_REOPENING: Final = r"No frame for \d\.\d s: reopening the camera"
WAITING: Final = r"Publishing to \S+ waits: the camera delivers no frames"
_PAUSED: Final = "Video recording: no frames from the camera"
_REJECTED: Final = r"RTSP client \S+ rejected: "
_NOT_RECORDED: Final = "Video recording: "
_FORCED: Final = ("Camera did not close in time", "Forcing exit")  # the call still hangs
_MIRRORED: Final = ("POST", "/v1/camera/transform", {"hflip": True})
_STILL: Final = ("GET", "/snapshot.jpg?full=1", None)
_FOCUS: Final = ("GET", "/snapshot.jpg?autofocus=1", None)


def _exiting(code: int, reason: str) -> str:
    return f"Camera failed, exiting with code {code}: {reason}"


FAULTS: Final = (
    Fault(
        name="short-hang",
        words="hang",
        event="no frames for less than `--watchdog-timeout`",
        hold_s=0.5,
        seen=_all(CONTINUES, snapshot=ANSWERED),
    ),
    Fault(
        name="hang-once",
        words="hang-once",
        event="no frames until the stream is restarted",
        until="Camera recovered",
        seen=_all(PAUSES, snapshot=ANSWERED),
        recovery=1,
        counted={_RESTARTS: 1},
        logged=(_RESTARTING,),
        noted="Camera recovered",
    ),
    Fault(
        name="hang-until-reopened",
        words="hang",
        event="no frames until the camera is reopened",
        until="reopening the camera",
        seen=_all(PAUSES, snapshot=ANSWERED, viewer=NOTICES),
        recovery=2,
        counted={_RESTARTS: 2, _OPENS: 1},
        logged=(_RESTARTING, WAITING, _REOPENING),
        noted="Camera recovered",
    ),
    Fault(
        name="fail-restart",
        words="hang-once fail-restart",
        event="no frames, and the stream cannot be restarted",
        until="Camera recovered",
        seen=_all(PAUSES, snapshot=ANSWERED),
        recovery=1,
        counted={_RESTARTS: 2, _OPENS: 1},
        logged=(_RESTARTING, "Restarting the stream failed: the pattern camera's stream does not restart", _REOPENING),
        noted="Camera recovered",
    ),
    Fault(
        name="slow-stop",
        words="hang-once hang-stop",
        event="no frames, and the restart takes 2 s",
        until="restarting the stream",
        hold_s=2,
        seen=_all(PAUSES, snapshot=ANSWERED, viewer=NOTICES),
        recovery=1,
        counted={_RESTARTS: 1},
        logged=(_RESTARTING, WAITING),
        noted="Camera recovered",
    ),
    Fault(
        name="slow-close",
        words="hang-close",
        event="the camera is reopened for new controls, and closing it takes 4 s",
        request=_MIRRORED,
        hold_s=4,
        seen=_all(PAUSES, snapshot=ANSWERED),
        counted={_OPENS: 1},
        logged=(WAITING,),
    ),
    Fault(
        name="slow-still",
        words="hang-still",
        event="a full-sensor still takes 4 s longer",
        request=_STILL,
        hold_s=4,
        seen=_all(PAUSES, snapshot=ANSWERED),
        logged=(WAITING,),
    ),
    Fault(
        name="refuse",
        words="refuse",
        event="the camera does not open with new controls",
        request=_MIRRORED,
        until="Camera failed to open with the new controls",
        seen=_all(CONTINUES, snapshot=ANSWERED),
        counted={_OPENS: 1},
        logged=(r"Camera failed to open with the new controls \(the pattern camera does not start mirrored\)",),
    ),
    Fault(
        name="slow-open",
        words="slow-open",
        event="opening the camera takes 0.3 s",
        is_open=False,
        seen=_all(WAITS, snapshot=ANSWERED),
        counted={_OPENS: 1},
    ),
    Fault(
        name="short-hang-open",
        words="hang-open",
        event="opening the camera takes 1 s longer",
        is_open=False,
        hold_s=1,
        seen=_all(WAITS, snapshot=ANSWERED),
        counted={_OPENS: 1},
    ),
    Fault(
        name="busy-while-open",
        words="busy",
        event="another program tries to open the camera",
        hold_s=0.5,
        seen=_all(CONTINUES, snapshot=ANSWERED),
    ),
    Fault(
        name="no-focus",
        words="no-focus",
        event="autofocus fails",
        request=_FOCUS,
        until="Autofocus for a snapshot failed",
        seen=_all(CONTINUES, snapshot=ANSWERED),
        logged=("Autofocus for a snapshot failed after",),
    ),
    Fault(
        name="endless-focus",
        words="endless-focus",
        event="autofocus does not finish",
        request=_FOCUS,
        until="Autofocus for a snapshot timed out",
        seen=_all(CONTINUES, snapshot=ANSWERED),
        logged=("Autofocus for a snapshot timed out after",),
    ),
    *(
        Fault(
            name=word,
            words=word,
            event=f"none: {event}",
            hold_s=1,
            seen=_all(CONTINUES, snapshot=ANSWERED),
        )
        for word, event in (("dark", "the scene has 1 lux"), ("near", "the scene is closer"))
    ),
    Fault(
        name="hang-without-watchdog",
        words="hang",
        event="no frames for 11 s, with `--watchdog-timeout 0`",
        hold_s=11,
        flags=("--watchdog-timeout", "0"),
        seen=_all(PAUSES, snapshot=REFUSED, recording=NEW_FILE),
        logged=(WAITING, _PAUSED),
    ),
    Fault(
        name="hang",
        words="hang",
        event="no frames, whatever is tried",
        seen=_all(ENDS, snapshot=REFUSED, viewer=NOTICE_ENDS, recording=RESUMED, publishing=RESUMED),
        exit_code=70,
        logged=(_RESTARTING, WAITING, _REOPENING, _exiting(70, "no frame for .* s, after a restart")),
    ),
    Fault(
        name="hang-open",
        words="hang-open",
        event="opening does not return, for 20 s",
        is_open=False,
        seen=_all(REFUSED, snapshot=REFUSED, publishing=ENDS),
        exit_code=70,
        logged=(WAITING, _exiting(70, "opening the camera takes more than 20 s"), *_FORCED, _REJECTED, _NOT_RECORDED),
    ),
    Fault(
        name="hang-stop",
        words="hang-once hang-stop",
        event="the restart does not return, for 10 s",
        seen=_all(ENDS, snapshot=REFUSED, viewer=NOTICE_ENDS, recording=RESUMED, publishing=RESUMED),
        exit_code=70,
        logged=(_RESTARTING, WAITING, _PAUSED, _exiting(70, "restarting the stream takes more than 10 s"), *_FORCED),
    ),
    Fault(
        name="hang-close",
        words="hang hang-close",
        event="closing does not return, for 10 s",
        seen=_all(ENDS, snapshot=REFUSED, viewer=NOTICE_ENDS, recording=RESUMED, publishing=RESUMED),
        exit_code=70,
        logged=(
            _RESTARTING,
            WAITING,
            _REOPENING,
            _PAUSED,
            _exiting(70, "closing the camera takes more than 10 s"),
            *_FORCED,
        ),
    ),
    Fault(
        name="hang-still",
        words="hang-still",
        event="a still does not return, for 15 s",
        request=_STILL,
        seen=_all(ENDS, snapshot=REFUSED, recording=RESUMED, publishing=RESUMED),
        exit_code=70,
        logged=(WAITING, _PAUSED, _exiting(70, "taking a still takes more than 15 s"), *_FORCED),
    ),
    Fault(
        name="missing",
        words="missing",
        event="the camera is unplugged while it is open",
        seen=_all(ENDS, snapshot=REFUSED, recording=RESUMED, publishing=RESUMED),
        exit_code=66,
        logged=(_exiting(66, "camera .* is gone: no frame for"),),
    ),
    Fault(
        name="missing-when-opened",
        words="missing",
        event="the camera is missing when it is opened",
        is_open=False,
        seen=_all(REFUSED, snapshot=REFUSED, publishing=ENDS),
        exit_code=66,
        logged=(_exiting(66, "the pattern camera is missing"), _REJECTED, _NOT_RECORDED),
    ),
    Fault(
        name="busy",
        words="busy",
        event="another program has the camera when it is opened",
        is_open=False,
        seen=_all(REFUSED, snapshot=REFUSED, publishing=ENDS),
        exit_code=69,
        logged=(_exiting(69, "the pattern camera is in use by another program"), _REJECTED, _NOT_RECORDED),
    ),
)

# What the rig does to the real Picamera2 and libcamera, and the test that shows what clients see.
_LIFE: Final = "tests/rig/test_portal_life.py::"
RIG: Final = (
    (
        "frames stop until the stream is restarted",
        "notice, continues; snapshots 503; `restarts` counts",
        f"{_LIFE}test_recovery_by_restarting_stream",
    ),
    (
        "frames stop until the camera is reopened",
        "continues; `restarts` and `opens` count",
        f"{_LIFE}test_recovery_by_reopening_camera",
    ),
    ("frames stop, whatever is tried", "ends, exit code 70; snapshots 503", f"{_LIFE}test_exit_when_recovery_fails"),
    (
        "frames stop without clients",
        "the camera is closed, the next client opens it",
        f"{_LIFE}test_frozen_camera_without_clients_is_closed",
    ),
    ("frames stop, then SIGTERM", "exit code 0 within 3 s", f"{_LIFE}test_stop_with_frozen_camera"),
    ("unplugged while it streams", "ends, exit code 66", f"{_LIFE}test_unplugged_while_streaming"),
    ("unplugged while it is closed", "503, exit code 66", f"{_LIFE}test_unplugged_while_closed"),
    ("missing at the start", "exit code 66, the log lists the cameras", f"{_LIFE}test_camera_missing_at_start"),
    (
        "frames stop until the stream is restarted, with clients of every kind",
        "all continue, the recording in the same file",
        "tests/rig/test_portal_faults.py::test_all_clients_continue_after_recovery",
    ),
    (
        "unplugged, with clients of every kind",
        "all end, exit code 66; snapshots 503",
        "tests/rig/test_portal_faults.py::test_all_clients_end_when_unplugged",
    ),
    ("another process has it", "503, exit code 69", f"{_LIFE}test_camera_in_two_processes"),
)


def _log_text(pattern: str) -> str:
    """A pattern as readers of a log see the line."""
    for written, shown in (
        (r"\d\.\d s", "N s"),
        (r"client \S+", "client ADDRESS"),
        (r"\S+", "URL"),
        (".* s", "N s"),
        (".*", "NAME"),
        ("\\(", "("),
        ("\\)", ")"),
    ):
        pattern = pattern.replace(written, shown)
    return pattern + "…" * pattern.endswith((": ", " after", " for"))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def clients_table() -> str:
    """What each client sees, as Markdown."""
    head = ("fault", "MJPEG", "MP4", "RTSP", "snapshot", "recording", "publishing")
    rows = [(f"{row.event} (`{row.words}`)", *(row.seen[name] for name in CLIENTS)) for row in FAULTS]
    return _table(head, rows)


def effects_table() -> str:
    """How the portal recovers from each fault and reports it, as Markdown."""
    rows = []
    for row in FAULTS:
        if row.exit_code is not None:
            ends = f"exit code {row.exit_code}"
        elif row.recovery:
            ends = f"{row.recovery:g} × timeout"  # noqa: RUF001
        else:
            ends = "at once"
        counted = ", ".join(f"`{name}` +{more}" for name, more in row.counted.items())
        logged = "; ".join([*map(_log_text, row.logged), *([f"{row.noted} (info)"] if row.noted else [])])
        rows.append((row.event, ends, counted, logged, f"`{row.name}`"))
    return _table(("fault", "recovery", "counted", "logged", "test"), rows)


def rig_table() -> str:
    """What the rig does to the real camera stack, as Markdown."""
    return _table(("fault", "effect", "test"), [(event, effect, f"`{test}`") for event, effect, test in RIG])
