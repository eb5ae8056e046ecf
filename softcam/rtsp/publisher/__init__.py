"""The RTSP publisher: an RTSP client that sends the H.264 stream to a server, on a thread that exists meanwhile."""
