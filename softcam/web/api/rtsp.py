"""The portal's RTSP server in the camera's status. Runs on the threads of requests."""

from typing import Any, Final

from softcam.rtsp.server.server import RtspServer
from softcam.web.api.json_schema import INTEGER, STRING, note, nullable, record

_RTSP: Final = {"url": STRING | note("as seen from this machine"), "viewers": INTEGER}
# The field of the camera's status.
RTSP_SHAPE: Final = {"rtsp": record(_RTSP) | nullable("object") | note("the RTSP server; null without rtsp_port")}


def rtsp_status(server: RtspServer | None) -> dict[str, Any]:
    """The field that `RTSP_SHAPE` describes."""
    return {"rtsp": None if server is None else {"url": server.url, "viewers": server.viewer_count}}
