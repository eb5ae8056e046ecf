#!/usr/bin/env python3
"""Checks a portal on this machine with the portal's own settings; used by host.py.

    healthcheck.py health N SECONDS  wait for a healthy portal and fetch a snapshot; prints one line. Exit 1 if it is
                                     not healthy in time, 3 without a snapshot
    healthcheck.py port N            print the portal's port
    healthcheck.py nginx N           print the nginx directive with the API key, for a file that only root can read

It must run in the unit's environment, which has the API key. The key is sent to the portal and nowhere else.
"""

import base64
import http.client
import json
import os
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from softcam.config.loader import load
from softcam.config.settings import Settings

_RETRY_S = 0.2
_HEALTH_TIMEOUT_S = 5.0
_SNAPSHOT_TIMEOUT_S = 20.0  # opening, exposure, focus; the portal itself times out after ten


def main() -> int:
    what, number, *rest = sys.argv[1:]
    settings = load(["--camera", number], os.environ)
    match what:
        case "health":
            return _check(settings, float(rest[0]))
        case "port":
            print(settings.port_for(int(number)))
        case "nginx":
            # Base64 has no characters that are special in nginx's configuration. Without a key, the empty value keeps
            # nginx's own password from the portal.
            print(f'proxy_set_header Authorization "{_authorization(settings)}";')
        case _:
            raise SystemExit(__doc__)
    return 0


def _check(settings: Settings, timeout_s: float) -> int:
    started_s = time.monotonic()
    while True:
        try:
            with _get(settings, "/health", _HEALTH_TIMEOUT_S) as response:
                health = f"healthy at {_url(settings)}, version {json.load(response)['version']}"
            break
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            if time.monotonic() - started_s > timeout_s:
                print(f"not healthy after {timeout_s:.0f} s: {_reason(error)}")
                return 1
        time.sleep(_RETRY_S)
    if not settings.enabled:
        print(f"{health}; switched off in its settings")
        return 0
    started_s = time.monotonic()
    try:
        with _get(settings, "/snapshot.jpg", _SNAPSHOT_TIMEOUT_S) as response:
            snapshot = response.read()
    except (OSError, http.client.HTTPException) as error:
        print(f"{health}; no snapshot: {_reason(error)}")
        return 3
    print(f"{health}; snapshot of {len(snapshot) // 1024} KiB after {time.monotonic() - started_s:.1f} s")
    return 0


def _url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)
    port = settings.port_for(settings.camera_number or 0)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _get(settings: Settings, path: str, timeout_s: float) -> http.client.HTTPResponse:
    headers = {"Authorization": value} if (value := _authorization(settings)) else {}
    request = urllib.request.Request(_url(settings) + path, headers=headers)  # noqa: S310 - the scheme is a literal
    # Without the proxies of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    response: http.client.HTTPResponse = opener.open(request, timeout=timeout_s)
    return response


def _authorization(settings: Settings) -> str:
    key = settings.api_key or settings.view_key  # either can read
    return "" if key is None else "Basic " + base64.b64encode(f"nginx:{key}".encode()).decode()


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        try:
            detail = json.load(error).get("detail")
        except (OSError, ValueError, AttributeError):
            detail = None
        return f"status {error.code}{f', {detail}' if detail else ''}"
    return str(getattr(error, "reason", error))


if __name__ == "__main__":
    raise SystemExit(main())
