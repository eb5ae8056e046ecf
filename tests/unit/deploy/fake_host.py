"""A host in a folder: real files, and one function that stands for systemd, Python, nginx, apt and the portals."""

import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from deploy import host as program
from deploy import releases
from deploy.system import Failed, Host, Options

UNITS = "etc/systemd/system"
Answer = tuple[int, str, str]
WELL: Answer = (0, "", "")
SITE = "listen @OUTSIDE@;\nlisten [::]:@OUTSIDE@;\nserver 127.0.0.1:@INSIDE@; # @N@\n"


def listener(address: str, port: int, pid: int) -> str:
    """A line of ss."""
    return f'LISTEN 0      128    {address}:{port}      *:*    users:(("program",pid={pid},fd=3))\n'


class FakeHost:
    """Two cameras, systemd 257, and every program successful, until a test says otherwise with `answer`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lines: list[str] = []
        self.calls: list[str] = []
        self.active: set[str] = set()
        self.cameras = ["0\timx708\t/base/a", "1\timx477\t/base/b"]
        self.settings: list[str] = []
        self.broken: set[str] = set()  # releases whose portals are never healthy
        self._started_us: dict[str, int] = {}
        self._answers: list[tuple[str, Callable[[], Answer]]] = []
        self.passed_s = 0.0
        self.address = "camera.local"  # as the user reaches it
        self.on_sleep: Callable[[], object] = lambda: None
        for folder in ("etc/systemd/system", "etc/udev/rules.d", "run/systemd/system", "opt", "proc/net"):
            (root / folder).mkdir(parents=True)
        (root / "etc/os-release").write_text('PRETTY_NAME="Debian 13"\n')

    def host(
        self,
        cameras: tuple[int, ...] = (),
        bind: dict[int, str] | None = None,
        nginx: bool = False,
        rtsp: bool = False,
        python: str = "",
    ) -> Host:
        options = Options(
            python=python,
            cameras=cameras,
            bind=bind or {},
            address=self.address,
            with_nginx=nginx,
            with_rtsp=rtsp,
        )
        return Host(
            options,
            root=self.root,
            execute=self._execute,
            say=self.lines.append,
            sleep=self._sleep,
            clock=lambda: self.passed_s,
        )

    def answer(self, pattern: str, answer: Answer | Callable[[], Answer]) -> None:
        """The answer of programs whose command line matches; the latest rule counts."""
        self._answers.insert(0, (pattern, answer if callable(answer) else lambda: answer))

    def has_called(self, pattern: str) -> bool:
        return any(re.search(pattern, call) for call in self.calls)

    def said(self) -> str:
        text = "\n".join(self.lines)
        self.lines.clear()
        return text

    def add_release(self, name: str, env: str = "#CAMERA_WIDTH=1536\n") -> Path:
        """An incoming folder with a release, as deploy.sh copies it."""
        folder = self.root / f"opt/camera-soft-stream/releases/.incoming-{name}/release"
        texts = {
            "soft_stream.py": "",
            "softcam/__init__.py": "",
            "deploy/host.py": "",
            "deploy/healthcheck.py": "",
            "systemd/camera-soft-cam@.service": f"# unit of {name}\n",
            "systemd/70-camera-soft-cam.rules": "# rule\n",
            "env/camera-soft-stream.env": env,
            "integrations/nginx/camera-soft-cam.conf": "auth_basic camera;\n",
            "integrations/nginx/site.conf": SITE,
        }
        for path, text in texts.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return folder

    def files(self) -> dict[str, str]:
        """Every file and link below /etc and /opt."""
        found = {}
        for top in ("etc", "opt"):
            for path in sorted((self.root / top).rglob("*")):
                if path.is_symlink():
                    found[str(path.relative_to(self.root))] = f"-> {path.readlink()}"
                elif path.is_file():
                    found[str(path.relative_to(self.root))] = f"{path.stat().st_mode & 0o777:o} {path.read_text()}"
        return found

    def enable(self, number: int, target: str = "multi-user.target") -> None:
        link = self.root / f"etc/systemd/system/{target}.wants/camera-soft-cam@{number}.service"
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to("/etc/systemd/system/camera-soft-cam@.service")

    def _sleep(self, seconds: float) -> None:
        self.passed_s += seconds
        self.on_sleep()

    def _execute(self, argv: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
        call = " ".join(argv)
        self.calls.append(call)
        code, output, error = self._find_answer(argv, call)
        return subprocess.CompletedProcess(argv, code, output, error)

    def _find_answer(self, argv: Sequence[str], call: str) -> Answer:
        for pattern, answer in self._answers:
            if re.search(pattern, call):
                return answer()
        if argv[0] == "systemctl":
            return self._systemctl(argv[1:])
        if argv[0] == "systemd-run":
            return self._portal(argv, call)
        if argv[0] == "systemd-escape":
            return 0, argv[-1].strip("/").replace("-", r"\x2d").replace("/", "-") + ".device", ""
        if "global_camera_info" in call:
            return 0, "".join(f"{line}\n" for line in self.cameras), ""
        if argv[-1] == "-V":
            return 0, "Python 3.13.5\n", ""
        if argv[:2] == ["openssl", "passwd"]:
            return 0, "$6$hash\n", ""
        return WELL

    def _systemctl(self, argv: Sequence[str]) -> Answer:
        units = [word for word in argv if not word.startswith("-")][1:]
        if "is-active" in argv:
            return (0 if units[0] in self.active else 3), "", ""
        if "restart" in argv:
            self.active.update(units)
            tick_us = 20_000  # the dates of files are that coarse
            now_us = int(time.clock_gettime(time.CLOCK_MONOTONIC) * 1e6) + tick_us
            self._started_us.update(dict.fromkeys(units, now_us))
        if "stop" in argv or "--now" in argv:
            self.active -= set(units)
            if "camera-soft-cam@*.service" in units:
                self.active.clear()
        if "enable" in argv or "reenable" in argv:
            for unit in [unit for unit in units if "@" in unit]:
                self.enable(int(unit.split("@")[1].removesuffix(".service")))
        if "disable" in argv:
            for link in (self.root / "etc/systemd/system").glob("*.wants/*"):
                if link.name in units:
                    link.unlink()
        if "--version" in argv:
            return 0, "systemd 257 (257.7-1)\n+PAM\n", ""
        if "--property=ExecMainStartTimestampMonotonic" in argv:
            return 0, f"{self._started_us.get(units[0], 0)}\n", ""
        return WELL

    def _portal(self, argv: Sequence[str], call: str) -> Answer:
        if "os.environ" in call:
            return 0, "".join(f"{line}\n" for line in self.settings), ""
        match = re.search(r"releases/([^/]+)/deploy/healthcheck\.py (\w+) (\d+)", call)
        if match is None:
            return WELL
        release, command, number = match.groups()
        if command == "port":
            return 0, f"{18081 + int(number)}\n", ""
        if command == "nginx":
            return 0, 'proxy_set_header Authorization "";\n', ""
        if command == "rtsp":
            return 0, "RTSP delivers H.264\n", ""
        if release in self.broken:
            self.passed_s += 60
            return 1, "not healthy after 3 s: connection refused\n", ""
        return 0, f"healthy, version {release}\n", ""


def install(fake: FakeHost, name: str, env: str = "#CAMERA_WIDTH=1536\n", **options: Any) -> str:
    """Installs the release; what was printed."""
    folder = fake.add_release(name, env)
    program.install(fake.host(**options), name, str(folder))
    return fake.said()


def fail_install(fake: FakeHost, name: str, env: str = "#CAMERA_WIDTH=1536\n", **options: Any) -> str:
    with pytest.raises(Failed) as caught:
        install(fake, name, env, **options)
    return str(caught.value)


def current(fake: FakeHost) -> str:
    return releases.linked(fake.host(), "current")
