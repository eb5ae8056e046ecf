"""The splitter, with data in pieces of every kind."""

import pytest

from softcam.camera.url.image_splitter import ImageSplitter
from tests.support.mjpeg_server import OTHER, SMALL, WITH_THUMBNAIL, encode, encode_as

BOUNDARY = b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"
PROGRESSIVE = bytes.fromhex(
    "ffd8 ffdb0043 00" + "01" * 64 + "ffc2 000b 08 0008 0008 01 011100"  # 8x8 pixels
    "ffc4 0014 00" + "00" * 15 + "0100 ffda 0008 01 0100 000001 ff00d0"  # the first scan
    "ffdd 0004 ffd9 ffda 0008 01 0100 013f00 80ff00ffd011 ffd9"  # a table that contains an end marker, another scan
)


def split(data: bytes, step: int) -> list[bytes]:
    splitter = ImageSplitter()
    return [image for at in range(0, len(data), step) for image in splitter.push_data(data[at : at + step])]


PNG = encode_as("PNG")
WEBP = encode_as("WEBP")
ODD_WEBP = b"RIFF\x05\0\0\0WEBP?\0"  # with the padding


@pytest.mark.parametrize("step", [1, 2, 3, 7, 1000, 10**6])
def test_pieces_of_any_size(step: int) -> None:
    images = [SMALL, OTHER, WITH_THUMBNAIL, PROGRESSIVE, SMALL, PNG, WEBP, PNG, SMALL, ODD_WEBP, OTHER]
    assert split(BOUNDARY + BOUNDARY.join(images), step) == images


def test_image_is_complete_with_its_last_byte() -> None:
    for image in (SMALL, PNG, WEBP):
        splitter = ImageSplitter()
        assert splitter.push_data(BOUNDARY + image[:-1]) == []
        assert splitter.push_data(image[-1:]) == [image]


@pytest.mark.parametrize(
    "damaged",
    [
        PNG[:8],
        PNG[:20] + b"\0" * 50,
        PNG[:8] + b"\xff\xff\xff\xffIHDR",
        PNG[:-12],
        WEBP[:200],
        b"RIFF\xff\xff\xff\xffWEBP",
        b"RIFF1234WAVE",
        b"",
        b"\xff\xd8\xff\xd9",
        b"\xff\xd8\xff",
        b"\xff\xd8\xff\xe0\xff\xff",
        b"\xff\xd8\xff\xff\xff\xff\x01\x00\x00\x00",
        SMALL[:200],
        SMALL[:-2],
        SMALL[: len(SMALL) // 2],
        SMALL[: len(SMALL) // 2] + b"\xff\xf3\xff\xff" + SMALL[len(SMALL) // 2 :],
    ],
)
def test_damaged_image_does_not_cost_the_next_ones(damaged: bytes) -> None:
    images = [SMALL, OTHER] * 12  # more than the lengths of the damaged one can cover
    found = split(BOUNDARY + damaged + BOUNDARY + BOUNDARY.join(images), 64)
    assert found[-len(images) :] == images


def test_endless_data_is_not_kept() -> None:
    large = encode(64, 48)[:-2]
    splitter = ImageSplitter()
    assert splitter.push_data(large + bytes(80 << 20)) == []
    assert splitter.push_data(BOUNDARY + SMALL) == [SMALL]


@pytest.mark.parametrize("step", [1, 2, 7, 10**6])
def test_jpeg_without_end_marker(step: int) -> None:
    """It ends with the next part's header, at the next image, or with the body."""
    splitter = ImageSplitter()
    data = BOUNDARY + SMALL[:-2] + BOUNDARY + OTHER[:-2] + b"\n--frame\n\n" + SMALL[:-2] + OTHER + SMALL[:-2]
    found = [image for at in range(0, len(data), step) for image in splitter.push_data(data[at : at + step])]
    assert found == [SMALL[:-2], OTHER[:-2], SMALL[:-2], OTHER]
    assert splitter.finish() == [SMALL[:-2]]
    splitter = ImageSplitter()
    assert splitter.push_data(SMALL[:-2] + BOUNDARY[:-4]) == [SMALL[:-2]], "not only with the next image"
    assert splitter.push_data(BOUNDARY[-4:] + OTHER) == [OTHER]
    assert splitter.finish() == []
