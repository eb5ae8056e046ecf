#!/usr/bin/env python3
"""The command `camera-soft-stream` of the Debian package: enables, disables and lists cameras, and shows passwords.

The package has the same instances, settings and files as a deployment by deploy.sh, so this is a thin layer over its
parts. The whole program runs in one thread.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent  # /usr/share/camera-soft-stream
sys.path.insert(0, str(HERE))

from deploy import instances, nginx  # noqa: E402
from deploy.cameras import enabled_instances, is_masked, take_inventory  # noqa: E402
from deploy.system import Failed, Host, Options, instance, read_text  # noqa: E402

_KEYS = re.compile(r"(?mi)^\s*((?:CAMERA|cam\d+)_(?:API|VIEW)_KEY)\s*=\s*(\S.*?)\s*$")
_LAST = 99  # as of the settings cam<N>_


class PackagedHost(Host):
    """This machine. Its only release is the folder with this program."""

    def release(self, name: str) -> Path:  # noqa: ARG002
        return HERE


def enable(host: Host, numbers: Sequence[int]) -> None:
    """Enable and start these cameras, and wait until each delivers a picture. Raises Failed if one does not."""
    for number in numbers:
        if is_masked(host, number):
            raise Failed(f"camera {number} is masked; to use it: sudo systemctl unmask camera-soft-cam@{number}")
    inventory = take_inventory(host)
    instances.preflight(host, "", numbers)
    if host.options.with_nginx:
        nginx.preflight(host, numbers)
    for number in numbers:
        instances.bind(host, number, inventory)
    host.run("systemctl", "daemon-reload", check=True)
    host.run("systemctl", "--quiet", "reenable", *map(instance, numbers), check=True)
    if not instances.start(host, "", numbers, required=numbers):
        raise Failed("enabled, but it does not work: see above")
    if host.options.with_nginx:
        nginx.install_sites(host, "", numbers)
        for number in numbers:
            host.say(f"camera {number}: open {nginx.public_url(host, number)}")


def disable(host: Host, numbers: Iterable[int]) -> None:
    """Stop these cameras, now and at the next boot."""
    for number in numbers:
        host.run("systemctl", "--quiet", "disable", "--now", instance(number), check=True)
        host.say(f"camera {number}: stopped and disabled")


def list_cameras(host: Host) -> None:
    """Print the cameras that Picamera2 finds, and those that are enabled."""
    inventory = take_inventory(host)
    enabled = enabled_instances(host)
    for number in sorted({*inventory.cameras, *enabled}):
        model, camera_id = inventory.cameras.get(number, ("no camera", inventory.values.get(f"cam{number}_id", "")))
        state = host.run("systemctl", "is-active", instance(number)).stdout
        is_enabled = "enabled" if number in enabled else "disabled"
        host.say(f"{number}: {model} {camera_id}".rstrip() + f": {is_enabled}, {state}")
    if not inventory.cameras:
        host.say("no camera found. Check the ribbon; try: rpicam-hello --list-cameras")


def show_passwords(host: Host) -> None:
    """Print the password of nginx and the keys in the settings. Raises Failed if there is none."""
    found = [(str(host.nginx_password), "user camera", word) for word in read_text(host.nginx_password).split()]
    for file in (host.env_file, host.rtsp_file):
        found += [(str(file), name, value.strip("'\"")) for name, value in _KEYS.findall(read_text(file))]
    if not found:
        raise Failed(
            f"no password and no key is set: CAMERA_API_KEY in {host.env_file}, "
            "or a password by nginx: camera-soft-stream enable 0 --with-nginx"
        )
    for path, name, value in found:
        host.say(f"{name}: {value}  ({path})")


def _number(text: str) -> int:
    if not re.fullmatch(rf"[0-9]{{1,{len(str(_LAST))}}}", text):
        raise argparse.ArgumentTypeError(f"must be the number of a camera, 0 to {_LAST}")
    return int(text)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="camera-soft-stream", description="Cameras of Soft Stream, as services.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, meaning in (("enable", "start cameras, now and at each boot"), ("disable", "stop cameras")):
        command = commands.add_parser(name, help=meaning)
        command.add_argument("numbers", metavar="N", nargs="+", type=_number)
        if name == "enable":
            with_nginx = "serve them at port 8081 + N by nginx, with a password"
            command.add_argument("--with-nginx", action="store_true", help=with_nginx)
    commands.add_parser("list", help="list the cameras and whether they are enabled")
    commands.add_parser("password", help="show the password of nginx and the keys in the settings")
    arguments = parser.parse_args(argv)
    host = PackagedHost(Options(with_nginx=getattr(arguments, "with_nginx", False)))
    try:
        if os.geteuid() != 0:
            raise Failed("must be run as root: sudo camera-soft-stream …")
        if host.unit.exists():
            raise Failed(f"{host.unit} is of deploy.sh, which manages the cameras here; ./deploy.sh --uninstall first")
        match arguments.command:
            case "enable":
                enable(host, sorted({*arguments.numbers}))
            case "disable":
                disable(host, sorted({*arguments.numbers}))
            case "list":
                list_cameras(host)
            case _:
                show_passwords(host)
    except Failed as error:
        print(f"camera-soft-stream: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
