"""GStreamer's RTSP server as a separate program: serves the H.264 of an MP4 file at /cam in real time.

    /usr/bin/python3 rtsp_source.py PORT FILE [USER PASSWORD]

With port 0 the system chooses one. It prints `listening on PORT`. For Debian's python3, which has gi.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after the versions were chosen

ROLE = "viewer"


def main() -> None:
    port, path, *credentials = sys.argv[1:]
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(f"( filesrc location={path} ! qtdemux ! rtph264pay name=pay0 config-interval=-1 pt=96 )")
    if credentials:
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", ROLE)
        auth = GstRtspServer.RTSPAuth()
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*credentials), token)
        server.set_auth(auth)
        permissions = GstRtspServer.RTSPPermissions()
        for right in ("access", "construct"):
            permissions.add_permission_for_role(ROLE, f"media.factory.{right}", True)
        factory.set_permissions(permissions)
    server.get_mount_points().add_factory("/cam", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} cannot be had")
    print(f"listening on {server.get_bound_port()}", flush=True)
    GLib.MainLoop().run()


main()
