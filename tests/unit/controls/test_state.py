"""The requested controls as a value: merging, contradictions, frozen automatics."""

from collections.abc import Mapping

import pytest

from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls, frozen_values
from softcam.errors import BadValue

ZOOM = {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}
VALUES: Mapping[str, Mapping[str, object]] = {
    "auto_exposure": {"enabled": False},
    "manual_exposure": {"exposure_us": 9, "gain": 8.0},
    "awb": {"enabled": False},
    "awb_preset": {"preset": "cloudy"},
    "lens_position": {"position": 2.0},
    "roi": ZOOM,
}


def requested(**groups: Mapping[str, object]) -> RequestedControls:
    state = RequestedControls()
    for name, values in groups.items():
        state = state.with_values(BY_NAME[name], values)
    return state


def test_fields_of_a_group_are_merged() -> None:
    state = requested(image_processing={"brightness": 0.1}).with_values(BY_NAME["image_processing"], {"contrast": 1.2})
    assert dict(state.groups["image_processing"]) == {"brightness": 0.1, "contrast": 1.2}
    assert state.get("image_processing", "sharpness") == 1.0


@pytest.mark.parametrize(
    ("before", "values", "after"),
    [
        ("auto_exposure", ("manual_exposure", {"exposure_us": 1}), {"manual_exposure"}),
        ("manual_exposure", ("auto_exposure", {"enabled": True}), {"auto_exposure"}),
        ("awb", ("awb_preset", {"preset": "ir_850nm"}), {"awb_preset"}),
        ("awb_preset", ("manual_awb", {"red_gain": 1.0, "blue_gain": 1.0}), {"manual_awb"}),
        ("lens_position", ("autofocus_mode", {"mode": "auto"}), {"autofocus_mode"}),
        ("roi", ("hdr", {"mode": "off"}), {"roi", "hdr"}),
    ],
)
def test_contradicting_groups_are_replaced(before: str, values: tuple[str, dict[str, object]], after: set[str]) -> None:
    state = requested(**{before: VALUES[before]}).with_values(BY_NAME[values[0]], values[1])
    assert set(state.groups) == after


def test_null_unsets_a_field() -> None:
    state = requested(stream={"width": 640, "fps": 10.0}, day_night_mode={"night_saturation": None})
    state = state.with_values(BY_NAME["stream"], {"width": None})
    assert dict(state.groups["stream"]) == {"fps": 10.0}
    state = state.with_values(BY_NAME["stream"], {"fps": None})
    assert not state.has("stream")
    assert state.get("day_night_mode", "night_saturation") is None, "its default is a value"


def test_omitted_field_of_manual_exposure_is_reset() -> None:
    state = requested(manual_exposure={"exposure_us": 9, "gain": 8.0})
    assert state.with_values(BY_NAME["manual_exposure"], {"exposure_us": 7}).get("manual_exposure", "gain") == 1.0


def test_contradiction() -> None:
    state = requested(exposure_limits={"min_exposure_us": 900})
    with pytest.raises(BadValue, match=r"min_exposure_us: must be at most max_exposure_us \(500\)"):
        state.with_values(BY_NAME["exposure_limits"], {"max_exposure_us": 500})


@pytest.mark.parametrize(
    ("name", "values", "frozen"),
    [
        ("auto_exposure", {"enabled": False}, {"ExposureTime": 9000, "AnalogueGain": 1.5}),
        ("awb", {"enabled": False}, {"ColourGains": [1.5, 2.5]}),
        ("autofocus_mode", {"mode": "manual"}, {"LensPosition": 0.0}),
    ],
)
def test_frozen_values_in_json(name: str, values: dict[str, object], frozen: dict[str, object]) -> None:
    state = requested(**{name: values})
    assert state.pending_freeze == (name,)
    state = state.frozen_at({**frozen, "AfState": 0})
    assert state.frozen == {name: frozen}
    assert state.pending_freeze == ()
    assert RequestedControls.from_json(state.to_json()) == (state, ())


def test_incomplete_metadata_freezes_nothing() -> None:
    state = requested(auto_exposure={"enabled": False}, autofocus_mode={"mode": "manual"})
    assert state.frozen_at({"ExposureTime": 9000}) is state
    assert state.frozen_at({"AfState": 1, "LensPosition": 1.5}) is state, "the lens still moves"


def test_frozen_values_are_limited_to_the_schema() -> None:
    reported = {"ExposureTime": 9000, "AnalogueGain": 1.5, "ColourGains": [1.5, 40.0], "LensPosition": 32.0}
    assert frozen_values("auto_exposure", reported) == {"ExposureTime": 9000, "AnalogueGain": 1.5}
    assert frozen_values("awb", reported) == {"ColourGains": [1.5, 32.0]}
    assert frozen_values("autofocus_mode", reported) == {"LensPosition": 15.0}
