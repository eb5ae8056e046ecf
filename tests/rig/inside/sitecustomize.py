"""Python runs this at its start, in every process of the rig: it arranges for the bridges, and imports nothing itself.

A process that never imports libcamera (the probe, a portal on the pattern camera) stays as it would be without the
rig. `virtual_cameras.py` beside this file says what is bridged.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys

_H264 = "/opt/rig/hardware_h264.py"


class _Bridged(importlib.abc.Loader):
    """Loads libcamera as ever and patches it before anyone else can use it."""

    def __init__(self, loader):
        self._loader = loader

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        self._loader.exec_module(module)
        import virtual_cameras

        virtual_cameras.bridge(module)


class _WhenImported(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "picamera2.encoders.h264_encoder" and os.environ.get("RIG_H264"):
            return importlib.util.spec_from_file_location(name, _H264)
        if name != "libcamera":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Bridged(spec.loader)
        return spec


sys.meta_path.insert(0, _WhenImported())
