"""Publishing to an RTSP server over HTTP: start, stop, status. Runs on the threads of requests."""

from dataclasses import dataclass
from typing import Any, Final

from softcam.errors import NotSupported
from softcam.rtsp.publisher.publisher import Publisher, PublisherState
from softcam.web.api.json_schema import BOOLEAN, INTEGER, STATUS_OK, STRING, json_ok, note, nullable, record
from softcam.web.http import body
from softcam.web.http.messages import AnyResponse, Request, camera_disabled, json_response
from softcam.web.http.router import Doc, Route

_RESPONSE: Final = json_ok(record({**STATUS_OK, "streaming": BOOLEAN}))
_START_DOC: Final = Doc(
    "Publish H.264 to the RTSP server",
    "streaming",
    _RESPONSE,
    "Returns at once, also while the server is unreachable; the portal retries until it is stopped. `publishing` in "
    "the camera's status reports the state.",
    errors=(400, 409, 503),
)
_STOP_DOC: Final = Doc("Stop publishing H.264", "streaming", _RESPONSE, errors=(400, 503))

_PUBLISHING: Final = {
    "state": {"enum": [state.value for state in PublisherState]}
    | note("`waiting`: the camera delivers no frames; `failed`: retrying because of `last_error`"),
    "url": STRING | note("the server's address, without user, password and query"),
    "since": nullable("number") | note("Unix seconds"),
    "reconnects": INTEGER,
    "last_error": nullable("string"),
}
# The fields of the camera's status.
STREAMING_SHAPE: Final = {
    "streaming": BOOLEAN | note("whether publishing is requested; `publishing` has its state"),
    "publishing": record(_PUBLISHING) | nullable("object") | note("null if rtsp_url is not configured"),
}


@dataclass(frozen=True, slots=True)
class PublishingApi:
    """Handles `/v1/streaming`. `publisher` is None if no address is configured or the camera is disabled."""

    publisher: Publisher | None
    has_camera: bool

    def routes(self) -> list[Route]:
        return [
            Route(("/v1/streaming/start", "/streaming/start"), self.start, "POST", doc=_START_DOC),
            Route(("/v1/streaming/stop", "/streaming/stop"), self.stop, "POST", doc=_STOP_DOC),
        ]

    def start(self, request: Request) -> AnyResponse:
        """Raises NotSupported if no address is configured, and CameraError if the camera is unavailable."""
        body.read(request, body.NO_FIELDS)
        if not self.has_camera:
            raise camera_disabled()
        if self.publisher is None:
            raise NotSupported("rtsp_url: not configured; set the server by --rtsp-url or CAMERA_RTSP_URL")
        self.publisher.start()
        return json_response({"status": "ok", "streaming": True})

    def stop(self, request: Request) -> AnyResponse:
        """Succeeds also if nothing is published."""
        body.read(request, body.NO_FIELDS)
        self.stop_publishing()
        return json_response({"status": "ok", "streaming": False})

    def stop_publishing(self) -> None:
        """As `stop`, for a request that changes something else as well."""
        if self.publisher is not None:
            self.publisher.stop()

    def status(self) -> dict[str, Any]:
        """The fields of the camera's status, described by `STREAMING_SHAPE`."""
        if self.publisher is None:
            return {"streaming": False, "publishing": None}
        status = self.publisher.status()
        publishing = {
            "state": status.state,
            "url": status.url,
            "since": None if status.since_s is None else round(status.since_s, 3),
            "reconnects": status.reconnects,
            "last_error": status.last_error,
        }
        return {"streaming": status.state is not PublisherState.OFF, "publishing": publishing}
