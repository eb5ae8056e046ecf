"""A frame hook that keeps a Python thread busy nearly all of the time: the worst neighbour of the portal's loop."""

import time

BUSY_S = 0.028  # of the 33 ms between two frames at 30 fps


def spin(_frame: object) -> None:
    """Compute in pure Python, so that the GIL is given up only when its switch interval is over."""
    until_s = time.monotonic() + BUSY_S
    total = 0
    while time.monotonic() < until_s:
        for number in range(1000):
            total += number * number
