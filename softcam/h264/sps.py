"""Rewrites a sequence parameter set so that it says which colours the pictures have. Pure functions; any thread.

The syntax is ITU-T H.264, 7.3.2.1.1 and E.1.1. An encoder in hardware says nothing of colours, or what it takes for
usual, and players then show full-range pictures with too much contrast.
"""

from typing import Final

from softcam.h264.x264 import COLOUR_MATRIX, COLOUR_PRIMARIES, COLOUR_TRANSFER

# Profiles whose sets have more fields before the first one of all others.
_HIGH: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
_UNSPECIFIED_FORMAT: Final = 5
_OWN_RATIO: Final = 255


class _Bits:
    """Reads bits, and keeps what was read for the copy."""

    def __init__(self, data: bytes) -> None:
        self._bits = "".join(f"{byte:08b}" for byte in data)
        self.at = 0

    def read(self, count: int) -> int:
        end = self.at + count
        if end > len(self._bits):
            raise ValueError("a parameter set that is cut off")
        value = int(self._bits[self.at : end] or "0", 2)
        self.at = end
        return value

    def number(self) -> int:
        """An Exp-Golomb code, ue(v); of se(v), too, where only its length matters."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def between(self, begin: int, end: int | None = None) -> str:
        return self._bits[begin:end]


def with_colours(sps: bytes) -> bytes:
    """The set with full-range BT.601 of sRGB in it, as a JPEG has it. Raises ValueError for what is no such set."""
    bits = _Bits(sps.replace(b"\x00\x00\x03", b"\x00\x00"))
    frames = _skip_to_vui(bits)
    before = bits.at
    parts = [bits.between(0, before), "1"]
    if bits.read(1):
        begin = bits.at
        if bits.read(1) and bits.read(8) == _OWN_RATIO:
            bits.read(32)
        if bits.read(1):  # overscan
            bits.read(1)
        parts.append(bits.between(begin, bits.at))
        if bits.read(1):
            bits.read(4)
            if bits.read(1):
                bits.read(24)
        rest = bits.between(bits.at)
    else:
        # Neither its place of chroma, nor a clock, nor buffers; but that no picture waits for a later one, without
        # which a decoder may hold back as many as there are references.
        parts.append("00")
        rest = "00000" + "1" + "1" + _code(0) * 2 + _code(15) * 2 + _code(0) + _code(frames) + "1"
    description = f"{COLOUR_PRIMARIES:08b}{COLOUR_TRANSFER:08b}{COLOUR_MATRIX:08b}"
    parts += ["1", f"{_UNSPECIFIED_FORMAT:03b}", "1", "1", description, rest]
    return _escaped("".join(parts))


def _skip_to_vui(bits: _Bits) -> int:
    """Up to vui_parameters_present_flag; the number of reference frames."""
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
            raise ValueError("a parameter set with scaling lists")
    bits.number()
    order = bits.number()
    if order == 0:
        bits.number()
    elif order == 1:
        raise ValueError("a parameter set with an order of its own")
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


def _code(number: int) -> str:
    """ue(v)."""
    digits = f"{number + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _escaped(bits: str) -> bytes:
    """Bytes of a NAL unit, in which no start code may appear; zeros after the last one bit fill the last byte."""
    bits = bits.rstrip("0")
    raw = bytes(int(bits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(bits), 8))
    out = bytearray()
    zeros = 0
    for byte in raw:
        if zeros == 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)
