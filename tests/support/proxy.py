"""A reverse proxy that serves the portal below a path, as nginx does; nothing is at its root.

It may require a password, and returns 502 if the portal does not respond.
"""

import base64
import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.support.timeouts import PATIENCE_S

_CHUNK = 65_536


@contextmanager
def below(
    url: str, path: str, login: str | None = None, port: int = 0, headers: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The address of the portal at `url` behind the proxy; `path` starts and ends with a slash.

    `login` is `user:password`; `headers` are added to each response.
    """
    inside = urlsplit(url).netloc
    added = headers or {}
    shown = f"Basic {base64.b64encode(login.encode()).decode()}" if login is not None else None

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            self.close_connection = True
            if not self.path.startswith(path):
                self.send_error(404)
                return
            if shown is not None and self.headers.get("Authorization") != shown:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            connection = http.client.HTTPConnection(inside, timeout=PATIENCE_S)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            try:
                try:
                    connection.request(self.command, "/" + self.path.removeprefix(path), body or None, headers)
                    answer = connection.getresponse()
                except (OSError, http.client.HTTPException):
                    self.send_error(502)
                    return
                self.send_response(answer.status)
                for name, value in (*answer.getheaders(), *added.items()):
                    self.send_header(name, value)
                self.end_headers()
                while chunk := answer.read1(_CHUNK):
                    self.wfile.write(chunk)
            except OSError:
                pass  # the browser disconnected
            finally:
                connection.close()

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def do_DELETE(self) -> None:
            self._pass_on()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="sub-path")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{path}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
