"""Frames of every format are encoded with the right colours: the tests decode the JPEGs."""

import io
import re
import threading
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg
from PIL import Image

from softcam.errors import CameraError
from softcam.imaging.frame import Frame, PixelFormat, Plane
from softcam.imaging.jpeg import encode, size_of, with_end
from tests.support.timeouts import PATIENCE_S

Rgb = npt.NDArray[np.float64]
SIZES = [(160, 96), (161, 97), (130, 51), (64, 64), (7, 5), (2, 2)]


def padded(plane: Plane, alignment: int = 64) -> Plane:
    """The same plane in rows of a multiple of `alignment` bytes, with something in the padding that must not show."""
    rows = np.full((plane.shape[0], -(-plane.shape[1] // alignment) * alignment), 199, np.uint8)
    rows[:, : plane.shape[1]] = plane
    return rows[:, : plane.shape[1]]


def colours(width: int, height: int, across: int, down: int) -> tuple[Plane, Plane, Plane]:
    """Smooth, saturated planes; chroma has one value for `across` by `down` pixels."""

    def plane(function: Callable[[Rgb, Rgb], Rgb], step_x: int, step_y: int) -> Plane:
        x = (np.arange(-(-width // step_x)) + 0.5) * step_x / width
        y = (np.arange(-(-height // step_y)) + 0.5) * step_y / height
        return np.rint(function(x[None, :], y[:, None])).astype(np.uint8)

    return (
        plane(lambda x, y: 90 + 70 * x + 20 * np.sin(4 * y), 1, 1),
        plane(lambda x, y: 128 + 50 * np.sin(3 * x + y), across, down),
        plane(lambda x, y: 128 - 50 * np.cos(2 * y - x), across, down),
    )


def rgb_of(planes: Sequence[Plane], width: int, height: int) -> Rgb:
    """What the planes mean by JFIF's formulas, https://www.w3.org/Graphics/JPEG/jfif3.pdf."""
    y, u, v = (p.astype(np.float64) for p in planes)
    across, down = -(-width // u.shape[1]), -(-height // u.shape[0])
    cb, cr = (c.repeat(across, 1).repeat(down, 0)[:height, :width] - 128 for c in (u, v))
    rgb = np.dstack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb])
    return rgb.clip(0, 255)


def make_frame(pixel_format: PixelFormat, width: int, height: int) -> tuple[Frame, Rgb]:
    """A frame with padded rows, and its true colours."""
    y, u, v = colours(width, height, 2, 1 if pixel_format == "YUYV" else 2)
    rgb = rgb_of((y, u, v), width, height)
    planes: tuple[Plane, ...]
    match pixel_format:
        case "YUV420":
            planes = padded(y), padded(u), padded(v)
        case "NV12":
            planes = padded(y), padded(np.dstack([u, v]).reshape(u.shape[0], -1))
        case "YUYV":
            packed = np.empty((height, 2 * y.shape[1]), np.uint8)
            packed[:, 0::2] = y
            packed[:, 1::4] = u
            packed[:, 3::4] = v[:, : width // 2]
            planes = (padded(packed),)
        case "MJPEG":
            jpeg = simplejpeg.encode_jpeg_yuv_planes(y, u, v, quality=97)
            planes = (np.frombuffer(jpeg, np.uint8),)
    return Frame(planes, pixel_format, width, height), rgb


def decoded(jpeg: bytes) -> npt.NDArray[np.uint8]:
    assert simplejpeg.is_jpeg(jpeg)
    rgb: npt.NDArray[np.uint8] = simplejpeg.decode_jpeg(jpeg, "RGB", strict=True)
    return rgb


def psnr_db(a: Rgb, b: npt.NDArray[np.generic]) -> float:
    error = float(np.mean((a - b.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("pixel_format", ["YUV420", "NV12", "YUYV", "MJPEG"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_colours(pixel_format: PixelFormat, size: tuple[int, int]) -> None:
    frame, rgb = make_frame(pixel_format, *size)
    jpeg = encode(frame, None, 97)
    assert size_of(jpeg) == size
    # The smallest have chroma steps that the decoder smoothes, as it should.
    assert psnr_db(rgb, decoded(jpeg)) > (36 if min(size) > 50 else 25)


@pytest.mark.parametrize("pixel_format", ["YUV420", "NV12", "YUYV", "MJPEG"])
@pytest.mark.parametrize("to", [(80, 48), (100, 60), (160, 96), (62, 37)], ids=str)
def test_colours_after_scaling(pixel_format: PixelFormat, to: tuple[int, int]) -> None:
    frame, _ = make_frame(pixel_format, 160, 96)
    _, rgb = make_frame(pixel_format, *to)
    jpeg = encode(frame, to, 97)
    assert size_of(jpeg) == to
    assert psnr_db(rgb, decoded(jpeg)) > 36


@pytest.mark.parametrize("pixel_format", ["YUV420", "NV12", "YUYV"])
def test_black_and_white_levels(pixel_format: PixelFormat) -> None:
    for level in (0, 255):
        frame, _ = make_frame(pixel_format, 64, 48)
        for plane in frame.planes:
            plane[...] = 128
        if pixel_format == "YUYV":
            frame.planes[0][:, ::2] = level
        else:
            frame.planes[0][...] = level
        assert (decoded(encode(frame, None, 80)) == level).all()
        assert (decoded(encode(frame, (32, 24), 80)) == level).all()


def test_yuv420_matches_libjpeg() -> None:
    frame, _ = make_frame("YUV420", 160, 96)
    assert encode(frame, None, 80) == simplejpeg.encode_jpeg_yuv_planes(*frame.planes, quality=80)
    assert encode(frame, frame.size, 80) == encode(frame, None, 80)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nv12_matches_yuv420(size: tuple[int, int]) -> None:
    assert encode(make_frame("NV12", *size)[0], None, 80) == encode(make_frame("YUV420", *size)[0], None, 80)


@pytest.mark.parametrize("size", [(161, 97), (161, 96), (160, 97), (1, 1)], ids=str)
def test_odd_size_does_not_show_padding(size: tuple[int, int]) -> None:
    """What lies behind the rows and below the last one has no say, not even in the part of a block that is cut off."""
    jpegs = set()
    for around in (0, 255):
        planes = []
        for plane in make_frame("YUV420", *size)[0].planes:
            room = np.full((plane.shape[0] + 16, plane.shape[1] + 16), around, np.uint8)
            room[: plane.shape[0], : plane.shape[1]] = plane
            planes.append(room[: plane.shape[0], : plane.shape[1]])
        jpegs.add(encode(Frame(tuple(planes), "YUV420", *size), None, 80))
    assert len(jpegs) == 1


def test_yuyv_keeps_chroma_rows() -> None:
    jpeg = encode(make_frame("YUYV", 160, 96)[0], None, 80)
    assert simplejpeg.decode_jpeg_header(jpeg)[3] == "422"


def test_quality_changes_the_length() -> None:
    frame, _ = make_frame("YUV420", 160, 96)
    assert len(encode(frame, None, 20)) < len(encode(frame, None, 80)) < len(encode(frame, None, 95))


def test_read_only_planes() -> None:
    frame, _ = make_frame("NV12", 160, 96)
    before = [plane.copy() for plane in frame.planes]
    for plane in frame.planes:
        plane.flags.writeable = False
    encode(frame, None, 80)
    encode(frame, (100, 60), 80)
    assert all(np.array_equal(a, b) for a, b in zip(before, frame.planes, strict=True))


@pytest.mark.parametrize("pixel_format", ["YUV420", "NV12", "YUYV", "MJPEG"])
def test_concurrent_threads(pixel_format: PixelFormat) -> None:
    jobs: list[tuple[tuple[int, int], int]] = [((160, 96), 80), ((100, 60), 80), ((80, 48), 50), ((64, 38), 30)]
    frame, _ = make_frame(pixel_format, 160, 96)
    expected = [encode(frame, *job) for job in jobs]
    results: list[list[bytes]] = [[] for _ in jobs]
    barrier = threading.Barrier(len(jobs))

    def work(number: int) -> None:
        barrier.wait(PATIENCE_S)
        results[number] = [encode(frame, *jobs[number]) for _ in range(30)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == [[jpeg] * 30 for jpeg in expected]


def mjpeg_frame(jpeg: bytes, width: int = 160, height: int = 96) -> Frame:
    return Frame((np.frombuffer(jpeg, np.uint8),), "MJPEG", width, height)


def camera_jpeg(quality: int = 85) -> bytes:
    planes = make_frame("YUV420", 160, 96)[0].planes
    jpeg: bytes = simplejpeg.encode_jpeg_yuv_planes(*planes, quality=quality)
    return jpeg


def without_segments(jpeg: bytes, marker: int) -> bytes:
    """`jpeg` without the segments of a kind before its pixels."""
    kept, at = jpeg[:2], 2
    while True:
        end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if jpeg[at + 1] == 0xDA:
            return kept + jpeg[at:]
        if jpeg[at + 1] != marker:
            kept += jpeg[at:end]
        at = end


@pytest.mark.parametrize("size", [None, (160, 96)])
@pytest.mark.parametrize("quality", [1, 80, 100])
def test_mjpeg_is_passed_through(size: tuple[int, int] | None, quality: int) -> None:
    jpeg = camera_jpeg()
    assert encode(mjpeg_frame(jpeg), size, quality) == jpeg


@pytest.mark.parametrize(
    "behind",
    [b"\0" * 1000, b"\xff" * 7, b"\xff\xd9" * 3, camera_jpeg(30)[200:], b"\0\xff\xd8\xff\xe0"],
    ids=["zeros", "filling", "ends", "an older picture", "a beginning"],
)
def test_mjpeg_is_cut_after_its_end_marker(behind: bytes) -> None:
    jpeg = camera_jpeg()
    assert encode(mjpeg_frame(jpeg + behind), None, 80) == jpeg


def test_mjpeg_with_an_end_marker_in_a_comment() -> None:
    jpeg = camera_jpeg()
    start, comment = jpeg[:2], b"\xff\xfe\x00\x08%s\xff\xda"
    marked = start + comment % b"\xff\xd8\xff\xd9" + jpeg[2:]
    assert encode(mjpeg_frame(marked + bytes(50)), None, 80) == start + comment % b"\xfe\xd8\xfe\xd9" + jpeg[2:]


# No marker of start or end within a JPEG


def inner_markers(jpeg: bytes) -> list[int]:
    assert (jpeg[:2], jpeg[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    return [found.start() for found in re.finditer(rb"\xff[\xd8\xd9]", jpeg[1:-2])]


@pytest.mark.parametrize("pixel_format", ["YUV420", "NV12", "YUYV", "MJPEG"])
@pytest.mark.parametrize("size", SIZES[:3], ids=str)
def test_no_inner_markers(pixel_format: PixelFormat, size: tuple[int, int]) -> None:
    frame, _ = make_frame(pixel_format, *size)
    for quality in range(1, 101):
        for scaled in (None, (size[0] // 4 * 2, size[1] // 4 * 2)):
            jpeg = encode(frame, scaled, quality, quality_is_explicit=True)
            assert inner_markers(jpeg) == [], quality
            assert size_of(jpeg) == (scaled or size)


@pytest.mark.parametrize("subsampling", ["444", "422", "420", "440", "411", "Gray"])
def test_no_inner_markers_in_jpeg_of_camera(subsampling: str) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (96, 160, 3), np.uint8)
    for quality in range(1, 101):
        jpeg = simplejpeg.encode_jpeg(rgb, quality=quality, colorsubsampling=subsampling)
        passed = encode(mjpeg_frame(jpeg), None, 80)
        assert inner_markers(passed) == [], quality
        if quality in (6, 18):
            # One or two of the steps are smaller by one of 255.
            assert inner_markers(jpeg)
            assert len(passed) == len(jpeg)
            assert psnr_db(decoded(jpeg).astype(float), decoded(passed)) > 50
        else:
            assert passed == jpeg, quality


@pytest.mark.parametrize(
    ("metadata", "kept"),
    [
        (b"\xff\xe1%s" + b"Exif\0\0" + camera_jpeg(), True),  # a thumbnail
        (b"\xff\xe2%s" + b"\xff\xff\xd8\xd9", True),
        (b"\xff\xee%s" + b"Adobe\0\xff\xd8\xff\0\1", True),
        (b"\xff\xfe%s" + b"x" * (0xFFD8 - 2), False),  # the length itself
        (b"\xff\xfe%s" + b"\xd9" + b"x" * (0x01FF - 3), False),  # its last byte and the content
    ],
    ids=["exif", "numbers", "adobe", "length", "length and content"],
)
def test_no_inner_markers_in_metadata_of_camera(metadata: bytes, kept: bool) -> None:
    jpeg = camera_jpeg()
    segment = metadata.replace(b"%s", (len(metadata) - 2).to_bytes(2, "big"), 1)
    marked = b"".join((jpeg[:2], segment, jpeg[2:]))
    assert inner_markers(marked)
    passed = encode(mjpeg_frame(marked), None, 80)
    assert inner_markers(passed) == []
    assert len(passed) == len(marked if kept else jpeg)
    assert np.array_equal(decoded(passed), decoded(jpeg))


def test_incomplete_mjpeg_before_the_next_one() -> None:
    jpeg = camera_jpeg()
    with pytest.raises(CameraError, match="another image begins before its end"):
        encode(mjpeg_frame(jpeg[:-300] + jpeg), None, 80)


def test_mjpeg_with_fill_bytes() -> None:
    jpeg = camera_jpeg()
    jpeg = jpeg[:2] + b"\xff\xff\xff" + jpeg[2:-2] + b"\xff\xff\xff\xd9"
    assert encode(mjpeg_frame(jpeg + bytes(50)), None, 80) == jpeg


def test_mjpeg_gets_default_huffman_tables() -> None:
    jpeg = camera_jpeg()
    bare = without_segments(jpeg, 0xC4)
    assert len(bare) < len(jpeg) - 400
    mended = encode(mjpeg_frame(bare + bytes(50)), None, 80)
    assert b"\xff\xc4" in mended
    assert np.array_equal(decoded(mended), decoded(jpeg))


def test_mjpeg_is_encoded_again_for_lower_explicit_quality() -> None:
    jpeg = camera_jpeg(85)
    frame = mjpeg_frame(jpeg)
    assert encode(frame, None, 40) == jpeg
    assert encode(frame, None, 85, quality_is_explicit=True) == jpeg
    assert encode(frame, None, 95, quality_is_explicit=True) == jpeg
    coarse = encode(frame, None, 40, quality_is_explicit=True)
    assert len(coarse) < len(jpeg)
    assert psnr_db(decoded(jpeg).astype(float), decoded(coarse)) > 30


def test_mjpeg_with_other_size_than_its_frame() -> None:
    """The JPEG is what counts: some cameras give another size than they promised."""
    jpeg = camera_jpeg()
    assert encode(mjpeg_frame(jpeg, 320, 240), None, 80) == jpeg
    assert size_of(encode(mjpeg_frame(jpeg, 320, 240), (80, 48), 80)) == (80, 48)


@pytest.mark.parametrize(
    ("jpeg", "message"),
    [
        (b"", "does not start with FFD8"),
        (b"\0" * 100, "does not start with FFD8"),
        (camera_jpeg()[:2], "has no image data"),
        (camera_jpeg()[:11], "segment at byte 2 is truncated"),
        (camera_jpeg()[:2] + b"\0" * 40, "no marker at byte 2"),
        (camera_jpeg()[:-3], "is truncated"),
        (camera_jpeg()[: len(camera_jpeg()) // 2 + 300], "is truncated"),
        (without_segments(camera_jpeg(), 0xC0), "has no size"),
    ],
)
def test_damaged_mjpeg(jpeg: bytes, message: str) -> None:
    with pytest.raises(CameraError, match=message):
        encode(mjpeg_frame(jpeg), None, 80)


def test_truncated_mjpeg() -> None:
    jpeg = camera_jpeg(20)
    for length in range(len(jpeg) - 2):
        with pytest.raises(CameraError):
            encode(mjpeg_frame(jpeg[:length]), None, 80)
    for length in range(len(jpeg) - 6):  # the last bytes of the image data may be zeros
        with pytest.raises(CameraError):
            encode(mjpeg_frame(jpeg[:length] + bytes(1000)), None, 80)


@pytest.mark.parametrize("level", [0, 90, 128, 255])
@pytest.mark.parametrize("width", range(16, 24))
@pytest.mark.parametrize("behind", [b"", bytes(1000), b"\xff", b"\r\n"], ids=["none", "zeros", "half", "line end"])
def test_mjpeg_without_end_marker(level: int, width: int, behind: bytes) -> None:
    """Also of flat images, whose data may end with zeros."""
    for pixels in (
        np.full((16, width, 3), level, np.uint8),
        np.random.default_rng(width).integers(0, 255, (24, width, 3), dtype=np.uint8),
    ):
        jpeg = simplejpeg.encode_jpeg(pixels, quality=level // 3 + 10, colorsubsampling="420")
        passed = encode(mjpeg_frame(jpeg[:-2] + behind, width, len(pixels)), None, 80)
        assert passed.endswith(b"\xff\xd9")
        assert np.array_equal(simplejpeg.decode_jpeg(passed, strict=False), simplejpeg.decode_jpeg(jpeg))
        assert with_end(jpeg[:-2] + behind).startswith(passed[:-2])


def test_only_a_missing_end_marker_is_appended() -> None:
    jpeg = camera_jpeg()
    assert with_end(jpeg[:-2]) == with_end(jpeg + bytes(9)) == with_end(jpeg) == jpeg
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(
        file, "JPEG", progressive=True
    )
    huge = jpeg.replace(b"\x00\x60\x00\xa0", b"\xff\xff\xff\xff")[:-2]
    # Of a progressive image, a scan may be missing as well.
    for damaged in (b"", jpeg[:-40], jpeg[:100], file.getvalue()[:-2], huge):
        assert with_end(damaged) == damaged


@pytest.mark.parametrize("pixel_format", ["YUV420", "NV12", "YUYV", "MJPEG"])
def test_enlarging_is_rejected(pixel_format: PixelFormat) -> None:
    frame, _ = make_frame(pixel_format, 160, 96)
    for size in ((162, 96), (160, 98)):
        with pytest.raises(ValueError, match="cannot shrink 160x96"):
            encode(frame, size, 80)


@pytest.mark.parametrize("quality", [0, 101, -1])
def test_invalid_quality(quality: int) -> None:
    with pytest.raises(ValueError, match="must be from 1 to 100"):
        encode(make_frame("YUV420", 8, 8)[0], None, quality)


def zeros(*shape: int) -> Plane:
    return np.zeros(shape, np.uint8)


@pytest.mark.parametrize(
    ("pixel_format", "planes", "message"),
    [
        ("YUV420", (zeros(48, 64),), "has 3 planes, not 1"),
        ("YUV420", (), "has 3 planes, not 0"),
        ("MJPEG", (), "has 1 plane, not 0"),
        ("YUV420", (zeros(48, 64), zeros(24, 31), zeros(24, 32)), r"plane 1 of a YUV420 frame of 64x48 .*\(24, 31\)"),
        ("YUV420", (zeros(48, 64), zeros(24, 32), zeros(23, 32)), "plane 2"),
        ("YUV420", (zeros(47, 64), zeros(24, 32), zeros(24, 32)), "plane 0"),
        ("YUV420", (zeros(48, 128)[:, ::2], zeros(24, 32), zeros(24, 32)), "plane 0 .* contiguous rows"),
        ("NV12", (zeros(48, 64), zeros(24, 62)), "plane 1 of a NV12"),
        ("YUYV", (zeros(48, 64),), "plane 0 of a YUYV"),
        ("YUV420", (zeros(48, 64), zeros(24, 32), np.zeros((24, 32), np.uint16)), "plane 2 .* is uint16"),
    ],
)
def test_planes_that_do_not_match_the_format(
    pixel_format: PixelFormat, planes: tuple[Plane, ...], message: str
) -> None:
    with pytest.raises(CameraError, match=message):
        encode(Frame(planes, pixel_format, 64, 48), None, 80)


def test_unknown_format() -> None:
    with pytest.raises(CameraError, match="cannot encode frames of format RGB888"):
        encode(Frame((zeros(8, 8),), "RGB888", 8, 8), None, 80)  # type: ignore[arg-type]


def test_size_of_invalid_jpeg() -> None:
    with pytest.raises(ValueError, match="FFD8"):
        size_of(b"GIF89a")
