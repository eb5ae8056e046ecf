"""Tests of the rig itself: the real Picamera2 on virtual cameras that behave like real ones."""

import itertools
import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import simplejpeg

from tests.rig.rig import BOTH, MODELS, PROJECT, PYTHON, Rig, Running

_BLOCK = (9, 16)  # images are compared by the mean colours of this many rows and columns
_SAME = 4.0  # mean colour difference (of 255) that scaling and two JPEG codings may cause
_OTHER = 20.0  # least mean colour difference between two photographs


def _program(name: str, *arguments: object) -> list[str]:
    return [PYTHON, f"{PROJECT}/tests/rig/programs/{name}.py", *map(str, arguments)]


def _listed(rig: Rig, *cameras: str) -> Any:
    done = rig.run(_program("list_cameras"), cameras=cameras)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _frames_stop(running: Running) -> int:
    """Wait until no frame arrives for half a second; return the total number."""
    seen = running.output.count("frame")
    while True:
        try:
            running.wait_for_line("^frame$", 0.5, count=seen + 1)
        except AssertionError:
            return seen
        seen += 1


def _colours(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    rows, columns = _BLOCK
    height, width, _ = picture.shape
    return np.asarray(picture.reshape(rows, height // rows, columns, width // columns, 3).mean(axis=(1, 3)))


def _rgb_of_nv12(buffer: npt.NDArray[np.uint8], width: int, height: int) -> npt.NDArray[np.uint8]:
    luma, chroma = buffer[:height, :width], buffer[height:, :width]
    planes = (np.ascontiguousarray(plane) for plane in (luma, chroma[:, ::2], chroma[:, 1::2]))
    return np.asarray(simplejpeg.decode_jpeg(simplejpeg.encode_jpeg_yuv_planes(*planes, 95), colorspace="RGB"))


def _photographs(rig: Rig) -> list[npt.NDArray[np.float64]]:
    paths = sorted((rig.root / "opt/rig/pictures").glob("*.jpg"), key=lambda path: int(path.stem))
    return [_colours(simplejpeg.decode_jpeg(path.read_bytes(), colorspace="RGB")) for path in paths]


def test_two_cameras_are_listed(rig: Rig) -> None:
    listed = _listed(rig, *BOTH)
    assert [(camera["Id"], camera["Model"], camera["Num"]) for camera in listed] == [
        ("Virtual1", "imx477", 1),
        ("Virtual0", "imx708_wide", 0),
    ]


@pytest.mark.parametrize("camera_id", BOTH)
def test_one_camera(rig: Rig, camera_id: str) -> None:
    listed = _listed(rig, camera_id)
    assert [(camera["Id"], camera["Model"]) for camera in listed] == [(camera_id, MODELS[camera_id])]


def test_no_camera(rig: Rig) -> None:
    assert _listed(rig) == []


@pytest.mark.measurement
def test_frame_rate_and_photographs(rig: Rig, tmp_path: Path) -> None:
    done = rig.run(_program("capture", 1, 1280, 720, 90, "/opt/shared/frames.npy"), shared={"/opt/shared": tmp_path})
    assert done.returncode == 0, done.stderr
    stream = json.loads(done.stdout)
    assert (stream["format"], stream["size"], stream["stride"]) == ("NV12", [1280, 720], 1280)
    intervals_s = np.diff(stream["came_s"][10:])
    assert 29 < 1 / intervals_s.mean() < 31

    photographs = _photographs(rig)
    apart = [np.abs(a - b).mean() for i, a in enumerate(photographs) for b in photographs[:i]]
    assert min(apart) > _OTHER
    shown = []
    for frame in np.load(tmp_path / "frames.npy"):
        colours = _colours(_rgb_of_nv12(frame, 1280, 720))
        differences = [np.abs(colours - photograph).mean() for photograph in photographs]
        shown.append(int(np.argmin(differences)))
        assert min(differences) < _SAME
    # libcamera shows each photograph for four frames.
    assert len(shown) == 9
    assert all((after - before) % len(photographs) in (0, 1) for before, after in itertools.pairwise(shown))
    assert len(set(shown)) == 3


@pytest.mark.measurement
def test_frame_duration(rig: Rig, tmp_path: Path) -> None:
    done = rig.run(
        _program("capture", 0, 640, 360, 40, "/opt/shared/frames.npy"), fps=50, shared={"/opt/shared": tmp_path}
    )
    assert done.returncode == 0, done.stderr
    assert 48 < 1 / np.diff(json.loads(done.stdout)["came_s"][5:]).mean() < 52


def test_freeze_and_thaw(rig: Rig) -> None:
    running = rig.start(_program("stay_open", 0))
    running.wait_for_line("^frame$", count=5)
    running.freeze()
    seen = _frames_stop(running)
    assert running.is_running()
    running.thaw()
    running.wait_for_line("^frame$", count=seen + 20)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0
    assert "Traceback" not in running.output
    assert running.output.endswith("closed")


def test_close_frozen_camera(rig: Rig) -> None:
    running = rig.start(_program("stay_open", 0))
    running.wait_for_line("^frame$", count=5)
    running.freeze()
    _frames_stop(running)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0


def test_camera_lock(rig: Rig) -> None:
    first = rig.start(_program("stay_open", 0))
    first.wait_for_line("^open$")
    second = rig.start(_program("stay_open", 0))
    second.wait_for_line("busy: Failed to acquire camera: Device or resource busy")
    assert second.wait() == 69
    other = rig.start(_program("stay_open", 1))
    other.wait_for_line("^frame$", count=5)
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    third = rig.start(_program("stay_open", 0))
    third.wait_for_line("^frame$", count=5)


def test_unplugged_camera_is_not_listed(rig: Rig) -> None:
    running = rig.start(_program("list_cameras", "stay"))
    running.wait_for_line("Virtual1.*Virtual0")
    running.unplug("Virtual0")
    running.signal(signal.SIGUSR1)
    assert "Virtual0" not in running.wait_for_line(r"^\[\{.*", count=2)[0]
    running.plug_in()
    running.signal(signal.SIGUSR1)
    running.wait_for_line("Virtual1.*Virtual0", count=2)
    running.signal(signal.SIGTERM)
    assert running.wait() == 0


def test_openings_without_leaks(rig: Rig) -> None:
    done = rig.run(_program("rounds", 1, 15), timeout_s=60)
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == 15
    assert all(each["came"] for each in rounds)
    # The first round creates objects that stay until the process ends: libcamera's manager and its threads.
    assert all(
        (each["threads"], each["descriptors"]) == (rounds[0]["threads"], rounds[0]["descriptors"]) for each in rounds
    )


def test_written_files_are_discarded(rig: Rig) -> None:
    written = rig.run(["sh", "-c", "echo here > /etc/written && cat /etc/written"])
    assert (written.returncode, written.stdout) == (0, "here\n")
    assert rig.run(["test", "-e", "/etc/written"]).returncode == 1
    assert not (rig.root / "etc/written").exists()


def test_checkout_is_read_only(rig: Rig) -> None:
    assert rig.run(["touch", f"{PROJECT}/written"]).returncode != 0


@pytest.mark.parametrize("status", [0, 66, 70])
def test_exit_status_is_passed_through(rig: Rig, status: int) -> None:
    assert rig.run(["sh", "-c", f"exit {status}"]).returncode == status
