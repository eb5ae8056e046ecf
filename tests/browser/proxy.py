"""A reverse proxy that shows the portal below a path, as nginx may; nothing else is at its root."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_CHUNK = 65_536


@contextmanager
def below(url: str, path: str) -> Iterator[str]:
    """The address below which the portal at `url` is shown; `path` begins and ends with a slash."""
    inside = urlsplit(url).netloc

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            self.close_connection = True
            if not self.path.startswith(path):
                self.send_error(404)
                return
            connection = http.client.HTTPConnection(inside, timeout=20)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            try:
                connection.request(self.command, "/" + self.path.removeprefix(path), body or None, headers)
                answer = connection.getresponse()
                self.send_response(answer.status)
                for name, value in answer.getheaders():
                    self.send_header(name, value)
                self.end_headers()
                while chunk := answer.read1(_CHUNK):
                    self.wfile.write(chunk)
            except OSError:
                pass  # the browser left
            finally:
                connection.close()

        def do_GET(self) -> None:
            self._pass_on()

        def do_POST(self) -> None:
            self._pass_on()

        def do_DELETE(self) -> None:
            self._pass_on()

        def log_request(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="sub-path")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{path}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
