"""The log on standard error: what is written, and what happens while nobody reads it."""

import io
import logging
import os
import pty
import socket
import termios
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from softcam.runtime.log.stderr import StderrHandler, log_handler
from tests.support.timeouts import PATIENCE_S


class Output:
    """What a handler writes to, and its reader's end."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.stream = os.fdopen(write_fd, "w")
        self.handler = StderrHandler(self.stream)

    def log(self, message: str) -> None:
        self.handler.handle(logging.LogRecord("softcam", logging.INFO, "", 0, message, None, None))

    def fill(self) -> int:
        """Log until nothing more is written; returns the number of lines that were written."""
        for count in range(100_000):
            began_s = time.monotonic()
            self.log(f"{count} {'x' * 200}")
            if time.monotonic() - began_s > 0.15:
                return count
        raise AssertionError("the reader seems to read")

    def read(self) -> str:
        os.set_blocking(self.read_fd, False)
        content = b""
        with suppress(BlockingIOError):
            while block := os.read(self.read_fd, 1 << 16):
                content += block
        return content.decode().replace("\r\n", "\n")

    def close(self) -> None:
        self.stream.close()
        os.close(self.read_fd)


def make_output(kind: str) -> Output:
    if kind == "terminal":
        return Output(*pty.openpty())
    if kind == "socket":  # as to the journal
        return Output(*(each.detach() for each in socket.socketpair()))
    return Output(*os.pipe())


@pytest.fixture(params=["pipe", "terminal", "socket"])
def output(request: pytest.FixtureRequest) -> Iterator[Output]:
    output = make_output(request.param)
    yield output
    output.close()


def test_lines_are_written(output: Output) -> None:
    output.log("one")
    output.log("two")
    assert output.read() == "one\ntwo\n"


@pytest.mark.timeout(3 * PATIENCE_S)
def test_lines_that_nobody_reads_are_lost(output: Output) -> None:
    """Only the first one is waited for; the next line that can be written says how many were lost."""
    assert output.fill() > 5
    began_s = time.monotonic()
    for _ in range(1000):
        output.log("y" * 200)
    assert time.monotonic() - began_s < PATIENCE_S / 4
    before = output.read()
    assert before.startswith("0 xxx")
    output.log("after")
    lost, after = output.read().lstrip("\n").splitlines()
    # A terminal may have had room for a part of a line, or again for some lines.
    assert int(lost.removesuffix(" lines of the log were lost, as standard error was not read")) > 900
    assert after == "after"
    output.log("usual")
    assert output.read() == "usual\n"


def test_line_after_a_part_of_one() -> None:
    output = make_output("terminal")
    os.set_blocking(output.read_fd, False)
    for _ in range(1000):
        output.log("z" * 1000)
    received = output.read()
    output.log("after")
    received += output.read()
    assert [line for line in received.splitlines() if line and not set(line) <= {"z"}][-1] == "after"
    output.close()


def test_terminal_that_is_stopped() -> None:
    """Ctrl+S."""
    output = make_output("terminal")
    termios.tcflow(output.stream.fileno(), termios.TCOOFF)
    began_s = time.monotonic()
    for _ in range(100):
        output.log("lost")
    assert time.monotonic() - began_s < PATIENCE_S / 4
    termios.tcflow(output.stream.fileno(), termios.TCOON)
    output.log("after")
    assert "after\n" in output.read()
    output.close()


def test_reader_that_is_gone() -> None:
    output = make_output("pipe")
    os.close(output.read_fd)
    output.log("nobody will read this")  # neither raises nor waits
    output.stream.close()


def test_file_is_appended_to(tmp_path: Path) -> None:
    """`>>`: other programs may write to the same file."""
    with (tmp_path / "log").open("a") as stream:
        stream.write("before\n")
        stream.flush()
        log_handler(stream).handle(logging.LogRecord("a", logging.INFO, "", 0, "one\udc80", None, None))
        stream.write("after\n")
    assert (tmp_path / "log").read_text() == "before\none\\udc80\nafter\n"


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_stream_without_descriptor(stream: io.StringIO | None) -> None:
    assert isinstance(log_handler(stream), logging.StreamHandler)
