"""Camera controls: validation, mapping to libcamera, persistence, and sending to the camera.

The only thread here is the writer's: request threads, the camera thread and the camera's frame thread run it.
"""
