"""Requests and responses as values; no I/O, any thread. `server` reads requests and writes responses."""

import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from typing import Any, BinaryIO, Final
from urllib.parse import parse_qsl

from softcam.errors import PortalError
from softcam.runtime.address import parse_address

# Mainsail and Fluidd fetch streams and snapshots from another origin, and pages with Cross-Origin-Embedder-Policy embed
# them. No response depends on cookies.
ALLOW_ANY_ORIGIN: Final = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
NO_STORE: Final = {"Cache-Control": "no-store"}
_PRINTER_PREFIX: Final = "/webcam"  # OctoPi, MainsailOS, FluiddPi
_MAX_PARAMETERS: Final = 100
CAMERA_DISABLED: Final = "the camera is disabled (CAMERA_ENABLED=0)"


class HttpError(PortalError):
    """An error response; the message is sent as `{"detail": …}` and names the field and what is expected."""

    def __init__(self, status: HTTPStatus, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = dict(headers or {})


def camera_disabled() -> HttpError:
    """The error if the camera is disabled by configuration. No Retry-After: it stays disabled until a restart."""
    return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, CAMERA_DISABLED)


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was read completely.

    `is_local`: it came from this machine, for example through a proxy. Only then, headers of proxies are read: anybody
    else could send them.
    """

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    client: str
    body: bytes = b""
    path_parameters: Mapping[str, str] = field(default_factory=dict)  # for the route's {placeholders}
    version: str = "HTTP/1.1"
    is_local: bool = False

    @property
    def scheme(self) -> str:
        """`https` if the client uses TLS, up to a proxy."""
        return "https" if self._of_proxy("X-Forwarded-Proto").lower() == "https" else "http"

    @property
    def host(self) -> str:
        """Host and port as the client addressed them; empty if it sent none, and not checked."""
        return self._of_proxy("X-Forwarded-Host") or self.headers.get("Host", "").strip()

    @property
    def expects_body(self) -> bool:
        """False for HEAD, for which only the header of the response is made."""
        return self.method != "HEAD"

    @property
    def accepts_chunks(self) -> bool:
        """Whether a response may have `Transfer-Encoding: chunked` (RFC 9112, 6.1)."""
        return self.version >= "HTTP/1.1"

    def _of_proxy(self, name: str) -> str:
        """The value that the first proxy has set; empty if there is none."""
        return self.headers.get(name, "").partition(",")[0].strip() if self.is_local else ""


@dataclass(frozen=True, slots=True)
class Response:
    """A response with its whole body."""

    body: bytes = b""
    content_type: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StreamingResponse:
    """A response without end: the server sends its header and detaches the socket, which `start` then owns.

    `cancel` is called instead of `start` if the client disconnects before the header is sent.
    """

    start: Callable[[socket.socket], None]
    cancel: Callable[[], None]
    content_type: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FileResponse:
    """`length` bytes of a file from `begin` on. The sender closes the file, which may grow in the meantime.

    `head` replaces the first bytes of the file, and `tail` those from `tail_at` on.
    """

    file: BinaryIO
    begin: int
    length: int
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    head: bytes = b""
    tail: bytes = b""
    tail_at: int = sys.maxsize

    def parts(self) -> Iterator[bytes | tuple[int, int]]:
        """The content in order: bytes, and parts of the file from an offset to another."""
        begin, end, head_end = self.begin, self.begin + self.length, len(self.head)
        yield self.head[begin:end]
        yield max(begin, head_end), min(end, self.tail_at)
        yield self.tail[max(0, begin - self.tail_at) : max(0, end - self.tail_at)]


AnyResponse = Response | FileResponse | StreamingResponse


def json_response(
    content: Any, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """`content` as JSON in UTF-8, with headers that forbid caching.

    Compact, as other services write it: shell scripts search for `"status":"ok"`. Half a surrogate pair, as in the
    message of an error that quotes the name of a file, becomes a question mark.
    """
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    body = f"{text}\n".encode("utf-8", "replace")
    return Response(body, "application/json", status, {**NO_STORE, **ALLOW_ANY_ORIGIN, **(headers or {})})


def find_client(peer: str, headers: Message) -> tuple[str, bool]:
    """The client's address, and whether the connection is from this machine: then a proxy may report another one.

    In `X-Forwarded-For`, the last address is the one that the proxy added; a client can send others before it. Many
    proxies set only this header and pass `X-Real-IP` on, as the client sent it: it counts only alone. A loopback
    address that is reported is marked: clients on this machine have no limits, others must not get that by a header.
    """
    address = parse_address(peer)
    is_local = address is not None and address.is_loopback
    if is_local:
        forwarded = ",".join(headers.get_all("X-Forwarded-For", [])).rpartition(",")[2]
        if reported := forwarded.strip() or headers.get("X-Real-IP", "").strip():
            address = parse_address(reported) or address
            if address is not None and address.is_loopback:
                return f"{address} (proxy)", True
    return str(address or peer), is_local


def parse_target(target: str) -> tuple[str, dict[str, str]]:
    """The path and query of a request target; the first value of a repeated parameter counts.

    A second question mark is read as an ampersand: some clients append `?nonce=…` to any configured address, as in
    `/?action=stream?nonce=1`. The prefix `/webcam`, under which images for printers publish their cameras, is removed.
    Raises HttpError 400 for more parameters than any request has.
    """
    path, _, query = target.partition("?")
    if "://" in path and not path.startswith("/"):  # the absolute form, for proxies
        path = "/" + path.partition("://")[2].partition("/")[2]
    try:
        values = parse_qsl(query.replace("?", "&"), keep_blank_values=True, max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        detail = f"query: must have at most {_MAX_PARAMETERS} parameters"
        raise HttpError(HTTPStatus.BAD_REQUEST, detail) from None
    if path.startswith(f"{_PRINTER_PREFIX}/") or (path == _PRINTER_PREFIX and "action" in dict(values)):
        path = path.removeprefix(_PRINTER_PREFIX) or "/"
    return path, dict(reversed(values))
