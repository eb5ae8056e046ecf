"""Firefox and WebKitGTK (Safari's engine), driven by WebDriver: Playwright drives only Debian's Chromium.

WebKitGTK speaks it over HTTP (W3C WebDriver), Firefox over a socket (Marionette). Both run without a screen and without
a network.
"""

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import pytest

from tests.support.background import eventually
from tests.support.timeouts import PATIENCE_S

_PAUSE_S: Final = 0.1
# A proxy that does not exist, for all addresses but those of this machine: Firefox would ask its maker for updates.
_FIREFOX_SETTINGS: Final = {
    "marionette.port": 0,  # written to the file MarionetteActivePort
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "media.autoplay.default": 0,
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
}


class _Connection(Protocol):
    def send(self, http: str, marionette: str, parameters: dict[str, Any]) -> Any:
        """The result of one command: `http` is its method and path, `marionette` its name."""


class WebDriver:
    """A window of a browser."""

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection

    def open(self, url: str, size: tuple[int, int]) -> None:
        rect = {"width": size[0], "height": size[1]}
        self._connection.send("POST /window/rect", "WebDriver:SetWindowRect", rect)
        self._connection.send("POST /url", "WebDriver:Navigate", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that the body of a function returns; `arguments[0]` is the first argument."""
        parameters = {"script": script, "args": list(arguments)}
        return self._connection.send("POST /execute/sync", "WebDriver:ExecuteScript", parameters)

    def wait_for(self, script: str, *arguments: Any, timeout_s: float = PATIENCE_S) -> Any:
        """The first true value of the script, which is polled. AssertionError with the page's texts on a timeout."""
        deadline_s = time.monotonic() + timeout_s
        while not (value := self.run(script, *arguments)):
            if time.monotonic() > deadline_s:
                text = self.run("return document.body.innerText")
                raise AssertionError(f"not within {timeout_s} s: {script}; the page: {text[:800]}")
            time.sleep(_PAUSE_S)
        return value

    def text(self, selector: str) -> str:
        text: str = self.run("return document.querySelector(arguments[0]).textContent", selector)
        return text

    def click(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).click()", selector)

    def screenshot(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = self._connection.send("GET /screenshot", "WebDriver:TakeScreenshot", {"full": False})
        path.write_bytes(base64.b64decode(image))


class _Http:
    def __init__(self, url: str) -> None:
        self._url = url
        self._session = ""
        self._session = f"/session/{self.send('POST ', '', {'capabilities': {}})['sessionId']}"

    def send(self, http: str, marionette: str, parameters: dict[str, Any]) -> Any:
        method, _, path = http.partition(" ")
        address = f"{self._url}{self._session or '/session'}{path}"
        body = json.dumps(parameters).encode() if method == "POST" else None
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{http}: {error.read().decode()[:500]}") from None


class _Marionette:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._stream = self._socket.makefile("rb")
        self._count = 0
        self._receive()
        self.send("", "WebDriver:NewSession", {})

    def close(self) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, http: str, marionette: str, parameters: dict[str, Any]) -> Any:
        self._count += 1
        message = json.dumps([0, self._count, marionette, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, number, error, result = self._receive()
        assert number == self._count
        assert error is None, f"{marionette}: {error}"
        return result.get("value") if isinstance(result, dict) else result

    def _receive(self) -> Any:
        digits = b""
        while not digits.endswith(b":"):
            digit = self._stream.read(1)
            assert digit, "Firefox has closed the connection"
            digits += digit
        return json.loads(self._stream.read(int(digits[:-1])))


@contextmanager
def browsing(name: str, folder: Path, *, counts_frames: bool = False) -> Iterator[WebDriver]:
    """A window of `firefox` or `webkit`; the folder keeps its profile.

    WebKit draws without compositing layers, which need half as much time again without a GPU. It calls
    requestVideoFrameCallback only with them, so a test that counts frames sets `counts_frames`.
    """
    with ExitStack() as stack:
        if name == "firefox":
            yield _start_firefox(stack, folder)
        else:
            yield _start_webkit(stack, folder, is_composited=counts_frames)


def _start_firefox(stack: ExitStack, folder: Path) -> WebDriver:
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in _FIREFOX_SETTINGS.items()]
    (folder / "user.js").write_text("\n".join(lines))
    process = _start(
        stack, [_program("firefox-esr", "firefox"), "--headless", "--marionette", "--profile", str(folder)]
    )
    port_file = folder / "MarionetteActivePort"
    eventually(lambda: process.poll() is not None or (port_file.exists() and port_file.read_text()), "Firefox listens")
    assert process.returncode is None, f"Firefox ended with exit code {process.returncode}"
    connection = _Marionette(int(port_file.read_text()))
    stack.callback(connection.close)
    return WebDriver(connection)


def _start_webkit(stack: ExitStack, folder: Path, *, is_composited: bool) -> WebDriver:
    reader, writer = os.pipe()
    with os.fdopen(reader, encoding="ascii") as display:
        _start(stack, [_program("Xvfb"), "-displayfd", str(writer), "-screen", "0", "1600x1200x24"], pass_fds=(writer,))
        os.close(writer)
        number = display.readline().strip()
    assert number, "Xvfb did not start"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "DISPLAY": f":{number}",
        "HOME": str(folder),
        "XDG_RUNTIME_DIR": str(folder),
        "LIBGL_ALWAYS_SOFTWARE": "1",
        "WEBKIT_GST_ENABLE_HLS_SUPPORT": "1",  # as Safari; WebKitGTK's is off by default
        "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1",  # it needs namespaces, which root in a container has not
    }
    if not is_composited:
        environment["WEBKIT_DISABLE_COMPOSITING_MODE"] = "1"
    process = _start(stack, [_program("WebKitWebDriver"), f"--port={port}"], env=environment)
    eventually(lambda: process.poll() is not None or _is_listening(port), "WebKitWebDriver listens")
    assert process.returncode is None, f"WebKitWebDriver ended with exit code {process.returncode}"
    connection = _Http(f"http://127.0.0.1:{port}")
    stack.callback(connection.send, "DELETE ", "", {})
    return WebDriver(connection)


def _is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _start(stack: ExitStack, argv: list[str], **options: Any) -> "subprocess.Popen[bytes]":
    quiet: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(["setpriv", "--pdeathsig", "TERM", *argv], **quiet, **options)
    stack.callback(_end, process)
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _program(*names: str) -> str:
    for name in names:
        if (path := shutil.which(name)) is not None:
            return path
    pytest.skip(f"needs {names[0]}")
