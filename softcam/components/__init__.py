"""Builds the components of a portal from the settings, bottom up: camera, media, outputs, web. Runs on the main thread.

Each builder returns what it built as an immutable record, which the next ones get as an argument. Nothing is started
here: `softcam.application` does that. Only this package, that module and `softcam.app` use the settings; components get
plain arguments.
"""
