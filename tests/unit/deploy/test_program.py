"""deploy.host as a program: its options, its end, and that a lost reader does not stop it."""

import os
import signal
import subprocess
import sys
import syslog
from pathlib import Path

import pytest

from deploy import cameras
from deploy import host as program
from deploy.system import Failed, Options, run_program
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S
from tests.unit.deploy.fake_host import FakeHost

PROJECT = Path(__file__).resolve().parents[3]
OLD_PYTHON = "#!/bin/sh\n[ $1 = -V ] && echo Python 3.9.2\nexit 1\n"


def test_options() -> None:
    argv = [
        "--python=/p",
        "--cameras=0,1",
        "--bind=0=none,1=/dev/video3",
        "--address=camera.local",
        "--with-nginx",
        "--with-rtsp",
        "install",
        "1.0-a",
        "/folder",
    ]
    assert program.read_arguments(argv) == (
        Options("/p", (0, 1), {0: "none", 1: "/dev/video3"}, "camera.local", True, True),
        ["install", "1.0-a", "/folder"],
    )
    assert program.read_arguments(["--python=", "--cameras=", "--bind=", "check"]) == (Options(), ["check"])


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Failed("no camera found"), "FAILED: no camera found\n"),
        (OSError(28, "No space left on device"), r"FAILED: [Errno 28] No space left on device (test_program.py:"),
        (ValueError(), "FAILED: ValueError (test_program.py:"),
    ],
)
def test_every_failure_has_a_message(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception, expected: str
) -> None:
    def check(_: object) -> None:
        raise error

    monkeypatch.setattr(cameras, "check", check)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chdir", lambda _: None)
    assert program.main(["check"]) == 1
    assert capfd.readouterr().out.startswith(expected)


def test_needs_root(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "chdir", lambda _: None)
    assert program.main(["check"]) == 1
    assert capfd.readouterr().out == "FAILED: must run as root\n"


def test_change_holds_the_lock(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    steps: list[str] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chdir", lambda _: None)
    for name in ("lock", "detach"):
        monkeypatch.setattr(program, name, lambda *_, name=name: steps.append(name))
    monkeypatch.setattr(program, "uninstall", lambda _: steps.append("uninstall"))
    assert program.main(["uninstall"]) == 0
    assert steps == ["lock", "detach", "uninstall"]


def test_failed_program(fake: FakeHost) -> None:
    fake.answer("daemon-reload", (3, "", "first\nno bus\n"))
    with pytest.raises(Failed) as caught:
        fake.host().run("systemctl", "daemon-reload", check=True)
    assert str(caught.value) == "failed with exit code 3 at: systemctl daemon-reload: no bus"
    assert run_program(["/nowhere/program"], "").returncode == 127


def test_one_deployment_at_a_time(fake: FakeHost) -> None:
    host = fake.host()
    held = program.lock(host)
    with pytest.raises(Failed, match="another deployment does not end"):
        program.lock(host)
    assert fake.said() == "waiting for another deployment to end"
    assert fake.passed_s == 600
    os.close(held)
    os.close(program.lock(host))


def test_continues_without_a_reader_or_a_terminal() -> None:
    """A lost SSH connection closes the output; Ctrl+C and SIGHUP may follow."""
    script = (
        "import os, signal\nfrom deploy.host import detach, say_and_log\ndetach()\n"
        "os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGHUP)\n"
        "say_and_log('first')\ninput()\nsay_and_log('nobody reads this')\nos.write(2, b'end')\n"
    )
    argv = [sys.executable, "-c", script]
    process = subprocess.Popen(argv, cwd=PROJECT, stdin=-1, stdout=-1, stderr=-1)
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    process.stdout.close()
    process.stdout = None
    assert process.communicate(b"\n", timeout=PATIENCE_S)[1] == b"end"
    assert process.returncode == 0


def test_output_goes_to_the_journal(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[object, ...]] = []
    monkeypatch.setattr("syslog.openlog", lambda *identity: logged.append(identity))
    monkeypatch.setattr("syslog.syslog", lambda *line: logged.append(line))
    program.say("not logged")
    program.say_and_log("two\nlines")
    assert logged == [("camera-soft-stream",), (syslog.LOG_INFO, "two lines")]


def bootstrap(folder: Path, *arguments: str, python: str = "/usr/bin/python3") -> subprocess.CompletedProcess[str]:
    """deploy/bootstrap.sh with this in place of the system's Python."""
    (folder / "deploy").mkdir()
    (folder / "deploy/host.py").write_text("import sys\nprint(sys.argv[1:])\n")
    script = (PROJECT / "deploy/bootstrap.sh").read_text().replace("/usr/bin/python3", python)
    argv = ["sh", "-c", script, "sh", *arguments]
    return subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=RUN_LIMIT_S)


def test_bootstrap(tmp_path: Path) -> None:
    assert bootstrap(tmp_path, "check", python=sys.executable).stdout == "['check']\n"


def test_bootstrap_uses_the_requested_python(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text(OLD_PYTHON)
    old.chmod(0o755)
    argument = f"--python={sys.executable}"
    assert bootstrap(tmp_path, argument, "check", python=str(old)).stdout == f"['{argument}', 'check']\n"


def test_bootstrap_without_a_new_python(tmp_path: Path) -> None:
    old = tmp_path / "old-python"
    old.write_text(OLD_PYTHON)
    old.chmod(0o755)
    done = bootstrap(tmp_path, "check", python=str(old))
    assert done.returncode == 1
    reason = f"no Python 3.11 or newer; {old} is Python 3.9.2. Update the system, or name one with --python"
    assert done.stdout == f"FAILED: {reason}\n"


def test_signals_are_ignored_after_detach() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE)}
    try:
        program.detach()
        assert {signal.getsignal(number) for number in before} == {signal.SIG_IGN}
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
