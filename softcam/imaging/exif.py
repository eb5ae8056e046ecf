"""What a still says about itself: an EXIF block of our own, put into a JPEG that has none.

The block is written byte by byte, without a thumbnail: some viewers take a second JPEG inside the first for a new
picture. Plain values come in and bytes go out; any thread may call.

https://www.cipa.jp/std/documents/e/DC-X008-Translation-2019-E.pdf says what the tags are.
"""

import struct
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from fractions import Fraction
from typing import Any, Final

from softcam import __version__

# TIFF's field types: the number, and how many bytes one value takes.
_ASCII: Final = 2
_SHORT: Final = 3
_LONG: Final = 4
_RATIONAL: Final = 5
_UNDEFINED: Final = 7

_ORIENTATION: Final = 0x0112
_POINTER_TO_EXIF: Final = 0x8769
_LONGEST: Final = 0xFFFFFFFF  # a rational with this numerator is "infinity" where the subject's distance is told
_HEADER: Final = b"Exif\0\0"
_LITTLE_ENDIAN_TIFF: Final = struct.pack("<2sHI", b"II", 42, 8)  # the first directory follows right behind

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
    """An APP1 segment for a JPEG, from what is known; None leaves a field out.

    `taken_at_s` is Unix time and is told as local time with its offset, of `timezone` or of this machine; `gain` is
    the whole gain, 1.0 counting as ISO 100; `lens_dioptres` is libcamera's LensPosition, 0 being infinity;
    `orientation` is EXIF's, 1 (upright) to 8. Raises ValueError for another orientation.
    """
    if not 1 <= orientation <= 8:
        raise ValueError(f"orientation must be 1 to 8, not {orientation}")
    image = [
        _short(_ORIENTATION, orientation),
        _rational(0x011A, Fraction(72)),  # the resolution must be told; 72 per inch is EXIF's "not known"
        _rational(0x011B, Fraction(72)),
        _short(0x0128, 2),
        _text(0x0131, f"Soft Stream {__version__}"),
        _short(0x0213, 1),  # chroma lies in the middle of its pixels, as in every JFIF file
    ]
    details: list[_Field] = [
        (0x9000, _UNDEFINED, 4, b"0232"),  # EXIF 2.32
        (0x9101, _UNDEFINED, 4, b"\1\2\3\0"),  # Y, Cb, Cr
        (0xA000, _UNDEFINED, 4, b"0100"),
        _short(0xA001, 1),  # sRGB
    ]
    if make is not None:
        image.append(_text(0x010F, make))
    if model is not None:
        image.append(_text(0x0110, model))
    if taken_at_s is not None:
        # Rounded first, so that .9999 carries into the seconds.
        milliseconds = round(taken_at_s * 1000)
        moment = datetime.fromtimestamp(milliseconds // 1000, UTC).astimezone(timezone)
        date = moment.strftime("%Y:%m:%d %H:%M:%S")
        offset = moment.isoformat(timespec="seconds")[19:25]
        fraction = f"{milliseconds % 1000:03d}"
        image.append(_text(0x0132, date))
        for tags, text in (
            ((0x9003, 0x9004), date),
            ((0x9010, 0x9011, 0x9012), offset),
            ((0x9290, 0x9291, 0x9292), fraction),
        ):
            details += (_text(tag, text) for tag in tags)
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
    # The length counts itself and not the marker.
    return b"\xff\xe1" + struct.pack(">H", 2 + len(_HEADER) + len(tiff)) + _HEADER + tiff


def make_of(properties: Mapping[str, Any]) -> str | None:
    """Who made the camera, by libcamera's properties; None for one that does not say so, as a USB camera.

    A sensor on the ribbon tells the arrangement of its colour filters, by which Picamera2 knows Raspberry Pi's cameras.
    """
    return "Raspberry Pi" if "ColorFilterArrangement" in properties else None


def with_exif(jpeg: bytes, segment: bytes) -> bytes:
    """`jpeg` with `segment` as its first one, where EXIF wants it. Raises ValueError for what is no JPEG."""
    if jpeg[:2] != b"\xff\xd8":
        raise ValueError("a JPEG begins with FFD8")
    return b"".join((jpeg[:2], segment, jpeg[2:]))


def orientation_of(jpeg: bytes) -> int:
    """What a JPEG with a block of ours says of itself; 1, the usual one, where it has none."""
    at = 12  # of the TIFF block: behind the beginning, the marker and length of the first segment, and its header
    if jpeg[2:4] != b"\xff\xe1" or jpeg[6:at] != _HEADER or jpeg[at : at + 8] != _LITTLE_ENDIAN_TIFF:
        return 1
    begin, count = at + 10, int.from_bytes(jpeg[at + 8 : at + 10], "little")
    for place in range(begin, min(begin + 12 * count, len(jpeg) - 11), 12):
        tag, orientation = struct.unpack_from("<H6xH", jpeg, place)
        if tag == _ORIENTATION:
            return orientation if 1 <= orientation <= 8 else 1
    return 1


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """`jpeg` with this EXIF orientation; as it is for 1, the usual one. Raises ValueError for what is no JPEG."""
    return jpeg if orientation == 1 else with_exif(jpeg, exif_segment(orientation=orientation))


def _text(tag: int, text: str) -> _Field:
    # ASCII is what EXIF knows; names from elsewhere are cut to what a block surely holds.
    value = text.encode("ascii", "replace")[:255] + b"\0"
    return tag, _ASCII, len(value), value


def _short(tag: int, number: int) -> _Field:
    return tag, _SHORT, 1, struct.pack("<H", number)


def _long(tag: int, number: int) -> _Field:
    return tag, _LONG, 1, struct.pack("<I", number)


def _rational(tag: int, value: Fraction | None) -> _Field:
    """`value`, or infinity for None."""
    if value is None or value > _LONGEST:
        return tag, _RATIONAL, 1, struct.pack("<II", _LONGEST, 1)
    near = value.limit_denominator(1_000_000)  # both parts fit 32 bits for anything that a camera does
    return tag, _RATIONAL, 1, struct.pack("<II", min(near.numerator, _LONGEST), near.denominator)


def _directories(image: Sequence[_Field], details: Sequence[_Field]) -> bytes:
    """A TIFF block: the directory of the picture, and behind it the one of the exposure, to which it points."""
    at = len(_LITTLE_ENDIAN_TIFF)
    # The pointer's value does not change the directory's length, so it is measured with a wrong one first.
    length = len(_directory([*image, _long(_POINTER_TO_EXIF, 0)], at))
    first = _directory([*image, _long(_POINTER_TO_EXIF, at + length)], at)
    return _LITTLE_ENDIAN_TIFF + first + _directory(details, at + length)


def _directory(fields: Sequence[_Field], at: int) -> bytes:
    """One directory that stands at offset `at` of the block, its values behind it."""
    entries = []
    values = b""
    values_at = at + 2 + 12 * len(fields) + 4
    for tag, kind, count, value in sorted(fields):  # in rising order, as TIFF demands
        if len(value) <= 4:
            place = value.ljust(4, b"\0")
        else:
            place = struct.pack("<I", values_at + len(values))
            values += value + b"\0" * (len(value) % 2)  # each value starts at an even offset
        entries.append(struct.pack("<HHI", tag, kind, count) + place)
    return struct.pack("<H", len(fields)) + b"".join(entries) + struct.pack("<I", 0) + values
