"""What of `deploy.sh` and `on-host.sh` can be shown without a host: their parts, and ssh replaced by a few lines."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.test_video_node import PI5_CAM0, Tree

PROJECT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 30.0
# Settings as the shell reads them, for what is tested here the same as systemd's way.
BY_SHELL = f"""PYTHON={sys.executable}
in_settings() {{ (set -a; . "$ENV_FILE"; "$@"); }}
know_settings
"""


def run_parts(commands: str, **constants: str | Path) -> str:
    """What `commands` print behind the scripts of the host, of which other constants may be given."""
    names = [*sorted(PROJECT.glob("systemd/on-host-*.sh")), PROJECT / "systemd/on-host.sh"]
    text = "".join(name.read_text() for name in names)
    text, count = re.subn(r'\nmain "\$@" </dev/null\n$', "\n", text)
    assert count == 1
    for name, value in constants.items():
        text, count = re.subn(rf"(?m)^readonly {name}=.*$", f"readonly {name}='{value}'", text)
        assert count == 1, name
    done = subprocess.run(["bash", "-s"], input=text + commands, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("CAMERA_API_KEY=abc def", "CAMERA_API_KEY=(not shown)"),
        ("CAMERA_API_KEY = abc def", "CAMERA_API_KEY =(not shown)"),
        ("http://10.0.0.2/cam?a=b&auth=abc", "http://10.0.0.2/cam?a=b&auth=(not shown)"),
        ("-cam0_view_key='abc'", "-cam0_view_key=(not shown)"),
        ('-    proxy_set_header Authorization "Basic c2VjcmV0";', "-    proxy_set_header Authorization (not shown)"),
        ("    proxy_set_header X-API-Key abc;", "    proxy_set_header X-API-Key (not shown)"),
        ("Authorization: Bearer abc", "Authorization: (not shown)"),
        ("cam1_id=rtsp://user:pa/ss@10.0.0.2/cam", "cam1_id=rtsp://(not shown)@10.0.0.2/cam"),
        ("cam1_id=rtsp://user:p@ss@10.0.0.2/cam", "cam1_id=rtsp://(not shown)@10.0.0.2/cam"),
        ("cam1_id=http://10.0.0.2/cam?token=abc&width=3", "cam1_id=http://10.0.0.2/cam?token=(not shown)&width=3"),
        (
            "run-1.service: Ignoring invalid environment assignment 'export CAMERA_API_KEY=abc': /etc/env",
            "run-1.service: Ignoring invalid environment assignment 'export CAMERA_API_KEY=(not shown)",
        ),
        ("    proxy_pass http://camera-soft-cam0;", "    proxy_pass http://camera-soft-cam0;"),
        ("    server_name camera.example.org;", "    server_name camera.example.org;"),
        ("+#CAMERA_WIDTH=1536", "+#CAMERA_WIDTH=1536"),
    ],
)
def test_secrets_are_not_shown(line: str, shown: str) -> None:
    assert run_parts(f"without_secrets <<'END'\n{line}\nEND\n") == f"{shown}\n"


@pytest.mark.parametrize(
    ("settings", "is_off"),
    [
        ("CAMERA_ENABLED=off", True),
        ("CAMERA_ENABLED='No'", True),
        ('cam0_enabled="0"', True),
        ("cam0_enabled=false\nCAMERA_ENABLED=on", True),
        ("CAMERA_ENABLED=off\nCAM0_ENABLED=1", False),
        ("cam1_enabled=off", False),
        ("#CAMERA_ENABLED=off", False),
        ("", False),
    ],
)
def test_a_camera_may_be_switched_off(tmp_path: Path, settings: str, is_off: bool) -> None:
    env = tmp_path / "env"
    env.write_text(f"{settings}\n")
    said = run_parts(f"{BY_SHELL}is_switched_off 0 && echo off || echo on", ENV_FILE=env)
    assert said == ("off\n" if is_off else "on\n")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("", "/base/a"),
        ("cam0_id=/base/b", "/base/b"),
        ("cam0_id=/base/c", ""),
        ("cam0_id=pattern", "pattern"),
        ("cam0_id=rtsp://user:secret@10.0.0.2/cam", "elsewhere"),
        ("cam0_id=/dev/video0", "elsewhere"),
        ("cam0_id='/base/b'", "/base/b"),
        ('CAM0_ID="/base/b" # the other one', "/base/b"),
        ("cam0_id=''", "/base/a"),
        (r"cam0_id='\_SB_.I2C1'", r"\_SB_.I2C1"),
    ],
)
def test_which_camera_an_instance_has(tmp_path: Path, settings: str, found: str) -> None:
    env = tmp_path / "env"
    env.write_text(f"{settings}\n")
    listed = r"$'0\timx708\t/base/a\n1\timx477\t/base/b\n2\tov5647\t\\_SB_.I2C1'"
    assert run_parts(f"{BY_SHELL}id_of 0 {listed}", ENV_FILE=env).strip() == found


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo])
def test_a_file_and_a_pipe_are_another_programs_cameras(tmp_path: Path, make: Callable[[Path], None]) -> None:
    env, source = tmp_path / "env", tmp_path / "clip"
    env.write_text(f"cam0_id={source}\n")
    make(source)
    assert run_parts(f"{BY_SHELL}id_of 0 ''", ENV_FILE=env) == "elsewhere\n"


@pytest.mark.parametrize(
    "edited",
    [
        "CAMERA_API_KEY = hunter2",
        "CAMERA_API_KEY='hunter2",
        "CAMERA_API_KEY=\\\nhunter2=\\\n#hunter2=1",
        "CAMERA_RTSP_URL=rtsp://host/hunter2",
        "#CAMERA_VIEW_KEY=hunter2",
        "export CAMERA_API_KEY=hunter2",
        "OTHER=hunter2",
    ],
)
def test_nothing_of_an_edited_file_is_shown(tmp_path: Path, edited: str) -> None:
    env, shipped = tmp_path / "env", tmp_path / "shipped"
    env.write_text(f"# help\n#CAMERA_WIDTH=1536\n{edited}\n")
    shipped.write_text(
        "# other help\n#CAMERA_WIDTH=1536\n\n#CAMERA_NEW=1\n CAMERA_API_KEY = s3cret\nCAMERA_VIEW_KEY=s3cret\n"
    )
    said = run_parts(f"KNOWN_SETTINGS=$'a\\tCAMERA_API_KEY\\t'\nship {shipped} {env} 600", ENV_FILE=env, TOP=tmp_path)
    assert said.splitlines()[1:] == [
        "    +#CAMERA_NEW=1",
        "    +CAMERA_VIEW_KEY=(not shown)",
        "    set in yours: CAMERA_API_KEY",
    ]


def test_an_untouched_file_that_an_uninstall_left_is_none_that_was_edited(tmp_path: Path) -> None:
    env, shipped = tmp_path / "env", tmp_path / "shipped-file"
    env.write_text("#CAMERA_WIDTH=1536\n")
    shipped.write_text("#CAMERA_WIDTH=1536\n")
    constants = {"ENV_FILE": env, "TOP": tmp_path / "top", "LEFT_HASH": tmp_path / "left"}
    # Where the file was there and the same, it counts as shipped from then on.
    assert (
        run_parts(f"ship {shipped} {env} 600; shipped_hash {env} >{tmp_path}/left; rm -r {tmp_path}/top", **constants)
        == ""
    )
    shipped.write_text("#CAMERA_WIDTH=1600\n")
    assert run_parts(f"ship {shipped} {env} 600", **constants) == ""
    assert env.read_text() == shipped.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="the script writes to /run")
@pytest.mark.skipif(shutil.which("systemd-escape") is None, reason="there is no systemd")
def test_an_instance_is_bound_to_the_node_that_its_cameras_id_leads_to(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree")
    receiver = "/base/axi/pcie@120000/rp1/csi@110000"
    tree.link(PI5_CAM0, receiver, 0x31)
    tree.node(3, "platform/1f00110000.csi", of_node=receiver, name="platform-1f00110000.csi-video-index0")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@" --root {tree.root}\n')
    python.chmod(0o755)
    release = tmp_path / "releases/new"
    release.mkdir(parents=True)
    (release / "systemd").symlink_to(PROJECT / "systemd")
    binding = tmp_path / "units/camera-soft-cam@1.service.d/binding.conf"
    listed = rf"$'1\timx708\t{PI5_CAM0}'"
    bind = f"PYTHON={python}\nsystemctl() {{ :; }}\nbind_instance new 1 {listed}\n"
    constants = {"TOP": tmp_path, "UNITS": tmp_path / "units"}
    node = "/dev/v4l/by-path/platform-1f00110000.csi-video-index0"
    assert run_parts(bind, **constants) == f"camera 1: bound to {node}\n"
    bound = binding.read_text()
    assert "\nBindsTo=dev-v4l-by\\x2dpath-platform\\x2d1f00110000.csi\\x2dvideo\\x2dindex0.device\n" in bound
    # Unplugged, it stays bound, also where --bind asks for another camera.
    gone = bind.replace(listed, "''")
    assert "camera 1: stays bound as it is" in run_parts(f"BIND=0=none\n{gone}", **constants)
    assert binding.read_text() == bound


def test_who_was_disabled_stays_off(tmp_path: Path) -> None:
    for number in range(3):
        folder = tmp_path / f"camera-soft-cam@{number}.service.d"
        folder.mkdir()
        (folder / "binding.conf").touch()
    wants = tmp_path / "multi-user.target.wants"
    wants.mkdir()
    for number in (0, 2):
        (wants / f"camera-soft-cam@{number}.service").symlink_to("/etc/systemd/system/camera-soft-cam@.service")
    (tmp_path / "camera-soft-cam@2.service").symlink_to("/dev/null")  # masked
    listed = r"$'0\ta\ta\n1\tb\tb\n2\tc\tc\n3\td\td'"  # 3 is new
    assert run_parts(f"wanted_cameras {listed}", UNITS=tmp_path) == "0\n3\n"
    assert run_parts(f"CAMERAS=0,1\nwanted_cameras {listed}", UNITS=tmp_path) == "0\n1\n"


def test_a_plan_names_the_cameras_that_go_on_unasked(tmp_path: Path) -> None:
    wants = tmp_path / "units/multi-user.target.wants"
    wants.mkdir(parents=True)
    (wants / "camera-soft-cam@1.service").symlink_to("/etc/systemd/system/camera-soft-cam@.service")
    constants = {"ENV_FILE": tmp_path / "env", "TOP": tmp_path / "top", "UNITS": tmp_path / "units"}
    said = run_parts("CAMERAS=0\nknow_settings() { :; }\nlist_cameras() { :; }\nplan new", **constants).splitlines()
    assert said[-2:] == [
        "would enable and start camera-soft-cam@0.service",
        "would go on with camera 1, enabled before, with the same release",
    ]


def test_a_rollback_leaves_alone_what_the_owner_changed_since(tmp_path: Path) -> None:
    units = tmp_path / "units"
    binding = "camera-soft-cam@{}.service.d/binding.conf"
    link = "multi-user.target.wants/camera-soft-cam@2.service"
    for number in range(3):
        (units / binding.format(number)).parent.mkdir(parents=True)
    for number in range(2):
        (units / binding.format(number)).write_text("old")
    (units / "camera-soft-cam@1.service.d/own.conf").write_text("own")
    keep = f"keep_host_files {tmp_path}"
    assert run_parts(f"{keep}/before", UNITS=units) == ""
    assert not (tmp_path / "before/camera-soft-cam@1.service.d/own.conf").exists()
    for number in range(3):
        (units / binding.format(number)).write_text("new")
    (units / link).parent.mkdir()
    (units / link).symlink_to("/etc/systemd/system/camera-soft-cam@.service")
    assert run_parts(f"{keep}/after", UNITS=units) == ""
    (units / binding.format(1)).write_text("by the owner")
    assert run_parts(f"put_back {tmp_path}/before {tmp_path}/after", UNITS=units) == ""
    assert (units / binding.format(0)).read_text() == "old"
    assert (units / binding.format(1)).read_text() == "by the owner"
    assert not (units / binding.format(2)).parent.exists()
    assert not (units / link).parent.exists()
    # Without "after", nothing of that is kept.
    assert run_parts(f"put_back {tmp_path}/before", UNITS=units) == ""
    assert (units / binding.format(1)).read_text() == "old"


@pytest.mark.parametrize("edited", ["", "CAMERA_WIDTH=640\n"])
def test_going_back_after_a_power_cut_keeps_what_was_edited_since(tmp_path: Path, edited: str) -> None:
    env, new = tmp_path / "env", tmp_path / "new"
    env.write_text("#CAMERA_OLD=1\n")
    new.write_text("#CAMERA_NEW=1\n")
    (tmp_path / "units").mkdir()
    constants = {"ENV_FILE": env, "TOP": tmp_path / "top", "UNITS": tmp_path / "units"}
    ship = f"ship {env} {env} 600\nsystemctl() {{ :; }}\nnote_way_back old\nship {new} {env} 600\n"
    assert run_parts(ship, **constants) == ""
    assert env.read_text() == new.read_text()
    env.write_text(env.read_text() + edited)
    back = "systemctl() { :; }\nactivate() { :; }\nrestore old\nis_edited $ENV_FILE && echo edited || echo untouched"
    assert run_parts(back, **constants) == ("edited\n" if edited else "untouched\n")
    assert env.read_text() == (f"#CAMERA_NEW=1\n{edited}" if edited else "#CAMERA_OLD=1\n")


@pytest.mark.parametrize(
    ("python", "words"),
    [
        (
            sys.executable,
            "release new does not run here, nothing was changed: it says nothing, and ends with exit code 5",
        ),
        ("/opt/wrong/python", "FAILED: /opt/wrong/python is not there. --python names the host's Python"),
    ],
)
def test_the_reason_is_told(python: str, words: str) -> None:
    commands = "need_python\nin_settings() { return 5; }\nlook_ahead new 0 || true"
    assert run_parts(f"PYTHON={python}\n{commands}").startswith(words)


def test_of_nginx_the_reason_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("nginx: [emerg] unknown directive\nnginx: configuration file /etc/nginx/nginx.conf test failed\n")
    assert run_parts(f"reason_of {log}") == "nginx: [emerg] unknown directive\n"


@pytest.mark.parametrize(
    ("lines", "port"),
    [
        ("listen 8443 ssl;", "8443"),
        ("# listen 80;\n    listen 127.0.0.1:9100;", "9100"),
        ("listen *:9100;", "9100"),
        ("listen [::]:9100 ipv6only=off;", "9100"),
        ("listen unix:/run/8.sock;", "8083"),
        ("", "8083"),
    ],
)
def test_an_edited_sites_port_is_found(tmp_path: Path, lines: str, port: str) -> None:
    (tmp_path / "sites-available").mkdir()
    (tmp_path / "sites-available/camera-soft-cam2.conf").write_text(f"server {{\n    {lines}\n}}\n")
    assert run_parts("outside_port 2", NGINX=tmp_path) == f"{port}\n"


def test_settings_that_do_not_end_loading_are_told(tmp_path: Path) -> None:
    release = tmp_path / "releases/0.1"
    release.mkdir(parents=True)
    (release / "soft_stream.py").write_text("import time\ntime.sleep(60)\n")
    commands = f'PYTHON={sys.executable}\nin_settings() {{ "$@"\n}}\nlook_ahead 0.1 3 || say "and $?"\n'
    said = run_parts(commands, TOP=tmp_path, CHECK_S="0.2").splitlines()
    assert said[0].startswith("camera 3: checking its settings takes more than 0.2 s, nothing was changed")
    assert said[1:] == ["and 1"]


@pytest.mark.skipif(os.geteuid() != 0, reason="the script wants to be root")
def test_nothing_on_the_host_breaks_off_without_a_word() -> None:
    said = run_parts("list_cameras() { false\n}\ncheck() { list_cameras; }\nmain check </dev/null\n")
    assert said == "FAILED: it broke off with exit code 1 at: false\n"


def test_a_module_in_the_folder_of_who_logs_in_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picamera2.py").write_text("print('mine')")
    monkeypatch.chdir(tmp_path)
    assert "mine" not in run_parts(f"PYTHON={sys.executable}\nlist_cameras || true\n")


def put_program(folder: Path, name: str, commands: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{commands}\n")
    (folder / name).chmod(0o755)


@pytest.mark.skipif(os.geteuid() != 0, reason="the script wants to be root")
def test_packages_are_installed_to_the_end_and_told_in_the_journal(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    put_program(programs, "systemd-cat", f"exec cat >>{tmp_path}/journal")
    put_program(programs, "apt-get", f'echo "$@" >>{tmp_path}/asked; kill -s INT $PPID; kill -s HUP $PPID')
    parts = "alone() { :; }\nneed_python() { :; }\nmissing_packages() { say nginx-light; }\n"
    try:
        said = run_parts(f"PATH={programs}:$PATH\n{parts}main packages </dev/null\n")
    finally:
        Path("/run/camera-soft-stream-apt.log").unlink(missing_ok=True)
    assert said == "installing nginx-light\ninstalled nginx-light\n"
    assert (tmp_path / "asked").read_text().splitlines()[-1].endswith("install -y --no-install-recommends nginx-light")
    # The journal's reader ends by itself, a moment later.
    deadline_s = time.monotonic() + PATIENCE_S
    journal = tmp_path / "journal"
    while not journal.exists() or journal.read_text() != said:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.skipif(os.geteuid() != 0, reason="the script wants to be root")
@pytest.mark.parametrize("is_well", [True, False])
def test_an_uninstall_that_leaves_nginx_unable_to_start_says_so(tmp_path: Path, is_well: bool) -> None:
    programs, nginx = tmp_path / "bin", tmp_path / "nginx"
    put_program(programs, "systemctl", "exit 0")
    reason = "nginx: [emerg] no such file: snippets/camera-soft-cam.conf"
    put_program(programs, "nginx", "exit 0" if is_well else f"echo '{reason}' >&2; exit 1")
    for folder in ("units", "top", "etc", "nginx/sites-available"):
        (tmp_path / folder).mkdir(parents=True)
    (nginx / "sites-available/camera-soft-cam0.conf").touch()
    said = run_parts(
        f"PATH={programs}:$PATH\nuninstall\n",
        UNITS=tmp_path / "units",
        TOP=tmp_path / "top",
        ENV_DIR=tmp_path / "etc",
        RULES=tmp_path / "rules",
        NGINX=nginx,
    ).splitlines()
    warning = f"nginx does not take its configuration any more, so it would not start again: {reason}"
    assert said[:-1] == ([] if is_well else [warning])
    assert said[-1].startswith("done: uninstalled.")


class FakeSsh:
    """A folder for PATH with an `ssh` of a few lines, and one where deploy.sh works."""

    def __init__(self, folder: Path, tmp: Path, mark: str) -> None:
        self._folder = folder
        self._tmp = tmp
        self._mark = mark
        self.script("exit 1")

    def script(self, commands: str) -> None:
        """What it does when asked to run something; `$last` is that, and `mark` prints what a host does first."""
        path = self._folder / "ssh"
        path.write_text(
            f"#!/bin/bash\n[[ $* != *'-O exit'* ]] || exit 0\nlast=${{@: -1}}\n"
            f"mark() {{ printf '\\n%s\\n' '{self._mark}'; }}\n{commands}\n"
        )
        path.chmod(0o755)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PATH": f"{self._folder}:{os.environ['PATH']}", "TMPDIR": str(self._tmp)}
        # Whoever runs these tests may ignore signals (nohup), and so would a shell that they start.
        argv = ["env", "--default-signal=INT,TERM,HUP", str(PROJECT / "deploy.sh"), *arguments]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

    def left(self) -> list[Path]:
        return list(self._tmp.iterdir())


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[FakeSsh]:
    mark = re.search(r"(?m)^readonly MARK='(.*)'$", (PROJECT / "deploy.sh").read_text())
    assert mark is not None
    with tempfile.TemporaryDirectory(prefix="dep-", dir="/tmp") as tmp:  # short: there are sockets in it
        yield FakeSsh(tmp_path, Path(tmp), mark[1])


@pytest.mark.parametrize(
    ("code", "words"), [(255, "FAILED: SSH broke off"), (7, "FAILED: it ended without a word, with exit code 7")]
)
def test_a_silent_end_is_told(ssh: FakeSsh, code: int, words: str) -> None:
    ssh.script(f"mark; [[ $last != *' check' ]] || exit {code}\necho root")
    process = ssh.start("root@pi")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert said == f"root@pi: {words}\n"
    assert ssh.left() == []


def test_a_connection_that_breaks_while_packages_are_looked_for_is_told(ssh: FakeSsh) -> None:
    ssh.script("mark; [[ $last != *' plan packages' ]] || exit 255\necho root")
    said, _ = ssh.start("--dry-run", "--install-packages", "root@pi").communicate(timeout=PATIENCE_S)
    assert said == "root@pi: FAILED: SSH broke off; nothing was changed\n"


def test_what_a_login_prints_is_not_taken_for_an_answer(ssh: FakeSsh) -> None:
    ssh.script("echo root; echo welcome; mark; [[ $last != *' check' ]] || { echo 'checked: well'; exit; }\necho sudo")
    process = ssh.start("--dry-run", "pi@pi")
    said, _ = process.communicate(timeout=PATIENCE_S)
    # What the plan says comes from the same ssh.
    assert said.splitlines() == ["pi@pi: checked: well", "pi@pi: sudo"]
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_from_outside_leaves_nothing(ssh: FakeSsh, tmp_path: Path, number: signal.Signals) -> None:
    asked = tmp_path / "asked"
    ssh.script(f"mark; [[ $last != *' check' ]] || {{ touch '{asked}'; sleep 1000; }}\necho root")
    process = ssh.start("root@pi")
    deadline_s = time.monotonic() + PATIENCE_S
    while not asked.exists():
        assert time.monotonic() < deadline_s
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert said == "root@pi: interrupted; nothing was changed\n"
    assert ssh.left() == []


def interrupt_at(ssh: FakeSsh, asked: Path, *options: str) -> str:
    """What is said when Ctrl+C comes as soon as the file `asked` is there."""
    process = ssh.start(*options, "root@pi")
    deadline_s = time.monotonic() + PATIENCE_S
    while not asked.exists():
        assert time.monotonic() < deadline_s
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert ssh.left() == []
    return said


def test_what_goes_on_installing_packages_is_told(ssh: FakeSsh, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    ssh.script(f"mark; [[ $last != *' packages' ]] || {{ touch '{asked}'; sleep 1000; }}\necho root")
    said = interrupt_at(ssh, asked, "--install-packages")
    assert said.startswith("root@pi: interrupted here; the host goes on to the end by itself")


def test_a_copy_that_is_interrupted_is_taken_away_there(ssh: FakeSsh, tmp_path: Path) -> None:
    asked, discarded = tmp_path / "asked", tmp_path / "discarded"
    ssh.script(
        f"mark\ncase $last in\n*' check') ;;\n*' incoming '*) echo /there/release ;;\n"
        f"*tar*) touch '{asked}'; sleep 1000 ;;\n*' discard /there/release') touch '{discarded}' ;;\n"
        "*) echo root ;;\nesac"
    )
    assert interrupt_at(ssh, asked, "--no-rsync") == "root@pi: interrupted; nothing was changed\n"
    assert discarded.exists()
