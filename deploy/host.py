#!/usr/bin/env python3
"""Installs, updates, rolls back and removes Soft Stream on the host it runs on, as root; deploy.sh runs it over SSH.

Standard library only, Python 3.11 or newer. It comes with each deployment, so the newest version runs, also before
anything is installed. Values of the settings file are read by systemd, for the portal, for healthcheck.py and for the
queries in cameras.py.

A command that changes the host runs to its end even if the connection is lost. If it is cut short (power failure,
SIGKILL), the next one rolls back first (rollback.py). One thread.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy import files, instances, nginx, releases, rollback
from deploy.cameras import (
    Inventory,
    check,
    enabled_instances,
    install_packages,
    plan_packages,
    take_inventory,
    wanted_cameras,
)
from deploy.system import Failed, Host, Options, instance, last_line

_JOURNAL = "/run/systemd/journal/socket"
_IDENTIFIER = "camera-soft-stream"
_LOCK_TIMEOUT_S = 600


@dataclass
class Output:
    """Prints lines; once `is_logged`, they also go to the journal. A closed output is ignored."""

    is_logged: bool = False
    journal: str = _JOURNAL

    def __call__(self, line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(1, f"{line}\n".encode())
        if self.is_logged:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
                journal.connect(self.journal)
                text = line.replace("\n", " ")
                journal.send(f"SYSLOG_IDENTIFIER={_IDENTIFIER}\nPRIORITY=6\nMESSAGE={text}\n".encode())


def install(host: Host, release: str, folder: Path | None) -> None:
    """Switches to a release. Raises Failed, with everything as before, if an instance does not work with it."""
    releases.adopt(host, release, folder)
    rollback.recover_interrupted(host)
    inventory = take_inventory(host)
    requested = wanted_cameras(host, inventory.cameras)
    # All instances run the current release, so all are restarted and checked.
    numbers = sorted({*requested, *enabled_instances(host)})
    before = releases.linked(host, "current")
    for number in numbers:
        if number not in requested:
            host.say(
                f"camera {number}: enabled before, continues with the same release "
                f"(to stop it: sudo systemctl disable --now camera-soft-cam@{number})"
            )
    try:
        instances.preflight(host, release, numbers)
    except instances.Unusable as error:
        # A broken release is copied again by the next deployment; settings and ports are not its fault.
        if error.is_release and release != before:
            releases.drop(host, release)
        raise
    if host.options.with_nginx:
        nginx.preflight(host, requested)
    required = _required_pictures(host, release, before, numbers)
    try:
        rollback.save_rollback_point(host, before, numbers)
    except OSError as error:
        if release != before:
            releases.drop(host, release)
        raise Failed(f"nothing was changed: {error}") from error
    problem = ""
    try:
        _put_in_place(host, release, inventory, numbers)
    except (OSError, Failed) as error:
        problem = f"settings or units of release {release} could not be written: {error}"
    else:
        if not instances.start(host, release, inventory, numbers, required=required):
            problem = f"release {release} does not work"
    if problem:
        _undo(host, release, before, inventory, numbers, problem)
    if before and before != release:
        rollback.remember_change(host)
        releases.switch_link(host, before, "previous")
    rollback.forget_rollback_point(host)
    if host.options.with_nginx:
        nginx.install_sites(host, release, requested)
    nginx.renew_keys(host, release, numbers)
    releases.prune(host)
    if before == release:
        host.say(f"done: release {release}, unchanged")
    else:
        host.say(f"done: release {release}{f', previous release {before}' if before else ''}")


def _required_pictures(host: Host, release: str, before: str, numbers: Sequence[int]) -> set[int]:
    """The cameras that must deliver a picture: those that do now, or all that never ran before."""
    required = set()
    for number in numbers:
        if not host.is_active(instance(number)):
            if not before:
                required.add(number)
        elif before not in ("", release) and instances.delivers_picture(host, before, number):
            required.add(number)
    return required


def _put_in_place(host: Host, release: str, inventory: Inventory, numbers: Sequence[int]) -> None:
    """Everything that must be there before the instances start."""
    shipped = (host.release(release) / "env/camera-soft-stream.env").read_bytes()
    files.ship(host, shipped, host.env_file, 0o600, set_names=inventory.set_names)
    if host.env_file.stat().st_mode & 0o777 != 0o600:  # chmod alone makes it newer than the instances
        host.env_file.chmod(0o600)
    releases.write_python_drop_in(host)
    releases.activate(host, release)
    for number in numbers:
        instances.bind(host, number, inventory)
    host.require("systemctl", "daemon-reload")
    # Again, since another device may start the instance now.
    units = [instance(number) for number in numbers]
    if not host.succeeds("systemctl", "--quiet", "reenable", *units):
        host.require("systemctl", "--quiet", "enable", *units)


def _undo(host: Host, release: str, before: str, inventory: Inventory, numbers: Sequence[int], problem: str) -> None:
    """Rolls back a failed installation. Raises Failed with the result."""
    if not before:
        rollback.roll_back(host, before, inventory, numbers)
        releases.drop(host, release)
        raise Failed(f"{problem}, and no earlier release exists: everything of it was removed")
    if before == release and not rollback.has_changes(host):
        rollback.forget_rollback_point(host)
        raise Failed(f"{problem} any more, with this host and its settings as they are; it was not changed")
    host.say(f"rolling back to {before}")
    if not rollback.roll_back(host, before, inventory, numbers):
        rollback.forget_rollback_point(host)
        raise Failed(f"{problem}, and {before} does not work either")
    if before == release:
        raise Failed(f"{problem} with these options; rolled back to the options before")
    releases.drop(host, release)
    raise Failed(f"{problem}; rolled back to {before}")


def plan_install(host: Host, release: str) -> None:
    inventory = take_inventory(host)
    numbers = wanted_cameras(host, inventory.cameras)
    before = releases.linked(host, "current")
    if host.pending.is_dir():
        before = rollback.pending_release(host)
        host.say(f"a deployment is running or was interrupted; if so, would roll back to {before or 'nothing'} first")
    if before == release:
        host.say(f"would keep release {release}, which is in use")
    elif host.release(release).is_dir():
        host.say(f"would switch from {before or 'nothing'} to release {release}, which is on the host")
    else:
        host.say(f"would copy release {release}, and switch to it from {before or 'nothing'}")
    if not host.env_file.exists():
        host.say(f"would install {host.env_file}")
    elif files.is_edited(host, host.env_file):
        host.say(f"would keep {host.env_file}, which was edited")
    else:
        host.say(f"would update {host.env_file}, which was never edited")
    if before and host.release(before).is_dir():
        try:  # with the release in use, as the new one is not on the host yet; if it is broken, the new one may work
            instances.preflight(host, before, numbers)
        except instances.Unusable as error:
            if not error.is_release:
                raise
    if host.options.with_nginx and host.has_program("nginx"):
        nginx.preflight(host, numbers)
    for number in numbers:
        host.say(f"would enable and start {instance(number)}")
        if host.options.with_nginx:
            host.say(f"would serve camera {number} at port {nginx.default_port(number)} by nginx, with a password")
    for number in enabled_instances(host):
        if number not in numbers:
            host.say(f"would continue camera {number}, enabled before, with the same release")


def uninstall(host: Host) -> None:
    """Removes everything but settings, saved controls and the owner's drop-ins."""
    for number in enabled_instances(host):
        host.run("systemctl", "--quiet", "disable", "--now", instance(number))
    for link in [*host.units.glob(f"*.wants/{instances.instance_pattern()}")]:
        link.unlink()  # of masked instances
    for action in ("stop", "reset-failed"):
        host.run("systemctl", action, instances.instance_pattern())
    bindings = host.units.glob("camera-soft-cam@*.service.d/binding.conf")
    for path in (host.unit, host.python_drop_in, host.rules, *bindings):
        path.unlink(missing_ok=True)
    left = []
    for folder in sorted(host.units.glob("camera-soft-cam@*.service.d")):
        if any(folder.iterdir()):
            left.append(str(folder))
        else:
            folder.rmdir()
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "reset-failed", instances.instance_pattern())
    nginx.remove_sites(host)
    shipped = files.shipped_hash(host, host.env_file)
    if shipped and host.env_file.exists():
        files.write_if_changed(files.left_hash(host), f"{shipped}\n".encode())
    shutil.rmtree(host.top, ignore_errors=True)
    own = f", your own {' '.join(left)}" if left else ""
    host.say(f"done: uninstalled. Kept: {_kept(host)}{own}")


def _kept(host: Host) -> str:
    return f"{host.env_dir} (settings), /var/lib/private/camera-soft-cam (saved controls)"


def plan_uninstall(host: Host) -> None:
    for number in enabled_instances(host):
        host.say(f"would stop and disable {instance(number)}")
    host.say(f"would remove {host.unit}, {host.rules}, {host.top}, and nginx's sites and password")
    host.say(f"would keep {_kept(host)}, your own drop-ins")


def detach(output: Output) -> None:
    """From here on neither Ctrl+C nor a lost connection ends the program, and the journal gets its output."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    output.is_logged = True


def lock(host: Host) -> int:
    """Waits until no other deployment changes this host. The lock is held until the descriptor is closed."""
    descriptor = os.open(host.path("run/camera-soft-stream.lock"), os.O_RDWR | os.O_CREAT, 0o600)
    for second in range(_LOCK_TIMEOUT_S):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if second == 0:
                host.say("waiting for another deployment to end")
            host.sleep(1)
    raise Failed("another deployment does not end")


def run_command(host: Host, command: str, arguments: Sequence[str]) -> None:
    name, folder = (*arguments, "", "")[:2]
    commands: dict[str, Callable[[], None]] = {
        "check": lambda: check(host),
        "packages": lambda: install_packages(host),
        "incoming": lambda: releases.make_incoming(host, name),
        "discard": lambda: releases.discard(host, Path(name)),
        "install": lambda: install(host, name, Path(folder) if folder else None),
        "rollback": lambda: rollback.roll_back_release(host),
        "uninstall": lambda: uninstall(host),
        "plan packages": lambda: plan_packages(host),
        "plan install": lambda: plan_install(host, folder),
        "plan rollback": lambda: rollback.plan_rollback(host),
        "plan uninstall": lambda: plan_uninstall(host),
    }
    commands[f"plan {name}" if command == "plan" else command]()


def read_arguments(argv: Sequence[str]) -> tuple[Options, str, list[str]]:
    """Options, command and its arguments. deploy.sh has checked the values."""
    parser = argparse.ArgumentParser(prog="deploy.host", description="Install Soft Stream on this host.")
    parser.add_argument("--python", default="")
    parser.add_argument("--cameras", default="")
    parser.add_argument("--bind", default="")
    parser.add_argument("--with-nginx", action="store_true")
    parser.add_argument("--start-timeout", type=float, default=Options().start_timeout_s, help="seconds")
    commands = ("check", "packages", "incoming", "discard", "install", "rollback", "uninstall", "plan")
    parser.add_argument("command", choices=commands)
    parser.add_argument("arguments", nargs="*", help="release and folder; what to plan: packages, install, …")
    given = parser.parse_args(argv)
    cameras = tuple(int(word) for word in given.cameras.split(",") if word)
    bind = {int(word.partition("=")[0]): word.partition("=")[2] for word in given.bind.split(",") if word}
    return Options(given.python, cameras, bind, given.with_nginx, given.start_timeout), given.command, given.arguments


def main(argv: Sequence[str]) -> int:
    os.environ.update(LC_ALL="C", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    os.umask(0o022)
    os.chdir("/")  # a Python started below looks for modules in the working directory first
    options, command, arguments = read_arguments(argv)
    output = Output()
    host = Host(options, say=output)
    try:
        if os.geteuid() != 0:
            raise Failed("must run as root")
        if command in ("packages", "install", "rollback", "uninstall"):
            lock(host)
            detach(output)
        run_command(host, command, arguments)
    except Failed as error:
        output(f"FAILED: {error}")
        return 1
    except Exception as error:  # noqa: BLE001 - the edge: every end has a message
        trace = traceback.extract_tb(error.__traceback__)[-1]
        output(f"FAILED: {last_line(str(error)) or type(error).__name__} ({Path(trace.filename).name}:{trace.lineno})")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
