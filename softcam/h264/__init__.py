"""H.264: the shared encoder, its backends and packets, and the queue that hands packets to another thread."""
