"""The outcome of the checks, as text and as JSON (docs/diagnose.schema.json). Pure values; any thread."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from softcam.runtime.plural import counted

FORMAT: Final = 1  # of the JSON; increases when a field changes its meaning or is removed
CHECK_CABLE: Final = (
    "check the ribbon cable with the power off; 'rpicam-hello --list-cameras' shows what libcamera finds"
)
_ID_WIDTH: Final = 28
_CONTINUED: Final = " " * 16


class Status(StrEnum):
    """The status of a check, the worst one last."""

    NOT_APPLICABLE = "not_applicable"
    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"

    @property
    def text(self) -> str:
        return self.value.replace("_", " ")


_SEVERITY: Final = tuple(Status)


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: a sentence for people, what to do about it, and the measured values for programs."""

    status: Status
    message: str
    cure: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Result:
    """The finding of the check `id`; `is_skipped`: it did not run, for a reason that all others of the camera share."""

    id: str
    section: str
    finding: Finding
    took_s: float
    is_skipped: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is reported.

    `interrupted_by` is the name of the signal that ended the diagnosis early. `settings` are those that differ from
    their defaults, without secrets. `log` has the lines that were logged meanwhile, `libcamera_log` libcamera's own.
    """

    version: str
    camera: str
    time: str
    duration_s: float
    results: Sequence[Result]
    settings: Sequence[str]
    log: Sequence[str]
    libcamera_log: Sequence[str] = ()
    interrupted_by: str | None = None

    @property
    def status(self) -> Status:
        """The worst status of all checks; an interrupted diagnosis has failed."""
        found = [Status.FAILED] if self.interrupted_by else [result.finding.status for result in self.results]
        return max((Status.OK, *found), key=_SEVERITY.index)

    @property
    def exit_code(self) -> int:
        return int(self.status is Status.FAILED)

    def to_json(self, redact: Callable[[str], str]) -> str:
        content = {
            "format": FORMAT,
            "soft_stream": self.version,
            "time": self.time,
            "duration_s": round(self.duration_s, 3),
            "camera": self.camera,
            "status": self.status,
            "interrupted_by": self.interrupted_by,
            "checks": [
                {
                    "id": result.id,
                    "section": result.section,
                    "status": result.finding.status,
                    "message": result.finding.message,
                    "cure": result.finding.cure,
                    "took_s": round(result.took_s, 3),
                    "data": result.finding.data,
                }
                for result in self.results
            ],
            "settings": list(self.settings),
            "log": list(self.log),
            "libcamera_log": list(self.libcamera_log),
        }
        return json.dumps(_redacted(content, redact), indent=1, ensure_ascii=False, allow_nan=False)


def result_lines(result: Result, redact: Callable[[str], str]) -> list[str]:
    """The lines of one check in the text."""
    finding = result.finding
    lines = [f"{finding.status.text:<{len(_CONTINUED)}}{result.id:<{_ID_WIDTH}} {redact(finding.message)}"]
    if finding.cure is not None:
        lines.append(f"{_CONTINUED}{'':<{_ID_WIDTH}} > {redact(finding.cure)}")
    return lines


def _skipped_lines(results: Sequence[Result], redact: Callable[[str], str]) -> list[str]:
    """One line for all checks that did not run."""
    skipped = [result for result in results if result.is_skipped]
    if not skipped:
        return []
    words = counted(len(skipped), "more check")
    reason = redact(skipped[0].finding.message)
    return [f"{Status.NOT_APPLICABLE.text:<{len(_CONTINUED)}}{words:<{_ID_WIDTH}} {reason}"]


def summary_lines(report: Report, warnings: Sequence[str], redact: Callable[[str], str]) -> list[str]:
    """What follows the checks: settings, `warnings` of the log, and the numbers of checks by status."""
    lines = _skipped_lines(report.results, redact)
    for title, texts in (("Settings", report.settings), ("Log", warnings)):
        if texts:
            lines += ["", title, *(f"  {redact(text)}" for text in texts)]
    counts = {status: sum(result.finding.status is status for result in report.results) for status in Status}
    order = (Status.OK, Status.WARNING, Status.FAILED, Status.NOT_APPLICABLE)
    numbers = ", ".join(f"{counts[status]} {status.text}" for status in order)
    end = "" if report.interrupted_by is None else f"; interrupted by {report.interrupted_by}"
    return [*lines, "", f"{numbers}, in {report.duration_s:.0f} s{end}"]


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    """The value as JSON can have it, without secrets."""
    match value:
        case str():
            return redact(value)
        case Mapping():
            return {name: _redacted(each, redact) for name, each in value.items()}
        case list() | tuple():
            return [_redacted(each, redact) for each in value]
        case float() if not math.isfinite(value):  # JSON has no such numbers
            return None
        case None | int() | float():
            return value
    return redact(str(value))  # an object of libcamera in the metadata
