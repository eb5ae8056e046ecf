"""The events that a test logs."""

import pytest

from softcam.runtime.log.events import Event, event_of


def logged_events(caplog: pytest.LogCaptureFixture) -> list[Event]:
    """In the order of their records."""
    return [event for record in caplog.records if (event := event_of(record)) is not None]
