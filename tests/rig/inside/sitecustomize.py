"""Runs at the start of every Python process in the rig: installs import hooks, and imports nothing itself.

Processes that never import libcamera (measure_fps.py, a portal with the pattern camera) are not changed.
`virtual_cameras.py` describes the patches.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_H264 = "/opt/rig/hardware_h264.py"


class _Bridged(importlib.abc.Loader):
    """Loads libcamera and patches it before it can be used."""

    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        import virtual_cameras

        virtual_cameras.bridge(module)


class _WhenImported(importlib.abc.MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name == "picamera2.encoders.h264_encoder" and os.environ.get("RIG_H264"):
            return importlib.util.spec_from_file_location(name, _H264)
        if name != "libcamera":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Bridged(spec.loader)
        return spec


sys.meta_path.insert(0, _WhenImported())
