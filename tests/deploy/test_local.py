"""`sudo ./deploy.sh --local` on the machine itself: the same program, and the same promises, as over SSH."""

from pathlib import Path

from tests.deploy.machine import DEPLOY_LIMIT_S, PYTHON, Machine
from tests.deploy.test_deploy import (
    JOURNAL,
    TOP,
    break_at_start,
    break_pictures,
    current,
    everything,
    is_pending,
    releases,
    set_version,
)

USER = "pi"


def test_update_and_rollback(machine: Machine, project: Path) -> None:
    first = current(machine)
    set_version(project, "9.8.0")
    machine.put_checkout(USER, project)
    before = everything(machine)
    said = machine.deploy_locally(USER, "--dry-run", "--with-nginx").stdout
    assert "localhost: would copy release 9.8.0-" in said
    assert everything(machine) == before
    said = machine.deploy_locally(USER).stdout
    assert [line for line in said.splitlines() if not line.startswith("localhost: ")] == []
    assert f", previous release {first}" in said.splitlines()[-1]
    assert '"version":"9.8.0"' in machine.get("http://127.0.0.1:18081/health")[1]
    # The checkout is the user's; what runs is root's.
    owned = machine.run("find", f"{TOP}/releases", "-not", "-user", "root", "-o", "-not", "-type", "l", "-perm", "/022")
    assert owned.stdout == ""
    assert "unchanged" in machine.deploy_locally(USER).stdout.splitlines()[-1]
    assert f"localhost: done: release {first}" in machine.deploy_locally(USER, "--rollback").stdout
    assert current(machine) == first


def test_release_without_pictures_is_rolled_back(machine: Machine, project: Path) -> None:
    break_pictures(project)
    machine.put_checkout(USER, project)
    before, first = everything(machine), current(machine)
    done = machine.deploy_locally(USER, check=False)
    assert done.returncode == 1
    assert done.stdout.strip().endswith(f"does not work; rolled back to {first}")
    assert everything(machine) == before


def test_deployment_continues_after_an_interrupt(machine: Machine, project: Path) -> None:
    break_at_start(project)
    machine.put_checkout(USER, project)
    before, first = everything(machine), current(machine)
    unit = ("--unit=deployment", "--quiet", "--collect", "--pipe", "--wait", "--property=KillMode=process")
    script = (
        f"env --default-signal=INT runuser -l {USER} -c 'cd soft-stream; sudo ./deploy.sh --local --python {PYTHON}' & "
        f"until readlink {TOP}/current | grep -q /6.6.6-; do sleep 0.1; done; "
        "pkill -INT -f '[b]ash ./deploy.sh --local'; wait $!; echo code $?"
    )
    said = machine.run("systemd-run", *unit, "bash", "-c", script).stdout
    assert said.splitlines()[-1] == "code 130"
    assert "localhost: interrupted here; the host continues to the end by itself" in said.splitlines()[-2]
    machine.wait_until(
        lambda: not is_pending(machine) and "6.6.6" not in " ".join(releases(machine)), "the end", DEPLOY_LIMIT_S
    )
    assert current(machine) == first
    assert everything(machine) == before
    words = f"does not work; rolled back to {first}"
    machine.wait_until(lambda: words in machine.run("journalctl", "-o", "cat", "-t", JOURNAL).stdout, words)


def test_uninstall_and_first_installation(machine: Machine) -> None:
    machine.set_env("CAMERA_QUALITY=81")  # an edited file, and an end of RTSP after the test
    machine.put_checkout(USER, machine.project)
    assert "Kept: /etc/camera-streamer (settings)" in machine.deploy_locally(USER, "--uninstall").stdout
    assert machine.run("ls", TOP, check=False).returncode != 0
    options = ("--cameras", "0,1", "--with-nginx", "--with-rtsp", "--install-packages")
    said = machine.deploy_locally(USER, *options).stdout
    assert "localhost: packages: all installed" in said
    assert "RTSP at port 8555 delivers H.264 and requires a password" in said
    assert machine.get("http://127.0.0.1:8082/")[0] == 401


def test_without_root(machine: Machine) -> None:
    machine.put_checkout(USER, machine.project)
    done = machine.run("runuser", "-l", USER, "-c", "soft-stream/deploy.sh --local", check=False)
    assert done.returncode == 2
    assert "--local must run as root: sudo ./deploy.sh --local" in done.stdout
