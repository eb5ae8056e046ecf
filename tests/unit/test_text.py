"""Text from outside need not be text: every place that it can reach accepts all of it, and nothing leaves its line.

Names of files and variables of the environment are bytes, which Python decodes to lone surrogates; JSON may contain
them, too. Errors of hooks and drivers contain anything.
"""

import json
import logging
import re
import socket
from collections.abc import Callable, Mapping
from email.message import Message
from functools import cache
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from softcam.controls.state import RequestedControls
from softcam.controls.store import Store
from softcam.errors import CameraError, NotSupported
from softcam.h264.packet import VideoFormat
from softcam.imaging import dng, exif, font
from softcam.mp4 import fragment
from softcam.recording.library import Library
from softcam.recording.order import Order
from softcam.rtsp import rtp
from softcam.runtime.log.journal import JournalFormatter
from softcam.runtime.log.lines import decode, encode, make_line, printable
from softcam.runtime.redact import Redactor
from softcam.runtime.systemd import Notifier
from softcam.web.http.downloads import content_disposition, file_stem, picture_name
from softcam.web.http.errors import error_response
from softcam.web.http.messages import HttpError, Request, Response, json_response
from softcam.web.pages import page_routes
from softcam.web.webrtc import webrtc_routes
from tests.support.web_app import Scene
from tests.unit.web.api.test_metrics import samples

TEXTS = {
    "Latin-1 in a file name": b"n\xe9.txt".decode(errors="surrogateescape"),
    "bytes": bytes(range(128, 256)).decode(errors="surrogateescape"),
    "half a pair": "one \ud800 two",
    "the other half": "\udfff",
    "a pair in two halves": "\ud83d\ude00",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x80\x9f",
    "a header": "a\r\nSet-Cookie: b=c\r\n\r\n<script>",
    "markup": """</title><script>"'&lt;{{title}}""",
    "separators of lines": "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg",
    "directions": "a\u202eb\u2066c\ufeff",
    "not characters": "\ufffe\uffff\U0010ffff",
    "beyond the plane": "\U0001f600" * 100,
    "long": "\udcff" * 70_000,
    "nothing": "",
}


FMT = VideoFormat(640, 360, 30.0, b"\x67\x42\xc0\x1e", b"\x68\xce")


@cache
def status() -> Mapping[str, Any]:
    with Scene() as scene:
        return scene.api.content()


def in_error(text: str) -> bytes:
    return body_of(error_response(CameraError(text)))


def in_headers_of_an_error(text: str) -> bytes:
    return body_of(error_response(HttpError(NotSupported.status, text)))


def in_json(text: str) -> bytes:
    body = body_of(json_response({"text": text, "list": [text], text: 1}))
    json.loads(body)
    assert body.count(b"\n") == 1
    return body


def in_metrics(text: str) -> bytes:
    exported = samples({**status(), "model": text, "camera": text, "backend": text})
    assert sum(name == "soft_stream_info" for name, _ in exported) == 1
    return b""


def in_page(text: str) -> bytes:
    bodies = [body_of(answer(route)) for route in page_routes(title=text, file_stem=text)[:2]]
    assert all(body.count(b"<script>") == bodies[0].count(b"<script>") for body in bodies[:1])
    return b"".join(bodies)


def in_webrtc_page(text: str) -> bytes:
    return b"".join(body_of(answer(route)) for route in webrtc_routes("http://192.0.2.1:8889/cam0", title=text))


def in_file_name(text: str) -> bytes:
    for value in (file_stem(text), picture_name(text, 0.0, ".jpg"), content_disposition("attachment", file_stem(text))):
        assert not re.search(r"[\r\n\0]", value)
        assert len(value) < 1500
        value.encode()
    return content_disposition("inline", picture_name(text, 0.0, ".jpg")).encode("latin-1")


def in_exif(text: str) -> bytes:
    segment = exif.exif_segment(description=text, make=text, model=text)
    assert len(segment) < 2000
    assert b"\xff\xd8" not in segment
    return b""


def in_dng(text: str) -> bytes:
    header = b"II*\0" + (8).to_bytes(4, "little") + bytes(2 + 4)
    return dng.add_description(header, text)[:0]


def in_mp4(text: str) -> bytes:
    return fragment.initial_segment(FMT, title=text)[:0]


def in_sdp(text: str) -> bytes:
    return rtp.describe(FMT, 1, "192.0.2.1", "*", name=text)


def in_picture(text: str) -> bytes:
    font.draw_centred(np.zeros((90, 160), np.uint8), [text[:100], text[:100]], 1.0)
    return b""


def in_log(text: str) -> bytes:
    line = make_line(1, 1, 1.0, logging.INFO, "softcam", "camera", printable(text))
    content = encode([line])
    assert list(decode(content)) == [line]
    assert len(line.text.splitlines()) == 1
    return content + line.text.encode()


def in_journal(text: str) -> bytes:
    record = logging.LogRecord("a", logging.INFO, "", 0, "%s", (text,), None)
    stream = StringIO(JournalFormatter("%(message)s").format(record))
    assert all(line.startswith("<") for line in stream)
    return b""


def in_secret(text: str) -> bytes:
    return printable(Redactor([text])(f"before {text} after")).encode()


def in_systemd(text: str) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(f"\0{in_systemd.__qualname__}-{id(receiver)}")
        name = receiver.getsockname()[1:].decode()
        Notifier({"NOTIFY_SOCKET": f"@{name}"}).send(STATUS=text[:1000], READY=1)
        content = receiver.recv(1 << 20)
    assert content.count(b"\n") == 1
    return content


PLACES: list[Callable[[str], bytes]] = [
    in_error,
    in_headers_of_an_error,
    in_json,
    in_metrics,
    in_page,
    in_webrtc_page,
    in_file_name,
    in_exif,
    in_dng,
    in_mp4,
    in_sdp,
    in_picture,
    in_log,
    in_journal,
    in_secret,
    in_systemd,
]


def body_of(response: Any) -> bytes:
    assert isinstance(response, Response)
    for name, value in response.headers.items():
        assert not re.search(r"[\r\n\0]", f"{name}{value}")
    return response.body


def answer(route: Any) -> Any:
    return route.handle(Request("GET", "/", {}, Message(), "192.0.2.1"))


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_text(place: Callable[[str], bytes], text: str) -> None:
    place(text).decode("utf-8")


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())
def test_state_file(tmp_path: Path, text: str) -> None:
    """As the name of a control, of a field, and as a value, escaped as JSON permits it."""
    for number, asked in enumerate(({text: {}}, {"roi": {text: 1}}, {"hdr": {"mode": text}})):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "cam0.json").write_text(json.dumps({"version": 1, "asked": asked, "held": {}}))
        store = Store(folder, "cam0")
        assert store.load() == RequestedControls()
        body_of(json_response({"controls_set_aside": store.quarantine_reason})).decode()
        assert store.quarantine_reason is not None


@pytest.mark.parametrize("name", [b"n\xe9.mp4", b"2026-01-01_00-00-00\xff.mp4", b".\xff.jpg.jpg", b"a\nb", b"\xff"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_recordings_folder(tmp_path: Path, name: bytes, is_folder: bool) -> None:
    folder = tmp_path / b"recordings \xe9".decode(errors="surrogateescape")
    folder.mkdir()
    path = folder / name.decode(errors="surrogateescape")
    if is_folder:
        path.mkdir()
    else:
        path.write_bytes(b"x")
    library = Library(folder, 10_000_000)
    assert library.recover() == 0
    library.enforce_quota()
    Order(folder).arrange(set())
    assert library.catalog.sizes() == {}
    assert path.exists()
