"""The time limits of a camera session. Tests pass shorter ones."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """Limits in seconds; constants of the product, not settings."""

    # How long a call into the camera may take before the process is given up. Generous: a Pi Zero opens in some
    # seconds, and libcamera's own timeouts are shorter.
    open_s: float = 20.0
    restart_s: float = 10.0
    still_s: float = 15.0
    close_s: float = 10.0

    absence_s: float = 2.0  # a remote camera that is back sooner was hardly away
    fresh_s: float = 1.0  # an older frame, beyond what the camera needs for one, is not a live image
    change_s: float = 2.0  # how long one image waits for a slow camera to show a control change
    # How long one image waits for a camera that is being recovered. A restart of the stream is over by then; for what
    # takes longer, the client has to ask again.
    recovery_wait_s: float = 3.0

    still_pause_s: float = 0.5  # streams run at least this long between two stills
    max_waiting_stills: int = 8  # different ones; one more would not be in time
