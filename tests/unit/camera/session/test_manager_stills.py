"""`CameraManager`: stills run between two frames, equal ones are shared, streams keep their share of time."""

import time
from collections.abc import Iterator
from functools import partial

import pytest

from softcam.camera.session.manager import Lease, SessionLimits, State
from softcam.errors import CameraError, CameraStuck, NoPicture, NotSupported
from softcam.imaging.frame import Frame
from tests.support.background import Background, soon, soon_s
from tests.support.fakes import SENSOR_SIZE, SIZE, SessionRig


@pytest.fixture
def still_rig(held: SessionRig) -> Iterator[tuple[SessionRig, Lease]]:
    lease = held.open()
    yield held, lease
    lease.release()


def test_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    frame = held.manager.still(None, soon_s())
    assert frame.size == SENSOR_SIZE
    assert held.camera.stills_out == 1
    frame.release()
    frame = held.manager.still((40, 20), soon_s())
    assert frame.size == (40, 20)
    frame.release()
    assert held.state is State.OPEN
    assert held.manager.status().config == held.camera.config
    assert held.camera.calls == ["open", "still", "still"]


def test_no_frames_during_a_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.block("still")
    waiting = Background.waiting(partial(held.manager.still, SIZE))
    held.camera.wait_inside("still")
    assert held.camera.frames_out == 0
    assert held.camera.emit().planes == (), "it comes at the wrong moment"
    held.camera.unblock()
    waiting.result().release()
    assert len(held.camera.emit().planes) == 3


def test_failed_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.fail_next("still", NotSupported("no stills here"))
    with pytest.raises(NotSupported, match="no stills here"):
        held.manager.still(None, soon_s())
    assert held.state is State.OPEN
    held.manager.still(None, soon_s()).release()


def test_equal_stills_are_shared(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.block("still")
    waiting = [Background.waiting(partial(held.manager.still, SIZE))]
    held.camera.wait_inside("still")
    # The one under way began before these asked; each of them waits for one that is newer than its request.
    waiting += [Background.waiting(partial(held.manager.still, SIZE)) for _ in range(2)]
    held.camera.unblock()
    frames: list[Frame] = [background.result() for background in waiting]
    assert frames[0] is not frames[1]
    assert frames[1] is frames[2]
    assert held.camera.count("still") == 2
    for frame in frames:
        assert frame.planes
        frame.release()
    assert not frames[1].planes


def test_cancelled_still_is_not_taken(held: SessionRig) -> None:
    held.camera.block("open")
    lease = held.manager.lease("snapshot")
    held.camera.wait_inside("open")
    with pytest.raises(NoPicture, match="it is opening"):
        held.manager.still(None, time.monotonic() + 0.01)
    held.camera.unblock()
    held.wait_for(State.OPEN)
    held.manager.still(None, soon_s()).release()
    assert held.camera.count("still") == 1
    lease.release()


def test_late_still_is_released(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.block("still")
    waiting = Background(lambda: held.manager.still(None, time.monotonic() + 0.02))
    held.camera.wait_inside("still")
    with pytest.raises(NoPicture):
        waiting.result()
    held.camera.unblock()
    held.manager.still(None, soon_s()).release()
    assert held.camera.count("still") == 2
    assert held.camera.stills_out == 0


def test_still_while_closing(brief: SessionRig) -> None:
    brief.camera.block("close")
    brief.open().release()
    brief.camera.wait_inside("close")
    lease = brief.manager.lease("snapshot")
    waiting = Background.waiting(partial(brief.manager.still, None))
    brief.camera.unblock()
    waiting.result().release()
    assert brief.camera.calls == ["open", "close", "open", "still"]
    lease.release()


def test_stop_during_a_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.block("still")
    waiting = [Background.waiting(partial(held.manager.still, None))]
    held.camera.wait_inside("still")
    waiting.append(Background.waiting(partial(held.manager.still, None)))
    held.manager.stop()
    for background in waiting:
        with pytest.raises(CameraError, match="stopping"):
            background.result()
    held.camera.unblock()
    assert held.manager.wait_until_closed(soon())
    assert held.camera.count("still") == 1, "the other is not taken any more"


def test_unexpected_exception_in_a_still(still_rig: tuple[SessionRig, Lease]) -> None:
    held, _ = still_rig
    held.camera.fail_next("still", ZeroDivisionError("a fault of ours"))
    with pytest.raises(CameraStuck, match="thread camera crashed: ZeroDivisionError"):
        held.manager.still(None, soon_s())
    assert isinstance(held.take_failure(), CameraStuck)
    assert held.manager.wait_until_closed(soon())
    assert not held.camera.is_open


def test_pause_between_stills_while_streaming() -> None:
    with SessionRig(limits=SessionLimits(still_pause_s=60.0)) as held:
        lease = held.open()
        with held.camera.flowing():
            held.manager.still(None, soon_s()).release()
            with pytest.raises(CameraError, match="not started by the camera in time"):
                held.manager.still(None, time.monotonic() + 0.05)
        assert held.camera.count("still") == 1
        lease.release()


def test_shared_still_and_limit() -> None:
    with SessionRig(limits=SessionLimits(still_pause_s=0.0, max_waiting_stills=1)) as held:
        lease = held.open()
        held.camera.block("still")
        first = Background.waiting(partial(held.manager.still, (64, 48)))
        held.camera.wait_inside("still")
        waiting = [Background.waiting(partial(held.manager.still, None)) for _ in range(3)]
        with pytest.raises(CameraError, match="too many different stills"):
            held.manager.still((32, 24), soon_s())
        held.camera.unblock()
        frames = [each.result() for each in (first, *waiting)]
        assert held.camera.count("still") == 2
        for frame in frames:
            frame.release()
        lease.release()


def test_reopen_ignores_the_limit_of_stills() -> None:
    with SessionRig(limits=SessionLimits(max_waiting_stills=0)) as held:
        lease = held.open()
        with pytest.raises(CameraError, match="too many different stills"):
            held.manager.still(None, soon_s())
        held.manager.reopen(soon_s())
        assert held.camera.opens == 2
        lease.release()
