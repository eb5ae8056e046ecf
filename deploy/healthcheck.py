#!/usr/bin/env python3
"""Checks a portal on this machine with the portal's own settings; used by host.py.

    healthcheck.py health N SECONDS  wait for a healthy portal and fetch a snapshot; prints one line. Exit 1 if it is
                                     not healthy in time, 3 without a snapshot
    healthcheck.py port N            print the portal's port
    healthcheck.py rtsp N            request a description from its RTSP server; prints one line. Exit 1 if there is
                                     none although the camera delivers a picture, or no key is required
    healthcheck.py nginx N           print the nginx directive with the API key, for a file that only root can read

It must run in the unit's environment, which has the API key. The key is sent to the portal and nowhere else.
"""

import base64
import http.client
import json
import os
import socket
import sys
import time
from contextlib import closing, suppress
from http import HTTPStatus
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from softcam.config.loader import load
from softcam.config.settings import Settings

_RETRY_S = 0.2
_REQUIRED = frozenset({"camera", "stuck"})
_HEALTH_TIMEOUT_S = 5.0
_MAX_LINE = 1000
_SNAPSHOT_TIMEOUT_S = 20.0  # opening, exposure, focus; the portal itself times out after ten


def main() -> int:
    what, number, *rest = sys.argv[1:]
    settings = load(["--camera", number], os.environ)
    match what:
        case "health":
            return _check(settings, float(rest[0]))
        case "port":
            print(settings.port_for(int(number)))
        case "rtsp":
            return _check_rtsp(settings)
        case _:
            # Base64 has no characters that are special in nginx's configuration. Without a key, the empty value keeps
            # nginx's own password from the portal.
            print(f'proxy_set_header Authorization "{_authorization(settings)}";')
    return 0


def _check(settings: Settings, timeout_s: float) -> int:
    started_s = time.monotonic()
    while True:
        try:
            version, problems = _health(settings)
            break
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            if time.monotonic() - started_s > timeout_s:
                print(f"not healthy after {timeout_s:.0f} s: {error}")
                return 1
        time.sleep(_RETRY_S)
    host, port = _address(settings)
    health = f"healthy at http://{f'[{host}]' if ':' in host else host}:{port}, version {version}"
    if problems:
        health += f"; other problems: {', '.join(problems)}"
    if not settings.enabled:
        print(f"{health}; switched off in its settings")
        return 0
    started_s = time.monotonic()
    try:
        snapshot = _get(settings, "/snapshot.jpg", _SNAPSHOT_TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        print(f"{health}; no snapshot: {error}")
        return 3
    print(f"{health}; snapshot of {len(snapshot) // 1024} KiB after {time.monotonic() - started_s:.1f} s")
    return 0


def _health(settings: Settings) -> tuple[str, list[str]]:
    """The version of a portal whose camera and threads work, and its other problems, such as a full disk.

    Those are no reason to return to an earlier release. Raises OSError, HTTPException, ValueError or KeyError.
    """
    status, content = _fetch(settings, "/health", _HEALTH_TIMEOUT_S)
    is_other_problem = False
    with suppress(ValueError, KeyError, TypeError):
        is_other_problem = _REQUIRED.isdisjoint(json.loads(content)["problems"])
    if status != HTTPStatus.OK and not is_other_problem:
        raise OSError(_reason(status, content))
    answer = json.loads(content)
    return answer["version"], answer.get("problems", [])


def _check_rtsp(settings: Settings) -> int:
    if settings.rtsp_port is None or not settings.enabled:
        print("RTSP is off in its settings")
        return 0
    address = _local(settings.rtsp_host or settings.host), settings.rtsp_port
    words = f"RTSP at port {settings.rtsp_port}"
    try:
        if (status := _describe(address, "")) != HTTPStatus.UNAUTHORIZED:
            print(f"{words} requires no password (status {status})")
            return 1
        status = _describe(address, _authorization(settings))
        if status == HTTPStatus.OK:
            print(f"{words} delivers H.264 and requires a password")
            return 0
        problem = f"status {status}"
    except (OSError, ValueError, IndexError) as error:
        problem = str(error)
    print(f"{words} does not work: {problem}")
    try:
        _get(settings, "/snapshot.jpg", _SNAPSHOT_TIMEOUT_S)
    except (OSError, http.client.HTTPException) as error:
        print(f"{words}: no H.264, as the camera delivers no picture: {error}")
        return 0
    return 1


def _describe(address: tuple[str, int], authorization: str) -> int:
    """The status of a DESCRIBE, which opens the camera. Raises OSError, ValueError or IndexError."""
    host = f"[{address[0]}]" if ":" in address[0] else address[0]
    credentials = f"Authorization: {authorization}\r\n" if authorization else ""
    with socket.create_connection(address, timeout=_SNAPSHOT_TIMEOUT_S) as connection:
        head = f"DESCRIBE rtsp://{host}:{address[1]}/ RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n"
        connection.sendall(f"{head}{credentials}\r\n".encode())
        with connection.makefile("rb") as response:
            return int(response.readline(_MAX_LINE).split()[1])


def _address(settings: Settings) -> tuple[str, int]:
    return _local(settings.host), settings.port_for(settings.camera_number or 0)


def _local(host: str) -> str:
    """Where a server that listens on this address can be reached on this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)


def _get(settings: Settings, path: str, timeout_s: float) -> bytes:
    """The content at a path of the portal. Raises OSError or HTTPException, with the portal's reason."""
    status, content = _fetch(settings, path, timeout_s)
    if status != HTTPStatus.OK:
        raise OSError(_reason(status, content))
    return content


def _fetch(settings: Settings, path: str, timeout_s: float) -> tuple[int, bytes]:
    """Status and content at a path of the portal. Raises OSError or HTTPException."""
    headers = {"Authorization": value} if (value := _authorization(settings)) else {}
    with closing(http.client.HTTPConnection(*_address(settings), timeout=timeout_s)) as connection:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()


def _reason(status: int, content: bytes) -> str:
    detail = ""
    with suppress(ValueError, KeyError, TypeError):
        detail = f", {json.loads(content)['detail']}"
    return f"status {status}{detail}"


def _authorization(settings: Settings) -> str:
    key = settings.api_key or settings.view_key  # either can read
    return "" if key is None else "Basic " + base64.b64encode(f"nginx:{key}".encode()).decode()


if __name__ == "__main__":
    raise SystemExit(main())
