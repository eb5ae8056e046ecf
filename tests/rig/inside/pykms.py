"""A stub for Picamera2's import of pykms, which shows previews without a desktop; the rig has no screen."""

_FORMATS = ("RGB888", "BGR888", "XRGB8888", "XBGR8888", "YUV420", "YVU420", "NV12", "YUYV", "MJPEG")

# Picamera2 builds a table of these at import and uses it only for previews.
PixelFormat = type("PixelFormat", (), dict.fromkeys(_FORMATS))
