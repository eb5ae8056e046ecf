"""The exception tree, with the exit code of each error that ends the process, and the status of an HTTP response.

    PortalError
    ├── ConfigurationError      78        or 2 where a flag is invalid
    ├── AddressNotReady         69        the address to listen on is not available yet
    ├── BadValue                    400  a value of a request is invalid; never ends the process
    ├── RecordingError               409  a recording cannot be started or deleted; never ends the process
    │   └── NoRecording              404  there is no recording of that name
    ├── PresetError                  409  a preset cannot be saved, renamed or deleted; never ends the process
    │   └── NoPreset                 404  there is no preset of that name
    └── CameraError             70   503
        ├── CameraMissing       66   503  not connected, or Picamera2 is not installed
        ├── CameraBusy          69   503  connected, and in use by another program
        ├── CameraStuck         70   503  does not respond, and cannot be recovered by this process
        ├── NotSupported             409  the camera does not support the request; never ends the process
        └── NoPicture                503  no frame in time; never ends the process

Every message is one line that can appear in a log, in the status and in an HTTP response.
"""

from collections.abc import Sequence
from http import HTTPStatus
from typing import TypeVar

EXIT_OK = 0
EXIT_USAGE = 2
EXIT_MISSING = 66  # EX_NOINPUT of sysexits.h
EXIT_BUSY = 69  # EX_UNAVAILABLE
EXIT_STUCK = 70  # EX_SOFTWARE
EXIT_CONFIGURATION = 78  # EX_CONFIG


class PortalError(Exception):
    """The base class; `exit_code` is that of the process, for errors that end it, `status` that of HTTP."""

    exit_code = EXIT_STUCK
    status = HTTPStatus.INTERNAL_SERVER_ERROR


class ConfigurationError(PortalError):
    """One or more settings are invalid; `messages` has a line for each, with name, value and rule.

    `settings` names those whose value turned out to be invalid only when it was used.
    """

    def __init__(self, messages: Sequence[str], *, from_flags: bool = False, settings: Sequence[str] = ()) -> None:
        super().__init__("; ".join(messages))
        self.messages = tuple(messages)
        self.settings = tuple(settings)
        self.exit_code = EXIT_USAGE if from_flags else EXIT_CONFIGURATION


class AddressNotReady(PortalError):
    """The address to listen on is in use, or does not exist; both may resolve by themselves."""

    exit_code = EXIT_BUSY


class BadValue(PortalError):
    """Values of a request are invalid; the message has every error as "field: must be …"."""

    status = HTTPStatus.BAD_REQUEST


class RecordingError(PortalError):
    """The requested recording operation is not possible now; the message states the reason."""

    status = HTTPStatus.CONFLICT


class NoRecording(RecordingError):
    """There is no recording of that name."""

    status = HTTPStatus.NOT_FOUND


class PresetError(PortalError):
    """The requested operation on presets conflicts with those that exist; the message states how."""

    status = HTTPStatus.CONFLICT


class NoPreset(PresetError):
    """There is no preset of that name."""

    status = HTTPStatus.NOT_FOUND


class CameraError(PortalError):
    """A camera failure without a more specific class."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


class CameraMissing(CameraError):
    exit_code = EXIT_MISSING


class CameraBusy(CameraError):
    exit_code = EXIT_BUSY


class CameraStuck(CameraError):
    exit_code = EXIT_STUCK


class NotSupported(CameraError):
    """The camera works, but does not support the request."""

    status = HTTPStatus.CONFLICT


class NoPicture(CameraError):
    """No frame arrived in time; the message states what was waited for."""


_Error = TypeVar("_Error", bound=BaseException)


def without_stack(error: _Error) -> _Error:
    """`error`, to be kept or passed to another thread, without the stacks of where it and its causes were raised.

    A stack keeps all variables of its functions, frames of the camera among them. Where one of these refers to the
    error, that is a cycle, which only the garbage collector frees.
    """
    each: BaseException | None = error
    while each is not None:
        each.with_traceback(None)
        each = each.__cause__ or each.__context__
    return error
