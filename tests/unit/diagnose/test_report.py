"""The report as text and as JSON: the status of the whole, secrets, checks that did not run."""

import json
import math
from pathlib import Path

import pytest

from softcam.diagnose.report import Finding, Report, Result, Status, result_lines, summary_lines
from softcam.runtime.redact import Redactor
from tests.support.diagnose import parse_report

SECRET = "correct-horse-battery"


def report_of(*findings: Finding, interrupted_by: str | None = None, is_skipped: bool = False) -> Report:
    return Report(
        version="1.2.3",
        camera="pattern",
        time="2026-11-30T12:00:00Z",
        duration_s=12.3456,
        results=[
            Result(f"check_{number}", "Machine", finding, 0.12345, is_skipped=is_skipped)
            for number, finding in enumerate(findings)
        ],
        settings=["width = 640  (--width)"],
        log=[f"2026-11-30 12:00:00,000 INFO the key is {SECRET}"],
        interrupted_by=interrupted_by,
    )


def plain(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("statuses", "expected", "exit_code"),
    [
        ([], "ok", 0),
        (["not_applicable"], "ok", 0),
        (["ok", "not_applicable"], "ok", 0),
        (["ok", "warning", "ok"], "warning", 0),
        (["failed", "warning", "ok"], "failed", 1),
    ],
)
def test_status_is_the_worst_one(statuses: list[str], expected: str, exit_code: int) -> None:
    report = report_of(*(Finding(Status(status), "a reason") for status in statuses))
    assert (report.status, report.exit_code) == (expected, exit_code)
    assert parse_report(report.to_json(plain))["status"] == expected


def test_interrupted_diagnosis_has_failed() -> None:
    report = report_of(Finding(Status.OK, "fine"), interrupted_by="SIGTERM")
    assert report.exit_code == 1
    assert parse_report(report.to_json(plain))["interrupted_by"] == "SIGTERM"
    assert summary_lines(report, [], plain)[-1].endswith("in 12 s; interrupted by SIGTERM")


def test_json_has_no_secrets() -> None:
    finding = Finding(
        Status.FAILED,
        f"no answer from http://user:{SECRET}@10.0.0.1/",
        f"use {SECRET}",
        {"list": [SECRET], "tuple": (f"x {SECRET}",), "nested": {"text": SECRET}, "number": 1.5, "none": None},
    )
    text = report_of(finding).to_json(Redactor([SECRET]))
    assert SECRET not in text
    data = parse_report(text)["checks"][0]["data"]
    assert data == {"list": ["***"], "tuple": ["x ***"], "nested": {"text": "***"}, "number": 1.5, "none": None}


def test_json_of_any_metadata() -> None:
    """libcamera reports numbers that JSON does not have, and objects."""
    data = {"lens": math.nan, "gain": (math.inf, 1.5), "crop": Path("(0, 0)/4x3"), "on": True}
    report = parse_report(report_of(Finding(Status.OK, "fine", data=data)).to_json(plain))
    assert report["checks"][0]["data"] == {"lens": None, "gain": [None, 1.5], "crop": "(0, 0)/4x3", "on": True}


def test_text_has_no_secrets() -> None:
    finding = Finding(Status.FAILED, f"the key {SECRET} is wrong", f"do not use {SECRET}")
    report = report_of(finding)
    redact = Redactor([SECRET])
    lines = [*result_lines(report.results[0], redact), *summary_lines(report, report.log, redact)]
    assert SECRET not in "\n".join(lines)
    assert lines[0].split() == ["failed", "check_0", "the", "key", "***", "is", "wrong"]
    assert lines[1].strip() == "> do not use ***"
    assert "  width = 640  (--width)" in lines
    assert lines[-1] == "0 ok, 0 warning, 1 failed, 0 not applicable, in 12 s"


def test_skipped_checks_have_one_line() -> None:
    finding = Finding(Status.NOT_APPLICABLE, "the camera has failed: busy")
    lines = summary_lines(report_of(finding, finding, is_skipped=True), [], plain)
    assert lines[0].split(maxsplit=5) == ["not", "applicable", "2", "more", "checks", "the camera has failed: busy"]
    assert len(json.loads(report_of(finding, finding, is_skipped=True).to_json(plain))["checks"]) == 2
