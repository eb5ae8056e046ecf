"""The exception tree, with the exit code of each error that ends the process.

    PortalError
    ├── ConfigurationError      78, or 2 where a flag is invalid
    ├── AddressNotReady         69   the address to listen on is not available yet
    ├── RecordingError               a recording cannot be started or deleted; never ends the process
    │   └── NoRecording              there is no recording of that name
    └── CameraError             70
        ├── CameraMissing       66   not connected, or Picamera2 is not installed
        ├── CameraBusy          69   connected, and in use by another program
        ├── CameraStuck         70   does not respond, and cannot be recovered by this process
        ├── NotSupported             the camera does not support the request; never ends the process
        └── NoPicture                no frame in time; never ends the process

Every message is one line that can appear in a log, in the status and in an HTTP response.
"""

from collections.abc import Sequence

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_MISSING = 66  # EX_NOINPUT of sysexits.h
EXIT_BUSY = 69  # EX_UNAVAILABLE
EXIT_STUCK = 70  # EX_SOFTWARE
EXIT_CONFIGURATION = 78  # EX_CONFIG


class PortalError(Exception):
    """The base class; `exit_code` is that of the process, for errors that end it."""

    exit_code = EXIT_STUCK


class ConfigurationError(PortalError):
    """One or more settings are invalid; `messages` has a line for each, with name, value and rule."""

    def __init__(self, messages: Sequence[str], *, from_flags: bool = False) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)
        self.exit_code = EXIT_USAGE if from_flags else EXIT_CONFIGURATION


class AddressNotReady(PortalError):
    """The address to listen on is in use, or does not exist; both may resolve by themselves."""

    exit_code = EXIT_BUSY


class RecordingError(PortalError):
    """The requested recording operation is not possible now; the message states the reason."""


class NoRecording(RecordingError):
    """There is no recording of that name."""


class CameraError(PortalError):
    """A camera failure without a more specific class."""


class CameraMissing(CameraError):
    exit_code = EXIT_MISSING


class CameraBusy(CameraError):
    exit_code = EXIT_BUSY


class CameraStuck(CameraError):
    exit_code = EXIT_STUCK


class NotSupported(CameraError):
    """The camera works, but does not support the request."""


class NoPicture(CameraError):
    """No frame arrived in time; the message states what was waited for."""
