"""Additions to the API description for schemathesis, which loads this module in its own process."""

import os
from ipaddress import ip_network
from typing import Any, TypeGuard

import schemathesis

from softcam.controls.aliases import ALIASES
from softcam.controls.presets import MAX_NAME_LENGTH, SCOPES, parse_controls, parse_name
from softcam.controls.schema import BY_NAME
from softcam.errors import BadValue
from softcam.web.api.controls import SNAPSHOT
from tests.support.timeouts import TIMEOUT_FACTOR

# On an open camera some valid values delay frames, or need an image of the whole sensor: the limits used there, by
# group and field. A closed camera is tested with all values of controls, and `/snapshot.jpg` with all sizes.
IS_OPEN = os.environ.get("CASES_ON") == "open camera"
QUICK = {
    "manual_exposure": {"exposure_us": (1, 10_000)},
    "exposure_limits": {"min_exposure_us": (1, 10_000)},
    "stream": {"width": (64, 640), "height": (64, 480), "fps": (30, 240)},
    "resolution": {"width": (64, 640), "height": (64, 480)},
    "framerate": {"framerate": (30, 1000)},
    "snapshot": {"width": (16, 640), "height": (16, 480)},
}
BODIES = {**BY_NAME, **{group.name: group for group in (SNAPSHOT, *(alias.body for alias in ALIASES))}}
IMPORTED = ("exposure_limits", "roi")
TRIES = 3
REQUEST_LIMIT_S = 30 * TIMEOUT_FACTOR
ADDRESSES = ip_network("10.0.0.0/8").hosts()
UNKNOWN = "x-schemathesis-unknown-property"
# In errors of presets that a schema cannot express.
INEXPRESSIBLE = (": contradicts ", "must be absent from a preset with", "must be at most max_")


@schemathesis.hook
def before_load_schema(context: Any, raw_schema: dict[str, Any]) -> None:
    """Generate imports of presets with a few groups: saving a preset has all of them, with the same parser."""
    document = raw_schema["paths"]["/v1/presets"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    controls = document["properties"]["presets"]["items"]["properties"]["controls"]
    controls["properties"] = {name: controls["properties"][name] for name in IMPORTED}


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Omit unknown query parameters, which the portal ignores, and names of presets that a schema cannot exclude."""
    names = [(case.path_parameters or {}).get("name")] if "/presets/" in case.path else []
    listed = [each.get("name") for each in _presets_in(case.body)] if "/v1/presets" in case.path else []
    names += listed
    if len({*map(str, listed)}) < len(listed):
        return False
    return UNKNOWN not in (case.query or {}) and not any(_is_unprintable(name) for name in names)


def _is_unprintable(name: Any) -> bool:
    try:
        return isinstance(name, str) and not parse_name(name)
    except BadValue:
        return 1 <= len(name) <= MAX_NAME_LENGTH


def _presets_in(body: Any) -> list[dict[str, Any]]:
    """The presets of a body that imports them, or the body itself."""
    presets = body.get("presets") if isinstance(body, dict) else None
    return [each for each in (presets if isinstance(presets, list) else [body]) if isinstance(each, dict)]


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Make the minimum at most the maximum, including a saved one, which a schema cannot express.

    Each case has another address: responses to several wrong keys of one would be delayed.
    """
    case.headers["X-Real-IP"] = str(next(ADDRESSES))
    body, name = case.body, case.path.rpartition("/")[2]
    if "/v1/presets" in case.path:
        _reconcile(case.body)
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


def _reconcile(body: Any) -> None:
    """Remove controls that contradict others or are out of the preset's scope; invalid values stay invalid."""
    for preset in _presets_in(body):
        controls, scope = preset.get("controls"), preset.get("scope", "look")
        if isinstance(controls, dict) and scope in SCOPES:
            groups, errors = parse_controls(controls, scope)
            if all(any(reason in error for reason in INEXPRESSIBLE) for error in errors):
                preset["controls"] = groups


def _hasten(name: str, body: dict[str, Any]) -> None:
    for field, (low, high) in QUICK.get(name, {}).items():
        try:
            value = BODIES[name].row(field).parse(body.get(field))
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
