"""Satisfies Picamera2's import for previews on a screen without a desktop; the rig has no screen, so this is empty."""

_FORMATS = ("RGB888", "BGR888", "XRGB8888", "XBGR8888", "YUV420", "YVU420", "NV12", "YUYV", "MJPEG")

# Picamera2 builds a table of these at import and looks into it only when it draws.
PixelFormat = type("PixelFormat", (), dict.fromkeys(_FORMATS))
