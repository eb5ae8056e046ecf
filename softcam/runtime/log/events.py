"""What matters to a monitor of the journal: each kind of event has a MESSAGE_ID that never changes.

`log.info("Stopped", extra=Event.STOPPED.extra)` logs a record of an event; `softcam.runtime.log.journal` sends the id.
docs/operating.md and systemd/soft-stream.catalog describe the events. Any thread.
"""

import enum
import errno
import logging
from collections.abc import Mapping
from typing import Final

from softcam.errors import CameraBusy, CameraError, CameraMissing

_ATTRIBUTE: Final = "soft_stream_event"  # of a record


class Event(enum.Enum):
    """The kinds of events with their ids, as in journalctl MESSAGE_ID=…"""

    STARTING = "a0fa7e1431bd49439eb22970726bdc73"
    STOPPED = "8b33755ac39e41d99fc87901e41dd17f"
    CRASHED = "6be9853e3893401e9b6545b116157dd6"
    STUCK = "311c6ce04a0b4d32a0e917df86c74b83"
    CAMERA_MISSING = "f6dbb2bb20164c91ac13d4ac94dfdc90"
    CAMERA_BUSY = "a060a365ca3e4e76bde7d28db2aa7c32"
    CAMERA_FAILED = "c18d37b73deb4ffeb0e5cc327c89c732"
    CAMERA_STALLED = "334df5fea9e442318c002d4610f357b2"
    CAMERA_RECOVERED = "1cec08a292a343ebb24c609f0926a530"
    RECORDING_INTERRUPTED = "f2a58284e559403eb54538549ad2896b"
    RECORDING_FAILED = "495dc40a87be4e019cda4efd7f398150"
    DISK_FULL = "d33c9d79bb744aee83141c953f2aa624"
    PUBLISHING_FAILED = "8589f829037d4b12aeeafa372f229c9a"
    PUBLISHING_RECOVERED = "132771c9e7714f3f9067409594c6cfe5"
    UNDER_VOLTAGE = "21d080126ff44c5785cc8698afcd659d"
    STATE_QUARANTINED = "37028af27f99412bb2d564dfc133b680"

    @property
    def extra(self) -> Mapping[str, object]:
        """For the argument `extra` of a logger's methods."""
        return {_ATTRIBUTE: self}


def event_of(record: logging.LogRecord) -> Event | None:
    """The event that a record reports; None for all others."""
    event = getattr(record, _ATTRIBUTE, None)
    return event if isinstance(event, Event) else None


def extra_of(error: BaseException) -> Mapping[str, object]:
    """As `Event.extra`, for an error that ends the camera's session, or a recording; empty if it is not an event."""
    match error:
        case CameraMissing():
            return Event.CAMERA_MISSING.extra
        case CameraBusy():
            return Event.CAMERA_BUSY.extra
        case CameraError():
            return Event.CAMERA_FAILED.extra
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return Event.DISK_FULL.extra
        case OSError():
            return Event.RECORDING_FAILED.extra
    return {}
