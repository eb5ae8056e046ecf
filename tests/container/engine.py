"""A real Docker engine, Debian 13's, in its own namespaces: nothing of it is left when it ends.

`ensure()` makes what is cached in .cache/container: the engine's root, the base image that Containerfile names (a
Debian 13 root with this machine's pip settings, since there is no registry), and Docker's folder, in which the slow
steps of Containerfile are already built. Only that needs the network; an `Engine` of a test has only its own loopback
and bridge. `python3 -m tests.container.engine` makes it in advance. No thread here.
"""

import contextlib
import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.rig import root as rig_root
from tests.rig.root import CannotMake
from tests.support.commands import run_command
from tests.support.timeouts import TIMEOUT_FACTOR

PROJECT = rig_root.CHECKOUT
START_LIMIT_S = 60.0 * TIMEOUT_FACTOR
COMMAND_LIMIT_S = 300.0 * TIMEOUT_FACTOR
_BUILD_LIMIT_S = 1200.0 * TIMEOUT_FACTOR
_PACKAGES = ("docker.io", "docker-cli", "docker-compose", "docker-buildx", "iptables", "iproute2", "ca-certificates")
_BASE_NAME = re.compile(r"(?m)^ARG BASE=(\S+)$")
_ANY = "[0-9a-f]" * 16
_NEEDED = ("mmdebstrap", "setpriv", "unshare", "nsenter", "slirp4netns", "curl")

# As in the rig: an interrupted mmdebstrap leaves no mounts behind, in a folder that the next one removes.
_ENDS_AS_ONE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
)

# Runs as the first process of its namespaces and becomes the engine.
_START = """\
mount -t tmpfs -o mode=755 engine {layer}
cd {layer}
mkdir upper work root
ln -s -- {made} made
mount -t overlay -o lowerdir=made/root,upperdir=upper,workdir=work engine root
mount -t proc proc root/proc
mount -t sysfs sysfs root/sys
mount -t cgroup2 cgroup2 root/sys/fs/cgroup
mount --rbind /dev root/dev
mount -t tmpfs -o mode=755 run root/run
mkdir -p root/var/lib/docker root/src root/made
mount --bind {made}/data root/var/lib/docker
mount --bind {project} root/src
mount --bind {made} root/made
cp /etc/resolv.conf root/etc/resolv.conf
rm -f root/var/lib/docker/docker.pid
ip link set lo up
mkdir root/outside
cd root
pivot_root . outside
exec chroot . env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root sh -euc '
umount --lazy /outside
exec dockerd --host=unix:///run/docker.sock --cgroup-parent=/{name} --exec-opt=native.cgroupdriver=cgroupfs'
"""


class Engine:
    """A running engine, from construction until `close`, with the checkout at /src."""

    def __init__(self, made: Path, *, has_network: bool = False) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="soft-stream-docker-"))
        self._name = f"soft-stream-{os.getpid()}"
        (made / "data").mkdir(exist_ok=True)
        layer = self._folder / "layer"
        layer.mkdir()
        quoted = {"layer": layer, "made": made, "project": PROJECT}
        script = _START.format(name=self._name, **{name: shlex.quote(str(path)) for name, path in quoted.items()})
        self._slirp: subprocess.Popen[bytes] | None = None
        self._log = (self._folder / "log").open("w")
        namespaces = ("--mount", "--propagation", "private", "--pid", "--net", "--fork", "--kill-child")
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, "sh", "-euc", script],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_ready()
            if has_network:
                self._connect()
            self._remove_leftovers()  # of a run that was killed
        except BaseException:
            self.close()
            raise

    def run(
        self,
        *argv: str,
        environment: Mapping[str, str] = {},
        check: bool = True,
        limit_s: float = COMMAND_LIMIT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the engine's root in the checkout."""
        settings = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", *(f"{k}={v}" for k, v in environment.items()))
        inside = ("nsenter", f"--target={self._leader()}", "--mount", "--net", "--pid", "--root", "--wdns=/src")
        return run_command([*inside, "env", "-i", *settings, *argv], limit_s, check=check)

    def curl(self, *argv: str, check: bool = True) -> str:
        """Run curl in the engine's network; its output."""
        network = ("nsenter", f"--target={self._leader()}", "--net")
        return run_command([*network, "curl", "--silent", "--show-error", *argv], COMMAND_LIMIT_S, check=check).stdout

    def close(self) -> None:
        """End the engine and all containers. Docker's folder keeps the steps that were built."""
        if self._process.poll() is None and (leader := self._leader()):
            with contextlib.suppress(AssertionError):
                self._remove_leftovers()
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(leader), signal.SIGTERM)
        try:
            self._process.wait(START_LIMIT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()  # and with it all processes in its namespaces
            self._process.wait()
        if self._slirp is not None:
            self._slirp.kill()
            self._slirp.wait()
        for top in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
            for folder, _, _ in os.walk(Path(top, self._name), topdown=False):
                with contextlib.suppress(OSError):
                    Path(folder).rmdir()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _leader(self) -> str:
        """The engine's process id; empty until it runs."""
        pid = self._process.pid
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/task/{pid}/children").read_text().strip()
        return ""

    def _wait_until_ready(self) -> None:
        deadline_s = time.monotonic() + START_LIMIT_S
        while self._process.poll() is None and time.monotonic() < deadline_s:
            with contextlib.suppress(AssertionError):
                self.run("docker", "version")
                return
            time.sleep(0.2)
        raise AssertionError(f"Docker did not start: {(self._folder / 'log').read_text()}")

    def _connect(self) -> None:
        self._slirp = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "slirp4netns", "--configure", self._leader(), "tap0"],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )

    def _remove_leftovers(self) -> None:
        """Remove containers, volumes, and the image of the checkout."""
        self.run("sh", "-c", "docker ps --all --quiet | xargs --no-run-if-empty docker rm --force --volumes")
        self.run("sh", "-c", "docker volume ls --quiet | xargs --no-run-if-empty docker volume rm")
        self.run("docker", "image", "rm", "soft-stream", check=False)


def ensure(base: Path | None = None) -> Path:
    """The folder with everything that an `Engine` needs; made if necessary. Raises CannotMake."""
    base = (base or PROJECT / ".cache/container").resolve()
    for program in _NEEDED:
        if shutil.which(program) is None:
            raise CannotMake(f"the Docker engine of the tests needs {program}")
    if os.geteuid() != 0:
        raise CannotMake("the Docker engine of the tests needs root")
    made = base / _recipe_hash()
    if made.is_dir():
        rig_root.mark_used(made)
        return made
    source = rig_root.debian_source()
    base.mkdir(parents=True, exist_ok=True)
    with rig_root.lock(base / "lock"):
        if not made.is_dir():
            print("container: making a Docker engine and a base image, only the first time", file=sys.stderr)
            rig_root.remove_unused(base, _ANY)
            for leftover in base.glob("making-*"):
                shutil.rmtree(leftover)
            making = Path(tempfile.mkdtemp(prefix="making-", dir=base))
            try:
                _make_roots(making, source)
                _build_image(making)
                making.rename(made)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return made


def _recipe_hash() -> str:
    """Of everything that decides the slow steps."""
    digest = hashlib.sha256()
    for path in (Path(__file__), PROJECT / "Containerfile", PROJECT / "requirements.txt"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _make_roots(folder: Path, source: str) -> None:
    common = [*_ENDS_AS_ONE, "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase"]
    common += [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    common += [f"--aptopt={line}" for line in ('Acquire::Languages "none"', *rig_root.apt_proxies())]
    for options in (
        (f"--include={','.join(_PACKAGES)}", "--format=directory", rig_root.SUITE, str(folder / "root")),
        ("--format=tar", rig_root.SUITE, str(folder / "base.tar")),
    ):
        done = subprocess.run([*common, *options, source], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            sys.stderr.write(done.stderr)
            raise CannotMake("mmdebstrap could not make a root (is there a network?)")
    _add_pip_settings(folder)


def _add_pip_settings(folder: Path) -> None:
    """Add this machine's pip settings to the base image: a registry's image has no use for them."""
    settings, shared = rig_root.pip_settings()
    added = folder / "added/etc/soft-stream-test"
    added.mkdir(parents=True)
    lines = ["[global]"]
    for name, value in settings.items():
        if name.startswith("PIP_"):
            for path in shared.values():
                if path.is_file() and str(path) in value:
                    shutil.copyfile(path, added / path.name)
                    value = value.replace(str(path), f"/etc/soft-stream-test/{path.name}")
            lines.append(f"{name.removeprefix('PIP_').lower().replace('_', '-')} = {value}")
    (folder / "added/etc/pip.conf").write_text("\n".join(lines) + "\n")
    names = ("--owner=0", "--group=0", "etc/pip.conf", "etc/soft-stream-test")
    subprocess.run(["tar", "-rf", folder / "base.tar", "-C", folder / "added", *names], check=True)


def _build_image(made: Path) -> None:
    """Import the base image and build the project's image once, so that its slow steps are in Docker's folder."""
    name = _BASE_NAME.search((PROJECT / "Containerfile").read_text())
    assert name is not None
    with running(made, has_network=True) as engine:
        engine.run("docker", "import", "/made/base.tar", name[1])
        done = engine.run("docker", "compose", "build", "--progress=plain", check=False, limit_s=_BUILD_LIMIT_S)
        if done.returncode != 0:
            sys.stderr.write(done.stdout)
            raise CannotMake("Docker could not build the image (is there a network?)")
    (made / "base.tar").unlink()


@contextlib.contextmanager
def running(made: Path, *, has_network: bool = False) -> Iterator[Engine]:
    """An engine; another process that uses the same folder waits."""
    with rig_root.lock(made / "in-use"):
        engine = Engine(made, has_network=has_network)
        try:
            yield engine
        finally:
            engine.close()


def main() -> int:
    try:
        print(ensure())
    except CannotMake as reason:
        print(f"container: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
