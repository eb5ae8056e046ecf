"""The orientation in a TIFF, such as an EXIF block or a DNG, which Picamera2 writes. Pure functions; any thread."""

import struct
from typing import Final

_SHORT: Final = 3
_ORIENTATION: Final = 274


def find_orientation(tiff: bytes) -> tuple[int, str] | None:
    """The position and the `struct` format of that field; None if there is none, or `tiff` is not a TIFF."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        if order is not None:
            (at,) = struct.unpack_from(f"{order}I", tiff, 4)
            (count,) = struct.unpack_from(f"{order}H", tiff, at)
            for entry in range(at + 2, at + 2 + 12 * count, 12):
                if struct.unpack_from(f"{order}HH6x", tiff, entry) == (_ORIENTATION, _SHORT):
                    return entry + 8, f"{order}H"
    except struct.error:
        pass  # truncated: another orientation would not help
    return None


def turned(dng: bytes, orientation: int) -> bytes:
    """`dng` with this EXIF `orientation`; unchanged if it has no such field, or is not a TIFF."""
    found = find_orientation(dng)
    if found is None:
        return dng
    at, layout = found
    return b"".join((dng[:at], struct.pack(layout, orientation), dng[at + 2 :]))
