"""RTSP messages: what is taken from a stream of bytes, in whatever pieces it arrives, and what is rejected."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.rtsp.messages import InterleavedPacket, InvalidMessage, Message, MessageReader, format_message

OPTIONS = b"OPTIONS rtsp://pi:8554/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"
RESPONSE = (
    b'RTSP/1.0 401 No\r\ncseq: 7\r\nWWW-Authenticate: Basic realm="a"\r\nwww-authenticate: Digest realm="b"\r\n\r\n'
)
REQUEST = b"ANNOUNCE rtsp://pi/cam RTSP/1.0\r\nCSeq:8\r\nContent-Length: 4\r\n\r\nv=0\n"
PACKET = b"$\x01\x00\x04abcd"


def take(data: bytes) -> Message:
    """The only message in `data`."""
    received = bytearray(data)
    message = MessageReader(received).take_message()
    assert isinstance(message, Message)
    assert not received
    return message


def test_response() -> None:
    message = take(RESPONSE)
    assert (message.is_request, message.status, message.cseq) == (False, 401, "7")
    assert message.fields["www-authenticate"] == ['Basic realm="a"', 'Digest realm="b"']
    assert message.field("session") == ""


def test_request() -> None:
    message = take(REQUEST)
    assert (message.first, message.is_request, message.cseq) == ("ANNOUNCE rtsp://pi/cam RTSP/1.0", True, "8")
    assert message.body == b"v=0\n"


@pytest.mark.parametrize(
    "data",
    [
        OPTIONS,
        OPTIONS.replace(b"\r\n", b"\n"),
        OPTIONS.replace(b"1.0\r\n", b"1.0\n"),
        b"\r\n\r\n\n" + OPTIONS,
        OPTIONS.replace(b"CSeq", b"cseq"),
        b"OPTIONS rtsp://pi:8554/ RTSP/1.0\r\nCSEQ :  1  \r\nUser-Agent\r\n\r\n",
    ],
    ids=["RFC", "line feeds", "mixed", "empty lines before", "case", "no colon"],
)
def test_ok_message(data: bytes) -> None:
    message = take(data)
    assert (message.first, message.cseq, message.body) == ("OPTIONS rtsp://pi:8554/ RTSP/1.0", "1", b"")


def test_ok_fields() -> None:
    head = b"SETUP * RTSP/1.0\r\nTransport: RTP/AVP,\r\n RTP/AVP/TCP\r\ntransport: x\r\nSession: 12;timeout=60\r\n\r\n"
    message = take(head)
    assert message.fields["transport"] == ["RTP/AVP, RTP/AVP/TCP", "x"]
    assert (message.field("transport"), message.field("range")) == ("RTP/AVP, RTP/AVP/TCP", "")
    assert message.session == "12"
    assert message.cseq is None
    assert take(b"A * RTSP/1.0\r\n folded\r\nX: a\rCSeq: 2\r\nB: \xe4\r\n\r\n").fields == {
        "x": ["a CSeq: 2"],
        "b": ["ä"],
    }


@pytest.mark.parametrize("cseq", ["", "x", "-1", "1 2", "1.0", "12345678901", "²"])
def test_fail_sequence_number(cseq: str) -> None:
    assert take(f"OPTIONS * RTSP/1.0\r\nCSeq: {cseq}\r\n\r\n".encode("latin-1")).cseq is None


@given(st.lists(st.integers(1, 300), max_size=40))
def test_pieces(cuts: list[int]) -> None:
    """Packets, bodies and headers may be cut anywhere."""
    stream = PACKET + RESPONSE + PACKET + PACKET + REQUEST + RESPONSE + PACKET
    received, found = bytearray(), list[Message | InterleavedPacket]()
    reader = MessageReader(received)
    for size in (*cuts, len(stream)):
        received += stream[:size]
        stream = stream[size:]
        while (message := reader.take_message()) is not None:
            found.append(message)
    packet = InterleavedPacket(1, b"abcd")
    assert [each.cseq if isinstance(each, Message) else each for each in found] == [
        *(packet, "7", packet, packet, "8", "7", packet)
    ]
    assert received == b""


def test_ok_body_and_what_follows() -> None:
    received = bytearray(b"GET_PARAMETER * RTSP/1.0\r\nContent-length: 5\r\n\r\nab\r\nc" + OPTIONS)
    first = MessageReader(received).take_message()
    assert isinstance(first, Message)
    assert first.body == b"ab\r\nc"
    assert take(bytes(received)).cseq == "1"


def test_ok_packets_between_requests() -> None:
    received = bytearray(b"$\x01\0\x03RTP" + OPTIONS + b"$\0\0\0\r\n" + OPTIONS)
    assert MessageReader(received).take_message() == InterleavedPacket(1, b"RTP")
    assert isinstance(MessageReader(received).take_message(), Message)
    assert MessageReader(received).take_message() == InterleavedPacket(0, b"")
    assert isinstance(MessageReader(received).take_message(), Message)
    assert MessageReader(received).take_message() is None


@pytest.mark.parametrize("data", [OPTIONS, b"$\x01\0\x03RTP", b"A * RTSP/1.0\nContent-Length: 3\n\nabc"])
def test_ok_byte_by_byte(data: bytes) -> None:
    received = bytearray()
    reader = MessageReader(received)
    for byte in data[:-1]:
        received.append(byte)
        assert reader.take_message() is None
    received.append(data[-1])
    taken = reader.take_message()
    assert taken is not None
    assert not isinstance(taken, Message) or taken.body == data.partition(b"\n\n")[2]
    assert not received


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00", 400),
        (b"\x00\r\n\r\n", 400),
        (b"A * RTSP/1.0\r\nContent-Length: -1\r\n\r\n", 400),
        (b"A * RTSP/1.0\r\nContent-Length: 1, 1\r\n\r\n", 400),
        (b"A * RTSP/1.0\r\nContent-Length: 65537\r\n\r\n", 413),
        (b"A * RTSP/1.0\r\nContent-Length: 9999999999\r\n\r\n", 413),
        (b"A" * 16384, 413),
        (b"A * RTSP/1.0\r\n" + b"B: c\r\n" * 4000 + b"\r\n", 413),
    ],
)
def test_fail_message(data: bytes, status: int) -> None:
    with pytest.raises(InvalidMessage) as raised:
        MessageReader(bytearray(data)).take_message()
    assert raised.value.status == status


@pytest.mark.parametrize("first", ["RTSP/1.0 abc", "RTSP/1.0", "RTSP/1.0 -20", "RTSP/1.0 \u00b2\u00b2\u00b2"])
def test_invalid_status_is_0(first: str) -> None:
    assert take(f"{first}\r\n\r\n".encode("latin-1")).status == 0


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """A result, more bytes needed, or InvalidMessage; progress with every result."""
    received = bytearray(data)
    with contextlib.suppress(InvalidMessage):
        while received:
            before = len(received)
            if MessageReader(received).take_message() is None:
                break
            assert len(received) < before


def test_format() -> None:
    fields = [("CSeq", "1"), ("WWW-Authenticate", "a"), ("WWW-Authenticate", "b")]
    head = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\nWWW-Authenticate: a\r\nWWW-Authenticate: b\r\n"
    assert format_message("OPTIONS * RTSP/1.0", fields) == head + b"\r\n"
    assert format_message("OPTIONS * RTSP/1.0", fields, b"no") == head + b"Content-Length: 2\r\n\r\nno"
