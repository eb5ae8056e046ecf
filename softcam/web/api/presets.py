"""The HTTP API of presets: list, save, rename, delete, apply, export, import. Runs on request threads."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from softcam.controls.preset_library import MAX_PRESETS, PresetLibrary, PresetOutcome
from softcam.controls.presets import MAX_NAME_LENGTH, SCOPES, Preset, normalise_name
from softcam.controls.schema import GROUPS
from softcam.errors import BadValue
from softcam.web.api.json_schema import (
    BOOLEAN,
    INTEGER,
    NOTE,
    STATUS_OK,
    STRING,
    Schema,
    json_ok,
    note,
    nullable,
    record,
    with_note,
)
from softcam.web.http import body, query
from softcam.web.http.downloads import content_disposition, file_stem
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.router import Doc, Parameter, Route

_PLACE: Final = "/v1/presets"

# --- schemas

_NAME_TEXT: Final[Schema] = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_LENGTH}
_GROUP_SCHEMAS: Final = {group.name: group.schema() for group in GROUPS}
_SETTABLE: Final = {
    **_GROUP_SCHEMAS,
    "autofocus": {
        **_GROUP_SCHEMAS["autofocus"],
        "properties": {
            name: schema for name, schema in _GROUP_SCHEMAS["autofocus"]["properties"].items() if name != "trigger"
        },
    },
}
_CONTROLS: Final[Schema] = {
    "type": "object",
    "properties": _SETTABLE,
    "additionalProperties": False,
    "description": "controls by name, each with the body of /v1/camera/NAME",
}
_ANY_CONTROLS: Final[Schema] = {"type": "object", "additionalProperties": {"type": "object"}}
_SCOPE: Final[Schema] = {"enum": list(SCOPES)} | note(
    "what applying it replaces: look is exposure, white balance, focus mode, image processing, HDR and frame rate; "
    "installation is zoom, field of view, focus position and window, flip and rotation, size, lens correction, "
    "flicker avoidance, day and night; all is both"
)
_DEVIATIONS: Final[Schema] = {"type": "array", "items": record({"field": STRING, "reason": STRING})}
_PRESET: Final = {
    "name": STRING,
    "title": STRING,
    "description": STRING | note("of a built-in preset, else empty"),
    "is_built_in": BOOLEAN,
    "scope": _SCOPE,
    "controls": _ANY_CONTROLS,
    "in_effect": BOOLEAN | note("whether applying it would change nothing"),
    "left_out": _DEVIATIONS | note("fields that are not applied; unknown before the camera is first opened"),
    "limited": _DEVIATIONS | note("fields that this camera applies with another value"),
}
_CURRENT: Final[Schema] = {
    "anyOf": [record({"name": STRING, "is_modified": BOOLEAN}), {"type": "null"}],
    "description": "the preset of these controls; is_modified: they were changed since it was applied",
}
PRESETS_SHAPE: Final = {
    "presets_set_aside": nullable("string") | note("why saved presets were quarantined"),
    "presets_not_kept": nullable("string") | note("why presets are not saved"),
}
_LIST: Final = record(
    {
        "presets": {"type": "array", "items": record(_PRESET)},
        "current": record({"look": _CURRENT, "installation": _CURRENT}),
        "max_presets": INTEGER | note("of the owner"),
        **PRESETS_SHAPE,
    }
)
_SAVED: Final = record({**STATUS_OK, "preset": record(_PRESET), "note": nullable("string")})
# In the response to applying a preset.
APPLIED_SHAPE: Final = {
    "preset": STRING,
    "left_out": _DEVIATIONS,
    "limited": _DEVIATIONS,
    "note": nullable("string") | note("how the result differs from the request, and why"),
}
_ENTRY: Final = record({"name": _NAME_TEXT, "scope": {"enum": list(SCOPES)}, "controls": _CONTROLS})
_EXPORTED: Final = record({**_ENTRY["properties"], "name": STRING, "controls": _ANY_CONTROLS})
_VERSION: Final[Schema] = {"const": 1}
_DOCUMENT: Final = record({"version": _VERSION, "presets": {"type": "array", "items": _ENTRY}})
_EXPORT: Final = record({"version": _VERSION, "presets": {"type": "array", "items": _EXPORTED}})
_NEW_NAME: Final = record({"name": {**_NAME_TEXT, "examples": ["Late evening"]} | note("the new name")})

# --- routes

_NAME_HELP: Final = "name of the preset, percent-encoded"
_ANY: Final = Parameter("name", _NAME_HELP, {**_NAME_TEXT, "examples": ["normal"]}, "path")
_OWN: Final = Parameter("name", _NAME_HELP, {**_NAME_TEXT, "examples": ["Evening"]}, "path")
_REPLACE: Final = query.boolean("replace", "whether presets of the same names are replaced")
PRESET: Final = query.QueryParameter("preset", "name of a preset to apply first", STRING, parse=normalise_name)
_OVERWRITE: Final = (
    "Without controls, saves the current ones. An existing preset of that name is replaced; without a scope, the new "
    "one has its scope, else look."
)
_APPLY: Final = (
    "Controls of its scope that the preset does not contain return to their defaults, the others are kept. All of it "
    "is applied, or nothing if the camera rejects it. What this camera does not support is left out."
)
_LIST_DOC: Final = Doc("Presets, built-in and saved", "presets", json_ok(_LIST))
_GET_DOC: Final = Doc("One preset", "presets", json_ok(record(_PRESET)), parameters=(_ANY,), errors=(404,))
_SAVE_DOC: Final = Doc(
    "Save a preset",
    "presets",
    json_ok(_SAVED),
    _OVERWRITE,
    parameters=(_OWN,),
    body={"type": "object", "properties": {"controls": _CONTROLS, "scope": _SCOPE}, "additionalProperties": False},
    is_body_required=False,
    errors=(400, 409),
)
_DELETE_DOC: Final = Doc(
    "Delete a preset", "presets", json_ok(record(STATUS_OK, NOTE)), parameters=(_OWN,), errors=(400, 404, 409)
)
_APPLY_DOC: Final = Doc(
    "Apply a preset",
    "presets",
    json_ok(record({**STATUS_OK, **APPLIED_SHAPE})),
    _APPLY,
    parameters=(_ANY,),
    errors=(400, 404, 503),
)
_RENAME_DOC: Final = Doc(
    "Rename a preset", "presets", json_ok(_SAVED), parameters=(_OWN,), body=_NEW_NAME, errors=(400, 404, 409)
)
_EXPORT_DOC: Final = Doc("Export the saved presets", "presets", json_ok(_EXPORT))
_IMPORT_DOC: Final = Doc(
    "Import presets",
    "presets",
    json_ok(record({**STATUS_OK, "imported": {"type": "array", "items": STRING}, "note": nullable("string")})),
    "Adds the presets of an exported document, all or none. The error names those that exist already.",
    parameters=(_REPLACE,),
    body=_DOCUMENT,
    errors=(400, 409),
)


@dataclass(frozen=True, slots=True)
class PresetsApi:
    """Handles `/v1/presets`. `name` is the camera's in the file names of exports."""

    library: PresetLibrary
    name: str

    def routes(self) -> list[Route]:
        one = f"{_PLACE}/{{name}}"
        return [
            Route((_PLACE,), self.get_list, doc=_LIST_DOC),
            Route((_PLACE,), self.import_presets, "POST", doc=_IMPORT_DOC),
            Route((f"{_PLACE}.json",), self.export, doc=_EXPORT_DOC),
            Route((one,), self.get, doc=_GET_DOC),
            Route((one,), self.save, "PUT", doc=_SAVE_DOC),
            Route((one,), self.delete, "DELETE", doc=_DELETE_DOC),
            Route((f"{one}/apply",), self.apply, "POST", doc=_APPLY_DOC),
            Route((f"{one}/rename",), self.rename, "POST", doc=_RENAME_DOC),
        ]

    def get_list(self, _request: Request) -> AnyResponse:
        outcomes = self.library.outcomes()
        current = self.library.current(outcomes)
        content = {
            "presets": [_describe_preset(outcome) for outcome in outcomes],
            "current": {part: None if each is None else asdict(each) for part, each in current.items()},
            "max_presets": MAX_PRESETS,
        }
        return json_response(content | self.library.problems())

    def get(self, request: Request) -> AnyResponse:
        """Raises NoPreset."""
        return json_response(_describe_preset(self.library.outcome(self.library.find(_name(request)))))

    def save(self, request: Request) -> AnyResponse:
        """Raises BadValue and PresetError."""
        content = _read_object(request, "controls", "scope") if request.body else {}
        scope = content.get("scope")
        if "scope" in content and scope not in SCOPES:
            raise BadValue(f"scope: must be one of {', '.join(SCOPES)}")
        if "controls" in content and content["controls"] is None:
            raise BadValue("controls: must be a JSON object, or absent for the current controls")
        return self._saved_response(self.library.save(_name(request), scope, content.get("controls")))

    def delete(self, request: Request) -> AnyResponse:
        """Raises NoPreset and PresetError."""
        body.read(request, body.NO_FIELDS)
        self.library.delete(_name(request))
        return json_response(with_note({"status": "ok"}, self.library.unsaved_note()))

    def rename(self, request: Request) -> AnyResponse:
        """Raises NoPreset, BadValue and PresetError."""
        new_name = _read_object(request, "name").get("name")
        return self._saved_response(self.library.rename(_name(request), new_name))

    def apply(self, request: Request) -> AnyResponse:
        """Raises NoPreset and CameraError."""
        body.read(request, body.NO_FIELDS)
        preset = self.library.apply(_name(request)).preset
        return json_response({"status": "ok"} | self.describe_applied(preset))

    def describe_applied(self, preset: Preset) -> dict[str, Any]:
        """What became of a preset that was applied: the fields that `APPLIED_SHAPE` describes."""
        outcome = self.library.outcome(preset)
        notes = [*self.library.notes(preset)]
        if not outcome.is_in_effect:
            notes = ["the controls were changed since, or reverted because the camera did not start with them"]
        return {
            "preset": preset.name,
            **_deviations(outcome),
            "note": "; ".join(notes) or None,
        }

    def export(self, _request: Request) -> AnyResponse:
        disposition = content_disposition("attachment", f"presets-{file_stem(self.name)}.json")
        return json_response(self.library.export(), headers={"Content-Disposition": disposition})

    def import_presets(self, request: Request) -> AnyResponse:
        """Raises BadValue and PresetError."""
        replace_existing = _REPLACE.read(request.query) or False
        imported = self.library.import_document(body.read_json(request), replace_existing=replace_existing)
        names = [preset.name for preset in imported]
        return json_response({"status": "ok", "imported": names, "note": self.library.unsaved_note()})

    def status(self) -> Mapping[str, Any]:
        """The fields of the camera's status, described by `PRESETS_SHAPE`."""
        return self.library.problems()

    def _saved_response(self, preset: Preset) -> AnyResponse:
        outcome = self.library.outcome(preset)
        return json_response({"status": "ok", "preset": _describe_preset(outcome), "note": self.library.unsaved_note()})


def _describe_preset(outcome: PresetOutcome) -> dict[str, Any]:
    preset = outcome.preset
    return {
        "name": preset.name,
        "title": preset.title or preset.name,
        "description": preset.description,
        "is_built_in": preset.is_built_in,
        "scope": preset.scope,
        "controls": {name: dict(values) for name, values in preset.controls.items()},
        "in_effect": outcome.is_in_effect,
        **_deviations(outcome),
    }


def _deviations(outcome: PresetOutcome) -> dict[str, Any]:
    return {
        "left_out": [asdict(each) for each in outcome.left_out],
        "limited": [asdict(each) for each in outcome.limited],
    }


def _name(request: Request) -> str:
    return normalise_name(request.path_parameters["name"])


def _read_object(request: Request, *names: str) -> Mapping[str, Any]:
    """The fields of a body. Raises BadValue for other fields."""
    content = body.read_json(request)
    if not isinstance(content, Mapping):
        raise BadValue(f"body: must be a JSON object with {', '.join(names)}")
    unknown = [f"{name[:60]!r}: unknown field; the body may have {', '.join(names)}" for name in content.keys() - names]
    if unknown:
        raise BadValue("; ".join(unknown))
    return content
