"""Names under which clients of other camera services set controls: other routes and fields for rows of the table.

An alias has no state. Its values are those of the fields that it names, so that whatever one route sets, the other one
shows. Immutable, so any thread may read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Final

from softcam.controls.fields import Field, Group, choice
from softcam.controls.schema import AWB_MODES, BY_NAME
from softcam.controls.state import Values


@dataclass(frozen=True, slots=True)
class Alias:
    """`body` is the route's name and its request; `target` the group that it sets.

    `fields` maps fields of the body to fields of the group; others are not controls. `constants` are values of the
    group that every request sets.
    """

    body: Group
    target: Group
    fields: Mapping[str, str]
    constants: Values = field(default_factory=lambda: MappingProxyType({}))

    def values(self, body: Values) -> dict[str, Any]:
        """The values of the group that a validated body sets; integers are rounded down to the field's multiple."""
        values = {name: body[own] for own, name in self.fields.items() if own in body}
        multiples = {name: self.target.row(name).multiple for name in values}
        rounded = {name: value - value % multiples[name] for name, value in values.items() if multiples[name] > 1}
        return {**self.constants, **values, **rounded}

    @property
    def names(self) -> Mapping[str, str]:
        """The fields of the group as the body calls them, for error messages."""
        return {name: own for own, name in self.fields.items()} | dict.fromkeys(self.constants, self.body.name)


def _row(group: str, name: str, own: str, **changes: Any) -> Field:
    """A field of the table as a required field of another name."""
    return replace(BY_NAME[group].row(name), name=own, is_required=True, default=None, is_nullable=False, **changes)


def _side(name: str) -> Field:
    return _row("stream", name, name, help=f"{name}, rounded down to an even number", high=4096, multiple=1)


_FOV: Final = replace(
    BY_NAME["fov_mode"].row("mode"), name="fov_mode", help="sets fov_mode too", is_required=False, is_nullable=False
)
_RESTART: Final = Field("restart_streaming", "boolean", "false stops publishing after the change", True)

EXPOSURE_VALUE: Final = Alias(
    Group(
        "exposure_value",
        "Exposure compensation of the automatic exposure.",
        (_row("image_processing", "exposure_value", "ev", example=0.5),),
    ),
    BY_NAME["image_processing"],
    MappingProxyType({"ev": "exposure_value"}),
)
NOISE_REDUCTION: Final = Alias(
    Group(
        "noise_reduction", "Noise reduction.", (_row("image_processing", "noise_reduction", "mode", example="fast"),)
    ),
    BY_NAME["image_processing"],
    MappingProxyType({"mode": "noise_reduction"}),
)
AWB_MODE: Final = Alias(
    Group(
        "awb_mode",
        "Automatic white balance for a light source.",
        (choice("mode", "light source", AWB_MODES, is_required=True),),
    ),
    BY_NAME["awb_preset"],
    MappingProxyType({"mode": "preset"}),
)
AUTOFOCUS_TRIGGER: Final = Alias(
    Group("autofocus_trigger", "Run autofocus once; no body.", (), is_optional=True),
    BY_NAME["autofocus"],
    MappingProxyType({}),
    MappingProxyType({"trigger": True}),
)
RESOLUTION: Final = Alias(
    Group("resolution", "Size of the stream.", (_side("width"), _side("height"), _RESTART, _FOV), has_restart=True),
    BY_NAME["stream"],
    MappingProxyType({"width": "width", "height": "height"}),
)
FRAME_RATE: Final = Alias(
    Group(
        "framerate",
        "Frame rate of the stream; a rate that the sensor does not reach at this size is clamped.",
        (
            replace(_row("stream", "fps", "framerate", help="frame rate"), low=0, high=1000, is_low_excluded=True),
            _RESTART,
        ),
        has_restart=True,
    ),
    BY_NAME["stream"],
    MappingProxyType({"framerate": "fps"}),
)

ALIASES: Final = (
    EXPOSURE_VALUE,
    NOISE_REDUCTION,
    AWB_MODE,
    AUTOFOCUS_TRIGGER,
    RESOLUTION,
    FRAME_RATE,
)


def markdown_table() -> str:
    """The table of the other names in `docs/controls.md`."""
    lines = ["| `/v1/camera/…` | fields | the same as |", "|---|---|---|"]
    for alias in ALIASES:
        own = ", ".join(f"`{row.name}`" if row.is_required else f"[`{row.name}`]" for row in alias.body.fields)
        names = ", ".join(f"`{name}`" for name in (*alias.fields.values(), *alias.constants))
        lines.append(f"| `{alias.body.name}` | {own or 'none'} | {names} of `{alias.target.name}` |")
    return "\n".join(lines) + "\n"
