"""The RTSP server: connections, requests, sessions and viewers, all on the event loop."""
