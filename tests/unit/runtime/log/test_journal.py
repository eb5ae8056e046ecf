"""The journal: priorities of lines, and events on the socket of a fake journal."""

import logging
import os
import re
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcam.controls.state import RequestedControls
from softcam.controls.store import Store
from softcam.errors import CameraBusy, CameraError, CameraMissing, CameraStuck, ConfigurationError
from softcam.runtime.log.events import Event, event_of, extra_of
from softcam.runtime.log.journal import JournalFormatter, JournalHandler, is_journal
from softcam.runtime.log_limit import RateLimitedLogger
from tests.support.log_events import logged_events
from tests.support.timeouts import PATIENCE_S

PROJECT = Path(__file__).resolve().parents[4]


class Journal:
    """The socket of journald, and the lines on standard error."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[str] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(PATIENCE_S)

    def logger(self, identifier: str | None = None) -> logging.Logger:
        """A logger that only this journal hears."""
        stderr = _Lines(self.lines)
        stderr.setFormatter(JournalFormatter())
        logger = logging.Logger("softcam", logging.DEBUG)  # noqa: LOG001 - not one of the process
        logger.addHandler(JournalHandler(stderr, identifier, str(self.path)))
        return logger

    def receive(self) -> dict[str, str]:
        """The fields of the next message, as journald reads them."""
        data, fields = self.socket.recv(1 << 20), {}
        while data:
            name, _, rest = data.partition(b"\n")
            if b"=" in name:
                name, _, value = name.partition(b"=")
                data = rest
            else:
                (size,) = struct.unpack("<Q", rest[:8])
                value, end, data = rest[8 : 8 + size], rest[8 + size : 9 + size], rest[9 + size :]
                assert end == b"\n"
            fields[name.decode()] = value.decode()
        return fields

    def is_empty(self) -> bool:
        self.socket.settimeout(0)
        try:
            self.socket.recv(1)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_S)
        return False


class _Lines(logging.Handler):
    def __init__(self, lines: list[str]) -> None:
        super().__init__()
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "socket")
    yield journal
    journal.socket.close()


def test_event_has_an_id(journal: Journal) -> None:
    journal.logger("camera1").warning("No frame for %.1f s", 10, extra=Event.CAMERA_STALLED.extra)
    assert journal.receive() == {
        "MESSAGE": "No frame for 10.0 s",
        "MESSAGE_ID": Event.CAMERA_STALLED.value,
        "PRIORITY": "4",
        "SOFT_STREAM_EVENT": "CAMERA_STALLED",
        "SYSLOG_IDENTIFIER": "camera1",
    }
    assert journal.lines == []


def test_other_records_are_lines(journal: Journal) -> None:
    logger = journal.logger()
    logger.info("Camera open")
    logger.info("Stopped", extra={"soft_stream_event": "forged"})
    assert journal.lines == ["<6>Camera open", "<6>Stopped"]
    assert journal.is_empty()


def test_traceback_and_line_breaks_are_one_message(journal: Journal) -> None:
    try:
        raise ValueError("bad\nMESSAGE_ID=0")
    except ValueError:
        journal.logger().exception("first\nPRIORITY=0\udc80", extra=Event.STOPPED.extra)
    fields = journal.receive()
    assert fields["MESSAGE"].startswith("first\nPRIORITY=0\\udc80\nTraceback")
    assert fields["MESSAGE"].endswith("ValueError: bad\nMESSAGE_ID=0")
    assert (fields["PRIORITY"], fields["MESSAGE_ID"]) == ("3", Event.STOPPED.value)
    assert "SYSLOG_IDENTIFIER" not in fields


def test_long_message_is_cut(journal: Journal) -> None:
    journal.logger().error("%s", "ä" * 1_000_000, extra=Event.STOPPED.extra)
    assert len(journal.receive()["MESSAGE"]) == 16 * 1024


def test_journal_that_is_gone(journal: Journal) -> None:
    journal.path.unlink()
    journal.logger().error("Stopped", extra=Event.STOPPED.extra)
    assert journal.lines == ["<3>Stopped"]


def test_journal_that_does_not_read(journal: Journal) -> None:
    """As many messages as the kernel keeps for it; then lines, without waiting."""
    logger = journal.logger()
    for number in range(2000):
        logger.info("%d", number, extra=Event.STOPPED.extra)
    assert 0 < len(journal.lines) < 2000
    first = int(journal.lines[0].removeprefix("<6>"))
    assert [int(journal.receive()["MESSAGE"]) for _ in range(first)] == [*range(first)]


def test_arguments_that_do_not_fit(journal: Journal) -> None:
    with pytest.raises(TypeError):  # of the other handler, which reports it
        journal.logger().info("%d", "five", extra=Event.STOPPED.extra)
    assert journal.is_empty()


def test_event_that_repeats(journal: Journal) -> None:
    limited = RateLimitedLogger(journal.logger(), clock=lambda: 5.0)
    assert limited.warning("Publishing failed: %s", "refused", extra=Event.PUBLISHING_FAILED.extra)
    assert not limited.warning("Publishing failed: %s", "refused", extra=Event.PUBLISHING_FAILED.extra)
    assert journal.receive()["MESSAGE_ID"] == Event.PUBLISHING_FAILED.value
    assert journal.is_empty()


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (CameraMissing("camera 0 is gone"), Event.CAMERA_MISSING),
        (CameraBusy("another program has it"), Event.CAMERA_BUSY),
        (CameraStuck("no frame"), Event.CAMERA_FAILED),
        (CameraError("the sensor does not start"), Event.CAMERA_FAILED),
        (OSError(28, "No space left on device"), Event.DISK_FULL),
        (OSError(122, "Disk quota exceeded"), Event.DISK_FULL),
        (OSError(5, "Input/output error"), Event.RECORDING_FAILED),
        (ConfigurationError(["fps: must be positive"]), None),
    ],
)
def test_event_of_an_error(error: Exception, event: Event | None) -> None:
    record = logging.makeLogRecord(dict(extra_of(error)))
    assert event_of(record) is event


@pytest.mark.parametrize("content", ["damaged", '{"asked": {"zoom": {"by": 2}}, "held": {}}'])
def test_quarantined_state_is_an_event(content: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cam0.json").write_text(content)
    assert Store(tmp_path, "cam0").load() == RequestedControls()
    assert (tmp_path / "cam0.json.bad").exists()
    assert logged_events(caplog) == [Event.STATE_QUARANTINED]


def test_events_are_documented() -> None:
    for name, pattern in (
        ("docs/operating.md", r"(?m)^\| `([A-Z_]+)` \| `([0-9a-f]{32})` \|"),
        ("systemd/soft-stream.catalog", r"(?m)^# ([A-Z_]+)\n-- ([0-9a-f]{32})$"),
    ):
        found = dict(re.findall(pattern, (PROJECT / name).read_text()))
        assert found == {event.name: event.value for event in Event}, name


def test_identifier_is_that_of_the_unit() -> None:
    """`JournalHandler` gets camera0 from `softcam.app`."""
    assert "\nSyslogIdentifier=camera%i\n" in (PROJECT / "systemd/camera-soft-cam@.service").read_text()


@pytest.mark.parametrize(
    ("level", "priority"),
    [(logging.DEBUG, 7), (logging.INFO, 6), (logging.WARNING, 4), (logging.ERROR, 3), (logging.CRITICAL, 3), (1, 7)],
)
def test_journal_priority_of_each_line(level: int, priority: int) -> None:
    record = logging.LogRecord("softcam", level, __file__, 1, "first\nsecond %s", ("word",), None)
    assert JournalFormatter().format(record) == f"<{priority}>first\n<{priority}>second word"


def test_journal_priority_of_traceback_lines() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        record = logging.LogRecord("softcam", logging.ERROR, __file__, 1, "it failed", (), sys.exc_info())
    lines = JournalFormatter().format(record).splitlines()
    assert lines[0] == "<3>it failed"
    assert lines[-1] == "<3>ValueError: bad"
    assert [line for line in lines if not line.startswith("<3>")] == []


def test_is_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        seen = os.fstat(stream.fileno())
        name = f"{seen.st_dev}:{seen.st_ino}"
        assert is_journal(stream, {"JOURNAL_STREAM": name})
        assert not is_journal(stream, {"JOURNAL_STREAM": "1:1"})
        assert not is_journal(stream, {})
    assert not is_journal(stream, {"JOURNAL_STREAM": name})
