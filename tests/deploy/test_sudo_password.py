"""deploy.sh for users whose sudo requires a password: asked for once, hidden, and passed on standard input only."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.machine import Machine
from tests.deploy.test_deploy import current, everything, set_version

PASSWORD = "s3cret \\ 'pass\" $word%"
ANNA, BERT, PI = "anna@127.0.0.1", "bert@[::1]", "pi@127.0.0.1"


@pytest.fixture(scope="module", autouse=True)
def users(_deployed: Machine) -> Iterator[None]:
    """anna and bert, with passwords that sudo requires."""
    for name, password in (("anna", PASSWORD), ("bert", "another one")):
        _deployed.run("useradd", "-m", "-s", "/bin/bash", name)
        _deployed.run("chpasswd", text=f"{name}:{password}\n")
        _deployed.run("cp", "-r", "/home/pi/.ssh", f"/home/{name}/.ssh")
        _deployed.run("chown", "-R", f"{name}:{name}", f"/home/{name}/.ssh")
        _deployed.write(f"/etc/sudoers.d/{name}", f"{name} ALL=(ALL) ALL\n", "440")
    yield
    for name in ("anna", "bert"):
        _deployed.run("rm", f"/etc/sudoers.d/{name}")
        _deployed.run("userdel", "-r", name, check=False)  # it says that there is no mail spool


def test_update_with_a_password(machine: Machine, project: Path) -> None:
    first = current(machine)
    set_version(project, "9.7.0")
    prompt = "sudo password of anna@127.0.0.1: "
    done = machine.deploy_in_terminal(hosts=[ANNA], typed=PASSWORD, prompt=prompt, project=project)
    assert done.code == 0, done.screen
    assert done.screen.count(prompt) == 1
    assert f", previous release {first}" in done.screen.splitlines()[-1]
    assert current(machine).startswith("9.7.0-")
    # Not on the screen, in an argument, in an environment, in a log or in a file.
    assert PASSWORD not in done.screen
    assert done.seen_in == set()
    assert PASSWORD not in machine.run("journalctl", "--no-pager", "-o", "cat").stdout
    found = machine.run(
        "grep", "-rlF", "--", PASSWORD, "/etc", "/home", "/opt", "/root", "/run", "/tmp", "/var", check=False
    )
    assert found.stdout == ""
    # Several hosts, of which one requires none: the question is for the other one only.
    before = everything(machine)
    done = machine.deploy_in_terminal("--rollback", "--dry-run", hosts=[PI, ANNA], typed=PASSWORD, prompt=prompt)
    assert done.code == 0, done.screen
    assert done.screen.count("would switch back from 9.7.0-") == 2
    assert everything(machine) == before
    done = machine.deploy_in_terminal("--rollback", hosts=[ANNA], typed=PASSWORD, prompt=prompt)
    assert f"{ANNA}: done: release {first}" in done.screen
    assert current(machine) == first


def test_wrong_password_on_one_of_two_hosts(machine: Machine) -> None:
    hosts = [BERT, ANNA]
    prompt = "sudo password of bert@::1, anna@127.0.0.1: "
    done = machine.deploy_in_terminal("--dry-run", hosts=hosts, typed=PASSWORD, prompt=prompt)
    assert done.code == 1
    lines = done.screen.splitlines()
    assert "bert@::1: FAILED: sudo rejected the password; nothing was changed" in lines
    assert [line for line in lines if line.startswith("anna@127.0.0.1: would enable and start")] != []
    assert lines[-1] == "2 hosts: 1 done, 1 failed: bert@::1"
    assert done.screen.count(prompt) == 1
    # One attempt, not three.
    failures = machine.run("journalctl", "--no-pager", "-o", "cat", "-t", "sudo").stdout
    assert re.findall(r"bert : (\d) incorrect password attempt", failures) == ["1"]


def test_user_without_any_sudo(machine: Machine) -> None:
    machine.run("mv", "/etc/sudoers.d/bert", "/root/bert")
    try:
        prompt = "sudo password of bert@::1: "
        done = machine.deploy_in_terminal("--dry-run", hosts=[BERT], typed="another one", prompt=prompt)
    finally:
        machine.run("mv", "/root/bert", "/etc/sudoers.d/bert")
    assert done.code == 1
    words = "bert@::1: FAILED: sudo does not permit this user to run programs as root; nothing was changed"
    assert done.screen.splitlines()[-1] == words


def test_without_a_terminal(machine: Machine) -> None:
    done = machine.net("setsid", "--wait", *machine.deploy_argv(("--dry-run",), (ANNA, PI)), check=False)
    assert done.returncode == 1
    assert "FAILED: sudo requires a password, and there is no terminal to ask for it; run deploy.sh in" in done.stdout
    assert "pi@127.0.0.1: would enable and start" in done.stdout


def test_no_question_where_sudo_requires_no_password(machine: Machine) -> None:
    done = machine.deploy_in_terminal("--dry-run", hosts=[PI], typed="", prompt="password")
    assert done.code == 0
    assert "password" not in done.screen
