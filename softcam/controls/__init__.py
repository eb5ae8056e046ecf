"""Camera controls: validation, mapping to libcamera, persistence, and sending to the camera."""
