"""The HLS playlist and its segments over HTTP: addresses, headers, keys, errors."""

import logging
import re
from collections.abc import Iterator
from urllib.parse import quote, urljoin

import pytest

from softcam.errors import CameraError, NotSupported
from softcam.h264.packet import Packet, PacketSink, VideoFormat
from softcam.streaming.hls.stream import HlsStream
from softcam.web.api.hls import HlsApi
from softcam.web.http.messages import HttpError
from tests.support.background import eventually, soon
from tests.support.fmp4_clients import FakeVideo
from tests.support.raw_http import Reply, Site, make_request
from tests.support.timeouts import PATIENCE_S
from tests.support.web_app import COMMON, IMPATIENT, Scene

VIEW_KEY = 'a "b"/&?=#%é'  # words: ignore


class Video(FakeVideo):
    """An encoder that has encoded two segments as soon as there is a sink."""

    def subscribe(self, sink: PacketSink) -> None:
        super().subscribe(sink)
        sink.on_format(VideoFormat(64, 48, 1.0, b"\x67\x42\xc0\x1e", b"\x68"))
        for second in range(3):
            sink.on_packet(Packet(b"%d" % second, True, 1e9 + second, 1e9 + second))


class Hls:
    """The routes of a scene, and of HLS on its camera."""

    def __init__(self, scene: Scene, idle_s: float = PATIENCE_S) -> None:
        self.scene = scene
        self.video = Video()
        self.encoder_error: CameraError | None = None
        self.stream = HlsStream(self.video, lambda: scene.media.reserve_stream()[1], scene.loop, idle_s=idle_s)
        self.api = HlsApi(scene.media, self.stream, self.require_encoder)

    def require_encoder(self) -> None:
        if self.encoder_error is not None:
            raise self.encoder_error

    def site(self, *, api_key: str | None = None, view_key: str | None = None) -> Site:
        return Site([*self.scene.routes(), *self.api.routes()], api_key=api_key, view_key=view_key)


@pytest.fixture
def hls(flowing: Scene) -> Iterator[Hls]:
    hls = Hls(flowing)
    yield hls
    flowing.loop.stop(soon())


def addresses_of(playlist: Reply) -> list[str]:
    """As in the playlist: of the initial segment, then of media segments; or of the media playlist."""
    assert (playlist.status, playlist.headers["Content-Type"]) == (200, "application/vnd.apple.mpegurl")
    assert COMMON.items() <= playlist.headers.items()
    text = playlist.body.decode()
    return re.findall(r'URI="([^"]*)"', text) + [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("path", ["/stream.m3u8", "/stream.m3u8/", "/webcam/stream.m3u8", "/stream.m3u8?nonce=1"])
def test_playlists_lead_to_segments(hls: Hls, path: str, slash: str) -> None:
    with hls.site() as site:
        (playlist,) = (urljoin(path, address) for address in addresses_of(site.ask(path)))
        assert re.fullmatch(r"(/webcam)?/hls/[0-9a-f]{8}-\d+-\d+\.m3u8", playlist)
        playlist += slash
        initial, *media = (urljoin(playlist, address) for address in addresses_of(site.ask(playlist)))
        assert len(media) == 2
        kinds = []
        for address in (initial, *media):
            segment = site.ask(address)
            assert (segment.status, segment.headers["Content-Type"]) == (200, "video/mp4")
            assert segment.headers["Access-Control-Allow-Origin"] == "*"
            assert segment.headers["Cache-Control"] == "private, max-age=30, immutable"
            kinds.append(segment.body[4:8])
            head = site.ask(address, method="HEAD")
            assert head.headers["Content-Length"] == str(len(segment.body))
        assert kinds == [b"ftyp", b"moof", b"moof"]


def test_addresses_are_relative(hls: Hls) -> None:
    """So that they are right under any path of a proxy."""
    with hls.site() as site:
        (playlist,) = addresses_of(site.ask("/stream.m3u8"))
        assert re.fullmatch(r"hls/[0-9a-f]+-\d+-\d+\.m3u8", playlist)
        initial, *media = addresses_of(site.ask(f"/{playlist}"))
        assert re.fullmatch(r"[0-9a-f]+-\d+\.mp4", initial)
        assert all(re.fullmatch(r"[0-9a-f]+-\d+-\d+\.m4s", each) for each in media)


def test_key_of_the_request_is_in_all_addresses(hls: Hls, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    escaped = quote(VIEW_KEY, safe="")
    with hls.site(api_key="the-key", view_key=VIEW_KEY) as site:
        (playlist,) = addresses_of(site.ask(f"/stream.m3u8?key={escaped}"))
        for address in (playlist, *(f"hls/{each}" for each in addresses_of(site.ask(f"/{playlist}")))):
            assert address.endswith(f"?key={escaped}")
            assert site.ask(f"/{address}").status == 200
            assert site.ask(f"/{address.partition('?')[0]}").status == 401
    assert escaped not in caplog.text
    assert VIEW_KEY not in caplog.text


def test_access(hls: Hls) -> None:
    with hls.site(api_key="the-key", view_key="view") as site:
        for path in (
            "/stream.m3u8",
            "/stream.m3u8?key=wrong",
            "/stream.m3u8?key=the-key",
            "/hls/x.m4s",
            "/hls/a-1-0.m3u8",
        ):
            assert site.ask(path).status == 401
        assert hls.scene.camera.opens == 0
        (playlist,) = addresses_of(site.ask("/stream.m3u8", headers={"X-API-Key": "view"}))
        assert "key" not in playlist
        reply = site.ask(f"/{playlist}", headers={"X-API-Key": "the-key"})
        assert b"key" not in reply.body
        assert site.ask(f"/hls/{addresses_of(reply)[0]}", headers={"Authorization": "Bearer view"}).status == 200


def test_key_cannot_add_lines_to_the_playlist(hls: Hls) -> None:
    with hls.site() as site:
        playlist = site.ask('/stream.m3u8?key=a%0A%23EXT-X-ENDLIST%0A"')
        assert b"ENDLIST\n" not in playlist.body
        assert addresses_of(playlist)[0].endswith("?key=a%0A%23EXT-X-ENDLIST%0A%22")


def test_unknown_segment(hls: Hls) -> None:
    with hls.site() as site:
        for name in ("x.m4s", "..%2fstream.mp4", "%00", "1" * 1000):
            reply = site.ask(f"/hls/{name}")
            assert (reply.status, reply.detail) == (404, "name: must be in the current playlist")
        assert site.ask("/hls/").status == 404
        assert site.ask("/hls/x.m4s", method="POST").status == 405
    assert hls.scene.camera.opens == 0


@pytest.mark.parametrize("path", ["/stream.m3u8", "/hls/0123abcd-1-0.m3u8"])
def test_head_opens_no_camera(hls: Hls, path: str) -> None:
    with hls.site() as site:
        reply = site.ask(path, method="HEAD")
        assert (reply.status, reply.headers["Content-Type"]) == (200, "application/vnd.apple.mpegurl")
    assert hls.scene.camera.opens == 0


def test_camera_is_released_without_requests(flowing: Scene) -> None:
    hls = Hls(flowing, idle_s=0.0)
    with hls.site() as site:
        assert site.ask("/stream.m3u8").status == 200
        eventually(lambda: not flowing.leases["stream"], "the release of the camera")
    assert hls.video.sinks == []


def test_playlist_of_an_earlier_process_opens_the_camera(hls: Hls) -> None:
    """So a player that survives a restart of the portal continues."""
    with hls.site() as site:
        initial, *media = addresses_of(site.ask("/hls/0123abcd-9-1234567.m3u8"))
        assert media
        assert "0123abcd" not in initial
        assert site.ask(f"/hls/{media[0]}").status == 200


def test_all_viewers_count_as_one_client() -> None:
    with Scene(max_clients=1) as scene, scene.camera.flowing():
        hls = Hls(scene)
        with hls.site() as site:
            release = scene.media.reserve_stream()[1]
            reply = site.ask("/stream.m3u8")
            assert (reply.status, reply.detail[:20]) == (503, "client limit reached")
            assert int(reply.headers["Retry-After"]) > 0
            release()
            assert [site.ask("/stream.m3u8").status for _ in range(3)] == [200, 200, 200]


def test_no_frame_is_503() -> None:
    with Scene(**IMPATIENT) as scene:
        hls = Hls(scene)
        with hls.site() as site:
            reply = site.ask("/stream.m3u8")
        assert (reply.status, reply.detail[:32]) == (503, "no frame from the camera in time")
        assert int(reply.headers["Retry-After"]) > 0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_machine_that_cannot_encode(hls: Hls, method: str) -> None:
    hls.encoder_error = NotSupported("no PyAV here")
    with pytest.raises(NotSupported, match="no PyAV here"):
        hls.api.variants(make_request("/stream.m3u8", method=method))
    assert hls.scene.camera.opens == 0


def test_camera_disabled(hls: Hls) -> None:
    hls.scene.media._manager = None
    for method in ("GET", "HEAD"):
        with pytest.raises(HttpError, match="disabled"):
            hls.api.variants(make_request("/stream.m3u8", method=method))
