"""The memory of an open camera's pictures: kept over the switch to a still and back. Of the camera thread alone.

By itself Picamera2 frees all buffers at each configuration and takes new ones; on a Raspberry Pi they come out of the
contiguous memory, which is scarce and falls to pieces over many stills until none fits (picamera2 #869, #1102, #1130).
Its PersistentAllocator keeps a set of buffers for each `use_case`, and looks at nothing else: a set is used for
whatever is configured under its name, however large. So the name has all that the size depends on here.

At most two sets are kept: the stream's and that of the last still. Where the memory does not suffice for both at once,
the kept one goes, as it would without this. In a release without that allocator everything is as Picamera2 does it.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from softcam.camera.picamera.library import TROUBLES, persistent_allocator

log = logging.getLogger(__name__)


class Buffers:
    """Those of one opening."""

    def __init__(self, picam2: Any) -> None:
        """Takes the place of what `picam2` has allocated so far."""
        self._picam2 = picam2
        self._stream_set: str | None = None
        self._still_set: str | None = None
        self._configured: str | None = None
        self._allocator = persistent_allocator()
        if self._allocator is not None:
            picam2.allocator = self._allocator

    def configure(self, config: Mapping[str, Any], *, is_stream: bool) -> None:
        """`picam2.configure`, with the buffers that belong to `config`; leaves `config` as it is."""
        if self._allocator is None:
            self._picam2.configure(_own(config))
            return
        name = _name_of(config)
        if is_stream:
            self._stream_set = name
        else:
            self._still_set = name
        self._drop_but(self._stream_set, self._still_set)
        try:
            self._allocate(config, name)
        except OSError as error:
            if not any(other != name for other in self._allocator.buffer_dict):
                raise
            log.info("Not enough memory for two sets of pictures (%s): the other one is given up", error)
            self._drop_but(name)
            self._allocate(config, name)

    def give_up_others(self) -> bool:
        """Free what is kept beside the configured set, for a camera that lacks memory to start; whether there was any.

        At its start libcamera takes memory of its own, out of the same scarce place.
        """
        if self._allocator is None or all(name == self._configured for name in self._allocator.buffer_dict):
            return False
        self._drop_but(self._configured)
        return True

    def close(self) -> None:
        """Free all. For a camera that is closed."""
        allocator, self._allocator = self._allocator, None
        if allocator is None:
            return
        self._drop_all(allocator)
        # PersistentAllocator's own close forgets the descriptor of the heap.
        heap, allocator.dmaHeap = allocator.dmaHeap, None
        if heap is not None:
            heap.close()

    def _allocate(self, config: Mapping[str, Any], name: str) -> None:
        self._configured = name
        try:
            self._picam2.configure({**_own(config), "use_case": name})
        except OSError:
            self._drop_partial(name)
            raise

    def _drop_but(self, *kept: str | None) -> None:
        for name in [name for name in self._allocator.buffer_dict if name not in kept]:
            self._drop(self._allocator, name)

    def _drop_all(self, allocator: Any) -> None:
        for name in list(allocator.buffer_dict):
            self._drop(allocator, name)

    def _drop_partial(self, name: str) -> None:
        """What was allocated before the memory ended: the allocator has no name for it yet, and would never free it."""
        allocator = self._allocator
        if name in allocator.buffer_dict:
            return
        allocator.buffer_dict[name] = (
            allocator.open_fds,
            allocator.libcamera_fds,
            allocator.frame_buffers,
            allocator.mapped_buffers,
            allocator.mapped_buffers_used,
        )
        self._drop(allocator, name)
        allocator.open_fds, allocator.libcamera_fds, allocator.frame_buffers = [], [], {}
        allocator.mapped_buffers, allocator.mapped_buffers_used = {}, {}

    @staticmethod
    def _drop(allocator: Any, name: str) -> None:
        try:
            allocator.deallocate(name)
        except (KeyError, *TROUBLES) as error:
            # Somebody still looks into one of them; its memory goes when he is done. The descriptors are not needed for
            # that, and the list is emptied because the allocator's own end closes what is in it.
            log.warning("Buffers of the camera could not be freed: %s", error)
            descriptors = allocator.buffer_dict.pop(name, ([],))[0]
            # OSError comes out of closing them: some are closed already, and their numbers may be others' by now.
            if not isinstance(error, OSError):
                for descriptor in descriptors:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            descriptors.clear()


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """Picamera2 writes what was negotiated into the dictionaries within, and what was asked shall stay as it is."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}


def _name_of(config: Mapping[str, Any]) -> str:
    """All that the sizes and the number of buffers depend on."""
    parts = [f"{config['buffer_count']} buffers"]
    for stream in ("main", "lores", "raw"):
        one = config.get(stream)
        if one is not None:
            parts.append(f"{stream} {one.get('format')} {one.get('size')}")
    if config.get("sensor"):
        parts.append(f"sensor {config['sensor']}")
    return ", ".join(parts)
