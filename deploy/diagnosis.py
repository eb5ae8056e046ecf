"""`deploy.sh --diagnose`: runs the portal's diagnosis of each camera, with the settings and rights of its instance."""

from deploy import releases
from deploy.cameras import enabled_instances, python_path, run_in_settings
from deploy.system import Failed, Host, instance

_TIMEOUT_S = 300  # each check has its own limit, and all of them take two minutes at most


def diagnose(host: Host) -> None:
    """Print the reports. Raises Failed if one of them has a failed check. Changes nothing."""
    release = releases.linked(host, "current")
    if not release:
        raise Failed("Soft Stream is not installed here: run deploy.sh without --diagnose first")
    numbers = host.options.cameras or enabled_instances(host)
    if not numbers:
        raise Failed("no camera is enabled here; --cameras selects one")
    failed = [number for number in numbers if not _print_report(host, release, number)]
    if failed:
        raise Failed(f"the diagnosis found failures, camera {', '.join(map(str, failed))}")


def _print_report(host: Host, release: str, number: int) -> bool:
    """Print one report; whether no check has failed."""
    host.say(f"camera {number}: diagnosis, up to two minutes")
    portal = host.release(release) / "soft_stream.py"
    # Those of the drop-ins: for recordings, and the owner's own.
    in_drop_ins = {name: host.show(name, instance(number)) for name in ("Environment", "ReadWritePaths")}
    properties = ["SupplementaryGroups=video", *(f"{name}={value}" for name, value in in_drop_ins.items() if value)]
    done = run_in_settings(
        host,
        *("/usr/bin/timeout", str(_TIMEOUT_S), python_path(host), portal),
        *("--camera", str(number), "--state-dir", "/tmp", "--diagnose"),  # noqa: S108 - a private one: DynamicUser=
        properties=properties,
    )
    for line in (done.stdout or done.stderr).splitlines():
        host.say(line)
    if done.returncode == 124:
        host.say(f"the diagnosis did not end within {_TIMEOUT_S} s")
    return done.returncode == 0
