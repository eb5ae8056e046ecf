"""Reports of `--diagnose --json`: the schema in the repository, and their checks by id."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema_rs

_SCHEMA: Final = Path(__file__).resolve().parents[2] / "docs" / "diagnose.schema.json"


def parse_report(text: str) -> dict[str, Any]:
    """A report that conforms to docs/diagnose.schema.json."""
    report: dict[str, Any] = json.loads(text)
    validator = jsonschema_rs.validator_for(json.loads(_SCHEMA.read_text()))
    errors = [f"{error.instance_path}: {error.message}" for error in validator.iter_errors(report)]
    assert errors == [], "\n".join(errors)
    return report


def checks_of(report: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    checks = {check["id"]: check for check in report["checks"]}
    assert len(checks) == len(report["checks"]), "an id is not unique"
    return checks


def statuses_of(report: Mapping[str, Any]) -> dict[str, str]:
    return {name: check["status"] for name, check in checks_of(report).items()}
