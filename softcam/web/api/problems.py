"""What a person should look at now, for `/health` and the metrics: the portal does not do what it was asked to do.

Not what is over, such as a restart, and not what may become a problem, such as a disk that is nearly full. The table of
conditions is in docs/operating.md. Any thread; nothing here waits.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from softcam.rtsp.publisher.publisher import PublisherState

# By code, in the order of urgency: what `detail` says where there is no reason that is public.
CODES: Final[Mapping[str, str]] = {
    "camera": "the camera delivers no frames",
    "stuck": "a part of the portal hangs",
    "recording": "something cannot be recorded",
    "publishing": "publishing to the RTSP server fails",
    "hook": "the frame hook fails or is too slow",
    "controls_set_aside": "saved controls were quarantined",
    "controls_not_kept": "controls cannot be saved",
    "presets_set_aside": "saved presets were quarantined",
    "presets_not_kept": "presets cannot be saved",
}

Check = Callable[[], Iterable[str]]  # returns codes


def current(checks: Iterable[Check]) -> list[str]:
    """The codes that the checks of the components report, in the order of `CODES`."""
    found = {code for check in checks for code in check()}
    return [code for code in CODES if code in found]


def check_stuck(stall_error: Callable[[], str | None]) -> Check:
    """`stall_error` returns why a part of the portal hangs, or None."""
    return lambda: ["stuck"] if stall_error() is not None else []


def check_recording(status: Callable[[], Mapping[str, Any] | None]) -> Check:
    """`status` returns the status of the recordings; None if there are none."""
    return lambda: ["recording"] if (status() or {}).get("last_error") is not None else []


def check_publishing(state: Callable[[], PublisherState]) -> Check:
    """A publisher that waits for the camera has the problem of the camera."""
    return lambda: ["publishing"] if state() is PublisherState.FAILED else []


def check_hook(is_failing: Callable[[], bool]) -> Check:
    return lambda: ["hook"] if is_failing() else []


def check_saved(fields: Callable[[], Mapping[str, Any]]) -> Check:
    """`fields` has reasons, or None, under the names of the codes; it may have other fields."""
    return lambda: [code for code, reason in fields().items() if code in CODES and reason is not None]
