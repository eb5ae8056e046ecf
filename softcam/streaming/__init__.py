"""MJPEG, fMP4 and HLS streams: encoding once, and sending to many clients; also the hook that changes frames."""
