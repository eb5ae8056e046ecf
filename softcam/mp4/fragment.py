"""Fragmented MP4, one fragment for one packet or for several: pure functions from values to bytes; any thread.

ISO/IEC 14496-12 (boxes) and -15 (H.264 in them). PyAV's own muxer keeps each frame until it has the next, to know how
long it lasts; here the caller says how long, so a fragment can leave with its packet.

    initial segment   ftyp moov(mvhd trak mvex)             `initial_segment`, once, from a VideoFormat
    fragment          moof(mfhd traf(tfhd tfdt trun)) mdat  `fragment`, from the packets in it

Times are those of `Packet.began_s` less a zero of the caller's choosing, and must not be before it. One picture
follows the other in the order of decoding; there are no B frames.
"""

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from softcam.h264.packet import Packet, VideoFormat

CONTENT_TYPE: Final = "video/mp4"
TIMESCALE: Final = 90_000  # ticks of a second: RTP's, and divisible by all usual frame rates

_TRACK: Final = 1
_MATRIX: Final = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # as it is: nothing turned
# ITU-T H.273, as a JPEG has it: sRGB by way of BT.601's matrix, full range.
_COLOUR: Final = struct.pack(">4sHHHB", b"nclx", 1, 13, 6, 0x80)
_KEYFRAME: Final = 0x02000000  # depends on no other
_OTHER: Final = 0x01010000  # depends on others, and is no place to begin
_TFHD_FLAGS: Final = 0x020000  # places are counted from the moof
_TRUN_FLAGS: Final = 0x000701  # where the data is; each sample's duration, size and flags
_MOST_TICKS: Final = 0xFFFFFFFF


def codec_name(fmt: VideoFormat) -> str:
    """What a browser wants to hear before it plays this: RFC 6381's `avc1.` and three bytes of the SPS."""
    return f"avc1.{fmt.sps[1:4].hex()}"


def initial_segment(fmt: VideoFormat, orientation: int = 1) -> bytes:
    """What stands before the first fragment, once. `orientation` is EXIF's: 1, or 6 where players are to turn it."""
    brands = struct.pack(">4sI", b"iso5", 1) + b"iso5iso6avc1mp41"
    extends = _box(b"mvex", _full(b"trex", 0, 0, struct.pack(">5I", _TRACK, 1, 0, 0, 0)))
    return _box(b"ftyp", brands) + _box(b"moov", _movie_header(), _track(fmt, orientation), extends)


def fragment(number: int, packets: Sequence[Packet], zero_s: float, last_duration_s: float) -> bytes:
    """One fragment of one or more packets, in their order.

    `number` is 1 for the first fragment and increases. `zero_s` is the moment (as `Packet.began_s`) at which the media
    time is 0. `last_duration_s` is the duration of the last packet; each other packet lasts until the next one begins.
    Raises ValueError for no packets, and for a packet earlier than `zero_s`.
    """
    if not packets:
        raise ValueError("a fragment has at least one packet")
    # Each moment is rounded by itself, so that no error adds up.
    ticks = [round((packet.began_s - zero_s) * TIMESCALE) for packet in packets]
    if ticks[0] < 0:
        raise ValueError("a packet is from before the movie's zero")
    ends = [*ticks[1:], ticks[-1] + max(1, round(last_duration_s * TIMESCALE))]
    lengths = [min(max(0, end - begin), _MOST_TICKS) for begin, end in zip(ticks, ends, strict=True)]
    samples = b"".join(
        struct.pack(">III", length, len(packet.data), _KEYFRAME if packet.is_keyframe else _OTHER)
        for packet, length in zip(packets, lengths, strict=True)
    )
    decode_time = _full(b"tfdt", 1, 0, struct.pack(">Q", ticks[0]))
    header = _full(b"tfhd", 0, _TFHD_FLAGS, struct.pack(">I", _TRACK))
    sequence = _full(b"mfhd", 0, 0, struct.pack(">I", number & _MOST_TICKS))
    run_bytes = 12 + 8 + len(samples)
    moof_bytes = 8 + len(sequence) + 8 + len(header) + len(decode_time) + run_bytes
    run = _full(b"trun", 0, _TRUN_FLAGS, struct.pack(">II", len(packets), moof_bytes + 8), samples)
    moof = _box(b"moof", sequence, _box(b"traf", header, decode_time, run))
    size = 8 + sum(len(packet.data) for packet in packets)
    return b"".join((moof, struct.pack(">I4s", size, b"mdat"), *(packet.data for packet in packets)))


def shown_s(packets: Sequence[Packet], last_duration_s: float) -> float:
    """How long a fragment of these packets lasts, with the same `last_duration_s`."""
    return sum(after.began_s - before.began_s for before, after in pairwise(packets)) + last_duration_s


def _movie_header() -> bytes:
    return _full(
        b"mvhd",
        0,
        0,
        struct.pack(">4I", 0, 0, TIMESCALE, 0),  # made and changed: not told; of unknown length
        struct.pack(">iH10x", 0x10000, 0x100),  # at its own speed, at full volume
        _MATRIX,
        bytes(24),
        struct.pack(">I", _TRACK + 1),
    )


def _track(fmt: VideoFormat, orientation: int) -> bytes:
    header = _full(
        b"tkhd",
        0,
        3,  # shown, and part of the presentation
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
        # All of them empty: what there is stands in the fragments.
        _full(b"stts", 0, 0, bytes(4)),
        _full(b"stsc", 0, 0, bytes(4)),
        _full(b"stsz", 0, 0, bytes(8)),
        _full(b"stco", 0, 0, bytes(4)),
    )
    information = _box(b"minf", _full(b"vmhd", 0, 1, bytes(8)), _box(b"dinf", here), tables)
    return _box(b"trak", header, _box(b"mdia", media_header, handler, information))


def _quarter_turn(height: int) -> bytes:
    """The matrix for 90 degrees clockwise: what is below goes to the left, and all of it back into sight."""
    return struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, height << 16, 0, 0x40000000)


def _sample_entry(fmt: VideoFormat) -> bytes:
    configuration = b"".join(
        (
            bytes((1,)),
            fmt.sps[1:4],  # profile, compatibility, level
            bytes((0xFF, 0xE1)),  # lengths of four bytes; one SPS
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
        bytes(32),  # no compressor's name
        struct.pack(">Hh", 24, -1),
        _box(b"avcC", configuration),
        _box(b"colr", _COLOUR),
        _box(b"pasp", struct.pack(">II", 1, 1)),
    )


def _box(kind: bytes, *parts: bytes) -> bytes:
    return b"".join((struct.pack(">I4s", 8 + sum(map(len, parts)), kind), *parts))


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *parts)
