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

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        env = {**os.environ, "PATH": f"{self._folder}:{os.environ['PATH']}", "TMPDIR": str(self._tmp)}
        # A process that ignores signals (nohup) passes that on to the shells it starts.
        argv = ["env", "--default-signal=INT,TERM,HUP", str(SCRIPT), *arguments]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)

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


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "deploy.sh: USER@HOST is missing (see --help)"),
        (["--cameras", "0;reboot", "pi@pi"], "--cameras 0;reboot: must be numbers"),
        (["--cameras"], "--cameras requires a value"),
        (["--python", "python3", "pi@pi"], "--python python3: must be a path on the host"),
        (["--bind", "0", "pi@pi"], "--bind 0: must be N=/dev/videoM, N=none or N=auto"),
        (["--bind", "0=video0", "pi@pi"], "--bind 0=video0: must be N=/dev/videoM, N=none or N=auto"),
        (["--uninstall", "--rollback", "pi@pi"], "only one of them at a time"),
        (["--with-nginx=yes", "pi@pi"], "--with-nginx=yes: --with-nginx must not have a value"),
        (["--dry-run=no", "pi@pi"], "--dry-run=no: --dry-run must not have a value"),
        (["--rollback", "--cameras", "0", "pi@pi"], "--rollback applies to the whole host"),
        (["--uninstall", "--with-nginx", "pi@pi"], "--uninstall applies to the whole host"),
        (["--cameras", "01", "pi@pi"], "--cameras 01: must be numbers"),
        (["--bind", "01=none", "pi@pi"], "--bind 01=none: must be N="),
        (["pi@fd00::1", "pi@[fd00::1]"], "pi@[fd00::1] is listed twice"),
        ([""], "empty host name"),
        (["--fast", "pi@pi"], "--fast: unknown option"),
    ],
)
def test_fail_usage(arguments: list[str], complaint: str) -> None:
    done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stdout == ""


def test_help_lists_every_option() -> None:
    done = subprocess.run([str(SCRIPT), "--help"], capture_output=True, text=True, timeout=PATIENCE_S)
    accepted = set(re.findall(r"^ +(--[a-z-]+)(?: \| -?-[a-z-]+)*\)", SCRIPT.read_text(), re.MULTILINE))
    assert done.returncode == 0
    assert {option for option in accepted if option not in done.stdout} == set()
