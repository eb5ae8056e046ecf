"""The way back: what is recorded before anything is changed, and how it is restored.

The folder `pending` is the rollback point of a deployment in progress. It stays if the deployment is cut short (power
failure, SIGKILL); the next deployment or rollback then restores it first. `changed` records, for --rollback, how the
last switch changed the host's own files: `before` and `after`. No thread here.
"""

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path

from deploy import files, instances, releases
from deploy.cameras import Inventory, enabled_instances, take_inventory
from deploy.system import Failed, Host, instance, read_text

_UNITS = "etc/systemd/system"
# What belongs to this host: another Python, bindings, which instances are enabled.
_HOST_FILES = (
    f"{_UNITS}/camera-soft-cam@.service.d/python.conf",
    f"{_UNITS}/camera-soft-cam@*.service.d/binding.conf",
    f"{_UNITS}/*.wants/camera-soft-cam@*.service",
)
_ALL_FILES = (
    *_HOST_FILES,
    f"{_UNITS}/camera-soft-cam@.service",
    "etc/udev/rules.d/70-camera-soft-cam.rules",
    "etc/camera-streamer/camera-soft-stream.env",
    "opt/camera-soft-stream/shipped/*",
    "opt/camera-soft-stream/current",
)


def _names(folder: Path, patterns: Sequence[str]) -> set[Path]:
    return {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern)}


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        files.link(target, str(source.readlink()))
    else:
        files.write(target, source.read_bytes(), source.stat().st_mode & 0o777)


def save(source: Path, target: Path, patterns: Sequence[str] = _HOST_FILES) -> None:
    """Copies the matching files below `source` to the new folder `target`, which only root can enter."""
    target.mkdir(mode=0o700, parents=True)
    for name in _names(source, patterns):
        _copy(source / name, target / name)


def _is_same(first: Path, second: Path) -> bool:
    """Whether both are missing, the same link, or files with the same content."""
    if first.is_symlink() or second.is_symlink():
        return first.is_symlink() and second.is_symlink() and first.readlink() == second.readlink()
    if first.exists() and second.exists():
        return filecmp.cmp(first, second, shallow=False)
    return first.exists() == second.exists()


def _changed_names(host: Host, before: Path, patterns: Sequence[str] = _ALL_FILES) -> list[Path]:
    names = _names(before, patterns) | _names(host.root, patterns)
    return sorted(name for name in names if not _is_same(before / name, host.root / name))


def restore(host: Host, before: Path, patterns: Sequence[str] = _ALL_FILES, after: Path | None = None) -> bool:
    """Restores the files from `before`; with `after`, only those unchanged since. Whether any changed.

    A settings file that was edited since it was shipped stays. A file that cannot be restored is reported.
    """
    has_changed = False
    for name in _changed_names(host, before, patterns):
        saved, current = before / name, host.root / name
        if after is not None and not _is_same(after / name, current):
            continue
        if current == host.env_file and files.is_edited(host, current):
            continue
        has_changed = True
        try:
            if saved.exists() or saved.is_symlink():
                _copy(saved, current)
            else:
                current.unlink(missing_ok=True)
                if current.parent not in (host.units, host.rules.parent) and not any(current.parent.iterdir()):
                    current.parent.rmdir()
            if current == host.rules:
                releases.reload_udev(host)
        except (OSError, Failed) as error:
            host.say(f"could not restore {current}: {error}")
    return has_changed


# --- The rollback point of a deployment


def save_rollback_point(host: Host, release: str, numbers: Sequence[int]) -> None:
    """Records the state before a change; `release` is empty before the first installation."""
    point = host.pending.with_name("pending.new")
    shutil.rmtree(point, ignore_errors=True)
    try:
        save(host.root, point / "files", _ALL_FILES)
        active = [number for number in numbers if host.is_active(instance(number))]
        for name, lines in (("release", [release]), ("numbers", numbers), ("active", active)):
            (point / name).write_text("".join(f"{line}\n" for line in lines))
        point.chmod(0o700)
        point.rename(host.pending)
    except OSError:
        shutil.rmtree(point, ignore_errors=True)
        raise


def forget_rollback_point(host: Host) -> None:
    done = host.pending.with_name("pending.done")
    shutil.rmtree(done, ignore_errors=True)
    if host.pending.is_dir():
        host.pending.rename(done)  # in one step, so that a half-deleted folder is never taken for a rollback point
    shutil.rmtree(done, ignore_errors=True)


def has_changes(host: Host) -> bool:
    """Whether anything differs from the rollback point."""
    return bool(_changed_names(host, host.pending / "files"))


def remember_change(host: Host) -> None:
    """Records for --rollback how this switch changed the host's own files; if it cannot, a rollback keeps them."""
    shutil.rmtree(host.top / "changed", ignore_errors=True)
    try:
        save(host.pending / "files", host.top / "changed/before")
        save(host.root, host.top / "changed/after")
    except OSError:
        shutil.rmtree(host.top / "changed", ignore_errors=True)


def pending_release(host: Host) -> str:
    return read_text(host.pending / "release").strip()


def roll_back(host: Host, before: str, inventory: Inventory, numbers: Sequence[int]) -> bool:
    """Restores the rollback point and starts the instances that ran or were enabled before; whether they work."""
    active = read_text(host.pending / "active").split()
    used = [n for n in numbers if before and (str(n) in active or _is_enabled_in(host.pending / "files", n))]
    for number in numbers:
        if number not in used:
            host.run("systemctl", "stop", instance(number))
    is_forced = restore(host, host.pending / "files")
    host.run("systemctl", "daemon-reload")
    works = instances.start(host, before, inventory, used, is_forced=is_forced)
    if works:
        forget_rollback_point(host)
    return works


def _is_enabled_in(folder: Path, number: int) -> bool:
    return any(link.name == instance(number) for link in folder.glob(f"{_UNITS}/*.wants/*"))


def recover_interrupted(host: Host) -> bool:
    """Rolls back a deployment that was interrupted; whether there was one."""
    for name in ("pending.new", "pending.done"):
        shutil.rmtree(host.top / name, ignore_errors=True)
    if not host.pending.is_dir():
        return False
    before = pending_release(host)
    if not (host.pending / "files").is_dir() or (before and not host.release(before).is_dir()):
        forget_rollback_point(host)
        return False
    host.say(f"the previous deployment was interrupted; rolling back to {before or 'the state before it'} first")
    inventory = take_inventory(host)
    numbers = [int(line) for line in read_text(host.pending / "numbers").split()]
    for number in numbers:
        host.run("systemctl", "stop", instance(number))
    if not roll_back(host, before, inventory, numbers):
        host.say(f"{before} does not work either")
    forget_rollback_point(host)
    return True


# --- The command


def roll_back_release(host: Host) -> None:
    """Switches to the previous release. Raises Failed, with everything as before, if that does not work."""
    if recover_interrupted(host):
        current = releases.linked(host, "current")
        host.say(f"done: {f'release {current}' if current else 'no release is in use'}")
        return
    before, previous = releases.linked(host, "current"), _require_previous(host)
    inventory = take_inventory(host)
    were_enabled = enabled_instances(host)
    save_rollback_point(host, before, were_enabled)
    # What came with this release (a Python, a binding, a camera) is restored too, unless the owner changed it since.
    changed = host.top / "changed"
    is_forced = changed.is_dir() and restore(host, changed / "before", _HOST_FILES, changed / "after")
    numbers = enabled_instances(host)
    for number in sorted({*were_enabled} - {*numbers}):
        host.say(f"camera {number}: not enabled before release {before}, stopping")
        host.run("systemctl", "stop", instance(number))
    try:
        releases.activate(host, previous)
        host.require("systemctl", "daemon-reload")
        works = instances.start(host, previous, inventory, numbers, is_forced=is_forced)
    except (OSError, Failed) as error:
        host.say(f"release {previous} could not be activated: {error}")
        works = False
    if not works:
        roll_back(host, before, inventory, were_enabled)
        forget_rollback_point(host)
        raise Failed(f"release {previous} does not work; {before} stays")
    remember_change(host)
    releases.switch_link(host, before, "previous")
    forget_rollback_point(host)
    host.say(f"done: release {previous}, previous release {before}")


def _require_previous(host: Host) -> str:
    previous = releases.linked(host, "previous")
    if not previous or not host.release(previous).is_dir():
        raise Failed(f"no release before {releases.linked(host, 'current') or 'none'}")
    return previous


def plan_rollback(host: Host) -> None:
    before = releases.linked(host, "current")
    if host.pending.is_dir():
        before = pending_release(host)
        host.say(f"a deployment is running or was interrupted; if so, would roll back to {before or 'nothing'} only")
        return
    host.say(f"would switch back from {before or 'nothing'} to release {_require_previous(host)}")
    changed = host.top / "changed"
    for number in enabled_instances(host):
        if _is_enabled_in(changed / "after", number) and not _is_enabled_in(changed / "before", number):
            host.say(f"would stop {instance(number)}, which was not enabled before release {before}")
        else:
            host.say(f"would restart {instance(number)}")
