"""Rewrites a sequence parameter set so that it declares the video's colours. Pure functions; any thread.

The syntax is that of ITU-T H.264, 7.3.2.1.1 and E.1.1. A hardware encoder declares no colours or its default, and
players then show full-range video with too much contrast.
"""

import re
from typing import Final

from softcam.imaging.colour import COLOUR_MATRIX, COLOUR_PRIMARIES, COLOUR_TRANSFER

# Profiles with additional fields before those that all profiles share.
_HIGH: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_UNSPECIFIED_FORMAT: Final = 5
_OWN_RATIO: Final = 255


class BitReader:
    """A bit reader; `all` are the bits as text, of which ranges can be copied."""

    def __init__(self, data: bytes) -> None:
        self.all = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def read(self, count: int) -> int:
        end = self.at + count
        if end > len(self.all):
            raise ValueError("truncated parameter set")
        value = int(self.all[self.at : end] or "0", 2)
        self.at = end
        return value

    def number(self) -> int:
        """An Exp-Golomb code ue(v); also used to skip se(v), which has the same length."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)


def with_colours(sps: bytes) -> bytes:
    """The set with the colours of a JPEG: sRGB as full-range BT.601. Raises ValueError for an invalid set."""
    bits = BitReader(sps.replace(b"\x00\x00\x03", b"\x00\x00"))
    frames = skip_to_vui(bits)
    parts = [bits.all[: bits.at], "1"]
    if bits.read(1):
        begin = bits.at
        if bits.read(1) and bits.read(8) == _OWN_RATIO:
            bits.read(32)
        if bits.read(1):  # overscan
            bits.read(1)
        parts.append(bits.all[begin : bits.at])
        if bits.read(1):
            bits.read(4)
            if bits.read(1):
                bits.read(24)
        rest = bits.all[bits.at :]
    else:
        # No chroma location, timing or buffers, but a bitstream restriction without reordering: otherwise a decoder may
        # hold back as many frames as there are references.
        parts.append("00")
        rest = "00000" + "1" + "1" + exp_golomb(0) * 2 + exp_golomb(15) * 2 + exp_golomb(0) + exp_golomb(frames) + "1"
    description = f"{COLOUR_PRIMARIES:08b}{COLOUR_TRANSFER:08b}{COLOUR_MATRIX:08b}"
    parts += ["1", f"{_UNSPECIFIED_FORMAT:03b}", "1", "1", description, rest]
    return to_nal_unit("".join(parts))


def skip_to_vui(bits: BitReader) -> int:
    """Read up to vui_parameters_present_flag; returns the number of reference frames."""
    bits.read(8)
    profile = bits.read(8)
    bits.read(16)
    bits.number()
    if profile in _HIGH:
        if bits.number() == 3:
            bits.read(1)
        bits.number()
        bits.number()
        bits.read(1)
        if bits.read(1):
            raise ValueError("parameter sets with scaling lists are not supported")
    bits.number()
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        raise ValueError("parameter sets with picture order count type 1 are not supported")
    frames = bits.number()
    bits.read(1)
    bits.number()
    bits.number()
    if not bits.read(1):
        bits.read(1)
    bits.read(1)
    if bits.read(1):
        for _ in range(4):
            bits.number()
    return frames


def exp_golomb(number: int) -> str:
    """The Exp-Golomb code ue(v) of a number."""
    digits = f"{number + 1:b}"
    return digits.zfill(2 * len(digits) - 1)


def to_nal_unit(bits: str) -> bytes:
    """The bits as a NAL unit, with emulation prevention bytes; zeros after the stop bit fill the last byte."""
    bits = bits.rstrip("0")
    size = (len(bits) + 7) // 8
    return re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", int(bits.ljust(8 * size, "0"), 2).to_bytes(size))
