"""Patches libcamera so that its virtual cameras behave like real sensors for Picamera2.

Only libcamera is patched; Picamera2 is unchanged. With libcamera 0.4 the patches are:

- *Frame rate.* The virtual pipeline completes a request immediately. Here a thread per running camera queues the
  requests, one per frame duration: that of `FrameDurationLimits`, or 1 / `RIG_FPS` if that variable is set. The thread
  runs from `start()` to `stop()`.
- *Raw modes.* The virtual pipeline has no raw stream and returns None; Picamera2 requests one from every camera. It
  gets the video modes.
- *Planes.* Picamera2's DmaAllocator describes a buffer as one plane, the virtual pipeline requires the two of NV12. The
  second one is added, in the same memory.
- *Status.* The virtual pipeline does not set a frame's status, and Picamera2 drops frames without success.
- *One process per camera.* libcamera locks a media device, which virtual cameras do not have, so any process could
  open them. The rig locks a file instead; a second process gets libcamera's error.

`RIG_CONTROLS` lists further controls, which do nothing, as a JSON object of [minimum, maximum, default] by name; the
virtual pipeline itself has only `FrameDurationLimits`. `RIG_CONTROL` is a folder for the faults that a test injects:
while a file `freeze` exists, frames stop without an error, as when a sensor hangs; cameras whose ids are in a file
`gone` are not listed. `RIG_LOCKS` is the folder of the locks, which all processes of a test share.
"""

import collections
import errno
import fcntl
import json
import os
import pathlib
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

_CONTROL = pathlib.Path(os.environ.get("RIG_CONTROL", "/run/rig"))
_LOCKS = pathlib.Path(os.environ.get("RIG_LOCKS", "/run/rig-locks"))
_FIXED_FPS = os.environ.get("RIG_FPS", "")
_FURTHER_CONTROLS = json.loads(os.environ.get("RIG_CONTROLS", "{}"))
_USUAL_DURATION_US = 33_333
_SHORTEST_DURATION_US = 16_666  # the pipeline's own limit, at its 60 fps


class _ControlInfo(NamedTuple):
    """As libcamera's, which Python cannot construct."""

    min: Any
    max: Any
    default: Any


class _Sensor:
    """Queues one camera's requests at its frame rate, in its own thread."""

    def __init__(self, camera: Any, queue_request: Callable[[Any, Any], Any]) -> None:
        self._camera = camera
        self._queue_request = queue_request
        self._requests = collections.deque[Any]()  # filled by Picamera2's threads, emptied by the sensor's
        self._duration_s = _USUAL_DURATION_US / 1e6
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._expose, name=f"rig-{camera.id}", daemon=True)

    def start(self, duration_us: int | None) -> None:
        self.set_duration(duration_us)
        self._thread.start()

    def set_duration(self, duration_us: int | None) -> None:
        if _FIXED_FPS:
            self._duration_s = 1 / float(_FIXED_FPS)
        elif duration_us is not None:
            self._duration_s = max(duration_us, _SHORTEST_DURATION_US) / 1e6

    def submit_request(self, request: Any) -> None:
        self._requests.append(request)

    def end(self) -> None:
        """Queue the waiting requests and accept no more. The caller then stops the camera.

        Picamera2 drops these requests unseen, as it does with those that libcamera cancels when a camera stops. They
        must not be dropped here: a request that dies before it is queued marks its buffer as cancelled, and the
        virtual pipeline, which sets no status, would never lift that mark again.
        """
        self._ended.set()
        self._thread.join()
        while self._requests:
            self._queue_request(self._camera, self._requests.popleft())

    def _expose(self) -> None:
        freeze = _CONTROL / "freeze"
        due_s = time.monotonic() + self._duration_s
        while not self._ended.wait(max(0.0, due_s - time.monotonic())):
            now_s = time.monotonic()
            # After a late frame the next ones keep their schedule, unless a whole frame was missed.
            due_s = due_s + self._duration_s if now_s - due_s < self._duration_s else now_s + self._duration_s
            if self._requests and not freeze.exists():
                self._queue_request(self._camera, self._requests.popleft())


def _listed(cameras: list[Any]) -> list[Any]:
    try:
        gone = (_CONTROL / "gone").read_text().split()
    except FileNotFoundError:
        return cameras
    return [camera for camera in cameras if camera.id not in gone]


def _as_nv12(planes: list[Any], plane_type: Callable[[], Any]) -> list[Any]:
    """Split a buffer's only plane into luma and chroma: two thirds and one third, with equal row padding.

    The first plane stays the same object: its descriptor is the key that Picamera2's allocator knows the buffer by.
    """
    if len(planes) != 1:
        return planes
    luma, chroma = planes[0], plane_type()
    whole = luma.length
    luma.length = whole * 2 // 3
    chroma.fd, chroma.offset, chroma.length = luma.fd, luma.offset + luma.length, whole - luma.length
    return [luma, chroma]


def _further_controls(libcamera: Any) -> dict[Any, _ControlInfo]:
    known = libcamera.controls

    def converted(value: Any) -> Any:
        return libcamera.Rectangle(*value) if isinstance(value, list) and len(value) == 4 else value

    return {
        getattr(known, name, None) or getattr(known.draft, name): _ControlInfo(*map(converted, limits))
        for name, limits in _FURTHER_CONTROLS.items()
    }


def bridge(libcamera: Any) -> None:
    camera_type, request_type, manager_type = libcamera.Camera, libcamera.Request, libcamera.CameraManager
    acquire, release = camera_type.acquire, camera_type.release
    start, stop, queue_request = camera_type.start, camera_type.stop, camera_type.queue_request
    generate_configuration, set_control = camera_type.generate_configuration, request_type.set_control
    cameras, listed_controls = manager_type.cameras, camera_type.controls
    roles, duration_limits = libcamera.StreamRole, libcamera.controls.FrameDurationLimits

    locks: dict[str, int] = {}  # camera id: descriptor of its lock file while it is acquired
    sensors: dict[str, _Sensor] = {}  # camera id: the running one
    further_controls = _further_controls(libcamera)
    asked_us: dict[int, int] = {}  # id(request): frame duration requested with a request that is not queued yet

    def acquire_alone(camera: Any) -> None:
        _LOCKS.mkdir(parents=True, exist_ok=True)
        # Read access is enough for flock(): with DynamicUser= the file may be that of another user.
        lock = os.open(_LOCKS / camera.id, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC)
        if os.fstat(lock).st_uid == os.geteuid():
            os.fchmod(lock, 0o644)  # whatever the umask is
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            acquire(camera)
        except BlockingIOError:
            os.close(lock)
            raise RuntimeError(f"Failed to acquire camera: {os.strerror(errno.EBUSY)}") from None
        except BaseException:
            os.close(lock)
            raise
        locks[camera.id] = lock

    def release_to_others(camera: Any) -> None:
        release(camera)
        os.close(locks.pop(camera.id))

    def start_at_pace(camera: Any, controls: dict[Any, Any] | None = None) -> None:
        controls = {each: value for each, value in (controls or {}).items() if each not in further_controls}
        start(camera, controls)
        sensors[camera.id] = _Sensor(camera, queue_request)
        sensors[camera.id].start(next((v[0] for k, v in controls.items() if k == duration_limits), None))

    def stop_with_sensor(camera: Any) -> Any:
        sensor = sensors.pop(camera.id, None)
        if sensor is not None:
            sensor.end()
        return stop(camera)

    def queue_at_pace(camera: Any, request: Any) -> Any:
        sensor = sensors.get(camera.id)
        if sensor is None:
            return queue_request(camera, request)  # libcamera returns its error for a camera that is not running
        sensor.set_duration(asked_us.pop(id(request), None))
        return sensor.submit_request(request)

    def set_control_and_note(request: Any, control: Any, value: Any) -> Any:
        if control in further_controls:
            return None
        if control == duration_limits:
            asked_us[id(request)] = value[0]
        return set_control(request, control, value)

    def generate_without_raw(camera: Any, wanted: list[Any]) -> Any:
        return generate_configuration(camera, [roles.VideoRecording if r == roles.Raw else r for r in wanted])

    class TwoPlanes(libcamera.FrameBuffer):
        def __init__(self, planes: list[Any], cookie: int = 0) -> None:
            super().__init__(_as_nv12(planes, libcamera.FrameBuffer.Plane), cookie)

    camera_type.acquire, camera_type.release = acquire_alone, release_to_others
    camera_type.start, camera_type.stop, camera_type.queue_request = start_at_pace, stop_with_sensor, queue_at_pace
    camera_type.generate_configuration = generate_without_raw
    request_type.set_control = set_control_and_note
    camera_type.controls = property(lambda camera: {**listed_controls.fget(camera), **further_controls})
    manager_type.cameras = property(lambda manager: _listed(cameras.fget(manager)))
    libcamera.FrameMetadata.status = property(lambda metadata: libcamera.FrameMetadata.Status.Success)
    libcamera.FrameBuffer = TwoPlanes
