"""Cameras of libcamera, through Picamera2: everything that depends on either of them."""
