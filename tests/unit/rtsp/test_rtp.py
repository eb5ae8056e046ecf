"""H.264 in RTP: access units and times as a receiver reads them; reports and descriptions."""

import base64
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.h264.packet import Packet, VideoFormat
from softcam.rtsp.rtp import (
    CLOCK_HZ,
    Packetizer,
    describe,
    goodbye,
    interleave,
    is_goodbye,
    is_report_on,
    nal_units,
    sender_report,
)

SPS, PPS = bytes.fromhex("67640028acd940"), bytes.fromhex("68ebe3cb")
FORMAT = VideoFormat(640, 360, 20.0, SPS, PPS)
SSRC = 0x1234_5678
MTU = 1500 - 40 - 40  # the payload next to the headers of IP, UDP and a tunnel

UNITS = st.lists(
    st.tuples(st.sampled_from([1, 5, 6, 0x25, 0x41, 0x65]), st.integers(0, 6000)).map(
        lambda unit: bytes([unit[0]]) + bytes(number % 251 for number in range(unit[1]))
    ),
    min_size=1,
    max_size=4,
)


def avcc(units: list[bytes]) -> bytes:
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in units)


def packet(units: list[bytes], *, is_keyframe: bool = False, began_s: float = 10.0) -> Packet:
    return Packet(avcc(units), is_keyframe, began_s, 1_700_000_000.0 + began_s)


def split(wire: bytes) -> Iterator[tuple[int, bytes]]:
    """The interleaved packets as channel and content."""
    while wire:
        assert wire[:1] == b"$"
        length = int.from_bytes(wire[2:4], "big")
        yield wire[1], wire[4 : 4 + length]
        wire = wire[4 + length :]


def read(packets: list[bytes]) -> tuple[list[bytes], list[int], list[int], list[bool]]:
    """What a receiver reads (RFC 6184): NAL units, and the sequence, timestamp and marker of each packet."""
    units: list[bytes] = []
    sequences, timestamps, markers = [], [], []
    cut: bytearray | None = None
    for content in packets:
        assert len(content) - 12 <= MTU
        first, kind, sequence, timestamp, ssrc = struct.unpack(">BBHII", content[:12])
        assert (first, kind & 0x7F, ssrc) == (0x80, 96, SSRC)
        sequences.append(sequence)
        timestamps.append(timestamp)
        markers.append(bool(kind & 0x80))
        payload = content[12:]
        if payload[0] & 0x1F != 28:
            assert cut is None
            units.append(payload)
            continue
        if payload[1] & 0x80:
            assert cut is None
            cut = bytearray([(payload[0] & 0xE0) | (payload[1] & 0x1F)])
        assert cut is not None
        cut += payload[2:]
        if payload[1] & 0x40:
            units.append(bytes(cut))
            cut = None
    assert cut is None
    return units, sequences, timestamps, markers


@given(UNITS, st.booleans())
def test_access_units(units: list[bytes], is_keyframe: bool) -> None:
    packetizer = Packetizer(SSRC, 65_530, 0)
    found, sequences, timestamps, markers = read(packetizer.packetize(packet(units, is_keyframe=is_keyframe), FORMAT))
    assert found == ([SPS, PPS] if is_keyframe else []) + units
    assert sequences == [(65_530 + number) % 65_536 for number in range(len(sequences))]
    assert set(timestamps) == {0}
    assert markers == [False] * (len(markers) - 1) + [True]


def test_timestamps_of_exposures_wrap() -> None:
    packetizer = Packetizer(SSRC, 0, 2**32 - 100)
    packets = [packet([b"\x41x"], began_s=began_s) for began_s in (10.0, 10.05, 10.1, 11.0)]
    times = [read(packetizer.packetize(each, FORMAT))[2][0] for each in packets]
    assert times == [2**32 - 100, 4400, 8900, 89_900]


def test_report_maps_timestamps_to_wall_clock() -> None:
    packetizer = Packetizer(SSRC, 0, 1000)
    assert packetizer.report(unix_s=1_700_000_000.0, monotonic_s=9.0) == b""
    packetizer.packetize(packet([b"\x41x"], began_s=10.0), FORMAT)
    packetizer.packetize(packet([b"\x41" + bytes(2999)], began_s=10.5), FORMAT)
    report = packetizer.report(unix_s=1_700_000_010.75, monotonic_s=10.75)  # a quarter of a second after the exposure
    head, kind, words, ssrc, ntp_s, fraction, timestamp, packets, count = struct.unpack(">BBHIIIIII", report[:28])
    assert (head, kind, words, ssrc) == (0x80, 200, 6, SSRC)
    assert ntp_s - 2_208_988_800 == 1_700_000_010
    assert fraction / 2**32 == pytest.approx(0.75)
    assert timestamp == 1000 + 0.75 * CLOCK_HZ
    assert (packets, count) == (4, 2 + 3000 - 1 + 3 * 2)
    names = report[28:]
    assert struct.unpack(">BBHI", names[:8]) == (0x81, 202, len(names) // 4 - 1, SSRC)
    assert names[8:10] == b"\x01\x0b"
    assert names[10:21] == b"soft-stream"


def test_report_after_the_clock_was_set() -> None:
    """RTP timestamps go on as before: only the wall-clock time that belongs to them changes."""
    packetizer = Packetizer(SSRC, 0, 1000)
    packetizer.packetize(packet([b"\x41x"], began_s=10.0), FORMAT)
    report = packetizer.report(unix_s=1_900_000_000.0, monotonic_s=11.0)
    ntp_s, _, timestamp = struct.unpack(">III", report[8:20])
    assert ntp_s - 2_208_988_800 == 1_900_000_000
    assert timestamp == 1000 + CLOCK_HZ


def test_interleaved_packets() -> None:
    packets = [b"one", b"", b"x" * 1412]
    assert list(split(interleave(packets, 6))) == [(6, each) for each in packets]


def test_goodbye() -> None:
    """A compound packet: an empty receiver report, the name, and BYE with the source."""
    packet = goodbye(SSRC)
    kinds = []
    while packet:
        first, kind, words, ssrc = struct.unpack(">BBHI", packet[:8])
        kinds.append((first, kind))
        assert ssrc == SSRC
        packet = packet[4 * (words + 1) :]
    assert kinds == [(0x80, 201), (0x81, 202), (0x81, 203)]


@pytest.mark.parametrize("data", [b"\0\0\0", b"\0\0\0\0", b"\0\0\0\x05abcd", b"\0\0\0\x01a\0\0\0\x01"])
def test_truncated_access_unit(data: bytes) -> None:
    with pytest.raises(ValueError, match="NAL unit"):
        list(nal_units(data))


@pytest.mark.parametrize(("host", "family"), [("192.0.2.7", "IP4"), ("2001:db8::7", "IP6")])
def test_description(host: str, family: str) -> None:
    lines = describe(FORMAT, 77, host, "streamid=0").decode().split("\r\n")
    assert lines[0] == "v=0"
    assert f"o=- 77 1 IN {family} {host}" in lines
    assert "a=rtpmap:96 H264/90000" in lines
    assert "a=control:streamid=0" in lines
    sets = f"{base64.b64encode(SPS).decode()},{base64.b64encode(PPS).decode()}"
    assert f"a=fmtp:96 packetization-mode=1;profile-level-id=640028;sprop-parameter-sets={sets}" in lines
    assert "a=framerate:20" in lines
    assert "a=framesize:96 640-360" in lines
    assert not any(line.startswith("b=") for line in lines)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("", "s=Soft Stream"),
        ("Gärten 庭", "s=Gärten 庭"),
        ("Door\r\nm=audio 9 RTP/AVP 0\r\n", "s=Door m=audio 9 RTP/AVP 0"),
        ("a\x85b\u2028c", "s=a b c"),
    ],
)
def test_name_is_one_line(name: str, line: str) -> None:
    lines = describe(FORMAT, 77, "192.0.2.7", "trackID=0", name=name).decode().split("\r\n")
    assert lines[2] == line
    assert len(lines) == len(describe(FORMAT, 77, "192.0.2.7", "trackID=0").decode().split("\r\n"))


def test_description_for_viewers() -> None:
    lines = describe(
        FORMAT, 77, "192.0.2.7", "trackID=0", destination="0.0.0.0", session_lines=["a=range:npt=0-"], bitrate=1_500_001
    )
    text = lines.decode().split("\r\n")
    assert "c=IN IP4 0.0.0.0" in text
    assert text.index("a=range:npt=0-") < text.index("m=video 0 RTP/AVP 96") < text.index("b=AS:1501")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x80\xc9\0\1" + bytes(4), True),  # of a receiver that has received nothing yet
        (b"\x81\xc9\0\7" + bytes(4) + SSRC.to_bytes(4) + bytes(20), True),
        (b"\x82\xc9\0\x0d" + bytes(4) + bytes(24) + SSRC.to_bytes(4) + bytes(20), True),
        (b"\x81\xc9\0\7" + bytes(28), False),  # on another stream
        (sender_report(SSRC, 0, 0.0, 1, 1), True),  # clients that send, too
        (b"", False),
        (b"\x80\xc9\0", False),
        (b"\0\xc9\0\1" + bytes(4), False),  # version 0
        (b"\x80\xcb\0\1" + bytes(4), False),  # BYE
        (b"\x80\x60" + bytes(10), False),  # RTP
    ],
)
def test_reports(data: bytes, expected: bool) -> None:
    assert is_report_on(SSRC, data) is expected


def test_reports_that_name_the_stream() -> None:
    block = SSRC.to_bytes(4) + bytes(20)
    assert is_report_on(SSRC, b"\x81\xc9\0\7" + bytes(4) + block, accepts_empty=False)
    for empty in (b"\x80\xc9\0\1" + bytes(4), b"\x81\xc9\0\1" + bytes(4), sender_report(SSRC, 0, 0.0, 1, 1)):
        assert not is_report_on(SSRC, empty, accepts_empty=False)


OWN, OTHER, EMPTY_REPORT = b"self", b"else", b"\x80\xc9\0\1self"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (goodbye(SSRC), True),
        (EMPTY_REPORT + b"\x81\xcb\0\1" + OWN, True),
        (EMPTY_REPORT + b"\x82\xcb\0\2" + OTHER + OWN, True),
        (EMPTY_REPORT + b"\x81\xcb\0\3" + OWN + b"\7teardow", True),  # with a reason
        (EMPTY_REPORT + b"\x81\xcb\0\1" + OTHER, False),  # of a source that it mixes
        (EMPTY_REPORT + b"\x81\xcb\0\2" + OTHER + OWN, False),  # the second is not counted
        (EMPTY_REPORT + b"\x80\xcb\0\0" + OWN, False),
        (EMPTY_REPORT + b"\x9f\xcb\0\1" + OTHER, False),  # of 31 sources, one is there
        (EMPTY_REPORT + b"\x81\xcb\0\1se", False),
        (EMPTY_REPORT + b"\x81\xca\0\1" + OWN, False),  # its description
        (EMPTY_REPORT, False),
        (b"\x80\xc9\0\0" * 9, False),
        (b"", False),
    ],
)
def test_goodbye_of_a_viewer(data: bytes, expected: bool) -> None:
    assert is_goodbye(data) is expected
