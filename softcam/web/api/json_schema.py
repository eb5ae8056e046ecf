"""What the JSON Schemas of responses are made of. Pure functions."""

from collections.abc import Mapping
from typing import Any, Final

Schema = dict[str, Any]

BOOLEAN: Final[Schema] = {"type": "boolean"}
INTEGER: Final[Schema] = {"type": "integer"}
NUMBER: Final[Schema] = {"type": "number"}
STRING: Final[Schema] = {"type": "string"}
UNIX_TIME: Final[Schema] = {"type": "number", "description": "Unix seconds"}
STATUS_OK: Final[Mapping[str, Schema]] = {"status": {"const": "ok"}}  # the first property of most responses


def nullable(kind: str) -> Schema:
    return {"type": [kind, "null"]}


def note(text: str) -> Schema:
    return {"description": text}


def record(properties: Mapping[str, Schema]) -> Schema:
    """An object with all of these properties and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def json_ok(schema: Schema) -> Mapping[int, Mapping[str, Schema]]:
    """The responses of a route that returns JSON."""
    return {200: {"application/json": schema}}
