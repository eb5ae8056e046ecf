"""The publisher with packets from the test and a small RTSP server: states, leases, reconnecting, stopping."""

import contextlib
import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest

from softcam.camera.session.lease import Lease, LeaseKind
from softcam.errors import CameraError, NotSupported
from softcam.h264.packet import Packet, PacketSink, VideoFormat
from softcam.rtsp import publisher
from softcam.rtsp.publisher import Publisher, State
from tests.support.background import Background, eventually, soon_s
from tests.support.fakes import SessionRig
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


class Server:
    """Answers every request with success and reads everything. A thread per connection, and one that listens."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._changed = threading.Condition()  # guards the fields down here
        self.requests: list[str] = []
        self.media = 0  # bytes of RTP
        self.connections: list[socket.socket] = []
        self.is_reading = True
        self.is_answering = True
        self._threads = [threading.Thread(target=self._listen, name="test server", daemon=True)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        with self._changed:
            self.is_reading = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(PATIENCE_S)

    def drop(self) -> None:
        """End all connections."""
        with self._changed:
            for connection in self.connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def resume_reading(self) -> None:
        with self._changed:
            self.is_reading = True
            self._changed.notify_all()

    def count(self, method: str) -> int:
        with self._changed:
            return sum(line.startswith(method) for line in self.requests)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with self._changed:
                    self.connections.append(connection)
                thread = threading.Thread(target=self._serve, args=(connection,), name="test session", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream, contextlib.suppress(OSError, ValueError):
            while first := stream.read(1):
                with self._changed:
                    self._changed.wait_for(lambda: self.is_reading)
                if first == b"$":
                    channel, *length = stream.read(3)
                    stream.read(int.from_bytes(bytes(length), "big"))
                    with self._changed:
                        self.media += int.from_bytes(bytes(length), "big") if channel == 0 else 0
                    continue
                line = (first + stream.readline()).decode().strip()
                fields = {}
                while field := stream.readline().decode().strip():
                    name, _, value = field.partition(": ")
                    fields[name] = value
                stream.read(int(fields.get("Content-Length", "0")))
                with self._changed:
                    self.requests.append(line)
                    if not self.is_answering:
                        continue
                extra = "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
                connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {fields['CSeq']}\r\n{extra}\r\n".encode())


class Scene:
    """A publisher with its source, camera and server."""

    def __init__(self, held: SessionRig) -> None:
        self.held = held
        self.server = Server()
        self.source = Source()
        self.crashes: list[str] = []
        url = f"rtsp://me:secret@127.0.0.1:{self.server.port}/cam"
        self.publisher = Publisher(url, self.source, held.manager, self.crashes.append)

    @property
    def state(self) -> State:
        return self.publisher.status().state

    @property
    def leases(self) -> int:
        return self.held.manager.status().leases["publish"]

    def wait_for(self, state: State) -> None:
        eventually(lambda: self.state is state, f"state {state}")

    def publish(self) -> None:
        """Start, and wait until it publishes."""
        self.publisher.start()
        self.source.on_format()
        self.wait_for(State.PUBLISHING)


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
    assert (status.state, status.since_s, status.reconnects, status.last_error) == (State.OFF, None, 0, None)
    assert status.url == f"rtsp://127.0.0.1:{scene.server.port}/cam"
    assert "publisher" not in [thread.name for thread in threading.enumerate()]
    scene.publisher.stop()
    assert scene.publisher.wait_stopped(time.monotonic())


def test_fail_to_start_without_thread(scene: Scene, no_leaks: NoLeaks, monkeypatch: pytest.MonkeyPatch) -> None:
    with no_leaks(), monkeypatch.context() as patch:
        patch.setattr(publisher, "spawn", no_thread)
        with pytest.raises(CameraError, match="can't start new thread"):
            scene.publisher.start()
    assert (scene.state, scene.leases) == (State.OFF, 0)
    scene.publish()


def test_encoder_that_fails_to_start_is_retried(scene: Scene) -> None:
    scene.source.refusal = CameraError("no thread")
    scene.publisher.start()
    scene.wait_for(State.FAILED)
    assert scene.publisher.status().last_error == "no thread"
    scene.source.refusal = None
    eventually(lambda: scene.source.sinks != [], "the next attempt")
    scene.source.on_format()
    scene.wait_for(State.PUBLISHING)


def test_publishes_until_stop(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        scene.publish()
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
    assert scene.state is State.OFF
    assert scene.leases == 0
    assert scene.publisher.wait_stopped(soon_s())
    eventually(lambda: scene.server.count("TEARDOWN") == 1, "the teardown")
    assert "publisher" not in [thread.name for thread in threading.enumerate()]


def test_no_encoding_without_server(scene: Scene) -> None:
    scene.server.close()
    scene.publisher.start()
    scene.wait_for(State.FAILED)
    assert scene.publisher.status().last_error == "connection refused: no server is listening"
    assert scene.source.subscriptions == 0
    assert scene.leases == 1  # the camera stays open
    scene.server = Server()  # for the fixture


def test_reconnects_after_disconnection(scene: Scene) -> None:
    scene.publish()
    scene.server.drop()
    scene.wait_for(State.FAILED)
    assert scene.publisher.status().last_error == "the server closed the connection"
    scene.source.on_format()
    scene.wait_for(State.PUBLISHING)
    status = scene.publisher.status()
    assert (status.reconnects, status.last_error) == (1, None)
    assert scene.leases == 1


def has_failed_with(scene: Scene, reason: str) -> bool:
    return scene.publisher.status().last_error == reason


def has_subscription_after(scene: Scene, subscriptions: int) -> bool:
    return scene.source.subscriptions > subscriptions


def test_start_retries_at_once(scene: Scene) -> None:
    scene.source.refusal = NotSupported("no PyAV here")
    scene.publisher.start()
    scene.wait_for(State.FAILED)
    assert scene.publisher.status().last_error == "no PyAV here"
    for number in range(4):  # by itself it would pause for many seconds
        # A new reason: only then is it certain that an attempt has ended, and one under way is not repeated.
        scene.source.refusal = NotSupported(f"refusal {number}")
        scene.publisher.start()
        eventually(partial(has_failed_with, scene, f"refusal {number}"), "another attempt")
    scene.source.refusal = None
    scene.publisher.start()
    scene.source.on_format()
    scene.wait_for(State.PUBLISHING)


def test_failure_is_logged_again_only_for_another_reason(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    def has_retried(times: int) -> bool:
        scene.publisher.start()
        return scene.server.count("OPTIONS") >= times

    scene.source.refusal = NotSupported("no PyAV here")
    eventually(lambda: has_retried(4), "four attempts")
    scene.source.refusal = NotSupported("still none")
    scene.publisher.start()
    eventually(partial(has_failed_with, scene, "still none"), "another reason")
    scene.publisher.stop()
    assert scene.publisher.wait_stopped(soon_s())
    reasons = [message.partition("failed: ")[2] for message in caplog.messages if "failed" in message]
    assert reasons == ["no PyAV here; retrying", "still none; retrying"]


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
    assert scene.state is State.PUBLISHING


def test_server_that_no_longer_responds(scene: Scene) -> None:
    scene.publish()
    scene.server.is_answering = False
    eventually(lambda: scene.state is State.FAILED, "the time limit")
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
            scene.wait_for(State.FAILED)
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
                scene.wait_for(State.PUBLISHING)
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
        scene.wait_for(State.PUBLISHING)
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
