"""The portal with the socket of real GStreamer pipelines: formats, a small pool, other caps, restarts."""

import io
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.rig.rig import PROJECT, Rig, Running
from tests.support.rig_client import Portal, decode
from tests.support.timeouts import TIMEOUT_FACTOR

_FOLDER = "/run/source"
_SOCKET = f"{_FOLDER}/camera"
# Of GStreamer's test image: where across the image, and the colour.
_BARS = {
    0.05: (191, 191, 191),
    0.21: (191, 191, 0),
    0.35: (0, 191, 191),
    0.5: (0, 191, 0),
    0.64: (191, 0, 191),
    0.78: (191, 0, 0),
    0.95: (0, 0, 191),
}


def start_pipeline(rig: Rig, folder: Path, form: str, size: tuple[int, int]) -> Running:
    """Start a pipeline with a test image and its socket at `_SOCKET`, which is in `folder` on this side."""
    caps = f"video/x-raw,format={form},width={size[0]},height={size[1]},framerate=30/1"
    pipeline = f"videotestsrc is-live=true pattern=smpte75 ! {caps} ! unixfdsink socket-path={_SOCKET}"
    return rig.start(["gst-launch-1.0", *pipeline.split()], cameras=(), shared={_FOLDER: folder})


def start_portal(rig: Rig, folder: Path) -> Portal:
    command = rig.portal("--camera", f"unixfd:{_SOCKET}", "--fps", "30")
    return Portal(rig.start(command, cameras=(), shared={_FOLDER: folder}))


def test_pipeline_starts_late_and_restarts(rig: Rig, tmp_path: Path) -> None:
    portal = start_portal(rig, tmp_path)
    status = portal.status
    assert (status["socket_path"], status["socket_exists"], status["backend"]) == (_SOCKET, False, "url")
    snapshot = portal.get("/snapshot.jpg")
    assert snapshot.status == 503
    assert "No such file or directory" in snapshot.detail
    with portal.watch() as viewer:
        for size in ((640, 360), (320, 240)):
            pipeline = start_pipeline(rig, tmp_path, "I420", size)
            viewer.wait_for(lambda part, size=size: decode(part.jpeg).shape[1::-1] == size)  # type: ignore[misc]
            assert portal.wait_for_status(state="open")["socket_exists"]
            pipeline.signal(signal.SIGINT)
            portal.wait_for_status(state="recovering", socket_exists=False)
            pipeline.wait()
    portal.running.wait_for_line("Source unixfd:/run/source/camera reconnected")


@pytest.mark.parametrize("form", ["I420", "NV12", "YUY2", "RGB", "BGR"])
def test_formats(rig: Rig, tmp_path: Path, form: str) -> None:
    start_pipeline(rig, tmp_path, form, (642, 360))  # not a multiple of four
    portal = start_portal(rig, tmp_path)
    with portal.watch() as viewer:
        part = viewer.wait_for(lambda part: decode(part.jpeg).shape == (360, 642, 3))
    picture = decode(part.jpeg).astype(int)
    for across, colour in _BARS.items():
        seen = picture[100, int(642 * across)]
        assert np.abs(seen - colour).max() < 12, f"at {across}: {seen}"


def test_jpegs_other_caps_and_a_small_pool(rig: Rig, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (320, 240), (180, 16, 16)).save(file, "JPEG")
    jpeg = file.getvalue()
    (tmp_path / "image").write_bytes(jpeg + bytes(64 * 48 * 3 - len(jpeg)))  # so that it also passes as raw video
    portal = start_portal(rig, tmp_path)
    with portal.watch() as viewer, portal.watch("/stream.mjpg?width=160"):
        pipeline = rig.start(
            [
                *("/usr/bin/python3", f"{PROJECT}/tests/rig/programs/pool_camera.py", _SOCKET, f"{_FOLDER}/image"),
                *("image/jpeg,width=320,height=240,framerate=30/1",),
                *("video/x-raw,format=RGB,width=64,height=48,framerate=30/1",),
                *("image/jpeg,width=320,height=240,framerate=30/1",),
            ],
            cameras=(),
            shared={_FOLDER: tmp_path},
        )
        viewer.wait_for(lambda part: part.jpeg.startswith(jpeg[:200]))
        viewer.wait_for(lambda part: decode(part.jpeg).shape == (48, 64, 3))
        viewer.wait_for(lambda part: part.jpeg.startswith(jpeg[:200]))
        pipeline.wait_for_line("ended", 60 * TIMEOUT_FACTOR)
    assert "image 180" in pipeline.output
    assert "not a socket" not in portal.log
