"""The programs that read RTSP in tests: how each is started for some seconds, and how much it received."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.support.timeouts import RUN_LIMIT_S

FPS: Final = 15
SIZE: Final = (640, 360)
_READERS: Final = Path(__file__).with_name("rtsp_readers.py")
_NOBODY: Final = 65534
_SNAPSHOT_S: Final = 3  # between the pictures that motion saves
_START_S: Final = 10.0  # for the analysis of the stream, whose pictures ffplay plays late
_PROGRAMS: Final = frozenset({"ffmpeg", "ffplay", "gst-launch-1.0", "mpv", "motion", "cvlc"})
_MODULES: Final = {"pyav": "av", "opencv": "cv2"}

# What programs print for every server, as comparisons with GStreamer's have shown.
_PRINTED_ALWAYS: Final = {
    # The first for the full range of values, also that of a file; the second without a screen.
    "ffplay": r"deprecated pixel format used|hardware accelerated renderer",
    "mpv": r"No video PTS! Making something up|Invalid video timestamp: 0\.0+ -> 0\.0+",  # FFmpeg's first packet
    # Without a desktop, and with FFmpeg's client.
    "vlc": r"pulse audio|dbus|interface|dummy mux|end of playlist|Custom AVIOContext|no more input|command `quit'",
}
# At its end GStreamer interrupts its own last requests, and then reports what that has led to.
_END: Final = re.compile(r"^.*gstrtsp(src|connection)\.c.*(interrupted|cancelled)", re.MULTILINE)
EXIT_CODES: Final = {"ffplay": 123}  # after the signal that ends it; 0 of all others
# Also notes that are not warnings.
_FIGURES: Final = r"\d+|([\d.-]+|nan) +(M-V)?:.*|pos=.*|\[.*\[NTC\].*"


@dataclass(frozen=True, slots=True)
class Player:
    """A program and how it is used; its arguments contain the fields that `start` replaces."""

    name: str
    transport: str
    arguments: tuple[str, ...]
    received_s: Callable[[Path, str, float], float]  # from the folder, the output, and the frame rate

    @property
    def id(self) -> str:
        return f"{self.name}-{self.transport}"

    def missing(self) -> str | None:
        """What has to be installed first."""
        if self.name in _MODULES:
            return None if importlib.util.find_spec(_MODULES[self.name]) else _MODULES[self.name]
        program = next(each for each in self.arguments if each in _PROGRAMS)
        return None if shutil.which(program) else program

    def start(self, url: str, folder: Path, seconds: float) -> "subprocess.Popen[bytes]":
        """Start it with an own folder, which gets its files and its output."""
        words = {
            "url": url,
            "seconds": f"{seconds:g}",
            "limit": f"{seconds + _START_S:g}",
            "frames": f"{seconds * FPS:.0f}",
        }
        command = [argument.format_map(words) for argument in self.arguments]
        if self.name == "vlc" and os.geteuid() == 0:
            os.chown(folder, _NOBODY, _NOBODY)
            user = [f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups"]
            command = ["setpriv", *user, "env", f"HOME={folder}", *command]
        if self.name == "motion":
            (folder / "motion.conf").write_text(_motion_configuration(url, folder, self.transport))
        environment = os.environ | {
            "GST_DEBUG": "2",
            "GST_DEBUG_NO_COLOR": "1",
            "SDL_VIDEODRIVER": "dummy",
            "SDL_AUDIODRIVER": "dummy",
        }
        with (folder / "output").open("wb") as output:
            # In a process group, so that none of its processes is left after `end`.
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )

    def complaints(self, output: str) -> list[str]:
        """The lines of warnings and errors that may point at the server."""
        plain = re.sub(r"\x1b\[[\d;]*\w", "", _END.split(output)[0])
        lines = [line.strip() for line in re.split(r"[\r\n]+", plain)]
        always = _PRINTED_ALWAYS.get(self.name, r"(?!)")
        return [line for line in lines if line and not re.fullmatch(_FIGURES, line) and not re.search(always, line)]


def end(process: "subprocess.Popen[bytes]") -> None:
    """Kill a player that still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _motion_configuration(url: str, folder: Path, transport: str) -> str:
    width, height = SIZE
    lines = {
        "daemon": "off",
        "log_level": "6",
        "target_dir": folder,
        "netcam_url": url,
        "netcam_params": f"rtsp_transport={transport}",
        "width": width,
        "height": height,
        "framerate": FPS,
        "webcontrol_port": 0,
        "stream_port": 0,
        "picture_output": "off",
        "movie_output": "off",
        "snapshot_interval": _SNAPSHOT_S,
        "snapshot_filename": "%q-%s",
    }
    return "".join(f"{name} {value}\n" for name, value in lines.items())


# --- how much was received ---------------------------------------------------------------------------------------


def _packets_of_progress(folder: Path, _output: str, fps: float) -> float:
    return int(re.findall(r"frame=(\d+)", (folder / "progress").read_text())[-1]) / fps


def _packets_of_file(folder: Path, _output: str, fps: float) -> float:
    what = ("-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0")
    counted = subprocess.run(
        ["ffprobe", *what, str(folder / "video")], capture_output=True, text=True, timeout=RUN_LIMIT_S, check=True
    )
    return int(counted.stdout.split()[0].rstrip(",")) / fps


def _position(_folder: Path, output: str, _fps: float) -> float:
    """The last position that a player prints."""
    return max(
        (float(each) for each in re.findall(r"([\d.]+) M-V:|pos=([\d.]+)", output) for each in each if each),
        default=0.0,
    )


def _printed_frames(_folder: Path, output: str, fps: float) -> float:
    return int(output.split()[-1]) / fps


def _snapshots(folder: Path, _output: str, _fps: float) -> float:
    pictures = [path for path in folder.glob("*.jpg") if not path.is_symlink()]
    return (len(pictures) + 1) * _SNAPSHOT_S


def _players(transport: str) -> list[Player]:
    ffmpeg = ("-hide_banner", "-loglevel", "warning", "-rtsp_transport", transport)
    copy = ("-t", "{seconds}", "-c", "copy", "-progress", "progress", "-f", "null", "-")
    limit = ("timeout", "--preserve-status", "{limit}")  # for those that have no such option
    access_units = "video/x-h264,stream-format=byte-stream,alignment=au"
    status_line = ("--msg-level=all=warn,statusline=status", "--term-status-msg=pos=${{=time-pos}}")
    # Debian's VLC has no RTSP client but FFmpeg's, and no option for the transport reaches that.
    avformat = ("--demux=avformat", "--avformat-format=rtsp")
    into_file = "--sout=#std{{access=file,mux=raw,dst=video}}"
    commands = [
        ("ffmpeg", ["ffmpeg", "-nostdin", *ffmpeg, "-i", "{url}", *copy], _packets_of_progress),
        ("ffplay", [*limit, "ffplay", *ffmpeg, "-stats", "{url}"], _position),
        ("gstreamer", ["gst-launch-1.0", "-q", "rtspsrc", "location={url}", f"protocols={transport}",
                       "!", "rtph264depay", "!", "h264parse", "!", access_units, "!", "identity", "eos-after={frames}",
                       "!", "filesink", "location=video"], _packets_of_file),
        ("mpv", ["mpv", "--no-config", "--vo=null", "--no-audio", *status_line, f"--rtsp-transport={transport}",
                 "--length={seconds}", "{url}"], _position),
        ("motion", [*limit, "motion", "-n", "-c", "motion.conf"], _snapshots),
        ("vlc", ["cvlc", "-I", "dummy", "--verbose=1", *avformat, "--run-time={seconds}", into_file, "--play-and-exit",
                 "{url}", "vlc://quit"], _packets_of_file),
        *((name, [sys.executable, str(_READERS), name, transport, "{url}", "{seconds}"], _printed_frames)
          for name in ("pyav", "opencv")),
    ]  # fmt: skip
    return [
        Player(name, transport, tuple(arguments), received_s)
        for name, arguments, received_s in commands
        if (name, transport) != ("vlc", "tcp")
    ]


PLAYERS: Final = {player.id: player for transport in ("tcp", "udp") for player in _players(transport)}


def require(player: Player) -> None:
    """Skip the test, which fails it in CI, if the program is missing."""
    missing = player.missing()
    if missing is not None:
        pytest.skip(f"needs {missing}")
