"""Requests to begin with, and random changes to them. Pure functions of the given generator."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote_from_bytes

from tests.support.request_corpus import request_cases

# Text that parsers treat specially, or that is often treated wrongly.
TOKENS: Final = tuple(
    token.encode("utf-8", "surrogatepass")
    for token in (
        *("\r\n", "\n", "\r", "\r\n\r\n", "\0", " ", "\t", "\x7f", "\x85", "\xa0", "\ufeff", "\ud800", "é", "😀"),
        *(":", ";", ",", "=", "&", "?", "/", "//", "../", "%", "%00", "%2e%2e%2f", "%ff", "#", '"', "\\", "'", "<b>"),
        *("-1", "0", "1", "99999999999999999999", "1e999", "0x10", "1_0", "٣", "NaN", "Infinity", "-0", "1.5"),
        *("{", "}", "[", "]", "[[[[[[[[", '{"a":', "null", "true", "\\ud800", "\\u0000", '""'),
        *("Host: x\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Expect: 100-continue\r\n"),
        *("Connection: close\r\n", "Range: bytes=0-,-1,5-3\r\n", "If-None-Match: *\r\n", "Origin: null\r\n"),
        *("HTTP/1.1", "HTTP/1.0", "RTSP/1.0", "GET ", "POST ", "$\0\0\x04abcd", "x" * 300),
    )
)
_LENGTH = re.compile(rb"(?i)(content-length: *)\d+")
_NUMBER = re.compile(rb"-?\d+(\.\d+)?")


def mutated(generator: random.Random, requests: Sequence[bytes]) -> bytes:
    """One of the requests with random changes: to all of it, or only to its target or its body, which get further."""
    request = generator.choice(requests)
    head, blank, body = request.partition(b"\r\n\r\n")
    method, _, rest = head.partition(b" ")
    target, space, version = rest.partition(b" ")
    match generator.choice(("all", "target", "body")):
        case "target" if space:
            target = quote_from_bytes(changed(generator, target, requests), "/?&=%:+*").encode()
            return b" ".join((method, target, version)) + blank + body
        case "body" if body:
            body = changed(generator, body, requests)
            return _LENGTH.sub(rb"\g<1>%d" % len(body), head) + blank + body
    return changed(generator, request, requests)


def changed(generator: random.Random, text: bytes, requests: Sequence[bytes]) -> bytes:
    """`text` with one to six random changes; parts of `requests` replace some of it."""
    for _ in range(generator.choice((1, 1, 2, 3, 6))):
        text = _change(generator, text, requests)
    return text


def _change(generator: random.Random, request: bytes, requests: Sequence[bytes]) -> bytes:
    start = generator.randrange(len(request) + 1)
    end = min(len(request), start + generator.choice((1, 1, 2, 4, 16, 200)))
    match generator.randrange(8):
        case 0:
            return request[:start] + bytes([generator.randrange(256)]) + request[end:]
        case 1:
            return request[:start] + request[end:]
        case 2:
            return request[:start] + generator.choice(TOKENS) + request[start:]
        case 3:
            return request[:start] + generator.choice(TOKENS) + request[end:]
        case 4:
            return request[:end] + request[start:end] * generator.choice((1, 2, 40)) + request[end:]
        case 5:
            return request[:start]
        case 6:
            other = generator.choice(requests)
            return request[:start] + other[generator.randrange(len(other) + 1) :]
    numbers = list(_NUMBER.finditer(request))
    if not numbers:
        return request
    number = generator.choice(numbers)
    return request[: number.start()] + generator.choice(TOKENS) + request[number.end() :]


def http_requests(description: Mapping[str, Any]) -> list[bytes]:
    """The cases of the corpus, and each operation of an OpenAPI description, with its examples or without a body."""
    requests = [case.request for case in request_cases()]
    for path, operations in sorted(description["paths"].items()):
        for method, operation in sorted(operations.items()):
            if method not in ("get", "head", "post", "put", "patch", "delete"):
                continue
            requests.append(_request(method, _filled(path, operation), _example_body(operation)))
    return requests


def _request(method: str, target: str, body: bytes | None) -> bytes:
    lines = [f"{method.upper()} {target} HTTP/1.1", "Host: camera", "Connection: close"]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def _filled(path: str, operation: Mapping[str, Any]) -> str:
    """The path and a query, with the examples of the parameters."""
    query = []
    for parameter in operation.get("parameters", ()):
        value = str(parameter.get("example", parameter.get("schema", {}).get("default", "1")))
        if parameter.get("in") == "path":
            path = path.replace(f"{{{parameter['name']}}}", value)
        elif parameter.get("in") == "query":
            query.append(f"{parameter['name']}={value}")
    return path + ("?" + "&".join(query) if query else "")


def _example_body(operation: Mapping[str, Any]) -> bytes | None:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return None
    examples = [each.get("value") for each in content.get("examples", {}).values()]
    example = content.get("example", examples[0] if examples else {})
    return json.dumps(example).encode()


def rtsp_requests(url: str) -> list[bytes]:
    """What players send, each a whole session or a part of one."""
    tcp, udp = "RTP/AVP/TCP;unicast;interleaved=0-1", "RTP/AVP;unicast;client_port=50000-50001"

    def message(method: str, target: str, number: int, *fields: str) -> str:
        return "\r\n".join([f"{method} {target} RTSP/1.0", f"CSeq: {number}", *fields, "", ""])

    describe = message("DESCRIBE", url, 2, "Accept: application/sdp", "User-Agent: LibVLC/3.0.20")
    setup = message("SETUP", f"{url}/trackID=0", 3, f"Transport: {tcp}")
    play = message("PLAY", url, 4, "Session: 12345678", "Range: npt=0.000-")
    sessions = [
        message("OPTIONS", url, 1, "Require: www.onvif.org/ver20/backchannel"),
        message("OPTIONS", "*", 1) + describe,
        describe + setup + play + "$\x01\x00\x08\x80\xc9\x00\x01abcd" + message("TEARDOWN", url, 5),
        message("SETUP", f"{url}/trackID=0", 1, f"Transport: RTP/AVP/TCP;unicast,{udp}"),
        message("SETUP", f"{url}/trackID=0", 1, "Transport: RTP/AVP;multicast"),
        message("PAUSE", url, 1, "Session: 12345678") + message("GET_PARAMETER", url, 2, "Session: 12345678"),
        message("SET_PARAMETER", url, 1, "Content-Type: text/parameters", "Content-Length: 4") + "a: b",
        message("ANNOUNCE", url, 1, "Content-Type: application/sdp", "Content-Length: 5") + "v=0\r\n",
        message("DESCRIBE", url, 1, 'Authorization: Digest username="x", realm="y", nonce="z", uri="/", response="0"'),
    ]
    return [session.encode("latin-1") for session in sessions]
