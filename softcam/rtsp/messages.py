"""RTSP messages as bytes and back (RFC 2326, 4 to 7, 10.12). Functions without state; any thread."""

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message as Headers
from email.parser import HeaderParser
from typing import Final

from softcam.rtsp.errors import RtspRejected

_MAX_HEADER_BYTES: Final = 16 * 1024
_MAX_BODY_BYTES: Final = 64 * 1024
_INVALID: Final = "invalid RTSP response"


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a response: its first line, and its header, which does not distinguish upper and lower case."""

    first: str
    headers: Headers

    @property
    def is_request(self) -> bool:
        return not self.first.startswith("RTSP/")

    @property
    def status(self) -> int:
        """The status of a response."""
        return _number(self.first.partition(" ")[2][:3])

    @property
    def cseq(self) -> int:
        """The number by which a response refers to its request."""
        return _number(self.headers.get("CSeq", "0"))


def take_message(received: bytearray) -> Message | None:
    """Remove the first message from `received`, with its body, and all interleaved packets before it.

    None if the message is not complete. Raises RtspRejected for anything but RTSP.
    """
    while received[:1] == b"$":
        length = 4 + int.from_bytes(received[2:4])
        if len(received) < max(4, length):
            return None
        del received[:length]
    head, separator, _ = received.partition(b"\r\n\r\n")
    if not separator:
        if len(received) > _MAX_HEADER_BYTES:
            raise RtspRejected(_INVALID)
        return None
    first, _, fields = head.decode("latin-1").partition("\r\n")
    headers = HeaderParser().parsestr(fields)
    length = len(head) + 4 + _number(headers.get("Content-Length", "0"))
    if length > len(head) + 4 + _MAX_BODY_BYTES or not first.isprintable():
        raise RtspRejected(_INVALID)
    if len(received) < length:
        return None
    del received[:length]
    return Message(first, headers)


def format_message(first: str, headers: Mapping[str, str], body: bytes = b"") -> bytes:
    length = {"Content-Length": str(len(body))} if body else {}
    lines = [first, *(f"{name}: {value}" for name, value in {**headers, **length}.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def _number(text: str) -> int:
    text = text.strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
