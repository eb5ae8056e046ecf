"""H.264 in RTP packets (RFC 6184), sender reports (RFC 3550), and the session description (RFC 8866).

Pure functions and a packetizer with its counters; no socket, no thread, no PyAV.
"""

import base64
import struct
from collections.abc import Iterable, Iterator
from typing import Final

from softcam.h264.packet import Packet, VideoFormat

CLOCK_HZ: Final = 90_000
PAYLOAD_TYPE: Final = 96  # the first dynamic payload type

# Servers forward packets by UDP unchanged: with this payload and all headers they fit into the 1420 bytes of WireGuard,
# also with IPv6.
_MAX_PAYLOAD: Final = 1360
_FU_A: Final = 28
_END: Final = 0x40
_BEGINNING: Final = 0x80
# The CNAME, which every report must contain (RFC 3550, 6.1), padded to 32-bit words.
_CNAME: Final = b"\x01\x0bsoft-stream\0\0\0"
_BYE: Final = 203
_REPORTS: Final = {200: 28, 201: 8}  # packet types of sender and receiver reports: where their blocks begin
_NTP_EPOCH_S: Final = 2_208_988_800  # 1970 as seconds since 1900
_32_BITS: Final = 0xFFFF_FFFF


def nal_units(data: bytes) -> Iterator[memoryview]:
    """The NAL units of an access unit in AVCC. Raises ValueError if it is truncated."""
    view = memoryview(data)
    at = 0
    while at < len(view):
        length = int.from_bytes(view[at : at + 4], "big")
        at += 4
        if not 0 < length <= len(view) - at:
            raise ValueError(f"a NAL unit of {length} bytes, but {max(0, len(view) - at)} are left")
        yield view[at : at + length]
        at += length


class Packetizer:
    """Creates the RTP packets of one stream. Timestamps are those of the exposures. Used by one thread."""

    def __init__(self, ssrc: int, first_sequence: int, first_timestamp: int) -> None:
        """The numbers must be random (RFC 3550, 5.1)."""
        self.ssrc = ssrc
        self.sequence = first_sequence & 0xFFFF  # of the next packet
        self._first_timestamp = first_timestamp
        self._began_s: float | None = None
        self.packets = 0  # so far
        self.octets = 0  # of their payloads

    def packetize(self, packet: Packet, fmt: VideoFormat) -> list[bytes]:
        """The RTP packets of an access unit, with the parameter sets before a keyframe. Raises ValueError."""
        if self._began_s is None:
            self._began_s = packet.began_s
        units = list(nal_units(packet.data))
        if packet.is_keyframe:
            units = [memoryview(fmt.sps), memoryview(fmt.pps), *units]
        timestamp = self.timestamp(packet.began_s)
        packets: list[bytes] = []
        for number, unit in enumerate(units, 1):
            is_last = number == len(units)
            if len(unit) <= _MAX_PAYLOAD:
                packets.append(self._header(timestamp, len(unit), is_marked=is_last) + unit)
            else:
                packets += self._fragments(unit, timestamp, is_last=is_last)
        return packets

    def report(self, *, unix_s: float, monotonic_s: float) -> bytes:
        """A sender report: the RTP timestamp at this moment, which both clocks show. Empty before the first packet."""
        if self._began_s is None:
            return b""
        return sender_report(self.ssrc, self.timestamp(monotonic_s), unix_s, self.packets, self.octets)

    def timestamp(self, began_s: float) -> int:
        """The RTP timestamp of a moment on the monotonic clock; the first packet must have been packetized."""
        elapsed_s = began_s - (self._began_s or 0.0)
        return (self._first_timestamp + round(elapsed_s * CLOCK_HZ)) & _32_BITS

    def _fragments(self, unit: memoryview, timestamp: int, *, is_last: bool) -> Iterator[bytes]:
        indicator = (unit[0] & 0xE0) | _FU_A
        kind = unit[0] & 0x1F
        size = _MAX_PAYLOAD - 2
        for at in range(1, len(unit), size):
            piece = unit[at : at + size]
            is_end = at + size >= len(unit)
            mark = (_BEGINNING if at == 1 else 0) | (_END if is_end else 0)
            header = self._header(timestamp, len(piece) + 2, is_marked=is_last and is_end)
            yield b"".join((header, bytes((indicator, mark | kind)), piece))

    def _header(self, timestamp: int, length: int, *, is_marked: bool) -> bytes:
        sequence = self.sequence
        self.sequence = (sequence + 1) & 0xFFFF
        self.packets += 1
        self.octets += length
        kind = PAYLOAD_TYPE | (0x80 if is_marked else 0)
        return struct.pack(">BBHII", 0x80, kind, sequence, timestamp, self.ssrc)


def interleave(packets: Iterable[bytes], channel: int) -> bytes:
    """Packets as an RTSP connection carries them (RFC 2326, 10.12)."""
    parts: list[bytes] = []
    for packet in packets:
        parts += (struct.pack(">cBH", b"$", channel, len(packet)), packet)
    return b"".join(parts)


def sender_report(ssrc: int, timestamp: int, unix_s: float, packets: int, octets: int) -> bytes:
    """An RTCP packet (RFC 3550, 6.4.1): at `unix_s` the RTP timestamp is `timestamp`."""
    ntp_s = unix_s + _NTP_EPOCH_S
    report = struct.pack(
        ">BBHIIIIII",
        *(0x80, 200, 6, ssrc, int(ntp_s) & _32_BITS, int(ntp_s % 1 * 2**32), timestamp),
        *(packets & _32_BITS, octets & _32_BITS),
    )
    return report + _names(ssrc)


def is_report_on(ssrc: int, data: bytes, *, accepts_empty: bool = True) -> bool:
    """Whether an RTCP packet begins with a report on this stream (RFC 3550, 6.4), or with an empty one."""
    if len(data) < 8 or data[0] >> 6 != 2 or data[1] not in _REPORTS:
        return False
    at = _REPORTS[data[1]]
    blocks = data[at : at + 24 * (data[0] & 0x1F)]
    if not blocks:
        return accepts_empty
    return any(int.from_bytes(blocks[start : start + 4]) == ssrc for start in range(0, len(blocks), 24))


def is_goodbye(data: bytes) -> bool:
    """Whether the sender of a compound RTCP packet, that of its first report, leaves (RFC 3550, 6.6)."""
    sender, at = data[4:8], 0
    while len(data) >= at + 8 and data[at] >> 6 == 2:
        end = at + 4 + 4 * int.from_bytes(data[at + 2 : at + 4])
        count = data[at] & 0x1F
        if data[at + 1] == _BYE and sender in (data[each : each + 4] for each in range(at + 4, end, 4)[:count]):
            return True
        at = end
    return False


def goodbye(ssrc: int) -> bytes:
    """An RTCP packet that ends a stream (RFC 3550, 6.6), after an empty receiver report as the rules require."""
    return struct.pack(">BBHI", 0x80, 201, 1, ssrc) + _names(ssrc) + struct.pack(">BBHI", 0x81, _BYE, 1, ssrc)


def _names(ssrc: int) -> bytes:
    """The description of the source that every compound packet contains (RFC 3550, 6.5)."""
    return struct.pack(">BBHI", 0x81, 202, 1 + len(_CNAME) // 4, ssrc) + _CNAME


def describe(
    fmt: VideoFormat,
    number: int,
    host: str,
    control: str,
    *,
    name: str = "",
    destination: str = "",
    session_lines: Iterable[str] = (),
    bitrate: int | None = None,
) -> bytes:
    """The session description (SDP).

    `number` is the session ID and `host` the address of its origin; `name` is that of the session, in one line;
    `destination` is where packets are sent to, `host` by default. `bitrate` is in bits per second.
    """
    family = "IP6" if ":" in host else "IP4"
    sets = ",".join(base64.b64encode(each).decode() for each in (fmt.sps, fmt.pps))
    details = f"packetization-mode=1;profile-level-id={fmt.sps[1:4].hex().upper()};sprop-parameter-sets={sets}"
    lines = (
        "v=0",
        f"o=- {number} 1 IN {family} {host}",
        f"s={' '.join(name.split()) or 'Soft Stream'}",
        f"c=IN {family} {destination or host}",
        "t=0 0",
        *session_lines,
        f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
        *([] if bitrate is None else [f"b=AS:{-(-bitrate // 1000)}"]),
        f"a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK_HZ}",
        f"a=fmtp:{PAYLOAD_TYPE} {details}",
        f"a=framerate:{fmt.fps:.15g}",
        f"a=framesize:{PAYLOAD_TYPE} {fmt.width}-{fmt.height}",
        f"a=control:{control}",
    )
    return ("\r\n".join(lines) + "\r\n").encode("utf-8", "replace")
