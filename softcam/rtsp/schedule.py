"""When sender reports are due, and keyframes for readers that begin late. The same for the server and the publisher."""

import math
from typing import Final

from softcam.runtime.deadline import Clock

# After a reader has started. A media server (MediaMTX) passes nothing on before its own readers are ready, some tenths
# of a second later, and keeps no earlier packets: without these they would wait for the next regular keyframe.
LATE_KEYFRAMES_S: Final = (0.3, 0.7)
_REPORT_INTERVAL_S: Final = 5.0
_CLOCK_STEP_S: Final = 0.1  # a wall clock that moves by more has been set: NTP slews by 0.5 ms per second


class ReportSchedule:
    """A report is due at first, then every five seconds, and at once when the wall clock was set. For one thread."""

    def __init__(self, clock: Clock, wall_clock: Clock) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._due_s = -math.inf
        self._wall_offset_s = 0.0  # of the wall clock to the monotonic one, as last reported

    def take_due(self) -> tuple[float, float] | None:
        """The moment on both clocks, monotonic and Unix time, for a report that is sent now; None if none is due."""
        now_s, unix_s = self._clock(), self._wall_clock()
        offset_s = unix_s - now_s
        if now_s < self._due_s and abs(offset_s - self._wall_offset_s) <= _CLOCK_STEP_S:
            return None
        self._due_s, self._wall_offset_s = now_s + _REPORT_INTERVAL_S, offset_s
        return now_s, unix_s
