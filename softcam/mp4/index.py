"""Reads MP4 files that grow by fragments, and gives a whole one its index (ISO 14496-12).

A recording is written as fragments, so that whatever cuts it leaves a file that plays. Players seek better, and more of
them play it, with the index of an ordinary MP4; so a whole recording gets one behind its fragments, and a header that
makes everything between the two one block of data. Until then a `free` box stands where that header will, by which
unfinished files are known. No PyAV, and no thread: whoever writes the file calls.
"""

import os
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

MDAT_PLACEHOLDER: Final = struct.pack(">I4sQ", 16, b"free", 0)  # as long as the header of an `mdat` box of any size

_LARGEST_HEAD: Final = 1 << 20  # bytes of a moov or moof: one that is larger is none of ours
_CONTAINERS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"mvex", b"traf", b"moof"})
_LONGEST_TICKS: Final = (1 << 32) - 1
_IS_NO_KEYFRAME: Final = 0x10000  # of a sample's flags


class InvalidMp4(ValueError):
    """The file is no MP4, or none that was written here."""


class _Box(NamedTuple):
    kind: bytes
    begin: int  # of its header
    body: int
    end: int


@dataclass(slots=True)
class Mp4Info:
    """What is in a file. `end` is behind the last whole fragment, in bytes; times are in ticks of the media."""

    width: int
    height: int
    ticks_per_s: int
    is_finished: bool
    end: int
    duration_ticks: int = 0
    header_at: int | None = None  # where the place for the header is
    moov: bytes = b""
    sizes: "array[int]" = field(default_factory=lambda: array("I"))
    times: "array[int]" = field(default_factory=lambda: array("Q"))
    keyframes: "array[int]" = field(default_factory=lambda: array("I"))  # numbers of samples, from 1 on
    chunks: list[tuple[int, int]] = field(default_factory=list)  # place in the file, number of samples

    @property
    def duration_s(self) -> float:
        return self.duration_ticks / self.ticks_per_s


@dataclass(slots=True)
class _Defaults:
    """Of a sample whose fragment does not tell."""

    duration: int = 0
    size: int = 0
    flags: int = 0


def read_mp4(descriptor: int) -> Mp4Info:
    """Raises NoMovie, OSError. The samples are told of an unfinished file alone."""
    size = os.fstat(descriptor).st_size
    header_at, movie, defaults = None, None, _Defaults()
    moof: tuple[_Box, bytes] | None = None
    is_finished = False
    for box in _top_boxes(descriptor, size):
        match box.kind:
            case b"free" if movie is None and box.end - box.begin == len(MDAT_PLACEHOLDER):
                header_at = box.begin
            case b"mdat" if movie is None:
                is_finished = True
            case b"moov" if movie is None:
                moov = os.pread(descriptor, min(box.end - box.begin, _LARGEST_HEAD * 64), box.begin)
                movie = _head_of(moov, is_finished=is_finished, end=box.end)
                movie.header_at = header_at
                defaults = _track_defaults(moov)
                if is_finished:
                    return movie
            case b"moof" if movie is not None:
                moof = box, os.pread(descriptor, min(box.end - box.begin, _LARGEST_HEAD), box.begin)
            case b"mdat" if movie is not None and moof is not None:
                _add_fragment(movie, moof[0].begin, moof[1], defaults)
                movie.end = box.end
                moof = None
    if movie is None:
        raise InvalidMp4("there is no movie in it")
    return movie


def write_index(descriptor: int) -> Mp4Info:
    """Cut off what is no whole fragment, and write the index. Harmless where that is done. Raises NoMovie, OSError."""
    movie = read_mp4(descriptor)
    if movie.is_finished or movie.header_at is None:
        return movie
    os.ftruncate(descriptor, movie.end)
    try:
        _write(descriptor, _whole_moov(movie), movie.end)
        os.fdatasync(descriptor)  # the index first: the header says that it is there
    except OSError:
        os.ftruncate(descriptor, movie.end)
        raise
    length = movie.end - movie.header_at
    _write(descriptor, struct.pack(">I4sQ", 1, b"mdat", length), movie.header_at)
    os.fdatasync(descriptor)
    movie.is_finished = True
    return movie


def _write(descriptor: int, data: bytes, at: int) -> None:
    left = memoryview(data)
    while left:
        written = os.pwrite(descriptor, left, at)
        left, at = left[written:], at + written


# --- reading


def _top_boxes(descriptor: int, size: int) -> Iterator[_Box]:
    """Those that lie in the file whole."""
    at = 0
    while at + 8 <= size:
        head = os.pread(descriptor, 16, at)
        box = _box_at(head, 0, size - at)
        if box is None:
            return
        yield _Box(box.kind, at, at + box.body, at + box.end)
        at += box.end


def _box_at(data: bytes, at: int, limit: int) -> _Box | None:
    """The box at a place; None where there is none that ends before `limit`."""
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
    """Every box, those within others too."""
    for box in _children(data, begin, end):
        yield box
        if box.kind in _CONTAINERS:
            yield from _all_boxes(data, box.body, box.end)


def _head_of(moov: bytes, *, is_finished: bool, end: int) -> Mp4Info:
    boxes = {box.kind: box for box in _all_boxes(moov, 0, len(moov))}
    try:
        width, height = struct.unpack_from(">II", moov, boxes[b"tkhd"].end - 8)
        mdhd = boxes[b"mdhd"].body
        long = moov[mdhd]
        ticks_per_s, duration = struct.unpack_from(">IQ" if long else ">II", moov, mdhd + (20 if long else 12))
    except (KeyError, IndexError, struct.error) as error:
        raise InvalidMp4("its header is damaged") from error
    if not ticks_per_s:
        raise InvalidMp4("its header has no clock")
    movie = Mp4Info(width >> 16, height >> 16, ticks_per_s, is_finished, end, moov=moov)
    if is_finished:
        movie.duration_ticks = duration
    return movie


def _track_defaults(moov: bytes) -> _Defaults:
    for box in _all_boxes(moov, 0, len(moov)):
        if box.kind == b"trex" and box.end - box.body >= 24:
            return _Defaults(*struct.unpack_from(">III", moov, box.body + 12))
    return _Defaults()


def _add_fragment(movie: Mp4Info, moof_at: int, moof: bytes, of_track: _Defaults) -> None:
    """The samples of one fragment. Raises NoMovie where it is damaged."""
    defaults = _Defaults(of_track.duration, of_track.size, of_track.flags)
    base, time = moof_at, movie.duration_ticks
    try:
        for box in _all_boxes(moof, 0, len(moof)):
            match box.kind:
                case b"tfhd":
                    base = _read_tfhd(moof, box.body, defaults, moof_at)
                case b"tfdt":
                    time = struct.unpack_from(">Q" if moof[box.body] else ">I", moof, box.body + 4)[0]
                case b"trun":
                    time = _read_trun(movie, moof, box.body, base, time, defaults)
    except (struct.error, IndexError) as error:
        raise InvalidMp4(f"the fragment at {moof_at} is damaged") from error
    movie.duration_ticks = time


def _read_tfhd(moof: bytes, at: int, defaults: _Defaults, moof_at: int) -> int:
    """Sets the defaults; where offsets count from."""
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


def _read_trun(movie: Mp4Info, moof: bytes, at: int, base: int, time: int, defaults: _Defaults) -> int:
    """The time behind the last sample."""
    flags, (count,) = int.from_bytes(moof[at + 1 : at + 4]), struct.unpack_from(">I", moof, at + 4)
    at += 8
    offset, first_flags = 0, None
    if flags & 0x1:
        offset, at = struct.unpack_from(">i", moof, at)[0], at + 4
    if flags & 0x4:
        first_flags, at = struct.unpack_from(">I", moof, at)[0], at + 4
    movie.chunks.append((base + offset, count))
    for number in range(count):
        told = [defaults.duration, defaults.size, defaults.flags]
        for place, bit in enumerate((0x100, 0x200, 0x400)):
            if flags & bit:
                told[place], at = struct.unpack_from(">I", moof, at)[0], at + 4
        if flags & 0x800:
            at += 4
        duration, size, sample_flags = told
        if number == 0 and first_flags is not None:
            sample_flags = first_flags
        movie.sizes.append(size)
        movie.times.append(time)
        if not sample_flags & _IS_NO_KEYFRAME:
            movie.keyframes.append(len(movie.sizes))
        time += duration
    return time


# --- the index


def _whole_moov(movie: Mp4Info) -> bytes:
    """The movie's header with the tables of all samples, in place of the promise that fragments follow."""
    first = movie.times[0] if movie.times else 0
    duration = max(0, movie.duration_ticks - first)
    return b"".join(
        _rebuilt(movie, box, duration) for box in _children(movie.moov, 0, len(movie.moov)) if box.kind == b"moov"
    )


def _rebuilt(movie: Mp4Info, box: _Box, duration: int) -> bytes:
    data = movie.moov[box.body : box.end]
    match box.kind:
        case b"stbl":
            described = b"".join(
                movie.moov[child.begin : child.end]
                for child in _children(movie.moov, box.body, box.end)
                if child.kind == b"stsd"
            )
            return _boxed(b"stbl", described + _tables(movie))
        case b"mvex":
            return b""
        case b"mvhd" | b"mdhd" | b"tkhd":
            return _boxed(box.kind, _with_duration(movie, box.kind, data, duration))
        case kind if kind in _CONTAINERS:
            children = _children(movie.moov, box.body, box.end)
            return _boxed(kind, b"".join(_rebuilt(movie, child, duration) for child in children))
    return movie.moov[box.begin : box.end]


def _with_duration(movie: Mp4Info, kind: bytes, data: bytes, duration: int) -> bytes:
    """A header's body with the duration in it. `mvhd` and `tkhd` count in the movie's ticks, `mdhd` in the media's."""
    long = bool(data[0])
    at = (24 if long else 16) + (4 if kind == b"tkhd" else 0)
    if kind != b"mdhd":
        mvhd = next(box for box in _all_boxes(movie.moov, 0, len(movie.moov)) if box.kind == b"mvhd")
        clock_at = mvhd.body + (20 if movie.moov[mvhd.body] else 12)
        duration = duration * struct.unpack_from(">I", movie.moov, clock_at)[0] // movie.ticks_per_s
    told = struct.pack(">Q", duration) if long else struct.pack(">I", min(duration, _LONGEST_TICKS))
    return data[:at] + told + data[at + len(told) :]


def _tables(movie: Mp4Info) -> bytes:
    count = len(movie.sizes)
    ends = [*movie.times[1:], max(movie.duration_ticks, movie.times[-1])] if count else []
    durations: list[list[int]] = []  # runs: how many, how long each
    for begin, end in zip(movie.times, ends, strict=True):
        if durations and durations[-1][1] == end - begin:
            durations[-1][0] += 1
        else:
            durations.append([1, end - begin])
    runs: list[tuple[int, int]] = []  # from which chunk on, how many samples in each
    for number, (_, samples) in enumerate(movie.chunks, 1):
        if not runs or runs[-1][1] != samples:
            runs.append((number, samples))
    stts = b"".join(struct.pack(">II", number, min(ticks, _LONGEST_TICKS)) for number, ticks in durations)
    stsc = b"".join(struct.pack(">III", number, samples, 1) for number, samples in runs)
    places = b"".join(struct.pack(">Q", place) for place, _ in movie.chunks)
    return b"".join(
        (
            _table(b"stts", len(durations), stts),
            _table(b"stss", len(movie.keyframes), _big_endian(movie.keyframes)),
            _table(b"stsc", len(runs), stsc),
            _boxed(b"stsz", struct.pack(">III", 0, 0, count) + _big_endian(movie.sizes)),
            _table(b"co64", len(movie.chunks), places),
        )
    )


def _big_endian(numbers: "array[int]") -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def _table(kind: bytes, count: int, entries: bytes) -> bytes:
    return _boxed(kind, struct.pack(">II", 0, count) + entries)


def _boxed(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", len(body) + 8, kind) + body
