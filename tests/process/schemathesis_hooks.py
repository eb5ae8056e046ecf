"""Additions to the API description for schemathesis, which loads this module in its own process."""

import os
from typing import Any, TypeGuard

import schemathesis

from softcam.controls.schema import BY_NAME
from tests.support.timeouts import TIMEOUT_FACTOR

# On an open camera some valid values delay frames: the limits used there, by group and field. A closed camera is tested
# with all values.
IS_OPEN = os.environ.get("CASES_ON") == "open camera"
QUICK = {
    "manual_exposure": {"exposure_us": (1, 10_000)},
    "exposure_limits": {"min_exposure_us": (1, 10_000)},
    "stream": {"width": (64, 640), "height": (64, 480), "fps": (30, 240)},
}
TRIES = 3
REQUEST_LIMIT_S = 30 * TIMEOUT_FACTOR
UNKNOWN = "x-schemathesis-unknown-property"


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Omit unknown query parameters: the portal ignores them, as clients append nonces."""
    return UNKNOWN not in (case.query or {})


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Make the minimum at most the maximum, including a saved one, which a schema cannot express."""
    body, name = case.body, case.path.rpartition("/")[2]
    if not isinstance(body, dict):
        return
    if IS_OPEN:
        _hasten(name, body)
    if name != "exposure_limits":
        return
    for least, most in (("min_exposure_us", "max_exposure_us"), ("min_gain", "max_gain")):
        low, high = body.get(least), body.get(most)
        if _is_number(low) and _is_number(high):
            body[least], body[most] = min(low, high), max(low, high)
        elif _is_number(low) and most not in body:
            body[most] = None
        elif _is_number(high) and least not in body:
            body[least] = None


def _hasten(name: str, body: dict[str, Any]) -> None:
    for field, (low, high) in QUICK.get(name, {}).items():
        try:
            value = BY_NAME[name].row(field).parse(body.get(field))
        except ValueError:
            continue  # invalid values stay invalid
        if value is not None:
            body[field] = min(max(value, low), high)


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


@schemathesis.check
def nothing_breaks(context: Any, response: Any, case: Any) -> None:
    """Check that no response is a server error; the camera has no faults, so 503 is an error, too.

    A busy machine may not render the full sensor in time: a snapshot with Retry-After is requested again.
    """
    asked_again = 0
    while response.status_code == 503 and "Retry-After" in response.headers and "snapshot" in case.path:
        if asked_again == TRIES:
            break
        response = case.call(timeout=REQUEST_LIMIT_S)
        asked_again += 1
    assert response.status_code < 500, response.text
