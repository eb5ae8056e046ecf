"""A fake of Picamera2's hardware encoder, its output and its request, as far as the portal uses them."""

import queue
import threading
from dataclasses import dataclass
from typing import Any, Protocol

from tests.support.timeouts import PATIENCE_S

SPS = bytes.fromhex("6742801f95a010204a40")  # Baseline, 128x128, no VUI
PPS = bytes.fromhex("68ce0f2c80")
START = b"\x00\x00\x00\x01"


class EncoderScene(Protocol):
    """What the test sets for the fake encoders, and what it reads."""

    encoders: "list[FakeH264Encoder]"
    start_error: Exception | None
    encode_error: Exception | None
    is_silent: bool
    loses: dict[str, bool]
    gate: threading.Event

    def threads(self) -> int: ...


class FakeOutput:
    """Picamera2's base class of encoder outputs."""

    def start(self) -> None: ...
    def stop(self) -> None: ...


class FakeH264Encoder:
    """What the portal uses of Picamera2's class, which delivers packets on its own thread; the scene sets failures."""

    scene: "EncoderScene"

    def __init__(self, bitrate: int | None = None) -> None:
        self.bitrate = bitrate
        self.repeat: Any = None
        self.iperiod: Any = None
        self.framerate: Any = None
        self.profile: Any = None
        self.width = self.height = self.stride = 0
        self.format = ""
        self.output: Any = None
        self.vd: Any = None
        self.asked = 0
        self.is_stopped = False
        self._first_ns: int | None = None
        self._count = 0
        self._frames: queue.Queue[tuple[Any, int, bool] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="stand-in", daemon=True)
        self.scene.encoders.append(self)

    def start(self, quality: object = None) -> None:
        assert isinstance(self.output, FakeOutput)
        self.vd = Device()
        if self.scene.start_error is not None:
            raise self.scene.start_error
        self._thread.start()

    def stop(self) -> None:
        if not self._thread.ident:
            raise RuntimeError("Encoder already stopped")
        self._frames.put(None)
        self._thread.join()
        self.is_stopped = True

    def force_key_frame(self) -> None:
        self.asked += 1

    def encode(self, stream: str, request: Any) -> None:
        assert self.scene.threads() == 1
        assert request.request.buffers[request.stream_map[stream]] == "the buffer"
        if self.scene.encode_error is not None:
            raise self.scene.encode_error
        request.acquire()
        stamp_ns = request.get_metadata()["SensorTimestamp"]
        if self._first_ns is None:
            self._first_ns = stamp_ns
        is_keyframe, self.asked = self.asked > 0 or self._count == 0, 0
        self._count += 1
        self._frames.put((request, stamp_ns // 1000 - self._first_ns // 1000, is_keyframe))

    def _run(self) -> None:
        while (item := self._frames.get()) is not None:
            request, time_us, is_keyframe = item
            if self.scene.gate.wait(0 if self.scene.is_silent else PATIENCE_S):
                slices = b"\x65" if is_keyframe else b"\x41"
                sets = START + SPS + START + PPS if is_keyframe else b""
                if not self.scene.loses.pop("packet", None):
                    self.output.outputframe(sets + START + slices + b"%d" % time_us, False, time_us)
            if not self.scene.is_silent:
                request.release()


class OlderH264Encoder(FakeH264Encoder):
    """A release without a method for keyframes."""

    force_key_frame = None  # type: ignore[assignment]


class Device:
    def __init__(self) -> None:
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True


@dataclass
class FakeLibcameraRequest:
    buffers: dict[str, str]


@dataclass
class FakeRequest:
    """The part of Picamera2's request that encoders use."""

    metadata: dict[str, int]
    config: dict[str, Any]
    stream_map: dict[str, str]
    request: "FakeLibcameraRequest"

    def get_metadata(self) -> dict[str, int]:
        return self.metadata
