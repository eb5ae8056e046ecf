"""A short run of the fuzzer. `make fuzz` runs it for an hour."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.endurance.fuzz import FLAGS, STATUSES, Findings, Wrong, check_http, check_rtsp, fuzz

SECONDS = 20.0
SEED = 1


def test_random_requests(start_portal: Callable[..., Portal], tmp_path: Path) -> None:
    findings = Findings(None)
    fuzz(start_portal(*FLAGS, "--recordings", str(tmp_path)), SECONDS, SEED, findings)
    seen = {name.split()[1] for name in findings.statuses}
    assert {"200", "400", "404", "405", "closed"} <= seen
    assert findings.total > 1000


JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"


def test_right_responses() -> None:
    assert all(check_http(b"HTTP/1.1 %d X\r\n\r\n" % status, has_body=False) == status for status in STATUSES)
    assert check_http(JSON_HEAD + b"\r\n{}", has_body=True) == 200
    assert check_http(b"", has_body=True) == 0
    assert check_rtsp(b"RTSP/1.0 454 Session Not Found\r\n\r\n") == 454


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: x\r\nServer: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\nb\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"<html>",
        JSON_HEAD + b"\r\n{]",
        JSON_HEAD.replace(b"200", b"404").replace(b"2\r", b"12\r") + b'\r\n{"error": 1}',
    ],
)
def test_wrong_responses_are_noticed(response: bytes) -> None:
    with pytest.raises(Wrong):
        check_http(response, has_body=True)


def test_wrong_rtsp_responses_are_noticed() -> None:
    with pytest.raises(Wrong):
        check_rtsp(b"RTSP/1.0 500 Internal Server Error\r\n\r\n")
