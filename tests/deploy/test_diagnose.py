"""`deploy.sh --diagnose`: the report of an installed camera, printed and saved where it was called."""

import json
from pathlib import Path

from tests.deploy.machine import DEPLOY_LIMIT_S, Machine
from tests.deploy.test_deploy import everything

HOST = "root@127.0.0.1"


def test_report_is_printed_and_saved(machine: Machine, tmp_path: Path) -> None:
    before = everything(machine)
    machine.wait_until(lambda: machine.status(0)["state"] == "closed", "the end of the linger time")
    argv = machine.deploy_argv(("--diagnose", "--cameras", "0"), (HOST,))
    done = machine.net("env", "-C", str(tmp_path), *argv, check=False, timeout_s=DEPLOY_LIMIT_S)
    (saved,) = tmp_path.iterdir()
    assert saved.name == "diagnosis-127.0.0.1.txt"
    lines = saved.read_text().splitlines()
    assert done.stdout.splitlines()[: len(lines)] == [f"{HOST}: {line}" for line in lines]
    assert lines[0] == "camera 0: diagnosis, up to two minutes"
    found = {line.split()[1]: line.split()[0] for line in lines if line.startswith(("ok ", "warning ", "failed "))}
    assert found["first_frame"] == "ok", saved.read_text()
    assert found["openings"] in ("ok", "warning")
    # The virtual cameras may be slower than the requested rate on a busy machine.
    assert (done.returncode == 0) == ("failed" not in found.values())
    assert everything(machine) == before
    assert machine.is_active(0)
    assert json.loads(machine.get("http://127.0.0.1:18081/health")[1])["status"] == "healthy"


def test_nothing_is_installed(machine: Machine, tmp_path: Path) -> None:
    machine.run("mv", "/opt/camera-soft-stream/current", "/opt/camera-soft-stream/elsewhere")
    try:
        argv = machine.deploy_argv(("--diagnose",), (HOST,))
        done = machine.net("env", "-C", str(tmp_path), *argv, check=False, timeout_s=DEPLOY_LIMIT_S)
    finally:
        machine.run("mv", "/opt/camera-soft-stream/elsewhere", "/opt/camera-soft-stream/current")
    assert done.returncode == 1
    assert done.stdout == f"{HOST}: FAILED: Soft Stream is not installed here: run deploy.sh without --diagnose first\n"
