"""What can go wrong, and the number that each trouble leaves the process with.

    PortalError
    ├── ConfigurationError      78, or 2 where a flag is at fault
    ├── AddressNotReady         69   the address to listen on cannot be had yet
    ├── RecordingError               a recording cannot be begun, or taken away; never ends the process
    │   └── NoRecording              there is none of that name
    └── CameraError             70
        ├── CameraMissing       66   not there, or no Picamera2 to ask
        ├── CameraBusy          69   there, and another program has it
        ├── CameraStuck         70   does not answer, beyond repair from inside
        ├── NotSupported             this camera cannot do what was asked; never ends the process
        └── NoPicture                no picture within the time; never ends the process

Every message is one plain line that can stand in a log, a status and an HTTP answer.
"""

from collections.abc import Sequence

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_MISSING = 66  # EX_NOINPUT of sysexits.h
EXIT_BUSY = 69  # EX_UNAVAILABLE
EXIT_STUCK = 70  # EX_SOFTWARE
EXIT_CONFIGURATION = 78  # EX_CONFIG


class PortalError(Exception):
    """The root; `exit_code` is what the process leaves with where the error ends it."""

    exit_code = EXIT_STUCK


class ConfigurationError(PortalError):
    """One or more settings are bad; `faults` has a line for each, by name, value and rule."""

    def __init__(self, faults: Sequence[str], *, from_flags: bool = False) -> None:
        super().__init__("; ".join(faults))
        self.faults = tuple(faults)
        self.exit_code = EXIT_USAGE if from_flags else EXIT_CONFIGURATION


class AddressNotReady(PortalError):
    """The address to listen on is another program's, or not there: that may pass without anyone's help."""

    exit_code = EXIT_BUSY


class RecordingError(PortalError):
    """What was asked of the recordings cannot be done now; the message says why."""


class NoRecording(RecordingError):
    """There is none of that name."""


class CameraError(PortalError):
    """The camera failed in a way that has no name of its own."""


class CameraMissing(CameraError):
    exit_code = EXIT_MISSING


class CameraBusy(CameraError):
    exit_code = EXIT_BUSY


class CameraStuck(CameraError):
    exit_code = EXIT_STUCK


class NotSupported(CameraError):
    """The camera is well and lacks what was asked for."""


class NoPicture(CameraError):
    """No picture came in time; the message says what was waited for."""
