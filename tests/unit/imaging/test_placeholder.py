"""The image that stream clients get while there are no frames."""

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg

from softcam.imaging.jpeg import size_of
from softcam.imaging.placeholder import placeholder

LINES = ("Recovering camera 0", "no frame came for 10 s; the stream is restarted")


def grey(jpeg: bytes) -> npt.NDArray[np.uint8]:
    picture: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, "GRAY")
    return picture[:, :, 0]


def lit_box(picture: npt.NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of what is bright."""
    rows, columns = np.nonzero(picture > 110)
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


@pytest.mark.parametrize("size", [(1920, 1080), (1536, 864), (640, 360), (480, 640), (320, 241), (101, 77), (64, 64)])
def test_dark_image_with_centred_text(size: tuple[int, int]) -> None:
    jpeg = placeholder(size, LINES)
    assert size_of(jpeg) == size
    picture = grey(jpeg)
    assert np.median(picture) < 50
    left, top, right, bottom = lit_box(picture)
    width, height = size
    assert right - left > width * 0.3
    # Within the room for text, and in the middle to a line's and a letter's width.
    assert left >= width * 0.04
    assert right <= width * 0.96
    assert top >= height * 0.04
    assert bottom <= height * 0.96
    assert abs((left + right) / 2 - width / 2) <= width * 0.06
    assert abs((top + bottom) / 2 - height / 2) <= height * 0.1


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 200), (200, 3), (16, 16)])
def test_tiny_sizes(size: tuple[int, int]) -> None:
    assert size_of(placeholder(size, LINES)) == size


def test_encoded_like_the_stream() -> None:
    """A decoder that was set up for colour frames is not made to change over."""
    assert simplejpeg.decode_jpeg_header(placeholder((640, 360), LINES))[2:] == ("YCbCr", "420")


def test_words_are_not_split_if_they_fit() -> None:
    """A long word makes the letters smaller; so the text is lower than with short ones."""
    short = lit_box(grey(placeholder((480, 640), ("camera",))))
    long = lit_box(grey(placeholder((480, 640), ("c" * 40,))))
    assert long[3] - long[1] < short[3] - short[1]
    assert long[2] - long[0] > 480 * 0.4


def test_address_is_split() -> None:
    """Its letters keep their size, in two lines."""
    one = lit_box(grey(placeholder((640, 360), ("c" * 40,))))
    two = lit_box(grey(placeholder((640, 360), ("c" * 80,))))
    assert two[3] - two[1] > 2 * (one[3] - one[1])


def test_long_lines_are_wrapped() -> None:
    one = lit_box(grey(placeholder((640, 360), ("word",))))
    many = lit_box(grey(placeholder((640, 360), ("word " * 40,))))
    assert many[3] - many[1] > 3 * (one[3] - one[1])


@pytest.mark.parametrize("lines", [(), ("",), ("", ""), ("   ",)])
def test_empty_lines(lines: tuple[str, ...]) -> None:
    picture = grey(placeholder((320, 240), lines))
    assert int(picture.max()) - int(picture.min()) <= 4


def test_non_ascii_characters() -> None:
    assert (grey(placeholder((320, 240), ("Tür \N{CAMERA} zu\n",))) > 110).any()


def test_cached() -> None:
    assert placeholder((640, 360), (*LINES,)) is placeholder((640, 360), LINES)
    assert placeholder((640, 360), ("another",)) != placeholder((640, 360), LINES)
