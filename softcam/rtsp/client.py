"""A client of RTSP that gives a stream to a server (RFC 2326): one TCP connection, RTP interleaved in it.

No thread starts here and nothing here waits without an end: the socket never blocks, every wait has a deadline, and a
`Waker` ends it early. For the publisher's thread alone, but for `Waker.ring`. Knows no camera and no encoder.
"""

import base64
import contextlib
import errno
import hashlib
import os
import re
import secrets
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import unquote, urlsplit

_PORTS: Final = {"rtsp": 554, "rtsps": 322}  # IANA's
_CONNECT_LIMIT_S: Final = 3.0  # Linux asks again after one second and after three
_ANSWER_LIMIT_S: Final = 5.0  # MediaMTX takes two to say that a password is wrong
_FAREWELL_S: Final = 0.2
# What may wait in the kernel: much of it would hide for long that the server takes nothing, and be late in the end.
_SEND_BUFFER_BYTES: Final = 128 * 1024
_UNANSWERED_LIMIT_MS: Final = 6000  # a machine that has lost its power acknowledges nothing
_RECEIVE_BYTES: Final = 65536
_LARGEST_HEADER: Final = 16 * 1024
_LARGEST_BODY: Final = 64 * 1024

_WORDS: Final[Mapping[int, str]] = {
    400: "the server refuses the stream (400): is the path configured there, and free?",
    403: "the server allows no publishing to this path (403)",
    404: "the server knows no such path (404)",
    405: "the server takes no streams at this path (405)",
    454: "the server has ended the session (454)",
    461: "the server takes no RTP over TCP (461)",
}


class RtspError(Exception):
    """No stream goes to the server; the message says why, in words that bear no secret."""


class RtspRejected(RtspError):
    """The server is there and said no: asking often does not help."""


class Cancelled(Exception):
    """Nobody wants this connection any more."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to publish. `url` is what the server is told; `shown` is for people, without user, password and query."""

    host: str
    port: int
    is_encrypted: bool
    url: str
    shown: str
    user: str | None = field(repr=False)
    password: str = field(repr=False)

    @classmethod
    def parse(cls, url: str) -> "Address":
        """From a setting that was checked before: `rtsp[s]://[user[:password]@]host[:port][/path][?query]`."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        place = f"[{host}]" if ":" in host else host
        if parts.port is not None:
            place += f":{parts.port}"
        shown = f"{parts.scheme}://{place}{parts.path}"
        return cls(
            host=host,
            port=parts.port or _PORTS[parts.scheme],
            is_encrypted=parts.scheme == "rtsps",
            url=f"{shown}?{parts.query}" if parts.query else shown,
            shown=shown,
            user=None if parts.username is None else unquote(parts.username),
            password=unquote(parts.password or ""),
        )


class Waker:
    """Ends a wait from any thread. What rings while nobody waits ends the next wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _number
        self._number = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def ring(self) -> None:
        with self._lock:
            if self._number >= 0:
                os.eventfd_write(self._number, 1)

    def fileno(self) -> int:
        return self._number

    def hush(self) -> None:
        """Forget what rang until now."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._number)

    def wait(self, deadline_s: float) -> None:
        """Sleep until it rings, or until the deadline on the monotonic clock."""
        poll = select.poll()
        poll.register(self._number, select.POLLIN)
        poll.poll(max(0.0, deadline_s - time.monotonic()) * 1000)
        self.hush()

    def close(self) -> None:
        with self._lock:
            os.close(self._number)
            self._number = -1


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    challenges: tuple[str, ...]


class Connection:
    """One connection to a server. `check` is called whenever the bell rang, and raises Interrupted to end a wait."""

    def __init__(self, address: Address, bell: Waker, check: Callable[[], None]) -> None:
        """Connects. Raises Failure or Interrupted. A name that has to be looked up may take as long as the resolver."""
        self._address = address
        self._bell = bell
        self._check = check
        self._cseq = 0
        self._session: str | None = None
        self._challenges: tuple[str, ...] = ()
        self._nonce_count = 0
        self._unsent = bytearray()
        self._received = bytearray()
        self._replies: dict[int, Reply] = {}
        self._awaited: set[int] = set()
        self._end: RtspError | None = None
        self._poll = select.poll()
        self.server = ""  # the server's address as numbers
        self.heard_s = self.moved_s = time.monotonic()  # when something came last, and when something was taken
        self._socket = self._connect()
        self._poll.register(bell.fileno(), select.POLLIN)

    @property
    def unsent(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._unsent)

    def request(self, method: str, url: str = "", headers: Mapping[str, str] | None = None, body: bytes = b"") -> Reply:
        """Ask, and wait for the answer, which is a success. Raises Failure or Interrupted."""
        deadline_s = time.monotonic() + _ANSWER_LIMIT_S
        reply = self._ask_and_wait(method, url, headers, body, deadline_s)
        if reply.status == 401 and reply.challenges and self._address.user is not None:
            self._challenges, self._nonce_count = reply.challenges, 0
            reply = self._ask_and_wait(method, url, headers, body, deadline_s)
        if reply.status == 401:
            if self._address.user is None:
                raise RtspRejected("the server wants a user and a password (401), and the address has none")
            raise RtspRejected("the server does not take this user and password (401)")
        if not 200 <= reply.status < 300:
            raise RtspRejected(_WORDS.get(reply.status, f"the server answers {reply.status} to {method}"))
        if session := reply.headers.get("session"):
            self._session = session.partition(";")[0].strip()
        return reply

    def ask(self, method: str, url: str = "", headers: Mapping[str, str] | None = None, body: bytes = b"") -> int:
        """Send a request, and do not wait; the answer shows as `heard_s`. Its number."""
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
        """Hand bytes to the kernel, and keep what it does not take: see `unsent`. Raises Failure."""
        if not self._unsent:
            self.moved_s = time.monotonic()
        self._unsent += data
        self._flush()

    def wait(self, deadline_s: float) -> None:
        """Send, receive, and sleep until something happened, the bell rang, or the deadline (monotonic clock).

        Raises Failure when the server left, and what `check` raises.
        """
        if self._end is not None:
            raise self._end
        number = self._socket.fileno()
        self._poll.register(number, select.POLLIN | (select.POLLOUT if self._unsent else 0))
        # A little longer than asked for rather than twice: poll counts in whole milliseconds.
        left_ms = max(0.0, deadline_s - time.monotonic()) * 1000
        ready = dict(self._poll.poll(left_ms if left_ms == 0 else int(left_ms) + 1))
        if self._bell.fileno() in ready:
            self._bell.hush()
            self._check()
        if number in ready:
            if self._unsent:
                self._flush()
            self._receive()

    def close(self) -> None:
        """End the session where there is one, in a moment at the most, and the connection."""
        try:
            if self._session is not None:
                self._check = _nothing
                deadline_s = time.monotonic() + _FAREWELL_S
                awaited = self.ask("TEARDOWN")
                self._awaited.add(awaited)
                while awaited not in self._replies and time.monotonic() < deadline_s:
                    self.wait(deadline_s)
        except RtspError:
            pass  # it is gone: then so is the session
        finally:
            self._socket.close()

    # --- connecting -------------------------------------------------------------------------------------------

    def _connect(self) -> socket.socket:
        address = self._address
        try:
            places = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        except (socket.gaierror, UnicodeError) as error:
            raise RtspError(f"the host {address.host} is not known ({getattr(error, 'strerror', error)})") from error
        self._check()
        trouble: RtspError | None = None
        for family, kind, protocol, _, place in places:
            deadline_s = time.monotonic() + _CONNECT_LIMIT_S  # its own: behind a silent one may be a good one
            try:
                connection = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            except OSError as error:  # names have addresses of IPv6 also where the kernel has none
                trouble = trouble or _lost(error)
                continue
            try:
                self._join(connection, place, deadline_s)
                self.server = str(place[0])
                return self._encrypt(connection, deadline_s) if address.is_encrypted else connection
            except BaseException as error:
                connection.close()
                if not isinstance(error, RtspError):
                    raise
                trouble = error
        raise trouble or RtspError(f"the host {address.host} has no address")

    def _join(self, connection: socket.socket, place: tuple[object, ...], deadline_s: float) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED_LIMIT_MS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        number = connection.connect_ex(place)
        if number and number != errno.EINPROGRESS:
            raise _lost(OSError(number, os.strerror(number)))
        self._wait_for(connection, select.POLLOUT, deadline_s)
        if number := connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise _lost(OSError(number, os.strerror(number)))

    def _encrypt(self, connection: socket.socket, deadline_s: float) -> socket.socket:
        context = ssl.create_default_context()
        # From here on the new object owns the descriptor.
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
        poll.register(self._bell.fileno(), select.POLLIN)
        while True:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise RtspError(f"no answer from {self._address.host} within {_CONNECT_LIMIT_S:.0f} s")
            ready = dict(poll.poll(left_s * 1000))
            if self._bell.fileno() in ready:
                self._bell.hush()
                self._check()
            if connection.fileno() in ready:
                return

    # --- requests and answers ---------------------------------------------------------------------------------

    def _ask_and_wait(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: bytes, deadline_s: float
    ) -> Reply:
        number = self.ask(method, url, headers, body)
        self._awaited.add(number)
        while number not in self._replies:
            if time.monotonic() >= deadline_s:
                raise RtspError(f"the server does not answer ({method})")
            self.wait(deadline_s)
        return self._replies.pop(number)

    def _flush(self) -> None:
        try:
            while self._unsent:
                taken = self._socket.send(self._unsent)
                del self._unsent[:taken]
                self.moved_s = time.monotonic()
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            raise _lost(error) from error

    def _receive(self) -> None:
        """Take what came. An end is told by the next wait: an answer may have come right before it."""
        try:
            while True:
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    self._end = RtspError("the server closed the connection")
                    break
                self._received += data
                self.heard_s = time.monotonic()
                if len(data) < _RECEIVE_BYTES and not self._address.is_encrypted:
                    break
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        except OSError as error:
            self._end = _lost(error)
        while self._take_message():
            pass

    def _take_message(self) -> bool:
        """Take the next whole message off what was received; False when there is none."""
        received = self._received
        if not received:
            return False
        if received[:1] == b"$":  # a report of what arrived, which nobody here reads
            length = 4 + int.from_bytes(received[2:4], "big")
            if len(received) < max(4, length):
                return False
            del received[:length]
            return True
        head, separator, _ = received.partition(b"\r\n\r\n")
        if not separator:
            if len(received) > _LARGEST_HEADER:
                raise RtspRejected("what answers there does not speak RTSP")
            return False
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        fields = dict(pairs)
        length = _number(fields.get("content-length", "0"))
        if length > _LARGEST_BODY or not first.isprintable():
            raise RtspRejected("what answers there does not speak RTSP")
        if len(received) < len(head) + 4 + length:
            return False
        del received[: len(head) + 4 + length]
        number = _number(fields.get("cseq", "0"))
        if not first.startswith("RTSP/"):
            if first.startswith("HTTP/"):
                raise RtspRejected("what answers there speaks HTTP, and not RTSP")
            self.send(f"RTSP/1.0 501 Not Implemented\r\nCSeq: {number}\r\n\r\n".encode())
            return True
        status = _number(first.partition(" ")[2][:3])
        if number in self._awaited:
            self._awaited.remove(number)
            challenges = tuple(value for name, value in pairs if name == "www-authenticate")
            self._replies[number] = Reply(status, fields, challenges)
        elif status == 454:
            raise RtspError(_WORDS[454])
        return True


def authorization(challenges: tuple[str, ...], method: str, url: str, credentials: tuple[str, str], count: int) -> str:
    """The header's value for the best of the challenges (RFC 7616, 7617). Raises Refused where all are unknown."""
    user, password = credentials
    for algorithm, digest in (("SHA-256", _sha256), ("MD5", _md5)):
        for challenge in challenges:
            scheme, _, text = challenge.partition(" ")
            fields = {name.lower(): quoted or plain for name, quoted, plain in _FIELD.findall(text)}
            if scheme.lower() != "digest" or fields.get("algorithm", "MD5").upper() != algorithm:
                continue
            realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
            secret = digest(f"{user}:{realm}:{password}")
            request = digest(f"{method}:{url}")
            values = {"username": user, "realm": realm, "nonce": nonce, "uri": url}
            tail = f", algorithm={algorithm}" if "algorithm" in fields else ""
            if "auth" in re.split(r"[\s,]+", fields.get("qop", "")):
                own, number = secrets.token_hex(8), f"{count:08x}"
                values |= {"cnonce": own, "response": digest(f"{secret}:{nonce}:{number}:{own}:auth:{request}")}
                tail += f", qop=auth, nc={number}"
            else:
                values["response"] = digest(f"{secret}:{nonce}:{request}")
            if "opaque" in fields:
                values["opaque"] = fields["opaque"]
            return "Digest " + ", ".join(f'{name}="{_escape(value)}"' for name, value in values.items()) + tail
    if any(challenge.partition(" ")[0].lower() == "basic" for challenge in challenges):
        return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    raise RtspRejected("the server wants a way to log in that is not known here (401)")


_FIELD: Final = re.compile(r'([\w-]+)=(?:"([^"]*)"|([^\s,"]+))')


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def _lost(error: OSError) -> RtspError:
    match error:
        case ConnectionRefusedError():
            return RtspError("connection refused: no server listens there")
        case ConnectionError():
            return RtspError("the server closed the connection")
        case TimeoutError():
            return RtspError("the server does not answer any more")
    return RtspError(f"the connection is lost ({error.strerror or type(error).__name__})")


def _nothing() -> None:
    """Nothing ends this wait early."""
