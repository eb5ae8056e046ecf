"""Autofocus cycles on an open camera, with several threads."""

import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from softcam.camera.base import StreamConfig
from softcam.camera.session.autofocus import Autofocus
from softcam.camera.session.autofocus_cycle import START_CONTROLS, AfMode, FocusOutcome
from softcam.camera.session.sent_controls import SentControls
from softcam.errors import NotSupported
from tests.support.background import Background, soon_s
from tests.support.fakes import AUTOFOCUS, SENSOR_SIZE, SIZE
from tests.support.timeouts import PATIENCE_S

SCANNING: Mapping[str, Any] = {"AfState": 1}
FOCUSED: Mapping[str, Any] = {"AfState": 2, "LensPosition": 1.25}
FAILED: Mapping[str, Any] = {"AfState": 3}
TRIGGER = dict(START_CONTROLS)
CONFIG = StreamConfig(*SIZE, "YUV420", SENSOR_SIZE, AUTOFOCUS)
CONTINUOUS = {"AfMode": int(AfMode.CONTINUOUS)}


class Lens:
    """`Autofocus` with a camera that only records what is sent."""

    def __init__(self, *, timeout_s: float = 60.0, is_able: bool = True, lasts_s: float = 60.0) -> None:
        self.sent: list[Mapping[str, Any]] = []
        self.refuses = False
        self.record = SentControls()
        self.focus = Autofocus(
            lambda controls: self.send(controls), self.record, timeout_s, is_enabled=is_able, lasts_s=lasts_s
        )
        self.send: Callable[[Mapping[str, Any]], None] = self._send
        self.open()

    def open(self) -> None:
        self.record.clear()
        self.focus.on_configured(CONFIG)

    def see(self, *metadata: Mapping[str, Any]) -> None:
        for one in metadata:
            self.focus.on_frame(one, is_settled=True)

    def focus_once(self, *, beginnings: int = 1) -> Background:
        """A thread that waits for a cycle that was started."""
        waiting = Background.waiting(self.focus.focus_once)
        assert self.sent.count(TRIGGER) == beginnings
        return waiting

    def _send(self, controls: Mapping[str, Any]) -> None:
        if self.refuses:
            raise NotSupported("no control AfTrigger")
        self.sent.append(dict(controls))
        self.record.record(controls, time.monotonic())


@pytest.mark.parametrize(("verdict", "metadata"), [("focused", FOCUSED), ("failed", FAILED)])
def test_snapshot_waits_for_the_outcome(
    verdict: str, metadata: Mapping[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    lens = Lens()
    assert lens.focus.mode is None
    with caplog.at_level(logging.INFO):
        waiting = lens.focus_once()
        assert lens.focus.mode is AfMode.AUTO
        lens.see(SCANNING, SCANNING)
        assert not waiting.is_over
        lens.see(metadata)
        outcome = waiting.result()
    assert isinstance(outcome, FocusOutcome)
    assert outcome.verdict == verdict
    assert lens.sent == [TRIGGER], "a snapshot leaves the mode alone"
    assert re.search(rf"Autofocus for a snapshot {verdict} after \d+\.\d\d s", caplog.text)


def test_continuous_focus_after_the_cycle_of_a_stream() -> None:
    lens = Lens()
    lens.focus.keep_focused("the stream")
    lens.see(SCANNING)
    assert lens.sent == [TRIGGER]
    lens.see(FOCUSED, FOCUSED, SCANNING)
    assert lens.sent == [TRIGGER, CONTINUOUS]
    assert lens.focus.mode is AfMode.CONTINUOUS


def test_concurrent_requests_share_a_cycle() -> None:
    lens = Lens()
    lens.focus.keep_focused("the stream")
    waiting = [lens.focus_once(), lens.focus_once()]
    lens.see(SCANNING, FOCUSED)
    outcomes = [background.result() for background in waiting]
    assert lens.sent == [TRIGGER, CONTINUOUS]
    assert isinstance(outcomes[0], FocusOutcome)
    assert outcomes[0] is outcomes[1]


def test_outcome_per_cycle() -> None:
    lens = Lens()
    first = lens.focus_once()
    lens.see(SCANNING, FOCUSED)
    assert first.result().verdict == "focused"
    second = lens.focus_once(beginnings=2)
    lens.see(SCANNING)
    assert not second.is_over
    lens.see(FAILED)
    assert second.result().verdict == "failed"


def test_camera_without_autofocus() -> None:
    lens = Lens(is_able=False)
    assert lens.focus.focus_once(soon_s()) is None
    lens.focus.keep_focused("the stream")
    lens.see(FOCUSED)
    assert lens.sent == []


def test_deadline_before_the_outcome(caplog: pytest.LogCaptureFixture) -> None:
    lens = Lens()
    with caplog.at_level(logging.INFO):
        assert lens.focus.focus_once(time.monotonic() + 0.02) is None
        lens.see(SCANNING, FOCUSED)
    assert "Autofocus for a snapshot continues beyond the time budget" in caplog.text
    assert "Autofocus for a snapshot focused" in caplog.text, "the cycle continues"


@pytest.mark.parametrize("verdict", [FOCUSED, FAILED])
def test_kept_in_focus_after_one_cycle(verdict: Mapping[str, Any]) -> None:
    lens = Lens()
    lens.focus.keep_focused("a snapshot")
    assert lens.focus.has_cycle
    lens.see(SCANNING, verdict)
    for purpose in ("a snapshot", "the stream"):
        lens.focus.keep_focused(purpose)
    assert lens.sent == [TRIGGER, CONTINUOUS], "the camera follows the scene now"
    assert not lens.focus.has_cycle
    lens.open()
    lens.focus.keep_focused("a snapshot")
    assert lens.sent[2:] == [TRIGGER], "each opening anew"


def test_cycle_precedes_continuous_mode_of_user() -> None:
    lens = Lens()
    lens.focus.set_user_mode(AfMode.CONTINUOUS, has_lens=True)
    lens.focus.keep_focused("a snapshot")
    assert lens.sent == [CONTINUOUS, TRIGGER], "the lens has not been focused in this opening"


@pytest.mark.parametrize(("lasts_s", "cycles"), [(60.0, 1), (0.0, 2)])
def test_focus_lasts_in_auto_mode(lasts_s: float, cycles: int) -> None:
    lens = Lens(lasts_s=lasts_s)
    lens.focus.set_user_mode(AfMode.AUTO, has_lens=True)
    for _ in range(2):
        lens.focus.keep_focused("a snapshot")
        lens.see(SCANNING, FOCUSED)
    assert lens.sent.count(TRIGGER) == cycles
    assert CONTINUOUS not in lens.sent


def test_manual_focus_ends_what_a_cycle_has_done() -> None:
    lens = Lens()
    lens.focus.keep_focused("a snapshot")
    lens.see(SCANNING, FOCUSED)
    for mode in (AfMode.MANUAL, AfMode.AUTO):
        lens.focus.set_user_mode(mode, has_lens=True)
    lens.focus.keep_focused("a snapshot")
    assert lens.sent.count(TRIGGER) == 2


def test_wait_for_cycle() -> None:
    lens = Lens()
    assert lens.focus.wait_for_cycle(time.monotonic(), PATIENCE_S) is None, "there is none"
    lens.focus.keep_focused("a snapshot")
    waiting = Background(lambda: lens.focus.wait_for_cycle(time.monotonic(), PATIENCE_S))
    lens.see(SCANNING)
    assert not waiting.is_over
    lens.see(FOCUSED)
    assert waiting.result().is_focused


def test_budget_of_a_cycle_is_used_once(caplog: pytest.LogCaptureFixture) -> None:
    lens = Lens()
    began_s = time.monotonic()
    lens.focus.keep_focused("a snapshot")
    with caplog.at_level(logging.INFO):
        assert lens.focus.wait_for_cycle(began_s, 0.02) is None
        # A request that is yet to come: only the age of the cycle ends this wait.
        assert lens.focus.wait_for_cycle(began_s + 2 * PATIENCE_S, 0.02) is None
    assert caplog.text.count("continues beyond the time budget") == 1


def test_cycle_timeout(caplog: pytest.LogCaptureFixture) -> None:
    lens = Lens(timeout_s=0.01)
    with caplog.at_level(logging.WARNING):
        waiting = lens.focus_once()
        while not waiting.is_over:
            lens.see(SCANNING)
    assert waiting.result().verdict == "timed out"
    assert "Autofocus for a snapshot timed out after" in caplog.text


def test_closing_ends_the_wait(caplog: pytest.LogCaptureFixture) -> None:
    lens = Lens()
    waiting = lens.focus_once()
    with caplog.at_level(logging.INFO):
        lens.focus.on_closing()
    assert waiting.result() is None
    assert "Autofocus for a snapshot cancelled: the camera is being closed" in caplog.text
    lens.see(FOCUSED)
    assert lens.focus.focus_once(soon_s()) is None
    assert lens.focus.mode is None


def test_no_outcome_after_reopening() -> None:
    lens = Lens()
    lens.focus.keep_focused("the stream")
    lens.see(SCANNING, FOCUSED)
    lens.focus.on_closing()
    lens.open()
    waiting = lens.focus_once(beginnings=2)
    lens.see(SCANNING, FOCUSED)
    assert waiting.result().is_focused
    assert lens.sent == [TRIGGER, CONTINUOUS, TRIGGER], "no stream, no continuous mode"


def test_camera_that_rejects_focus_controls(caplog: pytest.LogCaptureFixture) -> None:
    lens = Lens()
    lens.refuses = True
    with caplog.at_level(logging.WARNING):
        lens.focus.keep_focused("the stream")
        assert lens.focus.focus_once(soon_s()) is None
    assert "no control AfTrigger" in caplog.text
    lens.refuses = False
    waiting = lens.focus_once()
    lens.see(SCANNING, FOCUSED)
    assert waiting.result().is_focused, "a refusal is not for ever"


def test_outcome_if_the_resting_mode_is_rejected() -> None:
    lens = Lens()
    lens.focus.keep_focused("the stream")
    waiting = lens.focus_once()
    lens.refuses = True
    lens.see(SCANNING, FOCUSED)
    assert waiting.result().is_focused


def test_no_older_outcome_while_a_cycle_is_rejected() -> None:
    lens = Lens()
    waiting = lens.focus_once()
    lens.see(SCANNING, FOCUSED)
    assert waiting.result().is_focused
    is_asked, may_refuse = threading.Event(), threading.Event()

    def refuse(_: Mapping[str, Any]) -> None:
        is_asked.set()
        assert may_refuse.wait(PATIENCE_S)
        raise NotSupported("busy")

    lens.send = refuse
    first = Background(lambda: lens.focus.focus_once(soon_s()))
    assert is_asked.wait(PATIENCE_S)
    second = Background(lambda: lens.focus.focus_once(soon_s()))
    may_refuse.set()
    assert first.result() is None
    assert second.result() is None


def test_no_lock_while_controls_are_sent() -> None:
    modes: list[AfMode | None] = []

    def send(_: Mapping[str, Any]) -> None:
        modes.append(Background(lambda: focus.mode).result())  # another thread takes the lock meanwhile

    focus = Autofocus(send, SentControls(), 60.0, is_enabled=True)
    focus.on_configured(CONFIG)
    focus.keep_focused("the stream")
    for metadata in (SCANNING, FOCUSED):
        focus.on_frame(metadata, is_settled=True)
    assert len(modes) == 2


def test_end_of_cycle_does_not_override_manual_focus() -> None:
    lens = Lens()
    lens.focus.keep_focused("the stream")
    lens.see(SCANNING)
    is_sending, may_send = threading.Event(), threading.Event()
    sent: list[object] = []

    def send(controls: Mapping[str, Any]) -> None:
        is_sending.set()
        assert may_send.wait(PATIENCE_S)
        sent.append(controls)

    lens.send = send
    stepping = Background(lambda: lens.see(FOCUSED))
    assert is_sending.wait(PATIENCE_S), "the cycle has ended, and continuous focus is about to be sent"
    preferring = Background(lambda: lens.focus.set_user_mode(AfMode.MANUAL, has_lens=True))
    may_send.set()
    stepping.result()
    preferring.result()
    assert sent == [CONTINUOUS], "all of it before prefer returns; its caller sends the manual mode next"
    lens.see(SCANNING, FOCUSED)
    assert sent == [CONTINUOUS]
