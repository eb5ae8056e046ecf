"""Cameras: what one is (base), the kinds there are, and the holder that opens one only while somebody wants it."""
