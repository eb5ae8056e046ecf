"""HLS: segments of the H.264 stream in memory, and the playlist of the newest ones."""
