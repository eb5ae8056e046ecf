"""Python runs this at its start, in every process of the rig: it arranges for the bridges, and imports nothing itself.

A process that never imports libcamera (the probe, a portal on the pattern camera) stays as it would be without the
rig. `virtual_cameras.py` beside this file says what is bridged.
"""

import importlib.abc
import importlib.machinery
import sys


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
        if name != "libcamera":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader = _Bridged(spec.loader)
        return spec


sys.meta_path.insert(0, _WhenImported())
