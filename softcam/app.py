"""The entry point: settings, logging, the application, and the exit code. Runs on the main thread."""

import contextlib
import io
import logging
import os
import re
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Final

from softcam import __version__
from softcam.application import Application
from softcam.components.diagnosis import build_diagnosis
from softcam.config.loader import load
from softcam.config.settings import Settings, describe, secrets_of
from softcam.errors import (
    EXIT_OK,
    EXIT_STUCK,
    EXIT_USAGE,
    CameraBusy,
    CameraMissing,
    CameraStuck,
    ConfigurationError,
    PortalError,
)
from softcam.runtime import memory
from softcam.runtime.deadline import Deadline
from softcam.runtime.log.events import Event, extra_of
from softcam.runtime.log.journal import JournalFormatter, JournalHandler, is_journal
from softcam.runtime.log.logbook import Logbook, LogPlaces
from softcam.runtime.log.stderr import log_handler
from softcam.runtime.redact import without_secrets
from softcam.runtime.shutdown import ShutdownSignal
from softcam.runtime.systemd import Notifier, Watch
from softcam.streaming.hook import load_hook
from softcam.system.instances import own_instance
from softcam.web.http.listen import StoppedWhileStarting

log = logging.getLogger("softcam")

# From the request to shut down until the exit: three seconds in all, most of them for closing the camera.
# Each would end the process at once, and cut a recording.
_IGNORED: Final = (
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF),
    *(signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT),
)
_STOP_TIMEOUT_S: Final = 2.5
_LOG_TIMEOUT_S: Final = 0.5  # for the copy of the log, of these three seconds; a disk may not respond
_EXIT_NOTICE_TIMEOUT_S: Final = 1.5  # the page polls once a second, and so gets the reason for the exit

# How long a busy Python thread may keep the interpreter lock; a frame passes through three threads.
_SWITCH_INTERVAL_S: Final = 0.0005


def main(argv: Sequence[str] | None = None) -> int:
    """Run the portal, or one of its commands; returns an exit code of `softcam.errors`."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # the names of folders need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    logbook = Logbook()
    logbook.install()
    try:
        code = _main(sys.argv[1:] if argv is None else argv, logbook)
    except Exception as error:
        logbook.record(logging.CRITICAL, "Portal crashed", error)  # the interpreter prints it
        logbook.close(1, Deadline.after(_LOG_TIMEOUT_S))
        raise
    logbook.close(code, Deadline.after(_LOG_TIMEOUT_S))
    return code


def _main(argv: Sequence[str], logbook: Logbook) -> int:
    try:
        settings = load(argv, os.environ)
    except ConfigurationError as error:
        # Logging is configured by the settings, so it is not available yet.
        logbook.open(LogPlaces.of(os.environ), _ignore)
        priority = "<3>" if is_journal(sys.stderr, os.environ) else ""
        for message in error.messages:
            print(f"{priority}soft_stream.py: {message}", file=sys.stderr)
            logbook.record(logging.ERROR, message)
        Notifier(os.environ).send(STATUS=error)
        return error.exit_code
    if settings.command != "run":
        _unblock_signals()
    logbook.hide(secrets_of(settings))
    # The report of a diagnosis contains the log.
    _configure_logging(settings.log_level, is_shown=settings.command != "diagnose" or settings.is_flag("log_level"))
    for warning in settings.warnings:
        log.warning("%s", warning)
    try:
        match settings.command:
            case "check":
                if settings.hook is not None:  # one that cannot be loaded is a configuration error
                    load_hook(settings.hook, settings.origins["hook"])
                print(describe(settings))
                return EXIT_OK
            case "list-cameras":
                return _list_cameras()
            case "diagnose":
                return _diagnose(settings, logbook)
            case "run":
                return _run(settings, logbook)
    except PortalError as error:
        return _report(error, settings)


def _report(error: Exception, settings: Settings) -> int:
    """Log what ends the process, with the traceback of an unexpected exception; returns the exit code."""
    if isinstance(error, PortalError):
        log.error("%s", error, extra=extra_of(error))
    else:
        log.error("Failed to start: %s", error, exc_info=error)
    Notifier(os.environ).send(STATUS=error)
    is_flag = isinstance(error, ConfigurationError) and settings.is_flag(*error.settings)
    return EXIT_USAGE if is_flag else error.exit_code if isinstance(error, PortalError) else EXIT_STUCK


def _list_cameras() -> int:
    print("pattern  the built-in pattern camera (a moving test image), always available")
    from softcam.camera.picamera.library import list_cameras

    for entry in list_cameras():
        print(f"{entry.number:<8} {entry.model}  {entry.id}")
    return EXIT_OK


def _diagnose(settings: Settings, logbook: Logbook) -> int:
    memory.use_single_arena()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    diagnosis = build_diagnosis(settings, logbook.memory)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: diagnosis.interrupt(signal.Signals(received)))
    code = diagnosis.run(_print_line, as_json=settings.as_json)
    if threading.active_count() > 1:  # one hangs in the camera
        _exit_immediately(code)
    return code


def _print_line(text: str) -> None:
    """Write to standard output, as long as it has a reader; the camera has to be closed in any case."""
    try:
        print(text, flush=True)
    except BrokenPipeError:  # as for `| head`: what follows, and what is left in the buffer, goes nowhere
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _run(settings: Settings, logbook: Logbook) -> int:
    memory.use_single_arena()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # Signals are handled from here on, also while the application is being built.
    shutdown = ShutdownSignal()
    shutdown.install_handlers(_stop_signals())
    _unblock_signals()
    places = LogPlaces.of(os.environ, _log_name(settings), settings.state_dir)
    logbook.open(places, lambda reason: shutdown.request(CameraStuck(reason)))
    camera = without_secrets(settings.camera) if settings.enabled else "disabled"
    stream = f"{settings.width}x{settings.height} at {settings.fps:g} fps"
    state_dir = settings.state_dir or "none"
    starting = "Starting Soft Stream %s: camera %s, %s, state folder %s"
    log.info(starting, __version__, camera, stream, state_dir, extra=Event.STARTING.extra)
    application = Application(settings, shutdown, logbook.memory)
    watch = Watch(Notifier(os.environ), application.health.status_line, application.health_error)
    try:
        application.start()
        watch.start(application.on_fatal)
    except StoppedWhileStarting as stopped:
        log.info("Stopping: %s", stopped)
        return _stop(application, EXIT_OK, logbook)
    except Exception as error:  # noqa: BLE001 - logged; what has started must stop
        return _stop(application, _report(error, settings), logbook)
    reason = shutdown.wait()
    if isinstance(reason, PortalError):
        code = reason.exit_code
        watch.stop(str(reason))
        if isinstance(reason, CameraMissing | CameraBusy):
            application.show_exit_reason(reason)
            shutdown.wait(_EXIT_NOTICE_TIMEOUT_S)
        application.wait_answered()
    else:
        code = EXIT_OK
        watch.stop("stopping")
        log.info("Stopping: %s", reason and reason.name)
    return _stop(application, code, logbook)


def _stop(application: Application, code: int, logbook: Logbook) -> int:
    """Stop what has started; returns the exit code, or exits with it where threads remain."""
    if not application.stop(Deadline.after(_STOP_TIMEOUT_S)):
        log.error("Forcing exit", extra=Event.STOPPED.extra)
        code = code or EXIT_STUCK
        logbook.close(code, Deadline.after(_LOG_TIMEOUT_S))
        _exit_immediately(code)
    log.info("Stopped", extra=Event.STOPPED.extra)
    logbook.close(code, Deadline.after(_LOG_TIMEOUT_S))
    if threading.active_count() > 1:
        # A thread is in FFmpeg or in a hook and cannot be interrupted. It might return from there while the interpreter
        # is being finalized, and crash it.
        _exit_immediately(code)
    return code


def _exit_immediately(code: int) -> None:
    """Exit without finalizing the interpreter, which would wait for threads that hang, or crash because of them."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # None: closed before the process started
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)


def _stop_signals() -> list[signal.Signals]:
    """The signals that end the portal; the others that a user or a program may send it are ignored.

    SIGHUP is one of them if it means that the terminal was closed. Elsewhere it requests that settings be read again,
    which the portal does when it is restarted.
    """
    stop = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        if _has_terminal():
            stop.append(signal.SIGHUP)
        else:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for number in (*_IGNORED, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)):
        if signal.getsignal(number) is signal.SIG_DFL:  # a program that embeds the portal may use it
            signal.signal(number, signal.SIG_IGN)
    return stop


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


def _unblock_signals() -> None:
    """Deliver the signals that soft_stream.py has blocked, and those that have arrived since."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _log_name(settings: Settings) -> str:
    """The name of the log's files, in a folder that portals of other cameras may share."""
    if settings.is_pattern:
        return "pattern"
    if settings.camera_number is None:
        return f"cam-{re.sub('[^0-9A-Za-z]+', '-', settings.camera_id or '')[-60:]}"
    return f"{'cam' if settings.url is None else 'url'}{settings.camera_number}"


def _ignore(_reason: str) -> None:
    """Of a thread that the process ends without."""


def _configure_logging(level: str, *, is_shown: bool) -> None:
    handler = log_handler(sys.stderr)
    if is_journal(sys.stderr, os.environ):
        handler.setFormatter(JournalFormatter())
        instance = own_instance()
        handler = JournalHandler(handler, None if instance is None else f"camera{instance}")
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    if is_shown:
        root.addHandler(handler)
    root.setLevel(level)
    # Picamera2 logs each of its steps at INFO.
    logging.getLogger("picamera2").setLevel(max(root.level, logging.WARNING))
