"""Frames and images in memory: pixel formats, scaling, JPEG, EXIF and DNG; no camera and no network."""
