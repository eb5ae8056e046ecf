"""The publisher with packets from the test and a small RTSP server: states, leases, reconnecting, stopping."""

import contextlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest

from softcam.camera.session.lease import Lease, LeaseKind
from softcam.errors import CameraError, NotSupported
from softcam.h264.packet import Packet, PacketSink, VideoFormat
from softcam.rtsp.publisher import publisher
from softcam.rtsp.publisher.client import KeepAlive
from softcam.rtsp.publisher.publisher import Publisher, PublisherState
from softcam.runtime.log.events import Event
from tests.support.background import Background, eventually, soon_s
from tests.support.fakes import SessionRig
from tests.support.log_events import logged_events
from tests.support.publishing_server import PublishingServer
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

NoLeaks = Callable[..., AbstractContextManager[None]]
SPS, PPS = bytes.fromhex("67640028acd940"), bytes.fromhex("68ebe3cb")
FORMAT = VideoFormat(640, 360, 20.0, SPS, PPS)
LARGE = VideoFormat(1280, 720, 20.0, SPS, PPS)


def packet(began_s: float, *, is_keyframe: bool = False, size: int = 20) -> Packet:
    data = size.to_bytes(4, "big") + (b"\x65" if is_keyframe else b"\x41") + bytes(size - 1)
    return Packet(data, is_keyframe, began_s, 1_700_000_000 + began_s)


def no_thread(*_: object) -> None:
    raise RuntimeError("can't start new thread")


class Source:
    """Delivers the test's packets to its sinks."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards the fields
        self.sinks: list[PacketSink] = []
        self.subscriptions = 0
        self.keyframes_requested = 0
        self.refusal: CameraError | None = None

    def subscribe(self, sink: PacketSink) -> None:
        with self._changed:
            if self.refusal is not None:
                raise self.refusal
            self.sinks.append(sink)
            self.subscriptions += 1

    def unsubscribe(self, sink: PacketSink) -> None:
        with self._changed, contextlib.suppress(ValueError):
            self.sinks.remove(sink)

    def request_keyframe(self) -> None:
        with self._changed:
            self.keyframes_requested += 1

    def on_format(self, fmt: VideoFormat = FORMAT) -> None:
        """Call the first sink, as soon as there is one."""
        eventually(lambda: self.sinks, "a sink")
        self.sinks[0].on_format(fmt)

    def give(self, each: Packet) -> None:
        for sink in list(self.sinks):
            sink.on_packet(each)


class Scene:
    """A publisher with its source, camera and server."""

    def __init__(self, held: SessionRig) -> None:
        self.held = held
        self.server = PublishingServer()
        self.source = Source()
        self.crashes: list[str] = []
        self.publisher = self.limited()

    def limited(self, **limits: Any) -> Publisher:
        """A publisher with other limits than the usual ones."""
        url = f"rtsp://me:secret@127.0.0.1:{self.server.port}/cam"
        return Publisher(url, self.source, self.held.manager, self.crashes.append, **limits)

    @property
    def state(self) -> PublisherState:
        return self.publisher.status().state

    @property
    def leases(self) -> int:
        return self.held.manager.status().leases["publish"]

    def wait_for(self, state: PublisherState) -> None:
        eventually(lambda: self.state is state, f"state {state}")

    def publish(self) -> None:
        """Start, and wait until it publishes."""
        self.publisher.start()
        self.source.on_format()
        self.wait_for(PublisherState.PUBLISHING)


@pytest.fixture
def scene() -> Iterator[Scene]:
    with SessionRig() as held:
        scene = Scene(held)
        yield scene
        scene.publisher.stop()
        assert scene.publisher.wait_stopped(soon_s())
        scene.server.close()
        assert scene.crashes == []
        assert scene.source.sinks == []
        assert scene.leases == 0


def test_off_without_thread(scene: Scene) -> None:
    status = scene.publisher.status()
    assert (status.state, status.since_s, status.reconnects, status.last_error) == (PublisherState.OFF, None, 0, None)
    assert status.url == f"rtsp://127.0.0.1:{scene.server.port}/cam"
    assert "publisher" not in [thread.name for thread in threading.enumerate()]
    scene.publisher.stop()
    assert scene.publisher.wait_stopped(time.monotonic())


def test_start_without_thread_is_an_error(scene: Scene, no_leaks: NoLeaks, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_leaks(), monkeypatch.context() as patch:
        patch.setattr(publisher, "spawn", no_thread)
        with pytest.raises(CameraError, match="can't start new thread"):
            scene.publisher.start()
    assert (scene.state, scene.leases) == (PublisherState.OFF, 0)
    scene.publish()


def test_encoder_that_fails_to_start_is_retried(scene: Scene) -> None:
    scene.source.refusal = CameraError("no thread")
    scene.publisher.start()
    scene.wait_for(PublisherState.FAILED)
    assert scene.publisher.status().last_error == "no thread"
    scene.source.refusal = None
    eventually(lambda: scene.source.sinks != [], "the next attempt")
    scene.source.on_format()
    scene.wait_for(PublisherState.PUBLISHING)


def test_publishes_until_stop(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        scene.publish()
        eventually(lambda: "Publishing " in caplog.text, "the line that follows the state")
    connecting, publishing = (message for message in caplog.messages if "rtsp://" in message)
    assert connecting.startswith("Connecting to RTSP server rtsp://127.0.0.1:")
    assert re.match(r"Publishing \d+x\d+ to rtsp://127.0.0.1:", publishing)
    scene.publisher.start()
    assert scene.leases == 1
    assert [line.split()[0] for line in scene.server.requests[:4]] == ["OPTIONS", "ANNOUNCE", "SETUP", "RECORD"]
    assert scene.server.requests[2].split()[1].endswith("/cam/streamid=0")
    scene.source.give(packet(1.0, is_keyframe=True, size=5000))
    eventually(lambda: scene.server.media >= 5000 + len(SPS) + len(PPS), "the keyframe")
    scene.publisher.stop()
    assert scene.state is PublisherState.OFF
    assert scene.leases == 0
    assert scene.publisher.wait_stopped(soon_s())
    eventually(lambda: scene.server.count("TEARDOWN") == 1, "the teardown")
    assert "publisher" not in [thread.name for thread in threading.enumerate()]


def test_no_encoding_without_server(scene: Scene) -> None:
    scene.server.close()
    scene.publisher.start()
    scene.wait_for(PublisherState.FAILED)
    assert scene.publisher.status().last_error == "connection refused: no server is listening"
    assert scene.source.subscriptions == 0
    assert scene.leases == 1  # the camera stays open
    scene.server = PublishingServer()  # for the fixture


def test_reconnects_after_disconnection(scene: Scene) -> None:
    scene.publish()
    scene.server.drop()
    scene.wait_for(PublisherState.FAILED)
    assert scene.publisher.status().last_error == "the server closed the connection"
    scene.source.on_format()
    scene.wait_for(PublisherState.PUBLISHING)
    status = scene.publisher.status()
    assert (status.reconnects, status.last_error) == (1, None)
    assert scene.leases == 1


def has_failed_with(scene: Scene, reason: str) -> bool:
    return scene.publisher.status().last_error == reason


def has_subscription_after(scene: Scene, subscriptions: int) -> bool:
    return scene.source.subscriptions > subscriptions


def take_over(scene: Scene) -> None:
    """The server closes the connection of this publisher because of another one."""
    subscriptions = scene.source.subscriptions
    scene.server.drop()
    scene.wait_for(PublisherState.FAILED)
    scene.publisher.start()  # retry now
    eventually(partial(has_subscription_after, scene, subscriptions), "the next attempt")
    scene.source.on_format()
    scene.wait_for(PublisherState.PUBLISHING)


def test_two_publishers_on_one_path_are_reported(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Also while this one has the path, until it has had it for a while."""
    scene.publisher = scene.limited(undisturbed_s=2 * TIMEOUT_FACTOR, silence_s=PATIENCE_S)
    scene.publish()
    for _ in range(2):
        take_over(scene)
        assert scene.publisher.status().last_error is None
    take_over(scene)
    reason = scene.publisher.status().last_error
    assert reason is not None
    assert "another publisher uses this path" in reason
    assert f"{reason}; retrying" in caplog.text
    eventually(lambda: scene.publisher.status().last_error is None, "undisturbed publishing")
    assert scene.state is PublisherState.PUBLISHING
    take_over(scene)
    assert scene.publisher.status().last_error is None


def test_restarted_server_is_not_another_publisher(scene: Scene) -> None:
    scene.publish()
    for _ in range(4):
        scene.server.drop()
        scene.wait_for(PublisherState.FAILED)
        scene.source.refusal = CameraError("nothing accepted meanwhile")
        scene.publisher.start()
        eventually(partial(has_failed_with, scene, "nothing accepted meanwhile"), "an attempt that fails")
        scene.source.refusal = None
        subscriptions = scene.source.subscriptions
        scene.publisher.start()
        eventually(partial(has_subscription_after, scene, subscriptions), "the next attempt")
        scene.source.on_format()
        scene.wait_for(PublisherState.PUBLISHING)
        assert scene.publisher.status().last_error is None


def test_camera_without_frames(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    """Before the first frame, and later; the session with the server continues."""
    caplog.set_level(logging.INFO)
    scene.publisher = scene.limited(silence_s=0.3)
    scene.publisher.start()
    for _ in range(2):
        scene.wait_for(PublisherState.WAITING)
        assert scene.publisher.status().last_error == "the camera delivers no frames"
        caplog.clear()
        scene.source.on_format()
        scene.source.give(packet(time.monotonic(), is_keyframe=True))
        eventually(lambda: re.search(r"Publishing (640x360|to \S+ continues)", caplog.text), "a frame")
    status = scene.publisher.status()
    assert (status.reconnects, scene.server.count("RECORD"), scene.source.subscriptions) == (0, 1, 1)
    assert "continues" in caplog.text


def test_stop_clears_the_last_error(scene: Scene) -> None:
    scene.source.refusal = NotSupported("no PyAV here")
    scene.publisher.start()
    scene.wait_for(PublisherState.FAILED)
    scene.publisher.stop()
    status = scene.publisher.status()
    assert (status.state, status.last_error) == (PublisherState.OFF, None)


def test_start_retries_at_once(scene: Scene) -> None:
    scene.source.refusal = NotSupported("no PyAV here")
    scene.publisher.start()
    scene.wait_for(PublisherState.FAILED)
    assert scene.publisher.status().last_error == "no PyAV here"
    for number in range(4):  # by itself it would pause for many seconds
        # A new reason: only then is it certain that an attempt has ended, and one under way is not repeated.
        scene.source.refusal = NotSupported(f"refusal {number}")
        scene.publisher.start()
        eventually(partial(has_failed_with, scene, f"refusal {number}"), "another attempt")
    scene.source.refusal = None
    scene.publisher.start()
    scene.source.on_format()
    scene.wait_for(PublisherState.PUBLISHING)


def test_failure_is_logged_again_only_for_another_reason(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def has_retried(times: int) -> bool:
        scene.publisher.start()
        return scene.server.count("OPTIONS") >= times

    scene.source.refusal = NotSupported("no PyAV here")
    eventually(lambda: has_retried(4), "four attempts")
    scene.source.refusal = NotSupported("still none")

    def has_another_reason() -> bool:
        scene.publisher.start()  # again: an attempt that is under way may end with the first reason
        return has_failed_with(scene, "still none")

    eventually(has_another_reason, "another reason")
    scene.publisher.stop()
    assert scene.publisher.wait_stopped(soon_s())
    reasons = [message.partition("failed: ")[2] for message in caplog.messages if "failed" in message]
    assert reasons == ["no PyAV here; retrying", "still none; retrying"]
    assert logged_events(caplog) == [Event.PUBLISHING_FAILED] * 2


def test_other_size_is_announced_again(scene: Scene) -> None:
    scene.publish()
    scene.source.give(packet(1.0, is_keyframe=True))
    scene.source.on_format(LARGE)
    scene.source.give(packet(2.0, is_keyframe=True))
    eventually(lambda: scene.source.subscriptions == 2, "another subscription")
    scene.source.on_format(LARGE)
    eventually(lambda: scene.server.count("RECORD") == 2, "a new session")
    assert scene.publisher.status().last_error is None


def test_other_parameter_sets_are_not_announced(scene: Scene) -> None:
    scene.publish()
    scene.source.on_format(VideoFormat(640, 360, 20.0, SPS + b"\1", PPS))
    scene.source.give(packet(1.0, is_keyframe=True))
    eventually(lambda: scene.server.media > 0, "the keyframe")
    assert scene.server.count("ANNOUNCE") == 1


def test_slow_server_drops_frames_and_continues_with_keyframe(scene: Scene) -> None:
    scene.publish()
    scene.server.is_reading = False
    began_s = 1.0
    scene.source.give(packet(began_s, is_keyframe=True, size=20_000_000))  # more than any kernel buffers
    requested = scene.source.keyframes_requested
    for _ in range(40):
        began_s += 0.05
        scene.source.give(packet(began_s))
    assert scene.source.keyframes_requested == requested  # not before it can be sent
    scene.server.resume_reading()
    eventually(lambda: scene.source.keyframes_requested > requested, "the request for a keyframe")
    media = scene.server.media
    scene.source.give(packet(began_s + 0.05))
    scene.source.give(packet(began_s + 0.1, is_keyframe=True, size=1000))
    eventually(lambda: scene.server.media > media, "the keyframe")
    assert scene.state is PublisherState.PUBLISHING


def test_server_that_no_longer_responds(scene: Scene) -> None:
    scene.publisher = scene.limited(keep_alive=KeepAlive(poll_s=0.1, silence_s=0.5 * TIMEOUT_FACTOR))
    scene.publish()
    scene.server.is_answering = False
    eventually(lambda: scene.state is PublisherState.FAILED, "the time limit")
    assert scene.publisher.status().last_error == "the server no longer responds"


def test_stop_and_status_while_the_camera_hangs(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new lease may start autofocus, a call into the camera."""
    is_inside, may_return = threading.Event(), threading.Event()
    lease = scene.held.manager.lease

    def hang(kind: LeaseKind) -> Lease:
        is_inside.set()
        assert may_return.wait(PATIENCE_S)
        return lease(kind)

    monkeypatch.setattr(scene.held.manager, "lease", hang)
    starting = Background(scene.publisher.start)
    assert is_inside.wait(PATIENCE_S)

    def stop() -> bool:
        scene.publisher.stop()
        return scene.publisher.wait_stopped(time.monotonic())

    try:
        assert Background(stop).result()
    finally:
        may_return.set()
    starting.result()
    assert scene.leases == 1  # `start` returned last


def test_two_threads_that_start_hold_one_lease(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    both = threading.Barrier(2)
    lease = scene.held.manager.lease

    def meet(kind: LeaseKind) -> Lease:
        both.wait(PATIENCE_S)
        return lease(kind)

    monkeypatch.setattr(scene.held.manager, "lease", meet)
    for starting in [Background(scene.publisher.start) for _ in range(2)]:
        starting.result()
    assert scene.leases == 1


@pytest.mark.parametrize("stage", ["connecting", "camera", "publishing", "failed"])
def test_stop_at_every_stage(scene: Scene, stage: str) -> None:
    match stage:
        case "connecting":
            scene.server.is_answering = False
            scene.publisher.start()
            eventually(lambda: scene.server.count("OPTIONS"), "the first request")
        case "camera":
            scene.publisher.start()
            eventually(lambda: scene.source.sinks, "the wait for the camera")
        case "publishing":
            scene.publish()
            scene.server.is_answering = False
        case "failed":
            scene.server.drop()
            scene.source.refusal = NotSupported("no")
            scene.publisher.start()
            scene.wait_for(PublisherState.FAILED)
    began_s = time.monotonic()
    scene.publisher.stop()
    assert scene.publisher.wait_stopped(soon_s())
    assert time.monotonic() - began_s < TIMEOUT_FACTOR  # half a second is promised


def test_50_rounds_of_start_and_stop_leak_nothing(scene: Scene, no_leaks: NoLeaks) -> None:
    scene.publish()
    scene.publisher.stop()
    assert scene.publisher.wait_stopped(soon_s())
    eventually(lambda: "test session" not in [thread.name for thread in threading.enumerate()], "the server's threads")
    with no_leaks():
        for number in range(50):
            scene.publisher.start()
            if number % 3:
                scene.source.on_format()
            if number % 3 == 2:
                scene.wait_for(PublisherState.PUBLISHING)
            scene.publisher.stop()
            assert scene.publisher.wait_stopped(soon_s())
        scene.server.connections.clear()


def test_restart_publishes_again(scene: Scene) -> None:
    scene.publish()
    for _ in range(5):
        subscriptions = scene.source.subscriptions
        scene.publisher.stop()
        scene.publisher.start()
        eventually(partial(has_subscription_after, scene, subscriptions), "a new connection")
        scene.source.on_format()
        scene.wait_for(PublisherState.PUBLISHING)
        assert scene.leases == 1


def test_many_threads_start_and_stop(scene: Scene) -> None:
    def play(seed: int) -> None:
        for number in range(40):
            if (number * seed) % 3:
                scene.publisher.start()
            else:
                scene.publisher.stop()

    threads = [threading.Thread(target=play, args=(seed,)) for seed in (1, 2, 4, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    scene.publisher.stop()
    scene.publisher.stop()
    assert scene.leases == 0
    assert scene.publisher.wait_stopped(soon_s())
