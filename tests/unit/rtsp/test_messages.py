"""RTSP messages: what is taken from a stream of bytes, in whatever pieces it arrives, and what is rejected."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.rtsp.errors import RtspRejected
from softcam.rtsp.messages import Message, format_message, take_message

RESPONSE = (
    b'RTSP/1.0 401 No\r\ncseq: 7\r\nWWW-Authenticate: Basic realm="a"\r\nwww-authenticate: Digest realm="b"\r\n\r\n'
)
REQUEST = b"ANNOUNCE rtsp://pi/cam RTSP/1.0\r\nCSeq:8\r\nContent-Length: 4\r\n\r\nv=0\n"
PACKET = b"$\x01\x00\x04abcd"


def test_response() -> None:
    message = take_message(bytearray(RESPONSE))
    assert message is not None
    assert (message.is_request, message.status, message.cseq) == (False, 401, 7)
    assert message.headers.get_all("WWW-Authenticate") == ['Basic realm="a"', 'Digest realm="b"']
    assert message.headers.get("Session") is None


def test_request() -> None:
    message = take_message(bytearray(REQUEST))
    assert message is not None
    assert (message.first, message.is_request, message.cseq) == ("ANNOUNCE rtsp://pi/cam RTSP/1.0", True, 8)


@given(st.lists(st.integers(1, 300), max_size=40))
def test_pieces(cuts: list[int]) -> None:
    """Packets, bodies and headers may be cut anywhere."""
    stream = PACKET + RESPONSE + PACKET + PACKET + REQUEST + RESPONSE + PACKET
    received, found = bytearray(), list[Message]()
    for size in (*cuts, len(stream)):
        received += stream[:size]
        stream = stream[size:]
        while (message := take_message(received)) is not None:
            found.append(message)
    assert [message.cseq for message in found] == [7, 8, 7]
    assert received == b""


@pytest.mark.parametrize("value", ["", "-1", "seven", "1 2", "\u0667", "9" * 20])
def test_invalid_numbers_are_0(value: str) -> None:
    message = take_message(bytearray(f"RTSP/1.0 abc\r\nCSeq: {value}\r\n\r\n".encode()))
    assert message is not None
    assert (message.cseq, message.status) == (0, 0)


@pytest.mark.parametrize(
    "received",
    [
        pytest.param(b"x" * 20_000, id="endless header"),
        pytest.param(b"RTSP/1.0 200 OK\r\nContent-Length: 100000\r\n\r\n", id="large body"),
        pytest.param(b"\x16\x03\x01\x02\r\n\r\n", id="TLS"),
    ],
)
def test_fail_anything_else(received: bytes) -> None:
    with pytest.raises(RtspRejected, match="invalid RTSP response"):
        take_message(bytearray(received))


def test_format() -> None:
    assert format_message("OPTIONS * RTSP/1.0", {"CSeq": "1"}) == b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    message = take_message(bytearray(format_message("RTSP/1.0 200 OK", {"CSeq": "2"}, b"body")))
    assert message is not None
    assert message.headers["Content-Length"] == "4"
