"""`deploy.sh` over real SSH: what a host remembers, what going back puts back, and hosts that are a little odd."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.machine import PYTHON, Machine
from tests.deploy.test_deploy import break_at_start, current, everything, project, set_version

__all__ = ["project"]  # a fixture

UNITS = "/etc/systemd/system"
OTHER_PYTHON = "/opt/rig/other-python"
NODE = "/dev/v4l/by-path/usb-video-index0"
DEVICE = r"dev-v4l-by\x2dpath-usb\x2dvideo\x2dindex0.device"
BOUND = f"""\
# Written by deploy.sh --bind 1={NODE}.
[Unit]
BindsTo={DEVICE}
After={DEVICE}

[Install]
WantedBy=
WantedBy={DEVICE}
"""
TAKER = "import socket, time; s = socket.create_server(('0.0.0.0', {})); time.sleep(1e6)"


def state_of(machine: Machine) -> str:
    """What makes this host's instances its own."""
    return machine.run(
        "sh", "-c", f"cd {UNITS}; find . -name '*camera-soft*' -printf '%p %l\\n' | sort; tail -n +1 camera-soft*.d/*"
    ).stdout


@pytest.fixture
def other_python(machine: Machine) -> str:
    machine.run("cp", PYTHON, OTHER_PYTHON)
    return OTHER_PYTHON


@pytest.fixture
def third_camera(machine: Machine) -> Iterator[None]:
    """Instance 2 would show a test picture; nothing of it is left behind the test."""
    machine.set_env("cam2_id=pattern")
    yield
    machine.run("systemctl", "disable", "--now", "camera-soft-cam@2", check=False)
    sites = "/etc/nginx/sites-*/camera-soft-cam2.conf /etc/nginx/camera-soft-cam2.key"
    machine.run("sh", "-c", f"rm -rf {UNITS}/camera-soft-cam@2.service.d {sites}; systemctl daemon-reload")
    machine.run("systemctl", "reload", "nginx")


@pytest.fixture
def taken(machine: Machine) -> Iterator[int]:
    """The port of nginx's site for camera 2, which another program has."""
    machine.run("systemd-run", "--quiet", "--unit=taker", "/usr/bin/python3", "-c", TAKER.format(8083))
    machine.wait_until(lambda: ":8083" in machine.run("ss", "-ltnH").stdout, "the other program")
    yield 8083
    machine.run("systemctl", "stop", "taker")


def test_going_back_by_itself_puts_everything_back(
    machine: Machine, project: Path, other_python: str, third_camera: None
) -> None:
    break_at_start(project)
    before, first = everything(machine), current(machine)
    options = ("--python", other_python, "--bind", "1=none", "--cameras", "0,1,2")
    done = machine.deploy(*options, project=project, check=False)
    assert done.returncode == 1
    assert f"rolled back to {first}" in done.stdout
    assert everything(machine) == before
    assert [machine.is_active(camera) for camera in range(3)] == [True, True, False]
    assert machine.status(0)["backend"] == "picamera2"


def test_a_python_that_does_not_do_is_not_kept_with_the_same_release(machine: Machine, other_python: str) -> None:
    # It can check settings and list cameras, and no portal comes up with it.
    text = machine.run("cat", PYTHON).stdout.replace("exec", 'case "$1 $*" in *"current/"*) exit 1 ;; esac\nexec')
    machine.write(other_python, text, "755")
    before = everything(machine)
    done = machine.deploy("--python", other_python, check=False)
    assert done.returncode == 1
    assert "rolled back to the options before" in done.stdout.splitlines()[-1]
    assert everything(machine) == before
    assert machine.is_active(0)
    assert machine.is_active(1)


def say_what_they_would_do(machine: Machine, first: str, second: str) -> None:
    """Dry runs of a rollback and of an uninstall do so, and change nothing."""
    before = everything(machine)
    lines = machine.deploy("--dry-run", "--rollback").stdout.splitlines()
    assert [line.partition(": ")[2] for line in lines] == [
        f"would switch back from {second} to release {first}",
        "would restart camera-soft-cam@0.service",
        "would restart camera-soft-cam@1.service",
        f"would stop camera-soft-cam@2.service, which was not enabled before release {second}",
    ]
    said = machine.deploy("--uninstall", "--dry-run").stdout
    assert "would stop and disable camera-soft-cam@2.service" in said
    assert "would keep /etc/camera-streamer (settings)" in said
    assert everything(machine) == before
    assert machine.is_active(0)


def test_a_rollback_takes_along_what_came_with_the_release(
    machine: Machine, project: Path, other_python: str, third_camera: None
) -> None:
    set_version(project, "9.3.1")
    before, first = state_of(machine), current(machine)
    machine.deploy("--python", other_python, "--bind", "1=none", "--cameras", "0,1,2", project=project)
    second, after = current(machine), state_of(machine)
    assert after != before
    assert other_python in machine.show(0, "ExecStart")["ExecStart"]
    say_what_they_would_do(machine, first, second)
    said = machine.deploy("--rollback").stdout
    assert f"camera 2: not enabled before release {second}, stopping" in said
    assert (current(machine), state_of(machine)) == (first, before)
    assert other_python not in machine.show(0, "ExecStart")["ExecStart"]
    assert [machine.is_active(camera) for camera in range(3)] == [True, True, False]
    # Once more is forward again.
    machine.deploy("--rollback")
    assert (current(machine), state_of(machine)) == (second, after)
    assert [machine.is_active(camera) for camera in range(3)] == [True, True, True]
    machine.deploy("--rollback")
    assert (current(machine), state_of(machine)) == (first, before)


def test_a_binding_is_remembered_until_it_is_taken_back(machine: Machine) -> None:
    found = "camera 1: not bound to a device: no video nodes on this machine"
    asked = "camera 1: not bound to a device: as requested"
    assert asked in machine.deploy("--bind", "1=none").stdout
    said = machine.deploy().stdout
    assert asked in said
    assert found.replace("1", "0", 1) in said
    assert found in machine.deploy("--bind", "1=auto").stdout
    binding = machine.run("cat", f"{UNITS}/camera-soft-cam@1.service.d/binding.conf").stdout
    assert binding.startswith("# Written by deploy.sh.\n")  # nothing that would be remembered


@pytest.fixture
def unplugged(machine: Machine) -> Iterator[str]:
    """Camera 1 is bound to a device, which was unplugged; containers have none, so the binding is made by hand."""
    binding = f"{UNITS}/camera-soft-cam@1.service.d/binding.conf"
    before = machine.run("cat", binding).stdout
    machine.write(binding, BOUND)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reenable", "camera-soft-cam@1")
    machine.run("systemctl", "stop", "camera-soft-cam@1")
    machine.set_gone("Virtual0")
    yield binding
    machine.run("systemctl", "disable", "camera-soft-cam@1")
    machine.write(binding, before)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "enable", "camera-soft-cam@1")


def test_an_upgrade_goes_on_where_a_bound_camera_is_unplugged(machine: Machine, project: Path, unplugged: str) -> None:
    set_version(project, "9.3.8")
    bound = machine.run("cat", unplugged).stdout
    said = machine.deploy(project=project).stdout
    assert f"camera 1: binding unchanged: {NODE} does not exist" in said
    assert "camera 1: its device is missing; the instance starts when it returns" in said
    assert re.search("camera 0: healthy at .* snapshot", said)
    assert current(machine).startswith("9.3.8-")
    assert machine.run("cat", unplugged).stdout == bound
    assert "camera-soft-cam@1.service" in machine.run("ls", f"{UNITS}/{DEVICE}.wants").stdout


def test_a_port_of_nginx_that_another_program_has(
    machine: Machine, project: Path, third_camera: None, taken: int
) -> None:
    set_version(project, "9.3.2")
    before, first, sites = state_of(machine), current(machine), machine.run("ls", "/etc/nginx/sites-enabled").stdout
    done = machine.deploy("--cameras", "0,1,2", "--with-nginx", project=project, check=False)
    assert done.returncode == 1
    assert f"FAILED: camera 2: nginx's port {taken} is in use by another program, nothing was changed" in done.stdout
    assert (state_of(machine), current(machine)) == (before, first)
    assert machine.run("ls", "/etc/nginx/sites-enabled").stdout == sites


def test_a_site_that_nginx_does_not_take_is_off_again(machine: Machine, third_camera: None) -> None:
    # Edited by its owner, so it stays; nginx never saw it.
    machine.write("/etc/nginx/sites-available/camera-soft-cam2.conf", "nonsense;\n")
    done = machine.deploy("--cameras", "0,1,2", "--with-nginx", check=False)
    assert done.returncode == 1
    assert "FAILED: nginx rejects the sites: " in done.stdout
    assert 'unknown directive "nonsense"' in done.stdout
    left = machine.run("ls", "/etc/nginx/sites-enabled").stdout.split()
    assert [name for name in left if "camera" in name] == ["camera-soft-cam0.conf", "camera-soft-cam1.conf"]


@pytest.mark.parametrize("flags", [("--with-nginx",), ("--with-nginx", "--dry-run")])
def test_a_broken_site_of_somebody_else_is_told_before_anything_changes(
    machine: Machine, project: Path, flags: tuple[str, ...]
) -> None:
    set_version(project, "9.3.7")
    broken = "/etc/nginx/sites-enabled/other.conf"
    machine.write(broken, "server { nonsense }\n")
    before, first = state_of(machine), current(machine)
    links = machine.run("ls", "/etc/nginx/sites-enabled").stdout
    try:
        done = machine.deploy(*flags, project=project, check=False)
        left = machine.run("ls", "/etc/nginx/sites-enabled").stdout
    finally:
        machine.run("rm", broken)
    assert done.returncode == 1
    assert "nginx rejects its present configuration, nothing was changed: " in done.stdout
    assert broken in done.stdout.splitlines()[-1]
    assert left == links
    assert (state_of(machine), current(machine)) == (before, first)


def test_a_user_whose_login_talks(machine: Machine, project: Path) -> None:
    set_version(project, "9.3.4")
    path = "/home/pi/.bashrc"
    before = machine.run("cat", path).stdout
    machine.write(path, f"echo root\necho older\necho rsync\necho Welcome\n{before}")
    try:
        said = machine.deploy(hosts=["pi@127.0.0.1"], project=project).stdout
    finally:
        machine.write(path, before)
    assert current(machine).startswith("9.3.4-")
    assert "(tar)" in said
    assert "Welcome" not in said


def test_a_host_by_its_ipv6_address(machine: Machine, project: Path) -> None:
    set_version(project, "9.3.5")
    # Of the same size and date as what is there: it is sent all the same.
    changed = project / "integrations/nginx/README.md"
    times = changed.stat()
    changed.write_text(changed.read_text().replace("nginx", "NGINX", 1))
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = machine.deploy("--cameras", "0,1", hosts=["root@[::1]"], project=project).stdout
    assert re.search(r"(?m)^root@::1: copied release \S+ \(rsync\)$", said)
    there = machine.run("cat", "/opt/camera-soft-stream/current/integrations/nginx/README.md").stdout
    assert there == changed.read_text()


def test_a_host_without_a_camera_whose_settings_want_none(machine: Machine) -> None:
    machine.set_gone("Virtual0", "Virtual1")
    done = machine.deploy("--cameras", "0,1", check=False)
    assert "FAILED: camera 0 1 not found" in done.stdout
    machine.set_env("CAMERA_ENABLED=off")
    said = machine.deploy("--cameras", "0,1").stdout
    assert re.search(r"camera 1: well at .*; switched off in its settings", said)


def test_a_hook_of_the_owners(machine: Machine) -> None:
    hook = "def dark(rgb, metadata):\n    rgb[:] = 0\n    return rgb\n"
    machine.run("install", "-d", "-m", "755", "/srv/hooks")
    machine.write("/srv/hooks/night.py", hook)
    machine.set_env("PYTHONPATH=/srv/hooks", "cam0_hook=night:dark", "cam1_hook=integrations.hooks.stamp:stamp")
    said = machine.deploy().stdout  # which checks the settings, and restarts what is older than they are
    assert "done: " in said
    for camera in (0, 1):
        with machine.viewer(camera):
            machine.wait_until(lambda n=camera: machine.status(n)["hook"]["calls"] > 0, "calls of the hook")
            assert machine.status(camera)["hook"]["failures"] == 0
    machine.run("rm", "-r", "/srv/hooks")
