"""Releases on the host: copied beside each other, switched by one link, the newest few kept."""

import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from deploy import files
from deploy.cameras import SYSTEM_PYTHON, python_path
from deploy.system import Failed, Host

_KEPT = 3
_ABANDONED_S = 3600.0  # an incoming folder older than this belongs to a copy that broke off


def linked(host: Host, link: str) -> str:
    """The release that a link, such as `current` or `previous`, names; empty if there is none."""
    path = host.top / link
    return path.readlink().name if path.is_symlink() else ""


def activate(host: Host, name: str) -> None:
    """Install the release's unit and udev rule, and make it the current one."""
    source = host.release(name) / "systemd"
    files.write(host.unit, (source / host.unit.name).read_bytes())
    if files.write(host.rules, (source / host.rules.name).read_bytes()):
        reload_udev(host)
    if linked(host, "current") != name:
        files.link(host.top / "current", f"releases/{name}")


def reload_udev(host: Host) -> None:
    if host.path("run/udev/control").exists():
        host.run("udevadm", "control", "--reload", check=True)
        host.run("udevadm", "trigger", "--settle", "--subsystem-match=video4linux", check=True)


def write_python_drop_in(host: Host) -> None:
    if python_path(host) == SYSTEM_PYTHON:
        host.python_drop_in.unlink(missing_ok=True)
    else:
        command = f"{python_path(host)} /opt/camera-soft-stream/current/soft_stream.py --camera %i"
        text = f"# Written by deploy.sh --python.\n[Service]\nExecStart=\nExecStart={command}\n"
        files.write(host.python_drop_in, text.encode())


def make_incoming(host: Host, name: str) -> None:
    """Print an empty folder to copy the release to, or nothing if the host has the release."""
    releases = host.top / "releases"
    releases.mkdir(parents=True, exist_ok=True)
    for old in releases.glob(".incoming-*"):
        if time.time() - old.stat().st_mtime > _ABANDONED_S:
            shutil.rmtree(old, ignore_errors=True)
    if not host.release(name).is_dir():
        # Only root may enter the outer folder (0700) during the copy, which may set any mode on the inner one.
        folder = Path(tempfile.mkdtemp(prefix=".incoming-", dir=releases)) / "release"
        folder.mkdir(mode=0o755)
        host.say(str(folder))


def _is_incoming(host: Host, folder: str) -> bool:
    return re.fullmatch(rf"{re.escape(str(host.top))}/releases/\.incoming-[^/]+/release", folder) is not None


def discard(host: Host, folder: str) -> None:
    """Remove a folder of `make_incoming`, and no other."""
    if _is_incoming(host, folder):
        shutil.rmtree(Path(folder).parent, ignore_errors=True)


def adopt(host: Host, name: str, copied: str) -> None:
    """Move a completely copied release to its name. Raises Failed if it is incomplete."""
    folder, target = Path(copied), host.release(name)
    try:
        if target.is_dir():
            return  # if there is a copy, another deployment copied the same
        if not _is_incoming(host, copied):
            raise Failed(f"release {name} does not exist on the host")
        if not all((folder / part).is_file() for part in ("soft_stream.py", "deploy/host.py")):
            raise Failed(f"release {name} was not copied completely")
        # The service may not write there; compiled modules make it start faster.
        host.run(python_path(host), "-m", "compileall", "-q", folder / "softcam")
        os.utime(folder)  # its age counts from now
        host.run("sync", "--file-system", folder)  # a power failure could otherwise leave the name and empty files
        folder.rename(target)
    finally:
        discard(host, copied)


def drop(host: Host, name: str) -> None:
    """Remove the release, and the folders above if they are empty then."""
    shutil.rmtree(host.release(name), ignore_errors=True)
    with suppress(OSError):
        (host.top / "releases").rmdir()
        host.top.rmdir()


def prune(host: Host) -> None:
    """Keep the newest releases, and those in use."""
    in_use = {linked(host, "current"), linked(host, "previous")}
    unused = [path for path in (host.top / "releases").glob("[!.]*") if path.name not in in_use]
    for path in sorted(unused, key=lambda path: -path.stat().st_mtime)[_KEPT - 2 :]:
        shutil.rmtree(path, ignore_errors=True)
