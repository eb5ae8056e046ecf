"""The DNG's orientation is written into the file; what a stranger reads is tried in tests/process."""

import struct

import pytest

from softcam.imaging import dng
from tests.support.fakes import make_frame


def _orientation(picture: bytes) -> int:
    (at,) = struct.unpack_from("<I", picture, 4)
    (count,) = struct.unpack_from("<H", picture, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from("<HHIH", picture, entry)
        if tag == 274:
            return int(value)
    raise AssertionError("no orientation")


def test_a_turned_picture_differs_in_its_orientation_alone() -> None:
    picture = dng.mosaic_of(make_frame(), "imx708")
    assert b"Raspberry Pi\0" in picture
    assert b"imx708\0" in picture
    assert _orientation(picture) == 1
    turned = dng.turned(picture, 6)
    assert _orientation(turned) == 6
    assert len(turned) == len(picture)
    assert dng.turned(turned, 1) == picture


@pytest.mark.parametrize(
    "picture",
    [b"", b"no TIFF at all", b"II*\0", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\0\0\0\x08\0\0"],
)
def test_what_is_none_stays_as_it_is(picture: bytes) -> None:
    assert dng.turned(picture, 6) == picture


def test_of_another_byte_order() -> None:
    picture = b"MM\0*" + struct.pack(">IHHHIH", 8, 1, 274, 3, 1, 1) + bytes(6)
    assert dng.turned(picture, 6)[18:20] == b"\0\6"
