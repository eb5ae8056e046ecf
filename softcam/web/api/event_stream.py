"""The response that passes a client of Server-Sent Events to its stream. Runs on the threads of requests."""

from http import HTTPStatus
from socket import socket
from typing import Final

from softcam.runtime.shares import AddressShares
from softcam.streaming.event_stream import CONTENT_TYPE, EventStream, Read
from softcam.web.http.messages import NO_STORE, AnyResponse, HttpError, Request, Response, StreamingResponse
from softcam.web.http.query import integer

MAX_NUMBER: Final = 2**53 - 1  # the largest that JavaScript represents exactly
HEADERS: Final = {
    **NO_STORE,
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
_RETRY_AFTER_S: Final = 5
AFTER: Final = integer(
    "after", "number of an event; the stream begins with the next one, if memory has it", 0, MAX_NUMBER
)


def resume_position(request: Request) -> int | None:
    """The number of the last event that a client has; None if it has none. Raises HttpError 400.

    A browser sends `Last-Event-ID` when it connects again; at first, a page can only choose the address.
    """
    text = request.headers.get("Last-Event-ID", "").strip()
    if text.isascii() and text.isdigit() and int(text[:20]) <= MAX_NUMBER:  # anything else is not from this portal
        return int(text)
    return AFTER.read(request.query)


def connect(request: Request, stream: EventStream, shares: AddressShares, read: Read, position: int) -> AnyResponse:
    """Raises HttpError 503 if the stream has its maximum of clients, or the address its share of them."""
    if not request.expects_body:
        return Response(b"", CONTENT_TYPE, headers=HEADERS)
    client = request.client
    if not shares.acquire(client):
        raise _limit_reached(f"{shares.limit} of this address")
    release_place = stream.reserve()
    if release_place is None:
        shares.release(client)
        raise _limit_reached(str(stream.max_clients))

    def release() -> None:
        release_place()
        shares.release(client)

    # In chunks, Python's `requests` passes on each event when it arrives; otherwise, when it has received 512 bytes.
    is_chunked = request.accepts_chunks

    def start(connection: socket) -> None:
        stream.add_client(connection, client, read, position, release, is_chunked=is_chunked)

    chunked = {"Transfer-Encoding": "chunked"} if is_chunked else {}
    return StreamingResponse(start, release, CONTENT_TYPE, HEADERS | chunked)


def _limit_reached(limit: str) -> HttpError:
    detail = f"client limit of this stream reached ({limit}); disconnect a client"
    return HttpError(HTTPStatus.SERVICE_UNAVAILABLE, detail, {"Retry-After": str(_RETRY_AFTER_S)})
