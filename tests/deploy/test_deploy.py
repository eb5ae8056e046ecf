"""`deploy.sh` over real SSH: what it installs, what it leaves alone, and how it finds back."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.deploy.machine import DEPLOY_LIMIT_S, ENV_FILE, PATIENCE_S, PYTHON, Machine, copy_project

TOP = "/opt/camera-soft-stream"
ROOT = "root@127.0.0.1"
JOURNAL = "camera-soft-stream"  # what deployments that go on by themselves say there
SECRET = "a-secret-that-must-not-be-shown"


def releases(machine: Machine) -> list[str]:
    return machine.run("ls", f"{TOP}/releases").stdout.split()


def current(machine: Machine) -> str:
    return Path(machine.run("readlink", f"{TOP}/current").stdout.strip()).name


def is_pending(machine: Machine) -> bool:
    return machine.run("test", "-d", f"{TOP}/pending", check=False).returncode == 0


def everything(machine: Machine, top: str = TOP) -> str:
    """All that a deployment could change, by content and mode."""
    return machine.run(
        "sh", "-c", f"find /etc {top} -printf '%M %u %p %l\\n' | sort; find /etc {top} -type f | sort | xargs md5sum"
    ).stdout


@pytest.fixture
def project(machine: Machine, tmp_path: Path) -> Path:
    """A copy of what is deployed, to be changed."""
    return copy_project(machine.project, tmp_path / "soft stream")  # a space, as people's folders have


def set_version(project: Path, version: str) -> None:
    (project / "softcam/__init__.py").write_text(f'"""Changed."""\n\n__version__ = "{version}"\n')


def break_at_start(project: Path) -> None:
    set_version(project, "6.6.6")
    path = project / "softcam/app.py"
    text = path.read_text()
    assert text.count("    sys.setswitchinterval(") == 1
    path.write_text(
        text.replace(
            "    sys.setswitchinterval(", '    raise RuntimeError("broken on purpose")\n    sys.setswitchinterval('
        )
    )


def break_pictures(project: Path) -> None:
    set_version(project, "7.7.7")
    path = project / "softcam/web/api/media.py"
    text = path.read_text()
    assert text.count("asked_s = time.monotonic()") == 1
    path.write_text(text.replace("asked_s = time.monotonic()", 'raise CameraError("broken on purpose")'))


def break_at_import(project: Path) -> None:
    set_version(project, "5.5.5")
    (project / "softcam/app.py").write_text('raise RuntimeError("broken on purpose")\n')


def test_the_first_deployment_says_what_it_does(machine: Machine) -> None:
    lines = machine.first_words.splitlines()
    assert [line for line in lines if not line.startswith(f"{ROOT}: ")] == []
    expected = [
        r"checked: Debian GNU/Linux 13 \(trixie\), systemd 257, Python 3\.13\S*, cameras: 0 imx477, 1 imx708_wide",
        r"copied release \S+-[0-9a-f]{10} \((rsync|tar)\)",
        r"camera 0: not bound to a device: no video nodes on this machine",
        r"camera 0: healthy at http://127\.0\.0\.1:18081, version \S+; snapshot of \d+ KiB after \S+ s",
        r"camera 1: healthy at http://127\.0\.0\.1:18082, version \S+; snapshot of \d+ KiB after \S+ s",
        r"camera 0: nginx serves it at port 8081, password in .*",
        r"done: release \S+",
    ]
    for pattern in expected:
        assert [line for line in lines if re.fullmatch(f"{ROOT}: {pattern}", line)] != [], pattern


def test_the_second_deployment_in_a_row_harms_nobody(machine: Machine) -> None:
    before, pids = everything(machine), [machine.pid(0), machine.pid(1)]
    with machine.viewer(0):
        done = machine.deploy("--cameras", "0,1", "--with-nginx")
        assert machine.status(0)["viewers"] == 1
    assert "unchanged" in done.stdout.splitlines()[-1]
    assert [machine.pid(0), machine.pid(1)] == pids
    assert everything(machine) == before


def test_dry_run_changes_nothing(machine: Machine, project: Path) -> None:
    set_version(project, "9.9.9")
    before, pids = everything(machine), [machine.pid(0), machine.pid(1)]
    said = machine.deploy("--dry-run", "--with-nginx", project=project).stdout
    # No connection stays behind; ssh says that it ends before it has ended.
    pattern = f"ControlPath={machine.deploy_tmp}/"
    machine.wait_until(lambda: subprocess.run(["pgrep", "-f", pattern], capture_output=True).returncode == 1, "its end")
    assert re.search(r"would copy release 9\.9\.9-\w+, and switch to it from \S+", said)
    assert "would serve camera 1 at port 8082 by nginx" in said
    assert everything(machine) == before
    assert [machine.pid(0), machine.pid(1)] == pids


@pytest.mark.parametrize("tool", ["rsync", "tar"])
def test_an_upgrade_as_a_user_with_sudo_and_the_way_back(machine: Machine, project: Path, tool: str) -> None:
    first, version = current(machine), f"9.9.{len(tool)}"
    set_version(project, version)
    for path in (project, *project.rglob("*")):
        os.chown(path, 1000, 1000)  # as the user pi's there
        path.chmod(path.stat().st_mode | 0o022)
    tells = f"find {TOP}/releases/.incoming-* -printf '%u %g %m %y %P\\n' >/root/seen"
    wrapper = f'#!/bin/sh\n/usr/bin/{tool} "$@"\nstatus=$?\n{tells}\nexit $status\n'
    machine.write(f"/usr/local/bin/{tool}", wrapper, "755")
    try:
        flags = ("--no-rsync",) if tool == "tar" else ()
        assert f"({tool})" in machine.deploy(*flags, hosts=["pi@127.0.0.1"], project=project).stdout
        seen = [line.split(" ") for line in machine.run("cat", "/root/seen").stdout.splitlines()]
    finally:
        machine.run("rm", "-f", f"/usr/local/bin/{tool}", "/root/seen")
    second = current(machine)
    assert second.startswith(f"{version}-")
    assert {first, second} <= set(releases(machine))
    assert f'"version": "{version}"' in machine.get("http://127.0.0.1:18082/health")[1]
    # Nobody but root could enter while it was copied, or write at any time.
    assert seen[0] == ["root", "root", "700", "d", ""]
    assert len(seen) > 50
    assert {(user, group) for user, group, *_ in seen} == {("root", "root")}
    assert {path for *_, mode, _, path in seen if int(mode, 8) & 0o022} == set()
    assert {mode[1:] for *_, mode, _, path in seen if path.startswith("release/env")} == {"00"}
    # Owned by root, read by everyone, written by nobody else.
    owned = machine.run("find", f"{TOP}/releases", "-not", "-user", "root", "-o", "-not", "-type", "l", "-perm", "/022")
    assert owned.stdout == ""
    assert machine.run("stat", "-Lc", "%a %U", f"{TOP}/current").stdout == "755 root\n"
    # What did not change is no second file.
    links = machine.run("stat", "-c", "%h", f"{TOP}/current/soft_stream.py").stdout
    assert (int(links) > 1) == (tool == "rsync")

    assert f"done: release {first}" in machine.deploy("--rollback").stdout
    assert current(machine) == first
    assert f'"version": "{version}"' not in machine.get("http://127.0.0.1:18082/health")[1]


def test_few_old_releases_are_kept(machine: Machine, project: Path) -> None:
    first = current(machine)
    for number in range(5):
        machine.run("mkdir", f"{TOP}/releases/0.0.{number}-old")
        machine.run("touch", "-d", f"2020-01-0{number + 1}", f"{TOP}/releases/0.0.{number}-old")
    machine.run("mkdir", f"{TOP}/releases/.incoming-broken-off")
    machine.run("touch", "-d", "2020-01-01", f"{TOP}/releases/.incoming-broken-off")
    set_version(project, "9.8.0")
    machine.deploy(project=project)
    left = machine.run("ls", "-A", f"{TOP}/releases").stdout.split()
    assert len(left) == 3
    assert {first, current(machine)} < set(left)
    assert current(machine).startswith("9.8.0-")


@pytest.mark.parametrize("how", ["Ctrl+C", "connection lost"])
def test_a_host_goes_on_to_the_end_by_itself(machine: Machine, project: Path, how: str) -> None:
    break_at_start(project)
    before, first = everything(machine), current(machine)
    with machine.deploying(project=project) as process:
        machine.wait_until(lambda: current(machine).startswith("6.6.6-"), "the switch", DEPLOY_LIMIT_S)
        if how == "Ctrl+C":
            process.send_signal(signal.SIGINT)
        else:
            machine.run("pkill", "sshd-session")
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == (130 if how == "Ctrl+C" else 1)
    assert "the host continues to the end by itself" in said.splitlines()[-1]
    machine.wait_until(
        lambda: not is_pending(machine) and "6.6.6" not in " ".join(releases(machine)), "the end", DEPLOY_LIMIT_S
    )
    assert current(machine) == first
    assert everything(machine) == before
    words = f"does not work; rolled back to {first}"
    machine.wait_until(lambda: words in machine.run("journalctl", "-o", "cat", "-t", JOURNAL).stdout, words)
    for camera in (0, 1):
        assert machine.get(f"http://127.0.0.1:{18081 + camera}/snapshot.jpg?width=16")[0] == 200


@pytest.mark.parametrize("flags", [(), ("--rollback",)])
def test_a_deployment_that_was_cut_short_is_undone_first(
    machine: Machine, project: Path, flags: tuple[str, ...]
) -> None:
    break_at_start(project)
    first = current(machine)
    with machine.deploying(project=project) as process:
        machine.wait_until(lambda: current(machine).startswith("6.6.6-"), "the switch", DEPLOY_LIMIT_S)
        machine.run("pkill", "-KILL", "-f", "deploy.host.* install")  # as a power cut would
        process.communicate(timeout=PATIENCE_S)
    assert is_pending(machine)
    assert current(machine).startswith("6.6.6-")
    said = machine.deploy(*flags).stdout
    assert f"interrupted; rolling back to {first} first" in said
    # What is deployed then is what tests have in common; before, it may have been a release that one of them left.
    last = first if flags else current(machine)
    assert f"done: release {last}" in said.splitlines()[-1]
    assert current(machine) == last
    assert "6.6.6" not in last
    assert not is_pending(machine)
    machine.run("sh", "-c", f"rm -rf {TOP}/releases/6.6.6-*")  # it may be well; other tests have one of that name
    for camera in (0, 1):
        pid = machine.pid(camera)
        machine.run("kill", "-KILL", str(pid))
        machine.wait_for_fresh(camera, pid)


def test_settings_are_in_force_after_a_deployment(machine: Machine) -> None:
    pids = [machine.pid(0), machine.pid(1)]
    machine.set_env(f"CAMERA_API_KEY={SECRET}")  # and nobody restarts anything
    assert "updated its key for nginx" in machine.deploy().stdout
    assert machine.get("http://127.0.0.1:18081/snapshot.jpg")[0] == 401
    assert machine.pid(0) not in pids
    assert machine.pid(1) not in pids
    # nginx has it too, though nobody said --with-nginx.
    password = machine.run("cat", "/etc/camera-streamer/nginx-password").stdout.strip()
    outside = ("http://127.0.0.1:8081/v1/camera/status", "-u", f"camera:{password}")
    machine.wait_until(lambda: machine.get(*outside)[0] == 200, "the key for nginx")
    machine.put_right()
    # Somebody else's broken site keeps nginx from taking it, and harms nothing else.
    broken = "/etc/nginx/sites-enabled/other.conf"
    machine.write(broken, "server { nonsense }\n")
    try:
        lines = machine.deploy().stdout.splitlines()
    finally:
        machine.run("rm", broken)
    assert [line for line in lines if "camera 0: updated its key for nginx" in line] != []
    assert [line for line in lines if "nginx could not be reloaded" in line] != []
    assert "done: release" in lines[-1]
    machine.run("systemctl", "reload", "nginx")
    machine.wait_until(lambda: machine.get(*outside)[0] == 200, "nginx without the key")


def test_a_camera_that_its_owner_switched_off_stays_off(machine: Machine, project: Path) -> None:
    set_version(project, "9.2.0")
    machine.run("systemctl", "disable", "--now", "camera-soft-cam@1")
    said = machine.deploy(project=project).stdout
    assert "camera 1: disabled on this host and stays off; --cameras 1 enables it" in said
    assert re.search("camera 0: healthy at .* snapshot", said)
    assert "camera 1: healthy" not in said
    assert machine.run("systemctl", "is-enabled", "camera-soft-cam@1", check=False).stdout == "disabled\n"
    assert not machine.is_active(1)
    machine.run("systemctl", "mask", "camera-soft-cam@1")
    done = machine.deploy("--cameras", "0,1", check=False)
    machine.run("systemctl", "unmask", "camera-soft-cam@1")
    assert "FAILED: camera 1 is masked; to use it: sudo systemctl unmask camera-soft-cam@1" in done.stdout
    machine.deploy("--cameras", "0,1", project=project)
    assert machine.run("systemctl", "is-enabled", "camera-soft-cam@1").stdout == "enabled\n"
    assert machine.is_active(1)


def test_a_full_disk_leaves_everything_as_it_was(machine: Machine, project: Path) -> None:
    set_version(project, "9.4.0")
    unit = project / "systemd/camera-soft-cam@.service"
    unit.write_text(unit.read_text() + "# a line more\n" * 3000)
    before, first = everything(machine), current(machine)
    units = "/etc/systemd/system"
    machine.run(
        "sh", "-euc", f"cp -a {units} /run/units; mount -t tmpfs -o size=256k,mode=755 small {units}; "
        f"cp -a /run/units/. {units}; dd if=/dev/zero of={units}/filler bs=1k status=none || true"
    )  # fmt: skip
    try:
        done = machine.deploy(project=project, check=False)
    finally:
        machine.run("sh", "-c", f"rm -f {units}/filler")
        left = machine.run("sh", "-c", f"cd {units} && diff -r --no-dereference . /run/units", check=False).stdout
        machine.run("sh", "-c", f"umount {units}; rm -rf /run/units; systemctl daemon-reload")
    failed = [line for line in done.stdout.splitlines() if "FAILED" in line]
    assert done.returncode == 1
    assert len(failed) == 1
    assert "No space left on device" in failed[0]
    assert failed[0].endswith(f"rolled back to {first}")
    assert left == ""
    assert everything(machine) == before
    assert machine.is_active(0)
    assert machine.is_active(1)


def test_a_port_that_another_program_has_is_told_before_anything_changes(machine: Machine, project: Path) -> None:
    set_version(project, "9.4.1")
    first = current(machine)
    machine.set_env("cam0_port=18999")
    stranger = "import http.server as h; h.HTTPServer(('127.0.0.1', 18999), h.BaseHTTPRequestHandler).serve_forever()"
    machine.run("systemd-run", "--quiet", "--unit=stranger", "/usr/bin/python3", "-c", stranger)
    try:
        machine.wait_until(lambda: machine.get("http://127.0.0.1:18999/")[0] == 501, "the stranger")
        done = machine.deploy(project=project, check=False)
    finally:
        machine.run("systemctl", "stop", "stranger")
    assert done.returncode == 1
    assert "camera 0: port 18999 is in use by another program, nothing was changed" in done.stdout
    assert current(machine) == first
    # It is no fault of the release, which may be the one to go back to.
    assert [name for name in releases(machine) if name.startswith("9.4.1-")] != []


def test_a_camera_that_was_not_named_goes_on_with_the_new_release(machine: Machine, project: Path) -> None:
    set_version(project, "9.4.2")
    said = machine.deploy("--cameras", "0", project=project).stdout
    assert "camera 1: enabled before, continues with the same release" in said
    assert '"version": "9.4.2"' in machine.get("http://127.0.0.1:18082/health")[1]


def test_a_node_that_is_not_there_is_told_before_anything_changes(machine: Machine) -> None:
    before = everything(machine)
    done = machine.deploy("--bind", "0=/dev/video77", check=False)
    assert done.returncode == 1
    assert "FAILED: --bind: /dev/video77 does not exist" in done.stdout
    assert everything(machine) == before


@pytest.mark.parametrize("break_it", [break_at_start, break_pictures])
def test_a_broken_release_is_rolled_back_by_itself(machine: Machine, project: Path, break_it: object) -> None:
    assert callable(break_it)
    break_it(project)
    shipped = project / "env/camera-soft-stream.env"  # which nobody edited, so it comes along and goes back
    shipped.write_text(shipped.read_text() + "\n# a new setting\n#CAMERA_NEW_SETTING=1\n")
    before, first = everything(machine), current(machine)
    done = machine.deploy(project=project, check=False)
    assert done.returncode == 1
    assert "broken on purpose" in done.stdout
    assert re.search(rf"FAILED: release \S+ does not work; rolled back to {re.escape(first)}$", done.stdout.strip())
    assert current(machine) == first
    assert everything(machine) == before
    for camera in (0, 1):
        code, body = machine.get(f"http://127.0.0.1:{18081 + camera}/snapshot.jpg?width=16")
        assert code == 200, body


def test_a_release_that_does_not_even_run_is_never_switched_to(machine: Machine, project: Path) -> None:
    break_at_import(project)
    before, pids = everything(machine), [machine.pid(0), machine.pid(1)]
    done = machine.deploy(project=project, check=False)
    assert done.returncode == 1
    said = done.stdout.splitlines()[-1]
    assert re.search(
        r"FAILED: release 5\.5\.5-\w+ does not run here, nothing was changed: RuntimeError: broken on", said
    )
    assert everything(machine) == before
    assert [machine.pid(0), machine.pid(1)] == pids


def test_an_edited_env_file_survives_and_the_difference_is_shown(machine: Machine, project: Path) -> None:
    set_version(project, "9.7.0")
    shipped = project / "env/camera-soft-stream.env"
    shipped.write_text(shipped.read_text() + "\n# a new setting\n#CAMERA_NEW_SETTING=1\n")
    machine.set_env("CAMERA_WIDTH=640", "CAMERA_HEIGHT=360", f"CAMERA_API_KEY = {SECRET}")  # as systemd reads it
    machine.set_env("export CAMERA_FPS=7")  # it does not read this
    edited = machine.run("cat", ENV_FILE).stdout
    machine.run("chmod", "640", ENV_FILE)
    said = machine.deploy(project=project).stdout
    assert machine.run("cat", ENV_FILE).stdout == edited
    assert machine.run("stat", "-c", "%a %U", ENV_FILE).stdout == "600 root\n"
    assert f"{ENV_FILE} was edited and is kept" in said
    assert "+#CAMERA_NEW_SETTING=1" in said
    line = edited.count("\n")
    assert re.search(f"{ENV_FILE}, line {line}: systemd ignores lines that begin with `export`", said)
    assert f"{ROOT}:     set in your file: CAMERA_API_KEY CAMERA_HEIGHT CAMERA_WIDTH\n" in said
    assert SECRET not in said
    key = ("-H", f"X-API-Key: {SECRET}")
    assert machine.get("http://127.0.0.1:18082/snapshot.jpg", *key, "-o", "/dev/null")[0] == 200
    assert machine.status(1, *key)["width"] == 640


def test_an_env_file_that_nobody_edited_is_renewed(machine: Machine, project: Path) -> None:
    before = machine.run("cat", ENV_FILE).stdout
    shipped = project / "env/camera-soft-stream.env"
    shipped.write_text(shipped.read_text() + "\n# a new setting\n#CAMERA_NEW_SETTING=1\n")
    said = machine.deploy(project=project).stdout
    assert "was edited" not in said
    assert "#CAMERA_NEW_SETTING=1" in machine.run("cat", ENV_FILE).stdout
    machine.deploy("--cameras", "0,1", "--with-nginx")
    assert machine.run("cat", ENV_FILE).stdout == before


def test_bad_settings_stop_an_upgrade_before_it_changes_anything(machine: Machine, project: Path) -> None:
    set_version(project, "9.6.0")
    machine.set_env("CAMERA_QUALITY=101")
    first, pids = current(machine), [machine.pid(0), machine.pid(1)]
    done = machine.deploy(project=project, check=False)
    assert done.returncode == 1
    assert "bad settings" in done.stdout
    assert "CAMERA_QUALITY '101'" in done.stdout
    assert (current(machine), [machine.pid(0), machine.pid(1)]) == (first, pids)
    done = machine.deploy("--dry-run", project=project, check=False)
    assert done.returncode == 1
    assert "CAMERA_QUALITY '101'" in done.stdout


def test_a_release_is_looked_at_with_the_key_that_only_looks(machine: Machine, project: Path) -> None:
    set_version(project, "9.5.1")
    machine.set_env("CAMERA_VIEW_KEY=that-only-looks")
    said = machine.deploy(project=project).stdout
    assert re.search("camera 0: healthy at .* snapshot", said)
    assert "that-only-looks" not in said
    assert machine.get("http://127.0.0.1:18081/snapshot.jpg")[0] == 401


def test_an_upgrade_goes_on_where_a_camera_is_unplugged(machine: Machine, project: Path) -> None:
    set_version(project, "9.5.0")
    machine.set_gone("Virtual0")
    machine.run("systemctl", "restart", "camera-soft-cam@1", check=False)
    said = machine.deploy(project=project).stdout
    assert "camera 1: missing (exit 66)" in said
    assert re.search("camera 0: healthy at .* snapshot", said)
    assert current(machine).startswith("9.5.0-")


def test_a_camera_that_was_never_there_is_told_before_anything_changes(machine: Machine) -> None:
    before = everything(machine)
    done = machine.deploy("--cameras", "0,5", check=False)
    assert done.returncode == 1
    assert "FAILED: camera 5 not found; found: 0 imx477, 1 imx708_wide." in done.stdout
    assert everything(machine) == before


def test_what_is_missing_is_named_and_can_be_installed(machine: Machine) -> None:
    # The system's own Python has no Picamera2 in this container.
    done = machine.deploy("--python", "/usr/bin/python3", check=False)
    assert done.returncode == 1
    cure = "sudo apt install python3-picamera2 python3-simplejpeg"
    missing = "FAILED: missing: python3-picamera2 python3-simplejpeg."
    assert f"{missing} Run again with --install-packages, or on the host: {cure}" in done.stdout
    said = machine.deploy("--python", "/usr/bin/python3", "--dry-run", "--install-packages").stdout
    assert said.splitlines()[-1].endswith(
        "would install python3-picamera2 python3-simplejpeg; run again afterwards to see the other steps"
    )
    # There is no network in it either: what apt is asked for is there once it was asked.
    machine.write("/usr/local/sbin/apt-get", '#!/bin/sh\necho "$@" >> /root/apt-asked\n', "755")
    other, asked_for = (
        "/opt/rig/later-python",
        '[ -e /root/apt-asked ] || case "$*" in *find_spec*) exit 1 ;; esac\nexec',
    )
    machine.write(other, machine.run("cat", PYTHON).stdout.replace("exec", asked_for), "755")
    try:
        said = machine.deploy("--python", other, "--install-packages").stdout
        asked = machine.run("cat", "/root/apt-asked").stdout
    finally:
        machine.run("rm", "-f", "/usr/local/sbin/apt-get", "/root/apt-asked")
        machine.deploy()  # with the other Python again
        machine.run("rm", other)
    assert "installing python3-picamera2 python3-simplejpeg" in said
    assert "done: release" in said.splitlines()[-1]
    assert "install -y --no-install-recommends python3-picamera2 python3-simplejpeg" in asked


def test_hosts_side_by_side_and_one_that_cannot_be_reached(machine: Machine) -> None:
    nowhere = "root@nowhere.invalid"
    hosts = [ROOT, "root@localhost", nowhere]
    done = machine.deploy("--cameras", "0,1", "--with-nginx", hosts=hosts, check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines if re.fullmatch(f"{nowhere}: FAILED: no SSH: .*", line)] != []
    # The same machine under two names: they take turns.
    for host in (ROOT, "root@localhost"):
        assert [line for line in lines if line.startswith(f"{host}: done: release ")] != []
    assert lines[-1] == f"3 hosts: 2 done, 1 failed: {nowhere}"


def test_uninstall_leaves_settings_and_state_alone(machine: Machine, project: Path) -> None:
    said = machine.deploy("--uninstall").stdout
    assert "Kept: /etc/camera-streamer (settings)" in said
    found = machine.run("sh", "-c", "find /etc /opt /run/systemd -name '*camera-soft*'").stdout.split()
    # The rig's drop-in is its owner's.
    drop_ins = "/etc/systemd/system/camera-soft-cam@.service.d"
    assert sorted(found) == [ENV_FILE, f"{ENV_FILE}.deployed", drop_ins]
    assert f"your own {drop_ins}" in said
    assert machine.run("ls", drop_ins).stdout == "rig.conf\n"
    assert machine.run("ls", "-d", "/var/lib/private/camera-soft-cam").stdout
    units = machine.run("systemctl", "list-units", "--no-legend", "--state=loaded", "camera-soft-cam@*.service").stdout
    assert units == ""
    # A first release that does not work leaves nothing behind.
    shipped = project / "env/camera-soft-stream.env"
    shipped.write_text(shipped.read_text() + "#CAMERA_NEW_SETTING=1\n")
    break_at_start(project)
    before, left = everything(machine, ""), machine.run("ls", "/opt").stdout.split()
    done = machine.deploy("--cameras", "0,1", project=project, check=False)
    assert "there is no earlier release: everything of it was removed" in done.stdout.splitlines()[-1]
    assert "was edited" not in done.stdout  # the settings file, which nobody touched
    assert machine.run("ls", "/opt").stdout.split() == left
    assert everything(machine, "") == before
    machine.deploy("--cameras", "0,1", "--with-nginx")
    assert machine.is_active(0)
    assert machine.is_active(1)
