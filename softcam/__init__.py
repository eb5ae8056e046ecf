"""The parts of the camera portal. `soft_stream.py` beside this package starts it; nothing happens on import."""

__version__ = "0.1.0"
