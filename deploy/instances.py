"""The systemd instances: device bindings, ports, starting them and checking that each delivers a picture."""

import os
import re
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence

from deploy import files, video_node
from deploy.cameras import Inventory, python_path, run_in_settings, take_inventory
from deploy.system import INSTANCES, Failed, Host, instance, read_text

_SETTINGS_CHECK_S = 60  # with the owner's hook, whose import may take long
_DEVICE_TRIES = 20  # udev notifies systemd a moment after a rule is installed
_LOCAL_ADDRESSES = ("0.0.0.0", "127.0.0.1", "*", "[::]", "[::1]", "[::ffff:127.0.0.1]")  # as ss prints them


class BrokenRelease(Failed):
    """A release does not run, whatever the settings. Nothing was changed."""


# --- The device an instance is bound to


def bind(host: Host, number: int, inventory: Inventory) -> None:
    """Bind the instance to its camera's device, so that it stops and starts with it; reports the device."""
    binding = host.binding(number)
    # A node from --bind, now or in an earlier deployment; `none`; or `auto`.
    earlier = re.match(r"# Written by deploy.sh --bind \d+=(.*)\.\n", read_text(binding))
    requested = host.options.bind.get(number) or (earlier[1] if earlier else "auto")
    node, reason = _find_node(host, requested, inventory.camera_id(number))
    is_absent = reason in (_ABSENT, f"{node} does not exist")
    if is_absent and number not in host.options.bind and binding.exists():
        host.say(f"camera {number}: binding unchanged: {reason}")
        return
    device = "" if reason else host.run("systemd-escape", "--path", "--suffix=device", node).stdout
    if device and not _is_known(host, device):
        reason = f"systemd does not know {node}"
    text = f"# Written by deploy.sh{'' if requested == 'auto' else f' --bind {number}={requested}'}.\n"
    if reason:
        text += f"# Not bound to a device: {reason}.\n[Unit]\nDescription=Soft Stream, camera %i\n"
    else:
        text += (
            "# The instance stops when its camera's device is removed, and starts when it returns.\n"
            f"[Unit]\nDescription=Soft Stream, camera %i, bound to {node}\nBindsTo={device}\nAfter={device}\n\n"
            f"[Install]\nWantedBy=\nWantedBy={device}\n"
        )
    files.write(binding, text.encode())
    host.say(f"camera {number}: {f'not bound to a device: {reason}' if reason else f'bound to {node}'}")


_ABSENT = "the camera is missing"
_WITHOUT_NODE = {"": _ABSENT, "pattern": "the pattern camera has none", "elsewhere": "not a camera of this portal"}


def _find_node(host: Host, requested: str, camera_id: str) -> tuple[str, str]:
    """The node, and the reason not to bind the instance to it."""
    node, reason = requested, ""
    if requested == "none":
        reason = "as requested"
    elif requested == "auto":
        try:
            reason = _WITHOUT_NODE.get(camera_id, "")
            node = "" if reason else video_node.find_node(camera_id, root=host.root)
        except video_node.NotFound as error:
            reason = str(error)
    if not reason and not host.path(node).exists():
        reason = f"{node} does not exist"
    return node, reason


def _is_known(host: Host, device: str) -> bool:
    """Whether systemd knows the device; waits for udev if it is running."""
    for _ in range(_DEVICE_TRIES):
        if host.is_active(device):
            return True
        if not host.path("run/udev/control").exists():
            break
        host.sleep(0.2)
    return False


def _waits_for_device(host: Host, number: int) -> bool:
    """Whether it is bound to a device that is missing, so that systemd does not start it."""
    device = re.search(r"(?m)^BindsTo=(.*)$", read_text(host.binding(number)))
    return device is not None and not host.is_active(device[1])


# --- Before anything is changed


def preflight(host: Host, release: str, numbers: Iterable[int]) -> None:
    """Raises Failed if one of the instances could not start with the release."""
    portal = host.release(release) / "soft_stream.py"
    pids = [pid for pid in host.show("MainPID", INSTANCES).split() if pid != "0"]
    for number in numbers:
        timeout = ("/usr/bin/timeout", str(_SETTINGS_CHECK_S))
        done = run_in_settings(host, *timeout, python_path(host), portal, "--camera", str(number), "--check")
        output = files.redact(f"{done.stderr}\n{done.stdout}").strip()
        if done.returncode == 124:
            raise Failed(
                f"camera {number}: checking its settings timed out after {_SETTINGS_CHECK_S} s, nothing was changed "
                "(a hook that blocks while it is imported?)"
            )
        if done.returncode in (78, 2):
            raise Failed(f"camera {number}: bad settings in {host.env_file}, nothing was changed: {output}")
        if done.returncode != 0:
            why = files.reason(output) or f"exited with code {done.returncode} and no output"
            raise BrokenRelease(f"release {release} does not run here, nothing was changed: {why}")
        port = healthcheck(host, release, "port", number).stdout
        if port and has_other_listener(host, int(port), pids, anywhere=False):
            raise Failed(f"camera {number}: {port_in_use(int(port))}, nothing was changed")


def port_in_use(port: int) -> str:
    return f"port {port} is in use by another program (sudo ss -ltnp 'sport = :{port}' shows it)"


def has_other_listener(host: Host, port: int, pids: Collection[str], *, anywhere: bool) -> bool:
    """Whether a process not in `pids` listens on the port, at any address or (not `anywhere`) at a local one."""
    listeners = host.run("ss", "-Hltnp", f"sport = :{port}").stdout.splitlines()
    others = [line for line in listeners if not any(f"pid={pid}," in line for pid in pids)]
    return any(anywhere or line.split()[3].rpartition(":")[0] in _LOCAL_ADDRESSES for line in others)


# --- Starting and checking


def healthcheck(host: Host, release: str, command: str, number: int, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the release's own health check, which knows its settings."""
    program = host.release(release) / "deploy/healthcheck.py"
    return run_in_settings(host, python_path(host), program, command, str(number), *more)


def start(
    host: Host, release: str, numbers: Sequence[int], *, required: Collection[int] = (), is_forced: bool = False
) -> bool:
    """Restart the instances that are older than their files, or all if forced, and check each; whether all work.

    A `required` camera must deliver a picture; for another one a healthy portal is enough.
    """
    waiting = [number for number in numbers if _waits_for_device(host, number)]
    started = [number for number in numbers if number not in waiting]
    if restarts := [instance(number) for number in started if is_forced or needs_restart(host, number)]:
        host.run("systemctl", "reset-failed", *restarts)
        host.run("systemctl", "restart", *restarts)  # the health check below shows how each is doing
    for number in numbers:
        if number in waiting:
            host.say(f"camera {number}: its device is missing; the instance starts when it returns")
        elif not _is_working(host, release, number, is_required=number in required):
            return False
    return True


def _is_working(host: Host, release: str, number: int, *, is_required: bool) -> bool:
    """Whether the instance works. One whose camera is missing counts as working."""
    unit = instance(number)
    has_exited = host.show("ExecMainStatus", unit) == "66" and not host.is_active(unit)
    if has_exited and not take_inventory(host).camera_id(number):
        host.say(f"camera {number}: missing (exit 66)")
        return True
    code, answer = _wait_until_healthy(host, release, number)
    host.say(f"camera {number}: {answer or 'health check failed without output'}")
    if code == 3 and not is_required:
        host.say(f"camera {number}: it delivered none before either")
    elif code != 0:
        host.say(f"camera {number}: its journal:")
        options = ("--quiet", "--no-pager", "--output=cat", "--lines=8")
        for line in files.redact(host.run("journalctl", *options, f"--unit={unit}").stdout).splitlines():
            host.say(f"    {line}")
        return False
    return True


def _wait_until_healthy(host: Host, release: str, number: int) -> tuple[int, str]:
    """Exit code and output of the last health check. Stops early if the instance exits again and again."""
    started_s = host.clock()
    while True:
        done = healthcheck(host, release, "health", number, "3")
        restarts = int(host.show("NRestarts", instance(number)) or 0)
        passed_s = host.clock() - started_s
        if done.returncode != 1 or passed_s > host.options.start_timeout_s or (passed_s > 5 and restarts > 1):
            return done.returncode, done.stdout.strip()


def needs_restart(host: Host, number: int) -> bool:
    """Whether the instance is stopped, or one of the files that it is started with is newer than its start.

    Compares the time a file was put there (ctime, not its own date) by the monotonic clock: the clock of a Pi jumps
    when it is set by the network.
    """
    if not host.is_active(instance(number)):
        return True
    started_us = int(host.show("ExecMainStartTimestampMonotonic", instance(number)) or 0)
    started_s = started_us / 1e6 + time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    folders = (host.python_drop_in.parent, host.binding(number).parent)
    drop_ins = (path for folder in folders for path in folder.glob("*.conf"))
    paths = (host.top / "current", host.unit, host.env_file, host.rtsp_file, *folders, *drop_ins)
    return any(os.path.lexists(path) and path.lstat().st_ctime > started_s for path in paths)
