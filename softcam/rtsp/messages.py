"""RTSP messages as bytes and back (RFC 2326, 4 to 7, 10.12), for the server and the publisher. Any thread.

Reading is as lenient as programs commonly are: line feeds alone, empty lines before a message, header names in any
case, lines without a colon.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

_MAX_HEAD_BYTES: Final = 16 * 1024
_MAX_BODY_BYTES: Final = 64 * 1024
_HEAD_END: Final = re.compile(rb"\r?\n\r?\n")
_LINE_END: Final = re.compile(r"\r?\n")
_CONTROL: Final = frozenset(range(0x20)) | {0x7F}  # no message begins with one, but TLS does


class InvalidMessage(Exception):
    """The bytes are not a message; the connection cannot be used further. `status` is that of a last response."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, slots=True)
class Message:
    """A request or a response; names of header fields are in lower case, and each has all its values."""

    first: str  # line
    fields: Mapping[str, list[str]]
    body: bytes

    def field(self, name: str) -> str:
        """The first value of a header field, empty if there is none."""
        return self.fields.get(name, [""])[0]

    @property
    def is_request(self) -> bool:
        return not self.first.startswith("RTSP/")

    @property
    def status(self) -> int:
        """That of a response; 0 if it is not a number."""
        return int(_number(self.first.partition(" ")[2][:3]) or 0)

    @property
    def cseq(self) -> str | None:
        """The sequence number, None if it is missing or not a number."""
        return _number(self.field("cseq"))

    @property
    def session(self) -> str:
        """The ID of the session, empty if there is none; parameters follow it in responses."""
        return self.field("session").partition(";")[0].strip()


@dataclass(frozen=True, slots=True)
class InterleavedPacket:
    """An RTP or RTCP packet between the messages of a connection."""

    channel: int
    data: bytes


class MessageReader:
    """Takes messages and packets from `received`, which grows meanwhile; searches and parses each byte once."""

    def __init__(self, received: bytearray) -> None:
        self._received = received
        self._searched = 0  # bytes without the end of a header
        self._head: tuple[Message, int] | None = None  # of a message whose body is not complete, and its length

    def take_message(self) -> Message | InterleavedPacket | None:
        """Remove the first message or packet; None if it is not complete. Raises InvalidMessage."""
        received = self._received
        if self._head is None:
            while received and received[0] in b"\r\n":
                del received[:1]
            if received[:1] == b"$":
                return self._take_packet()
            if received and received[0] in _CONTROL:
                raise InvalidMessage(400, "not RTSP; TLS (rtsps) is not supported")
            self._head = self._take_head()
        if self._head is None:
            return None
        message, length = self._head
        if len(received) < length:
            return None
        self._head = None
        body = bytes(received[:length])
        del received[:length]
        return replace(message, body=body)

    def _take_packet(self) -> InterleavedPacket | None:
        received = self._received
        length = 4 + int.from_bytes(received[2:4])
        if len(received) < 4 or len(received) < length:
            return None
        packet = InterleavedPacket(received[1], bytes(received[4:length]))
        del received[:length]
        return packet

    def _take_head(self) -> tuple[Message, int] | None:
        """A message without its body, and the length of that."""
        received = self._received
        end = _HEAD_END.search(received, max(0, self._searched - 3), _MAX_HEAD_BYTES)
        if end is None:
            self._searched = len(received)
            if len(received) >= _MAX_HEAD_BYTES:
                raise InvalidMessage(413, f"the header must have at most {_MAX_HEAD_BYTES} bytes")
            return None
        self._searched = 0
        first, *lines = _LINE_END.split(received[: end.start()].decode("latin-1"))
        del received[: end.end()]
        fields = _read_fields(lines)
        return Message(first, fields, b""), _body_length(fields)


def format_message(first: str, fields: Iterable[tuple[str, str]], body: bytes = b"") -> bytes:
    """`fields` may have a name several times."""
    lines = [first, *(f"{name}: {value}" for name, value in fields)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body


def _number(text: str) -> str | None:
    text = text.strip()
    return text if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _read_fields(lines: Iterable[str]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    last: list[str] = []
    for line in lines:
        if line[:1] in (" ", "\t"):
            if last:
                last[-1] += " " + line.strip()
            continue
        name, colon, value = line.partition(":")
        if colon:
            last = fields.setdefault(name.strip().lower(), [])
            last.append(value.strip().replace("\r", " "))
    return fields


def _body_length(fields: Mapping[str, list[str]]) -> int:
    text, *others = dict.fromkeys(fields.get("content-length", ["0"]))
    if others or not (text.isascii() and text.isdigit()):
        raise InvalidMessage(400, "Content-Length: must be one number")
    if len(text) > 6 or int(text) > _MAX_BODY_BYTES:
        raise InvalidMessage(413, f"Content-Length: must be at most {_MAX_BODY_BYTES}")
    return int(text)
