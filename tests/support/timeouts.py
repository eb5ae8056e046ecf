"""The time limits that all tests share, scaled by one factor for slow machines.

A limit here is only reached by a fault, so a larger factor makes no passing test slower.
"""

import os

TIMEOUT_FACTOR = float(os.environ.get("SOFT_STREAM_TEST_TIMEOUT_FACTOR", "1"))
PATIENCE_S = 20.0 * TIMEOUT_FACTOR  # for an operation that takes a moment on an idle machine
RUN_LIMIT_S = 100.0 * TIMEOUT_FACTOR  # for a program that a test runs to its end
TEST_LIMIT_S = 120.0 * TIMEOUT_FACTOR  # for a test without its own limit
