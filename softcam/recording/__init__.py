"""Recordings: video and time-lapse recorders, the folder they write to, its size limit and recovery after a crash."""
