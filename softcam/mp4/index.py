"""Reads fragmented MP4 files, and writes the index of a finished one (ISO/IEC 14496-12).

A recording is written as fragments, so that it plays whatever interrupts it. More players support the index of an
ordinary MP4 file, and seek better with it, so a finished recording gets one after its fragments, and a header that
turns everything in between into a single `mdat` box. Until then a `free` box is in the place of that header and marks
unfinished files. Only files whose fragments were written by `mp4.fragment` are ever unfinished; finished ones may be
from any program.

FFmpeg writes such files itself with `movflags=hybrid_fragmented`, from libavformat 61.7 on (FFmpeg 7.1). This module is
needed as long as Debian 12, which has libavformat 59, is supported (until June 2028).

Starts no thread and uses no PyAV; the writer's thread calls.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from softcam.mp4.fragment import FTYP, IS_NON_SYNC, MAX_TICKS, box, full_box, parse_moof

MDAT_PLACEHOLDER: Final = struct.pack(">I4sQ", 16, b"free", 0)  # of the size of an `mdat` header with a 64-bit length

_MAX_READ_BYTES: Final = 1 << 26  # larger boxes were not written here
_MAX_HEADER_BYTES: Final = 4096  # before the first fragment
_CONTAINERS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})
_DURATION_AT: Final = {b"mvhd": 16, b"tkhd": 20, b"mdhd": 16}  # offsets in the headers
_SAMPLE: Final = np.dtype([("ticks", ">u4"), ("size", ">u4"), ("flags", ">u4")])
_Numbers = npt.NDArray[Any]


class InvalidMp4(ValueError):
    """The file is not an MP4 file, or has a structure that is not written here."""


class _Chunk(NamedTuple):
    """The samples of a fragment."""

    at: int  # offset in the file
    begin_ticks: int
    samples: int


@dataclass(slots=True)
class Mp4Info:
    """The content of a file. `end` is the offset after the last whole fragment; times are in ticks of the media."""

    width: int
    height: int
    ticks_per_s: int
    duration_ticks: int
    is_finished: bool
    end: int
    header_at: int | None  # offset of the placeholder
    moov: bytes
    # Of unfinished files:
    chunks: list[_Chunk] = field(default_factory=list, init=False)
    samples: bytearray = field(default_factory=bytearray, init=False)

    @property
    def duration_s(self) -> float:
        return self.duration_ticks / self.ticks_per_s

    def add_fragment(self, moof: bytes, data_at: int, data_bytes: int) -> None:
        """List the samples of a whole fragment. Raises InvalidMp4."""
        try:
            begin_ticks, samples = parse_moof(moof)
            table = np.frombuffer(samples, _SAMPLE)
            if table["size"].sum(dtype=np.uint64) != data_bytes:
                raise ValueError("the samples are not as long as their data")
        except ValueError as error:
            raise InvalidMp4(f"damaged fragment at {data_at - 8 - len(moof)}") from error
        ticks = table["ticks"]
        self.chunks.append(_Chunk(data_at, begin_ticks, len(ticks)))
        self.samples += samples
        self.duration_ticks = begin_ticks + int(ticks.sum(dtype=np.uint64))
        self.end = data_at + data_bytes

    def finish(self) -> None:
        """The file has its index."""
        self.is_finished = True


def read_mp4(descriptor: int, size: int | None = None) -> Mp4Info:
    """Read `size` bytes of a file, by default all, up to the first damaged fragment; samples are listed for unfinished
    files only.

    Raises InvalidMp4, also if the first fragment is not one of this program, and OSError.
    """
    size = os.fstat(descriptor).st_size if size is None else size
    mp4: Mp4Info | None = None
    at, header_at, moof, is_finished = 0, None, b"", False
    while (header := _parse_header(os.pread(descriptor, 16, at), size - at)) is not None:
        kind, body, length = header
        if mp4 is None:
            if kind == b"free" and length == len(MDAT_PLACEHOLDER):
                header_at = at
            elif kind == b"mdat":
                is_finished = True
            elif kind == b"moov":
                moov = os.pread(descriptor, min(length, _MAX_READ_BYTES), at)
                mp4 = _read_moov(moov, is_finished=is_finished, end=at + length, header_at=header_at)
                if is_finished:
                    return mp4
        elif kind == b"moof":
            moof = os.pread(descriptor, min(length, _MAX_READ_BYTES), at)
        elif kind == b"mdat" and moof:
            try:
                mp4.add_fragment(moof, at + body, length - body)
            except InvalidMp4:
                if not mp4.chunks:
                    raise  # perhaps of another program
                break  # damaged, as by a power cut: what is before it remains readable
            moof = b""
        at += length
    if mp4 is None:
        raise InvalidMp4("no moov box")
    return mp4


def write_index(descriptor: int) -> Mp4Info:
    """Truncate the file after its last whole fragment, and write the index; a finished file is not changed.

    Raises InvalidMp4, OSError.
    """
    mp4 = read_mp4(descriptor)
    if mp4.is_finished or mp4.header_at is None:
        return mp4
    os.ftruncate(descriptor, mp4.end)
    try:
        write_all(descriptor, _indexed(mp4, memoryview(mp4.moov)), mp4.end)
        os.fdatasync(descriptor)  # the index first: the header declares it
    except OSError:
        os.ftruncate(descriptor, mp4.end)
        raise
    write_all(descriptor, _mdat_header(mp4), mp4.header_at)
    os.fdatasync(descriptor)
    mp4.finish()
    return mp4


def has_no_frames(descriptor: int) -> bool:
    """Whether the file was begun here, and ends before its first whole fragment. Raises InvalidMp4, OSError."""
    head = os.pread(descriptor, _MAX_HEADER_BYTES, 0)
    if not FTYP.startswith(head[: len(FTYP)]):
        return False
    try:
        mp4 = read_mp4(descriptor)
    except InvalidMp4:
        if len(head) < _MAX_HEADER_BYTES:  # so the header itself is cut
            return True
        raise
    return mp4.header_at is not None and not mp4.is_finished and not mp4.chunks


def finished_parts(descriptor: int, size: int) -> tuple[bytes, bytes] | None:
    """What makes the first `size` bytes of an unfinished file a finished one: its first bytes, and what follows `size`.

    None if `size` is not the end of a fragment. Raises InvalidMp4, OSError.
    """
    mp4 = read_mp4(descriptor, size)
    if mp4.header_at is None or mp4.is_finished or mp4.end != size or not mp4.chunks:
        return None
    head = os.pread(descriptor, mp4.header_at, 0) + _mdat_header(mp4)
    return head, _indexed(mp4, memoryview(mp4.moov))


def write_all(descriptor: int, data: bytes, at: int) -> None:
    """Write all of `data` at an offset. Raises OSError."""
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


# --- reading


def _parse_header(data: bytes | memoryview, limit: int) -> tuple[bytes, int, int] | None:
    """A box's kind, the length of its header and of all of it; None if there is no box that ends before `limit`."""
    if len(data) < 8:
        return None
    length, kind = struct.unpack_from(">I4s", data)
    header = 8
    if length == 1 and len(data) >= 16:
        (length,), header = struct.unpack_from(">Q", data, 8), 16
    return (kind, header, length) if header <= length <= limit else None


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The kinds and bodies of the boxes in `data`."""
    while (header := _parse_header(data, len(data))) is not None:
        kind, begin, length = header
        yield kind, data[begin:length]
        data = data[length:]


def _all_boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """The same, also of those in containers."""
    for kind, body in _boxes(data):
        yield kind, body
        if kind in _CONTAINERS:
            yield from _all_boxes(body)


def _read_moov(moov: bytes, *, is_finished: bool, end: int, header_at: int | None) -> Mp4Info:
    boxes = dict(_all_boxes(memoryview(moov)))
    try:
        width, height = struct.unpack(">HxxHxx", boxes[b"tkhd"][-8:])
        media = boxes[b"mdhd"]
        ticks_per_s, duration = struct.unpack_from(">20xIQ" if media[0] else ">12xII", media)
    except (KeyError, IndexError, struct.error) as error:
        raise InvalidMp4("damaged header") from error
    if not ticks_per_s:
        raise InvalidMp4("no time scale in the header")
    return Mp4Info(width, height, ticks_per_s, duration if is_finished else 0, is_finished, end, header_at, moov)


# --- the index


def _mdat_header(mp4: Mp4Info) -> bytes:
    """Of a single box from the placeholder to the end of the fragments."""
    return struct.pack(">I4sQ", 1, b"mdat", mp4.end - (mp4.header_at or 0))


def _indexed(mp4: Mp4Info, boxes: memoryview) -> bytes:
    """The header's boxes with the tables of all samples instead of the `mvex` box, which announces fragments."""
    parts: list[bytes] = []
    for kind, body in _boxes(boxes):
        if kind == b"stbl":
            parts.append(box(kind, box(b"stsd", dict(_boxes(body)).get(b"stsd", b"")), *_tables(mp4)))
        elif kind in _DURATION_AT:
            at = _DURATION_AT[kind]
            ticks = mp4.duration_ticks - (mp4.chunks[0].begin_ticks if mp4.chunks else 0)
            duration = struct.pack(">I", min(max(0, ticks), MAX_TICKS))
            parts.append(box(kind, body[:at], duration, body[at + 4 :]))
        elif kind != b"mvex":
            parts.append(box(kind, _indexed(mp4, body) if kind in _CONTAINERS else body))
    return b"".join(parts)


def _tables(mp4: Mp4Info) -> Iterator[bytes]:
    samples = np.frombuffer(mp4.samples, _SAMPLE)
    chunks = np.array(mp4.chunks, np.int64).reshape(-1, 3)
    offsets, begins, counts = chunks[:, 0], chunks[:, 1], chunks[:, 2]
    durations = samples["ticks"].astype(np.int64)
    # The last sample of a fragment lasts until the next fragment begins.
    after = np.cumsum(counts).astype(np.intp)  # `reduceat` accepts no wider positions on a 32-bit system
    ends = begins + np.add.reduceat(durations, after - counts.astype(np.intp))
    durations[after[:-1] - 1] += begins[1:] - ends[:-1]
    durations = durations.clip(0, MAX_TICKS)
    runs, groups = _run_starts(durations), _run_starts(counts)
    lengths = np.diff(runs, append=len(durations))
    keyframes = np.flatnonzero(samples["flags"] & IS_NON_SYNC == 0) + 1
    yield _table(b"stts", np.column_stack((lengths, durations[runs])))
    yield _table(b"stss", keyframes)
    yield _table(b"stsc", np.column_stack((groups + 1, counts[groups], np.ones_like(groups))))
    yield full_box(b"stsz", 0, struct.pack(">II", 0, len(samples)), samples["size"].tobytes())
    yield _table(b"co64", offsets, ">u8")


def _run_starts(values: _Numbers) -> _Numbers:
    """Where runs of equal values begin; the values are not negative."""
    return np.flatnonzero(np.diff(values, prepend=-1))


def _table(kind: bytes, entries: _Numbers, number: str = ">u4") -> bytes:
    return full_box(kind, 0, struct.pack(">I", len(entries)), entries.astype(number).tobytes())
