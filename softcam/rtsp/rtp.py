"""H.264 in RTP packets (RFC 6184), sender reports (RFC 3550), and the session description (RFC 8866).

Pure functions and a packetizer with its counters; no socket, no thread, no PyAV.
"""

import base64
import struct
from collections.abc import Iterator
from typing import Final

from softcam.h264.packet import Packet, VideoFormat

CLOCK_HZ: Final = 90_000
PAYLOAD_TYPE: Final = 96  # the first dynamic payload type

# Servers forward packets by UDP unchanged: with this payload and all headers they fit into an Ethernet frame, also
# inside a tunnel.
_MAX_PAYLOAD: Final = 1400
_FU_A: Final = 28
_END: Final = 0x40
_BEGINNING: Final = 0x80
# The CNAME, which every report must contain (RFC 3550, 6.1), padded to 32-bit words.
_CNAME: Final = b"\x01\x0bsoft-stream\0\0\0"
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
    """Creates the RTP packets of one stream, framed for an interleaved RTSP connection.

    Timestamps are those of the exposures. Used by one thread.
    """

    def __init__(self, ssrc: int, first_sequence: int, first_timestamp: int, channel: int) -> None:
        """`channel` is the connection's RTP channel; the first numbers must be random (RFC 3550, 5.1)."""
        self._ssrc = ssrc
        self._sequence = first_sequence & 0xFFFF
        self._first_timestamp = first_timestamp
        self._channel = channel
        self._began_s: float | None = None
        self._newest: Packet | None = None
        self._packets = 0
        self._bytes = 0

    def packetize(self, packet: Packet, fmt: VideoFormat) -> bytes:
        """The RTP packets of an access unit, with the parameter sets before a keyframe. Raises ValueError."""
        if self._began_s is None:
            self._began_s = packet.began_s
        self._newest = packet
        units = list(nal_units(packet.data))
        if packet.is_keyframe:
            units = [memoryview(fmt.sps), memoryview(fmt.pps), *units]
        timestamp = self._timestamp(packet.began_s)
        parts: list[bytes | memoryview] = []
        for number, unit in enumerate(units, 1):
            is_last = number == len(units)
            if len(unit) <= _MAX_PAYLOAD:
                parts += (self._header(timestamp, len(unit), is_marked=is_last), unit)
            else:
                self._fragment(unit, timestamp, parts, is_last=is_last)
        return b"".join(parts)

    def report(self, channel: int, now_s: float) -> bytes:
        """A sender report that maps timestamps to wall-clock time; `now_s` is Unix time. Empty before the first
        packet."""
        if self._newest is None:
            return b""
        ntp_s = now_s + _NTP_EPOCH_S
        timestamp = self._timestamp(self._newest.began_s + now_s - self._newest.timestamp_s)
        report = struct.pack(
            ">BBHIIIIII",
            *(0x80, 200, 6, self._ssrc, int(ntp_s) & _32_BITS, int(ntp_s % 1 * 2**32), timestamp),
            *(self._packets & _32_BITS, self._bytes & _32_BITS),
        )
        names = struct.pack(">BBHI", 0x81, 202, 1 + len(_CNAME) // 4, self._ssrc) + _CNAME
        return struct.pack(">cBH", b"$", channel, len(report) + len(names)) + report + names

    def _timestamp(self, began_s: float) -> int:
        elapsed_s = began_s - (self._began_s or 0.0)
        return (self._first_timestamp + round(elapsed_s * CLOCK_HZ)) & _32_BITS

    def _fragment(self, unit: memoryview, timestamp: int, parts: list[bytes | memoryview], *, is_last: bool) -> None:
        indicator = (unit[0] & 0xE0) | _FU_A
        kind = unit[0] & 0x1F
        size = _MAX_PAYLOAD - 2
        for at in range(1, len(unit), size):
            piece = unit[at : at + size]
            is_end = at + size >= len(unit)
            mark = (_BEGINNING if at == 1 else 0) | (_END if is_end else 0)
            parts += (
                self._header(timestamp, len(piece) + 2, is_marked=is_last and is_end),
                bytes((indicator, mark | kind)),
                piece,
            )

    def _header(self, timestamp: int, length: int, *, is_marked: bool) -> bytes:
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        self._packets += 1
        self._bytes += length
        kind = PAYLOAD_TYPE | (0x80 if is_marked else 0)
        return struct.pack(">cBHBBHII", b"$", self._channel, 12 + length, 0x80, kind, sequence, timestamp, self._ssrc)


def describe(fmt: VideoFormat, number: int, host: str, control: str) -> bytes:
    """The session description that a publisher announces; `host` is the server's address, `number` the session ID."""
    family = "IP6" if ":" in host else "IP4"
    sets = ",".join(base64.b64encode(each).decode() for each in (fmt.sps, fmt.pps))
    details = f"packetization-mode=1;profile-level-id={fmt.sps[1:4].hex().upper()};sprop-parameter-sets={sets}"
    lines = (
        "v=0",
        f"o=- {number} 1 IN {family} {host}",
        "s=Soft Stream",
        f"c=IN {family} {host}",
        "t=0 0",
        f"m=video 0 RTP/AVP {PAYLOAD_TYPE}",
        f"a=rtpmap:{PAYLOAD_TYPE} H264/{CLOCK_HZ}",
        f"a=fmtp:{PAYLOAD_TYPE} {details}",
        f"a=control:{control}",
    )
    return ("\r\n".join(lines) + "\r\n").encode()
