"""What a source yields: colours, sizes, and JPEG headers."""

from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from softcam.camera.base import StreamRequest
from softcam.camera.url.camera import UrlCamera
from softcam.camera.url.source import covering, fitted, size_of_jpeg
from tests.support.motion_pictures import grey_rgb, jpeg_of, number_in, planes_of, smooth_rgb, write_jpegs, write_movie
from tests.support.url_client import FPS, FrameRecorder, MakeCamera, first_frame


@pytest.mark.parametrize("is_full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("is_bt709", [False, True], ids=["bt601", "bt709"])
def test_colours_of_video(tmp_path: Path, make_camera: MakeCamera, is_bt709: bool, is_full: bool) -> None:
    rgb = smooth_rgb((320, 240))
    path = write_movie(tmp_path / "smooth.mp4", [rgb] * 3, FPS, is_bt709=is_bt709, is_full=is_full)
    _check_colours(make_camera(path), rgb)


@pytest.mark.parametrize(("size", "is_bt709"), [((320, 240), False), ((1280, 720), True)])
def test_unspecified_colours_depend_on_size(
    tmp_path: Path, make_camera: MakeCamera, size: tuple[int, int], is_bt709: bool
) -> None:
    rgb = smooth_rgb(size)
    path = write_movie(tmp_path / "smooth.mp4", [rgb] * 3, FPS, is_bt709=is_bt709, is_told=False)
    _check_colours(make_camera(path, StreamRequest(1280, 720, FPS)), rgb)


def test_colours_of_png(tmp_path: Path, make_camera: MakeCamera) -> None:
    import av

    rgb = smooth_rgb((320, 240))
    picture = av.VideoFrame.from_ndarray(rgb, format="rgb24")
    with av.open(str(tmp_path / "smooth.png"), "w", format="image2") as target:
        stream = target.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "rgb24"
        target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    _check_colours(make_camera(tmp_path / "smooth.png"), rgb)


def test_colours_of_scaled_jpeg(tmp_path: Path, make_camera: MakeCamera) -> None:
    rgb = smooth_rgb((640, 480))
    path = write_jpegs(tmp_path / "smooth.avi", [jpeg_of(rgb, 98)] * 3, FPS)
    _check_colours(make_camera(path, StreamRequest(320, 240, FPS)), smooth_rgb((320, 240)))


def _check_colours(camera: UrlCamera, rgb: np.ndarray) -> None:
    frame = first_frame(camera)
    try:
        assert frame.pixel_format == "YUV420"
        assert frame.size == rgb.shape[1::-1]
        for plane, expected in zip(frame.planes, planes_of(rgb), strict=True):
            off = np.abs(plane - expected)
            assert off.mean() < 1.5
            assert np.percentile(off, 99) <= 3
    finally:
        frame.release()


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((640, 360), (1536, 864), (640, 360)),
        ((1920, 1080), (1536, 864), (1536, 864)),
        ((1920, 1080), (640, 640), (640, 360)),
        ((480, 640), (640, 480), (360, 480)),
        ((641, 361), (1536, 864), (640, 360)),
        ((1000, 3), (100, 100), (100, 2)),
        ((4000, 3000), (1536, 864), (1152, 864)),
    ],
)
def test_fitted(size: tuple[int, int], limit: tuple[int, int], expected: tuple[int, int]) -> None:
    assert fitted(size, limit) == expected


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        ((320, 180), (240, 134), (240, 136)),
        ((640, 480), (400, 400), (534, 400)),
        ((640, 480), (640, 480), (640, 480)),
        ((640, 480), (9000, 10), (640, 480)),
        ((641, 361), (641, 361), (641, 361)),
        ((4608, 2592), (1536, 864), (1536, 864)),
    ],
)
def test_covering(size: tuple[int, int], least: tuple[int, int], expected: tuple[int, int]) -> None:
    assert covering(size, least) == expected


def test_stream_and_still_of_large_source(tmp_path: Path, make_camera: MakeCamera) -> None:
    camera = make_camera(
        write_movie(tmp_path / "a.mp4", [grey_rgb(3, (640, 480))] * 10, FPS), StreamRequest(320, 320, FPS)
    )
    config = camera.open(FrameRecorder())
    assert (config.width, config.height, config.sensor_size) == (320, 240, (640, 480))
    assert not config.can_flip
    assert config.controls == {}
    for requested, size in (
        (None, (640, 480)),
        ((400, 400), (534, 400)),
        ((400, 300), (400, 300)),
        ((9000, 9000), (640, 480)),
    ):
        still = camera.still(requested)
        assert still.size == size
        assert number_in(still) == 3
        still.release()


def test_size_of_jpeg() -> None:
    jpeg = jpeg_of(grey_rgb(1, (66, 34)))
    assert size_of_jpeg(jpeg) == (66, 34)
    assert size_of_jpeg(jpeg + bytes(100)) == (66, 34)
    assert simplejpeg.decode_jpeg_header(jpeg)[:2] == (34, 66)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"\x89PNG",
        b"\xff\xd8\xff\xda\x00\x02\xff\xd9",
        b"\xff\xd8" + b"\xff" * 99,
    ],
)
def test_size_of_damaged_jpeg(data: bytes) -> None:
    assert size_of_jpeg(data) is None


def test_size_of_truncated_jpeg() -> None:
    jpeg = jpeg_of(smooth_rgb((64, 48)))
    assert [cut for cut in range(0, len(jpeg) - 1, 7) if size_of_jpeg(jpeg[:cut]) is not None] == []
