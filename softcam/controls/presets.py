"""Presets: controls under a name that are applied together, and what applying one changes.

A preset replaces the controls of its scope: those that it does not contain return to their defaults. The others are
kept. Pure functions over values, for any thread; `preset_library` saves presets and applies them.
"""

import contextlib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final, Literal, get_args

from softcam.camera.base import StreamConfig
from softcam.config.parsers import is_display_name
from softcam.controls.capabilities import unsupported_values
from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls, Values, parse_groups
from softcam.errors import BadValue

Scope = Literal["look", "installation", "all"]
Groups = Mapping[str, Values]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)
MAX_NAME_LENGTH: Final = 60

# Groups and fields that belong to the place of the camera: where it looks, at which distance, under which light. All
# others are the look of its images.
INSTALLATION: Final = frozenset(
    {
        "autofocus.window",
        "day_night_mode",
        "fov_mode",
        "image_processing.flicker",
        "lens_correction",
        "lens_position",
        "roi",
        "stream.height",
        "stream.width",
        "transform",
    }
)
# Frozen automatics, and the groups that fix the same values: by fields, in the order of the frozen libcamera values.
_FIXED: Final[Mapping[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "auto_exposure": ("manual_exposure", ("exposure_us", "gain"), ("ExposureTime", "AnalogueGain")),
    "awb": ("manual_awb", ("red_gain", "blue_gain"), ("ColourGains",)),
    "autofocus_mode": ("lens_position", ("position",), ("LensPosition",)),
}


@dataclass(frozen=True, slots=True)
class Preset:
    """Controls by group and field, as requests set them. `title` and `description` are those of a built-in preset."""

    name: str
    controls: Groups = field(default_factory=lambda: MappingProxyType({}))
    scope: Scope = "look"
    title: str = ""
    description: str = ""
    is_built_in: bool = False


@dataclass(frozen=True, slots=True)
class Deviation:
    """A field of a preset, as GROUP.FIELD, and why this camera does not apply it as it is."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Fitted:
    """The controls of a preset that this camera supports; the fields left out, and those with another value."""

    controls: Groups
    left_out: tuple[Deviation, ...] = ()
    limited: tuple[Deviation, ...] = ()


def normalise_name(name: str) -> str:
    """The form in which names are compared: systems encode accents differently."""
    return unicodedata.normalize("NFC", name)


def parse_name(name: Any) -> str:
    """A valid name in normalised form. Raises BadValue."""
    if isinstance(name, str):
        text = normalise_name(name)
        # Browsers resolve the names . and .. in a URL, also if they are escaped. U+FFFD is what malformed ones become.
        if text not in (".", "..") and "\ufffd" not in text and is_display_name(text, MAX_NAME_LENGTH):
            return text
    raise BadValue(f"name: must be 1 to {MAX_NAME_LENGTH} printable characters, without a blank at either end")


def parse_controls(content: Any, scope: Scope) -> tuple[Groups, list[str]]:
    """The valid controls by group and field, and the errors of those that are not."""
    if not isinstance(content, Mapping):
        return {}, [f"controls: must be a JSON object with controls by name, such as {next(iter(BY_NAME))}"]
    requested, errors = parse_groups(content)
    groups = _restrict_controls(requested.groups, scope)
    for group, values in requested.groups.items():
        outside = [name for name in values if name not in groups.get(group, {})]
        names = [f"{group}.{name}" for name in outside] if group in groups else [group]
        errors += [f"{name}: must be absent from a preset with the scope {scope}" for name in names if outside]
    if groups.get("autofocus", {}).pop("trigger", None) is not None:
        errors.append("autofocus.trigger: must be absent from presets")
    return {name: values for name, values in groups.items() if values}, errors


def capture_controls(requested: RequestedControls, scope: Scope) -> Groups:
    """The controls of a preset that restores what is requested now. Frozen automatics become the fixed values."""
    groups = dict(requested.groups)
    for name, controls in requested.frozen.items():
        group, fields, names = _FIXED[name]
        if not _is_in_scope(scope, group):
            continue  # a focus that is kept where it is has a distance, which is not part of the look
        values = [controls[each] for each in names]
        numbers = values[0] if isinstance(values[0], list | tuple) else values
        with contextlib.suppress(BadValue):  # out of the range of requests: then it is frozen again when applied
            groups[group] = BY_NAME[group].parse(dict(zip(fields, numbers, strict=True)))
            del groups[name]
    return _restrict_controls(groups, scope)


def fit_preset(requested: RequestedControls, preset: Preset, config: StreamConfig | None) -> Fitted:
    """What applying a preset sets on this camera, all of it before the camera's ranges are known."""
    controls: dict[str, Values] = {}
    left_out, limited = list[Deviation](), list[Deviation]()
    for name, values in preset.controls.items():
        if name == "autofocus_mode" and preset.scope == "look" and requested.has("lens_position"):
            left_out += [Deviation(f"{name}.{each}", "the focus is fixed by lens_position") for each in values]
            continue
        group, kept = BY_NAME[name], dict(values)
        for each, reason, nearest in () if config is None else unsupported_values(group, values, config):
            if nearest is None:
                left_out.append(Deviation(f"{name}.{each}", reason))
                del kept[each]
            else:
                limited.append(Deviation(f"{name}.{each}", f"{reason}; using {nearest:.12g}"))
                kept[each] = nearest
        missing = [row.name for row in group.fields if row.is_required and row.name not in kept]
        if missing:
            left_out += [Deviation(f"{name}.{each}", f"requires {missing[0]}, which is left out") for each in kept]
        elif kept:
            controls[name] = kept
    return Fitted(controls, tuple(left_out), tuple(limited))


def apply_preset(requested: RequestedControls, preset: Preset, config: StreamConfig | None) -> RequestedControls:
    """The requested controls after applying a preset, as far as this camera supports it."""
    others: dict[Scope, Scope] = {"look": "installation", "installation": "look"}
    kept = {} if preset.scope == "all" else _restrict_controls(requested.groups, others[preset.scope])
    after = RequestedControls(kept, {name: each for name, each in requested.frozen.items() if name in kept})
    for name, values in fit_preset(requested, preset, config).controls.items():
        after = after.with_values(BY_NAME[name], values)
    return requested if after == requested else after


def is_in_effect(requested: RequestedControls, preset: Preset, config: StreamConfig | None) -> bool:
    """Whether applying the preset would change nothing on this camera."""
    after = apply_preset(requested, preset, config)
    if after is requested or _have_same_effect(requested.groups, after.groups, config):
        return True
    scope = preset.scope
    return bool(requested.frozen) and _have_same_effect(
        capture_controls(requested, scope), capture_controls(after, scope), config
    )


def part_of(preset: Preset, scope: Scope) -> Preset:
    """What a preset has within a narrower scope."""
    return replace(preset, controls=_restrict_controls(preset.controls, scope), scope=scope)


def _have_same_effect(before: Groups, after: Groups, config: StreamConfig | None) -> bool:
    different = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    return all(_effect(name, before.get(name), config) == _effect(name, after.get(name), config) for name in different)


def _effect(name: str, values: Values | None, config: StreamConfig | None) -> Values:
    """What the camera applies of a group, without defaults."""
    groups = {} if values is None else {name: values}
    supported = fit_preset(RequestedControls(), Preset("", groups, "all"), config).controls.get(name, {})
    return {each: value for each, value in supported.items() if value != BY_NAME[name].row(each).default}


def _is_in_scope(scope: Scope, name: str) -> bool:
    """`name` is that of a group, or GROUP.FIELD."""
    is_installation = name in INSTALLATION or name.partition(".")[0] in INSTALLATION
    return scope == "all" or is_installation == (scope == "installation")


def _restrict_controls(groups: Groups, scope: Scope) -> dict[str, dict[str, Any]]:
    """The controls within a scope."""
    restricted: dict[str, dict[str, Any]] = {}
    for name, value in _fields(groups):
        if _is_in_scope(scope, name):
            group, _, field = name.partition(".")
            restricted.setdefault(group, {})[field] = value
    return restricted


def _fields(groups: Groups) -> Iterator[tuple[str, Any]]:
    """All values with their names, as GROUP.FIELD."""
    for group, values in groups.items():
        for name, value in values.items():
            yield f"{group}.{name}", value
