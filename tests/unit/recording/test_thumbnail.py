"""Thumbnails of recordings: size and orientation."""

import io

import pytest
from PIL import Image

from softcam.imaging import jpeg
from softcam.imaging.exif import with_orientation
from softcam.recording import thumbnail
from tests.support.fakes import make_frame
from tests.support.h264_samples import numbered_frame

SMALL = jpeg.encode(make_frame(size=(32, 16)), None, 80)


def test_thumbnails_are_small() -> None:
    large = jpeg.encode(numbered_frame(3, (1536, 864)), None, 90)
    small = thumbnail.of_jpeg(large)
    assert jpeg.size_of(small) == (320, 180)
    assert len(small) < 30_000
    assert jpeg.size_of(thumbnail.of_jpeg(SMALL)) == (32, 16)


@pytest.mark.parametrize("size", [(640, 360), (64, 36)])
def test_thumbnail_keeps_orientation(size: tuple[int, int]) -> None:
    turned = with_orientation(jpeg.encode(numbered_frame(3, size), None, 90), 6)
    small = thumbnail.of_jpeg(turned)
    assert Image.open(io.BytesIO(small)).getexif().get(0x0112) == 6
    assert small.count(b"Exif") == 1
