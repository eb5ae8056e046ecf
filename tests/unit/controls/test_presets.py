"""Presets as values: scopes, what applying one changes, what a camera leaves out, names; the built-in table."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from softcam.camera.base import StreamConfig
from softcam.camera.pattern.sensor import MODES, SENSOR_SIZE, control_ranges
from softcam.controls import presets
from softcam.controls.built_in_presets import BUILT_IN
from softcam.controls.presets import Deviation, Preset, Scope, parse_controls, parse_name
from softcam.controls.schema import GROUPS
from softcam.controls.state import RequestedControls
from softcam.errors import BadValue
from tests.support.control_scene import CONTROLS
from tests.unit.controls.test_state import ZOOM, requested

PROJECT = Path(__file__).resolve().parents[3]
CONFIG = StreamConfig(32, 16, "YUV420", (64, 32), controls=CONTROLS)
FULL = StreamConfig(
    640, 360, "YUV420", SENSOR_SIZE, controls=control_ranges((640, 360), MODES.modes[0]), has_sensor_hdr=True
)
BARE = StreamConfig(32, 16, "YUV420", (64, 32), can_flip=False)
# A camera that was set up by its owner, with a look.
SET_UP = requested(
    roi=ZOOM,
    transform={"rotation": 180},
    stream={"width": 640, "height": 360, "fps": 5.0},
    image_processing={"flicker": "50hz", "brightness": 0.5},
    autofocus={"window": {**ZOOM}, "speed": "fast"},
    day_night_mode={"mode": "auto", "threshold_lux": 3.0},
    lens_correction={"enabled": False},
    manual_exposure={"exposure_us": 5000, "gain": 2.0},
    hdr={"mode": "sensor"},
)
INSTALLATION = {
    "roi": ZOOM,
    "transform": {"rotation": 180},
    "stream": {"width": 640, "height": 360},
    "image_processing": {"flicker": "50hz"},
    "autofocus": {"window": ZOOM},
    "day_night_mode": {"mode": "auto", "threshold_lux": 3.0},
    "lens_correction": {"enabled": False},
}


def groups_of(state: RequestedControls) -> dict[str, dict[str, Any]]:
    return {name: dict(values) for name, values in state.groups.items()}


def a_preset(scope: Scope = "look", **controls: Mapping[str, Any]) -> Preset:
    return Preset("a", controls, scope)


# Applying


def test_look_replaces_the_look_and_keeps_the_installation() -> None:
    after = presets.apply_preset(SET_UP, a_preset(awb_preset={"preset": "cloudy"}, stream={"fps": 8.0}), FULL)
    assert groups_of(after) == {
        **INSTALLATION,
        "awb_preset": {"preset": "cloudy"},
        "stream": {"width": 640, "height": 360, "fps": 8.0},
    }


def test_installation_replaces_the_installation_and_keeps_the_look() -> None:
    after = presets.apply_preset(SET_UP, a_preset("installation", stream={"width": 64}), FULL)
    assert groups_of(after) == {
        "stream": {"width": 64, "fps": 5.0},
        "image_processing": {"brightness": 0.5},
        "autofocus": {"speed": "fast"},
        "manual_exposure": {"exposure_us": 5000, "gain": 2.0},
        "hdr": {"mode": "sensor"},
    }


def test_all_replaces_everything() -> None:
    after = presets.apply_preset(SET_UP, a_preset("all", hdr={"mode": "off"}), FULL)
    assert groups_of(after) == {"hdr": {"mode": "off"}}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_control_is_of_one_scope(group: Any) -> None:
    """`normal` resets a control of the look, a preset of the installation any other."""
    values = {row.name: _other_than_default(row) for row in group.fields if row.name != "trigger"}
    state = RequestedControls({group.name: values})
    resets = [presets.apply_preset(state, a_preset(scope), None) for scope in ("look", "installation")]
    kept = [each.groups.get(group.name, {}) for each in resets]
    assert {**kept[0], **kept[1]} == values
    assert not kept[0].keys() & kept[1].keys()


def _other_than_default(row: Any) -> Any:
    match row.kind:
        case "choice":
            return next(word for word in row.choices if word != row.default)
        case "boolean":
            return not row.default
        case "window":
            return ZOOM
    return row.high if row.default != row.high else row.low


def test_fixed_focus_is_kept() -> None:
    state = requested(lens_position={"position": 2.0})
    sports = BUILT_IN["sports"]
    assert presets.apply_preset(state, sports, FULL).has("lens_position")
    assert not presets.apply_preset(state, sports, FULL).has("autofocus_mode")
    assert presets.fit_preset(state, sports, FULL).left_out == (
        Deviation("autofocus_mode.mode", "the focus is fixed by lens_position"),
    )
    assert presets.apply_preset(requested(), sports, FULL).has("autofocus_mode")
    whole = a_preset("all", autofocus_mode={"mode": "continuous"})
    assert not presets.apply_preset(state, whole, FULL).has("lens_position")


def test_frozen_automatics_of_the_other_scope_stay_frozen() -> None:
    state = requested(awb={"enabled": False}, roi=ZOOM).with_frozen("awb", {"ColourGains": [1.5, 1.8]})
    assert presets.apply_preset(state, a_preset("installation"), FULL).frozen == {"awb": {"ColourGains": [1.5, 1.8]}}
    assert presets.apply_preset(state, a_preset(awb={"enabled": False}), FULL).pending_freeze == ("awb",)


def test_applying_what_is_in_effect_changes_nothing() -> None:
    state = requested(image_processing={"brightness": 0.5})
    assert presets.apply_preset(state, a_preset(image_processing={"brightness": 0.5}), FULL) is state


# What a camera does not support


def test_unsupported_fields_are_left_out() -> None:
    preset = a_preset(image_processing={"sharpness": 2.0, "brightness": 0.5, "contrast": 9.0}, hdr={"mode": "sensor"})
    fitted = presets.fit_preset(RequestedControls(), preset, CONFIG)
    assert fitted.controls == {"image_processing": {"brightness": 0.5, "contrast": 4.0}}
    assert fitted.left_out == (
        Deviation("image_processing.sharpness", "this camera does not support Sharpness"),
        Deviation("hdr.mode", "this camera does not support sensor (its sensor has no HDR)"),
    )
    assert fitted.limited == (Deviation("image_processing.contrast", "this camera supports 0 to 4; using 4"),)
    assert groups_of(presets.apply_preset(RequestedControls(), preset, CONFIG)) == fitted.controls


def test_group_without_a_required_field_is_left_out() -> None:
    without_exposure = {name: limits for name, limits in CONTROLS.items() if name != "ExposureTime"}
    preset = a_preset(manual_exposure={"exposure_us": 500, "gain": 2.0})
    fitted = presets.fit_preset(RequestedControls(), preset, replace(CONFIG, controls=without_exposure))
    assert fitted.controls == {}
    assert fitted.left_out == (
        Deviation("manual_exposure.exposure_us", "this camera does not support ExposureTime"),
        Deviation("manual_exposure.gain", "requires exposure_us, which is left out"),
    )


def test_nothing_is_left_out_before_the_camera_is_known() -> None:
    preset = a_preset(image_processing={"sharpness": 2.0})
    assert presets.fit_preset(RequestedControls(), preset, None) == presets.Fitted(preset.controls)


# In effect


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("config", [None, FULL, CONFIG, BARE], ids=["unknown", "full", "some", "bare"])
def test_applied_preset_is_in_effect(name: str, config: StreamConfig | None) -> None:
    after = presets.apply_preset(SET_UP, BUILT_IN[name], config)
    assert presets.is_in_effect(after, BUILT_IN[name], config)
    assert not presets.is_in_effect(SET_UP, BUILT_IN[name], FULL)


def test_preset_applied_to_an_unknown_camera_is_in_effect_once_it_is_known() -> None:
    sports = BUILT_IN["sports"]
    assert presets.is_in_effect(presets.apply_preset(RequestedControls(), sports, None), sports, CONFIG)


def test_defaults_make_no_difference() -> None:
    state = requested(image_processing={"brightness": 0.0}, auto_exposure={"enabled": True})
    assert presets.is_in_effect(state, BUILT_IN["normal"], FULL)


def test_freezing_is_in_effect_once_it_is_frozen() -> None:
    preset = a_preset(auto_exposure={"enabled": False})
    after = presets.apply_preset(RequestedControls(), preset, FULL)
    frozen = after.frozen_at({"ExposureTime": 900, "AnalogueGain": 2.0})
    assert presets.is_in_effect(frozen, preset, FULL)


# Saving what is set


def test_captured_controls_are_those_of_the_scope() -> None:
    assert presets.capture_controls(SET_UP, "installation") == INSTALLATION
    assert presets.capture_controls(SET_UP, "all") == groups_of(SET_UP)
    assert "roi" not in presets.capture_controls(SET_UP, "look")


def test_frozen_automatics_are_saved_as_fixed_values() -> None:
    state = requested(
        auto_exposure={"enabled": False}, awb={"enabled": False}, autofocus_mode={"mode": "manual"}
    ).frozen_at({"ExposureTime": 900, "AnalogueGain": 2.0, "ColourGains": (1.5, 1.8), "LensPosition": 3.0})
    look = {
        "manual_exposure": {"exposure_us": 900, "gain": 2.0},
        "manual_awb": {"red_gain": 1.5, "blue_gain": 1.8},
        "autofocus_mode": {"mode": "manual"},  # the distance is not part of the look
    }
    assert presets.capture_controls(state, "look") == look
    assert presets.capture_controls(state, "installation") == {"lens_position": {"position": 3.0}}
    for scope in presets.SCOPES:
        assert presets.is_in_effect(state, Preset("a", presets.capture_controls(state, scope), scope), FULL)
    odd = state.with_frozen("awb", {"ColourGains": [0.0, 1.8]})  # no request could set it
    assert presets.capture_controls(odd, "look")["awb"] == {"enabled": False}


# Input


@pytest.mark.parametrize(
    ("content", "scope", "reason"),
    [
        ([], "look", "controls: must be a JSON object"),
        ({"zoom": {}}, "look", "zoom: unknown control"),
        ({"hdr": {"mode": "x"}}, "look", "hdr: mode: must be one of"),
        ({"hdr": 3}, "look", "hdr: body: must be a JSON object"),
        ({"roi": ZOOM}, "look", "roi: must be absent from a preset with the scope look"),
        ({"stream": {"fps": 5, "width": 64}}, "look", "stream.width: must be absent"),
        ({"stream": {"fps": 5, "width": 64}}, "installation", "stream.fps: must be absent"),
        ({"autofocus": {"trigger": True}}, "look", "autofocus.trigger: must be absent from presets"),
        ({"exposure_limits": {"min_gain": 3, "max_gain": 2}}, "look", "min_gain: must be at most max_gain"),
        ({"awb": {"enabled": True}, "manual_awb": {"red_gain": 1, "blue_gain": 1}}, "all", "contradicts manual_awb"),
    ],
)
def test_invalid_controls_are_reported(content: Any, scope: Scope, reason: str) -> None:
    _, errors = parse_controls(content, scope)
    (error,) = errors
    assert reason in error


def test_valid_controls_beside_invalid_ones() -> None:
    content = {"zoom": {}, "roi": ZOOM, "image_processing": {"flicker": "off", "contrast": 1}, "hdr": {"mode": "off"}}
    controls, errors = parse_controls(content, "look")
    assert controls == {"image_processing": {"contrast": 1.0}, "hdr": {"mode": "off"}}
    assert len(errors) == 3


@pytest.mark.parametrize(
    "name",
    [
        *("a", "normal", "a/b", "Nest box, 2 m ?#%", "Gr\u00fcn", "夜", "🌙", "x" * 60, "...", "export"),
        *("\u0645\u06cc\u200c\u062e", "👨\u200d👩"),  # with joiners
    ],
)
def test_valid_names(name: str) -> None:
    assert parse_name(name) == name


def test_names_are_normalised() -> None:
    assert parse_name("Gru\u0308n") == "Gr\u00fcn"


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        " a",
        "a ",
        "a\nb",
        "a\x00",
        "\x7f",
        "x" * 61,
        ".",
        "..",
        "\ufffd",
        "b\ud800",
        "a\u200bb",
        "\u200d",
        None,
        3,
        ["a"],
    ],
)
def test_invalid_names(name: Any) -> None:
    with pytest.raises(BadValue, match="name: must be 1 to 60 printable characters"):
        parse_name(name)


# The table of built-in presets


@pytest.mark.parametrize("preset", BUILT_IN.values(), ids=lambda preset: preset.name)
def test_built_in_preset_is_valid(preset: Preset) -> None:
    assert parse_name(preset.name) == preset.name
    assert parse_controls({name: dict(values) for name, values in preset.controls.items()}, "look") == (
        {name: dict(values) for name, values in preset.controls.items()},
        [],
    )
    assert preset.title
    assert preset.description.endswith(".")
    assert presets.fit_preset(RequestedControls(), preset, FULL) == presets.Fitted(preset.controls)


def test_limits_of_exposure_fit_into_a_frame() -> None:
    for preset in BUILT_IN.values():
        longest_us = preset.controls.get("exposure_limits", {}).get("max_exposure_us")
        if longest_us is not None:
            assert longest_us < 1e6 / preset.controls["stream"]["fps"], preset.name


def test_documentation_has_all_built_in_presets() -> None:
    text = (PROJECT / "docs/controls.md").read_text()
    assert [preset.name for preset in BUILT_IN.values() if f"| `{preset.name}` |" not in text] == []


def test_each_control_was_assigned_to_a_scope() -> None:
    """Where a new control fails here, decide whether a preset of the look replaces it, or the place needs it."""
    names = {f"{group.name}.{row.name}" for group in GROUPS for row in group.fields} - {"autofocus.trigger"}
    look = {name for name in names if not {name, name.partition(".")[0]} & presets.INSTALLATION}
    assert {name.partition(".")[0] for name in look} == {
        "ae_constraint_mode",
        "ae_exposure_mode",
        "auto_exposure",
        "autofocus",
        "autofocus_mode",
        "autofocus_range",
        "awb",
        "awb_preset",
        "exposure_limits",
        "hdr",
        "image_processing",
        "manual_awb",
        "manual_exposure",
        "stream",
    }
    assert {name for name in look if name.startswith(("autofocus.", "stream."))} == {"autofocus.speed", "stream.fps"}
    assert names | {group.name for group in GROUPS} >= presets.INSTALLATION
