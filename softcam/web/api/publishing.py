"""Publishing by RTSP as programs see it: start it, stop it, ask how it goes. Runs on the threads of requests."""

from collections.abc import Mapping
from typing import Any, Final

from softcam.errors import NotSupported
from softcam.rtsp.publisher import Publisher, State
from softcam.web.http import body
from softcam.web.http.body import NO_FIELDS
from softcam.web.http.messages import AnyResponse, Request, camera_disabled, json_response
from softcam.web.http.router import Doc, Route

_ANSWER: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {"status": {"const": "ok"}, "streaming": {"type": "boolean"}},
    "required": ["status", "streaming"],
    "additionalProperties": False,
}
_START_DOC: Final = Doc(
    "Publish H.264 to the RTSP server",
    "streaming",
    {200: {"application/json": _ANSWER}},
    "Answers at once, also while the server is away: it is tried until it is there. The status says how that goes.",
    errors=(400, 409, 503),
)
_STOP_DOC: Final = Doc("Stop publishing H.264", "streaming", {200: {"application/json": _ANSWER}}, errors=(400, 503))

_PUBLISHING: Final[Mapping[str, Mapping[str, Any]]] = {
    "state": {"enum": [state.value for state in State]},
    "url": {"type": "string", "description": "the server's address, without user, password and query"},
    "since": {"type": ["number", "null"], "description": "Unix seconds"},
    "reconnects": {"type": "integer"},
    "last_error": {"type": ["string", "null"]},
}
# The fields of the status.
STREAMING_SHAPE: Final[Mapping[str, Mapping[str, Any]]] = {
    "streaming": {"type": "boolean", "description": "whether H.264 is to be published; `publishing` says how it goes"},
    "publishing": {
        "type": ["object", "null"],
        "properties": _PUBLISHING,
        "required": list(_PUBLISHING),
        "additionalProperties": False,
        "description": "null where no rtsp_url is set",
    },
}


class Streaming:
    """Starts and stops the publisher."""

    def __init__(self, publisher: Publisher | None, *, has_camera: bool) -> None:
        """`publisher` is None where no address is set, or where there is no camera to publish."""
        self._publisher = publisher
        self._has_camera = has_camera

    def routes(self) -> list[Route]:
        return [
            Route(("/v1/streaming/start", "/streaming/start"), self.start, "POST", doc=_START_DOC),
            Route(("/v1/streaming/stop", "/streaming/stop"), self.stop, "POST", doc=_STOP_DOC),
        ]

    def start(self, request: Request) -> AnyResponse:
        """Raises NotSupported where no address is set, and CameraError where the camera is given up or off."""
        body.read(request, NO_FIELDS)
        if not self._has_camera:
            raise camera_disabled()
        if self._publisher is None:
            raise NotSupported("rtsp_url is not set: --rtsp-url or CAMERA_RTSP_URL says where to publish")
        self._publisher.start()
        return json_response({"status": "ok", "streaming": True})

    def stop(self, request: Request) -> AnyResponse:
        """Done as well where nothing is published."""
        body.read(request, NO_FIELDS)
        if self._publisher is not None:
            self._publisher.stop()
        return json_response({"status": "ok", "streaming": False})

    def status(self) -> dict[str, Any]:
        """The fields of the status, as STREAMING_SHAPE has them."""
        if self._publisher is None:
            return {"streaming": False, "publishing": None}
        status = self._publisher.status()
        return {
            "streaming": status.state is not State.OFF,
            "publishing": {
                "state": status.state,
                "url": status.url,
                "since": None if status.since_s is None else round(status.since_s, 3),
                "reconnects": status.reconnects,
                "last_error": status.last_error,
            },
        }
