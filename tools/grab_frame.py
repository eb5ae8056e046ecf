#!/usr/bin/env python3
"""Prints the status of a portal, saves a snapshot, or shows the stream in a window.

    tools/grab_frame.py --host pi.local --status
    tools/grab_frame.py --host pi.local --save photo.jpg
    tools/grab_frame.py --host pi.local --stream

Only --stream needs more than the standard library: OpenCV (apt install python3-opencv); q closes the window. The key is
read from CAMERA_API_KEY.
"""

import argparse
import http.client
import io
import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

OK, USAGE, NO_RESPONSE, REFUSED = 0, 2, 3, 4
FIRST_PORT = 18081

_LIMIT_S = 20.0  # a closed camera must open, focus and settle first
_WINDOW = "Soft Stream (q: quit)"


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 success, 2 usage, 3 no response, 4 the portal returned an error."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what is shown need not be text in the encoding of the terminal
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parse(argv)
    try:
        if options.stream:
            return _show(options)
        began_s = time.monotonic()
        with _request(options, "status" if options.status else "frame") as response:
            answer = response.read()
        took_s = time.monotonic() - began_s
        status = json.loads(answer) if options.status else None
    except urllib.error.HTTPError as error:
        return _fail(REFUSED, f"{error.code} {error.reason}: {_detail(error.read())}")
    except (OSError, http.client.HTTPException, ValueError) as error:
        return _fail(NO_RESPONSE, f"no response from {options.host}:{options.port}: {getattr(error, 'reason', error)}")
    except KeyboardInterrupt:
        return OK
    if options.status:
        print(json.dumps(status, indent=2, ensure_ascii=False))
        return OK
    try:
        options.save.write_bytes(answer)
    except OSError as error:
        return _fail(USAGE, f"cannot write {options.save}: {error.strerror}")
    print(f"{options.save}: {len(answer) / 1000:.0f} kB after {took_s:.2f} s")
    return OK


def _fail(code: int, message: str) -> int:
    print(f"grab_frame.py: {message}", file=sys.stderr)
    return code


def _show(options: argparse.Namespace) -> int:
    try:
        import cv2
        import numpy as np
    except ImportError as error:
        return _fail(USAGE, f"--stream needs OpenCV (apt install python3-opencv): {error}")
    try:
        for jpeg in _jpegs(options):
            image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                cv2.imshow(_WINDOW, image)
            if cv2.waitKey(1) & 0xFF == ord("q"):
                break
        cv2.destroyAllWindows()
    except cv2.error as error:  # built without windows, or no screen
        return _fail(USAGE, f"OpenCV cannot open a window: {str(error).strip()}")
    return OK


def _jpegs(options: argparse.Namespace) -> Iterator[bytes]:
    """Yield the JPEGs of the stream until it ends."""
    with _request(options, "stream") as answer:
        while True:
            length = None
            while line := answer.readline():
                if not line.strip() and length is not None:
                    break
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if length is None or len(jpeg := answer.read(length)) < length:
                return
            yield jpeg


def _request(options: argparse.Namespace, name: str) -> Any:
    """The portal's response. Raises HTTPError for any status but 200."""
    parameters = {"quality": options.quality, "fps": options.fps if options.stream else None}
    query = "&".join(f"{key}={value:g}" for key, value in parameters.items() if value is not None)
    host = f"[{options.host}]" if ":" in options.host else options.host
    url = f"http://{host}:{options.port}/api/camera/{name}{'?' if query else ''}{query}"
    key = os.environ.get("CAMERA_API_KEY")
    request = urllib.request.Request(url, headers={"X-API-Key": key} if key else {})
    return urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_LIMIT_S)


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip()


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="grab_frame.py", description="Print the status of a portal, save a snapshot, or show its stream."
    )
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=FIRST_PORT, help=f"default {FIRST_PORT} (camera 0)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--status", action="store_true", help="print the status of the camera")
    what.add_argument("--save", type=Path, metavar="FILE", help="save a snapshot")
    what.add_argument("--stream", action="store_true", help="show the stream in a window; q closes it")
    parser.add_argument("--quality", type=int, help="JPEG quality, 1 to 100")
    parser.add_argument("--fps", type=float, help="maximum frame rate of --stream")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
