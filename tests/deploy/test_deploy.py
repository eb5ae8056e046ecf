"""deploy.sh over real SSH to a real systemd and nginx. Its single steps are tested in tests/unit/deploy."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.deploy.machine import DEPLOY_LIMIT_S, ENV_FILE, PATIENCE_S, RTSP_FILE, Machine

TOP = "/opt/camera-soft-stream"
ROOT = "root@127.0.0.1"
JOURNAL = "camera-soft-stream"  # the tag of a deployment's lines in the host's journal
SECRET = "a-secret-that-must-not-be-shown"
STARTS_BROKEN = """
if "--check" not in sys.argv:
    raise RuntimeError("broken on purpose")
"""
SNAPSHOTS_BROKEN = """

def broken(*_):
    raise RuntimeError("broken on purpose")


for kind in [kind for kind in vars().values() if isinstance(kind, type) and hasattr(kind, "snapshot")]:
    kind.snapshot = broken
"""


def releases(machine: Machine) -> list[str]:
    return machine.run("ls", f"{TOP}/releases").stdout.split()


def current(machine: Machine) -> str:
    return Path(machine.run("readlink", f"{TOP}/current").stdout.strip()).name


def is_pending(machine: Machine) -> bool:
    return machine.run("test", "-e", f"{TOP}/pending.json", check=False).returncode == 0


def everything(machine: Machine, top: str = TOP) -> str:
    """Everything a deployment could change, by content and mode."""
    return machine.run(
        "sh", "-c", f"find /etc {top} -printf '%M %u %p %l\\n' | sort; find /etc {top} -type f | sort | xargs md5sum"
    ).stdout


def set_version(project: Path, version: str) -> None:
    (project / "softcam/__init__.py").write_text(f'"""Changed."""\n\n__version__ = "{version}"\n')


def break_at_start(project: Path) -> None:
    set_version(project, "6.6.6")
    path = project / "soft_stream.py"
    path.write_text(path.read_text().replace("import sys\n", f"import sys\n{STARTS_BROKEN}", 1))


def break_pictures(project: Path) -> None:
    set_version(project, "7.7.7")
    with (project / "softcam/web/api/media.py").open("a") as file:
        file.write(SNAPSHOTS_BROKEN)


def test_first_deployment(machine: Machine) -> None:
    lines = machine.first_words.splitlines()
    assert [line for line in lines if not line.startswith(f"{ROOT}: ")] == []
    expected = [
        r"checked: Debian GNU/Linux 13 \(trixie\), systemd 257, Python 3\.13\S*, cameras: 0 imx477, 1 imx708_wide",
        r"copied release \S+-[0-9a-f]{10} \((rsync|tar)\)",
        r"camera 0: not bound to a device: no video nodes on this machine",
        r"camera 0: healthy at http://127\.0\.0\.1:18081, version \S+; snapshot of \d+ KiB after \S+ s",
        r"camera 1: healthy at http://127\.0\.0\.1:18082, version \S+; snapshot of \d+ KiB after \S+ s",
        r"camera 0: open http://127\.0\.0\.1:8081/",
        r"camera 1: open http://127\.0\.0\.1:8082/",
        r"user: camera; password, on the host: sudo cat /etc/camera-streamer/nginx-password",
        r"done: release \S+",
    ]
    for pattern in expected:
        assert [line for line in lines if re.fullmatch(f"{ROOT}: {pattern}", line)] != [], pattern


def test_repeated_deployment_keeps_clients_connected(machine: Machine) -> None:
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
    # No connection stays; ssh reports its end before it has ended.
    pattern = f"ControlPath={machine.deploy_tmp}/"
    machine.wait_until(lambda: subprocess.run(["pgrep", "-f", pattern], capture_output=True).returncode == 1, "its end")
    assert re.search(r"would copy release 9\.9\.9-\w+, and switch to it from \S+", said)
    assert "would serve camera 1 at port 8082 by nginx" in said
    assert everything(machine) == before
    assert [machine.pid(0), machine.pid(1)] == pids


@pytest.mark.parametrize("tool", ["rsync", "tar"])
def test_update_by_a_user_with_sudo_and_rollback(machine: Machine, project: Path, tool: str) -> None:
    first, version = current(machine), f"9.9.{len(tool)}"
    set_version(project, version)
    for path in (project, *project.rglob("*")):
        os.chown(path, 1000, 1000)  # as the user pi's files
        path.chmod(path.stat().st_mode | 0o022)
    listing = f"find {TOP}/releases/.incoming-* -printf '%u %g %m %y %P\\n' >/root/seen"
    wrapper = f'#!/bin/sh\n/usr/bin/{tool} "$@"\nstatus=$?\n{listing}\nexit $status\n'
    machine.write(f"/usr/local/bin/{tool}", wrapper, "755")
    login = machine.run("cat", "/home/pi/.bashrc").stdout
    if tool == "tar":  # a login with output would break rsync's protocol
        machine.write("/home/pi/.bashrc", f"echo root\necho older\necho rsync\necho Welcome\n{login}")
    try:
        said = machine.deploy(hosts=["pi@127.0.0.1"], project=project).stdout
        assert f"({tool})" in said
        assert "Welcome" not in said
        seen = [line.split(" ") for line in machine.run("cat", "/root/seen").stdout.splitlines()]
    finally:
        machine.write("/home/pi/.bashrc", login)
        machine.run("rm", "-f", f"/usr/local/bin/{tool}", "/root/seen")
    second = current(machine)
    assert second.startswith(f"{version}-")
    assert {first, second} <= set(releases(machine))
    assert f'"version":"{version}"' in machine.get("http://127.0.0.1:18082/health")[1]
    # Only root could enter during the copy, and nobody else could write at any time.
    assert seen[0] == ["root", "root", "700", "d", ""]
    assert len(seen) > 50
    assert {(user, group) for user, group, *_ in seen} == {("root", "root")}
    assert {path for *_, mode, _, path in seen if int(mode, 8) & 0o022} == set()
    assert {mode[1:] for *_, mode, _, path in seen if path.startswith("release/env")} == {"00"}
    # Owned by root, readable by everyone, writable by nobody else.
    owned = machine.run("find", f"{TOP}/releases", "-not", "-user", "root", "-o", "-not", "-type", "l", "-perm", "/022")
    assert owned.stdout == ""
    assert machine.run("stat", "-Lc", "%a %U", f"{TOP}/current").stdout == "755 root\n"
    # Unchanged files are hard links.
    links = machine.run("stat", "-c", "%h", f"{TOP}/current/soft_stream.py").stdout
    assert (int(links) > 1) == (tool == "rsync")
    if tool == "tar":
        return
    before = everything(machine)
    assert f"would switch back from {second} to release {first}" in machine.deploy("--dry-run", "--rollback").stdout
    assert everything(machine) == before
    assert f"done: release {first}" in machine.deploy("--rollback").stdout
    assert current(machine) == first
    assert f'"version":"{version}"' not in machine.get("http://127.0.0.1:18082/health")[1]


@pytest.mark.parametrize("how", ["Ctrl+C", "connection lost"])
def test_host_continues_without_the_connection(machine: Machine, project: Path, how: str) -> None:
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


def test_interrupted_deployment_is_rolled_back_first(machine: Machine, project: Path) -> None:
    break_at_start(project)
    first = current(machine)
    with machine.deploying(project=project) as process:
        machine.wait_until(lambda: current(machine).startswith("6.6.6-"), "the switch", DEPLOY_LIMIT_S)
        machine.run("pkill", "-KILL", "-f", "deploy.host.* install")  # as a power cut would
        process.communicate(timeout=PATIENCE_S)
    assert is_pending(machine)
    assert current(machine).startswith("6.6.6-")
    said = machine.deploy("--rollback").stdout
    assert f"interrupted; rolling back to {first} first" in said
    assert f"done: release {first}" in said.splitlines()[-1]
    assert current(machine) == first
    assert not is_pending(machine)
    machine.run("sh", "-c", f"rm -rf {TOP}/releases/6.6.6-*")  # other tests have a release of that name
    for camera in (0, 1):
        pid = machine.pid(camera)
        machine.run("kill", "-KILL", str(pid))
        machine.wait_for_fresh(camera, pid)


def assert_h264(machine: Machine, said: str) -> None:
    """Assert that RTSP is open to the network, with the generated key, over TCP and UDP from within the sandbox.

    The smaller stream and HLS work in it, too.
    """
    assert machine.run("stat", "-c", "%a %U", RTSP_FILE).stdout == "600 root\n"
    keys = re.findall(r"(?m)^cam[01]_view_key=(\S{20})$", machine.run("cat", RTSP_FILE).stdout)
    assert len(keys) == 2
    assert keys[0] == keys[1]
    assert keys[0] not in said + machine.run("journalctl", "--no-pager", "-o", "verbose").stdout
    quick = ("-probesize", "65536", "-fpsprobesize", "0")
    for camera, transport in ((0, "tcp"), (1, "udp")):
        address = f"rtsp://camera:PASSWORD@127.0.0.1:{8554 + camera}/"
        assert f"camera {camera}: H.264 at {address}, password on the host: sudo grep -i view_key= {RTSP_FILE}" in said
        assert f"0.0.0.0:{8554 + camera} " in machine.run("ss", "-Hltn").stdout
        source = ("-rtsp_transport", transport, "-i", address.replace("PASSWORD", keys[0]))
        machine.net("ffmpeg", "-v", "error", *quick, *source, "-frames:v", "2", "-f", "null", "-")
    http = "http://127.0.0.1:18081"
    for url, size in (
        (f"rtsp://camera:{keys[0]}@127.0.0.1:8554/sub", "320,180"),
        (f"{http}/stream.mp4?sub=1&key={keys[0]}", "320,180"),
        (f"{http}/stream.m3u8?key={keys[0]}", "640,360"),
    ):
        shown = ("-select_streams", "v", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0")
        assert f"h264,{size}" in machine.net("ffprobe", "-v", "error", *shown, url).stdout.splitlines()
        machine.net("ffmpeg", "-v", "error", "-i", url, "-frames:v", "5", "-f", "null", "-")


def test_deployment_applies_edited_settings(machine: Machine) -> None:
    pids = [machine.pid(0), machine.pid(1)]
    machine.set_env(f"CAMERA_API_KEY={SECRET}", "CAMERA_SUBSTREAM=320x180@5")  # without a restart
    said = machine.deploy("--with-rtsp").stdout
    assert "updated its key for nginx" in said
    assert_h264(machine, said)
    assert machine.get("http://127.0.0.1:18081/snapshot.jpg")[0] == 401
    assert machine.pid(0) not in pids
    assert machine.pid(1) not in pids
    # nginx gets it too, without --with-nginx.
    password = machine.run("cat", "/etc/camera-streamer/nginx-password").stdout.strip()
    outside = ("http://127.0.0.1:8081/v1/camera/status", "-u", f"camera:{password}")
    machine.wait_until(lambda: machine.get(*outside)[0] == 200, "the key for nginx")


def test_recordings_folder(machine: Machine) -> None:
    folder = "/srv/camera recordings"
    machine.set_env(f"CAMERA_RECORDINGS='{folder}'")
    try:
        said = machine.deploy().stdout
        assert said.count(f"created {folder} for recordings; the group video can read them") == 1
        assert machine.run("stat", "-c", "%a %U %G", folder).stdout == "2770 root video\n"
        url = "http://127.0.0.1:18082/v1/recordings/still"
        code, body = machine.get(url, "-X", "POST", "-H", "Content-Type: application/json")
        assert code == 200, body
        assert machine.run("sh", "-c", f"stat -c '%a %G' '{folder}'/*.jpg").stdout.splitlines()[0] == "640 video"
        # A folder that the service cannot write to is reported before anything is changed.
        machine.run("chmod", "755", folder)
        before = everything(machine)
        done = machine.deploy(check=False)
        assert done.returncode == 1
        assert f"sudo chgrp video '{folder}' && sudo chmod 2770 '{folder}'" in done.stdout.splitlines()[-1]
        assert everything(machine) == before
    finally:
        machine.run("sh", "-c", f"rm -rf '{folder}' /etc/systemd/system/camera-soft-cam@?.service.d/recordings.conf")


def test_full_disk_changes_nothing(machine: Machine, project: Path) -> None:
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


def test_release_without_pictures_is_rolled_back(machine: Machine, project: Path) -> None:
    break_pictures(project)
    shipped = project / "env/camera-soft-stream.env"  # not edited on the host, so it is updated and rolled back
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


def test_parallel_hosts_and_an_unreachable_one(machine: Machine, project: Path) -> None:
    nowhere = "root@nowhere.invalid"
    set_version(project, "9.3.5")
    # Of the same size and date as the file on the host: it is copied all the same.
    changed = project / "integrations/nginx/README.md"
    times = changed.stat()
    changed.write_text(changed.read_text().replace("nginx", "NGINX", 1))
    os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    hosts = [ROOT, "root@[::1]", nowhere]
    done = machine.deploy("--cameras", "0,1", "--with-nginx", hosts=hosts, project=project, check=False)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert [line for line in lines if re.fullmatch(f"{nowhere}: FAILED: no SSH: .*", line)] != []
    # The same machine by two addresses: one deployment waits for the other.
    for host in (ROOT, "root@::1"):
        assert [line for line in lines if line.startswith(f"{host}: done: release ")] != []
    assert lines[-1] == f"3 hosts: 2 done, 1 failed: {nowhere}"
    there = machine.run("cat", f"{TOP}/current/integrations/nginx/README.md").stdout
    assert there == changed.read_text()


def test_uninstall_keeps_settings_and_state(machine: Machine, project: Path) -> None:
    said = machine.deploy("--uninstall").stdout
    assert "Kept: /etc/camera-streamer (settings)" in said
    found = machine.run("sh", "-c", "find /etc /opt /run -name '*camera-soft*' ! -name '*.lock'").stdout.split()
    # The rig's drop-in stands for one of the owner.
    drop_ins = "/etc/systemd/system/camera-soft-cam@.service.d"
    assert sorted(found) == [ENV_FILE, f"{ENV_FILE}.deployed", drop_ins]
    assert f"your own {drop_ins}" in said
    assert machine.run("ls", drop_ins).stdout == "rig.conf\n"
    assert machine.run("ls", "-d", "/var/lib/private/camera-soft-cam").stdout
    units = machine.run("systemctl", "list-units", "--no-legend", "--state=loaded", "camera-soft-cam@*.service").stdout
    assert units == ""
    # A first release that does not work leaves nothing.
    shipped = project / "env/camera-soft-stream.env"
    shipped.write_text(shipped.read_text() + "#CAMERA_NEW_SETTING=1\n")
    break_at_start(project)
    before, left = everything(machine, ""), machine.run("ls", "/opt").stdout.split()
    done = machine.deploy("--cameras", "0,1", project=project, check=False)
    assert "no earlier release exists: everything of it was removed" in done.stdout.splitlines()[-1]
    assert "was edited" not in done.stdout  # the settings file, which is untouched
    assert machine.run("ls", "/opt").stdout.split() == left
    assert everything(machine, "") == before
    machine.deploy("--cameras", "0,1", "--with-nginx")
    assert machine.is_active(0)
    assert machine.is_active(1)
