#!/usr/bin/env python3
"""Asks a portal for its state or a picture, or shows its stream in a window.

    tools/grab_frame.py --host pi.local --status
    tools/grab_frame.py --host pi.local --save photo.jpg
    tools/grab_frame.py --host pi.local --stream

The standard library alone; only --stream wants OpenCV (apt install python3-opencv), and is ended with q. A key is read
from CAMERA_API_KEY.
"""

import argparse
import http.client
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

OK, USAGE, NO_ANSWER, REFUSED = 0, 2, 3, 4
FIRST_PORT = 18081

_LIMIT_S = 20.0  # a camera that is closed has to open, focus and settle first
_LARGEST = 64 << 20
_WINDOW = "Soft Stream, q ends"


class RtspRejected(Exception):
    """The portal answers, and gives nothing; the message has its reason."""


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 well, 2 usage, 3 no answer, 4 the portal says no."""
    wish = _parse(argv)
    try:
        if wish.stream:
            return _show(wish)
        began_s = time.monotonic()
        answer = _get(wish, "/api/camera/status" if wish.status else f"/api/camera/frame{_query(wish)}")
        took_s = time.monotonic() - began_s
        status = json.loads(answer) if wish.status else None
    except RtspRejected as error:
        print(f"grab_frame.py: {error}", file=sys.stderr)
        return REFUSED
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"grab_frame.py: no answer from {wish.host}:{wish.port}: {error}", file=sys.stderr)
        return NO_ANSWER
    except KeyboardInterrupt:
        return OK
    if wish.status:
        print(json.dumps(status, indent=2, ensure_ascii=False))
        return OK
    try:
        wish.save.write_bytes(answer)
    except OSError as error:
        print(f"grab_frame.py: {wish.save} cannot be written: {error.strerror}", file=sys.stderr)
        return USAGE
    print(f"{wish.save}: {len(answer) / 1000:.0f} kB after {took_s:.2f} s")
    return OK


def _show(wish: argparse.Namespace) -> int:
    try:
        import cv2
        import numpy as np
    except ImportError as error:
        print(f"grab_frame.py: --stream needs OpenCV (apt install python3-opencv): {error}", file=sys.stderr)
        return USAGE
    try:
        for picture in _pictures(wish):
            image = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                cv2.imshow(_WINDOW, image)
            if cv2.waitKey(1) & 0xFF == ord("q"):
                break
        cv2.destroyAllWindows()
    except cv2.error as error:  # built without windows, or no screen
        print(f"grab_frame.py: OpenCV shows no window here: {str(error).strip()}", file=sys.stderr)
        return USAGE
    return OK


def _pictures(wish: argparse.Namespace) -> Iterator[bytes]:
    """The pictures of the stream, until it ends."""
    with _ask(wish, f"/api/camera/stream{_query(wish)}") as answer:
        while True:
            length = None
            while line := answer.readline():
                if not line.strip() and length is not None:
                    break
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            if length is None or len(picture := answer.read(length)) < length:
                return
            yield picture


def _get(wish: argparse.Namespace, target: str) -> bytes:
    with _ask(wish, target) as answer:
        body = answer.read(_LARGEST)
        if answer.length:  # of what was announced; Python itself tells that only where all is read at once
            raise http.client.IncompleteRead(body, answer.length)
        return body


def _ask(wish: argparse.Namespace, target: str) -> http.client.HTTPResponse:
    """The answer, which closes its connection when it is closed. Raises Refused for anything but success."""
    connection = http.client.HTTPConnection(wish.host, wish.port, timeout=_LIMIT_S)
    key = os.environ.get("CAMERA_API_KEY")
    try:
        connection.request("GET", target, headers={"Connection": "close", **({"X-API-Key": key} if key else {})})
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise RtspRejected(f"{answer.status} {answer.reason}: {_detail(answer.read(65536))}")
    except BaseException:
        connection.close()
        raise
    return answer


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip()


def _query(wish: argparse.Namespace) -> str:
    asked = {"quality": wish.quality, "fps": wish.fps if wish.stream else None}
    given = [f"{name}={value:g}" for name, value in asked.items() if value is not None]
    return f"?{'&'.join(given)}" if given else ""


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="grab_frame.py", description="A portal's state, a picture, or its stream.")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, default=FIRST_PORT, help=f"default {FIRST_PORT}, that of camera 0")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--status", action="store_true", help="print the state of the camera")
    what.add_argument("--save", type=Path, metavar="FILE", help="save one picture")
    what.add_argument("--stream", action="store_true", help="show the stream in a window; q ends it")
    parser.add_argument("--quality", type=int, help="JPEG quality, 1 to 100")
    parser.add_argument("--fps", type=float, help="of --stream, at most")
    return parser.parse_args(argv)


if __name__ == "__main__":
    raise SystemExit(main())
