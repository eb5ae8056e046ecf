"""The EXIF segment, read by Pillow."""

import io
import struct
from datetime import UTC, timedelta, timezone
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import ExifTags, Image

from softcam import __version__
from softcam.imaging.exif import exif_segment, has_exif, make_of, orientation_of, with_exif

JPEG: bytes = simplejpeg.encode_jpeg(np.full((48, 64, 3), 90, np.uint8), quality=80)
# 2023-11-14 22:13:20.25 UTC
TAKEN_AT_S = 1_700_000_000.25


def read(segment: bytes) -> dict[str, Any]:
    """What Pillow finds, by EXIF's names."""
    exif = Image.open(io.BytesIO(with_exif(JPEG, segment))).getexif()
    fields = {ExifTags.TAGS[tag]: value for tag, value in exif.items()}
    fields |= {ExifTags.TAGS[tag]: value for tag, value in exif.get_ifd(ExifTags.IFD.Exif).items()}
    return fields


def test_all_fields() -> None:
    fields = read(
        exif_segment(
            taken_at_s=TAKEN_AT_S,
            size=(64, 48),
            exposure_us=8333,
            gain=2.5,
            lens_dioptres=2.5,
            make="Raspberry Pi",
            model="imx708",
            timezone=timezone(timedelta(hours=5, minutes=30)),
        )
    )
    assert fields["Make"] == "Raspberry Pi"
    assert fields["Model"] == "imx708"
    assert fields["Software"] == f"Soft Stream {__version__}"
    assert fields["Orientation"] == 1
    for name in ("DateTime", "DateTimeOriginal", "DateTimeDigitized"):
        assert fields[name] == "2023:11:15 03:43:20"
    for name in ("OffsetTime", "OffsetTimeOriginal", "OffsetTimeDigitized"):
        assert fields[name] == "+05:30"
    for name in ("SubsecTime", "SubsecTimeOriginal", "SubsecTimeDigitized"):
        assert fields[name] == "250"
    assert float(fields["ExposureTime"]) == pytest.approx(0.008333)
    assert fields["ISOSpeedRatings"] == 250
    assert float(fields["SubjectDistance"]) == pytest.approx(0.4)
    assert (fields["ExifImageWidth"], fields["ExifImageHeight"]) == (64, 48)
    assert fields["ColorSpace"] == 1
    assert fields["ExifVersion"] == b"0232"


def test_mandatory_fields() -> None:
    fields = read(exif_segment())
    assert fields["Orientation"] == 1
    for name in ("Make", "Model", "DateTime", "DateTimeOriginal", "ExposureTime", "ISOSpeedRatings", "SubjectDistance"):
        assert name not in fields
    # No compensation is set, so none is written; a thumbnail would look like a second picture.
    assert "ExposureBiasValue" not in fields
    assert "JpegIFOffset" not in fields


@pytest.mark.parametrize(
    ("taken_at_s", "date", "fraction"),
    [
        (0.0, "1970:01:01 00:00:00", "000"),
        (1_700_000_000.0004, "2023:11:14 22:13:20", "000"),
        (1_700_000_000.0096, "2023:11:14 22:13:20", "010"),
        (1_700_000_000.9996, "2023:11:14 22:13:21", "000"),
    ],
)
def test_milliseconds_carry_over(taken_at_s: float, date: str, fraction: str) -> None:
    fields = read(exif_segment(taken_at_s=taken_at_s, timezone=UTC))
    assert (fields["DateTimeOriginal"], fields["SubsecTimeOriginal"]) == (date, fraction)
    assert fields["OffsetTimeOriginal"] == "+00:00"


def test_negative_time_zone() -> None:
    fields = read(exif_segment(taken_at_s=TAKEN_AT_S, timezone=timezone(-timedelta(hours=3, minutes=30))))
    assert fields["OffsetTimeOriginal"] == "-03:30"
    assert fields["DateTimeOriginal"] == "2023:11:14 18:43:20"


@pytest.mark.parametrize(
    ("dioptres", "fraction"),
    [(0.0, b"\xff\xff\xff\xff\x01\0\0\0"), (10.0, struct.pack("<II", 1, 10)), (1e-12, b"\xff\xff\xff\xff\x01\0\0\0")],
)
def test_subject_distance(dioptres: float, fraction: bytes) -> None:
    assert fraction in exif_segment(lens_dioptres=dioptres)


@pytest.mark.parametrize(("gain", "iso"), [(1.0, 100), (1.123, 112), (16.0, 1600), (1000.0, 65535), (0.001, 1)])
def test_iso(gain: float, iso: int) -> None:
    assert read(exif_segment(gain=gain))["ISOSpeedRatings"] == iso


@pytest.mark.parametrize("exposure_us", [1, 33_333, 999_999, 112_000_000, 6_000_000.4])
def test_exposure(exposure_us: float) -> None:
    assert float(read(exif_segment(exposure_us=exposure_us))["ExposureTime"]) == pytest.approx(exposure_us / 1e6, 1e-6)


@pytest.mark.parametrize("exposure_us", [0xD8FF, 0xD9FF, 0x8D8FF, 0xD8FF << 8 | 1, 0xFFD9FF, 0xD9FF * 1_000_000])
def test_no_marker_in_exposure(exposure_us: int) -> None:
    segment = exif_segment(exposure_us=exposure_us)
    assert b"\xff\xd8" not in segment
    assert b"\xff\xd9" not in segment
    assert float(read(segment)["ExposureTime"]) == pytest.approx(exposure_us / 1e6, 1e-4)


@pytest.mark.parametrize("values", [{"exposure_us": 0}, {"gain": 0.0}, {"lens_dioptres": -1.0}])
def test_meaningless_values_are_omitted(values: dict[str, Any]) -> None:
    assert exif_segment(**values) == exif_segment()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int) -> None:
    assert read(exif_segment(orientation=orientation))["Orientation"] == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_of(orientation: int) -> None:
    segment = exif_segment(taken_at_s=1.0, make="M", model="N", orientation=orientation)
    assert orientation_of(with_exif(JPEG, segment)) == orientation


def test_default_orientation() -> None:
    turned = with_exif(JPEG, exif_segment(orientation=6))
    for length in range(60):
        assert orientation_of(turned[:length]) in (1, 6)
    segment = exif_segment(orientation=6)
    foreign = with_exif(
        JPEG, segment.replace(struct.pack("<HHIH", 0x0112, 3, 1, 6), struct.pack("<HHIH", 0x0112, 3, 1, 99))
    )
    assert orientation_of(foreign) == orientation_of(JPEG) == 1


@pytest.mark.parametrize("orientation", [0, 9])
def test_invalid_orientation(orientation: int) -> None:
    with pytest.raises(ValueError, match="must be from 1 to 8"):
        exif_segment(orientation=orientation)


def test_manufacturer_of_csi_sensor() -> None:
    assert make_of({"Model": "imx708", "ColorFilterArrangement": 0}) == "Raspberry Pi"
    assert make_of({"Model": "C270 HD WEBCAM"}) is None


def test_short_and_long_texts() -> None:
    assert read(exif_segment(model="v2"))["Model"] == "v2"
    assert len(exif_segment(model="x" * 100_000)) < 1000
    cut = read(exif_segment(model="x" + "é" * 200))["Model"]
    assert cut.encode("latin-1").decode() == "x" + "é" * 127  # between two characters


def test_rest_of_the_jpeg_is_unchanged() -> None:
    segment = exif_segment(taken_at_s=TAKEN_AT_S)
    jpeg = with_exif(JPEG, segment)
    assert jpeg[:2] == JPEG[:2]
    assert jpeg[2 : 2 + len(segment)] == segment
    assert jpeg[2 + len(segment) :] == JPEG[2:]
    assert np.array_equal(simplejpeg.decode_jpeg(jpeg), simplejpeg.decode_jpeg(JPEG))


def test_segment_length() -> None:
    segment = exif_segment(model="imx708")
    assert segment[:2] == b"\xff\xe1"
    assert int.from_bytes(segment[2:4], "big") == len(segment) - 2


def test_invalid_jpeg() -> None:
    with pytest.raises(ValueError, match="FFD8"):
        with_exif(b"\x89PNG", exif_segment())


@pytest.mark.parametrize("name", ["Front door", "Gärten 庭 🐦", "\U0010ffff" * 64, "ÿØÿÙ"])
def test_description_is_utf_8(name: str) -> None:
    segment = exif_segment(description=name, model="imx708", make="Raspberry Pi", size=(64, 48), gain=2.0)
    fields = read(segment)
    assert fields["ImageDescription"].encode("latin-1").decode() == name  # Pillow reads the type ASCII as Latin-1
    assert (fields["Model"], fields["ISOSpeedRatings"]) == ("imx708", 200)
    assert b"\xff\xd8" not in segment
    assert b"\xff\xd9" not in segment


def test_has_exif() -> None:
    assert not has_exif(JPEG)
    assert has_exif(with_exif(JPEG, exif_segment()))
