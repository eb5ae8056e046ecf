"""The live H.264 stream as fragmented MP4: `/stream.mp4`. Runs on the threads of requests."""

from dataclasses import dataclass
from typing import Any, Final, get_args

from softcam.h264.backend import BackendName
from softcam.h264.encoder import VideoEncoder
from softcam.mp4.fragment import CONTENT_TYPE
from softcam.streaming.fmp4_channel import Fmp4Stream
from softcam.web.api.json_schema import INTEGER, note, nullable, record
from softcam.web.api.media import HEADERS, MediaApi
from softcam.web.http.messages import AnyResponse, Request
from softcam.web.http.router import Doc, Route

# The Unix time of media time 0: a player can compute the age of what it shows.
_ZERO: Final = "X-Timestamp-Zero"
_DOC: Final = Doc(
    "Live H.264 stream",
    "pictures",
    {200: {CONTENT_TYPE: None}},
    description="Endless fragmented MP4 that starts with a keyframe. The response ends when the frame size changes; "
    f"request it again. {_ZERO} is the Unix time of media time 0.",
    errors=(409, 503),
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
# The field of the camera's status.
H264_SHAPE: Final = {"h264": record(_H264) | nullable("object") | note("the encoder; null while it does not run")}


@dataclass(frozen=True, slots=True)
class H264StreamApi:
    """Handles `/stream.mp4`. `media` connects the clients of all streams."""

    media: MediaApi
    video: VideoEncoder
    fmp4: Fmp4Stream

    def routes(self) -> list[Route]:
        return [Route(("/stream.mp4",), self.stream, doc=_DOC, accepts_query_key=True)]

    def stream(self, request: Request) -> AnyResponse:
        """Raises NotSupported if this machine cannot encode."""
        self.media.require_camera()
        self.video.require()
        return self.media.connect(request, CONTENT_TYPE, self._headers, lambda _: self.fmp4)

    def status(self) -> dict[str, Any]:
        """The field of the camera's status, described by `H264_SHAPE`."""
        status = self.video.status()
        if status.fmt is None:  # then the backend is None too
            return {"h264": None}
        h264 = {
            "width": status.fmt.width,
            "height": status.fmt.height,
            "encoder": status.backend,
            "bitrate": round(status.bitrate or 0.0),
            "encoded": status.encoded,
            "skipped": status.skipped,
            "keyframes": status.keyframes,
            "last_error": status.last_error,
        }
        return {"h264": h264}

    def _headers(self) -> dict[str, str]:
        zero = f"{self.fmp4.zero_timestamp_s:.6f}"
        return {**HEADERS, "Access-Control-Expose-Headers": _ZERO, _ZERO: zero}
