#!/usr/bin/env python3
"""Asks a portal on this machine how it is, with the settings that it has itself; for deploy.sh.

    probe.py look N SECONDS   wait until it says that it is well, and fetch a snapshot; one line of it. Exit 1 where it
                              is not well in time, 3 where there is no picture
    probe.py port N           print its port
    probe.py nginx N          print nginx's line that shows it the API key; for a file that only root reads

Run it where the unit's environment is: the key comes from there, and goes nowhere but into the request.
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

from softcam.config.settings import Settings, load

_ASK_AGAIN_S = 0.2
_ANSWER_LIMIT_S = 5.0
_PICTURE_LIMIT_S = 20.0  # opening, exposure, focus; the portal itself gives up after ten


def main() -> int:
    what, number, *rest = sys.argv[1:]
    settings = load(["--camera", number], os.environ)
    match what:
        case "look":
            return _look(settings, float(rest[0]))
        case "port":
            print(settings.port_for(int(number)))
        case "nginx":
            # Base64 has nothing in it that nginx's configuration takes for its own. Without a key the password that
            # was shown to nginx goes no further.
            print(f'proxy_set_header Authorization "{_authorization(settings)}";')
        case _:
            raise SystemExit(__doc__)
    return 0


def _look(settings: Settings, patience_s: float) -> int:
    began_s = time.monotonic()
    while True:
        try:
            with _get(settings, "/health", _ANSWER_LIMIT_S) as answer:
                well = f"well at {_url(settings)}, version {json.load(answer)['version']}"
            break
        except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
            if time.monotonic() - began_s > patience_s:
                print(f"not well after {patience_s:.0f} s: {_reason(error)}")
                return 1
        time.sleep(_ASK_AGAIN_S)
    if not settings.enabled:
        print(f"{well}; switched off by its settings")
        return 0
    began_s = time.monotonic()
    try:
        with _get(settings, "/snapshot.jpg", _PICTURE_LIMIT_S) as answer:
            picture = answer.read()
    except (OSError, http.client.HTTPException) as error:
        print(f"{well}; no picture: {_reason(error)}")
        return 3
    print(f"{well}; a picture of {len(picture) // 1024} KiB after {time.monotonic() - began_s:.1f} s")
    return 0


def _url(settings: Settings) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(settings.host, settings.host)
    port = settings.port_for(settings.camera_number or 0)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _get(settings: Settings, path: str, timeout_s: float) -> http.client.HTTPResponse:
    request = urllib.request.Request(_url(settings) + path)  # noqa: S310 - the scheme stands above
    authorization = _authorization(settings)
    if authorization:
        request.add_header("Authorization", authorization)
    # Past any proxy that the environment may name: this machine is asked.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    answer: http.client.HTTPResponse = opener.open(request, timeout=timeout_s)
    return answer


def _authorization(settings: Settings) -> str:
    key = settings.api_key or settings.view_key  # whoever looks may have either
    return "" if key is None else "Basic " + base64.b64encode(f"nginx:{key}".encode()).decode()


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        try:
            detail = json.load(error).get("detail")
        except (OSError, ValueError, AttributeError):
            detail = None
        return f"it answers {error.code}{f', {detail}' if detail else ''}"
    return str(getattr(error, "reason", error))


if __name__ == "__main__":
    raise SystemExit(main())
