"""`CameraManager`: controls, autofocus, and the events that listeners get."""

import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from softcam.camera.base import SessionListener, StreamConfig
from softcam.camera.session.manager import LeaseKind, State
from softcam.errors import CameraError, NotSupported
from tests.support.background import Background, eventually, soon_s
from tests.support.fakes import AUTOFOCUS, FakeCamera, SessionRig


def triggers(camera: FakeCamera) -> int:
    return sum("AfTrigger" in controls for controls in camera.sent)


@pytest.mark.parametrize(
    ("kinds", "cycles"),
    [
        (("stream",), 1),
        (("stream", "stream"), 1),
        (("snapshot", "hold"), 0),
        (("hold", "stream"), 1),
    ],
)
def test_first_stream_starts_autofocus(kinds: tuple[LeaseKind, ...], cycles: int) -> None:
    with SessionRig(FakeCamera(AUTOFOCUS), autofocus_timeout_s=60.0) as held:
        leases = []
        for kind in kinds:
            leases.append(held.manager.lease(kind))
            held.wait_for(State.OPEN)
        eventually(lambda: triggers(held.camera) >= cycles, "the trigger")
        for lease in leases:
            lease.release()
    assert triggers(held.camera) == cycles


def test_stream_while_opening_starts_one_cycle() -> None:
    with SessionRig(FakeCamera(AUTOFOCUS), autofocus_timeout_s=60.0) as held:
        held.camera.block("open")
        hold = held.manager.lease("hold")
        held.camera.wait_inside("open")
        stream = held.manager.lease("stream")
        held.camera.unblock()
        eventually(lambda: triggers(held.camera) == 1, "the trigger")
        held.camera.emit({"AfState": 1})
        held.camera.emit({"AfState": 2})
        assert held.camera.sent[-1] == {"AfMode": 2}
        assert triggers(held.camera) == 1
        hold.release()
        stream.release()


def test_user_requests_focus_with_autofocus_disabled() -> None:
    with SessionRig(FakeCamera(AUTOFOCUS)) as held:
        lease = held.open()
        waiting = Background.waiting(held.manager.autofocus.focus_on_request)
        assert triggers(held.camera) == 1
        held.camera.emit({"AfState": 1})
        held.camera.emit({"AfState": 2})
        assert waiting.result().is_focused
        lease.release()


@pytest.mark.parametrize("controls", [AUTOFOCUS, {}])
def test_no_cycle_without_autofocus(controls: Mapping[str, Any]) -> None:
    with SessionRig(FakeCamera(controls), autofocus_timeout_s=60.0 if not controls else None) as held:
        lease = held.open()
        assert held.manager.autofocus.focus_once(soon_s()) is None
        assert held.camera.sent == []
        lease.release()


def test_rejected_focus_leaks_no_lease(caplog: pytest.LogCaptureFixture) -> None:
    with SessionRig(FakeCamera(AUTOFOCUS), autofocus_timeout_s=60.0) as held, caplog.at_level(logging.WARNING):
        held.camera.control_error = NotSupported("no control AfTrigger")
        with held.manager.lease("hold"):
            held.wait_for(State.OPEN)
            with held.manager.lease("stream"):
                assert "no control AfTrigger" in caplog.text
        assert sum(held.manager.status().leases.values()) == 0


def test_closing_ends_a_wait_for_focus() -> None:
    with SessionRig(FakeCamera(AUTOFOCUS), autofocus_timeout_s=60.0, linger_s=0.0) as held:
        lease = held.manager.lease("snapshot")
        held.wait_for(State.OPEN)
        waiting = Background.waiting(held.manager.autofocus.focus_once)
        assert triggers(held.camera) == 1
        lease.release()
        assert waiting.result() is None


def test_set_controls(held: SessionRig) -> None:
    held.manager.set_controls({"Brightness": 0.5})
    assert held.camera.sent == [{"Brightness": 0.5}]
    held.camera.control_error = NotSupported("no control Sharpness")
    with pytest.raises(NotSupported):
        held.manager.set_controls({"Sharpness": 1})


class OneControlListener(SessionListener):
    """Sends one control with each opening, and records the events."""

    def __init__(self, held: SessionRig) -> None:
        self._held = held
        self.seen: list[str] = []

    def on_configured(self, config: StreamConfig) -> None:
        self.seen.append("configured")
        self._held.manager.set_controls({"Brightness": 0.5})

    def on_open_failed(self, error: CameraError) -> bool:
        self.seen.append("open failed")
        return self.seen.count("open failed") == 1

    def on_closing(self) -> None:
        self.seen.append("closing")


def test_controls_sent_before_the_start_apply_to_the_first_frame(held: SessionRig) -> None:
    held.manager.subscribe(OneControlListener(held))
    held.camera.block("open")
    lease = held.manager.lease("hold")
    held.camera.wait_inside("open")
    assert held.camera.sent == [{"Brightness": 0.5}]
    held.camera.unblock()
    for _ in range(6):
        held.camera.emit()
    asked_s = time.monotonic()
    waiting = Background.waiting(partial(held.manager.wait_frame, asked_s))
    held.camera.emit()
    waiting.result().release()  # it counts from the first frame: there is none to wait for
    lease.release()


def test_listener_events_of_a_failed_start(held: SessionRig) -> None:
    listener = OneControlListener(held)
    held.manager.subscribe(listener)
    held.camera.fail_next("open", CameraError("no memory"))
    lease = held.manager.lease("hold")
    held.wait_for(State.OPEN)
    assert listener.seen == ["configured", "closing", "open failed", "configured"]
    lease.release()


def test_all_listeners_are_notified_in_order(brief: SessionRig) -> None:
    events: list[tuple[int, str]] = []

    class Recorder(SessionListener):
        def __init__(self, number: int) -> None:
            self._number = number

        def _record(self, event: str) -> None:
            events.append((self._number, event))

        def on_opening(self) -> None:
            self._record("opening")

        def on_configured(self, config: StreamConfig) -> None:
            assert config is brief.camera.config
            self._record("configured")

        def on_open_failed(self, error: CameraError) -> bool:
            self._record("open failed")
            return self._number == 1

        def on_closing(self) -> None:
            self._record("closing")

        def on_closed(self) -> None:
            self._record("closed")

    for number in (1, 2):
        brief.manager.subscribe(Recorder(number))
    brief.camera.fail_next("open", CameraError("no memory"))
    lease = brief.open()
    brief.manager.reopen(soon_s())
    lease.release()
    brief.wait_for(State.CLOSED)
    eventually(lambda: events[-1] == (2, "closed"), "the last event")
    attempt = ["opening", "configured"]
    expected = [*attempt, "closing", "open failed", *attempt, "closing", *attempt, "closing", "closed"]
    assert events == [(number, event) for event in expected for number in (1, 2)]
