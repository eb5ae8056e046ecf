"""A dashboard at another port, in Chromium and Firefox: what a listed origin can do, and what others cannot."""

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

from tests.conftest import Portal
from tests.support.browser_client import DESK, HEIGHT, KEY, WIDTH, Start, Visitor, wait_until
from tests.support.timeouts import PATIENCE_S
from tests.support.webdriver import browsing

VIEW_KEY = "a-view-key-that-nobody-guesses"
BLOCKED = "blocked"  # by the browser: the page sees no response
# Each function of `dashboard` puts what it saw into `said`.
DASHBOARD = """<!doctype html><html lang="en"><meta charset="utf-8"><title>Dashboard</title>
<h1>Dashboard</h1><img id="live" alt="live"><img id="captured" alt="captured"><p id="said"></p>
<script>
const {portal, key, viewKey} = SETTINGS;
const say = (words) => { document.getElementById("said").textContent = words; };
const show = (id, src) => new Promise((resolve, reject) => {
  const image = document.getElementById(id);
  image.onload = () => resolve(`${image.naturalWidth}x${image.naturalHeight}`);
  image.onerror = () => reject(new Error("no picture"));
  image.src = src;
});
async function send(method, path, body, {credentials = "same-origin", ...more} = {}) {
  const headers = {...(key && {"X-API-Key": key}), ...(body && {"Content-Type": "application/json"}), ...more};
  const answer = await fetch(portal + path, {method, headers, credentials, body: body && JSON.stringify(body)});
  if (!answer.ok) throw new Error(`${answer.status} ${(await answer.json()).detail}`);
  return answer;
}
const actions = {
  connect: async () => `${(await (await send("GET", "/camera/status")).json()).backend}`,
  live: () => show("live", `${portal}/stream.mjpg${viewKey && `?key=${viewKey}`}`),
  start: async () => (await (await send("POST", "/camera/start")).json()).status,
  capture: async () => {
    const answer = await send("GET", "/frame");
    const exposed = Math.abs(Number(answer.headers.get("X-Timestamp")) - Date.now() / 1000) < 60;
    return `${await show("captured", URL.createObjectURL(await answer.blob()))} ${exposed}`;
  },
  brighten: async (brightness) => (await send("POST", "/v1/camera/image_processing", {brightness})).status,
  save: async () => (await send("PUT", "/v1/presets/dashboard", {})).status,
  reset: async () => (await send("DELETE", "/v1/camera/controls")).status,
  machine: async () => typeof (await (await send("GET", "/v1/system/status")).json()).uptime.service_seconds,
  known: async () => (await send("GET", "/camera/status", null, {credentials: "include"})).status,
  wrong: async () => (await send("POST", "/camera/start", null, {"X-API-Key": "wrong"})).status,
  log: () => new Promise((resolve, reject) => {
    const source = new EventSource(`${portal}/v1/system/logs/stream`);
    source.onopen = () => { source.close(); resolve("open"); };
    source.onerror = () => { source.close(); reject(new Error("no log")); };
  }),
};
window.dashboard = (action, ...values) => {
  say("");
  actions[action](...values).then((words) => say(String(words)), (error) => say(error.name === "TypeError" ?
    "blocked" : error.message));
};
</script></html>"""

Do = Callable[..., str]  # performs an action of the dashboard and returns what it saw
OpenPage = Callable[[str], Callable[[str], Any]]  # returns a function that evaluates an expression in the page


class Place(NamedTuple):
    """A portal, the origin of a listed dashboard and that of another one, and whether they need a key."""

    portal: Portal
    listed: str
    other: str
    has_key: bool


@contextmanager
def serving(portal: Callable[[], Portal], key: str, view_key: str) -> Iterator[str]:
    """The origin of a dashboard for the portal, at a name that is not the portal's."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            settings = json.dumps({"portal": portal().url, "key": key, "viewKey": view_key})
            page = DASHBOARD.replace("SETTINGS", settings).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="dashboard")
    thread.start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module", params=["open", "with a key"])
def place(request: pytest.FixtureRequest, start_shared_portal: Start, portal_flags: tuple[str, ...]) -> Iterator[Place]:
    has_key = request.param != "open"
    keys = (KEY, VIEW_KEY) if has_key else ("", "")
    started: list[Portal] = []
    with serving(lambda: started[0], *keys) as listed, serving(lambda: started[0], *keys) as other:
        environment = {"CAMERA_ALLOWED_ORIGINS": f"https://dash.example, {listed}/"}
        environment |= {"CAMERA_API_KEY": KEY, "CAMERA_VIEW_KEY": VIEW_KEY} if has_key else {}
        started.append(start_shared_portal(*portal_flags, environment=environment))
        yield Place(started[0], listed, other, has_key)


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenPage]:
    with browsing("firefox", tmp_path_factory.mktemp("firefox")) as window:

        def open_page(url: str) -> Callable[[str], Any]:
            window.open(url, DESK)
            return lambda expression: window.run(f"return {expression}")

        yield open_page


@pytest.fixture(params=["chromium", "firefox"])
def open_page(request: pytest.FixtureRequest) -> Iterator[OpenPage]:
    if request.param == "firefox":
        yield request.getfixturevalue("firefox")
        return
    visitor: Visitor = request.getfixturevalue("visitor")

    def open_in_chromium(url: str) -> Callable[[str], Any]:
        page = visitor.page()
        page.goto(url)
        return page.evaluate

    yield open_in_chromium


def dashboard(open_page: OpenPage, origin: str) -> Do:
    evaluate = open_page(origin)

    def do(action: str, *values: object) -> str:
        evaluate(f"void dashboard({', '.join(map(json.dumps, (action, *values)))})")
        said: list[str] = []

        def has_said() -> bool:
            said[:] = [evaluate("document.getElementById('said').textContent")]
            return said != [""]

        wait_until(has_said, action)
        return said[0]

    return do


def brightness(portal: Portal) -> float:
    request = urllib.request.Request(f"{portal.url}/v1/camera/controls", headers={"X-API-Key": KEY})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        value: float = json.load(answer)["controls"]["image_processing"]["fields"]["brightness"]["value"]
    return value


def test_listed_dashboard(place: Place, open_page: OpenPage) -> None:
    do = dashboard(open_page, place.listed)
    size = f"{WIDTH}x{HEIGHT}"
    assert do("connect") == "pattern"
    assert do("live") == size
    assert do("start") == "ok"
    assert do("capture") == f"{size} true"
    assert do("brighten", 0.25) == "200"
    assert brightness(place.portal) == 0.25
    assert do("brighten", 7) == "400 brightness: must be a number from -1 to 1"
    assert do("save") == "200"
    assert do("machine") == "number"
    assert do("known") == "200", "credentials are permitted"
    assert do("reset") == "200"
    assert brightness(place.portal) == 0
    if place.has_key:
        assert do("wrong").startswith("401 the API key is wrong")
    else:
        assert do("log") == "open"


def test_other_dashboard(place: Place, open_page: OpenPage) -> None:
    """It can watch, and see why nothing else works."""
    do = dashboard(open_page, place.other)
    assert do("connect") == "pattern"
    assert do("live") == f"{WIDTH}x{HEIGHT}"
    assert do("start").startswith("403 ")
    for action in ("brighten", "save", "reset", "machine", "known", "log"):
        assert do(action, 0.5) in (BLOCKED, "no log")
    assert brightness(place.portal) == 0
