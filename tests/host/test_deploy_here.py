"""What of `deploy.sh` and `on-host.sh` can be shown without a host: their parts, and ssh replaced by a few lines."""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent
PATIENCE_S = 30.0


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
        ("-cam0_view_key='abc'", "-cam0_view_key=(not shown)"),
        ('-    proxy_set_header Authorization "Basic c2VjcmV0";', "-    proxy_set_header Authorization (not shown)"),
        ("    proxy_set_header X-API-Key abc;", "    proxy_set_header X-API-Key (not shown)"),
        ("Authorization: Bearer abc", "Authorization: (not shown)"),
        ("cam1_id=rtsp://user:pa/ss@10.0.0.2/cam", "cam1_id=rtsp://(not shown)@10.0.0.2/cam"),
        ("cam1_id=rtsp://user:p@ss@10.0.0.2/cam", "cam1_id=rtsp://(not shown)@10.0.0.2/cam"),
        ("cam1_id=http://10.0.0.2/cam?token=abc&width=3", "cam1_id=http://10.0.0.2/cam?token=(not shown)&width=3"),
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
    assert run_parts("is_switched_off 0 && echo off || echo on", ENV_FILE=env) == ("off\n" if is_off else "on\n")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ("", "/base/a"),
        ("cam0_id=/base/b", "/base/b"),
        ("cam0_id=/base/c", ""),
        ("cam0_id=pattern", "pattern"),
        ("cam0_id=rtsp://user:secret@10.0.0.2/cam", "elsewhere"),
        ("cam0_id=/dev/video0", "elsewhere"),
    ],
)
def test_which_camera_an_instance_has(tmp_path: Path, settings: str, found: str) -> None:
    env = tmp_path / "env"
    env.write_text(f"{settings}\n")
    listed = "$'0\\timx708\\t/base/a\\n1\\timx477\\t/base/b'"
    assert run_parts(f"id_of 0 {listed}", ENV_FILE=env).strip() == found


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


@pytest.mark.skipif(os.geteuid() != 0, reason="the script wants to be root")
def test_nothing_on_the_host_breaks_off_without_a_word() -> None:
    said = run_parts("list_cameras() { false\n}\ncheck() { list_cameras; }\nmain check </dev/null\n")
    assert said == "FAILED: it broke off with exit code 1 at: false\n"


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
        argv = [str(PROJECT / "deploy.sh"), *arguments]
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
