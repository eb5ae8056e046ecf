"""Buffers that are kept over the switch to a still, on a stand-in for Picamera2's PersistentAllocator."""

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
    """Keeps a set for each name and asks for no size, as the real one; has room for so many sets."""

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
        config["main"]["size"] = (1, 1)  # what was negotiated is written into it


def _config(width: int, **more: Any) -> dict[str, Any]:
    return {"buffer_count": 2, "main": {"size": (width, 100), "format": "YUV420"}, "raw": None, **more}


def _made(monkeypatch: pytest.MonkeyPatch, room: int = 9) -> tuple[Buffers, Allocator]:
    allocator = Allocator(room)
    monkeypatch.setattr(buffers_module, "persistent_allocator", lambda: allocator)
    camera = Camera()
    buffers = Buffers(camera)
    assert camera.allocator is allocator
    return buffers, allocator


def test_stills_of_one_size_take_no_memory_anew(monkeypatch: pytest.MonkeyPatch) -> None:
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
def test_no_set_is_used_for_what_may_be_larger(monkeypatch: pytest.MonkeyPatch, other: Mapping[str, Any]) -> None:
    buffers, allocator = _made(monkeypatch)
    buffers.configure(_config(640), is_stream=True)
    buffers.configure(other, is_stream=False)
    assert allocator.made == 2


def test_only_the_last_still_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, allocator = _made(monkeypatch)
    buffers.configure(_config(640), is_stream=True)
    for width in (800, 1600, 4608):
        buffers.configure(_config(width), is_stream=False)
    assert len(allocator.held_fds) == 2
    buffers.configure(_config(640), is_stream=True)
    assert allocator.made == 4


def test_memory_for_one_set_alone_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, allocator = _made(monkeypatch, room=1)
    buffers.configure(_config(640), is_stream=True)
    buffers.configure(_config(4608), is_stream=False)
    buffers.configure(_config(640), is_stream=True)
    assert len(allocator.held_fds) == 1


def test_nothing_is_left_of_what_did_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, allocator = _made(monkeypatch, room=0)
    with pytest.raises(OSError, match="Cannot allocate memory"):
        buffers.configure(_config(640), is_stream=True)
    assert allocator.held_fds == set()


def test_a_release_without_it_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers_module, "persistent_allocator", lambda: None)
    camera = Camera()
    buffers = Buffers(camera)
    asked = _config(640)
    buffers.configure(asked, is_stream=True)
    buffers.close()
    assert camera.allocator is None
    assert asked == _config(640)


def test_what_is_not_configured_is_given_up_for_a_start(monkeypatch: pytest.MonkeyPatch) -> None:
    buffers, allocator = _made(monkeypatch)
    buffers.configure(_config(640), is_stream=True)
    assert not buffers.give_up_others(), "there is no other"
    buffers.configure(_config(4608), is_stream=False)
    assert buffers.give_up_others()
    assert len(allocator.held_fds) == 1
    buffers.configure(_config(640), is_stream=True)
    assert allocator.made == 3


@pytest.mark.parametrize(
    ("trouble", "is_closed"),
    [
        pytest.param(BufferError("exported pointers exist"), True, id="before any was closed"),
        pytest.param(OSError(9, "Bad file descriptor"), False, id="while they were closed: the numbers may be others'"),
    ],
)
def test_descriptors_of_pictures_that_could_not_be_freed(
    monkeypatch: pytest.MonkeyPatch, trouble: Exception, is_closed: bool
) -> None:
    buffers, allocator = _made(monkeypatch)
    buffers.configure(_config(640), is_stream=True)
    ends = os.pipe()
    (descriptors, *_) = next(iter(allocator.buffer_dict.values()))
    descriptors[:] = ends

    def deallocate(use_case: str) -> None:
        raise trouble

    monkeypatch.setattr(allocator, "deallocate", deallocate)
    buffers.close()
    assert descriptors == [], "the allocator's own end closes what is in it"
    is_open = []
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)
            is_open.append(end)
    assert is_open == ([] if is_closed else list(ends))
