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
from softcam.imaging.colour import COLOUR_MATRIX, COLOUR_PRIMARIES, COLOUR_TRANSFER

CONTENT_TYPE: Final = "video/mp4"
TIMESCALE: Final = 90_000  # ticks per second, as in RTP; divisible by all common frame rates
MAX_TICKS: Final = 0xFFFFFFFF
IS_NON_SYNC: Final = 0x10000  # in a sample's flags
FTYP: Final = struct.pack(">I4s", 32, b"ftyp") + b"iso5\0\0\0\1iso5iso6avc1mp41"  # every file starts with it

_TRACK: Final = 1
_EPOCH_S: Final = 2_082_844_800  # 1970 as seconds since 1904
_MATRIX: Final = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)  # no rotation
_FULL_RANGE: Final = 0x80
_COLOUR: Final = struct.pack(">4sHHHB", b"nclx", COLOUR_PRIMARIES, COLOUR_TRANSFER, COLOUR_MATRIX, _FULL_RANGE)
_UTF_8: Final = 1  # type of a value in the metadata
_KEYFRAME: Final = 0x02000000  # depends on no other sample
_NON_KEYFRAME: Final = 0x01000000 | IS_NON_SYNC  # depends on others
_TFHD_FLAGS: Final = 0x020000  # default-base-is-moof
_TRUN_FLAGS: Final = 0x000701  # data offset; each sample's duration, size and flags
# moof, mfhd, traf, tfhd, tfdt and trun up to its samples, and the variable fields in them: number, time, samples.
_MOOF: Final = struct.Struct(">I4s I4sII I4s I4sII I4sIq I4sIII")
_MOOF_FIELDS: Final = struct.Struct(">20xI36xq12xI4x")
_TIME: Final = struct.Struct(">q")
_TIME_AT: Final = 60
_SAMPLE: Final = struct.Struct(">III")  # ticks, bytes, flags


def initial_segment(
    fmt: VideoFormat, orientation: int = 1, created_s: float | None = None, title: str | None = None
) -> bytes:
    """The header before the first fragment. `orientation` is EXIF's: 1, or 6 for rotation by the player.

    `created_s` (Unix time) is the date of the file, None for a stream, which has none. `title` is for players.
    """
    created = 0 if created_s is None else min(int(created_s) + _EPOCH_S, MAX_TICKS)
    dates = struct.pack(">II", created, created)  # of the creation and of the last modification
    header = full_box(
        b"mvhd",
        0,
        dates,
        struct.pack(">II", TIMESCALE, 0),  # unknown duration
        struct.pack(">iH10x", 0x10000, 0x100),  # normal rate, full volume
        _MATRIX,
        struct.pack(">24xI", _TRACK + 1),
    )
    extends = box(b"mvex", full_box(b"trex", 0, struct.pack(">5I", _TRACK, 1, 0, 0, 0)))
    metadata = b"" if title is None else _metadata(title)
    return FTYP + box(b"moov", header, _track(fmt, orientation, dates), extends, metadata)


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
    samples = [
        _SAMPLE.pack(
            min(max(0, end - begin), MAX_TICKS), len(packet.data), _KEYFRAME if packet.is_keyframe else _NON_KEYFRAME
        )
        for packet, begin, end in zip(packets, ticks, ends, strict=True)
    ]
    mdat_header = struct.pack(">I4s", 8 + sum(len(packet.data) for packet in packets), b"mdat")
    moof = _moof(number & MAX_TICKS, ticks[0], len(packets))
    return b"".join((moof, *samples, mdat_header, *(packet.data for packet in packets)))


def moved_back(content: bytes, ticks: int) -> bytes:
    """A fragment as it is written here, so many ticks earlier, but not before time 0."""
    (begin,) = _TIME.unpack_from(content, _TIME_AT)
    view = memoryview(content)
    return b"".join((view[:_TIME_AT], _TIME.pack(max(0, begin - ticks)), view[_TIME_AT + _TIME.size :]))


def parse_moof(moof: bytes) -> tuple[int, bytes]:
    """The time of a fragment's first sample, and the table of samples. Raises ValueError if it was not written here."""
    head, samples = moof[: _MOOF.size], moof[_MOOF.size :]
    if len(head) == _MOOF.size:
        number, ticks, count = _MOOF_FIELDS.unpack(head)
        if 0 < count * _SAMPLE.size == len(samples) and ticks >= 0 and head == _moof(number, ticks, count):
            return ticks, samples
    raise ValueError("not a fragment as it is written here")


def _moof(number: int, ticks: int, count: int) -> bytes:
    """The box up to the samples."""
    size = _MOOF.size + count * _SAMPLE.size
    run = (size - 68, b"trun", _TRUN_FLAGS, count, size + 8)
    time = (20, b"tfdt", 1 << 24, ticks)
    header = (16, b"tfhd", _TFHD_FLAGS, _TRACK)
    return _MOOF.pack(size, b"moof", 16, b"mfhd", 0, number, size - 24, b"traf", *header, *time, *run)


def _metadata(title: str) -> bytes:
    """The title as iTunes and FFmpeg write it.

    https://developer.apple.com/documentation/quicktime-file-format/metadata_atoms_and_types
    """
    handler = full_box(b"hdlr", 0, struct.pack(">4x4s4s9x", b"mdir", b"appl"))
    name = box(b"\xa9nam", full_box(b"data", _UTF_8, bytes(4), title.encode("utf-8", "replace")))
    return box(b"udta", full_box(b"meta", 0, handler, box(b"ilst", name)))


def _track(fmt: VideoFormat, orientation: int, dates: bytes) -> bytes:
    # For orientation 6: 90 degrees clockwise, and the result moved back into view.
    turned = struct.pack(">9i", 0, 0x10000, 0, -0x10000, 0, 0, fmt.height << 16, 0, 0x40000000)
    header = full_box(
        b"tkhd",
        3,  # enabled, and part of the presentation
        dates,
        struct.pack(">3I16x", _TRACK, 0, 0),
        _MATRIX if orientation == 1 else turned,
        struct.pack(">II", fmt.width << 16, fmt.height << 16),
    )
    tables = box(
        b"stbl",
        full_box(b"stsd", 0, struct.pack(">I", 1), _sample_entry(fmt)),
        # Empty: the samples are described in the fragments.
        *(full_box(kind, 0, bytes(size)) for kind, size in ((b"stts", 4), (b"stsc", 4), (b"stsz", 8), (b"stco", 4))),
    )
    here = box(b"dinf", full_box(b"dref", 0, struct.pack(">I", 1), full_box(b"url ", 1)))
    media = box(
        b"mdia",
        full_box(b"mdhd", 0, dates, struct.pack(">IIHH", TIMESCALE, 0, 0x55C4, 0)),  # undetermined language
        full_box(b"hdlr", 0, struct.pack(">I4s12x", 0, b"vide"), b"camera\0"),
        box(b"minf", full_box(b"vmhd", 1, bytes(8)), here, tables),
    )
    return box(b"trak", header, media)


def _sample_entry(fmt: VideoFormat) -> bytes:
    sps, pps = fmt.sps, fmt.pps
    # Version; profile, compatibility, level; lengths of four bytes; one SPS and one PPS.
    configuration = struct.pack(">B3sBBH", 1, sps[1:4], 0xFF, 0xE1, len(sps)) + sps
    configuration += struct.pack(">BH", 1, len(pps)) + pps
    return box(
        b"avc1",
        struct.pack(">6xH16xHHIIIH", 1, fmt.width, fmt.height, 72 << 16, 72 << 16, 0, 1),
        struct.pack(">32xHh", 24, -1),  # no compressor name
        box(b"avcC", configuration),
        box(b"colr", _COLOUR),
        box(b"pasp", struct.pack(">II", 1, 1)),
    )


def box(kind: bytes, *parts: bytes | memoryview) -> bytes:
    return b"".join((struct.pack(">I4s", 8 + sum(map(len, parts)), kind), *parts))


def full_box(kind: bytes, flags: int, *parts: bytes) -> bytes:
    """A box with a version, which is 0, and flags."""
    return box(kind, struct.pack(">I", flags), *parts)
