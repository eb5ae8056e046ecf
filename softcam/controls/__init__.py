"""Camera controls: validation, mapping to libcamera, persistence, and sending to the camera.

No thread of its own but the writer's: request threads, the camera thread and the camera's frame thread run it.
"""
