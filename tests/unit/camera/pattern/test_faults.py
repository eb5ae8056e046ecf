"""The pattern camera's faults, in the file and in the camera."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from softcam.camera.pattern.camera import PatternCamera
from softcam.camera.pattern.faults import KNOWN, Faults
from softcam.errors import CameraBusy, CameraError, CameraMissing
from tests.support.pattern_client import DEADLINE_S, SILENCE_S, FaultsFile, FrameCollector, pattern_threads


def in_thread(call: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread


def test_hang(camera: PatternCamera, collector: FrameCollector, faults: FaultsFile) -> None:
    camera.open(collector)
    collector.wait_frames(1)
    faults.inject("hang")
    collector.wait_silence()
    camera.restart()
    assert collector.is_silent()
    faults.clear()
    collector.wait_frames(3)


@pytest.mark.parametrize("way_out", ["restart", "reopen"])
def test_hang_once_ends_with_restart_or_reopen(
    camera: PatternCamera, collector: FrameCollector, faults: FaultsFile, way_out: str
) -> None:
    faults.inject("hang-once")
    camera.open(collector)
    assert collector.is_silent()
    if way_out == "restart":
        camera.restart()
    else:
        camera.close()
        camera.open(collector)
    collector.wait_frames(20)  # although the word is still in the file


def test_hang_once_again_after_removal(camera: PatternCamera, collector: FrameCollector, faults: FaultsFile) -> None:
    faults.inject("hang-once")
    camera.open(collector)
    assert collector.is_silent()
    camera.restart()
    faults.clear()
    start = time.monotonic()
    collector.wait(lambda: time.monotonic() - start > SILENCE_S)
    faults.inject("hang-once")
    collector.wait_silence()


@pytest.mark.parametrize(
    ("word", "call"),
    [
        ("hang-open", "open"),
        ("hang-stop", "restart"),
        ("hang-stop", "close"),
        ("hang-close", "close"),
        ("hang-still", "still"),
    ],
)
def test_hanging_calls(
    camera: PatternCamera, collector: FrameCollector, faults: FaultsFile, word: str, call: str
) -> None:
    calls: dict[str, Callable[[], object]] = {
        "open": lambda: camera.open(collector),
        "restart": camera.restart,
        "close": camera.close,
        "still": lambda: camera.still((64, 64)),
    }
    if call != "open":
        camera.open(collector)
    faults.inject(word)
    thread = in_thread(calls[call])
    thread.join(0.3)
    assert thread.is_alive()
    faults.clear()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def test_missing(camera: PatternCamera, collector: FrameCollector, faults: FaultsFile) -> None:
    assert camera.is_present()
    camera.open(collector)
    collector.wait_frames(1)
    faults.inject("missing")
    assert not camera.is_present()
    collector.wait_silence()
    with pytest.raises(CameraMissing):
        camera.restart()
    camera.close()
    with pytest.raises(CameraMissing):
        camera.open(collector)
    assert not pattern_threads()
    faults.clear()
    assert camera.is_present()
    camera.open(collector)
    collector.wait_frames(1)


def test_busy(camera: PatternCamera, collector: FrameCollector, faults: FaultsFile) -> None:
    faults.inject("busy")
    assert camera.is_present()
    with pytest.raises(CameraBusy):
        camera.open(collector)
    faults.clear()
    camera.open(collector)
    collector.wait_frames(1)


def test_restart_fails(camera: PatternCamera, collector: FrameCollector, faults: FaultsFile) -> None:
    camera.open(collector)
    collector.wait_frames(1)
    faults.inject("fail-restart")
    with pytest.raises(CameraError, match="restart"):
        camera.restart()
    assert collector.is_silent()
    camera.close()
    camera.open(collector)  # a reopened camera starts
    collector.wait_frames(1)


@pytest.mark.parametrize(("word", "state"), [("no-focus", 3), ("near", 2), ("dark", 2)])
def test_autofocus_result(
    camera: PatternCamera, collector: FrameCollector, faults: FaultsFile, word: str, state: int
) -> None:
    faults.inject(word)
    camera.open(collector)
    camera.set_controls({"AfMode": 1, "AfTrigger": 0})
    collector.wait_for_metadata("AfState", 1)
    collector.wait_for_metadata("AfState", state)


def test_endless_focus(camera: PatternCamera, collector: FrameCollector, faults: FaultsFile) -> None:
    faults.inject("endless-focus")
    camera.open(collector)
    camera.set_controls({"AfMode": 1, "AfTrigger": 0})
    collector.wait_for_metadata("AfState", 1)
    start = len(collector.seen)
    collector.wait_frames(60)
    assert {frame.metadata["AfState"] for frame in collector.seen[start:]} == {1}
    faults.clear()
    collector.wait_for_metadata("AfState", 2)


def test_dark(camera: PatternCamera, collector: FrameCollector, faults: FaultsFile) -> None:
    camera.open(collector)
    faults.inject("dark")
    collector.wait_for_metadata("Lux", 1.0)


def test_unknown_word_is_logged_once(faults: FaultsFile, caplog: pytest.LogCaptureFixture) -> None:
    faults.inject("hnag", "busy")
    reader = Faults(faults.path)
    with caplog.at_level(logging.ERROR):
        assert reader.words() == reader.words() == {"busy"}
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "hnag" in caplog.text


def test_unreadable_faults_file(tmp_path: Path) -> None:
    assert Faults(None).words() == frozenset()
    assert Faults(tmp_path / "absent").words() == frozenset()
    assert Faults(tmp_path).words() == frozenset()  # a directory


def test_several_faults_at_once(faults: FaultsFile) -> None:
    faults.inject(*KNOWN)
    assert Faults(faults.path).words() == KNOWN


def test_every_fault_is_documented() -> None:
    text = Path(__file__).parents[4].joinpath("docs/sources.md").read_text()
    assert {word for word in KNOWN if f"`{word}`" not in text} == set()
