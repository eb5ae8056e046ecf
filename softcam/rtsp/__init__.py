"""RTSP: publishing the H.264 stream to a server."""
