"""Writes fragmented MP4, a fragment for one packet or several. Pure functions from values to bytes; any thread.

ISO/IEC 14496-12 (boxes) and -15 (H.264 in them). PyAV's muxer holds each frame until the next one, to know its
duration; here the caller passes the duration, so a fragment can be sent with its packet.

    initial segment   ftyp moov(mvhd trak mvex)             `initial_segment`, once, from a VideoFormat
    fragment          moof(mfhd traf(tfhd tfdt trun)) mdat  `fragment`, from the packets in it

Times are those of `Packet.began_s` relative to a zero that the caller chooses, and must not be before it. Frames are in
decoding order; there are no B-frames.
"""

import struct
from collections.abc import Sequence
from typing import Final

from softcam.h264.packet import Packet, VideoFormat

CONTENT_TYPE: Final = "video/mp4"
TIMESCALE: Final = 90_000  # ticks per second, as in RTP; divisible by all common frame rates

_TRACK: Final = 1
_MATRIX: Final = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # no rotation
# ITU-T H.273 code points for the colours of a JPEG: sRGB with the matrix of BT.601, full range.
_COLOUR: Final = struct.pack(">4sHHHB", b"nclx", 1, 13, 6, 0x80)
_KEYFRAME: Final = 0x02000000  # depends on no other sample
_NON_KEYFRAME: Final = 0x01010000  # depends on others, not a sync sample
_TFHD_FLAGS: Final = 0x020000  # default-base-is-moof
_TRUN_FLAGS: Final = 0x000701  # data offset; each sample's duration, size and flags
_MAX_TICKS: Final = 0xFFFFFFFF


def codec_name(fmt: VideoFormat) -> str:
    """The codecs parameter that browsers require (RFC 6381): `avc1.` and three bytes of the SPS."""
    return f"avc1.{fmt.sps[1:4].hex()}"


def initial_segment(fmt: VideoFormat, orientation: int = 1) -> bytes:
    """The header before the first fragment. `orientation` is EXIF's: 1, or 6 for rotation by the player."""
    brands = struct.pack(">4sI", b"iso5", 1) + b"iso5iso6avc1mp41"
    extends = _box(b"mvex", _full(b"trex", 0, 0, struct.pack(">5I", _TRACK, 1, 0, 0, 0)))
    return _box(b"ftyp", brands) + _box(b"moov", _mvhd(), _track(fmt, orientation), extends)


def fragment(number: int, packets: Sequence[Packet], zero_s: float, last_duration_s: float) -> bytes:
    """One fragment of one or more packets, in their order.

    `number` is 1 for the first fragment and increases. `zero_s` is the moment (as `Packet.began_s`) at which the media
    time is 0. `last_duration_s` is the duration of the last packet; each other packet lasts until the next one begins.
    Raises ValueError for no packets, and for a packet earlier than `zero_s`.
    """
    if not packets:
        raise ValueError("a fragment requires at least one packet")
    # Each time is rounded separately, so that errors do not accumulate.
    ticks = [round((packet.began_s - zero_s) * TIMESCALE) for packet in packets]
    if ticks[0] < 0:
        raise ValueError("a packet is earlier than zero_s")
    ends = [*ticks[1:], ticks[-1] + max(1, round(last_duration_s * TIMESCALE))]
    durations = [min(max(0, end - begin), _MAX_TICKS) for begin, end in zip(ticks, ends, strict=True)]
    samples = b"".join(
        struct.pack(">III", duration, len(packet.data), _KEYFRAME if packet.is_keyframe else _NON_KEYFRAME)
        for packet, duration in zip(packets, durations, strict=True)
    )
    decode_time = _full(b"tfdt", 1, 0, struct.pack(">Q", ticks[0]))
    header = _full(b"tfhd", 0, _TFHD_FLAGS, struct.pack(">I", _TRACK))
    sequence = _full(b"mfhd", 0, 0, struct.pack(">I", number & _MAX_TICKS))
    run_bytes = 12 + 8 + len(samples)
    moof_bytes = 8 + len(sequence) + 8 + len(header) + len(decode_time) + run_bytes
    run = _full(b"trun", 0, _TRUN_FLAGS, struct.pack(">II", len(packets), moof_bytes + 8), samples)
    moof = _box(b"moof", sequence, _box(b"traf", header, decode_time, run))
    size = 8 + sum(len(packet.data) for packet in packets)
    return b"".join((moof, struct.pack(">I4s", size, b"mdat"), *(packet.data for packet in packets)))


def _mvhd() -> bytes:
    return _full(
        b"mvhd",
        0,
        0,
        struct.pack(">4I", 0, 0, TIMESCALE, 0),  # no creation or modification time; unknown duration
        struct.pack(">iH10x", 0x10000, 0x100),  # normal rate, full volume
        _MATRIX,
        bytes(24),
        struct.pack(">I", _TRACK + 1),
    )


def _track(fmt: VideoFormat, orientation: int) -> bytes:
    header = _full(
        b"tkhd",
        0,
        3,  # enabled, and part of the presentation
        struct.pack(">5I", 0, 0, _TRACK, 0, 0),
        struct.pack(">8x4h", 0, 0, 0, 0),
        _MATRIX if orientation == 1 else _quarter_turn(fmt.height),
        struct.pack(">II", fmt.width << 16, fmt.height << 16),
    )
    language = struct.pack(">HH", 0x55C4, 0)  # undetermined
    media_header = _full(b"mdhd", 0, 0, struct.pack(">4I", 0, 0, TIMESCALE, 0), language)
    handler = _full(b"hdlr", 0, 0, struct.pack(">I4s12x", 0, b"vide"), b"camera\0")
    here = _full(b"dref", 0, 0, struct.pack(">I", 1), _full(b"url ", 0, 1))
    tables = _box(
        b"stbl",
        _full(b"stsd", 0, 0, struct.pack(">I", 1), _sample_entry(fmt)),
        # Empty: the samples are described in the fragments.
        _full(b"stts", 0, 0, bytes(4)),
        _full(b"stsc", 0, 0, bytes(4)),
        _full(b"stsz", 0, 0, bytes(8)),
        _full(b"stco", 0, 0, bytes(4)),
    )
    information = _box(b"minf", _full(b"vmhd", 0, 1, bytes(8)), _box(b"dinf", here), tables)
    return _box(b"trak", header, _box(b"mdia", media_header, handler, information))


def _quarter_turn(height: int) -> bytes:
    """The matrix for 90 degrees clockwise: rotates, and moves the result back into view."""
    return struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, height << 16, 0, 0x40000000)


def _sample_entry(fmt: VideoFormat) -> bytes:
    configuration = b"".join(
        (
            bytes((1,)),
            fmt.sps[1:4],  # profile, compatibility, level
            bytes((0xFF, 0xE1)),  # durations of four bytes; one SPS
            struct.pack(">H", len(fmt.sps)),
            fmt.sps,
            bytes((1,)),
            struct.pack(">H", len(fmt.pps)),
            fmt.pps,
        )
    )
    return _box(
        b"avc1",
        struct.pack(">6xH16x", 1),
        struct.pack(">HHIIIH", fmt.width, fmt.height, 72 << 16, 72 << 16, 0, 1),
        bytes(32),  # no compressor name
        struct.pack(">Hh", 24, -1),
        _box(b"avcC", configuration),
        _box(b"colr", _COLOUR),
        _box(b"pasp", struct.pack(">II", 1, 1)),
    )


def _box(kind: bytes, *parts: bytes) -> bytes:
    return b"".join((struct.pack(">I4s", 8 + sum(map(len, parts)), kind), *parts))


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *parts)
