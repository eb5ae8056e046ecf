"""The portal on a 64-bit and on a 32-bit ARM processor, emulated.

The unit tests are those of modules that contain memory layouts, struct formats, ctypes and ioctls. An emulator has no
io_uring; the portal reports that and sends without it.
"""

import ast
import itertools
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.arm.root import Machine, entering
from tests.conftest import PROJECT, Portal
from tests.support.http_client import StreamClient, ask, decode
from tests.support.recording_client import listed, probe, start, stop
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

_UNITS_LIMIT_S = 600 * TIMEOUT_FACTOR
_BINARY = {"ctypes", "struct", "fcntl", "mmap"}

# A module that imports one of these, and where its tests are.
_TESTS = {
    "camera/picamera/h264_encoder.py": (),  # its one struct is that of hdr.py; its tests need PyAV's encoder
    "camera/picamera/hdr.py": ("camera/picamera/test_hdr.py",),
    "camera/url/gst_video.py": ("camera/url/test_unixfd.py",),
    "camera/url/unixfd.py": ("camera/url/test_unixfd.py",),
    "imaging/dng.py": ("imaging/test_dng.py",),
    "imaging/exif.py": ("imaging/test_exif.py",),
    "mp4/fragment.py": ("mp4/test_fragment.py",),
    "mp4/index.py": ("mp4/test_index.py",),
    "net/io_uring.py": ("net/test_io_uring.py",),
    "net/sockets.py": ("net/test_sockets.py",),
    "net/udp.py": ("net/test_udp.py",),
    "recording/files.py": ("recording/test_folder.py",),
    "recording/library.py": ("recording/test_library.py",),
    "rtsp/rtp.py": ("rtsp/test_rtp.py",),
    "runtime/log/files.py": ("runtime/log/test_files.py",),
    "runtime/memory.py": ("runtime/test_memory.py",),
    "system/firmware.py": ("system/test_firmware.py",),
    "web/http/sender.py": ("web/http/test_sender.py",),
}
_LEFT_OUT = {
    # QEMU's user-mode emulation has no io_uring, and starts no programs.
    "net/test_io_uring.py",
    "runtime/log/test_files.py::test_killed_process_has_lost_nothing",
    # They encode with PyAV, which takes minutes.
    "camera/url/test_unixfd.py",
    "mp4/test_index.py::test_players_read_the_index",
    "recording/test_library.py",
    # They need Pillow; both modules name the byte order in each format, so sizes are the same everywhere.
    "imaging/test_dng.py",
    "imaging/test_exif.py",
}


def _imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = [name.name for node in nodes if isinstance(node, ast.Import) for name in node.names]
    return {*plain, *(node.module or "" for node in nodes if isinstance(node, ast.ImportFrom))}


def test_all_binary_modules_are_listed() -> None:
    package = PROJECT / "softcam"
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if _imports(path) & _BINARY}
    assert found == set(_TESTS)


def test_units(machine: tuple[Machine, Path]) -> None:
    files = [f"tests/unit/{name}" for name in sorted({*itertools.chain(*_TESTS.values())} - _LEFT_OUT)]
    deselected = [f"--deselect=tests/unit/{name}" for name in sorted(_LEFT_OUT) if "::" in name]
    options = ("-m", "pytest", "-q", "-o", "cache_dir=/tmp/pytest", *deselected)
    done = subprocess.run(
        entering(*machine, [*options, *files]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_UNITS_LIMIT_S,
    )
    assert done.returncode == 0, done.stdout
    assert re.search(r"\d{2,} passed", done.stdout), done.stdout


@pytest.fixture
def portal(machine: tuple[Machine, Path], tmp_path: Path) -> Iterator[Portal]:
    flags = ("--camera", "pattern", "--port", "0", "--width", "320", "--height", "180", "--fps", "5", "--no-autofocus")
    program = entering(*machine, ["soft_stream.py", *flags], folder=tmp_path)
    portal = Portal(["--state-dir", "/mnt/state", "--recordings", "/mnt"], {"PATH": "/usr/sbin:/usr/bin"}, program)
    try:
        yield portal
    finally:
        portal.end()


def test_portal(machine: tuple[Machine, Path], portal: Portal, tmp_path: Path) -> None:
    portal.wait_for_log(r"Listening on ", timeout_s=6 * PATIENCE_S)
    limit_s = 3 * PATIENCE_S
    with StreamClient(portal) as client:
        frames = [client.next(timeout_s=limit_s) for _ in range(3)]
        assert decode(frames[-1].jpeg).shape == (180, 320, 3)
        snapshot = ask(portal, "/snapshot.jpg?width=160", timeout_s=limit_s)
        assert (snapshot.status, decode(snapshot.body).shape) == (200, (90, 160, 3))
        if machine[0].has_pyav:
            _check_video(portal, tmp_path)
        else:
            answer = ask(portal, "/stream.mp4", timeout_s=limit_s)
            assert answer.status == 409
            assert "python3-av" in answer.detail
    assert portal.stop(timeout_s=limit_s) == 0


def _check_video(portal: Portal, folder: Path) -> None:
    start(portal)
    with urllib.request.urlopen(f"{portal.url}/stream.mp4", timeout=3 * PATIENCE_S) as stream:
        assert stream.headers["Content-Type"].startswith("video/mp4")
        content = stream.read(4000)
    assert content[4:8] == b"ftyp"
    assert b"moof" in content
    stop(portal)
    (recording,) = listed(portal)["recordings"]
    frames, duration_s, _ = probe(folder / recording["name"])
    assert frames > 0
    assert duration_s > 0
