"""Rolling back: what is recorded before anything is changed, and how it is restored.

The folder `pending` is the rollback point of a deployment in progress: the files as they were (`before`), and the
instances that ran (`active`). It stays if the deployment is cut short (power failure, SIGKILL); the next deployment or
rollback then restores it first. After a switch to another release it becomes the folder `changed`, which records for
--rollback how the switch changed the host's own files: `before` and `after`.
"""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from deploy import files, instances, releases
from deploy.cameras import enabled_instances
from deploy.system import Failed, Host, instance, read_text

_UNITS = "etc/systemd/system"
# What belongs to this host: another Python, bindings, which instances are enabled.
_HOST_FILES = (
    f"{_UNITS}/camera-soft-cam@.service.d/python.conf",
    f"{_UNITS}/camera-soft-cam@*.service.d/binding.conf",
    f"{_UNITS}/*.wants/camera-soft-cam@*.service",
)
_CURRENT = "opt/camera-soft-stream/current"
_ALL_FILES = (
    *_HOST_FILES,
    f"{_UNITS}/camera-soft-cam@.service",
    "etc/udev/rules.d/70-camera-soft-cam.rules",
    "etc/camera-streamer/camera-soft-stream.env",
    "etc/camera-streamer/.shipped",
    "opt/camera-soft-stream/previous",
    _CURRENT,
)


def _names(folder: Path, patterns: Sequence[str]) -> set[Path]:
    return {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern)}


def _content(path: Path) -> str | bytes | None:
    """A link's target, a file's content, or None if it is missing."""
    if path.is_symlink():
        return str(path.readlink())
    return path.read_bytes() if path.exists() else None


def _copy(source: Path, target: Path) -> None:
    """Makes `target` like `source`, also if that is missing; then a folder that is empty without it is removed."""
    content = _content(source)
    if isinstance(content, str):
        files.link(target, content)
    elif content is not None:
        files.write(target, content, source.stat().st_mode & 0o777)
    else:
        target.unlink(missing_ok=True)
        if target.parent.name not in ("system", "rules.d"):
            with suppress(OSError):
                target.parent.rmdir()


def _save(host: Host, target: Path, patterns: Sequence[str]) -> None:
    for name in _names(host.root, patterns):
        _copy(host.root / name, target / name)


def changed_names(host: Host, before: Path, patterns: Sequence[str] = _ALL_FILES) -> list[Path]:
    """The files that differ from those in `before`, by their paths below the root."""
    names = _names(before, patterns) | _names(host.root, patterns)
    return sorted(name for name in names if _content(before / name) != _content(host.root / name))


def _restore(host: Host, before: Path, patterns: Sequence[str], after: Path | None = None) -> bool:
    """Restores the files from `before`; with `after`, only those unchanged since. Whether any changed.

    A settings file that was edited since it was shipped stays. A file that cannot be restored is reported.
    """
    kept = [host.env_file] if files.is_edited(host, host.env_file) else []
    names = [
        name
        for name in changed_names(host, before, patterns)
        if host.root / name not in kept and (after is None or _content(after / name) == _content(host.root / name))
    ]
    for name in names:
        try:
            _copy(before / name, host.root / name)
            if host.root / name == host.rules:
                releases.reload_udev(host)
        except (OSError, Failed) as error:
            host.say(f"could not restore {host.root / name}: {error}")
    return names != []


def save_rollback_point(host: Host, numbers: Iterable[int]) -> None:
    """Records the state of the host, and which of these instances run."""
    point = host.pending.with_name("pending.new")
    shutil.rmtree(point, ignore_errors=True)
    try:
        point.mkdir(mode=0o700, parents=True)
        (point / "before").mkdir()
        _save(host, point / "before", _ALL_FILES)
        active = [str(number) for number in numbers if host.is_active(instance(number))]
        (point / "active").write_text(" ".join(active))
        point.rename(host.pending)
    except OSError:
        shutil.rmtree(point, ignore_errors=True)
        raise


def forget_rollback_point(host: Host) -> None:
    done = host.pending.with_name("pending.new")
    shutil.rmtree(done, ignore_errors=True)
    host.pending.rename(done)  # in one step, so that a half-deleted folder is never taken for a rollback point
    shutil.rmtree(done, ignore_errors=True)


def remember_change(host: Host) -> None:
    """Makes the rollback point the record for --rollback; if that fails, a rollback keeps the host's own files."""
    changed = host.top / "changed"
    shutil.rmtree(changed, ignore_errors=True)
    try:
        _save(host, host.pending / "after", _HOST_FILES)
        host.pending.rename(changed)
    except OSError:
        forget_rollback_point(host)
    shutil.rmtree(changed / "before/etc/camera-streamer", ignore_errors=True)  # the settings may include keys


def pending_release(host: Host) -> str:
    return releases.linked(host, f"pending/before/{_CURRENT}")


def roll_back(host: Host) -> bool:
    """Restores the rollback point and starts the instances that ran or were enabled before; whether they work."""
    before = pending_release(host)
    active = {int(number) for number in read_text(host.pending / "active").split()}
    used = sorted(active | {*enabled_instances(host, host.pending / "before" / _UNITS)}) if before else []
    for number in enabled_instances(host):
        if number not in used:
            host.run("systemctl", "stop", instance(number))
    is_forced = _restore(host, host.pending / "before", _ALL_FILES)
    host.run("systemctl", "daemon-reload")
    works = instances.start(host, before, used, is_forced=is_forced)
    forget_rollback_point(host)
    return works


def recover_interrupted(host: Host) -> bool:
    """Rolls back a deployment that was interrupted; whether there was one."""
    if not host.pending.is_dir():
        return False
    before = pending_release(host)
    if not (host.pending / "before").is_dir() or (before and not host.release(before).is_dir()):
        forget_rollback_point(host)
        return False
    host.say(f"the previous deployment was interrupted; rolling back to {before or 'the state before it'} first")
    if not roll_back(host):
        host.say(f"{before} does not work either")
    return True


def roll_back_release(host: Host) -> None:
    """Switches to the previous release. Raises Failed, with everything as before, if that does not work."""
    is_done = recover_interrupted(host)
    before = releases.linked(host, "current")
    if is_done:
        host.say(f"done: {f'release {before}' if before else 'no release is in use'}")
        return
    previous = _require_previous(host)
    were_enabled = enabled_instances(host)
    save_rollback_point(host, were_enabled)
    # What came with this release (a Python, a binding, a camera) is restored too, unless the owner changed it since.
    is_forced = _restore(host, host.top / "changed/before", _HOST_FILES, host.top / "changed/after")
    numbers = enabled_instances(host)
    for number in were_enabled:
        if number not in numbers:
            host.say(f"camera {number}: not enabled before release {before}, stopping")
            host.run("systemctl", "stop", instance(number))
    try:
        releases.activate(host, previous)
        host.run("systemctl", "daemon-reload", check=True)
        works = instances.start(host, previous, numbers, is_forced=is_forced)
    except (OSError, Failed) as error:
        host.say(f"release {previous} could not be activated: {error}")
        works = False
    if not works:
        roll_back(host)
        raise Failed(f"release {previous} does not work; {before} stays")
    files.link(host.top / "previous", f"releases/{before}")
    remember_change(host)
    host.say(f"done: release {previous}, previous release {before}")


def _require_previous(host: Host) -> str:
    previous = releases.linked(host, "previous")
    if not previous or not host.release(previous).is_dir():
        raise Failed(f"no release before {releases.linked(host, 'current') or 'none'}")
    return previous


def plan_rollback(host: Host) -> None:
    if host.pending.is_dir():
        before = pending_release(host) or "nothing"
        host.say(f"a deployment is running or was interrupted; if so, would roll back to {before} only")
        return
    before = releases.linked(host, "current")
    host.say(f"would switch back from {before or 'nothing'} to release {_require_previous(host)}")
    earlier, later = (enabled_instances(host, host.top / "changed" / part / _UNITS) for part in ("before", "after"))
    for number in enabled_instances(host):
        if number in later and number not in earlier:
            host.say(f"would stop {instance(number)}, which was not enabled before release {before}")
        else:
            host.say(f"would restart {instance(number)}")
