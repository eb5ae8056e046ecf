"""Changes of size and frame rate by several clients at once, under the names of Pi Camera Service."""

import re
from functools import partial

import pytest

from softcam.h264.bitrate import automatic_bitrate
from tests.conftest import Portal
from tests.support.background import Background
from tests.support.control_client import change, eventually
from tests.support.http_client import StreamClient, ask, size_of, status_of

SIZES = [(640, 360), (320, 240), (480, 270), (512, 512), (2560, 1440)]
RATES = [5.0, 12.5, 30.0, 50.0, 1000.0]
OPENED = re.compile(r"Camera open after .* streaming (\d+)x(\d+)")


def highest_fps(width: int) -> float:
    return 120.13 if width <= 1536 else 14.35


def test_sizes_and_rates_of_many_clients_never_mix(portal: Portal) -> None:
    assert ask(portal, "/camera/start", method="POST").status == 200
    clients = [
        Background(partial(change, portal, name, values))
        for (width, height), rate in zip(SIZES, RATES, strict=True)
        for name, values in (("resolution", {"width": width, "height": height}), ("framerate", {"framerate": rate}))
    ]
    answers = [client.result() for client in clients]
    for (width, height), answer in zip(SIZES, answers[::2], strict=True):
        assert (answer["width"], answer["height"]) == (width, height)
    for rate, answer in zip(RATES, answers[1::2], strict=True):
        width, height = map(int, answer["resolution"].split("x"))
        assert (width, height) in SIZES
        assert answer["max_framerate_for_resolution"] == highest_fps(width)
        assert answer["applied_framerate"] == min(rate, highest_fps(width))
        assert answer["clamped"] is (rate > highest_fps(width))
    opened = [tuple(map(int, found.groups())) for found in OPENED.finditer(portal.log)]
    assert set(SIZES) <= set(opened), "each of them was applied"
    # What is left is the last size with the last rate.
    stream = {
        name: field["value"]
        for name, field in ask(portal, "/v1/camera/controls").json["controls"]["stream"]["fields"].items()
    }
    assert (stream["width"], stream["height"]) == opened[-1]
    status = status_of(portal)
    assert (status["width"], status["height"]) == opened[-1]
    limits = status["current_limits"]["frame_duration_us"]
    assert limits["max"] == pytest.approx(1e6 / stream["fps"], rel=0.001)
    assert stream["fps"] <= highest_fps(stream["width"])
    eventually(portal, lambda status: limits["min"] <= (status["frame_duration_us"] or 0) <= limits["max"] * 1.001)
    assert size_of(ask(portal, "/snapshot.jpg?autofocus=0").body) == opened[-1]


def test_automatic_bit_rate_follows_the_rate_that_a_size_lowers(portal: Portal) -> None:
    assert ask(portal, "/camera/start", method="POST").status == 200
    change(portal, "framerate", {"framerate": 100})
    assert status_of(portal)["bitrate_bps"] == automatic_bitrate((640, 360), 100.0)
    change(portal, "resolution", {"width": 2560, "height": 640})
    expected = automatic_bitrate((2560, 640), highest_fps(2560))
    assert status_of(portal)["bitrate_bps"] == expected, "before the encoder runs"
    with StreamClient(portal, "/stream.mp4"):
        portal.wait_for_log(f"Encoding H.264: 2560x640, {expected} bit/s")
        assert status_of(portal)["bitrate_bps"] == expected


def test_viewers_stay_connected(portal: Portal) -> None:
    with StreamClient(portal) as viewer:
        assert size_of(viewer.next().jpeg) == (640, 360)
        change(portal, "resolution", {"width": 320, "height": 180})
        while size_of(viewer.next().jpeg) != (320, 180):
            pass
        assert change(portal, "framerate", {"framerate": 500})["applied_framerate"] == 120.13
        viewer.next()
