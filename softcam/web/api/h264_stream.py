"""The live H.264 stream as fragmented MP4: `/stream.mp4`. Runs on the threads of requests."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, get_args

from softcam.errors import NotSupported
from softcam.h264.backend import BackendName
from softcam.h264.encoder import VideoEncoder
from softcam.mp4.fragment import CONTENT_TYPE
from softcam.streaming.fmp4_channel import Fmp4Stream
from softcam.web.api.json_schema import INTEGER, NUMBER, note, nullable, record
from softcam.web.api.media import HEADERS, MediaApi
from softcam.web.http import query
from softcam.web.http.messages import AnyResponse, Request
from softcam.web.http.router import Doc, Route

# The Unix time of media time 0: a player can compute the age of what it shows.
_ZERO: Final = "X-Timestamp-Zero"
_SUB: Final = query.boolean("sub", "the smaller stream that --substream configures")
_DOC: Final = Doc(
    "Live H.264 stream",
    "pictures",
    {200: {CONTENT_TYPE: None}},
    description="Endless fragmented MP4 that starts with a keyframe. The response ends when the frame size changes; "
    f"request it again. {_ZERO} is the Unix time of media time 0.",
    parameters=(_SUB,),
    errors=(400, 409, 503),
    is_endless=True,
)
_H264: Final = {
    "width": INTEGER,
    "height": INTEGER,
    "encoder": {"enum": [*get_args(BackendName)]} | note("hardware, or libx264 on the processor"),
    "bitrate": INTEGER | note("measured, in bits per second"),
    "encoded": INTEGER | note("frames since the portal started"),
    "skipped": INTEGER | note("frames that arrived while the encoder was busy"),
    "keyframes": INTEGER,
    "last_error": nullable("string"),
}
# The fields of the camera's status.
H264_SHAPE: Final = {
    "bitrate_bps": INTEGER | note("what H.264 is encoded with, or would be now"),
    "bitrate_mbps": NUMBER | note("the same in Mbit/s"),
    "h264": record(_H264) | nullable("object") | note("the encoder; null while it does not run"),
    "h264_substream": record(_H264) | nullable("object") | note("the encoder of the smaller stream"),
}


@dataclass(frozen=True, slots=True)
class H264StreamApi:
    """Handles `/stream.mp4`.

    `media` connects the clients of all streams. `stream_format` returns size and frame rate of the camera's stream.
    Without a substream its encoder and its stream are None.
    """

    media: MediaApi
    video: VideoEncoder
    fmp4: Fmp4Stream
    substream: VideoEncoder | None
    fmp4_substream: Fmp4Stream | None
    stream_format: Callable[[], tuple[tuple[int, int], float]]

    def routes(self) -> list[Route]:
        return [Route(("/stream.mp4", "/video.mp4"), self.stream, doc=_DOC, accepts_query_key=True)]

    def stream(self, request: Request) -> AnyResponse:
        """Raises NotSupported if this machine cannot encode."""
        self.media.require_camera()
        is_sub = _SUB.read(request.query)
        video, fmp4 = (self.substream, self.fmp4_substream) if is_sub else (self.video, self.fmp4)
        if video is None or fmp4 is None:
            raise NotSupported("sub: requires --substream, such as 640x360@5")
        video.require()
        return self.media.connect(request, CONTENT_TYPE, lambda: _headers(fmp4), lambda _: fmp4)

    def status(self) -> dict[str, Any]:
        """The fields of the camera's status, described by `H264_SHAPE`."""
        bitrate_bps = self.video.status().target_bitrate or self.video.bitrate(*self.stream_format())
        return {
            "bitrate_bps": bitrate_bps,
            "bitrate_mbps": round(bitrate_bps / 1e6, 3),
            "h264": _status_of(self.video),
            "h264_substream": _status_of(self.substream),
        }


def _status_of(video: VideoEncoder | None) -> dict[str, Any] | None:
    status = None if video is None else video.status()
    if status is None or status.fmt is None:  # then the backend is None too
        return None
    return {
        "width": status.fmt.width,
        "height": status.fmt.height,
        "encoder": status.backend,
        "bitrate": round(status.bitrate or 0.0),
        "encoded": status.encoded,
        "skipped": status.skipped,
        "keyframes": status.keyframes,
        "last_error": status.last_error,
    }


def _headers(fmp4: Fmp4Stream) -> dict[str, str]:
    zero = f"{fmp4.zero_timestamp_s:.6f}"
    return {**HEADERS, "Access-Control-Expose-Headers": _ZERO, _ZERO: zero}
