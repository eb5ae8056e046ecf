"""The host as the deployment sees it: its paths, its programs, and where messages go.

Tests pass a folder as the root and a function in place of the programs.
"""

import shlex
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

INSTANCES = "camera-soft-cam@*.service"


class Failed(Exception):
    """The deployment cannot continue. The message follows `FAILED: ` in the output."""


def run_program(argv: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    """Run a program with `text` as its standard input; exit code 127 if it does not exist."""
    try:
        return subprocess.run(  # noqa: S603 - every command is a literal in this folder
            argv, input=text, capture_output=True, text=True, errors="replace", check=False
        )
    except OSError as error:
        return subprocess.CompletedProcess(argv, 127, "", str(error))


@dataclass(frozen=True)
class Options:
    """What the user requested; empty values stand for the default."""

    python: str = ""
    cameras: tuple[int, ...] = ()
    bind: Mapping[int, str] = field(default_factory=dict)  # a node, `none` or `auto`
    address: str = ""  # how the user reaches the host
    with_nginx: bool = False
    with_rtsp: bool = False
    start_timeout_s: float = 45.0  # a Pi Zero needs 20 to import Picamera2 and open a camera


class Host:
    """Paths below `root`, programs through `execute`, messages through `say`."""

    def __init__(
        self,
        options: Options = Options(),
        *,
        root: Path = Path("/"),
        execute: Callable[[Sequence[str], str], subprocess.CompletedProcess[str]] = run_program,
        say: Callable[[str], None] = print,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options, self.root, self._execute = options, root, execute
        self.say, self.sleep, self.clock = say, sleep, clock
        self.top = root / "opt/camera-soft-stream"
        self.runtime = root / "run/camera-soft-cam", root / "run/private/camera-soft-cam"  # links, and what they are to
        self.pending, self.changed = self.top / "pending.json", self.top / "changed.json"  # see rollback.py
        self.env_file = root / "etc/camera-streamer/camera-soft-stream.env"
        self.rtsp_file = root / "etc/camera-streamer/rtsp.env"  # see rtsp.py
        self.shipped = root / "etc/camera-streamer/.shipped"  # hashes of the files that the owner may edit
        self.units = root / "etc/systemd/system"
        self.unit = self.units / "camera-soft-cam@.service"
        self.python_drop_in = self.units / "camera-soft-cam@.service.d/python.conf"
        self.rules = root / "etc/udev/rules.d/70-camera-soft-cam.rules"
        self.nginx = root / "etc/nginx"
        self.nginx_password = root / "etc/camera-streamer/nginx-password"
        self.nginx_users = self.nginx / "camera-soft-cam.htpasswd"  # the hash of that password

    def path(self, absolute: str) -> Path:
        return self.root / absolute.lstrip("/")

    def binding(self, number: int) -> Path:
        """The drop-in that binds an instance to its camera's device."""
        return self.units / f"{instance(number)}.d/binding.conf"

    def recordings(self, number: int) -> Path:
        """The drop-in that permits an instance to write recordings."""
        return self.units / f"{instance(number)}.d/recordings.conf"

    def release(self, name: str) -> Path:
        return self.top / "releases" / name

    def run(self, *argv: str | Path, text: str = "", check: bool = False) -> subprocess.CompletedProcess[str]:
        """Run a program; its output has no newline at the end. With `check`, raises Failed if it fails."""
        done = self._execute([str(word) for word in argv], text)
        if check and done.returncode != 0:
            command, why = shlex.join(map(str, argv)), last_line(done.stderr)
            raise Failed(f"failed with exit code {done.returncode} at: {command}: {why}")
        done.stdout = done.stdout.rstrip("\n")
        return done

    def succeeds(self, *argv: str | Path) -> bool:
        return self.run(*argv).returncode == 0

    def is_active(self, unit: str) -> bool:
        return self.succeeds("systemctl", "--quiet", "is-active", unit)

    def show(self, name: str, unit: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).stdout


def instance(number: int) -> str:
    return f"camera-soft-cam@{number}.service"


def name_for_others(host: Host) -> str:
    """The name or address by which other machines reach the host: the one that was deployed to, if it was over SSH."""
    if host.options.address:
        return host.options.address
    name = host.run("hostname").stdout
    if name and host.is_active("avahi-daemon"):
        return f"{name}.local"
    addresses = host.run("hostname", "-I").stdout.split()
    return addresses[0] if addresses else name


def in_url(name: str) -> str:
    """The name or address as it is written in a URL."""
    return f"[{name}]" if ":" in name else name


def last_line(text: str) -> str:
    """The last line that is not blank; empty if there is none."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def read_text(path: Path) -> str:
    """The file's text, also of one that is not UTF-8; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
