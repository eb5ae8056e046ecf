"""Fields of a TIFF, such as an EXIF block or a DNG, which Picamera2 writes. Pure functions; any thread."""

import struct
from typing import Final

_ORDERS: Final = {b"II*\0": "<", b"MM\0*": ">"}  # of bytes, by the first four
_ASCII: Final = 2
_SHORT: Final = 3
_DESCRIPTION: Final = 270
_ORIENTATION: Final = 274
_ENTRY_BYTES: Final = 12


def find_orientation(tiff: bytes) -> tuple[int, str] | None:
    """The position and the `struct` format of that field; None if there is none, or `tiff` is not a TIFF."""
    order = _ORDERS.get(tiff[:4])
    try:
        if order is not None:
            (at,) = struct.unpack_from(f"{order}I", tiff, 4)
            (count,) = struct.unpack_from(f"{order}H", tiff, at)
            for entry in range(at + 2, at + 2 + _ENTRY_BYTES * count, _ENTRY_BYTES):
                if struct.unpack_from(f"{order}HH6x", tiff, entry) == (_ORIENTATION, _SHORT):
                    return entry + 8, f"{order}H"
    except struct.error:
        pass  # truncated: another orientation would not help
    return None


def replace_orientation(dng: bytes, orientation: int) -> bytes:
    """`dng` with this EXIF `orientation`; unchanged if it has no such field, or is not a TIFF."""
    found = find_orientation(dng)
    if found is None:
        return dng
    at, layout = found
    return b"".join((dng[:at], struct.pack(layout, orientation), dng[at + 2 :]))


def add_description(dng: bytes, text: str) -> bytes:
    """`dng` with this description, in UTF-8; unchanged if it is not a TIFF.

    A directory has no room for another field, so it is written once more at the end of the file.
    """
    order = _ORDERS.get(dng[:4])
    if order is None:
        return dng
    try:
        (at,) = struct.unpack_from(f"{order}I", dng, 4)
        (count,) = struct.unpack_from(f"{order}H", dng, at)
        end = at + 2 + _ENTRY_BYTES * count
        (next_at,) = struct.unpack_from(f"{order}I", dng, end)
        entries = {
            struct.unpack_from(f"{order}H", dng, entry): dng[entry : entry + _ENTRY_BYTES]
            for entry in range(at + 2, end, _ENTRY_BYTES)
        }
    except struct.error:  # truncated
        return dng
    value = text.encode("utf-8", "replace") + b"\0"
    padding = bytes(len(dng) % 2)  # each value and directory starts at an even offset
    value_at = len(dng) + len(padding)
    directory_at = value_at + len(value) + len(value) % 2
    placed = struct.pack(f"{order}I", value_at) if len(value) > 4 else value.ljust(4, b"\0")
    entries[(_DESCRIPTION,)] = struct.pack(f"{order}HHI", _DESCRIPTION, _ASCII, len(value)) + placed
    return b"".join(
        (
            dng[:4],
            struct.pack(f"{order}I", directory_at),
            dng[8:],
            padding,
            value.ljust(directory_at - value_at, b"\0"),
            struct.pack(f"{order}H", len(entries)),
            *(entry for _, entry in sorted(entries.items())),
            struct.pack(f"{order}I", next_at),
        )
    )
