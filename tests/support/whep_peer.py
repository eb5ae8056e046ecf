"""A WHEP server with a real WebRTC peer, aiortc, that sends moving video; everything on the loopback interface.

`WhepPeer` has two threads while it runs: one answers HTTP, one runs aiortc's event loop.
"""

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import aioice.ice
import numpy as np
import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack
from av import VideoFrame

from tests.support.timeouts import PATIENCE_S

WIDTH, HEIGHT = 320, 240
ALLOWED = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "OPTIONS, GET, POST, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match",
    "Access-Control-Expose-Headers": "ETag, Location",
}


def stay_on_loopback(patch: pytest.MonkeyPatch) -> None:
    """Let aioice use the loopback interface, which it excludes by default."""
    patch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"] * bool(use_ipv4))


class Picture(VideoStreamTrack):
    """Grey frames of varying brightness."""

    async def recv(self) -> VideoFrame:
        pts, time_base = await self.next_timestamp()
        grey = (pts // 3000) % 200 + 20
        frame = VideoFrame.from_ndarray(np.full((HEIGHT * 3 // 2, WIDTH), grey, np.uint8), format="yuv420p")
        frame.pts, frame.time_base = pts, time_base
        return frame


class WhepPeer:
    """Listens from `start` to `stop`; can be started again on the same port."""

    def __init__(self, authorization: str | None = None) -> None:
        self.authorization = authorization
        self.port = 0
        self.asked: list[tuple[str, str]] = []  # method and path
        self.is_empty = False  # no stream is published
        self.endpoint = "/cam/whep"  # path and query
        self.rejection: tuple[int, str, str] | None = None  # status, content type and body of the response to any offer
        self.is_cross_origin = True  # pages of other origins may send requests
        self._peers: dict[str, RTCPeerConnection] = {}
        self._server: ThreadingHTTPServer | None = None
        self._threads: list[threading.Thread] = []
        self._loop = asyncio.new_event_loop()
        self._lock = (
            threading.Lock()
        )  # guards the next field; the last request may come from a page that is being closed
        self._is_over = False

    def __enter__(self) -> Self:
        loop = threading.Thread(target=self._loop.run_forever, name="whep loop", daemon=True)
        loop.start()
        self._threads.append(loop)
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
        with self._lock:
            self._is_over = True
        asyncio.run_coroutine_threadsafe(_settle(), self._loop).result(2 * PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._threads[0].join(PATIENCE_S)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/cam"

    @property
    def sessions(self) -> int:
        return len(self._peers)

    @property
    def places(self) -> list[str]:
        """The paths of the sessions."""
        return list(self._peers)

    def start(self) -> None:
        peer = self

        class Handler(_Handler):
            whep = peer

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="whep http", daemon=True).start()

    def stop(self) -> None:
        """Stop like a killed server: sessions are not closed."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for place in list(self._peers):
            self.drop(place)

    def drop(self, place: str) -> bool:
        peer = self._peers.pop(place, None)
        if peer is not None:
            self._do(peer.close()).result(PATIENCE_S)
        return peer is not None

    def answer(self, offer: str) -> tuple[str, str]:
        """The SDP of the answer, and the path of the session."""
        place = f"/cam/whep/{len(self.asked)}"
        return self._do(self._join(place, offer)).result(PATIENCE_S), place

    async def _join(self, place: str, offer: str) -> str:
        peer = RTCPeerConnection()
        self._peers[place] = peer
        peer.addTrack(Picture())
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        sdp: str = peer.localDescription.sdp
        return sdp

    def _do(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        with self._lock:
            if self._is_over:
                work.close()
                raise ConnectionAbortedError("the server is gone")
            return asyncio.run_coroutine_threadsafe(work, self._loop)


async def _settle() -> None:
    """Wait until all tasks of the loop have ended."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        _, late = await asyncio.wait(others, timeout=PATIENCE_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class _Handler(BaseHTTPRequestHandler):
    whep: WhepPeer

    def do_OPTIONS(self) -> None:
        self._answer(204)

    def do_GET(self) -> None:
        self._answer(404)

    def do_POST(self) -> None:
        self.whep.asked.append(("POST", self.path))
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.whep.authorization not in (None, self.headers["Authorization"]):
            self._answer(401)
        elif self.whep.rejection is not None:
            status, kind, text = self.whep.rejection
            self._answer(status, text.encode(), {"Content-Type": kind})
        elif self.whep.is_empty or self.path != self.whep.endpoint:
            self._answer(404)
        elif self.headers["Content-Type"] != "application/sdp":
            self._answer(415)
        else:
            sdp, place = self.whep.answer(body.decode())
            self._answer(201, sdp.encode(), {"Content-Type": "application/sdp", "Location": place, "ETag": '"1"'})

    def do_PATCH(self) -> None:
        self.whep.asked.append(("PATCH", self.path))
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(204)

    def do_DELETE(self) -> None:
        self.whep.asked.append(("DELETE", self.path))
        self._answer(200 if self.whep.drop(self.path) else 404)

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        allowed = ALLOWED if self.whep.is_cross_origin else {}
        for name, value in {**allowed, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None: ...
