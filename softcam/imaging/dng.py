"""Writes a DNG file of the pattern camera: the mosaic that a sensor would have seen. numpy only; any thread may call.

A real camera's DNG is written by Picamera2, and only `turned` here. This one lets programs that fetch raw pictures be
tried without one. A DNG is a TIFF with one directory; Adobe's "Digital Negative Specification 1.4" says which tags it
must have.
"""

import struct
from typing import Final

import numpy as np

from softcam.imaging.frame import Frame

_BYTE: Final = 1
_ASCII: Final = 2
_SHORT: Final = 3
_LONG: Final = 4
_SIGNED_RATIONAL: Final = 10
_HEADER_BYTES: Final = 8
_BITS: Final = 16
_WHITE: Final = 0xFFFF
_ORIENTATION: Final = 274
_COLOUR_FILTER_ARRAY: Final = 32803
_D65: Final = 21
# From CIE XYZ to linear sRGB, which the pattern is painted in.
_FROM_XYZ: Final = (32406, -15372, -4986, -9689, 18758, 415, 557, -2040, 10570)

_Field = tuple[int, int, int, bytes]  # tag, type, count, value


def mosaic_of(frame: Frame, model: str) -> bytes:
    """A DNG of a YUV420 frame, RGGB, 16 bits, as of a Raspberry Pi camera with the sensor `model`.

    Raises ValueError for a frame of another format.
    """
    if frame.pixel_format != "YUV420":
        raise ValueError(f"a frame of YUV420 is wanted, not {frame.pixel_format}")
    return _file(_mosaic(frame), model)


def turned(dng: bytes, orientation: int) -> bytes:
    """`dng` for viewers to turn as EXIF's `orientation` says; as it is where it has no such field, or is no TIFF."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(dng[:4])
    try:
        if order is None:
            return dng
        (at,) = struct.unpack_from(f"{order}I", dng, 4)
        (count,) = struct.unpack_from(f"{order}H", dng, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", dng, entry)
            if (tag, kind) == (_ORIENTATION, _SHORT):
                return b"".join((dng[: entry + 8], struct.pack(f"{order}H", orientation), dng[entry + 10 :]))
    except struct.error:
        pass  # cut off: no better with another orientation
    return dng


def _mosaic(frame: Frame) -> np.ndarray[tuple[int, int], np.dtype[np.uint16]]:
    """What each pixel of a Bayer sensor sees, linear: red, green / green, blue."""
    luma, u, v = frame.planes
    height, width = luma.shape[0] // 2 * 2, luma.shape[1] // 2 * 2
    linear = np.round(np.linspace(0, 1, 256) ** 2.2 * _WHITE).astype(np.uint16)
    cb = u[: height // 2, : width // 2].astype(np.int32) - 128
    cr = v[: height // 2, : width // 2].astype(np.int32) - 128
    more = {"red": (359 * cr) >> 8, "green": -((88 * cb + 183 * cr) >> 8), "blue": (454 * cb) >> 8}
    mosaic = np.empty((height, width), np.uint16)
    for down, across, colour in ((0, 0, "red"), (0, 1, "green"), (1, 0, "green"), (1, 1, "blue")):
        grey = luma[down:height:2, across:width:2].astype(np.int32)
        mosaic[down::2, across::2] = linear[np.clip(grey + more[colour], 0, 255)]
    return mosaic


def _file(mosaic: np.ndarray[tuple[int, int], np.dtype[np.uint16]], model: str) -> bytes:
    height, width = mosaic.shape
    name = model.encode("ascii", "replace")[:63] + b"\0"
    make = b"Raspberry Pi\0"
    fields: list[_Field] = [
        (254, _LONG, 1, struct.pack("<I", 0)),  # the main picture
        (256, _LONG, 1, struct.pack("<I", width)),
        (257, _LONG, 1, struct.pack("<I", height)),
        (258, _SHORT, 1, struct.pack("<H", _BITS)),
        (259, _SHORT, 1, struct.pack("<H", 1)),  # not compressed
        (262, _SHORT, 1, struct.pack("<H", _COLOUR_FILTER_ARRAY)),
        (271, _ASCII, len(make), make),
        (272, _ASCII, len(name), name),
        (273, _LONG, 1, struct.pack("<I", 0)),  # where the pixels are, filled in below
        (_ORIENTATION, _SHORT, 1, struct.pack("<H", 1)),
        (277, _SHORT, 1, struct.pack("<H", 1)),
        (278, _LONG, 1, struct.pack("<I", height)),
        (279, _LONG, 1, struct.pack("<I", mosaic.nbytes)),
        (284, _SHORT, 1, struct.pack("<H", 1)),
        (33421, _SHORT, 2, struct.pack("<2H", 2, 2)),
        (33422, _BYTE, 4, bytes((0, 1, 1, 2))),  # red, green, green, blue
        (50706, _BYTE, 4, bytes((1, 4, 0, 0))),
        (50707, _BYTE, 4, bytes((1, 1, 0, 0))),
        (50708, _ASCII, len(name), name),
        (50717, _LONG, 1, struct.pack("<I", _WHITE)),
        (50721, _SIGNED_RATIONAL, 9, b"".join(struct.pack("<2i", part, 10_000) for part in _FROM_XYZ)),
        (50778, _SHORT, 1, struct.pack("<H", _D65)),
    ]
    directory_bytes = 2 + 12 * len(fields) + 4
    values_at = _HEADER_BYTES + directory_bytes
    pixels_at = values_at + sum(len(value) + len(value) % 2 for *_, value in fields if len(value) > 4)
    entries, values = b"", b""
    for tag, kind, count, value in fields:
        if tag == 273:
            place = struct.pack("<I", pixels_at)
        elif len(value) <= 4:
            place = value.ljust(4, b"\0")
        else:
            place = struct.pack("<I", values_at + len(values))
            values += value + b"\0" * (len(value) % 2)
        entries += struct.pack("<HHI", tag, kind, count) + place
    head = struct.pack("<2sHI", b"II", 42, _HEADER_BYTES) + struct.pack("<H", len(fields)) + entries
    return b"".join((head, struct.pack("<I", 0), values, mosaic.astype("<u2").tobytes()))
