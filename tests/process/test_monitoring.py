"""The alert rules and the dashboard of integrations/monitoring, with Debian's Prometheus and a running portal."""

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from softcam.runtime.log.events import Event
from softcam.system.monitor import SystemMonitor
from softcam.web.api.metrics import metrics_routes
from softcam.web.http.messages import Response
from tests.conftest import PROJECT, Portal
from tests.support import prometheus
from tests.support.background import eventually
from tests.support.http_client import StreamClient, ask, port_of, status_of
from tests.support.machines import PI_3, write_tree
from tests.support.prometheus import FILES, promtool
from tests.support.raw_http import make_request

Start = Callable[..., Portal]
SMALL = ("--width", "320", "--height", "180", "--fps", "20", "--no-autofocus")
DASHBOARD: dict[str, Any] = json.loads((FILES / "dashboard.json").read_text())
# Those of the machine that the test runs on, which may well be hot or have a full disk.
OF_MACHINE = {"DiskNearlyFull", "DiskFilling", "UnderVoltage", "Throttled", "ProcessorHot", "WifiWeak"}
METRIC = re.compile(r"\b(?:soft_stream|process)_[a-z0-9_]+\b")


def dashboard_queries() -> Iterator[str]:
    """With values in place of the variables of Grafana."""
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "1m")


def families(metrics: str) -> set[str]:
    return set(re.findall(r"(?m)^# HELP (\S+)", metrics))


def metrics_of_a_raspberry_pi(portal: Portal, folder: Path) -> str:
    """The portal's status on another machine."""
    machine = SystemMonitor(folder, root=write_tree(folder, PI_3), pause=lambda _: None)
    content = status_of(portal)
    (route,) = metrics_routes(lambda: content, list, machine.state, 1)
    answer = route.handle(make_request("/metrics"))
    assert isinstance(answer, Response)
    return answer.body.decode()


def test_alert_rules() -> None:
    assert "SUCCESS" in promtool("check", "rules", FILES / "alerts.yml")
    assert "SUCCESS" in promtool("test", "rules", FILES / "alerts_test.yml")
    tested = set(re.findall(r'alertname="(\w+)"', (FILES / "alerts_test.yml").read_text()))
    assert tested == set(re.findall(r"- alert: (\w+)", (FILES / "alerts.yml").read_text()))


def test_example_configuration() -> None:
    promtool("check", "config", "--syntax-only", FILES / "prometheus.yml")


def test_queries_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(dashboard_queries())]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML
    assert f"{len(rules)} rules found" in promtool("check", "rules", path)


def test_panels_of_the_dashboard() -> None:
    panels = DASHBOARD["panels"]
    assert DASHBOARD["schemaVersion"] >= 36
    assert {each["name"] for each in DASHBOARD["templating"]["list"]} == {"datasource", "job", "instance"}
    assert len({each["id"] for each in panels}) == len({each["title"] for each in panels}) == len(panels)
    cells: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        covered = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & covered, f"{panel['title']} covers another panel"
        cells |= covered
        for source in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
            assert source == {"type": "prometheus", "uid": "${datasource}"}


def test_table_of_alerts() -> None:
    alerts = re.findall(r"- alert: (\w+)\n(?:.*\n)*?          severity: (\w+)\n", (FILES / "alerts.yml").read_text())
    assert len(alerts) > 20
    assert re.findall(r"(?m)^\| `(\w+)` \| (\w+) \|", (FILES / "README.md").read_text()) == alerts


def test_catalog_of_the_journal(tmp_path: Path) -> None:
    folder = tmp_path / "usr/lib/systemd/catalog"
    folder.mkdir(parents=True)
    shutil.copy(PROJECT / "systemd/soft-stream.catalog", folder)
    for command in ("--update-catalog", "--list-catalog"):
        done = subprocess.run(["journalctl", "--root", tmp_path, command], capture_output=True, text=True, check=True)
        assert done.stderr == ""
    assert [line.split()[0] for line in done.stdout.splitlines()] == sorted(event.value for event in Event)


def test_metrics_exist_and_are_documented(start_portal: Start, tmp_path: Path) -> None:
    portal = start_portal(*SMALL, "--recordings", str(tmp_path / "recordings"), "--recordings-max-bytes", "1000000000")
    with StreamClient(portal) as viewer:
        viewer.next()
        exported = families(ask(portal, "/metrics").body.decode())
    exported |= families(metrics_of_a_raspberry_pi(portal, tmp_path))
    used = set(METRIC.findall((FILES / "alerts.yml").read_text() + " ".join(dashboard_queries())))
    assert used <= exported
    table = (PROJECT / "docs/api.md").read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    assert set(METRIC.findall(table)) == exported


HOOK = """
def fail(image, metadata):
    raise ValueError("no such lamp")
"""


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield reserved.getsockname()[1]


def test_alerts_fire(start_portal: Start, tmp_path: Path, faults: Path, closed_port: int) -> None:
    (tmp_path / "broken_hook.py").write_text(HOOK)
    folder = tmp_path / "portal"
    folder.mkdir()
    (folder / "controls-pattern.json").write_text("damaged")
    recordings = tmp_path / "recordings"
    portal = start_portal(
        *SMALL, "--pattern-faults", str(faults), "--watchdog-timeout", "3", "--state-dir", str(folder),
        "--recordings", str(recordings), "--recordings-autostart", "video", "--hook", "broken_hook:fail",
        "--rtsp-url", f"rtsp://127.0.0.1:{closed_port}/cam0", "--rtsp-autostart",
        environment={"PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    other = start_portal(*SMALL, "--recordings", str(tmp_path / "others"), "--state-dir", str(tmp_path / "other"))
    portal.wait_for_log("Recording ")
    recordings.rename(tmp_path / "away")
    recordings.write_text("a file in place of the folder")
    (folder := tmp_path / "prometheus").mkdir()
    with prometheus.running(folder, {"broken": port_of(portal), "well": port_of(other)}) as server:
        expected = {"RecordingFailing", "PublishingFailing", "HookFailing", "StateQuarantined"}
        eventually(lambda: server.firing("broken") >= expected, "the alerts")
        health = ask(portal, "/health")
        assert health.status == 503
        assert health.json["problems"] == ["recording", "publishing", "hook", "controls_set_aside"]
        faults.write_text("hang")
        eventually(lambda: "CameraDown" in server.firing("broken"), "the alert of the camera")
        assert ask(portal, "/health").json["problems"][0] == "camera"
        faults.write_text("")
        eventually(lambda: "CameraDown" not in server.firing("broken"), "the end of the alert")
        portal.stop()
        eventually(lambda: "PortalDown" in server.firing("broken"), "the alert of the portal")
        assert server.query('up{instance="well"}')[0]["value"][1] == "1"
        assert ask(other, "/health").json["problems"] == []
        assert server.firing("well") - OF_MACHINE == set()
