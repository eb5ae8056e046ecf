"""Scaling against slow, exact references in floating point."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.imaging.scale import scaled_size, shrink, shrink_plane

Plane = npt.NDArray[np.uint8]


def scene(width: int, height: int) -> npt.NDArray[np.float64]:
    """Something like a picture: slow shades, an edge at a slant, a disc and a little texture; 0 to 255."""
    x = (np.arange(width) + 0.5) / width
    y = ((np.arange(height) + 0.5) / height)[:, None]
    shades = 110 + 60 * np.sin(5 * x + 3 * y) + 30 * np.cos(11 * y - 7 * x)
    edge = 40.0 * (x + 0.6 * y > 0.9)
    disc = -50.0 * ((x - 0.3) ** 2 + (y - 0.6) ** 2 < 0.02)
    texture = 6 * np.sin(190 * x) * np.sin(130 * y)
    picture: npt.NDArray[np.float64] = np.clip(shades + edge + disc + texture, 0, 255)
    return picture


def as_plane(picture: npt.NDArray[np.float64]) -> Plane:
    return np.rint(picture).astype(np.uint8)


def area_weights(pixels: int, to: int) -> npt.NDArray[np.float64]:
    """(to, pixels): how much of each pixel lies in each pixel of the smaller axis; rows add up to 1."""
    ratio = pixels / to
    starts = np.arange(to)[:, None] * ratio
    at = np.arange(pixels)
    weights: npt.NDArray[np.float64] = np.clip(np.minimum(at + 1, starts + ratio) - np.maximum(at, starts), 0, None)
    return weights / ratio


def area_average(plane: Plane, to: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The exact mean of what each smaller pixel covers."""
    result: npt.NDArray[np.float64] = (
        area_weights(plane.shape[0], to[1]) @ plane.astype(np.float64) @ area_weights(plane.shape[1], to[0]).T
    )
    return result


def psnr_db(a: npt.NDArray[np.float64], b: npt.NDArray[np.generic]) -> float:
    error = float(np.mean((a - b.astype(np.float64)) ** 2))
    return 99.0 if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize(
    ("size", "width", "expected"),
    [
        ((1920, 1080), 640, (640, 360)),
        ((1536, 864), 640, (640, 360)),
        ((1536, 864), 641, (640, 360)),
        ((1536, 864), 500, (500, 282)),
        ((1536, 864), 1536, (1536, 864)),
        ((1536, 864), 4000, (1536, 864)),
        ((1535, 863), 2000, (1535, 863)),
        ((1536, 864), 1, (2, 2)),
        ((10000, 4), 100, (100, 2)),
        ((4, 10000), 2, (2, 5000)),
        ((1, 1), 1, (1, 1)),
    ],
)
def test_scaled_size(size: tuple[int, int], width: int, expected: tuple[int, int]) -> None:
    assert scaled_size(size, width) == expected


@given(st.integers(2, 5000), st.integers(2, 5000), st.integers(1, 5000))
def test_scaled_size_is_even_and_not_larger(full_width: int, full_height: int, width: int) -> None:
    size = scaled_size((full_width, full_height), width)
    assert size[0] <= full_width
    assert size[1] <= full_height
    assert size == (full_width, full_height) or (size[0] % 2 == size[1] % 2 == 0 and min(size) >= 2)


@pytest.mark.parametrize("width", [0, -3])
def test_invalid_width(width: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        scaled_size((640, 480), width)


@pytest.mark.parametrize(
    ("size", "to", "at_least_db"),
    [
        ((1920, 1080), (640, 360), 50),
        ((1536, 864), (768, 432), 50),
        ((1536, 864), (640, 360), 38),
        ((1920, 1080), (1280, 720), 38),
        ((1920, 1080), (1918, 1078), 38),
        ((999, 555), (334, 186), 38),
        ((640, 480), (639, 17), 36),
        ((2000, 100), (48, 50), 36),
    ],
)
def test_result_is_near_the_exact_area_average(size: tuple[int, int], to: tuple[int, int], at_least_db: float) -> None:
    plane = as_plane(scene(*size))
    shrunk = shrink_plane(plane, to)
    assert shrunk.shape == (to[1], to[0])
    assert shrunk.dtype == np.uint8
    assert psnr_db(area_average(plane, to), shrunk) > at_least_db


@pytest.mark.parametrize("to", [(640, 360), (1280, 720), (500, 282), (96, 54)])
def test_no_shift(to: tuple[int, int]) -> None:
    """A ramp stays a ramp, at its place, away from the edges that have no neighbour."""
    ramp = np.broadcast_to(np.linspace(0, 255, 1920), (1080, 1920))
    expected = area_average(as_plane(ramp), to)
    difference = shrink_plane(as_plane(ramp), to).astype(float) - expected
    assert np.abs(difference[:, 2:-2]).max() <= 1.5
    assert abs(difference.mean()) < 0.25


@given(st.integers(1, 90), st.integers(1, 90), st.data(), st.sampled_from([0, 1, 127, 254, 255]))
def test_uniform_grey(width: int, height: int, data: st.DataObject, level: int) -> None:
    to = (data.draw(st.integers(1, width)), data.draw(st.integers(1, height)))
    shrunk = shrink_plane(np.full((height, width), level, np.uint8), to)
    assert shrunk.shape == (to[1], to[0])
    assert (shrunk == level).all()


def test_large_factors() -> None:
    plane = as_plane(scene(2304, 1296))
    assert psnr_db(area_average(plane, (32, 18)), shrink_plane(plane, (32, 18))) > 34


@pytest.mark.parametrize("to", [(32, 24), (40, 30), (50, 41)])
def test_strides(to: tuple[int, int]) -> None:
    padded = np.random.default_rng(1).integers(0, 256, (48, 128), np.uint8)
    expected = shrink_plane(padded[:, :64].copy(), to)
    assert np.array_equal(shrink_plane(padded[:, :64], to), expected)
    wide = np.zeros((48, 128), np.uint8)
    wide[:, ::2] = padded[:, :64]
    assert np.array_equal(shrink_plane(wide[:, ::2], to), expected)


def test_source_is_unchanged() -> None:
    plane = as_plane(scene(100, 80))
    plane.flags.writeable = False
    before = plane.copy()
    for to in ((50, 40), (70, 60), (100, 80)):
        shrink_plane(plane, to)
    assert np.array_equal(plane, before)


@pytest.mark.parametrize("chroma", [(540, 960), (1080, 960), (1080, 1920)], ids=["420", "422", "444"])
def test_chroma_becomes_420(chroma: tuple[int, int]) -> None:
    y = as_plane(scene(1920, 1080))
    u = as_plane(scene(chroma[1], chroma[0]))
    shrunk = shrink((y, u, 255 - u), (1280, 720))
    assert [plane.shape for plane in shrunk] == [(720, 1280), (360, 640), (360, 640)]
    expected = area_average(u, (640, 360))
    assert psnr_db(expected, shrunk[1]) > 36
    assert psnr_db(255 - expected, shrunk[2]) > 36


def test_odd_sizes() -> None:
    y, u, v = (as_plane(scene(*size)) for size in ((65, 33), (33, 17), (33, 17)))
    assert [plane.shape for plane in shrink((y, u, v), (63, 31))] == [(31, 63), (16, 32), (16, 32)]


def test_plane_of_target_size_is_not_copied() -> None:
    plane = as_plane(scene(64, 48))
    assert shrink_plane(plane, (64, 48)) is plane


@pytest.mark.parametrize("to", [(65, 48), (64, 49), (0, 48), (64, -1)])
def test_enlarging_is_rejected(to: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="cannot shrink 64x48"):
        shrink_plane(np.zeros((48, 64), np.uint8), to)
