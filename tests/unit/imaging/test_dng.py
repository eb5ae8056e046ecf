"""The orientation and the description that are written into a DNG."""

import io
import struct

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from softcam.imaging import dng


@pytest.mark.parametrize(
    "picture",
    [b"", b"no TIFF at all", b"II*\0", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\0\0\0\x08\0\0"],
)
def test_other_data_is_returned_unchanged(picture: bytes) -> None:
    assert dng.replace_orientation(picture, 6) == picture
    assert dng.add_description(picture, "door") == picture


@pytest.mark.parametrize(("mark", "order"), [(b"II*\0", "<"), (b"MM\0*", ">")])
def test_orientation_in_both_byte_orders(mark: bytes, order: str) -> None:
    def file(orientation: int) -> bytes:
        fields = ((256, 3, 1, 640, 0), (274, 3, 1, orientation, 0))
        directory = b"".join(struct.pack(f"{order}HHIHH", *field) for field in fields)
        return mark + struct.pack(f"{order}IH", 8, len(fields)) + directory + bytes(4)

    assert dng.replace_orientation(file(1), 6) == file(6)


@pytest.mark.parametrize("name", ["x", "xyz", "Front door", "Gärten 庭"])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("is_replaced", [False, True])
def test_description(name: str, big_endian: bool, is_replaced: bool) -> None:
    pixels = np.arange(48, dtype=">u2" if big_endian else "<u2").reshape(6, 8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(
        written, "TIFF", tiffinfo={274: 1, **({270: "before"} if is_replaced else {})}, big_endian=big_endian
    )
    tiff = written.getvalue()
    described = dng.add_description(tiff, name)
    with Image.open(io.BytesIO(described)) as image, Image.open(written) as before:
        assert isinstance(image, TiffImageFile)
        assert isinstance(before, TiffImageFile)
        fields, others = dict(image.tag_v2), dict(before.tag_v2)
        assert fields.pop(270).encode("latin-1").decode() == name
        assert fields == {tag: value for tag, value in others.items() if tag != 270}
        assert list(image.tag_v2) == sorted(image.tag_v2)
        assert np.array_equal(np.asarray(image), pixels)
    assert dng.find_orientation(dng.replace_orientation(described, 6)) == dng.find_orientation(described)
