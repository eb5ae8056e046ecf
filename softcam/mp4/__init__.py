"""MP4: writes fragments, reads fragmented files and writes their index. No PyAV."""
