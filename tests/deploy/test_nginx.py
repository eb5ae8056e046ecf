"""nginx in front of the portal: access, headers, and streams that are the same as without it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.machine import PROJECT, Machine
from tests.support.timeouts import TIMEOUT_FACTOR

NGINX = PROJECT / "integrations/nginx"
ECHO = """
import http.server

class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = f"{self.request_version}\\n{self.headers}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

http.server.ThreadingHTTPServer(("127.0.0.1", 18089), Echo).serve_forever()
"""


@pytest.fixture
def password(machine: Machine) -> str:
    assert machine.run("stat", "-c", "%a %U", "/etc/camera-streamer/nginx-password").stdout == "600 root\n"
    return machine.run("cat", "/etc/camera-streamer/nginx-password").stdout.strip()


@pytest.mark.parametrize("path", ["/", "/stream.mjpg", "/snapshot.jpg", "/health", "/v1/camera/status"])
def test_password_is_required(machine: Machine, password: str, path: str) -> None:
    for port in (8081, 8082):
        url = f"http://127.0.0.1:{port}{path}"
        code, body = machine.get(url, "-D", "-")
        assert code == 401
        assert 'WWW-Authenticate: Basic realm="camera"' in body
        assert machine.get(url, "-u", f"camera:{password[:-1]}")[0] == 401
        if path != "/stream.mjpg":
            assert machine.get(url, "-u", f"camera:{password}", "-o", "/dev/null")[0] == 200


@pytest.mark.parametrize(
    "target",
    ["/snapshot/", "/?action=snapshot_0", "/?action=snapshot/", "/webcam/?action=snapshot", "/webcam/snapshot.jpg"],
)
def test_addresses_of_other_programs(machine: Machine, password: str, target: str) -> None:
    stream = target.replace("snapshot.jpg", "stream.mjpg").replace("snapshot", "stream")
    for each, kind in ((target, "image/jpeg"), (stream, "multipart/x-mixed-replace;boundary=frame")):
        code, header = machine.get(f"http://127.0.0.1:8081{each}", "-u", f"camera:{password}", "-I")
        assert code == 200
        assert f"\nContent-Type: {kind}\n" in header


def test_dashboard_on_another_origin(machine: Machine, password: str) -> None:
    machine.set_env("CAMERA_ALLOWED_ORIGINS=http://localhost:3000")
    machine.run("systemctl", "restart", "camera-soft-cam@0")
    url, login = "http://127.0.0.1:8081/v1/camera/stop", ("-u", f"camera:{password}")
    for origin, code in (("http://localhost:3000", 200), ("http://localhost:3001", 403)):
        sent = ("-D", "-", "-H", f"Origin: {origin}")
        answers = [
            machine.get(url, *sent, "-X", "OPTIONS", "-H", "Access-Control-Request-Method: POST"),
            machine.get(url, *sent, "-X", "POST", *login),
        ]
        assert [answer[0] for answer in answers] == [204, code]
        for _, header in answers:
            assert ("Access-Control-Allow-Credentials: true" in header) == (code == 200)
        assert machine.get(url, *sent, "-X", "POST")[0] == 401


def test_query_is_not_logged(machine: Machine, password: str, echo: str) -> None:
    targets = ("health?key=s3cret", "v1/recordings?key=s3cret")
    for target in targets:  # with the password, without, with a wrong one, and of a portal that is not running
        for options in (("-u", f"camera:{password}"), (), ("-u", "camera:wrong")):
            machine.get(echo + target, *options)
    machine.run("systemctl", "stop", "echo")
    assert machine.get(echo + targets[0], "-u", f"camera:{password}")[0] == 502
    log = machine.run("sh", "-c", "cat /var/log/nginx/*.log").stdout
    assert '"GET /health HTTP/1.1" 200' in log
    assert '"GET /v1/recordings HTTP/1.1" 401' in log
    assert '"GET /health HTTP/1.1" 502' in log
    assert "s3cret" not in log


def pictures(path: Path) -> dict[str, bytes]:
    """The complete JPEGs of a recorded stream, by the timestamp of their frame."""
    found = {}
    stream = path.read_bytes()
    header = re.compile(rb"--frame\r\n((?:[^\r\n]+\r\n)+)\r\n")
    at = 0
    while (part := header.search(stream, at)) is not None:
        fields = dict(line.split(": ", 1) for line in part[1].decode().splitlines())
        at = part.end() + int(fields["Content-Length"])
        if at <= len(stream):
            found[fields["X-Timestamp"]] = stream[part.end() : at]
    return found


def watch_both(machine: Machine, camera: int, password: str, folder: Path) -> list[dict[str, bytes]]:
    """The JPEGs that two clients receive at the same time, one directly and one through nginx."""
    paths = [folder / f"direct{camera}", folder / f"nginx{camera}"]
    urls = [f"http://127.0.0.1:{18081 + camera}/stream.mjpg", f"http://127.0.0.1:{8081 + camera}/stream.mjpg"]
    # One curl for both, so that they start together.
    machine.net(
        *("curl", "-s", "-m", "2.5", "--parallel", "--parallel-immediate", "-u", f"camera:{password}"),
        *(word for url, path in zip(urls, paths, strict=True) for word in ("-o", str(path), url)),
        check=False,
    )
    return [pictures(path) for path in paths]


@pytest.mark.measurement
def test_same_frames_as_without_nginx(machine: Machine, password: str, tmp_path: Path) -> None:
    for camera in (0, 1):
        for _ in range(3):  # a client that this machine delayed may have missed a frame
            direct, through = watch_both(machine, camera, password, tmp_path)
            common = sorted(direct.keys() & through.keys())
            assert all(direct[stamp] == through[stamp] for stamp in common)
            # Between the first and the last common frame, neither misses one.
            within = [
                {stamp for stamp in each if common and common[0] <= stamp <= common[-1]} for each in (direct, through)
            ]
            if len(common) > 20 and within[0] == within[1] == set(common):
                break
        else:
            raise AssertionError(f"camera {camera}: {len(common)} in common, of {[len(each) for each in within]}")


def test_measure_fps_through_nginx(machine: Machine, password: str) -> None:
    url = f"http://camera:{password}@127.0.0.1:8081/stream.mjpg"
    done = machine.net(str(PROJECT / "measure_fps.py"), url, "--frames", "40", "--json", check=False)
    assert done.returncode == 0, done.stdout
    assert '"frames"' in done.stdout


@pytest.mark.measurement
def test_disconnected_client_is_dropped(machine: Machine, password: str) -> None:
    with machine.viewer(0, "-u", f"camera:{password}", port=8081):
        assert machine.status(0)["viewers"] == 1
    took_s = machine.wait_until(lambda: machine.status(0)["viewers"] == 0, "the end of the connection")
    assert took_s < 5 * TIMEOUT_FACTOR


@pytest.fixture
def echo(machine: Machine) -> Iterator[str]:
    """A site for camera 8 whose server returns each request as the portal would receive it."""
    site = (NGINX / "site.conf").read_text()
    site = site.replace("@N@", "8").replace("@OUTSIDE@", "8089").replace("@INSIDE@", "18089")
    machine.write("/etc/nginx/sites-enabled/camera-soft-cam8.conf", site)
    # As deploy.sh writes it for a portal without an API key.
    machine.write("/etc/nginx/camera-soft-cam8.key", 'proxy_set_header Authorization "";\n', "600")
    machine.run("systemd-run", "--unit=echo", "--quiet", "/usr/bin/python3", "-c", ECHO)
    machine.run("systemctl", "reload", "nginx")
    url = "http://127.0.0.1:8089/"
    machine.wait_until(lambda: machine.get(url)[0] == 401, "nginx's new site")
    machine.wait_until(lambda: machine.get("http://127.0.0.1:18089/")[0] == 200, "the echo")
    yield url
    machine.run("systemctl", "stop", "echo", check=False)  # a test may have stopped it
    machine.run("rm", "/etc/nginx/sites-enabled/camera-soft-cam8.conf", "/etc/nginx/camera-soft-cam8.key")
    machine.run("systemctl", "reload", "nginx")


def test_page_while_the_portal_does_not_answer(machine: Machine, password: str, echo: str) -> None:
    machine.run("systemctl", "stop", "echo")
    code, body = machine.get(echo, "-u", f"camera:{password}", "-D", "-")
    assert code == 502
    assert "Retry-After: 5" in body
    assert "Content-Type: text/html" in body
    assert "systemctl status camera-soft-cam@8\nsudo journalctl -u camera-soft-cam@8 -n 20</pre>" in body
    assert machine.get(echo)[0] == 401


def test_live_log(machine: Machine, password: str) -> None:
    """Line by line: nothing is held back for a buffer."""
    address, log = "http://127.0.0.1:8081/v1/system/logs/stream", "/tmp/live-log"
    begin = f"timeout 60 curl -sN -u camera:{password} {address} > {log} 2>/dev/null </dev/null & echo $! > {log}.pid; "
    try:
        machine.run("timeout", "30", "sh", "-c", begin + f"until grep -q retry {log}; do sleep 0.1; done")
        machine.get("http://127.0.0.1:18081/snapshot.jpg", "-o", "/dev/null")
        wanted = f"grep -q '^data: .*Camera' {log}"
        machine.wait_until(lambda: machine.run("sh", "-c", wanted, check=False).returncode == 0, "a line")
    finally:
        machine.run("sh", "-c", f"kill $(cat {log}.pid); rm -f {log} {log}.pid", check=False)


def test_forwarded_headers_without_the_password(machine: Machine, password: str, echo: str) -> None:
    code, body = machine.get(echo, "-u", f"camera:{password}", "-H", "X-Forwarded-For: 192.0.2.1")
    assert code == 200
    assert body.splitlines()[0] == "HTTP/1.1"
    headers = dict(line.split(": ", 1) for line in body.splitlines()[1:] if line)
    assert headers["Host"] == "127.0.0.1:8089"
    assert headers["X-Real-IP"] == "127.0.0.1"
    assert headers["X-Forwarded-For"] == "192.0.2.1, 127.0.0.1"
    assert (headers["X-Forwarded-Proto"], headers["X-Forwarded-Host"]) == ("http", "127.0.0.1:8089")
    assert "Authorization" not in headers
    assert "Connection" not in headers


def test_connections_to_the_portal_are_reused(machine: Machine, password: str, echo: str) -> None:
    closed = ("ss", "-tnH", "state", "time-wait", "sport", "=", ":18089")
    before = machine.run(*closed).stdout.splitlines()
    for _ in range(10):
        assert machine.get(echo, "-u", f"camera:{password}")[0] == 200
    inside = machine.run("ss", "-tnH", "state", "established", "dport", "=", ":18089").stdout.splitlines()
    # At most one for each of nginx's processes, of which there may be one per processor.
    workers = machine.run("pgrep", "-fc", "nginx: worker process").stdout
    assert 1 <= len(inside) <= min(int(workers), 10)
    assert set(machine.run(*closed).stdout.splitlines()) <= set(before)


def test_tls_as_in_the_readme(machine: Machine, password: str) -> None:
    readme = (NGINX / "README.md").read_text()
    settings = re.search(r"(?m)^    listen +8081 ssl;\n(?:    .*\n)+", readme)
    own = re.search(r"(?m)^    sudo (openssl req (?:.*\\\n)*.*)$", readme)
    assert settings is not None
    assert own is not None
    machine.run("sh", "-euc", own[1])
    text = re.sub(r"/etc/letsencrypt\S+fullchain.pem", "/etc/nginx/camera.crt", settings[0])
    text = re.sub(r"/etc/letsencrypt\S+privkey.pem", "/etc/nginx/camera.key", text)
    path = "/etc/nginx/sites-available/camera-soft-cam0.conf"
    before = machine.run("cat", path).stdout
    plain = re.search(r"(?m)^    listen(?:.*\n)+?    server_name .*\n", before)
    assert plain is not None
    machine.write(path, before.replace(plain[0], text))
    try:
        machine.run("nginx", "-t", "-q")
        machine.run("systemctl", "reload", "nginx")
        url = "https://127.0.0.1:8081/snapshot.jpg"
        machine.wait_until(lambda: machine.get(url, "-k")[0] == 401, "TLS")
        # For a moment after a reload nginx's old workers still answer.
        snapshot = (url, "-k", "-u", f"camera:{password}", "-o", "/dev/null")
        machine.wait_until(lambda: machine.get(*snapshot)[0] == 200, "a snapshot by TLS")
        code, answer = machine.get("http://127.0.0.1:8081/snapshot.jpg", "-D", "-")
        assert (code, url in answer) == (301, True)
        # deploy.sh keeps the edited site and accepts its TLS.
        assert f"{path} was edited and is kept" in machine.deploy("--cameras", "0,1", "--with-nginx").stdout
    finally:
        machine.write(path, before)
        machine.run("rm", "/etc/nginx/camera.key", "/etc/nginx/camera.crt")
        machine.run("systemctl", "reload", "nginx")
        machine.wait_until(lambda: machine.get("http://127.0.0.1:8081/")[0] == 401, "the original site")


def test_sites_without_websockets_and_buffering() -> None:
    text = (NGINX / "camera-soft-cam.conf").read_text() + (NGINX / "site.conf").read_text()
    assert "upgrade" not in text.lower()
    assert re.search(r"^proxy_buffering +off;", text, re.MULTILINE)
