"""A client of the controls: sets them, and measures their effect on images and the status."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.conftest import Portal
from tests.support.http_client import ask_for_still, decode, post, status_of
from tests.support.timeouts import PATIENCE_S

Picture = npt.NDArray[np.uint8]
SMALL = ("--width", "640", "--height", "360", "--fps", "30")
TELEPHOTO = {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}


def change(portal: Portal, name: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
    answer = post(portal, f"/v1/camera/{name}", content)
    assert answer.status == 200, answer.body
    assert answer.json["status"] == "ok"
    result: Mapping[str, Any] = answer.json
    return result


def picture_of(portal: Portal, query: str = "quality=95&autofocus=0") -> Picture:
    answer = ask_for_still(portal, f"/snapshot.jpg?{query}")
    assert answer.status == 200, answer.body
    return decode(answer.body)


def eventually(portal: Portal, is_so: Callable[[Mapping[str, Any]], bool], *, timeout_s: float = PATIENCE_S) -> None:
    """Wait for a status: a control needs some frames to reach the sensor."""
    deadline_s = time.monotonic() + timeout_s
    while not is_so(status := status_of(portal)):
        assert time.monotonic() < deadline_s, status
        time.sleep(0.02)


def frames_later(portal: Portal, number: int = 20) -> Mapping[str, Any]:
    """The status once the controls have reached the camera and its frames."""
    frames = status_of(portal)["frames"]
    eventually(portal, lambda status: status["frames"] >= frames + number)
    return status_of(portal)


def corner(picture: Picture) -> Picture:
    """The top left quarter, where nothing moves."""
    return picture[: picture.shape[0] // 4, : picture.shape[1] // 4]


def brightness(picture: Picture) -> float:
    return float(corner(picture).mean())


def colourfulness(picture: Picture) -> float:
    wide = picture.astype(np.int16)
    return float(np.abs(wide[..., 0] - wide[..., 2]).mean())


def detail(picture: Picture) -> float:
    return float(np.abs(np.diff(picture[..., 1].astype(np.int16), axis=1)).mean())


def seen_after(portal: Portal, measure: Callable[[Picture], float], is_so: Callable[[float], bool]) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so(value := measure(picture_of(portal))):
        assert time.monotonic() < deadline_s, value
