"""The orientation in a DNG file, which Picamera2 writes. A DNG is a TIFF. Pure functions; any thread may call them."""

import struct
from typing import Final

_SHORT: Final = 3
_ORIENTATION: Final = 274


def turned(dng: bytes, orientation: int) -> bytes:
    """`dng` with this EXIF `orientation`; unchanged if it has no such field, or is not a TIFF."""
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
        pass  # truncated: another orientation would not help
    return dng
