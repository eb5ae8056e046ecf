"""An RTSP client that publishes to a server (RFC 2326): one TCP connection with interleaved RTP.

Starts no thread and never waits without a limit: the socket is non-blocking, every wait has a deadline, and a `Waker`
ends it early. Used by the publisher's thread only. Knows no camera and no encoder.
"""

import errno
import os
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

from softcam.rtsp.auth import authorization
from softcam.rtsp.errors import RtspError, RtspRejected
from softcam.rtsp.waker import Waker

_PORTS: Final = {"rtsp": 554, "rtsps": 322}  # as registered with IANA
CONNECT_LIMIT_S: Final = 3.0  # Linux repeats a SYN after one and after three seconds
_RESPONSE_LIMIT_S: Final = 5.0  # MediaMTX takes two seconds to reject a password
_TEARDOWN_LIMIT_S: Final = 0.2
# Limits what the kernel buffers: more would hide a stalled server for long, and arrive late in the end.
_SEND_BUFFER_BYTES: Final = 128 * 1024
_TCP_USER_TIMEOUT_MS: Final = 6000  # a machine that lost power acknowledges nothing
_RECEIVE_BYTES: Final = 65536
_MAX_HEADER_BYTES: Final = 16 * 1024
_MAX_BODY_BYTES: Final = 64 * 1024
_INVALID: Final = "invalid RTSP response"

_STATUS_ERRORS: Final[Mapping[int, str]] = {
    400: "the server rejected the stream (400): is the path configured there and not in use?",
    403: "publishing to this path is not allowed (403)",
    404: "no such path on the server (404)",
    405: "the server does not accept streams at this path (405)",
    454: "the server ended the session (454)",
    461: "the server does not support RTP over TCP (461)",
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where to publish. `url` is sent to the server; `shown` is for logs, without user, password and query."""

    host: str
    port: int
    is_encrypted: bool
    url: str
    shown: str
    user: str | None = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> "Address":
        """From a validated setting: `rtsp[s]://[user[:password]@]host[:port][/path][?query]`."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        netloc = f"[{host}]" if ":" in host else host
        if parts.port is not None:
            netloc += f":{parts.port}"
        shown = f"{parts.scheme}://{netloc}{parts.path}"
        return cls(
            host=host,
            port=parts.port or _PORTS[parts.scheme],
            is_encrypted=parts.scheme == "rtsps",
            url=f"{shown}?{parts.query}" if parts.query else shown,
            shown=shown,
            user=None if parts.username is None else unquote(parts.username),
            password=unquote(parts.password or ""),
        )


@dataclass(frozen=True, slots=True)
class Response:
    """A server's response; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    challenges: tuple[str, ...]


class Connection:
    """A connection to a server. `check` is called after each wake, and raises Cancelled to end a wait."""

    def __init__(
        self, address: Address, waker: Waker, check: Callable[[], None], connect_limit_s: float = CONNECT_LIMIT_S
    ) -> None:
        """Connects, each address of the host within `connect_limit_s`. Raises RtspError, Cancelled.

        A host name takes as long as the resolver, which cannot be interrupted.
        """
        self._address = address
        self._waker = waker
        self._connect_limit_s = connect_limit_s
        self._check = check
        self._cseq = 0
        self._session: str | None = None
        self._challenges: tuple[str, ...] = ()
        self._nonce_count = 0
        self._unsent = bytearray()
        self._received = bytearray()
        self._responses: dict[int, Response] = {}
        self._awaited: set[int] = set()
        self._end: RtspError | None = None
        self._poll = select.poll()
        self.server = ""  # the server's numeric address
        self.received_s = self.sent_s = time.monotonic()  # when data was last received, and last accepted for sending
        self._socket = self._connect()
        self._poll.register(waker.fileno(), select.POLLIN)

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not accepted yet."""
        return len(self._unsent)

    def request(
        self, method: str, url: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """Send a request and return its successful response. Raises RtspError, Cancelled."""
        deadline_s = time.monotonic() + _RESPONSE_LIMIT_S
        response = self._send_and_wait(method, url, headers, body, deadline_s)
        if response.status == 401 and response.challenges and self._address.user is not None:
            self._challenges, self._nonce_count = response.challenges, 0
            response = self._send_and_wait(method, url, headers, body, deadline_s)
        if response.status == 401:
            if self._address.user is None:
                raise RtspRejected("the server requires a user and password (401), but the URL has none")
            raise RtspRejected("user or password rejected (401)")
        if not 200 <= response.status < 300:
            raise RtspRejected(
                _STATUS_ERRORS.get(response.status, f"the server responded with {response.status} to {method}")
            )
        if session := response.headers.get("session"):
            self._session = session.partition(";")[0].strip()
        return response

    def send_request(
        self, method: str, url: str = "", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> int:
        """Send a request without waiting; its response updates `received_s`. Returns the CSeq."""
        self._cseq += 1
        url = url or self._address.url
        fields = {"CSeq": str(self._cseq), "User-Agent": "soft-stream"}
        if self._session is not None:
            fields["Session"] = self._session
        if self._challenges:
            self._nonce_count += 1
            credentials = self._address.user or "", self._address.password
            fields["Authorization"] = authorization(self._challenges, method, url, credentials, self._nonce_count)
        fields |= headers or {}
        if body:
            fields["Content-Length"] = str(len(body))
        lines = [f"{method} {url} RTSP/1.0", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        self.send("\r\n".join(lines).encode() + body)
        return self._cseq

    def send(self, data: bytes) -> None:
        """Send bytes; what the kernel does not accept is kept, see `unsent`. Raises RtspError."""
        if not self._unsent:
            self.sent_s = time.monotonic()
        self._unsent += data
        self._flush()

    def wait(self, deadline_s: float) -> None:
        """Send and receive; sleep until an event, a wake, or the deadline (monotonic clock).

        Raises RtspError when the server has disconnected, and what `check` raises.
        """
        if self._end is not None:
            raise self._end
        number = self._socket.fileno()
        self._poll.register(number, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        # poll counts in whole milliseconds: round up, to avoid waking twice.
        left_ms = max(0.0, deadline_s - time.monotonic()) * 1000
        ready = dict(self._poll.poll(left_ms if left_ms == 0 else int(left_ms) + 1))
        if self._waker.fileno() in ready:
            self._waker.drain()
            self._check()
        if number in ready:
            if self._unsent:
                self._flush()
            self._receive()

    def close(self) -> None:
        """End the session, if there is one, within a short limit, and close the connection."""
        try:
            if self._session is not None:
                self._check = _no_check
                deadline_s = time.monotonic() + _TEARDOWN_LIMIT_S
                awaited = self.send_request("TEARDOWN")
                self._awaited.add(awaited)
                while awaited not in self._responses and time.monotonic() < deadline_s:
                    self.wait(deadline_s)
        except RtspError:
            pass  # disconnected: then the session has ended too
        finally:
            self._socket.close()

    # --- connecting -------------------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        address = self._address
        try:
            candidates = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise RtspError(f"unknown host {address.host} ({getattr(error, 'strerror', error)})") from error
        self._check()
        failure: RtspError | None = None
        for family, kind, protocol, _, sockaddr in candidates:
            deadline_s = time.monotonic() + self._connect_limit_s  # for each: a later one may answer
            try:
                connection = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            except OSError as error:  # hosts have IPv6 addresses also if the kernel does not support it
                failure = failure or _lost(error)
                continue
            try:
                self._connect_socket(connection, sockaddr, deadline_s)
                self.server = str(sockaddr[0])
                return self._encrypt(connection, deadline_s) if address.is_encrypted else connection
            except BaseException as error:
                connection.close()
                if not isinstance(error, RtspError):
                    raise
                failure = error
        raise failure or RtspError(f"the host {address.host} has no address")

    def _connect_socket(self, connection: socket.socket, sockaddr: tuple[object, ...], deadline_s: float) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        number = connection.connect_ex(sockaddr)
        if number and number != errno.EINPROGRESS:
            raise _lost(OSError(number, os.strerror(number)))
        self._wait_for(connection, select.POLLOUT, deadline_s)
        if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise _lost(OSError(number, os.strerror(number)))

    def _encrypt(self, connection: socket.socket, deadline_s: float) -> socket.socket:
        context = ssl.create_default_context()
        # The new object owns the descriptor from here on.
        encrypted = context.wrap_socket(connection, server_hostname=self._address.host, do_handshake_on_connect=False)
        try:
            while True:
                try:
                    encrypted.do_handshake()
                except ssl.SSLWantReadError:
                    self._wait_for(encrypted, select.POLLIN, deadline_s)
                except ssl.SSLWantWriteError:
                    self._wait_for(encrypted, select.POLLOUT, deadline_s)
                else:
                    return encrypted
        except BaseException as error:
            encrypted.close()
            if isinstance(error, ssl.SSLCertVerificationError):
                raise RtspRejected(f"the server's certificate is not trusted ({error.verify_message})") from error
            if isinstance(error, OSError):
                raise _lost(error) from error
            raise

    def _wait_for(self, connection: socket.socket, events: int, deadline_s: float) -> None:
        poll = select.poll()
        poll.register(connection, events)
        poll.register(self._waker.fileno(), select.POLLIN)
        while True:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise RtspError(f"no response from {self._address.host} within {self._connect_limit_s:.0f} s")
            ready = dict(poll.poll(left_s * 1000))
            if self._waker.fileno() in ready:
                self._waker.drain()
                self._check()
            if connection.fileno() in ready:
                return

    # --- requests and responses ---------------------------------------------------------------------------------

    def _send_and_wait(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: bytes, deadline_s: float
    ) -> Response:
        number = self.send_request(method, url, headers, body)
        self._awaited.add(number)
        while number not in self._responses:
            if time.monotonic() >= deadline_s:
                raise RtspError(f"no response to {method}")
            self.wait(deadline_s)
        return self._responses.pop(number)

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
                self.sent_s = time.monotonic()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            raise _lost(error) from error

    def _receive(self) -> None:
        """Receive data. A disconnection is raised by the next wait: a response may have arrived just before it."""
        try:
            while True:
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    self._end = RtspError("the server closed the connection")
                    break
                self._received += data
                self.received_s = time.monotonic()
                if len(data) < _RECEIVE_BYTES and not self._address.is_encrypted:
                    break
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._end = _lost(error)
        while self._read_message():
            pass

    def _read_message(self) -> bool:
        """Process the next complete message; False if there is none."""
        received = self._received
        if not received:
            return False
        if received[:1] == b"$":  # a receiver report, not used
            length = 4 + int.from_bytes(received[2:4], "big")
            if len(received) < max(4, length):
                return False
            del received[:length]
            return True
        head, separator, _ = received.partition(b"\r\n\r\n")
        if not separator:
            if len(received) > _MAX_HEADER_BYTES:
                raise RtspRejected(_INVALID)
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        fields = dict(pairs)
        length = _number(fields.get("content-length", "0"))
        if length > _MAX_BODY_BYTES or not first.isprintable():
            raise RtspRejected(_INVALID)
        if len(received) < len(head) + 4 + length:
            return False
        del received[: len(head) + 4 + length]
        number = _number(fields.get("cseq", "0"))
        if not first.startswith("RTSP/"):
            if first.startswith("HTTP/"):
                raise RtspRejected("the server speaks HTTP, not RTSP")
            self.send(f"RTSP/1.0 501 Not Implemented\r\nCSeq: {number}\r\n\r\n".encode())
            return True
        status = _number(first.partition(" ")[2][:3])
        if number in self._awaited:
            self._awaited.remove(number)
            challenges = tuple(value for name, value in pairs if name == "www-authenticate")
            self._responses[number] = Response(status, fields, challenges)
        elif status == 454:
            raise RtspError(_STATUS_ERRORS[454])
        return True


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _lost(error: OSError) -> RtspError:
    match error:
        case ConnectionRefusedError():
            return RtspError("connection refused: no server is listening")
        case ConnectionError():
            return RtspError("the server closed the connection")
        case TimeoutError():
            return RtspError("the server no longer responds")
    return RtspError(f"connection lost ({error.strerror or type(error).__name__})")


def _no_check() -> None:
    """Replaces `check` while closing: nothing ends the wait early."""
