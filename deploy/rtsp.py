"""RTSP for other machines: the settings that open its ports, the keys, the address, and whether it works.

The settings are in a file that the unit reads before the owner's settings file, so that the owner's of the same name
have priority. A setting in this file is never changed; missing ones are added. All are `cam<N>_` settings: every
instance reads the file, and cameras that were not requested must stay as they are, above all closed.
"""

import re
import secrets
from collections.abc import Sequence
from dataclasses import replace

from deploy import files, instances
from deploy.cameras import Inventory
from deploy.system import INSTANCES, Failed, Host, in_url, instance, name_for_others, read_text

FIRST_PORT = 8554  # of camera 0
_ASSIGNMENT = re.compile(r"(?m)^[ \t]*(\w+)[ \t]*=[ \t]*(\S+)")
_LOOPBACK = re.compile(r"localhost|127\..*|::1")
_WILDCARDS = ("0.0.0.0", "::")
_HEADER = """\
# Written by deploy.sh --with-rtsp, which adds lines and changes none. Settings of the same name in
# camera-soft-stream.env have priority; cam0_ has priority over CAMERA_ in either file.
# To close RTSP: delete this file, sudo systemctl restart 'camera-soft-cam@*', and deploy.sh again if there is nginx.
"""
_KEYS = {
    "view_key": "the password for RTSP, with any user name; also read-only access over HTTP",
    "api_key": "full access over HTTP, where the view key alone would make the portal read-only",
}


def _earlier(host: Host) -> dict[str, str]:
    """What the file has, by the name in lower case."""
    return {name.lower(): value for name, value in _ASSIGNMENT.findall(read_text(host.rtsp_file))}


def with_earlier(host: Host, inventory: Inventory) -> Inventory:
    """The inventory with what the file has too."""
    return replace(inventory, values={**_earlier(host), **inventory.values})


def _new_settings(host: Host, inventory: Inventory, numbers: Sequence[int]) -> dict[str, str]:
    """What the file must have in addition, for these cameras only. A key that must be made is empty.

    A camera that has no key gets both, since a view key alone would make it read-only.
    """
    known = with_earlier(host, inventory)
    new: dict[str, str] = {}
    for number in numbers:
        if not known.value(number, "rtsp_host") and _LOOPBACK.fullmatch(known.value(number, "host") or "localhost"):
            new[f"cam{number}_rtsp_host"] = "0.0.0.0"
        if not known.value(number, "rtsp_port"):
            new[f"cam{number}_rtsp_port"] = str(FIRST_PORT + number)
        if not known.value(number, "view_key"):
            new[f"cam{number}_view_key"] = ""
            if not known.value(number, "api_key"):
                new[f"cam{number}_api_key"] = ""
    return new


def _key(text: str, name: str) -> str:
    """The key that the file has for another camera, so that all have the same, or else a new one."""
    found = re.search(rf"(?m)^cam\d+_{name}=([A-Za-z0-9_-]+)$", text)
    return found[1] if found else secrets.token_urlsafe(15)


def _port(host: Host, inventory: Inventory, number: int) -> int:
    """The camera's port, which the owner may have set."""
    found = with_earlier(host, inventory).value(number, "rtsp_port")
    return int(found) if found.isdecimal() else FIRST_PORT + number


def preflight(host: Host, inventory: Inventory, numbers: Sequence[int]) -> None:
    """Raises Failed if a port could not be opened. Nothing was changed then."""
    new = _new_settings(host, inventory, numbers)
    if overridden := " ".join(name for name in new if name.lower() in inventory.values):
        raise Failed(
            f"{overridden}: empty in {host.env_file}, which overrides what --with-rtsp sets; delete that line, or "
            "leave the camera out with --cameras. Nothing was changed"
        )
    pids = [pid for pid in host.show("MainPID", INSTANCES).split() if pid != "0"]
    for number in numbers:
        port = _port(host, inventory, number)
        if instances.has_other_listener(host, port, pids, anywhere=True):
            other = f"maybe MediaMTX; cam{number}_rtsp_port in {host.env_file} selects another one"
            raise Failed(f"camera {number}: RTSP's {instances.port_in_use(port)}, nothing was changed ({other})")


def plan(host: Host, inventory: Inventory, numbers: Sequence[int]) -> None:
    """Print what would be done."""
    new = _new_settings(host, inventory, numbers)
    for number in numbers:
        done = "open" if f"cam{number}_rtsp_port" in new else "keep open"
        host.say(f"would {done} port {_port(host, inventory, number)} for RTSP of camera {number}, with a password")
    for setting in new:
        if comment := _KEYS.get(setting.partition("_")[2]):
            host.say(f"would add {setting}: {comment}")
    _report_firewall(host, [_port(host, inventory, number) for number in numbers])


def write_settings(host: Host, inventory: Inventory, numbers: Sequence[int]) -> None:
    """Add what is missing in the file, which only root can read."""
    new = _new_settings(host, inventory, numbers)
    text = read_text(host.rtsp_file) or _HEADER
    for setting, value in new.items():
        name = setting.partition("_")[2]
        comment = f"# {setting}: {_KEYS[name]}\n" if name in _KEYS else ""
        text = f"{text.rstrip()}\n{comment}{setting}={value or _key(text, name)}\n"
    files.write(host.rtsp_file, text.encode(), 0o600)
    if host.rtsp_file.stat().st_mode & 0o777 != 0o600:
        host.rtsp_file.chmod(0o600)
    if without := ", ".join(str(number) for number in numbers if f"cam{number}_api_key" in new):
        host.say(f"camera {without}: keys added in {host.rtsp_file}; HTTP requires one too now, also on this host")


def find_problem(host: Host, release: str, numbers: Sequence[int]) -> str:
    """Check RTSP of the instances that run; what does not work, or an empty text."""
    for number in numbers:
        if not host.is_active(instance(number)):
            continue
        done = instances.healthcheck(host, release, "rtsp", number)
        answer = files.reason(done.stdout) or files.reason(done.stderr) or "the check failed without output"
        host.say(f"camera {number}: {answer}")
        if done.returncode != 0:
            return f"RTSP of camera {number} does not work"
    return ""


def report(host: Host, inventory: Inventory, numbers: Sequence[int]) -> None:
    """Print the address of each camera, how to see the password, and what a firewall must allow."""
    known = with_earlier(host, inventory)
    for number in numbers:
        _report_overridden(host, inventory, number)
        address = known.value(number, "rtsp_host") or known.value(number, "host") or "localhost"
        if _LOOPBACK.fullmatch(address):
            host.say(f"camera {number}: RTSP for programs on this host only, as set in {host.env_file}")
            continue
        key = f"cam{number}_view_key"
        effective = key if known.values.get(key) else "camera_view_key"
        file = host.env_file if inventory.values.get(effective) else host.rtsp_file
        reachable = in_url(name_for_others(host) if address in _WILDCARDS else address)
        url = f"rtsp://camera:PASSWORD@{reachable}:{_port(host, inventory, number)}/"
        host.say(f"camera {number}: H.264 at {url}, password on the host: sudo grep -i view_key= {file}")
    _report_firewall(host, [_port(host, inventory, number) for number in numbers])


def _report_overridden(host: Host, inventory: Inventory, number: int) -> None:
    """Print which settings of the owner for all cameras have no effect, as the file has one for this camera."""
    earlier = _earlier(host)
    for name in ("rtsp_host", "rtsp_port", *_KEYS):
        setting, shared = f"cam{number}_{name}", f"CAMERA_{name.upper()}"
        if setting in earlier and setting not in inventory.values and inventory.values.get(shared.lower()):
            remedy = f"to use the latter, delete that line and restart camera-soft-cam@{number}"
            host.say(f"{setting} in {host.rtsp_file} overrides {shared} in {host.env_file}; {remedy}")


def _report_firewall(host: Host, ports: Sequence[int]) -> None:
    """Print the commands for the ports that a firewall does not allow. UDP needs none: the host sends first."""
    rules = [f"{port}/tcp" for port in ports]
    ufw = host.run("ufw", "status").stdout
    if ufw.startswith("Status: active"):
        allowed = re.findall(r"(?m)^(\d+)(?:/tcp)? +ALLOW", ufw)
        commands = [f"sudo ufw allow {rule}" for rule in rules if rule.removesuffix("/tcp") not in allowed]
        name = "ufw"
    elif host.run("firewall-cmd", "--state").stdout == "running":
        closed = [rule for rule in rules if not host.succeeds("firewall-cmd", f"--query-port={rule}")]
        added = " ".join(f"--add-port={rule}" for rule in closed)
        commands = [f"sudo firewall-cmd --permanent {added}", "sudo firewall-cmd --reload"] if closed else []
        name = "firewalld"
    else:
        return
    if commands:
        host.say(f"{name} is active and was not changed; unless another rule allows RTSP: {' && '.join(commands)}")


def remove(host: Host) -> None:
    """Remove the settings and keys that --with-rtsp wrote."""
    host.rtsp_file.unlink(missing_ok=True)
