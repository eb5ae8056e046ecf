"""deploy.sh with a fake `ssh`: its options, its messages, and what it leaves behind when it is interrupted."""

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.deploy.terminal import Terminal
from tests.support.timeouts import PATIENCE_S

SCRIPT = PROJECT / "deploy.sh"


class FakeSsh:
    """A folder for PATH with an `ssh` of a few lines, and the working folder of deploy.sh."""

    def __init__(self, folder: Path, tmp: Path, mark: str) -> None:
        self._folder = folder
        self._tmp = tmp
        self._mark = mark
        self.script("exit 1")

    def script(self, commands: str) -> None:
        """Its commands; `$last` is the command for the host, and `mark` prints the mark that a host prints first."""
        path = self._folder / "ssh"
        path.write_text(
            f"#!/bin/bash\n[[ $* != *'-O exit'* ]] || exit 0\ncat >/dev/null\nlast=${{@: -1}}\n"
            f"mark() {{ printf '\\n%s\\n' '{self._mark}'; }}\n{commands}\n"
        )
        path.chmod(0o755)

    def argv(self, *arguments: str) -> list[str]:
        env = (f"PATH={self._folder}:{os.environ['PATH']}", f"TMPDIR={self._tmp}")
        # A process that ignores signals (nohup) passes that on to the shells it starts.
        return ["env", "--default-signal=INT,TERM,HUP", *env, str(SCRIPT), *arguments]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(self.argv(*arguments), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def left(self) -> list[Path]:
        return list(self._tmp.iterdir())


@pytest.fixture
def ssh(tmp_path: Path) -> Iterator[FakeSsh]:
    mark = re.search(r"(?m)^readonly MARK='(.*)'$", SCRIPT.read_text())
    assert mark is not None
    with tempfile.TemporaryDirectory(prefix="dep-", dir="/tmp") as tmp:  # short: there are sockets in it
        yield FakeSsh(tmp_path, Path(tmp), mark[1])


@pytest.mark.parametrize(
    ("code", "words"), [(255, "FAILED: SSH connection lost"), (7, "FAILED: exited with code 7 and no output")]
)
def test_silent_failure_has_a_message(ssh: FakeSsh, code: int, words: str) -> None:
    ssh.script(f"mark; [[ $last != *' check' ]] || exit {code}\necho root")
    process = ssh.start("root@pi")
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert said == f"root@pi: {words}\n"
    assert ssh.left() == []


def test_connection_lost_while_packages_are_checked(ssh: FakeSsh) -> None:
    ssh.script("mark; [[ $last != *' plan packages' ]] || exit 255\necho root")
    said, _ = ssh.start("--dry-run", "--install-packages", "root@pi").communicate(timeout=PATIENCE_S)
    assert said == "root@pi: FAILED: SSH connection lost; nothing was changed\n"


def test_output_of_the_login_is_dropped(ssh: FakeSsh) -> None:
    ssh.script("echo root; echo welcome; mark; [[ $last != *' check' ]] || { echo 'checked: well'; exit; }\necho sudo")
    process = ssh.start("--dry-run", "pi@pi")
    said, _ = process.communicate(timeout=PATIENCE_S)
    # The plan comes from the same ssh.
    assert said.splitlines() == ["pi@pi: checked: well", "pi@pi: sudo"]
    assert process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_leaves_no_files(ssh: FakeSsh, tmp_path: Path, number: signal.Signals) -> None:
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
    """The output after Ctrl+C as soon as the file `asked` exists."""
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


def test_interrupted_while_packages_are_installed(ssh: FakeSsh, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    ssh.script(f"mark; [[ $last != *' packages' ]] || {{ touch '{asked}'; sleep 1000; }}\necho root")
    said = interrupt_at(ssh, asked, "--install-packages")
    assert said.startswith("root@pi: interrupted here; the host continues to the end by itself")


def test_interrupted_copy_is_removed_on_the_host(ssh: FakeSsh, tmp_path: Path) -> None:
    asked, discarded = tmp_path / "asked", tmp_path / "discarded"
    ssh.script(
        f"mark\ncase $last in\n*' check') ;;\n*' incoming '*) echo /there/release ;;\n"
        f"*' discard /there/release') touch '{discarded}' ;;\n*tar*) touch '{asked}'; sleep 1000 ;;\n"
        "*) echo root ;;\nesac"
    )
    assert interrupt_at(ssh, asked, "--no-rsync") == "root@pi: interrupted; nothing was changed\n"
    assert discarded.exists()


def test_interrupt_at_the_question(ssh: FakeSsh) -> None:
    ssh.script("mark; echo password")
    terminal = Terminal(ssh.argv("pi@pi"))
    terminal.run("sudo password of pi@pi: ", "\x03", PATIENCE_S)
    assert terminal.code == 130
    assert terminal.screen.splitlines()[-1] == "pi@pi: interrupted; nothing was changed"
    assert terminal.has_echo
    assert ssh.left() == []


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Sorry, try again.\nsudo: 1 incorrect password attempt", "sudo rejected the password"),
        ("pi is not in the sudoers file.", "sudo does not permit this user to run programs as root"),
        ("sudo: sorry, you must have a tty to run sudo", "sudo failed: sudo: sorry, you must have a tty to run sudo"),
    ],
)
def test_password_that_sudo_rejects(ssh: FakeSsh, said: str, reason: str) -> None:
    ssh.script(f"mark; [[ $last != *'-k -S'* ]] || {{ printf '%s\\n' '{said}' >&2; exit 1; }}; echo password")
    terminal = Terminal(ssh.argv("--dry-run", "pi@pi"))
    terminal.run("sudo password of pi@pi: ", "wrong", PATIENCE_S)
    assert terminal.code == 1
    assert terminal.screen.splitlines()[-1] == f"pi@pi: FAILED: {reason}; nothing was changed"
    assert terminal.has_echo


@pytest.mark.parametrize(
    ("code", "copied"),
    [(1, "tar"), (2, "tar"), (4, "tar"), (0, "rsync"), (12, "")],  # rsync's codes: usage, protocol, not supported
)
def test_rsync_without_an_option(ssh: FakeSsh, tmp_path: Path, code: int, copied: str) -> None:
    (tmp_path / "rsync").write_text(f"#!/bin/sh\necho 'rsync: unknown option -- link-dest' >&2\nexit {code}\n")
    (tmp_path / "rsync").chmod(0o755)
    ssh.script(
        "mark\ncase $last in\n*' incoming '*) echo /there/release ;;\n*' install '*) echo done: well ;;\n"
        "*' check' | *'exec tar'*) ;;\n*) echo root; echo rsync ;;\nesac"
    )
    said, _ = ssh.start("root@pi").communicate(timeout=PATIENCE_S)
    falls_back = "this rsync does not support what is needed; copying with tar" in said
    assert falls_back == (copied == "tar")
    if copied:
        assert re.search(rf"(?m)^root@pi: copied release \S+ \({copied}\)\nroot@pi: done: well$", said)
    else:
        assert "FAILED: could not copy to /there/release, nothing was changed: rsync: unknown option" in said
    assert ssh.left() == []


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "deploy.sh: USER@HOST is missing; on the Raspberry Pi itself: sudo ./deploy.sh --local (see --help)"),
        (["--local", "pi@pi"], "--local is this machine: not with pi@pi"),
        (["--local", "-o", "Port=22"], "--local uses no SSH: not with --ssh-option"),
        (["--local=yes"], "--local=yes: --local must not have a value"),
        (["--cameras", "0;reboot", "pi@pi"], "--cameras 0;reboot: must be numbers"),
        (["--cameras"], "--cameras requires a value"),
        (["--python", "python3", "pi@pi"], "--python python3: must be a path on the host"),
        (["--bind", "0", "pi@pi"], "--bind 0: must be N=/dev/videoM, N=none or N=auto"),
        (["--bind", "0=video0", "pi@pi"], "--bind 0=video0: must be N=/dev/videoM, N=none or N=auto"),
        (["--uninstall", "--rollback", "pi@pi"], "only one of them at a time"),
        (["--with-nginx=yes", "pi@pi"], "--with-nginx=yes: --with-nginx must not have a value"),
        (["--with-rtsp=8554", "pi@pi"], "--with-rtsp=8554: --with-rtsp must not have a value"),
        (["--dry-run=no", "pi@pi"], "--dry-run=no: --dry-run must not have a value"),
        (["--diagnose", "--rollback", "pi@pi"], "only one of them at a time"),
        (["--diagnose", "--dry-run", "pi@pi"], "--diagnose changes nothing"),
        (["--diagnose", "--with-nginx", "pi@pi"], "--diagnose changes nothing"),
        (["--rollback", "--cameras", "0", "pi@pi"], "--rollback applies to the whole host"),
        (["--uninstall", "--with-nginx", "pi@pi"], "--uninstall applies to the whole host"),
        (["--rollback", "--with-rtsp", "pi@pi"], "--rollback applies to the whole host"),
        (["--cameras", "01", "pi@pi"], "--cameras 01: must be numbers"),
        (["--bind", "01=none", "pi@pi"], "--bind 01=none: must be N="),
        (["pi@fd00::1", "pi@[fd00::1]"], "pi@[fd00::1] is listed twice"),
        ([""], "empty host name"),
        (["--fast", "pi@pi"], "--fast: unknown option"),
    ],
)
def test_invalid_usage_is_reported(arguments: list[str], complaint: str) -> None:
    done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


def test_help_lists_every_option() -> None:
    done = subprocess.run([str(SCRIPT), "--help"], capture_output=True, text=True, timeout=PATIENCE_S)
    accepted = set(re.findall(r"^ +(--[a-z-]+)(?: \| -?-[a-z-]+)*\)", SCRIPT.read_text(), re.MULTILINE))
    assert done.returncode == 0
    assert {option for option in accepted if option not in done.stdout} == set()
