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

from softcam.rtsp.messages import InvalidMessage, Message, MessageReader, format_message
from softcam.rtsp.publisher.errors import RtspEnded, RtspError, RtspRejected
from softcam.rtsp.publisher.waker import Waker
from softcam.runtime.http_auth import authorization

_PORTS: Final = {"rtsp": 554, "rtsps": 322}  # as registered with IANA
CONNECT_LIMIT_S: Final = 3.0  # Linux repeats a SYN after one and after three seconds
_RESPONSE_LIMIT_S: Final = 5.0  # MediaMTX takes two seconds to reject a password
_TEARDOWN_LIMIT_S: Final = 0.2
# Limits what the kernel buffers: more would hide a stalled server for long, and arrive late in the end.
_SEND_BUFFER_BYTES: Final = 128 * 1024
_TCP_USER_TIMEOUT_MS: Final = 6000  # a machine that lost power acknowledges nothing
_RECEIVE_BYTES: Final = 65536
_NO_HEADERS: Final[Mapping[str, str]] = {}
_NOT_READY: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

_STATUS_ERRORS: Final[Mapping[int, str]] = {
    400: "the server rejected the stream (400): is the path configured there and not in use?",
    403: "publishing to this path is not allowed (403)",
    404: "no such path on the server (404)",
    405: "the server does not accept streams at this path (405)",
    454: "the server ended the session (454)",
    461: "the server does not support RTP over TCP (461)",
}


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """A server that hangs still receives data for long, into kernel buffers. So it is polled, and has to respond.

    A response is delayed by at most a send buffer full of video.
    """

    poll_s: float = 2.0
    silence_s: float = 5.0


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Where to publish. `url` is sent to the server; `shown` is for logs, without user, password and query."""

    host: str
    port: int
    is_encrypted: bool
    url: str
    shown: str
    user: str | None = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> "ServerAddress":
        """From a validated setting: `rtsp[s]://[user[:password]@]host[:port][/path][?query]`."""
        parts = urlsplit(url)
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2].lower(), query="", fragment="").geturl()
        return cls(
            host=parts.hostname or "",
            port=parts.port or _PORTS[parts.scheme],
            is_encrypted=parts.scheme == "rtsps",
            url=f"{shown}?{parts.query}" if parts.query else shown,
            shown=shown,
            user=None if parts.username is None else unquote(parts.username),
            password=unquote(parts.password or ""),
        )


class RtspClient:
    """A client with its connection. `raise_if_cancelled` is called after each wait, and raises Cancelled to end it."""

    def __init__(
        self,
        address: ServerAddress,
        waker: Waker,
        raise_if_cancelled: Callable[[], None],
        connect_limit_s: float = CONNECT_LIMIT_S,
        keep_alive: KeepAlive | None = None,
    ) -> None:
        """Connects, each address of the host within `connect_limit_s`. Raises RtspError, Cancelled.

        A host name takes as long as the resolver, which cannot be interrupted.
        """
        self._address = address
        self._waker = waker
        self._connect_limit_s = connect_limit_s
        self._keep_alive = keep_alive or KeepAlive()
        self._raise_if_cancelled = raise_if_cancelled
        self._cseq = 0
        self._session = ""
        self._challenges: list[str] = []
        self._nonce_count = 0
        self._unsent = bytearray()
        self._received = bytearray()
        self._reader = MessageReader(self._received)
        self._responses: dict[int, Message | None] = {}  # to the requests with these numbers; None while awaited
        self._end: RtspError | None = None
        self.server = ""  # the server's numeric address
        self._received_s = self._sent_s = time.monotonic()  # when data was last received, and last accepted for sending
        self._polled_s = self._received_s
        self._socket = self._connect()

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not accepted yet."""
        return len(self._unsent)

    def request(
        self, method: str, url: str = "", headers: Mapping[str, str] = _NO_HEADERS, body: bytes = b""
    ) -> Message:
        """Send a request and return its successful response. Raises RtspError, Cancelled."""
        deadline_s = time.monotonic() + _RESPONSE_LIMIT_S
        response = self._response_to(self.send_request(method, url, headers, body), method, deadline_s)
        challenges = response.fields.get("www-authenticate", [])
        if response.status == 401 and challenges and self._address.user is not None:
            self._challenges, self._nonce_count = challenges, 0
            response = self._response_to(self.send_request(method, url, headers, body), method, deadline_s)
        status = response.status
        if status == 401:
            raise RtspRejected(_unauthorized(self._address, are_credentials_sent=bool(self._challenges)))
        if not 200 <= status < 300:
            raise RtspRejected(_STATUS_ERRORS.get(status, f"the server responded with {status} to {method}"))
        self._session = response.session or self._session
        return response

    def send_request(
        self, method: str, url: str = "", headers: Mapping[str, str] = _NO_HEADERS, body: bytes = b""
    ) -> int:
        """Send a request without waiting for its response. Returns the CSeq."""
        self._cseq += 1
        url = url or self._address.url
        fields = {"CSeq": str(self._cseq), "User-Agent": "soft-stream"}
        if self._session:
            fields["Session"] = self._session
        if self._challenges:
            self._nonce_count += 1
            credentials = self._address.user or "", self._address.password
            try:
                fields["Authorization"] = authorization(self._challenges, method, url, credentials, self._nonce_count)
            except ValueError as error:
                raise RtspRejected(str(error)) from error
        self.send(format_message(f"{method} {url} RTSP/1.0", {**fields, **headers}.items(), body))
        return self._cseq

    def send(self, data: bytes) -> None:
        """Send bytes; what the kernel does not accept is kept, see `unsent`. Raises RtspError."""
        if not self._unsent:
            self._sent_s = time.monotonic()
        self._unsent += data
        self._flush()

    def wait(self, deadline_s: float) -> None:
        """Send and receive; sleep until an event, a wake, or the deadline (monotonic clock).

        Raises RtspError when the server has disconnected, and what `raise_if_cancelled` raises.
        """
        if self._end is not None:
            raise self._end
        if self._is_ready(self._socket, select.POLLIN | (select.POLLOUT if self._unsent else 0), deadline_s):
            self._flush()
            self._receive()

    def keep_alive(self) -> float:
        """Send OPTIONS if it is due, which also keeps the session alive; returns when to call again.

        Raises RtspError if the server has not responded in time, or accepts no more data.
        """
        now_s, limits = time.monotonic(), self._keep_alive
        if self._unsent and now_s - self._sent_s >= limits.silence_s:
            raise RtspError("the server accepts no more data")
        if self._received_s < self._polled_s:  # no response yet
            if now_s - self._polled_s >= limits.silence_s:
                raise RtspError("the server no longer responds")
            return self._polled_s + limits.silence_s
        if now_s - self._polled_s >= limits.poll_s:
            self.send_request("OPTIONS")
            self._polled_s = now_s
            return now_s + limits.silence_s
        return self._polled_s + limits.poll_s

    def close(self) -> None:
        """End the session, if there is one, within a short limit, and close the connection."""
        try:
            if self._session:
                self._raise_if_cancelled = lambda: None
                self._response_to(self.send_request("TEARDOWN"), "TEARDOWN", time.monotonic() + _TEARDOWN_LIMIT_S)
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
        self._raise_if_cancelled()
        failure: RtspError | None = None
        for family, kind, protocol, _, sockaddr in candidates:
            try:
                connection = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            except OSError as error:  # hosts have IPv6 addresses also if the kernel does not support it
                failure = failure or _lost(error)
                continue
            deadline_s = time.monotonic() + self._connect_limit_s  # for each: a later one may answer
            try:
                self._connect_socket(connection, sockaddr, deadline_s)
                if address.is_encrypted:
                    # The new object owns the descriptor from here on.
                    connection = ssl.create_default_context().wrap_socket(
                        connection, server_hostname=address.host, do_handshake_on_connect=False
                    )
                    self._shake_hands(connection, deadline_s)
            except BaseException as error:
                connection.close()
                if not isinstance(error, RtspError | OSError):
                    raise
                failure = _lost(error) if isinstance(error, OSError) else error
            else:
                self.server = str(sockaddr[0])
                return connection
        raise failure or RtspError(f"the host {address.host} has no address")

    def _connect_socket(self, connection: socket.socket, sockaddr: tuple[object, ...], deadline_s: float) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TCP_USER_TIMEOUT_MS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        number = connection.connect_ex(sockaddr)
        if number == errno.EINPROGRESS:
            self._require_ready(connection, select.POLLOUT, deadline_s)
            number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            raise OSError(number, os.strerror(number))

    def _shake_hands(self, connection: ssl.SSLSocket, deadline_s: float) -> None:
        while True:
            try:
                connection.do_handshake()
            except ssl.SSLWantReadError:
                self._require_ready(connection, select.POLLIN, deadline_s)
            except ssl.SSLWantWriteError:
                self._require_ready(connection, select.POLLOUT, deadline_s)
            else:
                return

    def _require_ready(self, connection: socket.socket, events: int, deadline_s: float) -> None:
        while not self._is_ready(connection, events, deadline_s):
            if time.monotonic() >= deadline_s:
                raise RtspError(f"no response from {self._address.host} within {self._connect_limit_s:.0f} s")

    def _is_ready(self, connection: socket.socket, events: int, deadline_s: float) -> bool:
        is_ready = self._waker.wait(deadline_s, connection, events)
        self._raise_if_cancelled()
        return is_ready

    # --- requests and responses ---------------------------------------------------------------------------------

    def _response_to(self, number: int, method: str, deadline_s: float) -> Message:
        self._responses[number] = None
        while (response := self._responses[number]) is None:
            if time.monotonic() >= deadline_s:
                raise RtspError(f"no response to {method}")
            self.wait(deadline_s)
        del self._responses[number]
        return response

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                del self._unsent[:sent]
                self._sent_s = time.monotonic()
        except _NOT_READY:
            pass
        except OSError as error:
            raise _lost(error) from error

    def _receive(self) -> None:
        """Receive data. A disconnection is raised by the next wait: a response may have arrived just before it."""
        try:
            while data := self._socket.recv(_RECEIVE_BYTES):
                self._received += data
                self._received_s = time.monotonic()
                if len(data) < _RECEIVE_BYTES and not self._address.is_encrypted:
                    break
            else:
                self._end = RtspEnded("the server closed the connection")
        except _NOT_READY:
            pass
        except OSError as error:
            self._end = _lost(error)
        try:
            while (message := self._reader.take_message()) is not None:
                if isinstance(message, Message):  # and not a receiver report
                    self._process(message)
        except InvalidMessage as error:
            raise RtspRejected("invalid RTSP response") from error

    def _process(self, message: Message) -> None:
        if message.first.startswith("HTTP/"):
            raise RtspRejected("the server speaks HTTP, not RTSP")
        number = int(message.cseq or 0)
        if message.is_request:
            self.send(format_message("RTSP/1.0 501 Not Implemented", [("CSeq", str(number))]))
        elif number in self._responses:
            self._responses[number] = message
        elif message.status == 454:
            raise RtspEnded(_STATUS_ERRORS[454])


def _unauthorized(address: ServerAddress, *, are_credentials_sent: bool) -> str:
    """What the server did not accept: a user and password, or a token in the query, whichever it was sent."""
    if are_credentials_sent:
        return "user or password rejected (401)"
    if address.user is not None:
        return "access denied (401): the server did not request the user and password of the URL"
    if "?" in address.url:
        return "access denied (401): the server did not accept the query of the URL, which has no user and password"
    return "the server requires a user and password (401), but the URL has none"


def _lost(error: OSError) -> RtspError:
    match error:
        case ssl.SSLCertVerificationError():
            return RtspRejected(f"the server's certificate is not trusted ({error.verify_message})")
        case ConnectionRefusedError():
            return RtspError("connection refused: no server is listening")
        case ConnectionError():
            return RtspEnded("the server closed the connection")
        case TimeoutError():
            return RtspError("the server no longer responds")
    return RtspError(f"connection lost ({error.strerror or type(error).__name__})")
