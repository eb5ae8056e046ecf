"""Long-lived threads: each has a name and an owner, and a crash is always logged and reported. Any thread may spawn."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


def spawn(name: str, run: Callable[[], None], on_crash: Callable[[str], None]) -> threading.Thread:
    """Start a daemon thread called `name` that runs `run`.

    Returning from `run` is a normal end. An exception is logged with its traceback and reported to `on_crash(reason)`,
    on that thread; the owner decides what follows, since a process must not continue without one of its threads.
    """

    def guarded() -> None:
        try:
            run()
        except BaseException as error:  # the outermost frame of the thread; a SystemExit would be swallowed above it
            log.exception("Thread %s crashed", name)
            on_crash(f"thread {name} crashed: {type(error).__name__}: {error}")

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread
