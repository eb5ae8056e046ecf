"""What is written about the diagnosis: docs/diagnose.md, its example, and the forms for bug reports."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.diagnose import parse_report
from tests.unit.diagnose.test_diagnosis import CAMERA, MACHINE

PROJECT = Path(__file__).resolve().parents[3]
PAGE = (PROJECT / "docs" / "diagnose.md").read_text()
FORMS = PROJECT / ".github" / "ISSUE_TEMPLATE"


def test_every_check_is_documented() -> None:
    documented = re.findall(r"^\| `([a-z0-9_.…]+)` \|", PAGE.partition("## Checks")[2], re.MULTILINE)
    groups = {re.sub(r"^control\..*", "control.…", name) for name in (*MACHINE, "first_frame", *CAMERA)}
    assert set(documented) == groups
    assert len(documented) == len(groups)


def test_example_conforms_to_the_schema() -> None:
    (example,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    whole: dict[str, Any] = {
        "format": 1,
        "soft_stream": "1.0.0",
        "time": "2026-11-30T12:00:00Z",
        "duration_s": 5.1,
        "camera": "pattern",
        "status": "ok",
        "interrupted_by": None,
        "checks": [json.loads(example)],
        "settings": [],
        "log": [],
        "libcamera_log": [],
    }
    parse_report(json.dumps(whole))
    del whole["checks"][0]["data"]["measured_fps"]
    with pytest.raises(AssertionError, match="measured_fps"):
        parse_report(json.dumps(whole))


@pytest.mark.parametrize("name", ["bug_report.yml", "hardware_report.yml"])
def test_form_asks_for_the_report(name: str) -> None:
    form = yaml.safe_load((FORMS / name).read_text())
    assert form["name"]
    assert form["description"]
    (report,) = [
        part["attributes"]
        for part in form["body"]
        if part["type"] == "textarea" and "--diagnose --json" in part["attributes"].get("description", "")
    ]
    assert report["render"] == "json"
    assert {part["type"] for part in form["body"]} <= {"textarea", "input", "markdown"}
