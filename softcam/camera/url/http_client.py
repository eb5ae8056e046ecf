"""GETs a URL from servers that follow HTTP only roughly, as browsers do. No thread; an object belongs to its caller.

`http.client` of the standard library rejects what cameras send: other protocol names in the status line, and lines in
the header that are not fields. Redirects are followed, and Basic and Digest challenges answered; user and password of
the URL are sent only when the server requests them, and to no other host. Certificates are not verified, since those
of cameras are self-signed.
"""

import contextlib
import re
import socket
import ssl
import string
import zlib
from collections.abc import Iterator
from http import HTTPStatus
from typing import Final
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from softcam.errors import CameraError
from softcam.runtime.deadline import Deadline
from softcam.runtime.http_auth import authorization

_MAX_REDIRECTS: Final = 5
_MAX_HEADER_BYTES: Final = 64 * 1024
_RECEIVE_BYTES: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_COMPRESSED: Final = frozenset({"gzip", "x-gzip", "deflate"})
_ANY_HEADER: Final = 32 + zlib.MAX_WBITS  # of gzip or zlib
_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\s*(?:;|$)")  # `int` also accepts signs
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
_STATUS: Final = re.compile(r"[A-Z]+(?:/(\d+(?:\.\d+)?))?\s+(\d{3})\b")  # also SHOUTcast's `ICY 200 OK`


class HttpClient:
    """Requests the same URL any number of times, over one connection where the server keeps it open."""

    def __init__(self, url: str, timeout_s: float) -> None:
        """`timeout_s` limits the connecting, the waiting for a response, and each silence in a body."""
        self._url = url
        self._timeout_s = timeout_s
        self._credentials: dict[str, tuple[str, tuple[str, str]]] = {}  # by host: scheme, user and password
        self._challenges: list[str] = []
        self._nonce_count = 0
        self._socket: socket.socket | None = None
        self._peer = ""  # scheme and host of the open connection
        self._data = b""  # received, and not consumed
        self._is_reusable = False
        self._headers: list[tuple[str, str]] = []

    @property
    def content_type(self) -> str:
        """Media type of the response in lower case, without parameters; empty if there is none."""
        return self._header("content-type").partition(";")[0].strip().lower()

    @property
    def length(self) -> int | None:
        """The length of the body in bytes, if the response announces it, as that of a file does."""
        length = self._header("content-length")
        return int(length) if _LENGTH.fullmatch(length) else None

    def request(self) -> None:
        """Send a request; the properties and `body` are then those of its response. Raises CameraError."""
        url = self._url
        has_answered = False
        redirects = 0
        with _camera_errors():
            while True:
                parts = urlsplit(url)
                status = self._ask(parts)
                if status == HTTPStatus.UNAUTHORIZED and not has_answered and self._credentials_for(parts):
                    self._challenges = [value for name, value in self._headers if name == "www-authenticate"]
                    self._nonce_count = 0
                    has_answered = True
                elif status in _REDIRECTS and (location := self._header("location")) and redirects < _MAX_REDIRECTS:
                    url = urljoin(url, location)
                    redirects += 1
                else:
                    break
                self._close()  # rather than reading a body that nobody needs
        if not 200 <= status < 300:
            self._close()
            phrase = HTTPStatus(status).phrase if status in list(HTTPStatus) else ""
            raise CameraError(f"Server returned {status} {phrase}".rstrip())

    def body(self) -> Iterator[bytes]:
        """Yield the body as it arrives, decompressed. Raises CameraError."""
        is_compressed = self._header("content-encoding").lower() in _COMPRESSED
        with _camera_errors():
            yield from _decompressed(self._sent_body()) if is_compressed else self._sent_body()

    def _sent_body(self) -> Iterator[bytes]:
        if "chunked" in self._header("transfer-encoding").lower():
            yield from self._chunks()
        elif self.length is not None and not self.content_type.startswith("multipart/"):
            # Of a stream, a length is not true.
            yield from self._read(self.length)
        else:
            self._is_reusable = False
            yield from self._read(None)

    def close(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._data = None, b""

    def _header(self, name: str) -> str:
        """The first value of a field, in which a part header may follow the response's."""
        return next((value for each, value in self._headers if each == name), "")

    def _ask(self, parts: SplitResult) -> int:
        """Send one request and read the header of its response; returns the status."""
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CameraError("redirected to an address that is not HTTP")
        if parts.username is not None:
            self._credentials[parts.hostname] = (parts.scheme, (unquote(parts.username), unquote(parts.password or "")))
        host = parts.netloc.rpartition("@")[2]
        peer = f"{parts.scheme}://{host}"
        if not self._is_reusable or self._data or peer != self._peer:
            self._close()
        target = quote(f"{parts.path or '/'}{parts.query and '?' + parts.query}", safe=string.punctuation)
        lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "User-Agent: Mozilla/5.0 (compatible; soft-stream)"]
        lines += ["Accept: */*", "Accept-Encoding: identity"]
        credentials = self._credentials_for(parts)
        if self._challenges and credentials:
            self._nonce_count += 1
            try:
                value = authorization(self._challenges, "GET", target, credentials, self._nonce_count)
            except ValueError as error:
                raise CameraError(str(error)) from error
            lines.append(f"Authorization: {value}")
        request = "\r\n".join([*lines, "", ""]).encode()
        if self._socket is not None:
            # The server may have closed the connection meanwhile; whether it has, shows only now.
            with contextlib.suppress(ConnectionError):
                return self._exchange(request)
            self._close()
        self._connect(parts)
        self._peer = peer
        return self._exchange(request)

    def _credentials_for(self, parts: SplitResult) -> tuple[str, str] | None:
        """User and password for this host; not without encryption if the URL that has them is encrypted."""
        scheme, credentials = self._credentials.get(parts.hostname or "", ("", None))
        return credentials if parts.scheme in ("https", scheme) else None

    def _connect(self, parts: SplitResult) -> None:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        self._socket = socket.create_connection((parts.hostname or "", port), self._timeout_s)
        if parts.scheme == "https":
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            # Cameras have the TLS of the year when they were made.
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            self._socket = context.wrap_socket(self._socket, server_hostname=parts.hostname)

    def _exchange(self, request: bytes) -> int:
        if self._socket is None:
            raise ConnectionError("closed")
        deadline = Deadline.after(self._timeout_s)
        self._socket.settimeout(self._timeout_s)
        self._socket.sendall(request)
        while True:
            head = self._read_head(deadline)
            status_line, *lines = head.decode("latin-1").splitlines()
            match = _STATUS.match(status_line)
            if match is None:
                raise CameraError("Server returned no HTTP response")
            status = int(match[2])
            if status >= 200:
                break
        fields = [line.partition(":") for line in lines if ":" in line]
        self._headers = [(name.strip().lower(), value.strip()) for name, _, value in fields]
        connection = self._header("connection").lower()
        self._is_reusable = "close" not in connection and (match[1] == "1.1" or "keep-alive" in connection)
        return status

    def _read_head(self, deadline: Deadline) -> bytes:
        """Up to an empty line, which CRLF or LF end; empty lines before it are skipped."""
        while True:
            self._data = self._data.lstrip(b"\r\n")
            end = re.search(rb"\r?\n\r?\n", self._data)
            if end is not None:
                head, self._data = self._data[: end.start()], self._data[end.end() :]
                return head
            if len(self._data) > _MAX_HEADER_BYTES:
                raise CameraError("Server returned no HTTP response")
            if deadline.is_expired:
                raise TimeoutError
            data = self._receive()
            if not data:
                raise ConnectionError("connection closed without a response")
            self._data += data

    def _receive(self) -> bytes:
        """What arrives next; nothing at the end."""
        return b"" if self._socket is None else self._socket.recv(_RECEIVE_BYTES)

    def _read(self, length: int | None) -> Iterator[bytes]:
        """Yield so many bytes, None for all until the server closes the connection."""
        while length != 0:
            data = self._data or self._receive()
            if not data:
                self._is_reusable = False
                return
            data, self._data = data[:length], data[length:] if length is not None else b""
            if length is not None:
                length -= len(data)
            yield data

    def _chunks(self) -> Iterator[bytes]:
        while (line := self._read_line()) is not None:
            match = _CHUNK_SIZE.match(line)
            if match is None:
                raise ValueError("chunk without a size")
            size = int(match[1], 16)
            if size == 0:
                # The connection of a response with trailer fields is closed rather than reading them.
                self._is_reusable = self._read_line() == b"" and self._is_reusable
                break
            yield from self._read(size)
            self._read_line()

    def _read_line(self) -> bytes | None:
        """The next line without its end; None at the end of the data."""
        deadline = Deadline.after(self._timeout_s)
        while b"\n" not in self._data:
            if deadline.is_expired:
                raise TimeoutError
            if len(self._data) > _MAX_HEADER_BYTES or not (data := self._receive()):
                self._is_reusable, self._data = False, b""
                return None
            self._data += data
        line, _, self._data = self._data.partition(b"\n")
        return line.rstrip()


def _decompressed(body: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what servers compress although the request accepts no compression, in pieces of limited size."""
    decompressor = None
    for data in body:
        if decompressor is None:
            # Some servers send deflate without the header of zlib, in which the lower half of the first byte is 8.
            has_header = data[0] & 0x0F == 8 or data[0] == 0x1F
            decompressor = zlib.decompressobj(_ANY_HEADER if has_header else -zlib.MAX_WBITS)
        while piece := decompressor.decompress(data, _RECEIVE_BYTES):
            yield piece
            data = decompressor.unconsumed_tail


@contextlib.contextmanager
def _camera_errors() -> Iterator[None]:
    """Raise CameraError for errors of the network and of the protocol, with a message without address and password."""
    try:
        yield
    except TimeoutError as error:
        raise CameraError("timed out") from error
    except OSError as error:
        raise CameraError(error.strerror or str(error) or "connection lost") from error
    except zlib.error as error:
        raise CameraError("the compressed response is damaged") from error
    except ValueError as error:  # its message may contain the address
        raise CameraError("invalid address or response") from error
