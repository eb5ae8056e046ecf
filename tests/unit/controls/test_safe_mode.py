"""A state not yet confirmed by frames is dropped and quarantined when the camera does not start with it."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from softcam.camera.session.manager import State
from softcam.controls.safe_mode import SafeMode
from softcam.controls.schema import BY_NAME
from softcam.controls.state import RequestedControls
from softcam.controls.store import Store
from softcam.controls.writer import BackgroundWriter
from softcam.errors import CameraBusy, CameraError, NotSupported
from tests.support.background import Background, Flow, eventually
from tests.support.control_scene import CONFIGURED, ControlScene
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[ControlScene]:
    scene = ControlScene(tmp_path)
    with scene.held:
        yield scene


def saved(folder: Path) -> RequestedControls:
    """What the file has; does not touch it, as the next process would."""
    path = folder / "cam0.json"
    return RequestedControls.from_json(path.read_text())[0] if path.exists() else RequestedControls()


def quarantined(folder: Path) -> RequestedControls:
    return RequestedControls.from_json((folder / "cam0.json.bad").read_text())[0]


# A saved state


def test_camera_does_not_open(scene: ControlScene, tmp_path: Path) -> None:
    scene.change("transform", hflip=True)
    scene.camera.fail_next("open", CameraError("broken by it"))
    with scene.held.open():
        assert scene.camera.requests[-1] == CONFIGURED
        reason = "the camera did not open with these controls: broken by it"
        assert scene.problem("set_aside") == reason
    assert quarantined(tmp_path).get("transform", "hflip") is True
    assert saved(tmp_path).is_empty


def test_camera_delivers_no_frames(tmp_path: Path) -> None:
    scene = ControlScene(tmp_path, watchdog_timeout_s=0.2 * TIMEOUT_FACTOR)
    is_over = threading.Event()

    def flow() -> None:
        while not is_over.wait(0.01):
            if scene.camera.requests and not scene.camera.requests[-1].hflip:
                scene.camera.emit_if_open()

    with scene.held:
        scene.change("transform", hflip=True)
        with Flow(flow, is_over), scene.held.manager.lease("stream"):
            eventually(lambda: scene.held.manager.status().frames, "it starts without the state")
        assert scene.problem("set_aside") == "the camera delivered no frames with these controls"
    assert quarantined(tmp_path).get("transform", "hflip") is True
    assert saved(tmp_path).is_empty


def test_camera_delivers_no_frames_and_all_clients_leave(tmp_path: Path) -> None:
    scene = ControlScene(tmp_path, watchdog_timeout_s=0.2 * TIMEOUT_FACTOR)
    with scene.held:
        scene.change("transform", hflip=True)
        lease = scene.held.manager.lease("stream")
        scene.held.wait_for(State.OPEN)
        scene.camera.block("restart")
        scene.camera.wait_inside("restart")  # the stall is detected
        lease.release()
        scene.camera.unblock()
        scene.held.wait_for(State.CLOSED)
        assert "no frames" in scene.problem("set_aside")
        with scene.held.open():
            assert scene.camera.requests[-1] == CONFIGURED
    assert quarantined(tmp_path).get("transform", "hflip") is True


PROCESS = """
import os, sys, time
from pathlib import Path
from tests.support.control_scene import ControlScene

scene = ControlScene(Path(sys.argv[1]))
scene.camera.prepare = lambda _: os._exit(9) if sys.argv[2] == "crash" else print("hangs", flush=True) or time.sleep(60)
scene.change("transform", hflip=True)
scene.held.manager.lease("stream")
time.sleep(60)
"""


@pytest.mark.parametrize("how", ["hang", "crash"])
def test_process_hangs_or_crashes_while_opening(tmp_path: Path, how: str) -> None:
    command = [sys.executable, "-c", PROCESS, str(tmp_path), how]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        if how == "hang":
            assert process.stdout is not None
            assert process.stdout.readline() == b"hangs\n"
            process.kill()
    assert saved(tmp_path).get("transform", "hflip") is True
    scene = ControlScene(tmp_path)  # the next process
    assert "hung or crashed" in scene.problem("set_aside")
    assert quarantined(tmp_path).get("transform", "hflip") is True
    with scene.held, scene.held.open():
        assert scene.camera.requests == [CONFIGURED]
    assert saved(tmp_path).is_empty


def test_broken_camera_leaves_the_state_in_quarantine(tmp_path: Path) -> None:
    scene = ControlScene(tmp_path, watchdog_timeout_s=0.1 * TIMEOUT_FACTOR)
    with scene.held:
        scene.change("transform", hflip=True)
        lease = scene.held.manager.lease("stream")
        scene.held.take_failure()
        lease.release()
        assert [request.hflip for request in scene.camera.requests] == [True, False]
    assert quarantined(tmp_path).get("transform", "hflip") is True
    assert "delete or restore it" in ControlScene(tmp_path).problem("set_aside")


def test_only_the_unconfirmed_change_is_dropped(scene: ControlScene, tmp_path: Path) -> None:
    scene.change("image_processing", brightness=0.5)
    scene.held.open().release()
    scene.held.wait_for(State.CLOSED)
    scene.change("transform", hflip=True)
    scene.camera.fail_next("open", CameraError("broken by it"))
    with scene.held.open():
        assert scene.value("image_processing", "brightness") == 0.5
        assert scene.camera.requests[-1] == CONFIGURED
        assert scene.problem("set_aside").endswith("; the previous controls are used")
    assert set(saved(tmp_path).groups) == {"image_processing"}
    assert set(quarantined(tmp_path).groups) == {"image_processing", "transform"}


def test_change_after_a_drop_is_saved(scene: ControlScene, tmp_path: Path) -> None:
    scene.change("transform", hflip=True)
    scene.camera.fail_next("open", CameraError("broken by it"))
    with scene.held.open():
        scene.change("image_processing", brightness=0.5)
    assert quarantined(tmp_path).get("transform", "hflip") is True
    assert set(saved(tmp_path).groups) == {"image_processing"}


def test_drop_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    scene = ControlScene(tmp_path, writer=BackgroundWriter(pytest.fail, retry_s=0.001))
    with scene.held:
        scene.change("image_processing", brightness=0.5)
        scene.held.open().release()
        scene.held.wait_for(State.CLOSED)
        scene.change("transform", hflip=True)
        with monkeypatch.context() as patch:
            patch.setattr("softcam.controls.state_file.replace_file", fail)
            scene.camera.fail_next("open", CameraError("broken by it"))
            with scene.held.open():
                eventually(lambda: scene.problem("not_kept"), "the failure")
                assert saved(tmp_path).get("transform", "hflip") is True, "the only copy"
        eventually(lambda: scene.problem("not_kept") is None, "saved once there is space")
        assert "broken by it" in scene.problem("set_aside")
    assert quarantined(tmp_path).get("transform", "hflip") is True
    assert set(saved(tmp_path).groups) == {"image_processing"}


def test_update_of_the_mark_that_raises_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = list[RequestedControls]()

    def fail(_: Store, requested: RequestedControls) -> None:
        attempts.append(requested)
        raise ValueError("broken")

    monkeypatch.setattr(Store, "start_attempt", fail)
    scene = ControlScene(tmp_path, writer=BackgroundWriter(pytest.fail, retry_s=0.001))
    with scene.held:
        scene.change("transform", hflip=True)
        scene.held.open().release()
        scene.held.wait_for(State.CLOSED)
        eventually(lambda: scene.problem("not_kept") is None, "it is saved")
    assert len(attempts) == 1
    assert saved(tmp_path).get("transform", "hflip") is True


def test_step_of_the_loading_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried again without a change."""
    folders = list[Path]()

    def fail(folder: Path) -> None:
        folders.append(folder)
        raise OSError(errno.EIO, "Input/output error")

    Store(tmp_path, "cam0").save(with_hflip(RequestedControls()))
    (tmp_path / "cam0.trial").write_text("{")
    with monkeypatch.context() as patch:
        patch.setattr("softcam.controls.store.sync_directory", fail)
        scene = ControlScene(tmp_path, writer=BackgroundWriter(pytest.fail, retry_s=0.001))
        assert "Input/output error" in scene.problem("not_kept")
        assert folders
    eventually(lambda: scene.problem("not_kept") is None, "it succeeds later")
    assert saved(tmp_path).get("transform", "hflip") is True
    assert [path.name for path in tmp_path.iterdir()] == ["cam0.json"]


def test_file_that_cannot_be_read_is_not_replaced_without_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    Store(tmp_path, "cam0").save(with_hflip(RequestedControls()))
    with monkeypatch.context() as patch:
        patch.setattr("softcam.controls.state_file.read_file", fail)
        patch.setattr(Path, "glob", fail)
        scene = ControlScene(tmp_path, writer=BackgroundWriter(pytest.fail, retry_s=0.001))
    assert scene.writer.run_job(lambda: None), "nothing is queued before it"
    assert "Input/output error" in scene.problem("not_kept")
    assert saved(tmp_path).get("transform", "hflip") is True


def test_confirmed_state_is_never_dropped(scene: ControlScene, tmp_path: Path) -> None:
    scene.change("transform", hflip=True)
    scene.held.open().release()
    scene.held.wait_for(State.CLOSED)
    scene.camera.fail_next("open", CameraError("unplugged"))
    lease = scene.held.manager.lease("stream")
    assert "unplugged" in str(scene.held.take_failure())
    lease.release()
    assert saved(tmp_path).get("transform", "hflip") is True
    assert scene.problem("set_aside") is None


# What does not count against a state


def test_busy_camera(tmp_path: Path) -> None:
    for number in range(4):
        scene = ControlScene(tmp_path)
        if number:
            assert scene.value("image_processing", "brightness") == 0.5
        scene.camera.fail_next("open", CameraBusy("taken"))
        with scene.held:
            if not number:
                scene.change("image_processing", brightness=0.5)
            lease = scene.held.manager.lease("stream")
            scene.held.take_failure()
            lease.release()
            assert scene.problem("set_aside") is None


def test_closing_before_the_first_frame(tmp_path: Path) -> None:
    scene = ControlScene(tmp_path)
    with scene.held:
        scene.change("image_processing", brightness=0.5)
    for _ in range(4):
        scene = ControlScene(tmp_path)
        assert scene.value("image_processing", "brightness") == 0.5
        with scene.held:
            lease = scene.held.manager.lease("stream")
            scene.held.wait_for(State.OPEN)
            lease.release()


def test_crash_during_a_change_that_is_not_saved_yet(tmp_path: Path) -> None:
    before = RequestedControls().with_values(BY_NAME["image_processing"], {"brightness": 0.5})
    store = Store(tmp_path, "cam0")
    store.save(before)
    store.start_attempt(before.with_values(BY_NAME["transform"], {"hflip": True}))
    scene = ControlScene(tmp_path)  # the next process
    assert scene.value("image_processing", "brightness") == 0.5
    assert scene.problem("set_aside") is None


# A change on a running camera


def test_change_that_the_camera_does_not_open_with_is_reverted(scene: ControlScene, tmp_path: Path) -> None:
    with scene.held.open():
        scene.change("image_processing", brightness=0.5)
        scene.camera.fail_next("open", NotSupported("cannot mirror"))
        with pytest.raises(NotSupported, match="cannot mirror"):
            scene.change("transform", hflip=True)
        assert scene.value("image_processing", "brightness") == 0.5
        assert not scene.control_manager.requested.has("transform")
        assert scene.camera.requests[-1] == CONFIGURED
        scene.held.wait_for(State.OPEN)
    assert scene.problem("set_aside") is None
    assert set(saved(tmp_path).groups) == {"image_processing"}


def test_change_without_frames_is_dropped(tmp_path: Path) -> None:
    scene = ControlScene(tmp_path, watchdog_timeout_s=0.3 * TIMEOUT_FACTOR)
    is_over = threading.Event()

    def flow() -> None:
        while not is_over.wait(0.01):
            if not scene.camera.requests or not scene.camera.requests[-1].vflip:
                scene.camera.emit_if_open()

    with scene.held, Flow(flow, is_over), scene.held.open():
        scene.change("image_processing", brightness=0.5)
        scene.change("transform", hflip=True)
        frames = scene.held.manager.status().frames
        eventually(lambda: scene.held.manager.status().frames > frames, "it works")
        scene.change("transform", vflip=True)  # and no frame arrives any more
        eventually(lambda: scene.problem("set_aside"), "the change is dropped")
        eventually(lambda: scene.camera.opens == 4, "it is opened with the previous controls")
        assert scene.value("image_processing", "brightness") == 0.5
        assert (scene.value("transform", "hflip"), scene.value("transform", "vflip")) == (True, False)
        assert scene.camera.requests[-1].vflip is False
        assert "previous" in scene.problem("set_aside")
    assert saved(tmp_path).get("image_processing", "brightness") == 0.5
    assert saved(tmp_path).get("transform", "vflip") is False


# Without a camera


@pytest.fixture
def safe_mode(tmp_path: Path) -> SafeMode:
    return SafeMode(CONFIGURED, Store(tmp_path, "cam0"), BackgroundWriter(list[str]().append))


def with_hflip(requested: RequestedControls) -> RequestedControls:
    return requested.with_values(BY_NAME["transform"], {"hflip": True})


def with_brightness(requested: RequestedControls) -> RequestedControls:
    return requested.with_values(BY_NAME["image_processing"], {"brightness": 0.5})


def test_frames_of_the_opening_before_confirm_nothing(safe_mode: SafeMode) -> None:
    safe_mode.start_attempt()
    assert safe_mode.start_change(with_hflip) is True
    safe_mode.confirm_state()  # a frame of the camera that is still to be reopened
    assert not safe_mode.is_confirmed
    safe_mode.start_attempt()
    safe_mode.confirm_state()
    assert safe_mode.is_confirmed


def test_change_that_waits_is_not_blamed(safe_mode: SafeMode) -> None:
    safe_mode.start_attempt()
    assert safe_mode.start_change(with_hflip) is True
    assert safe_mode.drop_unconfirmed("no frames") is False, "the camera was not opened with the change yet"
    assert safe_mode.requested.has("transform")


def test_change_without_frames_is_reported_to_its_request(safe_mode: SafeMode) -> None:
    safe_mode.start_attempt()
    assert safe_mode.start_change(with_hflip) is True
    safe_mode.start_attempt()
    assert safe_mode.drop_unconfirmed("no frames") is True
    assert safe_mode.accept_change() is False
    assert safe_mode.requested.is_empty


def test_change_of_an_open_camera_needs_no_frames(safe_mode: SafeMode) -> None:
    safe_mode.start_attempt()
    assert safe_mode.start_change(with_brightness) is False
    assert safe_mode.accept_change()
    assert safe_mode.is_confirmed


def test_update_during_a_change(safe_mode: SafeMode) -> None:
    is_inside, may_return = threading.Event(), threading.Event()

    def change(requested: RequestedControls) -> RequestedControls:
        is_inside.set()
        assert may_return.wait(PATIENCE_S)
        return with_brightness(requested)

    changing = Background(lambda: safe_mode.start_change(change))
    assert is_inside.wait(10), "the change has read the state"
    updating = Background(lambda: safe_mode.update_state(with_hflip))
    may_return.set()
    changing.result()
    assert updating.result() is True
    assert set(safe_mode.requested.groups) == {"image_processing", "transform"}
