"""JPEGs over HTTP: servers of many habits, polling, redirects and authentication."""

import contextlib
import gzip
import io
import logging
import re
import socket
import threading
import zlib
from collections.abc import Callable, Iterator

import av
import numpy as np
import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.url.http_source import HttpSource, open_source
from softcam.camera.url.source import SourceImage
from softcam.errors import CameraError
from tests.support.background import Background, eventually
from tests.support.camera_habits import CAMERA_HABITS
from tests.support.mjpeg_server import (
    OTHER,
    SMALL,
    WITH_THUMBNAIL,
    Answer,
    Stub,
    chunked,
    encode_as,
    head,
    part,
    send,
    stalling,
)
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR
from tests.support.url_client import FrameRecorder, MakeCamera, open_with

MakeStub = Callable[..., Stub]
STREAM = head() + b"".join(part(SMALL) for _ in range(3)) + b"--frame--\r\n"


@pytest.fixture
def make_stub() -> Iterator[MakeStub]:
    made: list[Stub] = []

    def make(*answers: bytes | Answer) -> Stub:
        """A server that sends these responses one after the other, and then the last one again and again."""
        rest = iter(answers)
        last: list[bytes | Answer] = []

        def answer(connection: socket.socket, request: bytes) -> None:
            last[:] = [next(rest, *last)]
            (send(last[0]) if isinstance(last[0], bytes) else last[0])(connection, request)

        made.append(Stub(answer))
        return made[-1]

    yield make
    for stub in made:
        stub.close()


@contextlib.contextmanager
def opened(url: str, *, fps: float = 100, timeout_s: float = PATIENCE_S) -> Iterator[HttpSource]:
    pauses = threading.Event()
    source = open_source(url, StreamRequest(640, 480, fps), timeout_s, pauses.wait)
    assert isinstance(source, HttpSource)
    with contextlib.closing(source):
        yield source


def images_of(source: HttpSource, count: int) -> list[bytes]:
    images = source.images()
    return [image.data for _ in range(count) if isinstance(image := next(images, None), SourceImage)]


@pytest.mark.parametrize("habit", CAMERA_HABITS)
def test_habits_of_cameras(make_stub: MakeStub, habit: str) -> None:
    with opened(make_stub(CAMERA_HABITS[habit]).url) as source:
        data = [image.data for image in source.images() if image is not None]
    assert len(data) == 6
    assert set(data) <= {SMALL, WITH_THUMBNAIL}


def jpeg_response(*fields: str, jpeg: bytes = SMALL, content_type: str = "image/jpeg") -> bytes:
    return head(content_type, extra=[f"Content-Length: {len(jpeg)}", *fields]) + jpeg


@pytest.mark.parametrize(
    "response",
    [
        jpeg_response("Connection: close"),
        jpeg_response(content_type="image/jpeg; charset=utf-8"),
        jpeg_response(content_type="application/octet-stream"),
        jpeg_response(content_type="text/html"),
        jpeg_response(content_type="IMAGE/JPG"),
        head("image/jpeg") + SMALL,
        head("image/jpeg", version="1.0") + SMALL + b"\r\n",
        head() + part(SMALL) + b"--frame--\r\n",
        jpeg_response(jpeg=WITH_THUMBNAIL),
        jpeg_response(jpeg=SMALL[:-2]),
        head("image/jpeg") + SMALL[:-2],
        head() + part(SMALL[:-2]),
    ],
)
def test_single_jpeg_is_requested_again(make_stub: MakeStub, response: bytes) -> None:
    stub = make_stub(response)
    with opened(stub.url + "?width=640") as source:
        assert set(images_of(source, 5)) <= {SMALL, WITH_THUMBNAIL}
    assert len(stub.requests) == 5
    assert stub.requests[0].startswith(b"GET /stream.mjpg?width=640 HTTP/1.1\r\nHost: 127.0.0.1:")


def deflated(data: bytes) -> bytes:
    """Without the header of zlib, as some servers send it."""
    compressor = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


@pytest.mark.parametrize(
    ("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("deflate", deflated)]
)
def test_compressed_responses(make_stub: MakeStub, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """Browsers show them; the request accepts none."""
    coding = f"Content-Encoding: {encoding}"
    stub = make_stub(jpeg_response(coding, jpeg=compress(SMALL)))
    with opened(stub.url) as source:
        assert images_of(source, 3) == [SMALL] * 3
    assert b"\r\nAccept-Encoding: identity\r\n" in stub.requests[0]
    body = compress(b"".join(part(image) for image in (SMALL, OTHER, SMALL)))
    for response in (
        head(extra=[coding]) + body,
        head(extra=[coding, "Transfer-Encoding: chunked"]) + chunked(body),
    ):
        with opened(make_stub(response).url) as source:
            assert images_of(source, 4) == [SMALL, OTHER, SMALL]


def test_compressed_stream_arrives_as_it_is_sent(make_stub: MakeStub) -> None:
    compressor = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    sent = compressor.compress(part(SMALL)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    with opened(make_stub(stalling(head(extra=["Content-Encoding: gzip"]) + sent)).url) as source:
        assert images_of(source, 1) == [SMALL]


def test_damaged_and_endless_compressed_responses(make_stub: MakeStub) -> None:
    damaged = head("image/jpeg", extra=["Content-Encoding: gzip"]) + b"\x1f\x8b" + SMALL
    with pytest.raises(CameraError, match="the compressed response is damaged"), opened(make_stub(damaged).url):
        pass
    large = gzip.compress(bytes(100 << 20))
    response = jpeg_response("Content-Encoding: gzip", jpeg=large, content_type="image/png")
    with opened(make_stub(response).url) as source, pytest.raises(CameraError, match="the image is too large"):
        next(source.images())


def test_connection_is_kept_between_requests(make_stub: MakeStub) -> None:
    requests = []

    def answer(connection: socket.socket, request: bytes) -> None:
        while request:
            requests.append(request)
            connection.sendall(jpeg_response())
            if len(requests) == 3:  # closed between two requests, which is not an error
                return
            request = connection.recv(4096)

    stub = make_stub(answer)
    with opened(stub.url) as source:
        assert images_of(source, 5) == [SMALL] * 5
    assert len(stub.requests) == 2


def test_polling_has_the_requested_rate(make_stub: MakeStub) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> bool:
        pauses.extend([seconds] if seconds else [])  # 0 asks whether the reader is to stop
        return len(pauses) == 3

    stub = make_stub(jpeg_response())
    source = open_source(stub.url, StreamRequest(640, 480, 0.01), PATIENCE_S, pause)
    with contextlib.closing(source):
        assert len(list(source.images())) == 3
    assert len(stub.requests) == 3
    assert all(90 < each <= 100 for each in pauses)


def test_png_is_requested_again(make_stub: MakeStub) -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="image2pipe") as target:
        stream = target.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "rgb24"
        picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 200, np.uint8), format="rgb24")
        target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    with opened(make_stub(jpeg_response(jpeg=file.getvalue(), content_type="image/png")).url) as source:
        images = source.images()
        for _ in range(3):
            image = next(images)
            assert image is not None
            frame = image.frame(None, 0, 0.0, None)
            assert (frame.size, int(frame.planes[0].mean())) == ((64, 48), 200)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_stream_of_other_images(make_stub: MakeStub, form: str) -> None:
    """Browsers show it."""
    parts = [encode_as(form, level=level) for level in (50, 200)]
    damaged = parts[0].replace(b"IDAT", b"IDAT" + b"\xff", 1) if form == "PNG" else parts[0][:12] + bytes(100)
    stream = b"".join(part(image, content_type=f"image/{form.lower()}") for image in (*parts, damaged, *parts, SMALL))
    with opened(make_stub(stalling(head() + stream)).url) as source:
        images, levels = source.images(), list[int]()
        while (image := next(images)) is None or image.data != SMALL:
            if image is not None:
                frame = image.frame(None, 0, 0.0, None)
                assert frame.size == (64, 48)
                levels.append(round(float(frame.planes[0].mean())))
    assert levels == [50, 200, 50, 200]


@pytest.mark.parametrize(
    ("content_type", "content", "count"),
    [
        ("image/gif", encode_as("GIF"), 2),
        ("text/plain", b"not ready", 2),
        ("image/x-unknown", bytes(300_000) + b"\n", 2),
    ],
)
def test_stream_without_images_is_an_error_at_once(
    make_stub: MakeStub, content_type: str, content: bytes, count: int
) -> None:
    stream = head() + part(content, content_type=f"{content_type}; size=1") * count
    with opened(make_stub(stalling(stream)).url) as source:
        expected = f"no image in its parts of type {content_type}; JPEG, PNG and WebP are supported"
        with pytest.raises(CameraError, match=f"^{re.escape(expected)}$"):
            next(source.images())


@pytest.mark.parametrize(
    ("content_type", "content"), [("image/jpeg", b"no image"), ("image/png", encode_as("PNG")[:60])]
)
def test_stream_of_damaged_images_is_an_error(make_stub: MakeStub, content_type: str, content: bytes) -> None:
    stream = head() + part(content, content_type=content_type) * 6
    with opened(make_stub(stalling(stream)).url) as source:
        expected = f"^the images in its parts of type {content_type} are damaged$"
        with pytest.raises(CameraError, match=expected):
            next(source.images())


@pytest.mark.parametrize("length", [len(SMALL) - 3, len(SMALL) // 2])
@pytest.mark.parametrize("is_announced", [False, True])
def test_truncated_jpeg_is_damaged(make_stub: MakeStub, length: int, is_announced: bool) -> None:
    """Unlike one without its end marker."""
    cut = SMALL[:length]
    response = jpeg_response(jpeg=SMALL)[: length - len(SMALL)] if is_announced else head("image/jpeg") + cut
    with (
        opened(make_stub(response).url) as source,
        pytest.raises(CameraError, match=r"^the image is damaged$"),
    ):
        list(source.images())
    stream = head() + part(SMALL) + part(cut, length=is_announced) + part(SMALL, length=is_announced)[: length // 2]
    with opened(make_stub(stream).url) as source:
        assert [image and image.data for image in source.images()] == [SMALL, None, None]


def test_reason_before_the_first_image(make_stub: MakeStub, make_camera: MakeCamera) -> None:
    stub = make_stub(stalling(head() + part(b"")))
    camera = make_camera(stub.url)
    opening = Background(lambda: camera.open(FrameRecorder()))
    eventually(lambda: str(camera.disconnect_reason).endswith("/stream.mjpg: connected, no image yet"))
    camera.cancel_open()
    opening.result()


@pytest.mark.parametrize("between", [b"", bytes(100)])
def test_only_the_first_image_of_a_file_is_used(make_stub: MakeStub, between: bytes) -> None:
    """Others are previews and gain maps."""
    stub = make_stub(jpeg_response(jpeg=SMALL + between + OTHER))
    with opened(stub.url) as source:
        assert images_of(source, 4) == [SMALL] * 4
    assert len(stub.requests) == 4


def test_stream_with_untrue_length(make_stub: MakeStub) -> None:
    stub = make_stub(head("image/jpeg", extra=["Content-Length: 2000000000"]) + SMALL + OTHER)
    with opened(stub.url) as source:
        assert images_of(source, 9) == [SMALL, OTHER]
    assert len(stub.requests) == 1


def dripping(beginning: bytes) -> Answer:
    """Sends `beginning`, then single bytes."""

    def answer(connection: socket.socket, request: bytes) -> None:
        pace = threading.Event()
        connection.sendall(beginning)
        for _ in range(round(20 * PATIENCE_S)):
            pace.wait(0.05)
            connection.sendall(b"0")

    return answer


@pytest.mark.parametrize(
    "beginning",
    [head("image/png", extra=["Content-Length: 9999"]) + bytes(16), head("image/png"), head() + part(SMALL)[:300]],
    ids=["image", "beginning of an image", "stream"],
)
@pytest.mark.parametrize("is_stopping", [False, True])
def test_slow_image(make_stub: MakeStub, beginning: bytes, *, is_stopping: bool) -> None:
    stub = make_stub(dripping(beginning))
    timeout_s = PATIENCE_S if is_stopping else 0.3

    def read_one() -> None:
        source = HttpSource(stub.url, 0.01, PATIENCE_S, lambda _s: is_stopping, timeout_s)
        with contextlib.closing(source):
            next(source.images())

    with pytest.raises(CameraError, match="stopping" if is_stopping else "no image in time"):
        read_one()


def test_stream_that_ends_is_not_requested_again(make_stub: MakeStub) -> None:
    stub = make_stub(STREAM)
    with opened(stub.url) as source:
        assert images_of(source, 9) == [SMALL] * 3
    assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        (b"HTTP/1.1 500 Oh\x1b[31m\r\n\r\n", "Server returned 500 Internal Server Error"),
        (b"HTTP/1.1 799 Oh\r\n\r\n", "Server returned 799"),
        (head("text/html") + b"<html>Please log in", "stopped delivering images"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP response"),
        (b"\0" * 100_000, "no HTTP response"),
        (b"", "without a response"),
        (b"HTTP/1.1 200 OK\r\nContent-Ty", "without a response"),
        (head("image/jpeg", extra=["Transfer-Encoding: chunked"]) + b"Q\r\n", "invalid"),
        (b"HTTP/1.1 302 Found\r\nLocation: rtsp://x/\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 302 Found\r\nLocation: /stream.mjpg\r\n\r\n", "Server returned 302 Found"),
    ],
)
def test_error_while_polling_ends_the_source(make_stub: MakeStub, later: bytes, reason: str) -> None:
    stub = make_stub(jpeg_response("Connection: close"), later)
    with opened(stub.url) as source, pytest.raises(CameraError, match=re.escape(reason)):
        images_of(source, 3)


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\n", head(), head() + part(SMALL)[:300]])
def test_silent_server_times_out(make_stub: MakeStub, data: bytes) -> None:
    stub = make_stub(stalling(data))
    with (
        pytest.raises(CameraError, match="timed out"),
        opened(stub.url, timeout_s=0.2 * TIMEOUT_FACTOR) as source,
    ):
        images_of(source, 1)


def test_endless_header_is_an_error(make_stub: MakeStub) -> None:
    def drip(connection: socket.socket, request: bytes) -> None:
        pause = threading.Event()
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while not pause.wait(0.05):
            connection.sendall(b"X: y\r\n")

    stub = make_stub(drip)
    with pytest.raises(CameraError, match="timed out"), opened(stub.url, timeout_s=0.5 * TIMEOUT_FACTOR):
        pass


CHUNKED = ["Transfer-Encoding: chunked"]


@pytest.mark.parametrize("size", [b"-5", b"0x5", b"+5", b" 5", b"", b"1_0", b"123456789", b"5-"])
def test_invalid_chunk_size_is_an_error(make_stub: MakeStub, size: bytes) -> None:
    first = b"%x\r\n" % len(SMALL) + SMALL + b"\r\n"
    stub = make_stub(head("image/jpeg", extra=CHUNKED) + first + size + b"\r\n12345\r\n0\r\n\r\n")
    with opened(stub.url) as source:
        images = source.images()
        assert next(images) is not None
        with pytest.raises(CameraError, match="invalid"):
            next(images)


@pytest.mark.parametrize("size", ["5 ", "5 ;a=b", "5;a", "00000005"])
def test_chunk_sizes(make_stub: MakeStub, size: str) -> None:
    rest = b"%x\r\n" % len(SMALL[5:]) + SMALL[5:] + b"\r\n0\r\n\r\n"
    stub = make_stub(head("image/jpeg", extra=CHUNKED) + size.encode() + b"\r\n" + SMALL[:5] + b"\r\n" + rest)
    with opened(stub.url) as source:
        assert images_of(source, 2) == [SMALL] * 2


def test_endless_chunk_size_times_out(make_stub: MakeStub) -> None:
    stub = make_stub(dripping(head("image/jpeg", extra=CHUNKED)))
    with pytest.raises(CameraError, match="timed out"), opened(stub.url, timeout_s=0.5 * TIMEOUT_FACTOR):
        pass


def test_trailer_fields_are_not_read(make_stub: MakeStub) -> None:
    """They may have no end."""
    body = b"%x\r\n" % len(SMALL) + SMALL + b"\r\n0\r\nX: y\r\n"
    stub = make_stub(stalling(head("image/jpeg", extra=CHUNKED) + body))
    with opened(stub.url) as source:
        assert images_of(source, 3) == [SMALL] * 3
    assert len(stub.requests) == 3


# --- redirects and authentication ---------------------------------------------------------------------------------


def fields_in(request: bytes) -> dict[str, str]:
    return {name.lower(): value for name, value in re.findall(r"(?m)^([\w-]+): (.*)\r$", request.decode())}


def test_redirects(make_stub: MakeStub) -> None:
    target = make_stub(STREAM)
    for location in (target.url, "/elsewhere?a=b c"):
        stub = make_stub(b"HTTP/1.1 302 Found\r\nLocation: %b\r\n\r\n" % location.encode(), STREAM)
        with opened(stub.url) as source:
            assert images_of(source, 3) == [SMALL] * 3
    assert stub.requests[1].startswith(b"GET /elsewhere?a=b%20c HTTP/1.1\r\n")


def test_basic_authentication(make_stub: MakeStub) -> None:
    stub = make_stub(b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="it"\r\n\r\n', STREAM)
    with opened(stub.url.replace("//", "//m%40e:s3cr3t@")) as source:
        assert images_of(source, 3) == [SMALL] * 3
    first, second = (fields_in(request) for request in stub.requests)
    assert "authorization" not in first
    assert second["authorization"] == "Basic bUBlOnMzY3IzdA=="
    assert "@" not in second["host"]


def test_digest_authentication_while_polling(make_stub: MakeStub) -> None:
    challenge = 'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="it", nonce="{}", qop="auth"\r\n\r\n'
    one, two = (challenge.format(nonce).encode() for nonce in ("n1", "n2"))
    jpeg = jpeg_response("Connection: close")
    stub = make_stub(one, jpeg, jpeg, two, jpeg)
    with opened(stub.url.replace("//", "//me:s3cr3t@")) as source:
        assert images_of(source, 3) == [SMALL] * 3
    sent = [re.findall(r'nonce="(\w+)".*uri="(.*?)".*nc=(\w+)', request.decode()) for request in stub.requests]
    assert sent == [
        [],
        [("n1", "/stream.mjpg", "00000001")],
        [("n1", "/stream.mjpg", "00000002")],
        [("n1", "/stream.mjpg", "00000003")],
        [("n2", "/stream.mjpg", "00000001")],
    ]


def test_password_is_not_sent_to_another_host(make_stub: MakeStub) -> None:
    refusal = b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="it"\r\n\r\n'
    other = make_stub(refusal)
    redirect = b"HTTP/1.1 302 Found\r\nLocation: http://localhost:%d/\r\n\r\n" % other.port
    stub = make_stub(refusal, redirect)
    with pytest.raises(CameraError, match="Server returned 401 Unauthorized"):
        open_source(stub.url.replace("//", "//me:s3cr3t@"), StreamRequest(640, 480, 100), PATIENCE_S, lambda _s: True)
    assert [b"Authorization" in request for request in (*stub.requests, *other.requests)] == [False, True, False]


@pytest.mark.parametrize("challenge", ["Basic realm=x", "Digest realm=x, nonce=y", "Negotiate", ""])
def test_rejected_password_is_an_error(
    make_stub: MakeStub, make_camera: MakeCamera, caplog: pytest.LogCaptureFixture, challenge: str
) -> None:
    stub = make_stub(b"HTTP/1.1 401 No\r\nWWW-Authenticate: %b\r\n\r\n" % challenge.encode())
    caplog.set_level(logging.DEBUG)
    camera = make_camera(stub.url.replace("//", "//me:s3cr3t@"))
    camera.open(FrameRecorder())
    reason = camera.disconnect_reason or ""
    assert "401" in reason
    camera.close()
    assert "s3cr3t" not in caplog.text + reason


# --- the camera ---------------------------------------------------------------------------------------------------


def test_polled_camera_stays_connected(make_stub: MakeStub, make_camera: MakeCamera) -> None:
    disconnects: list[str | None] = []
    camera = make_camera(make_stub(jpeg_response()).url)
    camera.on_disconnect(lambda: disconnects.append(camera.disconnect_reason))
    recorder = open_with(camera, keeps_data=True)
    assert {frame.data for frame in recorder.wait(20)} == {SMALL}
    assert disconnects == []
    assert camera.disconnect_reason is None


def encoded(container: str) -> bytes:
    """Ten black images in MPEG-2."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        video = output.add_stream("mpeg2video", rate=25, width=64, height=48, pix_fmt="yuv420p")
        for _ in range(10):
            output.mux(video.encode(av.VideoFrame(64, 48, "yuv420p")))
        output.mux(video.encode())
    return file.getvalue()


@pytest.mark.parametrize("container", ["mpegts", "matroska"])
def test_other_stream_needs_one_connection(make_stub: MakeStub, container: str) -> None:
    """As of `ffmpeg -listen 1`, which ends with its only connection."""
    stub = make_stub(head("application/octet-stream") + encoded(container), b"")
    source = open_source(stub.url, StreamRequest(640, 480, 25), PATIENCE_S, threading.Event().wait)
    with contextlib.closing(source):
        images = [image for image in source.images() if image is not None]
    assert not isinstance(source, HttpSource)
    assert {image.size for image in images} == {(64, 48)}
    assert len(images) >= 9
    assert len(stub.requests) == 1


def test_other_stream_that_falls_silent_times_out(make_stub: MakeStub) -> None:
    stub = make_stub(stalling(head("video/mp2t") + encoded("mpegts")[:1000]))
    with pytest.raises(CameraError, match="timed out"):
        open_source(stub.url, StreamRequest(640, 480, 25), 0.2, threading.Event().wait)


@pytest.mark.parametrize(
    "response",
    [
        head("video/mp4", extra=["Content-Length: 1000"]) + bytes(1000),  # a file, in which FFmpeg seeks
        head("application/vnd.apple.mpegurl") + b"#EXTM3U\n",  # refers to other addresses
        head("text/plain") + b"#EXTM3U\n#EXT-X-VERSION:3\n",
        head("application/dash+xml") + b"<?xml version='1.0'?>",
    ],
)
def test_ffmpeg_requests_files_and_playlists_itself(make_stub: MakeStub, response: bytes) -> None:
    stub = make_stub(response)
    with pytest.raises(CameraError):
        open_source(stub.url, StreamRequest(640, 480, 25), PATIENCE_S, threading.Event().wait)
    assert len(stub.requests) > 1
