#!/usr/bin/env python3
"""Installs, updates, rolls back and removes Soft Stream on the host it runs on, as root; started by deploy.sh.

Standard library only, Python 3.11 or newer. It is sent with each deployment, so the newest version runs, also before
anything is installed. Values of the settings file are read by systemd, for the portal, for healthcheck.py and for the
queries in cameras.py. The whole program runs in one thread.

A command that changes the host runs to its end even if the connection is lost. If it is cut short (power failure,
SIGKILL), the next one rolls back first (rollback.py).
"""

import argparse
import fcntl
import os
import re
import shutil
import signal
import sys
import syslog
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from deploy import addresses, cameras, diagnosis, files, instances, nginx, recordings, releases, rollback, rtsp
from deploy.cameras import Inventory, enabled_instances, take_inventory, wanted_cameras
from deploy.system import INSTANCES, Failed, Host, Options, instance, last_line, read_text

_KEPT = "/etc/camera-streamer (settings), /var/lib/private/camera-soft-cam (saved controls)"
_LOCK_TIMEOUT_S = 600


def install(host: Host, release: str, folder: str = "") -> None:
    """Switch to a release. Raises Failed, with everything as before, if an instance does not work with it."""
    releases.adopt(host, release, folder)
    rollback.recover_interrupted(host)
    inventory = take_inventory(host)
    requested = wanted_cameras(host, inventory)
    # All instances run the current release, so all are restarted and checked.
    numbers = sorted({*requested, *enabled_instances(host)})
    before = releases.linked(host, "current")
    for number in numbers:
        if number not in requested:
            remedy = f"to stop it: sudo systemctl disable --now camera-soft-cam@{number}"
            host.say(f"camera {number}: enabled before, continues with the same release ({remedy})")
    try:
        instances.preflight(host, release, numbers)
        recordings.preflight(host, inventory, numbers)
        if host.options.with_nginx:
            nginx.preflight(host, requested)
        if host.options.with_rtsp:
            rtsp.preflight(host, inventory, requested)
        required = _required_pictures(host, release, before, numbers)
        point = rollback.save_point(host, numbers)
    except (instances.BrokenRelease, OSError) as error:
        if release != before:  # the next deployment copies it again
            releases.drop(host, release)
        raise error if isinstance(error, Failed) else Failed(f"nothing was changed: {error}") from error
    try:
        if host.options.with_rtsp:
            rtsp.write_settings(host, inventory, requested)
        _put_in_place(host, release, before, inventory, numbers)
        if not instances.start(host, release, numbers, required=required):
            problem = f"release {release} does not work"
        else:
            problem = rtsp.find_problem(host, release, requested) if host.options.with_rtsp else ""
    except (OSError, Failed) as error:
        problem = f"settings or units of release {release} could not be written: {error}"
    if problem:
        raise Failed(f"{problem}{_undo(host, release, point)}")
    if before in ("", release):
        rollback.forget_point(host)
    else:
        rollback.finish_switch(host, point)
    if host.options.with_rtsp:
        rtsp.report(host, inventory, requested)
    if host.options.with_nginx:
        nginx.install_sites(host, release, requested, before=before)
    nginx.renew_secrets(host, release, numbers)
    releases.prune(host)
    addresses.report(host, release, inventory, numbers)
    note = ", unchanged" if before == release else f", previous release {before}" if before else ""
    host.say(f"done: release {release}{note}")


def _required_pictures(host: Host, release: str, before: str, numbers: Sequence[int]) -> list[int]:
    """The cameras that must deliver a picture: those that do now, or all that start if nothing ran here before."""
    running = [number for number in numbers if host.is_active(instance(number))]
    if not before:
        return [number for number in numbers if number not in running]
    if before == release:
        return []
    checks = {number: instances.healthcheck(host, before, "health", number, "5") for number in running}
    return [number for number, check in checks.items() if check.returncode == 0]


def _put_in_place(host: Host, release: str, before: str, inventory: Inventory, numbers: Sequence[int]) -> None:
    """Write everything that must be there before the instances start, and enable them."""
    name = "env/camera-soft-stream.env"
    earlier = read_text(host.release(before) / name) if before else ""
    files.ship(host, (host.release(release) / name).read_bytes(), host.env_file, 0o600, earlier=earlier)
    if host.env_file.stat().st_mode & 0o777 != 0o600:  # chmod alone makes it newer than the instances
        host.env_file.chmod(0o600)
    releases.write_python_drop_in(host)
    releases.activate(host, release)
    for number in numbers:
        instances.bind(host, number, inventory)
        recordings.prepare(host, inventory, number)
    host.run("systemctl", "daemon-reload", check=True)
    # Again, since another device may start the instance now.
    units = [instance(number) for number in numbers]
    if not host.succeeds("systemctl", "--quiet", "reenable", *units):
        host.run("systemctl", "--quiet", "enable", *units, check=True)


def _undo(host: Host, release: str, point: rollback.Point) -> str:
    """Roll back a failed installation; how the message about it ends."""
    before = point.release
    if before == release and not rollback.changes_since(host, point):
        rollback.forget_point(host)
        return " any more, with this host and its settings as they are; it was not changed"
    if before:
        host.say(f"rolling back to {before}")
    works = rollback.roll_back(host, point)
    if before != release:
        releases.drop(host, release)
    if not before:
        return ", and no earlier release exists: everything of it was removed"
    if not works:
        return f", and {before} does not work either"
    if before == release:
        return " with these options; rolled back to the options before"
    return f"; rolled back to {before}"


def plan_install(host: Host, release: str) -> None:
    inventory = take_inventory(host)
    numbers = wanted_cameras(host, inventory)
    before = releases.linked(host, "current")
    if point := rollback.pending_point(host):
        before = point.release
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
        with suppress(instances.BrokenRelease):  # the new one is not on the host yet, and may work
            instances.preflight(host, before, numbers)
    recordings.preflight(host, inventory, numbers)
    recordings.plan(host, inventory, numbers)
    if host.options.with_nginx and host.succeeds("sh", "-c", "command -v nginx"):
        nginx.preflight(host, numbers)
    if host.options.with_rtsp:
        rtsp.preflight(host, inventory, numbers)
    for number in numbers:
        host.say(f"would enable and start {instance(number)}")
        if host.options.with_nginx:
            host.say(f"would serve camera {number} at port {nginx.FIRST_PORT + number} by nginx, with a password")
    if host.options.with_rtsp:
        rtsp.plan(host, inventory, numbers)
    for number in enabled_instances(host):
        if number not in numbers:
            host.say(f"would continue camera {number}, enabled before, with the same release")


def uninstall(host: Host) -> None:
    """Remove everything but settings, saved controls and the owner's drop-ins."""
    for number in enabled_instances(host):
        host.run("systemctl", "--quiet", "disable", "--now", instance(number))
    for action in ("stop", "reset-failed"):
        host.run("systemctl", action, INSTANCES)
    masked = host.units.glob(f"*.wants/{INSTANCES}")  # `disable` ignores these
    names = ("binding.conf", "recordings.conf")
    drop_ins = [path for name in names for path in host.units.glob(f"camera-soft-cam@*.service.d/{name}")]
    for path in (*masked, *drop_ins, host.unit, host.python_drop_in, host.rules):
        files.remove(path)
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "reset-failed", INSTANCES)
    nginx.remove_sites(host)
    rtsp.remove(host)
    for folder in (host.top, *host.runtime):
        shutil.rmtree(folder, ignore_errors=True)
    own = " ".join(map(str, sorted(host.units.glob("camera-soft-cam@*.service.d"))))
    host.say(f"done: uninstalled. Kept: {_KEPT}" + (f", your own {own}" if own else ""))


def plan_uninstall(host: Host) -> None:
    for number in enabled_instances(host):
        host.say(f"would stop and disable {instance(number)}")
    host.say(f"would remove {host.unit}, {host.rules}, {host.top}, nginx's sites and password, {host.rtsp_file}")
    host.say(f"would keep {_KEPT}, your own drop-ins")


def say(line: str) -> None:
    """Print a line. A closed output is ignored."""
    with suppress(OSError):
        os.write(1, f"{line}\n".encode())


def say_and_log(line: str) -> None:
    """Print a line, and log it to the host's journal."""
    say(line)
    syslog.openlog("camera-soft-stream")
    syslog.syslog(syslog.LOG_INFO, line.replace("\n", " "))


def detach() -> None:
    """From here on neither Ctrl+C nor a lost connection ends the program."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def lock(host: Host) -> int:
    """Wait until no other deployment changes this host. The lock is held until the descriptor is closed."""
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


def run_command(host: Host, *words: str) -> None:
    """Run a command with its arguments; `plan` and a command print what it would do."""
    commands: dict[str, Callable[..., None]] = {
        "check": cameras.check,
        "diagnose": diagnosis.diagnose,
        "packages": cameras.install_packages,
        "incoming": releases.make_incoming,
        "discard": releases.discard,
        "install": install,
        "rollback": rollback.roll_back_release,
        "uninstall": uninstall,
        "plan packages": cameras.plan_packages,
        "plan install": plan_install,
        "plan rollback": rollback.plan_rollback,
        "plan uninstall": plan_uninstall,
    }
    name_length = 2 if words[0] == "plan" else 1
    commands[" ".join(words[:name_length])](host, *words[name_length:])


def read_arguments(argv: Sequence[str]) -> tuple[Options, list[str]]:
    """Options, and the command with its arguments. deploy.sh has checked the values."""
    parser = argparse.ArgumentParser(prog="deploy.host", description="Install Soft Stream on this host.")
    for name in ("--python", "--cameras", "--bind", "--address"):
        parser.add_argument(name, default="")
    for name in ("--with-nginx", "--with-rtsp"):
        parser.add_argument(name, action="store_true")
    parser.add_argument("--start-timeout", type=float, default=Options().start_timeout_s, help="seconds")
    parser.add_argument("command", nargs="+", help="as in run_command()")
    given = parser.parse_args(argv)
    numbers = tuple(map(int, re.findall(r"\d+", given.cameras)))
    bind = {int(number): node for number, node in re.findall(r"(\d+)=([^,]+)", given.bind)}
    options = Options(
        python=given.python,
        cameras=numbers,
        bind=bind,
        address=given.address,
        with_nginx=given.with_nginx,
        with_rtsp=given.with_rtsp,
        start_timeout_s=given.start_timeout,
    )
    return options, given.command


def main(argv: Sequence[str]) -> int:
    os.environ.update(LC_ALL="C", PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    os.umask(0o022)
    os.chdir("/")  # a Python started below looks for modules in the working directory first
    options, command = read_arguments(argv)
    changes_host = command[0] in ("packages", "install", "rollback", "uninstall")
    host = Host(options, say=say_and_log if changes_host else say)
    try:
        if os.geteuid() != 0:
            raise Failed("must run as root")
        if changes_host:
            lock(host)
            detach()
        run_command(host, *command)
    except Failed as error:
        host.say(f"FAILED: {error}")
        return 1
    except Exception as error:  # noqa: BLE001 - the edge: every end has a message
        trace = traceback.extract_tb(error.__traceback__)[-1]
        reason = last_line(str(error)) or type(error).__name__
        host.say(f"FAILED: {reason} ({Path(trace.filename).name}:{trace.lineno})")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
