"""Cameras that other programs own: network streams, files and devices."""
