"""The folders for recordings that the settings name: created for the service, and opened in its sandbox by a drop-in.

A folder that exists is never changed: its owner may share it with other programs.
"""

import re
import shlex
from collections.abc import Iterable
from pathlib import PurePosixPath

from deploy import files
from deploy.cameras import Inventory
from deploy.system import Failed, Host, read_text

_EXAMPLE = "/srv/recordings"
_GROUP = "video"  # of the service, and on a Raspberry Pi of the first user
# What the service does not see, what it sees in private or only until a reboot, and what belongs to the system.
_UNUSABLE = {
    "the service cannot see home folders": ("home", "root"),
    "the service has a temporary folder that is deleted with it": ("tmp", "var/tmp"),
    "it is emptied at every boot": ("run", "dev"),
    "it belongs to the system": ("bin", "boot", "etc", "lib", "lib64", "proc", "sbin", "sys", "usr"),
}
_PARENTS = ("", "srv", "mnt", "media", "var", "var/lib", "opt")  # folders that only contain those of others


def preflight(host: Host, inventory: Inventory, numbers: Iterable[int]) -> None:
    """Raises Failed if recordings could not be written. Nothing was changed then."""
    for number in numbers:
        if not (folder := inventory.value(number, "recordings")):
            continue
        setting = f"{_setting(inventory, number)}={folder} in {host.env_file}"
        if problem := _find_problem(folder):
            raise Failed(f"{setting}: {problem}; use another folder, such as {_EXAMPLE}. Nothing was changed")
        if host.path(folder).exists() and not _is_writable(host, folder):
            cure = f"sudo chgrp {_GROUP} {shlex.quote(folder)} && sudo chmod 2770 {shlex.quote(folder)}"
            raise Failed(
                f"{setting}: the service cannot write there, and the folder exists. To permit it: {cure}; on a disk "
                f"with FAT or exFAT, mount it with the options gid={_GROUP},umask=0007. Nothing was changed"
            )


def _setting(inventory: Inventory, number: int) -> str:
    own = f"cam{number}_recordings"
    return own if inventory.values.get(own) else "CAMERA_RECORDINGS"


def _find_problem(folder: str) -> str:
    """Why the service could not use a folder of that name; empty if it can."""
    path = PurePosixPath(folder)
    if not path.is_absolute() or ".." in path.parts:
        return "must be an absolute path"
    inside = str(path).lstrip("/")
    if inside in _PARENTS:
        return "must be a separate folder"
    for reason, tops in _UNUSABLE.items():
        if any(inside == top or inside.startswith(f"{top}/") for top in tops):
            return reason
    return ""


def _is_writable(host: Host, folder: str) -> bool:
    return host.succeeds(
        *("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--property=DynamicUser=yes"),
        *(f"--property=SupplementaryGroups={_GROUP}", f"--property=ReadWritePaths={_quote(folder)}"),
        *("/usr/bin/test", "-w", folder),
    )


def _quote(folder: str) -> str:
    """The path as a value in a unit. With `-`: an instance starts without the folder, and reports that."""
    escaped = re.sub(r'(["\\])', r"\\\1", folder).replace("%", "%%")
    return f'"-{escaped}"'


def plan(host: Host, inventory: Inventory, numbers: Iterable[int]) -> None:
    """Print what would be created."""
    folders = {inventory.value(number, "recordings"): None for number in numbers}
    for folder in folders:
        if folder and not host.path(folder).exists():
            host.say(f"would create {folder} for recordings, group {_GROUP}")


def prepare(host: Host, inventory: Inventory, number: int) -> None:
    """Create the camera's folder, and the drop-in that permits the service to write there; remove an obsolete one."""
    drop_in = host.recordings(number)
    folder = inventory.value(number, "recordings")
    if not folder:
        if read_text(drop_in):
            files.remove(drop_in)
        return
    if not host.path(folder).exists():
        host.run("install", "-d", "-g", _GROUP, "-m", "2770", host.path(folder), check=True)
        host.say(f"camera {number}: created {folder} for recordings; the group {_GROUP} can read them")
    text = (
        f"# Written by deploy.sh for {_setting(inventory, number)}. The group {_GROUP} can read recordings.\n"
        f"[Service]\nReadWritePaths={_quote(folder)}\nUMask=0027\n"
    )
    files.write(drop_in, text.encode())
