"""What the host has: Python, cameras, their settings, packages; and whether the portal can run."""

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.system import Failed, Host, instance, last_line, read_text

SYSTEM_PYTHON = "/usr/bin/python3"
_OLDEST_SYSTEMD = 247
_LINK = re.compile(r"\.wants/camera-soft-cam@(\d+)\.service$")
_LIST_CAMERAS = """\
from picamera2 import Picamera2
for place, camera in enumerate(Picamera2.global_camera_info()):
    print(place, camera.get("Model", "?"), camera.get("Id", "?"), sep="\\t")
"""
# The name of each setting, the value of some, and of the keys whether they are set.
READ_SETTINGS = r"""
import os, re
for key, text in sorted(os.environ.items()):
    match = re.fullmatch(r"(?:CAMERA|(?i:cam(?:0|[1-9][0-9]?)))_(\w+)", key, re.ASCII)
    if match:
        value = " ".join(re.sub(r"(^|\s)#.*", "", text, flags=re.DOTALL).split())
        name = match[1].lower()
        is_set = "set" if name in ("api_key", "view_key") and value else ""
        is_shown = name in ("id", "enabled", "host", "rtsp_host", "rtsp_port", "recordings")
        print(key, value if is_shown else is_set, sep="\t")
"""


@dataclass(frozen=True)
class Inventory:
    """The cameras that Picamera2 lists, and values in the settings file, as systemd reads it."""

    host: Host
    cameras: dict[int, tuple[str, str]]  # model and id
    values: dict[str, str]  # by the name in lower case

    def value(self, number: int, name: str) -> str:
        """The camera's value for a setting; empty if there is none. A key is `set`."""
        return self.values.get(f"cam{number}_{name}") or self.values.get(f"camera_{name}", "")

    def is_switched_off(self, number: int) -> bool:
        """Whether the settings switch the camera off, so that none is needed."""
        return self.value(number, "enabled").lower() in ("0", "false", "no", "off")

    def camera_id(self, number: int) -> str:
        """The camera's id; `pattern`, `elsewhere` for a source that is not Picamera2's, or empty if it is missing."""
        chosen = self.values.get(f"cam{number}_id")
        if not chosen:
            return self.cameras.get(number, ("", ""))[1]
        source = self.host.path(chosen)
        if "://" in chosen or chosen.startswith("/dev/") or source.is_file() or source.is_fifo():
            return "elsewhere"
        return chosen if chosen == "pattern" or chosen in [found for _, found in self.cameras.values()] else ""


def python_path(host: Host) -> str:
    """The interpreter requested now, otherwise the one in use, otherwise the system's."""
    used = re.search(r"(?m)^ExecStart=(/\S+) ", read_text(host.python_drop_in))
    return host.options.python or (used[1] if used else SYSTEM_PYTHON)


def run_in_settings(
    host: Host, *argv: str | Path, only_owner: bool = False, properties: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program with the portal's settings and as few rights; `only_owner`: without those of --with-rtsp.

    `properties` are further ones of the unit that it runs in.
    """
    paths = [host.env_file] if only_owner else [host.rtsp_file, host.env_file]  # as in the unit
    return host.run(
        *("systemd-run", "--quiet", "--wait", "--pipe", "--collect"),
        *(f"--property=EnvironmentFile=-{path}" for path in paths),
        *("--property=DynamicUser=yes", "--property=Environment=PYTHONDONTWRITEBYTECODE=1"),
        *(f"--property={each}" for each in properties),
        *argv,
    )


def take_inventory(host: Host, *, needs_picamera2: bool = False) -> Inventory:
    """The inventory, without cameras if Picamera2 does not work; Failed is raised if it is needed."""
    python = python_path(host)
    done = host.run(python, "-c", _LIST_CAMERAS)
    if needs_picamera2 and done.returncode != 0:
        cause = "a numpy or simplejpeg from pip beside the system's?"
        raise Failed(f"picamera2 does not work with {python} ({cause}): {last_line(done.stderr)}")
    rows = (line.split("\t") for line in done.stdout.splitlines() if line.count("\t") == 2)
    cameras = {int(number): (model, camera_id) for number, model, camera_id in rows}
    read = run_in_settings(host, python, "-c", READ_SETTINGS, only_owner=True).stdout.splitlines()
    settings = [(name, value) for name, tab, value in (line.partition("\t") for line in read) if tab]
    return Inventory(host, cameras, {name.lower(): value for name, value in settings})


def enabled_instances(host: Host, names: Iterable[str] | None = None) -> list[int]:
    """The instances that systemd starts, by the links to them, or by those among `names`."""
    links = map(str, host.units.glob("*.wants/*")) if names is None else names
    found = {int(match[1]) for link in links if (match := _LINK.search(link))}
    return sorted(number for number in found if not is_masked(host, number))


def is_masked(host: Host, number: int) -> bool:
    link = host.units / instance(number)
    return link.is_symlink() and str(link.readlink()) == "/dev/null"


def is_kept_off(host: Host, number: int) -> bool:
    """Whether the owner disabled the instance after it was installed."""
    return is_masked(host, number) or (host.binding(number).exists() and number not in enabled_instances(host))


def wanted_cameras(host: Host, inventory: Inventory) -> list[int]:
    """The requested ones, otherwise those present or enabled before, except for disabled ones."""
    if host.options.cameras:
        return sorted({*host.options.cameras})
    return sorted(number for number in {*inventory.cameras, *enabled_instances(host)} if not is_kept_off(host, number))


def missing_packages(host: Host) -> list[str]:
    """The packages that the portal needs, and nginx if requested. Raises Failed if --python is not there."""
    python = python_path(host)
    if host.run(python, "-V").returncode == 127:
        raise Failed(f"{python} does not exist. --python must be a Python with picamera2, usually {SYSTEM_PYTHON}")
    find = "import importlib.util as u, sys; sys.exit(u.find_spec(sys.argv[1]) is None)"
    modules = ("picamera2", "simplejpeg")
    missing = [f"python3-{module}" for module in modules if not host.succeeds(python, "-c", find, module)]
    programs = {"nginx": "nginx-light", "openssl": "openssl"} if host.options.with_nginx else {}
    installed = {program for program in programs if host.succeeds("sh", "-c", f"command -v {program}")}
    return missing + [package for program, package in programs.items() if program not in installed]


def plan_packages(host: Host) -> None:
    """Print what would be installed; nothing if nothing is missing."""
    if missing := missing_packages(host):
        host.say(f"would install {' '.join(missing)}; run again afterwards to see the other steps")


def install_packages(host: Host) -> None:
    missing = missing_packages(host)
    if not missing:
        host.say("packages: all installed")
        return
    names = " ".join(missing)
    host.say(f"installing {names}")
    # Shortly after a boot the system's own upgrades may hold apt's lock.
    install = ("-o", "DPkg::Lock::Timeout=120", "install", "-y", "--no-install-recommends", *missing)
    for command in (("update",), install):
        done = host.run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", *command)
        if done.returncode != 0:
            raise Failed(f"apt could not install {names}: {last_line(done.stderr or done.stdout)}")
    host.say(f"installed {names}")


def check(host: Host) -> None:
    """Print what the host has. Raises Failed, with the remedy, if the portal could not run."""
    if not host.path("run/systemd/system").is_dir():
        raise Failed("systemd is not running")
    found = re.match(r"systemd (\d+)", host.run("systemctl", "--version").stdout)
    if (systemd := int(found[1]) if found else 0) < _OLDEST_SYSTEMD:
        raise Failed(f"systemd {systemd} is too old: {_OLDEST_SYSTEMD} or newer is required")
    if names := " ".join(missing_packages(host)):
        raise Failed(f"missing: {names}. Run again with --install-packages, or on the host: sudo apt install {names}")
    python = python_path(host)
    version = host.run(python, "-V").stdout
    if not host.succeeds(python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"):
        raise Failed(f"{python} is {version}; 3.11 or newer is required")
    inventory = take_inventory(host, needs_picamera2=True)
    listed = ", ".join(f"{number} {model}" for number, (model, _) in inventory.cameras.items()) or "none"
    system = re.search(r'(?m)^PRETTY_NAME="?(.*?)"?$', read_text(host.path("etc/os-release")))
    host.say(f"checked: {system[1] if system else '?'}, systemd {systemd}, {version}, cameras: {listed}")
    lines = read_text(host.env_file).splitlines()
    if exports := " ".join(str(at) for at, line in enumerate(lines, 1) if re.match(r"\s*export\s", line)):
        ignored = "systemd ignores lines that begin with `export` and logs them; delete that word"
        host.say(f"{host.env_file}, line {exports}: {ignored}")
    wanted = wanted_cameras(host, inventory)
    for number in wanted:
        if is_masked(host, number):
            raise Failed(f"camera {number} is masked; to use it: sudo systemctl unmask camera-soft-cam@{number}")
    off = [number for number in inventory.cameras if is_kept_off(host, number)]
    for number in off if not host.options.cameras else []:
        host.say(f"camera {number}: disabled on this host and stays off; --cameras {number} enables it")
    for node in host.options.bind.values():
        if node not in ("none", "auto") and not host.path(node).exists():
            raise Failed(f"--bind: {node} does not exist")
    absent = [n for n in wanted if not inventory.camera_id(n) and not inventory.is_switched_off(n)]
    if absent and host.options.cameras:
        numbers, remedy = " ".join(map(str, absent)), f"Check the ribbon, and cam{absent[0]}_id in {host.env_file}"
        raise Failed(f"camera {numbers} not found; found: {listed}. {remedy}")
    if not wanted and off:
        raise Failed("every camera of this host is disabled: name those to use with --cameras")
    if not wanted:
        raise Failed(
            "no camera found. Check the ribbon; try: rpicam-hello --list-cameras. For the pattern camera, a moving "
            f"test image: --cameras 0, and cam0_id=pattern in {host.env_file}; for the portal without a camera: "
            "CAMERA_ENABLED=off"
        )
