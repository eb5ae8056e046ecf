"""JPEGs decoded with FFmpeg: size, colours, one after the other, and damaged ones."""

import numpy as np
import pytest

from softcam.errors import CameraError
from softcam.imaging import jpeg
from softcam.imaging.frame import Frame
from softcam.imaging.jpeg_decoder import JpegDecoder

GREY = 90


def make_jpeg(size: tuple[int, int] = (64, 48), level: int = GREY) -> bytes:
    width, height = size
    planes = np.full((height, width), level, np.uint8), *(np.full((height // 2, width // 2), 128, np.uint8),) * 2
    return jpeg.encode(Frame(planes, "YUV420", width, height), None, 90)


def test_each_jpeg_is_decoded_at_once() -> None:
    decoder = JpegDecoder()
    for size, level in (((64, 48), 20), ((64, 48), 200), ((128, 32), 90)):
        image = decoder.decode(make_jpeg(size, level))
        assert (image.width, image.height) == size
        assert abs(int(image.to_ndarray(format="gray").mean()) - level) <= 1


@pytest.mark.parametrize("damaged", [b"", b"not a JPEG", make_jpeg()[:100]])
def test_damaged_jpeg_does_not_affect_the_next_one(damaged: bytes) -> None:
    decoder = JpegDecoder()
    with pytest.raises(CameraError, match="JPEG cannot be decoded: "):
        decoder.decode(damaged)
    assert decoder.decode(make_jpeg()).width == 64


def test_decode_yuv420_scales() -> None:
    frame = JpegDecoder().decode_yuv420(make_jpeg((64, 48)), lambda own: (own[0] // 2, own[1] // 2))
    assert (frame.pixel_format, frame.size) == ("YUV420", (32, 24))
    assert [plane.shape for plane in frame.planes] == [(24, 32), (12, 16), (12, 16)]
    assert all(abs(int(plane.mean()) - level) <= 1 for plane, level in zip(frame.planes, (GREY, 128, 128), strict=True))
