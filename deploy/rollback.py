"""Rolling back: what is recorded before anything is changed, and how it is restored.

`pending.json` is the rollback point of a deployment in progress. It stays if the deployment is cut short (power
failure, SIGKILL); the next deployment or rollback then restores it first. After a switch to another release
`changed.json` records for --rollback how the switch changed the host's own files. Each is written in one step. A record
that is damaged or of another version is reported, ignored and replaced by the next one.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy import files, instances, releases
from deploy.cameras import enabled_instances
from deploy.system import Failed, Host, instance, read_text

_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError)  # JSON of any other shape
_OLDER_RECORDS = ("pending", "pending.new", "changed")  # folders with copies of the settings, from earlier versions


@dataclass(frozen=True)
class Point:
    """The state of the host before a deployment."""

    release: str  # empty if there was none
    active: list[int]  # the instances that ran
    files: dict[str, str]  # by their paths: `file` and the content, or `link` and the target

    @classmethod
    def parse(cls, text: str) -> "Point":
        """Raises one of _UNREADABLE unless the text is exactly what `save_point` writes."""
        record = json.loads(text)
        states = {str(name): str(state) for name, state in record["files"].items()}
        point = cls(str(record["release"]), [int(number) for number in record["active"]], states)
        if asdict(point) != record:
            raise ValueError("not a rollback point")
        return point


def pending_point(host: Host) -> Point | None:
    """The state to return to if a deployment is running or was interrupted."""
    text = read_text(host.pending)
    try:
        return Point.parse(text) if text else None
    except _UNREADABLE:
        host.say(f"{host.pending}: damaged or of another version, ignored: nothing is rolled back")
        return None


def save_point(host: Host, numbers: Iterable[int]) -> Point:
    """Record the state of the host, and which of these instances run."""
    active = [number for number in numbers if host.is_active(instance(number))]
    point = Point(releases.linked(host, "current"), active, _read_files(host))
    for name in _OLDER_RECORDS:
        shutil.rmtree(host.top / name, ignore_errors=True)
    files.write(host.pending, json.dumps(asdict(point)).encode(), 0o600)  # the settings may include keys
    return point


def forget_point(host: Host) -> None:
    host.pending.unlink(missing_ok=True)


def _read_files(host: Host) -> dict[str, str]:
    """Every file and link that a switch changes."""
    drop_ins = (f"camera-soft-cam@*.service.d/{name}.conf" for name in ("binding", "recordings"))
    patterns = (*drop_ins, "*.wants/camera-soft-cam@*.service")
    own = [host.python_drop_in, *(path for pattern in patterns for path in host.units.glob(pattern))]
    links = [host.top / "previous", host.top / "current"]
    found = {}
    for path in (*own, host.unit, host.rules, host.env_file, host.rtsp_file, host.shipped, *links):
        if path.is_symlink():
            found[str(path)] = f"link {path.readlink()}"
        elif path.exists():
            found[str(path)] = f"file {path.read_bytes().decode(errors='surrogateescape')}"
    return found


def changes_since(host: Host, point: Point) -> dict[str, tuple[str, str]]:
    """The files that differ: before and now. An empty state is a missing file."""
    before, now = point.files, _read_files(host)
    pairs = {name: (before.get(name, ""), now.get(name, "")) for name in sorted({*before, *now})}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _restore(host: Host, states: Mapping[str, str]) -> None:
    """Restore these files. One that cannot be restored is reported."""
    for name, state in states.items():
        path = Path(name)
        kind, _, content = state.partition(" ")
        try:
            if kind == "link":
                files.link(path, content)
            elif kind == "file":
                mode = 0o600 if path in (host.env_file, host.rtsp_file) else 0o644
                files.write(path, content.encode(errors="surrogateescape"), mode)
            else:
                files.remove(path)
            if path == host.rules:
                releases.reload_udev(host)
        except (OSError, Failed) as error:
            host.say(f"could not restore {name}: {error}")


def roll_back(host: Host, point: Point) -> bool:
    """Restore the rollback point and start the instances that ran or were enabled before; whether they work.

    A settings file that was edited since it was shipped stays.
    """
    used = sorted({*point.active, *enabled_instances(host, point.files)}) if point.release else []
    for number in enabled_instances(host):
        if number not in used:
            host.run("systemctl", "stop", instance(number))
    states = {name: before for name, (before, _) in changes_since(host, point).items()}
    if files.is_edited(host, host.env_file):
        states.pop(str(host.env_file), None)
    _restore(host, states)
    host.run("systemctl", "daemon-reload")
    works = instances.start(host, point.release, used, is_forced=bool(states))
    forget_point(host)
    return works


def recover_interrupted(host: Host) -> bool:
    """Roll back a deployment that was interrupted; whether there was one."""
    point = pending_point(host)
    if point is None:
        return False
    if point.release and not host.release(point.release).is_dir():
        forget_point(host)
        return False
    to = point.release or "the state before it"
    host.say(f"the previous deployment was interrupted; rolling back to {to} first")
    if not roll_back(host, point):
        host.say(f"{point.release} does not work either")
    return True


def finish_switch(host: Host, point: Point) -> None:
    """Make the release before the previous one, and record the changes for --rollback.

    Without a record, a rollback keeps the host's own files: another Python, bindings, which instances are enabled.
    """
    files.link(host.top / "previous", f"releases/{point.release}")
    host.changed.unlink(missing_ok=True)
    changes = {
        name: change
        for name, change in changes_since(host, point).items()
        # Not what follows from the settings, which stay.
        if name.startswith(f"{host.units}/") and name != str(host.unit) and not name.endswith("/recordings.conf")
    }
    with suppress(OSError):
        files.write(host.changed, json.dumps(changes).encode())
    forget_point(host)


def _recorded_changes(host: Host) -> dict[str, tuple[str, str]]:
    """What `finish_switch` recorded: the host's own files before and after the switch to the current release."""
    try:
        record = json.loads(read_text(host.changed) or "{}")
        return {name: (str(before), str(after)) for name, (before, after) in record.items()}
    except _UNREADABLE:
        host.say(f"{host.changed}: damaged or of another version, ignored: the host's own files stay as they are")
        return {}


def roll_back_release(host: Host) -> None:
    """Switch to the previous release. Raises Failed, with everything as before, if that does not work."""
    if recover_interrupted(host):
        before = releases.linked(host, "current")
        host.say(f"done: {f'release {before}' if before else 'no release is in use'}")
        return
    previous = _require_previous(host)
    were_enabled = enabled_instances(host)
    point = save_point(host, were_enabled)
    # What came with this release is restored too, unless the owner changed it since.
    states = {
        name: before for name, (before, after) in _recorded_changes(host).items() if point.files.get(name, "") == after
    }
    _restore(host, states)
    numbers = enabled_instances(host)
    for number in were_enabled:
        if number not in numbers:
            host.say(f"camera {number}: not enabled before release {point.release}, stopping")
            host.run("systemctl", "stop", instance(number))
    try:
        releases.activate(host, previous)
        host.run("systemctl", "daemon-reload", check=True)
        works = instances.start(host, previous, numbers, is_forced=bool(states))
    except (OSError, Failed) as error:
        host.say(f"release {previous} could not be activated: {error}")
        works = False
    if not works:
        roll_back(host, point)
        raise Failed(f"release {previous} does not work; {point.release} stays")
    finish_switch(host, point)
    host.say(f"done: release {previous}, previous release {point.release}")


def _require_previous(host: Host) -> str:
    previous = releases.linked(host, "previous")
    if not previous or not host.release(previous).is_dir():
        raise Failed(f"no release before {releases.linked(host, 'current') or 'none'}")
    return previous


def plan_rollback(host: Host) -> None:
    if point := pending_point(host):
        to = point.release or "nothing"
        host.say(f"a deployment is running or was interrupted; if so, would roll back to {to} only")
        return
    before = releases.linked(host, "current")
    host.say(f"would switch back from {before or 'nothing'} to release {_require_previous(host)}")
    new = [name for name, (earlier, _) in _recorded_changes(host).items() if not earlier]
    for number in enabled_instances(host):
        if number in enabled_instances(host, new):
            host.say(f"would stop {instance(number)}, which was not enabled before release {before}")
        else:
            host.say(f"would restart {instance(number)}")
