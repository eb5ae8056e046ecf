"""The entry point when the start fails, in a process, since it may end at once."""

import subprocess
import sys
from pathlib import Path

from tests.support.timeouts import PATIENCE_S

FAILING = """
import sys
from softcam.app import main
from softcam.streaming.mjpeg import MjpegStream

def fail(_):
    raise RuntimeError("can't start new thread")

MjpegStream.start = fail
sys.exit(main(["--camera", "pattern", "--port", "0"]))
"""


def test_start_that_fails_half_way(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run(
        [sys.executable, "-c", FAILING],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 70, ended.stderr
    assert "ERROR Failed to start: can't start new thread\nTraceback" in ended.stderr
    assert ended.stderr.endswith("Stopped\n"), "the camera thread has ended"
