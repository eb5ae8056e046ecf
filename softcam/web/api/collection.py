"""The API as a collection of requests for Postman, Insomnia, Bruno and other API clients.

Made from the OpenAPI description, in Postman's format 2.1, which all of these import
(https://schema.postman.com/collection/json/v2.1.0/draft-07/docs/index.html). Runs on the request threads.
"""

import json
from collections.abc import Iterator, Mapping
from http import HTTPMethod
from typing import Any, Final

from softcam.config import parsers
from softcam.web.api.json_schema import json_ok
from softcam.web.http.messages import AnyResponse, Request, json_response
from softcam.web.http.query import QueryParameter
from softcam.web.http.router import Doc

_SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
_METHODS: Final = {method.value.lower() for method in HTTPMethod} - {"head"}
_URL: Final = QueryParameter(
    "url",
    "base URL of the requests; scheme and host of this request by default",
    {"type": "string", "format": "uri"},
    parse=parsers.web_url,
)
COLLECTION_DOC: Final = Doc(
    "Collection for Postman, Insomnia and Bruno",
    "pages",
    json_ok({"type": "object"}),
    "All operations with an example of each body. The variables baseUrl and apiKey apply to all requests.",
    parameters=(_URL,),
    errors=(400,),
)


def collection_response(document: Mapping[str, Any], request: Request) -> AnyResponse:
    """The collection of an OpenAPI document. Raises HttpError 400 for a malformed `url`."""
    url = _URL.read(request.query) or f"{request.scheme}://{request.host}"
    name = f'attachment; filename="{"-".join(document["info"]["title"].lower().split())}.postman_collection.json"'
    return json_response(collection(document, url), headers={"Content-Disposition": name})


def collection(document: Mapping[str, Any], url: str) -> dict[str, Any]:
    """The collection of an OpenAPI document: a folder per tag, and one request per operation; aliases are omitted."""
    folders: dict[str, list[dict[str, Any]]] = {}
    for path, method, operation in operations(document):
        folders.setdefault(operation["tags"][0], []).append(_item(path, method, operation))
    info = document["info"]
    found: dict[str, Any] = {
        "info": {"name": info["title"], "description": info["description"], "schema": _SCHEMA},
        "item": [{"name": tag.capitalize(), "item": items} for tag, items in folders.items()],
        "variable": [{"key": "baseUrl", "value": url.rstrip("/")}],
    }
    if "security" in document:
        found["variable"].append({"key": "apiKey", "value": ""})
        found["auth"] = {
            "type": "apikey",
            "apikey": [
                {"key": "key", "value": "X-API-Key", "type": "string"},
                {"key": "value", "value": "{{apiKey}}", "type": "string"},
                {"key": "in", "value": "header", "type": "string"},
            ],
        }
    return found


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Path, method and operation, without HEAD, aliases, and second methods for the same."""
    for path, methods in document["paths"].items():
        summaries = set[str]()
        for method, operation in methods.items():
            if method in _METHODS and "x-alias-of" not in operation and operation["summary"] not in summaries:
                summaries.add(operation["summary"])
                yield path, method.upper(), operation


def _item(path: str, method: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    parameters = operation.get("parameters", ())
    segments = [
        f":{part[1:-1]}" if part.startswith("{") and part.endswith("}") else part for part in path[1:].split("/")
    ]
    query = [_parameter(each) | {"disabled": True} for each in parameters if each["in"] == "query"]
    variables = [_parameter(each) for each in parameters if each["in"] == "path"]
    request: dict[str, Any] = {
        "method": method,
        "header": [],
        "url": {
            "raw": f"{{{{baseUrl}}}}/{'/'.join(segments)}",
            "host": ["{{baseUrl}}"],
            "path": segments,
            "query": query,
            "variable": variables,
        },
        "description": operation.get("description", operation["summary"]),
    }
    if "requestBody" in operation:
        example = operation["requestBody"]["content"]["application/json"]["example"]
        request["header"] = [{"key": "Content-Type", "value": "application/json"}]
        request["body"] = {
            "mode": "raw",
            "raw": json.dumps(example, indent=2),
            "options": {"raw": {"language": "json"}},
        }
    if operation.get("security") == []:
        request["auth"] = {"type": "noauth"}
    return {"name": operation["summary"], "request": request, "response": []}


def _parameter(parameter: Mapping[str, Any]) -> dict[str, Any]:
    schema = parameter["schema"]
    example = schema.get("default", *schema.get("examples", [""])[:1])
    value = example if isinstance(example, str) else json.dumps(example)
    return {"key": parameter["name"], "value": value, "description": parameter.get("description", "")}
