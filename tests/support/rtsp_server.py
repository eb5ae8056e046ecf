"""GStreamer's RTSP server as a separate program: accepts streams published to /cam and counts their frames.

    /usr/bin/python3 rtsp_server.py PORT FILE [USER PASSWORD [basic|digest]]

With port 0 the system chooses one. It prints `listening on PORT`, `frame COUNT` for the frames of each stream, and
`gone` when a stream has ended; FILE gets all frames as H.264 in Annex B. For Debian's python3, which has gi.
"""

import itertools
import sys
from typing import Any

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after the versions were chosen

PIPELINE = "( rtph264depay name=depay0 ! video/x-h264,stream-format=byte-stream,alignment=au ! filesink location=%s )"
ROLE = "publisher"
NONE = "nobody"


def say(line: str) -> None:
    print(line, flush=True)


def count_frames(_factory: Any, media: Any) -> None:
    counter = itertools.count(1)

    def see(_pad: Any, _info: Any) -> Any:
        say(f"frame {next(counter)}")
        return Gst.PadProbeReturn.OK

    media.get_element().get_by_name("depay0").get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, see)
    media.connect("unprepared", lambda _media: say("gone"))


def ask_for_password(server: Any, factory: Any, user: str, password: str, method: str) -> None:
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", ROLE)
    if method == "digest":
        auth.set_supported_methods(2)  # GST_RTSP_AUTH_DIGEST
        auth.add_digest(user, password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(user, password), token)
    server.set_auth(auth)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role(ROLE, "media.factory.access", True)
    permissions.add_permission_for_role(ROLE, "media.factory.construct", True)
    factory.set_permissions(permissions)


def main() -> None:
    port, path, *credentials = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
    factory.set_launch(PIPELINE % path)
    factory.connect("media-configure", count_frames)
    if credentials:
        user, password, method = (*credentials, "basic")[:3]
        ask_for_password(server, factory, user, password, method)
    server.get_mount_points().add_factory("/cam", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} cannot be had")
    say(f"listening on {server.get_bound_port()}")
    GLib.MainLoop().run()


main()
