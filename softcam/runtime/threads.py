"""Long threads: each has a name and an owner, and its death is told, never silent.

Nothing here knows what the threads do.
"""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


def spawn(name: str, run: Callable[[], None], on_crash: Callable[[str], None]) -> threading.Thread:
    """Run `run` in a daemon thread called `name`.

    Returning from `run` is a normal end. An exception is logged with its traceback and then told to
    `on_crash(reason)`, whose owner decides; a portal with a dead part must not go on as if it were well.
    """

    def guarded() -> None:
        try:
            run()
        except BaseException as trouble:  # the thread's edge: nobody above could see it, least of all a SystemExit
            log.exception("Thread %s died", name)
            on_crash(f"thread {name} died: {type(trouble).__name__}: {trouble}")

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread
