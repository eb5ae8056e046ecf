"""The buffers of an open camera, kept during the switch to a still and back. Only the camera thread calls this.

By default Picamera2 frees all buffers at each configuration and allocates new ones; on a Raspberry Pi they are in the
contiguous memory, which is scarce and gets fragmented by stills until none fits (picamera2 #869, #1102, #1130). Its
PersistentAllocator keeps a set of buffers for each `use_case`, whatever is configured under that name and however
large it is. So the name contains everything that the size depends on.

At most two sets are kept: the stream's and that of the last still. If the memory is too small for both, the unused one
is freed. Releases without that allocator work as usual.
"""

import contextlib
import logging
import os
from collections.abc import Mapping
from typing import Any

from softcam.camera.picamera.library import LIBRARY_ERRORS, persistent_allocator

log = logging.getLogger(__name__)


class Buffers:
    """The buffers of one opening."""

    def __init__(self, picam2: Any) -> None:
        """Replace the allocator of `picam2`."""
        self._picam2 = picam2
        self._kept: dict[bool, str] = {}  # the names of the stream's set (True) and of the last still's
        self._configured: str | None = None
        self._allocator = persistent_allocator()
        if self._allocator is not None:
            picam2.allocator = self._allocator

    def configure(self, config: Mapping[str, Any], *, is_stream: bool) -> None:
        """Call `picam2.configure` with the buffers that belong to `config`, which is not modified."""
        if self._allocator is None:
            self._picam2.configure(_copy(config))
            return
        name = _name_of(config)
        self._kept[is_stream] = name
        self._free_except(*self._kept.values())
        try:
            self._allocate(config, name)
        except OSError as error:
            if not self._free_except(name):
                raise
            log.info("Not enough memory for two sets of buffers (%s); freed the unused one", error)
            self._allocate(config, name)

    def free_unused(self) -> bool:
        """Free the buffers that are not configured, if any, for a camera without memory to start; returns if any were.

        When it starts, libcamera allocates in the same scarce memory.
        """
        return self._allocator is not None and self._free_except(self._configured)

    def close(self) -> None:
        """Free all buffers of a camera that is closed."""
        if self._allocator is None:
            return
        self._free_except()
        # PersistentAllocator's own close leaks the descriptor of the heap.
        heap, self._allocator.dmaHeap = self._allocator.dmaHeap, None
        self._allocator = None
        if heap is not None:
            heap.close()

    def _allocate(self, config: Mapping[str, Any], name: str) -> None:
        self._configured = name
        try:
            self._picam2.configure({**_copy(config), "use_case": name})
        except OSError:
            self._free_partial(name)
            raise

    def _free_except(self, *kept: str | None) -> bool:
        """Free all other sets; returns if there were any."""
        unused = self._allocator.buffer_dict.keys() - set(kept)
        for name in unused:
            self._free(name)
        return bool(unused)

    def _free_partial(self, name: str) -> None:
        """Free what was allocated before the memory was exhausted: the allocator has not registered it yet."""
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
        self._free(name)
        allocator.open_fds, allocator.libcamera_fds, allocator.frame_buffers = [], [], {}
        allocator.mapped_buffers, allocator.mapped_buffers_used = {}, {}

    def _free(self, name: str) -> None:
        try:
            self._allocator.deallocate(name)
        except (KeyError, *LIBRARY_ERRORS) as error:
            # A buffer is still mapped; its memory is freed with the mapping, which does not need the descriptors. The
            # list is emptied because the allocator's destructor closes the descriptors in it.
            log.warning("Failed to free camera buffers: %s", error)
            descriptors = self._allocator.buffer_dict.pop(name, ([],))[0]
            # An OSError means that closing them failed: some are closed, and their numbers may be in use again.
            if not isinstance(error, OSError):
                for descriptor in descriptors:
                    with contextlib.suppress(OSError):
                        os.close(descriptor)
            descriptors.clear()


def _copy(config: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a configuration: Picamera2 writes the negotiated values into its inner dictionaries."""
    return {key: dict(value) if isinstance(value, dict) else value for key, value in config.items()}


def _name_of(config: Mapping[str, Any]) -> str:
    """A name with everything that the sizes and the number of buffers depend on."""
    streams = ((name, config.get(name)) for name in ("main", "lores", "raw"))
    sizes = [f"{name} {stream.get('format')} {stream.get('size')}" for name, stream in streams if stream is not None]
    return ", ".join([f"{config['buffer_count']} buffers", *sizes, f"sensor {config.get('sensor')}"])
