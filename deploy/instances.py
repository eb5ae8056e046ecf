"""The systemd instances: their device bindings, their ports, starting them and checking that each delivers a picture.

No thread here.
"""

import os
import re
import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from deploy import files, video_node
from deploy.cameras import Inventory, python_path, run_in_settings
from deploy.system import Failed, Host, instance, read_text

_SETTINGS_CHECK_S = 60  # with the owner's hook, whose import may take long
_DEVICE_TRIES = 20  # udev notifies systemd a moment after a rule is installed
_LISTEN = "0A"
# As in /proc/net/tcp.
_LOCAL_ADDRESSES = ("00000000", "0100007F", "0" * 32, "0" * 24 + "01000000", "0000000000000000FFFF00000100007F")


class Unusable(Failed):
    """An instance could not start with a release. Nothing was changed."""

    def __init__(self, message: str, *, is_release: bool = False) -> None:
        super().__init__(message)
        self.is_release = is_release  # the release itself is broken, not the settings or a port


# --- The device an instance is bound to


def bind(host: Host, number: int, inventory: Inventory) -> None:
    """Binds the instance to its camera's device, so that it stops and starts with it; says so."""
    requested = _requested_node(host, number)
    is_absent, reason = False, "as requested"
    try:
        node = requested or _find_node(host, number, inventory)
    except video_node.NotFound as error:
        node, is_absent, reason = "none", str(error) == _ABSENT, str(error)
    if node != "none" and not host.path(node).exists():
        is_absent, reason = True, f"{node} does not exist"
    binding = host.binding(number)
    if is_absent and number not in host.options.bind and binding.exists():
        host.say(f"camera {number}: binding unchanged: {reason}")
        return
    device = ""
    if node != "none":
        device = host.output("systemd-escape", "--path", "--suffix=device", node)
        if not _is_known(host, device, node):
            device, reason = "", reason if is_absent else f"systemd does not know {node}"
    by = f"# Written by deploy.sh{f' --bind {number}={requested}' if requested else ''}.\n"
    if device:
        text = (
            f"{by}# The instance stops when its camera's device is removed, and starts when it returns.\n"
            f"[Unit]\nDescription=Soft Stream, camera %i, bound to {node}\nBindsTo={device}\nAfter={device}\n\n"
            f"[Install]\nWantedBy=\nWantedBy={device}\n"
        )
    else:
        text = f"{by}# Not bound to a device: {reason}.\n[Unit]\nDescription=Soft Stream, camera %i\n"
    files.write_if_changed(binding, text.encode())
    host.say(f"camera {number}: {f'bound to {node}' if device else f'not bound to a device: {reason}'}")


_ABSENT = "the camera is missing"


def _requested_node(host: Host, number: int) -> str:
    """The node or `none` from --bind, now or in an earlier deployment; empty if it is to be found."""
    requested = host.options.bind.get(number)
    if requested is None:
        match = re.match(r"# Written by deploy.sh --bind \d+=(.*)\.\n", read_text(host.binding(number)))
        requested = match[1] if match else "auto"
    return "" if requested == "auto" else requested


def _find_node(host: Host, number: int, inventory: Inventory) -> str:
    camera_id = inventory.camera_id(number)
    reasons = {"": _ABSENT, "pattern": "a test picture has none", "elsewhere": "not a camera of this portal"}
    if camera_id in reasons:
        raise video_node.NotFound(reasons[camera_id])
    return video_node.find_node(camera_id, root=host.root)


def _is_known(host: Host, device: str, node: str) -> bool:
    for _ in range(_DEVICE_TRIES):
        if host.is_active(device):
            return True
        if not (host.path(node).exists() and host.path("run/udev/control").exists()):
            break
        host.sleep(0.2)
    return False


def _waits_for_device(host: Host, number: int) -> bool:
    """Whether it is bound to a device that is missing, so that systemd does not start it."""
    device = re.search(r"(?m)^BindsTo=(.*)$", read_text(host.binding(number)))
    return device is not None and not host.is_active(device[1])


# --- Before anything is changed


def preflight(host: Host, release: str, numbers: Iterable[int]) -> None:
    """Raises Unusable if one of the instances could not start with the release."""
    program = host.release(release) / "soft_stream.py"
    for number in numbers:
        code, said, complained = run_in_settings(
            *(host, "/usr/bin/timeout", str(_SETTINGS_CHECK_S), python_path(host), str(program)),
            *("--camera", str(number), "--check"),
        )
        output = files.redact(complained + said).strip()
        if code == 124:
            raise Unusable(
                f"camera {number}: checking its settings timed out after {_SETTINGS_CHECK_S} s, nothing was changed "
                "(a hook that blocks while it is imported?)"
            )
        if code in (78, 2):
            raise Unusable(f"camera {number}: bad settings in {host.env_file}, nothing was changed: {output}")
        if code != 0:
            why = files.reason(output) or f"exited with code {code} and no output"
            raise Unusable(f"release {release} does not run here, nothing was changed: {why}", is_release=True)
        port = healthcheck(host, release, "port", number)[1]
        if port and has_other_listener(host, int(port), _main_pids(host), anywhere=False):
            raise Unusable(f"camera {number}: {port_in_use(int(port))}, nothing was changed")


def port_in_use(port: int) -> str:
    return f"port {port} is in use by another program (sudo ss -ltnp 'sport = :{port}' shows it)"


def _main_pids(host: Host) -> list[int]:
    shown = host.output("systemctl", "show", "--value", "--property=MainPID", instance_pattern())
    return [int(word) for word in shown.split() if word != "0"]


def instance_pattern() -> str:
    return "camera-soft-cam@*.service"


def has_other_listener(host: Host, port: int, pids: Iterable[int], *, anywhere: bool) -> bool:
    """Whether a process not in `pids` listens on the port, at any address or (not `anywhere`) at a local one."""
    own = set()
    for pid in pids:
        for entry in host.path(f"proc/{pid}/fd").glob("*"):
            try:
                own.add(str(entry.readlink()))
            except OSError:
                continue
    for name in ("tcp", "tcp6"):
        for line in read_text(host.path(f"proc/net/{name}")).splitlines()[1:]:
            fields = line.split()
            address, _, listening_port = fields[1].partition(":")
            is_candidate = fields[3] == _LISTEN and int(listening_port, 16) == port
            if is_candidate and (anywhere or address in _LOCAL_ADDRESSES) and f"socket:[{fields[9]}]" not in own:
                return True
    return False


# --- Starting and checking


def healthcheck(host: Host, release: str, command: str, number: int, *more: str) -> tuple[int, str]:
    """Runs the release's own health check, which knows its settings: exit code and output."""
    program = host.release(release) / "deploy/healthcheck.py"
    if not program.exists():  # up to 0.1.0
        program, command = host.release(release) / "systemd/probe.py", command.replace("health", "look")
    code, said, _ = run_in_settings(host, python_path(host), str(program), command, str(number), *more)
    return code, said.strip()


def delivers_picture(host: Host, release: str, number: int) -> bool:
    return host.is_active(instance(number)) and healthcheck(host, release, "health", number, "5")[0] == 0


def start(
    host: Host,
    release: str,
    inventory: Inventory,
    numbers: Sequence[int],
    *,
    required: Collection[int] = (),
    is_forced: bool = False,
) -> bool:
    """Restarts the instances that are older than their files, or all if forced, and checks each; whether all work.

    A `required` camera must deliver a picture; for another one a healthy portal is enough.
    """
    restarts = [
        instance(number)
        for number in numbers
        if not _waits_for_device(host, number) and (is_forced or needs_restart(host, number))
    ]
    if restarts:
        host.run("systemctl", "reset-failed", *restarts)
        host.run("systemctl", "restart", *restarts)  # the health check below shows how each is doing
    for number in numbers:
        if _waits_for_device(host, number):
            host.say(f"camera {number}: its device is missing; the instance starts when it returns")
            continue
        if not inventory.camera_id(number) and _exited_without_camera(host, number):
            host.say(f"camera {number}: missing (exit 66)")
            continue
        code, answer = _check_instance(host, release, number)
        host.say(f"camera {number}: {answer or 'health check failed without output'}")
        if code == 3 and number not in required:
            host.say(f"camera {number}: it delivered none before either")
        elif code != 0:
            host.say(f"camera {number}: its journal:")
            tail_journal(host, number)
            return False
    return True


def needs_restart(host: Host, number: int) -> bool:
    """Whether the instance is stopped, or one of the files that it is started with is newer than its start.

    Compares the time a file was put there (ctime, not its own date) by the monotonic clock: the clock of a Pi jumps
    when it is set by the network.
    """
    if not host.is_active(instance(number)):
        return True
    shown = host.output("systemctl", "show", "--value", "--property=ExecMainStartTimestampMonotonic", instance(number))
    started_s = int(shown or 0) / 1e6 + time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
    folders = (host.python_drop_in.parent, host.binding(number).parent)
    paths = [host.top / "current", host.unit, host.env_file, *folders]
    for folder in folders:
        paths += folder.glob("*.conf")
    return max(_changed_s(path) for path in paths) > started_s


def _changed_s(path: Path) -> float:
    try:
        return os.lstat(path).st_ctime
    except FileNotFoundError:
        return 0.0


def _exited_without_camera(host: Host, number: int) -> bool:
    status = host.output("systemctl", "show", "--value", "--property=ExecMainStatus", instance(number))
    return status == "66" and not host.is_active(instance(number))


def _check_instance(host: Host, release: str, number: int) -> tuple[int, str]:
    """Waits until the instance is healthy; stops early if it exits again and again."""
    started_s = host.clock()
    while True:
        code, answer = healthcheck(host, release, "health", number, "3")
        restarts = host.output("systemctl", "show", "--value", "--property=NRestarts", instance(number))
        passed_s = host.clock() - started_s
        if code != 1 or passed_s > host.options.start_timeout_s or (passed_s > 5 and int(restarts or 0) > 1):
            return code, answer


def tail_journal(host: Host, number: int) -> None:
    shown = host.output(
        *("journalctl", "--quiet", "--no-pager", "--output=cat", "--unit", instance(number), "--lines", "8")
    )
    for line in files.redact(shown).splitlines():
        host.say(f"    {line}")
