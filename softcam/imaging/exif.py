"""Writes EXIF segments, and inserts them into JPEGs that have none.

A segment has no thumbnail: some stream readers take a second JPEG within the first for a new image. Pure functions.

The tags are defined in https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf.
"""

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from fractions import Fraction
from typing import Any, Final

from softcam import __version__
from softcam.imaging.dng import find_orientation

# Field types of TIFF.
_ASCII: Final = 2
_SHORT: Final = 3
_LONG: Final = 4
_RATIONAL: Final = 5
_UNDEFINED: Final = 7

_ORIENTATION: Final = 0x0112
_EXIF_POINTER: Final = 0x8769
_MAX_LONG: Final = 0xFFFFFFFF  # as the numerator of the subject distance it means infinity
_APP1: Final = b"\xff\xe1"
_HEADER: Final = b"Exif\0\0"
_LITTLE_ENDIAN_TIFF: Final = struct.pack("<2sHI", b"II", 42, 8)  # the first directory follows directly

_Field = tuple[int, int, int, bytes]  # tag, type, count, value


def exif_segment(
    *,
    taken_at_s: float | None = None,
    size: tuple[int, int] | None = None,
    exposure_us: float | None = None,
    gain: float | None = None,
    lens_dioptres: float | None = None,
    model: str | None = None,
    make: str | None = None,
    orientation: int = 1,
    timezone: tzinfo | None = None,
) -> bytes:
    """An APP1 segment for a JPEG; a field whose value is None is omitted.

    `taken_at_s` is Unix time, written as local time with its offset, in `timezone` or that of this machine; `gain` is
    the total gain, 1.0 written as ISO 100; `lens_dioptres` is LensPosition of libcamera, 0 means infinity;
    `orientation` is that of EXIF, 1 (upright) to 8. Raises ValueError for another orientation.
    """
    if not 1 <= orientation <= 8:
        raise ValueError(f"orientation {orientation}: must be from 1 to 8")
    image = [
        _short(_ORIENTATION, orientation),
        _rational(0x011A, Fraction(72)),  # the resolution is mandatory; 72 per inch stands for unknown
        _rational(0x011B, Fraction(72)),
        _short(0x0128, 2),
        _text(0x0131, f"Soft Stream {__version__}"),
        _short(0x0213, 1),  # chroma samples are centred, as in every JFIF file
    ]
    details: list[_Field] = [
        (0x9000, _UNDEFINED, 4, b"0232"),  # EXIF 2.32
        (0x9101, _UNDEFINED, 4, b"\1\2\3\0"),  # Y, Cb, Cr
        (0xA000, _UNDEFINED, 4, b"0100"),
        _short(0xA001, 1),  # sRGB
    ]
    image += (_text(tag, name) for tag, name in ((0x010F, make), (0x0110, model)) if name is not None)
    if taken_at_s is not None:
        # Rounded first, so that .9999 carries over to the seconds.
        milliseconds = round(taken_at_s * 1000)
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC).astimezone(timezone)
        date = moment.strftime("%Y:%m:%d %H:%M:%S")
        offset = moment.isoformat(timespec="seconds")[19:25]
        fraction = f"{milliseconds % 1000:03d}"
        image.append(_text(0x0132, date))
        details += (_text(tag, date) for tag in (0x9003, 0x9004))
        details += (_text(tag, offset) for tag in (0x9010, 0x9011, 0x9012))
        details += (_text(tag, fraction) for tag in (0x9290, 0x9291, 0x9292))
    if size is not None:
        details += (_long(0xA002, size[0]), _long(0xA003, size[1]))
    if exposure_us is not None and exposure_us > 0:
        details.append(_rational(0x829A, Fraction(round(exposure_us), 1_000_000)))
    if gain is not None and gain > 0:
        details.append(_short(0x8827, min(max(round(gain * 100), 1), 0xFFFF)))
    if lens_dioptres is not None and lens_dioptres >= 0:
        distance_m = None if lens_dioptres == 0 else Fraction(1 / lens_dioptres)
        details.append(_rational(0x9206, distance_m))
    tiff = _directories(image, details)
    # The length includes itself, but not the marker.
    return _APP1 + struct.pack(">H", 2 + len(_HEADER) + len(tiff)) + _HEADER + tiff


def make_of(properties: Mapping[str, Any]) -> str | None:
    """The manufacturer of the camera from libcamera's properties; None if unknown, as for a USB camera.

    A CSI sensor has the property ColorFilterArrangement, by which Picamera2, too, identifies Raspberry Pi cameras.
    """
    return "Raspberry Pi" if "ColorFilterArrangement" in properties else None


def with_exif(jpeg: bytes, segment: bytes) -> bytes:
    """`jpeg` with `segment` as its first one, as EXIF requires. Raises ValueError for anything but a JPEG."""
    if jpeg[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG: must start with FFD8")
    return b"".join((jpeg[:2], segment, jpeg[2:]))


def orientation_of(jpeg: bytes) -> int:
    """The orientation in a JPEG whose first segment is EXIF, as this module writes it; 1, the default, for others."""
    tiff = 4 + 2 + len(_HEADER)  # after the markers of the JPEG and of the segment, and the length
    if jpeg[2:4] != _APP1 or jpeg[6:tiff] != _HEADER:
        return 1
    block = jpeg[tiff : 4 + int.from_bytes(jpeg[4:6], "big")]
    found = find_orientation(block)
    orientation: int = struct.unpack_from(found[1], block, found[0])[0] if found else 1
    return orientation if 1 <= orientation <= 8 else 1


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """`jpeg` with this EXIF orientation; unchanged for 1, the default. Raises ValueError for anything but a JPEG."""
    return jpeg if orientation == 1 else with_exif(jpeg, exif_segment(orientation=orientation))


def _text(tag: int, text: str) -> _Field:
    # EXIF strings are ASCII; names from outside are limited to a length that always fits.
    value = text.encode("ascii", "replace")[:255] + b"\0"
    return tag, _ASCII, len(value), value


def _short(tag: int, number: int) -> _Field:
    return tag, _SHORT, 1, struct.pack("<H", number)


def _long(tag: int, number: int) -> _Field:
    return tag, _LONG, 1, struct.pack("<I", number)


def _rational(tag: int, value: Fraction | None) -> _Field:
    """`value`; infinity for None."""
    if value is None or value > _MAX_LONG:
        return tag, _RATIONAL, 1, struct.pack("<II", _MAX_LONG, 1)
    near = value.limit_denominator(1_000_000)  # both parts fit into 32 bits for all values of a camera
    return tag, _RATIONAL, 1, struct.pack("<II", min(near.numerator, _MAX_LONG), near.denominator)


def _directories(image: Sequence[_Field], details: Sequence[_Field]) -> bytes:
    """A TIFF block: the directory of the image, followed by that of the exposure, to which it points."""
    at = len(_LITTLE_ENDIAN_TIFF)
    # The value of the pointer does not change the length of the directory, so a dummy is used to measure it.
    details_at = at + len(_directory([*image, _long(_EXIF_POINTER, 0)], at))
    first = _directory([*image, _long(_EXIF_POINTER, details_at)], at)
    return _LITTLE_ENDIAN_TIFF + first + _directory(details, details_at)


def _directory(fields: Sequence[_Field], at: int) -> bytes:
    """One directory at offset `at` of the block, followed by its values."""
    entries = []
    values = b""
    values_at = at + 2 + 12 * len(fields) + 4
    for tag, kind, count, value in sorted(fields):  # in ascending order, as TIFF requires
        if len(value) <= 4:
            content = value.ljust(4, b"\0")
        else:
            content = struct.pack("<I", values_at + len(values))
            values += value + b"\0" * (len(value) % 2)  # each value starts at an even offset
        entries.append(struct.pack("<HHI", tag, kind, count) + content)
    return struct.pack("<H", len(fields)) + b"".join(entries) + struct.pack("<I", 0) + values
