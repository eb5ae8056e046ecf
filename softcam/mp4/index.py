"""Reads fragmented MP4 files, and writes the index of a finished one (ISO/IEC 14496-12).

A recording is written as fragments, so that it plays whatever interrupts it. More players support the index of an
ordinary MP4 file, and seek better with it, so a finished recording gets one after its fragments, and a header that
turns everything in between into a single `mdat` box. Until then a `free` box is in the place of that header and marks
unfinished files.

FFmpeg writes such files itself with `movflags=hybrid_fragmented`, from libavformat 61.7 on (FFmpeg 7.1). This module is
needed as long as Debian 12, which has libavformat 59, is supported (until June 2028).

Starts no thread and uses no PyAV; the writer's thread calls.
"""

import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MDAT_PLACEHOLDER: Final = struct.pack(">I4sQ", 16, b"free", 0)  # of the size of an `mdat` header with a 64-bit length

_MAX_MOOV_BYTES: Final = 1 << 26  # larger boxes were not written here
_MAX_MOOF_BYTES: Final = 1 << 20
_CONTAINERS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"traf", b"moof"})
_MAX_TICKS: Final = (1 << 32) - 1
_IS_NON_SYNC: Final = 0x10000  # in a sample's flags


class InvalidMp4(ValueError):
    """The file is not an MP4 file, or has a structure that is not written here."""


class _Box(NamedTuple):
    kind: bytes
    begin: int  # of its header
    body: int
    end: int


@dataclass(slots=True)
class Mp4Info:
    """The content of a file. `end` is the offset after the last whole fragment; times are in ticks of the media."""

    width: int
    height: int
    ticks_per_s: int
    is_finished: bool
    end: int
    duration_ticks: int = 0
    header_at: int | None = None  # offset of the placeholder
    moov: bytes = b""
    sizes: "array[int]" = field(default_factory=lambda: array("I"))
    times: "array[int]" = field(default_factory=lambda: array("Q"))
    keyframes: "array[int]" = field(default_factory=lambda: array("I"))  # sample numbers, from 1
    chunks: list[tuple[int, int]] = field(default_factory=list)  # offset in the file, number of samples

    @property
    def duration_s(self) -> float:
        return self.duration_ticks / self.ticks_per_s


@dataclass(slots=True)
class _Defaults:
    """Defaults for samples without these values."""

    duration: int = 0
    size: int = 0
    flags: int = 0


def read_mp4(descriptor: int) -> Mp4Info:
    """Read a file; samples are listed for unfinished files only. Raises InvalidMp4, OSError."""
    size = os.fstat(descriptor).st_size
    header_at, mp4, defaults = None, None, _Defaults()
    moof: tuple[_Box, bytes] | None = None
    is_finished = False
    for box in _top_boxes(descriptor, size):
        match box.kind:
            case b"free" if mp4 is None and box.end - box.begin == len(MDAT_PLACEHOLDER):
                header_at = box.begin
            case b"mdat" if mp4 is None:
                is_finished = True
            case b"moov" if mp4 is None:
                moov = os.pread(descriptor, min(box.end - box.begin, _MAX_MOOV_BYTES), box.begin)
                mp4 = _read_moov(moov, is_finished=is_finished, end=box.end)
                mp4.header_at = header_at
                defaults = _track_defaults(moov)
                if is_finished:
                    return mp4
            case b"moof" if mp4 is not None:
                moof = box, os.pread(descriptor, min(box.end - box.begin, _MAX_MOOF_BYTES), box.begin)
            case b"mdat" if mp4 is not None and moof is not None:
                _add_fragment(mp4, moof[0].begin, moof[1], defaults)
                mp4.end = box.end
                moof = None
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
        _write(descriptor, _whole_moov(mp4), mp4.end)
        os.fdatasync(descriptor)  # the index first: the header declares it
    except OSError:
        os.ftruncate(descriptor, mp4.end)
        raise
    length = mp4.end - mp4.header_at
    _write(descriptor, struct.pack(">I4sQ", 1, b"mdat", length), mp4.header_at)
    os.fdatasync(descriptor)
    mp4.is_finished = True
    return mp4


def _write(descriptor: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


# --- reading


def _top_boxes(descriptor: int, size: int) -> Iterator[_Box]:
    """The complete top-level boxes of the file."""
    at = 0
    while at + 8 <= size:
        head = os.pread(descriptor, 16, at)
        box = _box_at(head, 0, size - at)
        if box is None:
            return
        yield _Box(box.kind, at, at + box.body, at + box.end)
        at += box.end


def _box_at(data: bytes, at: int, limit: int) -> _Box | None:
    """The box at an offset; None if there is none that ends before `limit`."""
    if len(data) < at + 8:
        return None
    length, kind = struct.unpack_from(">I4s", data, at)
    body = at + 8
    if length == 1:
        if len(data) < at + 16:
            return None
        length, body = struct.unpack_from(">Q", data, at + 8)[0], at + 16
    if length < body - at or at + length > limit:
        return None
    return _Box(kind, at, body, at + length)


def _children(data: bytes, begin: int, end: int) -> Iterator[_Box]:
    at = begin
    while (box := _box_at(data, at, end)) is not None:
        yield box
        at = box.end


def _all_boxes(data: bytes, begin: int, end: int) -> Iterator[_Box]:
    """All boxes, recursively."""
    for box in _children(data, begin, end):
        yield box
        if box.kind in _CONTAINERS:
            yield from _all_boxes(data, box.body, box.end)


def _read_moov(moov: bytes, *, is_finished: bool, end: int) -> Mp4Info:
    boxes = {box.kind: box for box in _all_boxes(moov, 0, len(moov))}
    try:
        width, height = struct.unpack_from(">II", moov, boxes[b"tkhd"].end - 8)
        mdhd = boxes[b"mdhd"].body
        long = moov[mdhd]
        ticks_per_s, duration = struct.unpack_from(">IQ" if long else ">II", moov, mdhd + (20 if long else 12))
    except (KeyError, IndexError, struct.error) as error:
        raise InvalidMp4("damaged header") from error
    if not ticks_per_s:
        raise InvalidMp4("no time scale in the header")
    mp4 = Mp4Info(width >> 16, height >> 16, ticks_per_s, is_finished, end, moov=moov)
    if is_finished:
        mp4.duration_ticks = duration
    return mp4


def _track_defaults(moov: bytes) -> _Defaults:
    for box in _all_boxes(moov, 0, len(moov)):
        if box.kind == b"trex" and box.end - box.body >= 24:
            return _Defaults(*struct.unpack_from(">III", moov, box.body + 12))
    return _Defaults()


def _add_fragment(mp4: Mp4Info, moof_at: int, moof: bytes, of_track: _Defaults) -> None:
    """Add the samples of a fragment. Raises InvalidMp4 if it is damaged."""
    defaults = _Defaults(of_track.duration, of_track.size, of_track.flags)
    base, time = moof_at, mp4.duration_ticks
    try:
        for box in _all_boxes(moof, 0, len(moof)):
            match box.kind:
                case b"tfhd":
                    base = _read_tfhd(moof, box.body, defaults, moof_at)
                case b"tfdt":
                    time = struct.unpack_from(">Q" if moof[box.body] else ">I", moof, box.body + 4)[0]
                case b"trun":
                    time = _read_trun(mp4, moof, box.body, base, time, defaults)
    except (struct.error, IndexError) as error:
        raise InvalidMp4(f"damaged fragment at {moof_at}") from error
    mp4.duration_ticks = time


def _read_tfhd(moof: bytes, at: int, defaults: _Defaults, moof_at: int) -> int:
    """Set the defaults; returns the base of data offsets."""
    flags = int.from_bytes(moof[at + 1 : at + 4])
    base, at = moof_at, at + 8
    if flags & 0x1:
        base, at = struct.unpack_from(">Q", moof, at)[0], at + 8
    if flags & 0x2:
        at += 4
    for bit, name in ((0x8, "duration"), (0x10, "size"), (0x20, "flags")):
        if flags & bit:
            setattr(defaults, name, struct.unpack_from(">I", moof, at)[0])
            at += 4
    return base


def _read_trun(mp4: Mp4Info, moof: bytes, at: int, base: int, time: int, defaults: _Defaults) -> int:
    """Add the samples of a run; returns the time after the last one."""
    flags, (count,) = int.from_bytes(moof[at + 1 : at + 4]), struct.unpack_from(">I", moof, at + 4)
    at += 8
    offset, first_flags = 0, None
    if flags & 0x1:
        offset, at = struct.unpack_from(">i", moof, at)[0], at + 4
    if flags & 0x4:
        first_flags, at = struct.unpack_from(">I", moof, at)[0], at + 4
    mp4.chunks.append((base + offset, count))
    for number in range(count):
        values = [defaults.duration, defaults.size, defaults.flags]
        for position, bit in enumerate((0x100, 0x200, 0x400)):
            if flags & bit:
                values[position], at = struct.unpack_from(">I", moof, at)[0], at + 4
        if flags & 0x800:
            at += 4
        duration, size, sample_flags = values
        if number == 0 and first_flags is not None:
            sample_flags = first_flags
        mp4.sizes.append(size)
        mp4.times.append(time)
        if not sample_flags & _IS_NON_SYNC:
            mp4.keyframes.append(len(mp4.sizes))
        time += duration
    return time


# --- the index


def _whole_moov(mp4: Mp4Info) -> bytes:
    """The moov box with the tables of all samples instead of the mvex box, which announces fragments."""
    first = mp4.times[0] if mp4.times else 0
    duration = max(0, mp4.duration_ticks - first)
    return b"".join(
        _rebuilt(mp4, box, duration) for box in _children(mp4.moov, 0, len(mp4.moov)) if box.kind == b"moov"
    )


def _rebuilt(mp4: Mp4Info, box: _Box, duration: int) -> bytes:
    data = mp4.moov[box.body : box.end]
    match box.kind:
        case b"stbl":
            described = b"".join(
                mp4.moov[child.begin : child.end]
                for child in _children(mp4.moov, box.body, box.end)
                if child.kind == b"stsd"
            )
            return _boxed(b"stbl", described + _tables(mp4))
        case b"mvex":
            return b""
        case b"mvhd" | b"mdhd" | b"tkhd":
            return _boxed(box.kind, _with_duration(mp4, box.kind, data, duration))
        case kind if kind in _CONTAINERS:
            children = _children(mp4.moov, box.body, box.end)
            return _boxed(kind, b"".join(_rebuilt(mp4, child, duration) for child in children))
    return mp4.moov[box.begin : box.end]


def _with_duration(mp4: Mp4Info, kind: bytes, data: bytes, duration: int) -> bytes:
    """A header's body with the duration; `mvhd` and `tkhd` use the time scale of the file, `mdhd` that of the media."""
    long = bool(data[0])
    at = (24 if long else 16) + (4 if kind == b"tkhd" else 0)
    if kind != b"mdhd":
        mvhd = next(box for box in _all_boxes(mp4.moov, 0, len(mp4.moov)) if box.kind == b"mvhd")
        clock_at = mvhd.body + (20 if mp4.moov[mvhd.body] else 12)
        duration = duration * struct.unpack_from(">I", mp4.moov, clock_at)[0] // mp4.ticks_per_s
    field = struct.pack(">Q", duration) if long else struct.pack(">I", min(duration, _MAX_TICKS))
    return data[:at] + field + data[at + len(field) :]


def _tables(mp4: Mp4Info) -> bytes:
    count = len(mp4.sizes)
    ends = [*mp4.times[1:], max(mp4.duration_ticks, mp4.times[-1])] if count else []
    durations: list[list[int]] = []  # runs: count, duration
    for begin, end in zip(mp4.times, ends, strict=True):
        if durations and durations[-1][1] == end - begin:
            durations[-1][0] += 1
        else:
            durations.append([1, end - begin])
    runs: list[tuple[int, int]] = []  # first chunk, samples per chunk
    for number, (_, samples) in enumerate(mp4.chunks, 1):
        if not runs or runs[-1][1] != samples:
            runs.append((number, samples))
    stts = b"".join(struct.pack(">II", number, min(ticks, _MAX_TICKS)) for number, ticks in durations)
    stsc = b"".join(struct.pack(">III", number, samples, 1) for number, samples in runs)
    offsets = b"".join(struct.pack(">Q", offset) for offset, _ in mp4.chunks)
    return b"".join(
        (
            _table(b"stts", len(durations), stts),
            _table(b"stss", len(mp4.keyframes), _big_endian(mp4.keyframes)),
            _table(b"stsc", len(runs), stsc),
            _boxed(b"stsz", struct.pack(">III", 0, 0, count) + _big_endian(mp4.sizes)),
            _table(b"co64", len(mp4.chunks), offsets),
        )
    )


def _big_endian(numbers: "array[int]") -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def _table(kind: bytes, count: int, entries: bytes) -> bytes:
    return _boxed(kind, struct.pack(">II", 0, count) + entries)


def _boxed(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body
