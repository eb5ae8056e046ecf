"""Writes EXIF segments, and inserts them into JPEGs that have none.

A segment has no thumbnail: some stream readers take a second JPEG within the first for a new image. Nor does any number
in it look like a marker, such as an exposure of 55551 us, FFD8. Pure functions; any thread.

The tags are defined in https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf. Text has the type ASCII and
is UTF-8, as the Metadata Working Group's guidelines recommend and ExifTool, Exiv2 and photo programs read it; few read
the type UTF-8 of EXIF 3.0. Pillow reads the type ASCII as Latin-1.
"""

import struct
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from fractions import Fraction
from typing import Any, Final

from softcam import __version__
from softcam.imaging.dng import find_orientation
from softcam.imaging.jpeg import without_markers

_DESCRIPTION: Final = 0x010E
_ORIENTATION: Final = 0x0112
_EXIF_POINTER: Final = 0x8769
_WIDTH, _HEIGHT = 0xA002, 0xA003
_LONG_TAGS: Final = frozenset({_EXIF_POINTER, _WIDTH, _HEIGHT})  # other integers have 16 bits
_MAX_LONG: Final = 0xFFFFFFFF  # as the numerator of the subject distance it means infinity
_APP1: Final = b"\xff\xe1"
_HEADER: Final = b"Exif\0\0"
_MAX_SEGMENT_BYTES: Final = 0x10000
_LITTLE_ENDIAN_TIFF: Final = struct.pack("<2sHI", b"II", 42, 8)  # the first directory follows directly

# The fields of a directory, by tag: text, number, ratio, or bytes of the type UNDEFINED.
_Fields = dict[int, str | int | Fraction | bytes]


def exif_segment(
    *,
    taken_at_s: float | None = None,
    size: tuple[int, int] | None = None,
    exposure_us: float | None = None,
    gain: float | None = None,
    lens_dioptres: float | None = None,
    model: str | None = None,
    make: str | None = None,
    description: str | None = None,
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
    image: _Fields = {
        _ORIENTATION: orientation,
        0x011A: Fraction(72),  # the resolution is mandatory; 72 per inch stands for unknown
        0x011B: Fraction(72),
        0x0128: 2,
        0x0131: f"Soft Stream {__version__}",
        0x0213: 1,  # chroma samples are centred, as in every JFIF file
    }
    details: _Fields = {
        0x9000: b"0232",  # EXIF 2.32
        0x9101: b"\1\2\3\0",  # Y, Cb, Cr
        0xA000: b"0100",
        0xA001: 1,  # sRGB
    }
    texts = {_DESCRIPTION: description, 0x010F: make, 0x0110: model}
    image |= {tag: text for tag, text in texts.items() if text is not None}
    if taken_at_s is not None:
        # Rounded first, so that .9999 carries over to the seconds.
        milliseconds = round(taken_at_s * 1000)
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC).astimezone(timezone)
        date = moment.strftime("%Y:%m:%d %H:%M:%S")
        image[0x0132] = date
        details |= dict.fromkeys((0x9003, 0x9004), date)
        details |= dict.fromkeys((0x9010, 0x9011, 0x9012), moment.isoformat(timespec="seconds")[19:25])
        details |= dict.fromkeys((0x9290, 0x9291, 0x9292), f"{milliseconds % 1000:03d}")
    if size is not None:
        details[_WIDTH], details[_HEIGHT] = size
    if exposure_us is not None and exposure_us > 0:
        details[0x829A] = Fraction(round(exposure_us), 1_000_000)
    if gain is not None and gain > 0:
        details[0x8827] = min(max(round(gain * 100), 1), 0xFFFF)
    if lens_dioptres is not None and lens_dioptres >= 0:
        details[0x9206] = Fraction(1 / lens_dioptres) if lens_dioptres else Fraction(_MAX_LONG)
    tiff = without_markers(_directories(image, details))
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


def has_exif(jpeg: bytes) -> bool:
    """Whether a JPEG has an EXIF segment."""
    return _HEADER in jpeg[:_MAX_SEGMENT_BYTES]


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


def _directories(image: _Fields, details: _Fields) -> bytes:
    """A TIFF block: the directory of the image, followed by that of the exposure, to which it points."""
    at = len(_LITTLE_ENDIAN_TIFF)
    # The value of the pointer does not change the length of the directory, so a dummy is used to measure it.
    details_at = at + len(_directory(image | {_EXIF_POINTER: 0}, at))
    first = _directory(image | {_EXIF_POINTER: details_at}, at)
    return _LITTLE_ENDIAN_TIFF + first + _directory(details, details_at)


def _directory(fields: _Fields, at: int) -> bytes:
    """One directory at offset `at` of the block, followed by its values."""
    entries = []
    values = b""
    values_at = at + 2 + 12 * len(fields) + 4
    for tag in sorted(fields):  # in ascending order, as TIFF requires
        kind, count, value = _encoded(tag, fields[tag])
        if len(value) <= 4:
            content = value.ljust(4, b"\0")
        else:
            content = struct.pack("<I", values_at + len(values))
            values += value + b"\0" * (len(value) % 2)  # each value starts at an even offset
        entries.append(struct.pack("<HHI", tag, kind, count) + content)
    return struct.pack("<H", len(fields)) + b"".join(entries) + struct.pack("<I", 0) + values


def _encoded(tag: int, value: str | int | Fraction | bytes) -> tuple[int, int, bytes]:
    """The type in TIFF, the count and the bytes."""
    match value:
        case str():
            # Texts from outside are limited to a length that always fits.
            text = value.encode("utf-8", "replace")[:256].decode("utf-8", "ignore").encode() + b"\0"
            return 2, len(text), text
        case int() if tag in _LONG_TAGS:
            return 4, 1, struct.pack("<I", value)
        case int():
            return 3, 1, struct.pack("<H", value)
        case Fraction():
            value = min(value, Fraction(_MAX_LONG))
            # Both parts have to fit into 32 bits.
            near = value.limit_denominator(max(1, min(1_000_000, _MAX_LONG // (int(value) + 1))))
            return 5, 1, struct.pack("<II", near.numerator, near.denominator)
    return 7, len(value), value
