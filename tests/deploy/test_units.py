"""The unit under the real systemd: restarts, permanent failures, the watchdog, the sandbox, and secrets."""

import contextlib
import json
import re
import time
from functools import partial
from typing import Any

import pytest

from softcam.runtime.log.events import Event
from tests.deploy.machine import ENV_FILE, PATIENCE_S, PROJECT, Machine
from tests.support.timeouts import TIMEOUT_FACTOR

KEY = "a-secret-key-4711"
VIEW_KEY = "a-secret-view-key-0815"
SECURITY_LIMIT = 2.0


def wait_for_status(machine: Machine, camera: int, pattern: str, within_s: float = PATIENCE_S) -> None:
    machine.wait_until(
        lambda: re.fullmatch(pattern, machine.show(camera, "StatusText")["StatusText"]), f"status {pattern!r}", within_s
    )


def test_picamera2_works_in_the_sandbox(machine: Machine) -> None:
    for camera in (0, 1):
        code, _ = machine.get(f"http://127.0.0.1:{18081 + camera}/snapshot.jpg", "-o", "/dev/null")
        assert code == 200
        status = machine.status(camera)
        assert (status["backend"], status["last_error"]) == ("picamera2", None)
    for camera in (0, 1):
        own = f"_SYSTEMD_INVOCATION_ID={machine.show(camera, 'InvocationID')['InvocationID']}"
        assert "Permission" not in machine.journal(camera, own)


@pytest.mark.parametrize("unit", ["camera-soft-cam@0.service"])
def test_sandbox_exposure_level(machine: Machine, unit: str) -> None:
    done = machine.run("systemd-analyze", "security", "--no-pager", f"--threshold={SECURITY_LIMIT * 10:.0f}", unit)
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert level is not None, done.stdout
    assert float(level[1]) <= SECURITY_LIMIT


def test_unit_without_warnings(machine: Machine) -> None:
    assert machine.run("systemd-analyze", "verify", "--man=no", "camera-soft-cam@0.service").stdout == ""
    said = machine.run("journalctl", "--no-pager", "-o", "cat", "_PID=1", "-p", "warning").stdout
    assert [line for line in said.splitlines() if "camera-soft-cam" in line and "Unknown" in line] == []


def test_state_of_the_machine_in_the_sandbox(machine: Machine) -> None:
    content: dict[str, Any] = {}

    def has_network() -> bool:
        code, body = machine.get("http://127.0.0.1:18081/v1/system/status")
        assert code == 200
        content.update(json.loads(body))
        return content["network"] is not None

    # The container has no network; a route by the loopback interface makes that the one in use.
    machine.run("ip", "route", "replace", "default", "dev", "lo")
    try:
        machine.wait_until(has_network, "the default route")
    finally:
        machine.run("ip", "route", "delete", "default", "dev", "lo")
    uptime_s, _, _ = machine.run("cat", "/proc/uptime").stdout.partition(" ")
    assert content["uptime"]["system_seconds"] == pytest.approx(float(uptime_s), abs=60)
    assert content["uptime"]["boot_id"] == machine.run("cat", "/proc/sys/kernel/random/boot_id").stdout.strip()
    total_kb = re.search(r"MemTotal: +(\d+) kB", machine.run("cat", "/proc/meminfo").stdout)
    assert total_kb is not None
    assert content["memory"]["total_mb"] == round(int(total_kb[1]) / 1024, 1)
    assert content["memory"]["available_mb"] > 0
    assert content["cpu"]["cores"] >= 1
    assert 0 <= content["cpu"]["usage_percent"] <= 100
    assert content["cpu"]["load_average"]["1min"] >= 0
    assert content["network"]["interface"] == "lo"
    assert content["network"]["bytes_sent"] > 0
    disk = content["disk"]
    assert (disk["path"], disk["file_system"]) == ("/var/lib/camera-soft-cam/0", "overlay")
    assert disk["total_gb"] > 0


def test_throttling_since_the_boot_survives_a_restart(machine: Machine) -> None:
    """The file of a Raspberry Pi, at its place: the portal can read it, and remember what the kernel forgets."""
    flags = "/srv/platform/soc/soc:firmware/get_throttled"
    machine.run("install", "-d", flags.rpartition("/")[0])
    machine.write(flags, "50005\n")
    machine.set_drop_in("[Service]\nBindReadOnlyPaths=/srv/platform:/sys/devices/platform\n")
    for written, shown in (("50005\n", "0x50005"), ("0\n", "0x50000")):
        machine.write(flags, written)
        machine.run("systemctl", "restart", "camera-soft-cam@0")
        code, body = machine.get("http://127.0.0.1:18081/v1/system/status")
        assert code == 200
        assert json.loads(body)["throttled"]["raw_value"] == shown
    machine.run("rm", "-r", "/srv/platform")


def test_enabled_instances_list_each_other(machine: Machine) -> None:
    """Without any setting; a camera that is disabled or enabled later disappears or appears within seconds."""

    def listed(camera: int, outside: int, *options: str) -> list[tuple[str, str, bool]]:
        code, body = machine.get(f"http://127.0.0.1:{outside + camera}/v1/cameras", *options)
        assert code == 200
        return [(each["name"], each["url"], each["is_self"]) for each in json.loads(body)["cameras"]]

    password = machine.run("cat", "/etc/camera-streamer/nginx-password").stdout.strip()
    for outside, options in ((18081, ()), (8081, ("-u", f"camera:{password}"))):
        urls = [f"//127.0.0.1:{outside + number}/" for number in (0, 1)]
        assert listed(0, outside, *options) == [("Camera 0", "./", True), ("Camera 1", urls[1], False)]
        assert listed(1, outside, *options) == [("Camera 0", urls[0], False), ("Camera 1", "./", True)]
    machine.run("systemctl", "disable", "camera-soft-cam@1")
    try:
        machine.wait_until(lambda: listed(0, 18081) == [], "an empty list")
    finally:
        machine.run("systemctl", "enable", "camera-soft-cam@1")
    machine.wait_until(lambda: len(listed(0, 18081)) == 2, "the second camera")
    machine.set_env("CAMERA_NEIGHBOURS=off")
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    assert listed(0, 18081) == []


def test_dedicated_user_without_access_to_homes(machine: Machine) -> None:
    pid = str(machine.pid(0))
    assert machine.run("ps", "-o", "user=", "-p", pid).stdout.strip() not in ("root", "pi")
    seen = machine.run("nsenter", "-t", pid, "-m", "ls", "/home").stdout
    assert seen == ""
    assert machine.run("nsenter", "-t", pid, "-m", "touch", "/etc/x", check=False).returncode != 0
    # It can never have a capability.
    assert "CapBnd:\t0000000000000000" in machine.run("cat", f"/proc/{pid}/status").stdout


@pytest.mark.measurement
def test_status_line(machine: Machine) -> None:
    wait_for_status(machine, 0, "closed|open, no clients, .*")
    with machine.viewer(0):
        wait_for_status(machine, 0, r"open, 1 client, (19|2\d)\.\d fps")
    wait_for_status(machine, 0, "open, no clients, .*")
    wait_for_status(machine, 0, "closed")


def test_journal_priorities_and_identifiers(machine: Machine) -> None:
    since = machine.cursor()
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    machine.sync_journal()
    done = machine.run("journalctl", "--no-pager", "-o", "json", *since, "-t", "camera0")
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    listening = [entry for entry in entries if entry["MESSAGE"].startswith("Listening on")]
    assert listening
    assert {entry["PRIORITY"] for entry in listening} == {"6"}
    assert {entry["_SYSTEMD_UNIT"] for entry in entries} == {"camera-soft-cam@0.service"}
    events = {entry["MESSAGE_ID"]: entry["PRIORITY"] for entry in entries if "MESSAGE_ID" in entry}
    assert events == {Event.STOPPED.value: "6", Event.STARTING.value: "6"}, "sent from the sandbox"
    stopped = f"MESSAGE_ID={Event.STOPPED.value}"
    assert machine.journal(0, *since, stopped) == "Stopped\n", "the process had ended when the journal read it"
    assert "Listening on" not in machine.journal(0, *since, "-p", "warning")


@pytest.mark.measurement
def test_killed_portal_restarts_within_5_s(machine: Machine) -> None:
    pid = machine.pid(0)
    machine.run("kill", "-KILL", str(pid))
    took_s = machine.wait_until(
        lambda: machine.pid(0) not in (0, pid) and machine.get("http://127.0.0.1:18081/health")[0] == 200,
        "a new portal",
    )
    assert took_s < 5 * TIMEOUT_FACTOR


def test_repeated_restarts_are_delayed_but_not_a_manual_one(machine: Machine) -> None:
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    since = machine.cursor()
    for _ in range(3):
        pid = machine.pid(0)
        machine.run("kill", "-KILL", str(pid))
        machine.wait_for_fresh(0, pid)
    waited = re.findall(r"Failed .* restarting in .*", machine.journal(0, *since))
    assert waited == ["Failed 3 times within minutes, restarting in 3 s"]
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    assert re.findall(r"Failed .* restarting in .*", machine.journal(0, *since)) == waited


def test_missing_camera_stays_stopped_while_the_other_streams(machine: Machine) -> None:
    with machine.viewer(0):
        machine.set_gone("Virtual0")
        machine.run("systemctl", "restart", "camera-soft-cam@1", check=False)
        machine.wait_until(lambda: machine.show(1, "ActiveState")["ActiveState"] == "failed", "the end of camera 1")
        shown = machine.show(1, "ExecMainStatus", "NRestarts", "StatusText")
        assert (shown["ExecMainStatus"], shown["NRestarts"]) == ("66", "0")
        assert "missing" in shown["StatusText"]
        invocation = machine.show(1, "InvocationID")
        machine.get("http://127.0.0.1:18081/snapshot.jpg", "-o", "/dev/null")
        assert machine.status(0)["viewers"] == 1
        time.sleep(3)  # longer than RestartSec
        assert machine.show(1, "InvocationID") == invocation
        assert machine.show(1, "ActiveState", "NRestarts") == {"ActiveState": "failed", "NRestarts": "0"}


def test_camera_unplugged_while_streaming(machine: Machine) -> None:
    machine.set_env("cam1_watchdog_timeout=1")
    machine.run("systemctl", "restart", "camera-soft-cam@1")
    with machine.viewer(1):
        machine.wait_until(lambda: machine.status(1)["state"] == "open", "an open camera")
        machine.set_gone("Virtual0")
        machine.freeze()
        machine.wait_until(lambda: machine.show(1, "ExecMainStatus")["ExecMainStatus"] == "66", "exit 66")
        machine.thaw()
        assert machine.show(1, "NRestarts")["NRestarts"] == "0"
        assert machine.is_active(0)


def lines_of(machine: Machine, camera: int) -> list[tuple[bool, str]]:
    """The log over HTTP: whether each line is of the current run, and its level and message."""
    code, body = machine.get(f"http://127.0.0.1:{18081 + camera}/v1/system/logs?lines=1000")
    assert code == 200
    content = json.loads(body)
    return [(each["run"] == content["run"], f"{each['level']} {each['message']}") for each in content["entries"]]


def wait_for_answer(machine: Machine, camera: int = 0) -> None:
    machine.wait_until(lambda: machine.get(f"http://127.0.0.1:{18081 + camera}/health")[0] == 200, "an answer")


@pytest.mark.parametrize("whole_unit", [False, True])
def test_log_of_a_killed_portal(machine: Machine, whole_unit: bool) -> None:
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    machine.get("http://127.0.0.1:18081/snapshot.jpg", "-o", "/dev/null")
    pid, before = machine.pid(0), lines_of(machine, 0)
    if whole_unit:
        machine.run("systemctl", "kill", "-s", "KILL", "camera-soft-cam@0")
    else:
        machine.run("kill", "-KILL", str(pid))
    machine.wait_for_fresh(0, pid)
    wait_for_answer(machine)
    lines = lines_of(machine, 0)
    assert [(False, line) for _, line in before] == lines[: len(before)]
    # With the whole unit, systemd 257 may fail to start ExecStopPost=, which notes the reason.
    reason = "(signal .killed KILL.|killed, crashed, or the power failed)" if whole_unit else "signal .killed KILL."
    pattern = f"WARNING Previous run ended unexpectedly: {reason}"
    assert [line for is_own, line in lines if is_own and re.fullmatch(pattern, line)]
    files = machine.run("find", "/run/private/camera-soft-cam/0", "-name", "log.*", "-printf", "%m %f\n").stdout
    assert sorted(files.splitlines()) == ["600 log.0", "600 log.1"]


def test_log_survives_a_stop_and_invalid_settings(machine: Machine) -> None:
    machine.run("systemctl", "stop", "camera-soft-cam@0")
    machine.run("systemctl", "start", "camera-soft-cam@0")
    wait_for_answer(machine)
    assert (False, "INFO Exit code 0") in lines_of(machine, 0)
    machine.set_env("CAMERA_WIDTH=wide")
    machine.run("systemctl", "restart", "camera-soft-cam@0", check=False)
    machine.put_right()
    wait_for_answer(machine)
    lines = lines_of(machine, 0)
    assert (False, "ERROR Exit code 78") in lines
    assert any(not is_own and line.startswith("ERROR CAMERA_WIDTH 'wide': must be") for is_own, line in lines)
    assert not any("unexpectedly" in line for is_own, line in lines if is_own)


def test_frozen_camera_is_restarted_then_the_process(machine: Machine) -> None:
    machine.set_env("CAMERA_WATCHDOG_TIMEOUT=1")
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    pid, since = machine.pid(0), machine.cursor()
    with machine.viewer(0):
        machine.wait_until(lambda: machine.status(0)["state"] == "open", "an open camera")
        machine.freeze()
        wait_for_status(machine, 0, "restarting: no frame for 1 s")
        machine.thaw()
        wait_for_status(machine, 0, r"open, 1 client, .*")
        assert machine.pid(0) == pid
        assert machine.status(0)["restarts"] >= 1
        assert "No frame for 1.0 s" in machine.journal(0, *since, "-p", "warning")
        machine.freeze()
        machine.wait_for_fresh(0, pid)
        machine.thaw()
        assert "status=70" in machine.journal(0, *since)
    assert machine.get("http://127.0.0.1:18081/snapshot.jpg", "-o", "/dev/null")[0] == 200


def test_busy_camera_is_retried(machine: Machine) -> None:
    machine.run("systemctl", "stop", "camera-soft-cam@1")
    machine.set_env("cam1_id=Virtual1")  # the id of camera 0
    with machine.viewer(0):
        machine.wait_until(lambda: machine.status(0)["state"] == "open", "an open camera")
        since = machine.cursor()
        machine.run("systemctl", "start", "camera-soft-cam@1")
        machine.get("http://127.0.0.1:18082/snapshot.jpg", "-o", "/dev/null")
        machine.wait_until(lambda: "status=69" in machine.journal(1, *since), "exit 69")
        machine.wait_until(lambda: machine.is_active(1), "another try")
        assert int(machine.show(1, "NRestarts")["NRestarts"]) >= 1


@pytest.mark.parametrize(
    ("setting", "code"), [("CAMERA_WIDTH=wide", "78"), ("cam0_id=nothing-of-this-name", "66")], ids=["78", "66"]
)
def test_permanent_failure_is_not_retried(machine: Machine, setting: str, code: str) -> None:
    machine.set_env(setting)
    machine.run("systemctl", "restart", "camera-soft-cam@0", check=False)
    shown = machine.show(0, "ActiveState", "ExecMainStatus", "NRestarts", "Result")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": code, "NRestarts": "0", "Result": "exit-code"}


def test_invalid_flags_are_not_retried(machine: Machine) -> None:
    started = machine.run("systemctl", "cat", "camera-soft-cam@0").stdout
    command = re.findall(r"(?m)^ExecStart=(.+)$", started)[-1]
    machine.set_drop_in(f"[Service]\nExecStart=\nExecStart={command} --width wide\n")
    machine.run("systemctl", "restart", "camera-soft-cam@0", check=False)
    shown = machine.show(0, "ActiveState", "ExecMainStatus", "NRestarts")
    assert shown == {"ActiveState": "failed", "ExecMainStatus": "2", "NRestarts": "0"}


@pytest.mark.parametrize("fault", ["accept loop", "whole process"])
def test_hanging_portal_is_killed_by_the_watchdog(machine: Machine, fault: str) -> None:
    # Pings are sent every third of that; the server has 5 s to answer before the log reports it.
    limit_s = 12 if fault == "accept loop" else 6
    machine.set_drop_in(f"[Service]\nWatchdogSec={limit_s}\nTimeoutStopSec=2\n")
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    pid, since = machine.pid(0), machine.cursor()
    machine.run("kill", "-USR2" if fault == "accept loop" else "-STOP", str(pid))
    machine.wait_for_fresh(0, pid)
    said = machine.journal(0, *since)
    assert f"Watchdog timeout (limit {limit_s}s)!" in said
    if fault == "accept loop":
        assert "Health check failed, withholding watchdog ping: the server does not answer" in said
        # faulthandler's stack of every thread.
        assert "Fatal Python error: Aborted" in said
    wait_for_answer(machine)
    ended = [line for is_own, line in lines_of(machine, 0) if is_own and "unexpectedly" in line]
    assert len(ended) == 1
    assert ended[0].startswith("WARNING Previous run ended unexpectedly: watchdog (")


def test_healthy_portal_sends_pings(machine: Machine) -> None:
    machine.set_drop_in("[Service]\nWatchdogSec=6\n")
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    pid = machine.pid(0)
    stamps: set[str] = set()

    def pinged() -> bool:
        stamps.add(machine.show(0, "WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"])
        return len(stamps) > 4

    machine.wait_until(pinged, "four pings")
    assert machine.pid(0) == pid


def test_many_clients_in_the_sandbox(machine: Machine) -> None:
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    since, pid = machine.cursor(), machine.pid(0)
    with contextlib.ExitStack() as crowd:
        for _ in range(32):
            crowd.enter_context(machine.viewer(0))
        machine.wait_until(lambda: machine.status(0)["viewers"] == 32, "32 viewers")

        def is_by_one_call() -> bool:
            return "io_uring" in machine.run("ls", "-l", f"/proc/{pid}/fd").stdout

        # If this machine's kernel does not allow io_uring, the log says so.
        words = "io_uring unavailable, using send()"
        machine.wait_until(lambda: is_by_one_call() or words in machine.journal(0, *since), "a way to send")
        done = machine.net(str(PROJECT / "measure_fps.py"), "http://127.0.0.1:18081/stream.mjpg", "--frames", "20")
        assert "20" in done.stdout
        assert machine.status(0)["viewers"] >= 9
        assert machine.status(0)["last_error"] is None
    assert machine.pid(0) == pid


def test_state_folder_is_private(machine: Machine) -> None:
    path = "/var/lib/private/camera-soft-cam/0"
    assert machine.run("stat", "-c", "%a", path).stdout == "700\n"
    pid = str(machine.pid(0))
    assert "STATE_DIRECTORY=/var/lib/camera-soft-cam/0" in machine.run("cat", f"/proc/{pid}/environ").stdout


def test_secrets_are_not_exposed(machine: Machine) -> None:
    machine.set_env(f"CAMERA_API_KEY={KEY}", f"CAMERA_VIEW_KEY={VIEW_KEY}", "CAMERA_LOG_LEVEL=DEBUG")
    assert machine.run("stat", "-c", "%a %U", ENV_FILE).stdout == "600 root\n"
    machine.run("systemctl", "restart", "camera-soft-cam@0", "camera-soft-cam@1")
    said = machine.deploy("--cameras", "0,1", "--with-nginx").stdout
    machine.sync_journal()
    assert machine.get("http://127.0.0.1:18081/v1/camera/status")[0] == 401
    assert machine.get("http://127.0.0.1:18081/v1/camera/status", "-H", f"X-API-Key: {KEY}")[0] == 200
    assert machine.get("http://127.0.0.1:18081/stream.mjpg", "-H", f"X-API-Key: {KEY}x")[0] == 401
    # nginx sends it to the portal only.
    password = machine.run("cat", "/etc/camera-streamer/nginx-password").stdout.strip()
    outside = "http://127.0.0.1:8081/v1/camera/status"
    # For a moment after a reload nginx's old workers still answer.
    machine.wait_until(lambda: machine.get(outside, "-u", f"camera:{password}")[0] == 200, "the key for nginx")
    assert KEY not in machine.get(outside, "-u", f"camera:{password}")[1]
    places = {
        "deploy.sh": said,
        "journal": machine.run("journalctl", "--no-pager", "-o", "verbose").stdout,
        "systemctl show": machine.run("systemctl", "show", "camera-soft-cam@0", "camera-soft-cam@1").stdout,
        "systemctl cat": machine.run("systemctl", "cat", "camera-soft-cam@0").stdout,
        "command lines": machine.run("ps", "axww", "-o", "args").stdout,
    }
    encoded = re.search(r"Basic (\S+)\"", machine.run("cat", "/etc/nginx/camera-soft-cam0.key").stdout)
    assert encoded is not None
    for secret in (KEY, VIEW_KEY, encoded[1], password):
        assert {place for place, text in places.items() if secret in text} == set()
        # As another user: no readable file has it.
        found = machine.run(
            *("runuser", "-u", "pi", "--", "grep", "-rsl", "--binary-files=text", "-e", secret),
            *("/etc", "/run", "/var", "/tmp", "/opt/camera-soft-stream", "/home"),
            check=False,
        )
        assert found.stdout == ""


def has_called_hook(machine: Machine, camera: int) -> bool:
    return bool(machine.status(camera)["hook"]["calls"] > 0)


def test_hook_of_the_owner(machine: Machine) -> None:
    hook = "def dark(rgb, metadata):\n    rgb[:] = 0\n    return rgb\n"
    machine.run("install", "-d", "-m", "755", "/srv/hooks")
    machine.write("/srv/hooks/night.py", hook)
    machine.set_env("PYTHONPATH=/srv/hooks", "cam0_hook=night:dark", "cam1_hook=integrations.hooks.stamp:stamp")
    assert "done: " in machine.deploy().stdout  # it checks the settings, and restarts the instances
    for camera in (0, 1):
        with machine.viewer(camera):
            machine.wait_until(partial(has_called_hook, machine, camera), "calls of the hook")
            assert machine.status(camera)["hook"]["failures"] == 0
    machine.run("rm", "-r", "/srv/hooks")
