"""`/stream.mp4` and its smaller variant, without a server."""

from typing import Any

import pytest

from softcam.errors import NotSupported
from softcam.h264.bitrate import automatic_bitrate
from softcam.h264.encoder import VideoStatus
from softcam.web.api.h264_stream import H264StreamApi
from softcam.web.http.messages import HttpError
from tests.support.raw_http import make_request


class FakeMedia:
    """Records which stream a client is connected to."""

    def __init__(self) -> None:
        self.connected: list[Any] = []

    def require_camera(self) -> None:
        pass

    def connect(self, _request: Any, _content_type: str, headers: Any, source: Any) -> str:
        self.connected.append((source(None), headers()["X-Timestamp-Zero"]))
        return "response"


class FakeStream:
    def __init__(self, zero_timestamp_s: float) -> None:
        self.zero_timestamp_s = zero_timestamp_s


class FakeVideo:
    """An encoder that runs once it has a `target_bitrate`."""

    def __init__(self, target_bitrate: int | None = None) -> None:
        self._target_bitrate = target_bitrate

    def require(self) -> None:
        pass

    def bitrate(self, size: tuple[int, int], fps: float) -> int:
        return automatic_bitrate(size, fps)

    def status(self) -> VideoStatus:
        return VideoStatus(None, None, 0, 0, 0, 0, None, self._target_bitrate, None)


def make_api(media: FakeMedia, video: FakeVideo, *more: Any) -> Any:
    api: Any = H264StreamApi  # the fakes have only the methods that it calls
    return api(media, video, *(more or (FakeStream(0.0), None, None)), lambda: ((1920, 1080), 20.0))


@pytest.mark.parametrize(("query", "number"), [("", 0), ("?sub=0", 0), ("?sub=1", 1), ("?sub=yes", 1)])
def test_sub_selects_the_smaller_stream(query: str, number: int) -> None:
    media, streams = FakeMedia(), (FakeStream(1.5), FakeStream(2.5))
    api = make_api(media, FakeVideo(), streams[0], FakeVideo(), streams[1])
    assert api.stream(make_request(f"/stream.mp4{query}")) == "response"
    assert media.connected == [(streams[number], f"{number + 1}.500000")]


def test_sub_without_substream() -> None:
    api = make_api(FakeMedia(), FakeVideo())
    with pytest.raises(NotSupported, match="sub: requires --substream"):
        api.stream(make_request("/stream.mp4?sub=1"))


def test_invalid_sub() -> None:
    api = make_api(FakeMedia(), FakeVideo())
    with pytest.raises(HttpError, match="sub: must be 1 or 0"):
        api.stream(make_request("/stream.mp4?sub=x"))


def test_bitrate_in_the_status() -> None:
    idle = make_api(FakeMedia(), FakeVideo()).status()
    assert (idle["bitrate_bps"], idle["bitrate_mbps"]) == (8_985_600, 8.986), "what it would be"
    running = make_api(FakeMedia(), FakeVideo(3_000_000)).status()
    assert (running["bitrate_bps"], running["bitrate_mbps"]) == (3_000_000, 3.0)
