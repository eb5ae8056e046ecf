"""H.264: the encoder, fragmented MP4, publishing by RTSP, recordings. The only importers of PyAV, each late."""
