"""RTSP: the server for viewers of the H.264 stream, the publisher to another server, and RTP for both."""
