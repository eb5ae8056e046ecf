"""The live H.264 stream as HLS: `/stream.m3u8`, and what it leads to. Runs on the threads of requests."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from softcam.mp4.fragment import CONTENT_TYPE as SEGMENT_TYPE
from softcam.runtime.deadline import Deadline
from softcam.streaming.hls.playlist import FOLDER, is_playlist_name
from softcam.streaming.hls.stream import HlsStream
from softcam.web.api.json_schema import STRING
from softcam.web.api.media import HEADERS, MediaApi
from softcam.web.http.messages import AnyResponse, HttpError, Request, Response
from softcam.web.http.router import Doc, Parameter, Route

PLAYLIST_TYPE: Final = "application/vnd.apple.mpegurl"
# A name is never used again. For the viewer's own cache: a shared one would serve it to clients without a key.
_SEGMENT_HEADERS: Final = {**HEADERS, "Cache-Control": "private, max-age=30, immutable"}
_TIMEOUT_S: Final = 30.0  # until the first segment is complete
_PLAYLIST_DOC: Final = Doc(
    "Live H.264 stream, HLS",
    "pictures",
    {200: {PLAYLIST_TYPE: None}},
    "A multivariant playlist with one variant. The first response follows when the first segments are complete. The "
    "camera is released when there was no request for 10 s.",
    errors=(409, 503),
)
_NAME: Final = Parameter(
    "name", "the name of the playlist or segment", STRING | {"examples": ["live-1-1.m3u8"]}, "path"
)
_PART_DOC: Final = Doc(
    "Playlist or segment of the HLS stream",
    "pictures",
    {200: {PLAYLIST_TYPE: None, SEGMENT_TYPE: None}},
    "Addresses are in the playlists. Segments last about a second, and are available for some seconds after they have "
    "left the playlist.",
    parameters=(_NAME,),
    errors=(404, 409, 503),
)


@dataclass(frozen=True, slots=True)
class HlsApi:
    """Handles the playlists and the segments."""

    media: MediaApi
    stream: HlsStream
    require_encoder: Callable[[], None]  # raises NotSupported if this machine cannot encode

    def routes(self) -> list[Route]:
        return [
            Route(("/stream.m3u8",), self.variants, doc=_PLAYLIST_DOC, accepts_query_key=True),
            Route((f"/{FOLDER}/{{name}}",), self.part, doc=_PART_DOC, accepts_query_key=True),
        ]

    def variants(self, request: Request) -> AnyResponse:
        """The multivariant playlist; opens the camera if necessary."""
        return self._playlist(request, None, f"{FOLDER}/")

    def part(self, request: Request) -> AnyResponse:
        """A media playlist, which opens the camera if necessary, or a segment."""
        name = request.path_parameters["name"]
        if is_playlist_name(name):
            return self._playlist(request, name, "")
        content = self.stream.segment(name)
        if content is None:
            raise HttpError(HTTPStatus.NOT_FOUND, "name: must be in the current playlist")
        return Response(content, SEGMENT_TYPE, headers=_SEGMENT_HEADERS)

    def _playlist(self, request: Request, name: str | None, prefix: str) -> AnyResponse:
        self.media.require_camera()
        self.require_encoder()
        if not request.expects_body:
            return Response(b"", PLAYLIST_TYPE, headers=HEADERS)
        # Players request the addresses as they are in the playlist, so the key must be part of them.
        key = request.query.get("key")
        text = self.stream.playlist(
            name,
            request.client,
            Deadline.after(_TIMEOUT_S),
            prefix=f"../{prefix}" if request.path.endswith("/") else prefix,
            suffix="" if key is None else f"?key={quote(key, safe='')}",
        )
        return Response(text.encode("utf-8", "replace"), PLAYLIST_TYPE, headers=HEADERS)
