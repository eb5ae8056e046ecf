"""The RTSP client with a server run by the test: addresses, authentication, odd and late responses, closing."""

import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from softcam.rtsp.publisher.client import CONNECT_LIMIT_S, RtspClient, ServerAddress
from softcam.rtsp.publisher.errors import Cancelled, RtspError, RtspRejected
from softcam.rtsp.publisher.waker import Waker
from tests.support.background import Background
from tests.support.timeouts import PATIENCE_S, TIMEOUT_FACTOR

NoLeaks = Callable[..., AbstractContextManager[None]]


def no_check() -> None: ...


@pytest.fixture
def waker() -> Waker:
    return Waker()


class Peer:
    """The server's end of one connection."""

    def __init__(self, listener: socket.socket) -> None:
        listener.settimeout(PATIENCE_S)
        self.socket, _ = listener.accept()
        self.socket.settimeout(PATIENCE_S)
        self._stream = self.socket.makefile("rb")

    def read(self) -> tuple[str, dict[str, str], bytes]:
        """A request: its first line, header and body."""
        first = self._stream.readline().decode().strip()
        fields = {}
        while line := self._stream.readline().decode().strip():
            name, _, value = line.partition(": ")
            fields[name.lower()] = value
        return first, fields, self._stream.read(int(fields.get("content-length", "0")))

    def say(self, text: str) -> None:
        self.socket.sendall(text.replace("\n", "\r\n").encode())

    def close(self) -> None:
        self._stream.close()
        self.socket.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture
def connect(listener: socket.socket, waker: Waker) -> Iterator[Callable[..., tuple[RtspClient, Peer]]]:
    ends: list[RtspClient | Peer] = []

    def open_pair(
        credentials: str = "",
        check: Callable[[], None] = no_check,
        connect_limit_s: float = CONNECT_LIMIT_S,
        query: str = "",
    ) -> tuple[RtspClient, Peer]:
        address = ServerAddress.parse(f"rtsp://{credentials}127.0.0.1:{listener.getsockname()[1]}/cam{query}")
        pair = RtspClient(address, waker, check, connect_limit_s), Peer(listener)
        ends.extend(reversed(pair))
        return pair

    yield open_pair
    for end in ends:
        end.close()


@pytest.mark.parametrize(
    ("url", "host", "port", "asked", "shown"),
    [
        ("rtsp://pi/cam", "pi", 554, "rtsp://pi/cam", "rtsp://pi/cam"),
        ("rtsps://pi/cam", "pi", 322, "rtsps://pi/cam", "rtsps://pi/cam"),
        ("rtsp://me:it@pi:8554/a/b", "pi", 8554, "rtsp://pi:8554/a/b", "rtsp://pi:8554/a/b"),
        ("rtsp://[::1]:8554/cam", "::1", 8554, "rtsp://[::1]:8554/cam", "rtsp://[::1]:8554/cam"),
        ("rtsp://pi:8554/cam?user=me&pass=it", "pi", 8554, "rtsp://pi:8554/cam?user=me&pass=it", "rtsp://pi:8554/cam"),
    ],
)
def test_addresses_and_how_they_are_shown(url: str, host: str, port: int, asked: str, shown: str) -> None:
    address = ServerAddress.parse(url)
    assert (address.host, address.port, address.url, address.shown) == (host, port, asked, shown)
    assert "it@" not in repr(address)


def test_escaped_password() -> None:
    address = ServerAddress.parse("rtsp://m%40e:i%3At@pi/cam")
    assert (address.user, address.password) == ("m@e", "i:t")


def test_response_between_reports_and_requests(connect: Callable[..., tuple[RtspClient, Peer]]) -> None:
    connection, peer = connect()
    request = Background(lambda: connection.request("OPTIONS"))
    first, fields, _ = peer.read()
    assert re.fullmatch(r"OPTIONS rtsp://127\.0\.0\.1:\d+/cam RTSP/1\.0", first)
    peer.socket.sendall(b"$\x01\x00\x04abcd")
    peer.say("PING x RTSP/1.0\nCSeq: 9\n\n")
    peer.say("RTSP/1.0 200 OK\nCSeq: 700\n\n")  # no such request
    peer.say(f"RTSP/1.0 200 OK\nCSeq: {fields['cseq']}\nSession: abc;timeout=60\nContent-Length: 2\n\nxx")
    assert request.result().status == 200
    assert peer.read()[0] == "RTSP/1.0 501 Not Implemented"
    request = Background(lambda: connection.request("SETUP", "rtsp://x/y"))
    first, fields, _ = peer.read()
    assert (first, fields["session"]) == ("SETUP rtsp://x/y RTSP/1.0", "abc")
    peer.say(f"RTSP/1.0 461 Unsupported Transport\nCSeq: {fields['cseq']}\n\n")
    with pytest.raises(RtspRejected, match="does not support RTP over TCP"):
        request.result()


def test_password_is_sent_once_and_on_request(
    connect: Callable[..., tuple[RtspClient, Peer]],
) -> None:
    connection, peer = connect("me:it@")
    request = Background(lambda: connection.request("ANNOUNCE", body=b"v=0"))
    for number in (1, 2):
        _, fields, body = peer.read()
        assert body == b"v=0"
        assert ("authorization" in fields) is (number == 2)
        peer.say(f'RTSP/1.0 401 No\nCSeq: {fields["cseq"]}\nWWW-Authenticate: Basic realm="it"\n\n')
    with pytest.raises(RtspRejected, match="user or password rejected") as caught:
        request.result()
    assert "it@" not in str(caught.value)


@pytest.mark.parametrize(
    ("credentials", "query", "challenge", "reason"),
    [
        ("", "", "WWW-Authenticate: Basic\n", "requires a user and password"),
        ("", "?token=it", "WWW-Authenticate: Basic\n", "did not accept the query of the URL"),
        ("me:it@", "", "", "did not request the user and password"),
        ("me:it@", "?token=it", "WWW-Authenticate: Basic\n", "user or password rejected"),
    ],
)
def test_unauthorized_names_what_was_sent(
    connect: Callable[..., tuple[RtspClient, Peer]], credentials: str, query: str, challenge: str, reason: str
) -> None:
    connection, peer = connect(credentials, query=query)
    request = Background(lambda: connection.request("ANNOUNCE"))
    for _ in range(2 if credentials and challenge else 1):
        _, fields, _ = peer.read()
        peer.say(f"RTSP/1.0 401 No\nCSeq: {fields['cseq']}\n{challenge}\n")
    with pytest.raises(RtspRejected, match=reason) as caught:
        request.result()
    assert "it" not in str(caught.value).split()


def test_unsupported_authentication_is_an_error(connect: Callable[..., tuple[RtspClient, Peer]]) -> None:
    connection, peer = connect("me:it@")
    request = Background(lambda: connection.request("ANNOUNCE"))
    _, fields, _ = peer.read()
    peer.say(f"RTSP/1.0 401 No\nCSeq: {fields['cseq']}\nWWW-Authenticate: Negotiate\n\n")
    with pytest.raises(RtspRejected, match="unsupported authentication scheme"):
        request.result()


@pytest.mark.parametrize("status", [400, 403, 404, 405, 454, 500, 302])
def test_statuses_are_errors(connect: Callable[..., tuple[RtspClient, Peer]], status: int) -> None:
    connection, peer = connect()
    request = Background(lambda: connection.request("ANNOUNCE"))
    _, fields, _ = peer.read()
    peer.say(f"RTSP/1.0 {status} Because\nCSeq: {fields['cseq']}\n\n")
    with pytest.raises(RtspRejected, match=str(status)):
        request.result()


def test_response_before_disconnection(connect: Callable[..., tuple[RtspClient, Peer]]) -> None:
    connection, peer = connect()
    number = connection.send_request("OPTIONS")
    peer.read()
    peer.say("RTSP/1.0 404 No\nCSeq: 2\n\n")
    peer.close()
    assert number == 1
    with pytest.raises(RtspRejected, match="404"):
        connection.request("ANNOUNCE")
    with pytest.raises(RtspError, match="closed"):
        connection.request("OPTIONS")


def test_disconnect_of_the_server_is_an_error(connect: Callable[..., tuple[RtspClient, Peer]]) -> None:
    connection, peer = connect()
    request = Background(lambda: connection.request("OPTIONS"))
    peer.read()
    peer.close()
    with pytest.raises(RtspError, match="closed the connection"):
        request.result()


def test_missing_server_is_an_error(waker: Waker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(RtspError, match="connection refused"):
        RtspClient(ServerAddress.parse(f"rtsp://127.0.0.1:{port}/cam"), waker, no_check)
    with pytest.raises(RtspError, match=r"unknown host a\.invalid"):
        RtspClient(ServerAddress.parse("rtsp://a.invalid/cam"), waker, no_check)


def resolve_to(monkeypatch: pytest.MonkeyPatch, *first: tuple[int, tuple[str, int]]) -> None:
    """Resolve every name to these addresses, before its real ones."""
    found = socket.getaddrinfo

    def find(*asked: Any, **more: Any) -> list[Any]:
        return [(family, socket.SOCK_STREAM, 0, "", sockaddr) for family, sockaddr in first] + found(*asked, **more)

    monkeypatch.setattr(socket, "getaddrinfo", find)


def test_unsupported_address_family_is_skipped(
    connect: Callable[..., tuple[RtspClient, Peer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, (socket.AF_APPLETALK, ("127.0.0.1", 1)))
    connection, _ = connect()
    assert connection.server == "127.0.0.1"


def test_unsupported_address_family_is_an_error(waker: Waker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [])
    resolve_to(monkeypatch, (socket.AF_APPLETALK, ("127.0.0.1", 1)))
    with pytest.raises(RtspError, match="not supported"):
        RtspClient(ServerAddress.parse("rtsp://127.0.0.1/cam"), waker, no_check)


def test_silent_address_is_skipped(
    connect: Callable[..., tuple[RtspClient, Peer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        sockaddr = silent.getsockname()
        waiting = []
        try:
            for _ in range(3):  # it accepts none, and its backlog holds only one
                waiting.append(socket.socket())
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(sockaddr)
            resolve_to(monkeypatch, (socket.AF_INET, sockaddr))
            connection, _ = connect(connect_limit_s=1.0)
            assert connection.server == "127.0.0.1"
        finally:
            for each in waiting:
                each.close()


def test_wake_ends_every_wait(connect: Callable[..., tuple[RtspClient, Peer]], waker: Waker) -> None:
    is_over = threading.Event()

    def check() -> None:
        if is_over.is_set():
            raise Cancelled

    connection, peer = connect(check=check)
    request = Background(lambda: connection.request("OPTIONS"))
    peer.read()
    waker.wake()  # without effect
    is_over.set()
    waker.wake()
    with pytest.raises(Cancelled):
        request.result()


def test_wake_before_wait(no_leaks: NoLeaks) -> None:
    with no_leaks():
        waker = Waker()
        waker.wake()
        waker.wait(time.monotonic() + PATIENCE_S)  # returns at once
        began_s = time.monotonic()
        waker.wait(began_s + 0.02)
        assert time.monotonic() - began_s >= 0.019  # once
        del waker


def test_unsent_bytes_are_kept(connect: Callable[..., tuple[RtspClient, Peer]]) -> None:
    connection, peer = connect()
    sent = bytes(range(256)) * 40_000
    connection.send(sent)
    assert connection.unsent > 0
    received = bytearray()

    def drain() -> None:
        while len(received) < len(sent):
            received.extend(peer.socket.recv(1 << 16))

    reading = Background(drain)
    deadline_s = time.monotonic() + PATIENCE_S
    while connection.unsent and time.monotonic() < deadline_s:
        connection.wait(time.monotonic() + 0.1)
    reading.result()
    assert bytes(received) == sent


def test_close_sends_teardown_without_waiting_long(connect: Callable[..., tuple[RtspClient, Peer]]) -> None:
    connection, peer = connect()
    request = Background(lambda: connection.request("SETUP"))
    _, fields, _ = peer.read()
    peer.say(f"RTSP/1.0 200 OK\nCSeq: {fields['cseq']}\nSession: s\n\n")
    request.result()
    began_s = time.monotonic()
    connection.close()
    assert time.monotonic() - began_s < TIMEOUT_FACTOR
    assert peer.read()[0].startswith("TEARDOWN ")


def test_50_connections_leak_nothing(listener: socket.socket, waker: Waker, no_leaks: NoLeaks) -> None:
    with no_leaks():
        address = ServerAddress.parse(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/")
        for _ in range(50):
            connection = RtspClient(address, waker, no_check)
            peer = Peer(listener)
            peer.close()
            with pytest.raises(RtspError, match="closed"):
                connection.request("OPTIONS")
            connection.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    argv += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path.with_suffix(".crt"))]
    subprocess.run(argv, check=True, capture_output=True, timeout=PATIENCE_S)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())
    return path


@pytest.mark.parametrize("is_trusted", [True, False])
def test_encrypted(
    listener: socket.socket, waker: Waker, certificate: Path, monkeypatch: pytest.MonkeyPatch, is_trusted: bool
) -> None:
    if is_trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    address = ServerAddress.parse(f"rtsps://127.0.0.1:{listener.getsockname()[1]}/cam")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def serve() -> str:
        listener.settimeout(PATIENCE_S)
        raw, _ = listener.accept()
        raw.settimeout(PATIENCE_S)
        try:
            peer = context.wrap_socket(raw, server_side=True)
        except (ssl.SSLError, ConnectionError):
            raw.close()
            return "no"
        with peer:
            asked = peer.recv(4096)
            peer.sendall(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n")
            return asked.decode()

    serving = Background(serve)
    if not is_trusted:
        with pytest.raises(RtspRejected, match="certificate is not trusted"):
            RtspClient(address, waker, no_check)
        assert serving.result() == "no"
        return
    connection = RtspClient(address, waker, no_check)
    assert connection.request("OPTIONS").status == 200
    assert serving.result().startswith("OPTIONS rtsps://")
    connection.close()
