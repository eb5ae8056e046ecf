"""H.264 over HTTP, for players in browsers and everywhere: `/stream.mp4`. Runs on the threads of requests."""

from collections.abc import Mapping
from socket import socket
from typing import Any, Final, get_args

from softcam.h264.backend import BackendName
from softcam.h264.encoder import VideoEncoder
from softcam.mp4.fragment import CONTENT_TYPE
from softcam.streaming.clients import StreamClient
from softcam.streaming.fanout import FanOut
from softcam.streaming.fmp4_channel import Fmp4Stream
from softcam.web.api.media import HEADERS, MediaApi
from softcam.web.http.messages import AnyResponse, Request, Response, StreamingResponse
from softcam.web.http.router import Doc, Route

# When the movie's time was 0, in Unix seconds: a player can tell the age of what it shows.
_ZERO: Final = "X-Timestamp-Zero"
_DOC: Final = Doc(
    "The live picture, H.264",
    "pictures",
    {200: {CONTENT_TYPE: None}},
    description="Fragmented MP4 without end, which begins with a keyframe. It ends when the size of the pictures "
    f"changes; ask again. {_ZERO} is when the movie's time was 0, in Unix seconds.",
    errors=(409, 503),
)
_H264: Final[Mapping[str, Mapping[str, Any]]] = {
    "width": {"type": "integer"},
    "height": {"type": "integer"},
    "encoder": {"enum": [*get_args(BackendName)], "description": "the machine's own, or libx264 on its processor"},
    "bitrate": {"type": "integer", "description": "measured, in bits a second"},
    "encoded": {"type": "integer", "description": "frames, since the portal started"},
    "skipped": {"type": "integer", "description": "frames that came while the encoder was busy"},
    "keyframes": {"type": "integer"},
    "last_error": {"type": ["string", "null"]},
}
H264_SHAPE: Final[Mapping[str, Mapping[str, Any]]] = {
    "h264": {
        "type": ["object", "null"],
        "properties": _H264,
        "required": list(_H264),
        "additionalProperties": False,
        "description": "the encoder; null while nobody takes H.264",
    }
}


class H264StreamApi:
    """Answers for `/stream.mp4`."""

    def __init__(self, media: MediaApi, video: VideoEncoder, movie: Fmp4Stream, fanout: FanOut) -> None:
        """`media` has the places for viewers, which pictures and movies share."""
        self._media = media
        self._video = video
        self._movie = movie
        self._fanout = fanout

    def routes(self) -> list[Route]:
        return [Route(("/stream.mp4",), self.stream, doc=_DOC)]

    def stream(self, request: Request) -> AnyResponse:
        """Raises NotSupported where this machine cannot encode."""
        manager = self._media.require_camera()
        self._video.require()
        if not request.expects_body:
            return Response(b"", CONTENT_TYPE, headers=self._headers())
        _, release = self._media.acquire_slot(manager)

        def start(connection: socket) -> None:
            self._fanout.add(StreamClient(connection, request.client, self._movie, 0.0, release))

        return StreamingResponse(start, release, CONTENT_TYPE, self._headers())

    def status(self) -> dict[str, Any]:
        """The field of the status, as H264_SHAPE has it."""
        status = self._video.status()
        if status.fmt is None:  # so is the backend
            return {"h264": None}
        told = {
            "width": status.fmt.width,
            "height": status.fmt.height,
            "encoder": status.backend,
            "bitrate": round(status.bitrate or 0.0),
            "encoded": status.encoded,
            "skipped": status.skipped,
            "keyframes": status.keyframes,
            "last_error": status.last_error,
        }
        return {"h264": told}

    def _headers(self) -> Mapping[str, str]:
        zero = f"{self._movie.zero_timestamp_s:.6f}"
        return {**HEADERS, "Access-Control-Expose-Headers": _ZERO, _ZERO: zero}
