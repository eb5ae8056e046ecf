"""What makes `/health` unhealthy: each row of the table in docs/operating.md, and nothing else."""

import json
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from softcam.rtsp.publisher.publisher import PublisherState
from softcam.system.monitor import SystemMonitor
from softcam.web.api.metrics import metrics_routes
from softcam.web.api.problems import (
    CODES,
    Check,
    check_hook,
    check_publishing,
    check_recording,
    check_saved,
    check_stuck,
    current,
)
from softcam.web.api.status import StatusApi
from softcam.web.http.messages import Response
from tests.support.raw_http import make_request
from tests.support.web_app import make_controls

DOCUMENTATION = Path(__file__).resolve().parents[4] / "docs" / "operating.md"
NOTHING = {"controls_set_aside": None, "controls_not_kept": None, "controls_not_applied": ["hdr"]}


def health(checks: Iterable[Check]) -> tuple[int, dict[str, Any]]:
    """Status and content for a camera that is well."""
    api = StatusApi(None, make_controls(), lambda: 0, lambda: 0, True, checks=tuple(checks))
    answer = api.health(make_request("/health"))
    assert isinstance(answer, Response)
    return answer.status, json.loads(answer.body)


@pytest.mark.parametrize(
    ("check", "problems"),
    [
        (check_stuck(lambda: None), []),
        (check_stuck(lambda: "the event loop has not finished its turn for 11 s"), ["stuck"]),
        (check_recording(lambda: None), []),
        (check_recording(lambda: {"last_error": None, "cut_short": {"video": 1000.0}}), []),
        (check_recording(lambda: {"last_error": "No space left on device"}), ["recording"]),
        *(
            (check_publishing(lambda state=state: state), [])  # type: ignore[misc]
            for state in PublisherState
            if state is not PublisherState.FAILED
        ),
        (check_publishing(lambda: PublisherState.FAILED), ["publishing"]),
        (check_hook(lambda: False), []),
        (check_hook(lambda: True), ["hook"]),
        (check_saved(lambda: NOTHING), []),
        (check_saved(lambda: {**NOTHING, "controls_set_aside": "damaged"}), ["controls_set_aside"]),
        (check_saved(lambda: {**NOTHING, "controls_not_kept": "Read-only file system"}), ["controls_not_kept"]),
        (check_saved(lambda: {"presets_set_aside": "damaged", "presets_not_kept": None}), ["presets_set_aside"]),
        (check_saved(lambda: {"presets_set_aside": None, "presets_not_kept": "full"}), ["presets_not_kept"]),
    ],
)
def test_conditions(check: Check, problems: list[str]) -> None:
    status, content = health([check])
    assert content["problems"] == problems
    if problems:
        assert (status, content["status"]) == (HTTPStatus.SERVICE_UNAVAILABLE, "unhealthy")
        assert content["detail"] == CODES[problems[0]], "no text that only those with a key may read"
    else:
        assert (status, content["status"]) == (HTTPStatus.OK, "healthy")
        assert "detail" not in content


def test_most_urgent_problem_first() -> None:
    checks: list[Callable[[], Iterable[str]]] = [lambda: ["hook"], lambda: ["presets_not_kept", "stuck"]]
    assert current(checks) == ["stuck", "hook", "presets_not_kept"]
    assert health(checks)[1]["detail"] == CODES["stuck"]


def test_metrics_and_health_agree() -> None:
    checks = (check_hook(lambda: True), check_stuck(lambda: None))
    api = StatusApi(None, make_controls(), lambda: 0, lambda: 0, True, checks=checks)
    content = {**api.content(), "h264": None, "h264_substream": None}
    machine = SystemMonitor(Path("/"), root=Path("/dev/null"))
    (route,) = metrics_routes(lambda: content, api.problems, machine.state)
    answer = route.handle(make_request("/metrics"))
    assert isinstance(answer, Response)
    (family,) = (each for each in parse(answer.body.decode()) if each.name == "soft_stream_problem")
    assert {sample.labels["code"]: sample.value for sample in family.samples} == {
        code: float(code == "hook") for code in CODES
    }


def test_table_of_conditions_is_complete() -> None:
    section = DOCUMENTATION.read_text().partition("\n## Monitoring\n")[2].partition("\n##")[0]
    documented = re.findall(r"(?m)^\| [^|]+ \| `([a-z_0-9]+)` \|", section)
    assert documented == [*CODES]
