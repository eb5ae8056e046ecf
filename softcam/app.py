"""The entry point: settings, logging, the application, and the exit code. Runs on the main thread."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Final

from softcam import __version__
from softcam.application import Application
from softcam.config.loader import load
from softcam.config.settings import Settings, describe
from softcam.errors import EXIT_OK, EXIT_STUCK, EXIT_USAGE, CameraBusy, CameraMissing, ConfigurationError, PortalError
from softcam.runtime import memory
from softcam.runtime.deadline import Deadline
from softcam.runtime.redact import without_secrets
from softcam.runtime.shutdown import ShutdownSignal
from softcam.runtime.systemd import JournalFormatter, Notifier, Watch, is_journal
from softcam.streaming.hook import load_hook
from softcam.web.http.listen import StoppedWhileStarting

log = logging.getLogger("softcam")

# From the request to shut down until the exit: three seconds in all, most of them for closing the camera.
_STOP_TIMEOUT_S: Final = 2.5
_EXIT_NOTICE_TIMEOUT_S: Final = 1.5  # the page polls once a second, and so gets the reason for the exit

# How long a busy Python thread may keep the interpreter lock; a frame passes through three threads.
_SWITCH_INTERVAL_S: Final = 0.0005


def main(argv: Sequence[str] | None = None) -> int:
    """Run the portal, or one of its commands; returns an exit code of `softcam.errors`."""
    try:
        settings = load(sys.argv[1:] if argv is None else argv, os.environ)
    except ConfigurationError as error:
        # Logging is configured by the settings, so it is not available yet.
        priority = "<3>" if is_journal(sys.stderr, os.environ) else ""
        for message in error.messages:
            print(f"{priority}soft_stream.py: {message}", file=sys.stderr)
        Notifier(os.environ).send(STATUS=error)
        return error.exit_code
    _configure_logging(settings.log_level)
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
            case "run":
                return _run(settings)
    except PortalError as error:
        return _report(error, settings)


def _report(error: Exception, settings: Settings) -> int:
    """Log what ends the process, with the traceback of an unexpected exception; returns the exit code."""
    if isinstance(error, PortalError):
        log.error("%s", error)
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


def _run(settings: Settings) -> int:
    camera = without_secrets(settings.camera) if settings.enabled else "disabled"
    stream = f"{settings.width}x{settings.height} at {settings.fps:g} fps"
    state_dir = settings.state_dir or "none"
    log.info("Starting Soft Stream %s: camera %s, %s, state folder %s", __version__, camera, stream, state_dir)
    memory.use_single_arena()
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # Signals are handled from here on, also while the application is being built.
    shutdown = ShutdownSignal()
    shutdown.install_handlers([signal.SIGTERM, signal.SIGINT])
    application = Application(settings, shutdown)
    watch = Watch(Notifier(os.environ), application.health.status_line, application.health_error)
    try:
        application.start()
        watch.start(application.on_fatal)
    except StoppedWhileStarting as stopped:
        log.info("Stopping: %s", stopped)
        return _stop(application, EXIT_OK)
    except Exception as error:  # noqa: BLE001 - logged; what has started must stop
        return _stop(application, _report(error, settings))
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
    return _stop(application, code)


def _stop(application: Application, code: int) -> int:
    """Stop what has started; returns the exit code, or exits with it where threads remain."""
    if not application.stop(Deadline.after(_STOP_TIMEOUT_S)):
        log.error("Forcing exit")
        _exit_immediately(code or EXIT_STUCK)
    log.info("Stopped")
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


def _configure_logging(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    if is_journal(sys.stderr, os.environ):
        handler.setFormatter(JournalFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=level)
    # Picamera2 logs each of its steps at INFO.
    logging.getLogger("picamera2").setLevel(max(logging.getLogger().level, logging.WARNING))
