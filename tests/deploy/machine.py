"""A booted Debian 13 with the real systemd, sshd, nginx and Picamera2, in its own network namespace.

`Machine` is a container over the rig's root; its changes are discarded with it. It has its own loopback, so the
standard ports are free in it; `net` runs a program of this machine in that network, `run` one of the container. No
thread here.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.deploy.terminal import Terminal
from tests.rig import root as rig_root
from tests.support.commands import run_command
from tests.support.timeouts import TIMEOUT_FACTOR

PROJECT = rig_root.CHECKOUT
PYTHON = "/opt/rig/python"  # the root's Picamera2, with the bridges to the virtual cameras
ENV_FILE = "/etc/camera-streamer/camera-soft-stream.env"
RTSP_FILE = "/etc/camera-streamer/rtsp.env"
PATIENCE_S = 60.0 * TIMEOUT_FACTOR  # for what takes seconds on an idle machine
DEPLOY_LIMIT_S = 300.0 * TIMEOUT_FACTOR  # ten seconds on an idle machine
_DROP_IN = "/etc/systemd/system/camera-soft-cam@.service.d/zz-test.conf"
CAMERA_LIST = "usr/share/libcamera/pipeline/virtual/virtual.yaml"

_PYTHON_WRAPPER = f"""\
#!/bin/sh
export LD_PRELOAD=/opt/rig/dmabuf_shim.so PYTHONPATH=/opt/faults:/opt/rig:$PYTHONPATH
exec {rig_root.PYTHON} "$@"
"""

# The rig's bridges, and a fault: after SIGUSR2 the portal accepts no connections, but all threads run.
_FAULTS = """\
import runpy
import signal
import threading

runpy.run_path("/opt/rig/sitecustomize.py")


def hang(number, frame):
    import softcam.web.http.server

    softcam.web.http.server.PortalServer.get_request = lambda server: threading.Event().wait()


signal.signal(signal.SIGUSR2, hang)
"""

_PREPARE = """\
mount -t tmpfs -o mode=755 rig {layer}
cd {layer}
mkdir upper work root
ln -s -- {lower} lower
mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work rig root
cp -r {files}/. root/
rm -f root/etc/machine-id
chroot root useradd -m -s /bin/bash pi
mkdir -p -m 700 root/root/.ssh root/home/pi/.ssh
cp {key}.pub root/root/.ssh/authorized_keys
cp {key}.pub root/home/pi/.ssh/authorized_keys
chroot root chown -R pi:pi /home/pi/.ssh
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --directory=root --machine={name} --register=no --keep-unit --boot --console=passive \
  --private-network
"""


class Machine:
    """One container, from construction until `close`."""

    def __init__(self, root: Path) -> None:
        self.first_words = ""  # the output of the first deployment
        self._is_changed = False
        self._folder = Path(tempfile.mkdtemp(prefix="soft-stream-host-"))
        # The working folder of its deployments; a short path, since it contains sockets.
        self.deploy_tmp = Path(tempfile.mkdtemp(prefix="dep-", dir="/tmp"))
        # What is deployed: a copy, since the checkout may be edited meanwhile.
        self.project = copy_project(PROJECT, self._folder / "project")
        self.key = self._folder / "key"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        files, layer = self._folder / "files", self._folder / "layer"
        layer.mkdir()
        _write_files(files)
        name = f"soft-stream-{os.getpid()}"
        script = _PREPARE.format(
            layer=shlex.quote(str(layer)),
            lower=shlex.quote(str(root)),
            files=shlex.quote(str(files)),
            key=shlex.quote(str(self.key)),
            name=name,
        )
        self._log = (self._folder / "log").open("w")
        self._process = subprocess.Popen(
            # It ends with this process, also if that is killed.
            ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private", "sh", "-euc", script],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            self._leader = self._find_leader()
            self.wait_until(
                lambda: self.run("systemctl", "is-system-running", check=False).stdout == "running\n", "boot"
            )
        except BaseException:
            self.close()
            raise

    # --- running things

    def run(self, *argv: str, check: bool = True, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run a program of the container as root."""
        inside = ["nsenter", "--target", str(self._leader), "--all", "--wdns=/", "env", "-i", *_ENV, *argv]
        return run_command(inside, DEPLOY_LIMIT_S, check=check, text=text or "")

    def net(self, *argv: str, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a program of this machine in the container's network."""
        return run_command(["nsenter", "--target", str(self._leader), "--net", *argv], timeout_s, check=check)

    def deploy(
        self,
        *options: str,
        hosts: Sequence[str] = ("root@127.0.0.1",),
        check: bool = True,
        project: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run deploy.sh over real SSH. It must clean up after itself in any case."""
        done = self.net(*self.deploy_argv(options, hosts, project), check=check, timeout_s=DEPLOY_LIMIT_S)
        self.assert_cleaned_up()
        return done

    def deploy_locally(self, user: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `sudo ./deploy.sh --local` in the user's checkout in the container, made by `put_checkout`."""
        command = f"cd ~/soft-stream && sudo ./deploy.sh --local --python {PYTHON} {shlex.join(options)}"
        done = self.run("timeout", str(DEPLOY_LIMIT_S), "runuser", "-l", user, "-c", command, check=check)
        assert self.run("find", "/tmp", "-name", "soft-stream.*").stdout == ""
        return done

    def put_checkout(self, user: str, project: Path) -> None:
        """Copy the project into the user's home in the container, in place of the one there."""
        target = f"/home/{user}/soft-stream"
        script = 'rm -rf "$0"; mkdir "$0"; tar -xf - -C "$0"; chown -R "$1:$1" "$0"'
        packed = subprocess.run(["tar", "-C", str(project), "-cf", "-", "."], capture_output=True, check=True).stdout
        argv = ["nsenter", "--target", str(self._leader), "--all", "--wdns=/", "sh", "-euc", script, target, user]
        subprocess.run(argv, input=packed, check=True, timeout=PATIENCE_S)

    def assert_cleaned_up(self) -> None:
        """Assert that no deployment left a folder here."""
        assert list(self.deploy_tmp.iterdir()) == []

    @contextlib.contextmanager
    def deploying(self, *options: str, project: Path) -> Iterator[subprocess.Popen[str]]:
        """A running deploy.sh, to be interrupted; waits for its end."""
        argv = self.deploy_argv(options, ("root@127.0.0.1",), project)
        process = subprocess.Popen(
            ["nsenter", "--target", str(self._leader), "--net", *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        with process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()
        self.assert_cleaned_up()

    def deploy_argv(self, options: Sequence[str], hosts: Sequence[str], project: Path | None = None) -> list[str]:
        """The command line of deploy.sh, with the key of this machine."""
        known = self._folder / "known_hosts"
        ssh = [f"IdentityFile={self.key}", f"UserKnownHostsFile={known}", "StrictHostKeyChecking=accept-new"]
        ssh += ["IdentitiesOnly=yes", "BatchMode=yes"]
        flags = [flag for option in ssh for flag in ("-o", option)]
        script = str((project or self.project) / "deploy.sh")
        return ["env", f"TMPDIR={self.deploy_tmp}", script, *flags, "--python", PYTHON, *options, *hosts]

    def deploy_in_terminal(
        self, *options: str, hosts: Sequence[str], typed: str, prompt: str, project: Path | None = None
    ) -> Terminal:
        """Run deploy.sh in a terminal, in which `typed` is entered after the prompt."""
        argv = self.deploy_argv(options, hosts, project)
        terminal = Terminal(["nsenter", "--target", str(self._leader), "--net", *argv])
        terminal.run(prompt, typed, DEPLOY_LIMIT_S)
        self.assert_cleaned_up()
        return terminal

    @contextlib.contextmanager
    def viewer(self, camera: int, *options: str, port: int | None = None) -> Iterator[None]:
        """A client of the camera's stream, for the duration of the block."""
        url = f"http://127.0.0.1:{port or 18081 + camera}/stream.mjpg"
        argv = ["nsenter", "--target", str(self._leader), "--net", "curl", "-sN", "-o", "/dev/null", *options, url]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)
        try:
            self.wait_until(lambda: process.poll() is None and self.status(camera)["viewers"] >= 1, "a viewer")
            yield
        finally:
            process.terminate()
            process.wait()

    # --- looking

    def get(self, url: str, *options: str) -> tuple[int, str]:
        """Status and body of a response; status 0 if there is none."""
        done = self.net("curl", "-s", "-m", "20", "-w", "\n%{http_code}", *options, url, check=False)
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body

    def status(self, camera: int, *options: str) -> dict[str, Any]:
        """The status of the camera's portal, requested in the container."""
        code, body = self.get(f"http://127.0.0.1:{18081 + camera}/v1/camera/status", *options)
        assert code == 200, body
        content: dict[str, Any] = json.loads(body)
        return content

    def show(self, camera: int, *names: str) -> dict[str, str]:
        """systemd's properties of an instance."""
        flags = [f"--property={name}" for name in names]
        done = self.run("systemctl", "show", *flags, f"camera-soft-cam@{camera}.service")
        return dict(line.split("=", 1) for line in done.stdout.splitlines())

    def is_active(self, camera: int) -> bool:
        return self.show(camera, "ActiveState")["ActiveState"] == "active"

    def pid(self, camera: int) -> int:
        """The portal's process id in the container."""
        return int(self.show(camera, "MainPID")["MainPID"])

    def cursor(self) -> tuple[str, str]:
        """Options for `journal` that leave out all lines up to now."""
        self.sync_journal()
        done = self.run("journalctl", "--no-pager", "-q", "-n", "1", "-o", "cat", "--show-cursor")
        return "--after-cursor", done.stdout.rpartition("-- cursor: ")[2].strip()

    def journal(self, camera: int, *options: str) -> str:
        """The journal of an instance since the boot, or as `options` select."""
        self.sync_journal()
        return self.run("journalctl", "--no-pager", "-o", "cat", "-u", f"camera-soft-cam@{camera}", *options).stdout

    def sync_journal(self) -> None:
        """Wait until the journal has all lines up to now."""
        self.run("journalctl", "--sync")

    def wait_until(self, predicate: Callable[[], object], what: str, within_s: float = PATIENCE_S) -> float:
        """Wait until the predicate holds; returns how long that took. An AssertionError if it does not in time."""
        began_s = time.monotonic()
        while not predicate():
            if time.monotonic() - began_s > within_s:
                raise AssertionError(f"{what} did not come true within {within_s} s")
            if self._process.poll() is not None:
                raise AssertionError(f"the container ended: {(self._folder / 'log').read_text()}")
            time.sleep(0.1)
        return time.monotonic() - began_s

    def wait_for_fresh(self, camera: int, pid: int) -> None:
        """Wait until another process than `pid` is ready."""
        self.wait_until(lambda: self.pid(camera) not in (0, pid) and self.is_active(camera), "a fresh portal")

    # --- changing

    def write(self, path: str, text: str, mode: str = "644") -> None:
        """Write a file in the container."""
        self.run("sh", "-c", 'umask 077; cat > "$0.new"; chmod "$1" "$0.new"; mv "$0.new" "$0"', path, mode, text=text)

    def set_gone(self, *camera_ids: str) -> None:
        """Remove these cameras from the list; an open one stays open."""
        self.write("/run/rig/gone", "\n".join(camera_ids))

    def freeze(self) -> None:
        """Stop the frames of all cameras, without an error."""
        self.run("touch", "/run/rig/freeze")

    def thaw(self) -> None:
        self.run("rm", "-f", "/run/rig/freeze")

    def set_env(self, *lines: str) -> None:
        """Add settings for instances that start from now on, until the end of the test."""
        self._is_changed = True
        self.run("sh", "-c", f"cat >> {ENV_FILE}", text="\n" + "\n".join(lines) + "\n")

    def set_drop_in(self, text: str) -> None:
        """Change the unit until the end of the test."""
        self._is_changed = True
        self.write(_DROP_IN, text)
        self.run("systemctl", "daemon-reload")

    def put_right(self) -> None:
        """Restore both cameras, running with the deployed settings."""
        self.run("rm", "-f", "/run/rig/gone", "/run/rig/freeze")
        if self._is_changed:
            self.run(
                "sh", "-c", f"rm -f {_DROP_IN} {RTSP_FILE}; cp {ENV_FILE}.deployed {ENV_FILE}; systemctl daemon-reload"
            )
            self._is_changed = False
            self.run("systemctl", "restart", "camera-soft-cam@0", "camera-soft-cam@1")
        for camera in (0, 1):
            if not self.is_active(camera):
                self.run("systemctl", "restart", f"camera-soft-cam@{camera}")

    def close(self) -> None:
        # All processes in the container end with the leader, and then nspawn does.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        shutil.rmtree(self.deploy_tmp, ignore_errors=True)

    def _find_leader(self) -> int:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s and self._process.poll() is None:
            if Path(f"/proc/{self._process.pid}/comm").read_text() == "systemd-nspawn\n":
                for pid in children.read_text().split():
                    with contextlib.suppress(FileNotFoundError):
                        if Path(f"/proc/{pid}/comm").read_text() == "systemd\n":
                            return int(pid)
            time.sleep(0.05)
        raise AssertionError(f"the container did not start: {(self._folder / 'log').read_text()}")


_ENV = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", "SYSTEMD_PAGER=", "TERM=dumb")


# The bridges' locks stand for the kernel's locks on a media device, and small pictures need less processor time; the
# unit itself is the shipped one.
_RIG_PARTS = """\
[Service]
ReadWritePaths=/run/rig-locks
Environment=CAMERA_WIDTH=640 CAMERA_HEIGHT=360
"""
_UNIT_PARTS = {"etc/systemd/system/camera-soft-cam@.service.d/rig.conf": _RIG_PARTS}


def copy_project(source: Path, destination: Path) -> Path:
    """Copy the parts that are deployed to the new folder `destination`, and return it."""
    destination.mkdir()
    for name in ("soft_stream.py", "measure_fps.py", "deploy.sh"):
        shutil.copy2(source / name, destination / name)
    for name in ("softcam", "deploy", "systemd", "env", "integrations"):
        shutil.copytree(source / name, destination / name, ignore=shutil.ignore_patterns("__pycache__"))
    return destination


def camera_list(*names: str) -> str:
    """libcamera's configuration of virtual cameras."""
    listed = [(rig_root.INSIDE / f"{name}.yaml").read_text() for name in names]
    return "%YAML 1.1\n---\n" + ("".join(listed) or "{}\n")


def _write_files(folder: Path) -> None:
    """Write the files that the container has in addition to the rig's root."""
    texts = {
        CAMERA_LIST: camera_list("virtual0", "virtual1"),
        "opt/rig/python": _PYTHON_WRAPPER,
        "opt/faults/sitecustomize.py": _FAULTS,
        "etc/tmpfiles.d/rig.conf": "d /run/rig 0755\nd /run/rig-locks 0777\n",
        **_UNIT_PARTS,
        "etc/ssh/sshd_config.d/rig.conf": "ListenAddress 127.0.0.1\nListenAddress ::1\n"
        "PermitRootLogin prohibit-password\n",
        "etc/hostname": "soft-stream\n",
        "etc/hosts": "127.0.0.1 localhost soft-stream\n::1 localhost\n",
        "etc/sudoers.d/pi": "pi ALL=(ALL) NOPASSWD: ALL\n",
    }
    for path, text in texts.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    (folder / "opt/rig/python").chmod(0o755)
    (folder / "etc/sudoers.d/pi").chmod(0o440)
    for bridge in rig_root.INSIDE.glob("*.py"):
        shutil.copy2(bridge, folder / "opt/rig")
    masked = folder / "etc/systemd/system/systemd-networkd-wait-online.service"
    masked.symlink_to("/dev/null")  # the only network is loopback
