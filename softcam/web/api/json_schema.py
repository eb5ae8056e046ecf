"""What responses and their JSON Schemas are made of. Pure functions."""

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]

BOOLEAN: Final[Schema] = {"type": "boolean"}
INTEGER: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
STRING: Final[Schema] = {"type": "string"}
UNIX_TIME: Final[Schema] = {"type": "number", "description": "Unix seconds"}
NO_SCHEMAS: Final[Mapping[str, Schema]] = {}
STATUS_OK: Final[Mapping[str, Schema]] = {"status": {"const": "ok"}}  # the first property of most responses


def nullable(kind: str) -> Schema:
    return {"type": [kind, "null"]}


def note(text: str) -> Schema:
    return {"description": text}


NOTE: Final[Mapping[str, Schema]] = {
    "note": nullable("string") | note("how the result differs from the request, or why it is not saved")
}


def with_note(content: Mapping[str, Any], reason: str | None) -> dict[str, Any]:
    """A response with another reason in its note; without one, unchanged."""
    if reason is None:
        return dict(content)
    return {**content, "note": "; ".join(filter(None, (content.get("note"), reason)))}


def record(properties: Mapping[str, Schema], optional: Mapping[str, Schema] = NO_SCHEMAS) -> Schema:
    """An object with all of these properties, perhaps the optional ones, and no others."""
    return {
        "type": "object",
        "properties": {**properties, **optional},
        "required": list(properties),
        "additionalProperties": False,
    }


def json_ok(schema: Schema) -> Mapping[int, Mapping[str, Schema]]:
    """The responses of a route that returns JSON."""
    return {200: {"application/json": schema}}
