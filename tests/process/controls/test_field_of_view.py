"""The field of view in pictures: the whole one at every size, or the middle of the sensor."""

from collections.abc import Iterator

import numpy as np
import pytest

from tests.conftest import Portal
from tests.support.control_client import Picture, change, picture_of, seen_after
from tests.support.http_client import StreamClient, ask, size_of, status_of

SIZE = (1536, 864)
STILL = slice(545, 690)  # rows of the middle between the clock, which is larger in larger images, and what moves


@pytest.fixture
def middle(held: Portal) -> Iterator[Picture]:
    """What the middle of the sensor shows, cut out of an image of all of it."""
    change(held, "stream", {"width": SIZE[0], "height": SIZE[1]})
    yield middle_of(picture_of(held, "full=1&quality=95"))
    change(held, "stream", {"width": None, "height": None})


def middle_of(whole: Picture) -> Picture:
    assert whole.shape == (2592, 4608, 3)
    return whole[864:1728, 1536:3072]


def difference(picture: Picture, wanted: Picture) -> float:
    return float(np.abs(picture[STILL].astype(np.int16) - wanted[STILL]).mean())


def edges(picture: Picture, rows: slice = STILL) -> tuple[int, int]:
    """The column and the row of the strongest edge within these rows; the row is counted from the first of them."""
    grey = picture[rows].mean(axis=2)
    column, row = (np.abs(np.diff(grey.mean(axis=axis))).argmax() for axis in (0, 1))
    return int(column), int(row)


def test_crop_shows_the_middle_at_one_to_one(held: Portal, middle: Picture) -> None:
    assert difference(picture_of(held), middle) > 20
    with StreamClient(held) as viewer:
        assert size_of(viewer.next().jpeg) == SIZE
        answer = change(held, "fov_mode", {"mode": "crop"})
        assert answer["note"] == "fov_mode: the sensor delivers single pixels at up to 14.35 fps"
        seen_after(held, lambda picture: difference(picture, middle), lambda off: off < 4)
        viewer.next()
    assert status_of(held)["fov_mode"] == ask(held, "/v1/camera/fov_mode").json["mode"] == "crop"

    # A part of it, a larger still of it, and the whole sensor.
    change(held, "roi", {"x": 0.0, "y": 0.5, "width": 0.5, "height": 0.5})
    bottom = 2 * (edges(middle)[1] + STILL.start - SIZE[1] // 2)  # of the colour bars, in the lower left quarter
    seen_after(
        held, lambda picture: abs(edges(picture[:, :400], slice(250, 450))[1] + 250 - bottom), lambda off: off <= 4
    )
    change(held, "roi", {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0})
    larger = picture_of(held, f"width={2 * SIZE[0]}&height={2 * SIZE[1]}&autofocus=0&quality=95")
    assert difference(larger[::2, ::2], middle) < 4
    assert difference(middle_of(picture_of(held, "full=1&quality=95")), middle) < 4

    # Mirrored, the middle stays the middle.
    change(held, "transform", {"hflip": True})
    seen_after(held, lambda picture: difference(picture[:, ::-1], middle), lambda off: off < 4)
    change(held, "transform", {"hflip": False})
    answer = change(held, "fov_mode", {"mode": "scale"})
    assert answer["note"] is None
    seen_after(held, lambda picture: difference(picture, middle), lambda off: off > 20)


def test_crop_with_the_sensors_hdr(held: Portal) -> None:
    change(held, "stream", {"width": SIZE[0], "height": SIZE[1]})
    change(held, "hdr", {"mode": "sensor"})
    third = 1 / 3
    change(held, "roi", {"x": third, "y": third, "width": third, "height": third})
    middle = picture_of(held)
    change(held, "roi", {"x": 0.0, "y": 0.0, "width": 1.0, "height": 1.0})
    seen_after(held, lambda picture: difference(picture, middle), lambda off: off > 20)
    opens = status_of(held)["opens"]
    note = change(held, "fov_mode", {"mode": "crop"})["note"]
    assert note == "fov_mode: the sensor combines pixels in this mode; they are enlarged 2 times"
    seen_after(held, lambda picture: difference(picture, middle), lambda off: off < 4)
    assert status_of(held)["opens"] == opens, "the HDR has one sensor mode"
    assert ask(held, "/v1/camera/controls", method="DELETE").status == 200


def test_high_rate_shows_the_middle_and_reports_it(held: Portal) -> None:
    answer = change(held, "framerate", {"framerate": 100})
    assert answer["note"] == "fps: at this rate the sensor delivers only the middle 67 % of its width"
    answer = change(held, "framerate", {"framerate": 50})
    assert answer["note"] is None


def test_resolution_and_field_of_view_at_once(held: Portal) -> None:
    opens = status_of(held)["opens"]
    answer = change(held, "resolution", {"width": 320, "height": 180, "fov_mode": "crop"})
    assert (answer["width"], answer["height"]) == (320, 180)
    status = status_of(held)
    assert (status["fov_mode"], status["width"], status["opens"]) == ("crop", 320, opens + 1)
    assert ask(held, "/v1/camera/controls", method="DELETE").status == 200
    assert status_of(held)["fov_mode"] == "scale"
