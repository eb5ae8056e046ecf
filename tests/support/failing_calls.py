"""Makes each call that may fail, fail in turn: a scenario is run again and again, each time with another failing call.

A scenario that is run without a failure shows how many calls it makes. The calls are those of the product code of this
process into the system: files, folders, and the start of a thread.
"""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

_OS = ("open", "fsync", "pread", "pwrite", "ftruncate", "posix_fallocate", "scandir", "stat", "fstat", "listdir")
_PATH = ("mkdir", "replace", "rename", "unlink", "exists", "is_dir", "stat", "iterdir")


class FailingCalls:
    """Counts the calls, and raises an error in one of them, and in those after it if `lasts`."""

    def __init__(self, at: int | None, *, lasts: bool) -> None:
        self.calls: list[str] = []
        self._at = at
        self._lasts = lasts
        self._lock = threading.Lock()

    @property
    def has_failed(self) -> bool:
        return self._at is not None and len(self.calls) > self._at

    def call(self, name: str) -> None:
        with self._lock:
            number = len(self.calls)
            self.calls.append(name)
        if self._at is None or number < self._at or (number > self._at and not self._lasts):
            return
        if name.startswith("start of"):
            raise RuntimeError("can't start new thread")
        error = errno.ENOSPC if "write" in name else errno.EIO
        raise OSError(error, os.strerror(error))


class _File:
    """A file whose `write` may fail, with a part of the data written before."""

    def __init__(self, file: Any, calls: FailingCalls) -> None:
        self._file = file
        self._calls = calls

    def write(self, data: bytes) -> int:
        self._file.write(data[: len(data) // 2])
        self._calls.call("write")
        return len(data[: len(data) // 2]) + int(self._file.write(data[len(data) // 2 :]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextmanager
def failing_calls(at: int | None, folder: Path, *, thread: str = "", lasts: bool = False) -> Iterator[FailingCalls]:
    """Within the block, call number `at` fails, of those on what is in `folder` and of the starts of this thread.

    None is a run without a failure. With `lasts`, all calls after it fail, too.
    """
    state = FailingCalls(at, lasts=lasts)

    real_readlink = os.readlink

    def concerns(target: object) -> bool:
        if isinstance(target, int):
            try:
                target = real_readlink(f"/proc/self/fd/{target}")
            except OSError:
                return False
        return isinstance(target, str | os.PathLike) and str(target).startswith(str(folder))

    def failing(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if args and concerns(args[0]):
                state.call(name)
            return real(*args, **kwargs)

        return call

    real_fdopen, real_start = os.fdopen, threading.Thread.start

    def fdopen(fd: int, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        file = real_fdopen(fd, mode, *args, **kwargs)
        return _File(file, state) if concerns(fd) and mode == "wb" else file

    def start(started: threading.Thread) -> None:
        if started.name == thread:
            state.call(f"start of {thread}")
        real_start(started)

    with pytest.MonkeyPatch.context() as patch:
        for name in _OS:
            patch.setattr(os, name, failing(f"os.{name}", getattr(os, name)))
        for name in _PATH:
            patch.setattr(Path, name, failing(f"Path.{name}", getattr(Path, name)))
        patch.setattr(os, "fdopen", fdopen)
        patch.setattr(threading.Thread, "start", start)
        yield state
