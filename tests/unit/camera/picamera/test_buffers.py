"""Buffers that are kept during the switch to a still, with a fake of Picamera2's PersistentAllocator."""

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import pytest

from softcam.camera.picamera import buffers as buffers_module
from softcam.camera.picamera.buffers import Buffers


class Heap:
    def __init__(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False


class Allocator:
    """Keeps a set for each name whatever its size, as the real one; `room` is the number of sets that fit."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.dmaHeap = Heap()
        self.buffer_dict: dict[str, tuple[Any, ...]] = {}
        self.open_fds: list[int] = []
        self.libcamera_fds: list[int] = []
        self.frame_buffers: dict[str, int] = {}
        self.mapped_buffers: dict[str, int] = {}
        self.mapped_buffers_used: dict[str, int] = {}
        self.made = 0
        self.held_fds: set[int] = set()

    def allocate(self, use_case: str) -> None:
        self.open_fds = []
        if use_case in self.buffer_dict:
            return
        self.made += 1
        self.open_fds = [self.made]
        self.held_fds.add(self.made)
        if len(self.buffer_dict) >= self.room:
            raise OSError(12, "Cannot allocate memory")
        rest = (self.libcamera_fds, self.frame_buffers, self.mapped_buffers, self.mapped_buffers_used)
        self.buffer_dict[use_case] = (self.open_fds, *rest)

    def deallocate(self, use_case: str) -> None:
        self.held_fds -= set(self.buffer_dict.pop(use_case)[0])


class Camera:
    def __init__(self) -> None:
        self.allocator: Any = None

    def configure(self, config: dict[str, Any]) -> None:
        if self.allocator is not None:
            self.allocator.allocate(config["use_case"])
        config["main"]["size"] = (1, 1)  # the negotiated values are written into it


def _config(width: int, **more: Any) -> dict[str, Any]:
    return {"buffer_count": 2, "main": {"size": (width, 100), "format": "YUV420"}, "raw": None, **more}


def _made(monkeypatch: pytest.MonkeyPatch, room: int = 9) -> tuple[Buffers, Allocator]:
    allocator = Allocator(room)
    monkeypatch.setattr(buffers_module, "persistent_allocator", lambda: allocator)
    camera = Camera()
    buffers = Buffers(camera)
    assert camera.allocator is allocator
    return buffers, allocator


def test_buffers_are_reused_for_same_size(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, allocator = _made(monkeypatch)
    stream = _config(640)
    for _ in range(3):
        buffers.configure(stream, is_stream=True)
        buffers.configure(_config(4608), is_stream=False)
    assert allocator.made == 2
    assert stream == _config(640)
    heap = allocator.dmaHeap
    buffers.close()
    assert (allocator.held_fds, heap.is_open) == (set(), False)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(_config(2304), id="size"),
        pytest.param(_config(640, main={"size": (640, 100), "format": "NV12"}), id="format"),
        pytest.param(_config(640, raw={"size": (4608, 2592)}), id="raw"),
        pytest.param(_config(640, sensor={"output_size": (4608, 2592), "bit_depth": 10}), id="sensor"),
        pytest.param(_config(640, buffer_count=6), id="number"),
    ],
)
def test_other_configuration_has_its_own_buffers(monkeypatch: pytest.MonkeyPatch, other: Mapping[str, Any]) -> None:
    buffers, allocator = _made(monkeypatch)
    buffers.configure(_config(640), is_stream=True)
    buffers.configure(other, is_stream=False)
    assert allocator.made == 2


def test_only_last_still_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, allocator = _made(monkeypatch)
    buffers.configure(_config(640), is_stream=True)
    for width in (800, 1600, 4608):
        buffers.configure(_config(width), is_stream=False)
    assert len(allocator.held_fds) == 2
    buffers.configure(_config(640), is_stream=True)
    assert allocator.made == 4


def test_memory_for_one_set(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, allocator = _made(monkeypatch, room=1)
    buffers.configure(_config(640), is_stream=True)
    buffers.configure(_config(4608), is_stream=False)
    buffers.configure(_config(640), is_stream=True)
    assert len(allocator.held_fds) == 1


def test_partial_allocation_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, allocator = _made(monkeypatch, room=0)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        buffers.configure(_config(640), is_stream=True)
    assert allocator.held_fds == set()


def test_release_without_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers_module, "persistent_allocator", lambda: None)
    camera = Camera()
    buffers = Buffers(camera)
    requested = _config(640)
    buffers.configure(requested, is_stream=True)
    buffers.close()
    assert camera.allocator is None
    assert requested == _config(640)


def test_free_unused(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, allocator = _made(monkeypatch)
    buffers.configure(_config(640), is_stream=True)
    assert not buffers.free_unused(), "no unused set"
    buffers.configure(_config(4608), is_stream=False)
    assert buffers.free_unused()
    assert len(allocator.held_fds) == 1
    buffers.configure(_config(640), is_stream=True)
    assert allocator.made == 3


@pytest.mark.parametrize(
    ("error", "is_closed"),
    [
        pytest.param(BufferError("exported pointers exist"), True, id="before any was closed"),
        pytest.param(
            OSError(9, "Bad file descriptor"), False, id="while they were closed: numbers may be in use again"
        ),
    ],
)
def test_descriptors_of_buffers_that_cannot_be_freed(
    monkeypatch: pytest.MonkeyPatch, error: Exception, is_closed: bool
) -> None:
    buffers, allocator = _made(monkeypatch)
    buffers.configure(_config(640), is_stream=True)
    ends = os.pipe()
    (descriptors, *_) = next(iter(allocator.buffer_dict.values()))
    descriptors[:] = ends

    def deallocate(use_case: str) -> None:
        raise error

    monkeypatch.setattr(allocator, "deallocate", deallocate)
    buffers.close()
    assert descriptors == [], "the allocator's destructor closes the descriptors in the list"
    is_open = []
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)
            is_open.append(end)
    assert is_open == ([] if is_closed else list(ends))
