"""NAL units: splits byte streams, and prefixes units with their lengths. Pure functions on bytes; any thread.

ITU-T H.264, Annex B, separates units by start codes, as encoders return them; ISO/IEC 14496-15 puts a length before
each unit, of four bytes here, as MP4 and `Packet` have it.
"""

from collections.abc import Iterator
from typing import Final

IDR: Final = 5
SPS: Final = 7
PPS: Final = 8
_SLICES: Final = frozenset({1, 2, 3, 4, IDR})
_START: Final = b"\x00\x00\x01"


def split(stream: bytes) -> Iterator[bytes]:
    """The NAL units of an Annex B byte stream."""
    at = stream.find(_START)
    while at >= 0:
        begin = at + len(_START)
        at = stream.find(_START, begin)
        # Zeros before a start code are not part of the unit, which ends with a one bit.
        if unit := stream[begin : None if at < 0 else at].rstrip(b"\x00"):
            yield unit


def kind_of(unit: bytes) -> int:
    """The nal_unit_type."""
    return unit[0] & 0x1F


def only_slices(stream: bytes) -> bytes:
    """The slices of a byte stream in AVCC; other units (parameter sets, SEI) are dropped."""
    return b"".join(len(unit).to_bytes(4) + unit for unit in split(stream) if kind_of(unit) in _SLICES)


def parameter_sets(stream: bytes) -> tuple[bytes, bytes]:
    """The first SPS and PPS of a byte stream. Raises ValueError where one is missing."""
    found = {kind_of(unit): unit for unit in reversed(list(split(stream)))}
    if SPS not in found or PPS not in found:
        raise ValueError("no parameter sets in the encoder's header")
    return found[SPS], found[PPS]


def is_idr(access_unit: bytes) -> bool:
    """Whether an access unit in AVCC that consists of slices is a keyframe at which decoding can start."""
    return len(access_unit) > 4 and kind_of(access_unit[4:5]) == IDR
