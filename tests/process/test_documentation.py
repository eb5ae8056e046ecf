"""Runs every command and example of the README and docs/, except those that other tests run."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import Portal
from tests.support.http_client import ask, post
from tests.support.timeouts import RUN_LIMIT_S

PROJECT = Path(__file__).resolve().parents[2]
PAGES = (PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md")))
ADDRESS = "127.0.0.1:18081"

# Commands that need another environment, and the tests that run them.
ELSEWHERE = {
    "make run": "tests/process/test_make.py",
    "make run CAMERA=0": "tests/process/test_make.py",
    "sudo apt install python3-picamera2 python3-simplejpeg": "tests/rig/root.py",
    "./deploy.sh --dry-run pi@camera.local": "tests/deploy/",
    "./deploy.sh --with-nginx pi@camera.local": "tests/deploy/",
    "sudo ./deploy.sh --local --with-nginx": "tests/deploy/test_local.py",
    "systemctl status camera-soft-cam@0": "tests/deploy/",
    "journalctl -u camera-soft-cam@0 -n 50": "tests/deploy/",
    "curl -N 'http://127.0.0.1:18081/v1/system/logs/stream?level=WARNING'": "tests/process/test_logs.py",
    "make bench": "tests/process/test_bench.py",
    "tools/grab_frame.py --host 127.0.0.1 --stream": "tests/process/test_grab_frame.py",
}


def code_blocks(language: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for block in re.findall(rf"(?ms)^```{language}\n(.*?)^```", page.read_text()):
            yield page, block


def commands() -> list[str]:
    found = [
        line.strip()
        for _, block in code_blocks("sh")
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    ]
    return list(dict.fromkeys(re.sub(r" {2,}", " ", line) for line in found))


RUN_HERE = [command for command in commands() if command not in ELSEWHERE]


@pytest.fixture(scope="module")
def portal_flags(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return "--recordings", str(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the commands use as the checkout."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("measure_fps.py", "soft_stream.py", "softcam", "integrations", "tools"):
        (folder / name).symlink_to(PROJECT / name)
    return folder


def test_commands_are_found() -> None:
    assert len(RUN_HERE) > 10
    assert set(ELSEWHERE) <= set(commands()), "a command that is not in the documentation"
    for place in ELSEWHERE.values():
        assert (PROJECT / place).exists()


@pytest.mark.parametrize("command", RUN_HERE)
def test_command(
    command: str, portal: Portal, start_portal: Callable[..., Portal], folder: Path, tmp_path: Path
) -> None:
    text = command.replace("/srv/recordings", str(tmp_path)).replace("recording.mp4", str(tmp_path / "recording.mp4"))
    if text.startswith("python3 soft_stream.py"):
        started = start_portal(*shlex.split(text)[2:])
        assert started.url
        assert started.stop() == 0
        return
    if "18081" in text or "--host 127.0.0.1" in text:
        if "/streaming/" in text:
            portal = start_portal("--rtsp-url", "rtsp://127.0.0.1:9/cam0", "--no-rtsp-autostart")
        address = portal.url.removeprefix("http://")
        port = address.rpartition(":")[2]
        text = text.replace(ADDRESS, address).replace("--host 127.0.0.1", f"--host 127.0.0.1 --port {port}")
        text = text.replace("--duration 60", "--duration 3").replace("--limit-frames 500", "--limit-frames 20")
        text = text.replace("--frames 150", "--frames 20").replace("--min-fps 19", "--min-fps 5")  # a busy machine
        text = text.replace("--max-gap 0.5", "--max-gap 10")
    words = shlex.split(text)
    if words[0] == "curl":
        words[1:1] = ["--fail-with-body", "--silent", "--show-error"]
    elif words[0].startswith("tools/"):
        words.insert(0, sys.executable)
    elif words[0] == "python3":
        words[0] = sys.executable
    answer = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=RUN_LIMIT_S)
    assert answer.returncode == 0, answer.stdout + answer.stderr


def test_python_examples(portal: Portal, tmp_path: Path) -> None:
    (example,) = [block for _, block in code_blocks("python") if "urllib.request" in block]
    address = portal.url.removeprefix("http://")
    answer = subprocess.run(
        [sys.executable, "-c", example.replace(ADDRESS, address)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=RUN_LIMIT_S,
    )
    assert answer.returncode == 0, answer.stderr
    assert (tmp_path / "now.jpg").read_bytes().startswith(b"\xff\xd8")


def test_node_example(portal: Portal, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    ((_, example),) = code_blocks("js")
    script = tmp_path / "example.mjs"
    script.write_text(example.replace(ADDRESS, portal.url.removeprefix("http://")))
    answer = subprocess.run([node, script], capture_output=True, text=True, timeout=RUN_LIMIT_S)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_requests_of_the_collection(portal: Portal) -> None:
    """Each has its own name and examples; that of each control is accepted as it is, in the order of the collection."""
    folders = {folder["name"]: folder["item"] for folder in ask(portal, "/collection.json").json["item"]}
    items = [item for folder in folders.values() for item in folder]
    assert len({item["name"] for item in items}) == len(items)
    variables = {
        (item["name"], each["key"]): each["value"] for item in items for each in item["request"]["url"]["variable"]
    }
    assert all(variables.values()), variables
    assert post(portal, f"/v1/presets/{variables['Apply a preset', 'name']}/apply", {}).status == 200
    requests = [item["request"] for item in folders["Controls"] if item["request"]["method"] == "POST"]
    assert len(requests) > 20
    for request in requests:
        path = request["url"]["raw"].removeprefix("{{baseUrl}}")
        if "body" in request:
            answer = post(portal, path, json.loads(request["body"]["raw"]))
        else:
            answer = ask(portal, path, method="POST")
        assert answer.status == 200, (path, answer.body)


def test_hook_example(start_portal: Callable[..., Portal], tmp_path: Path) -> None:
    (example,) = [block for _, block in code_blocks("python") if "def negative" in block]
    (tmp_path / "example_hook.py").write_text(example)
    portal = start_portal("--hook", "example_hook:negative", environment={"PYTHONPATH": str(tmp_path)})
    answer = subprocess.run(
        [sys.executable, PROJECT / "measure_fps.py", f"{portal.url}/stream.mjpg", "--frames", "5"], timeout=RUN_LIMIT_S
    )
    assert answer.returncode == 0


def test_stated_coverage() -> None:
    """`make coverage` enforces the figure that CONTRIBUTING.md states."""
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["coverage"]
    stated = re.search(r"`make coverage` \|.*fails below (\d+) %", (PROJECT / "CONTRIBUTING.md").read_text())
    assert stated is not None
    assert int(stated[1]) == settings["report"]["fail_under"]


def test_named_tests_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"`(tests/[^`* ]+)`", page.read_text())}
    assert "tests/unit/web/http/test_auth.py" in named
    paths = {name: PROJECT / name.partition("::")[0] for name in named}
    assert [name for name, path in paths.items() if not path.exists()] == []
    functions = {name: name.partition("::")[2] for name in named if "::" in name}
    assert [name for name, function in functions.items() if f"def {function}(" not in paths[name].read_text()] == []


def test_links_are_valid() -> None:
    documents = [*PAGES, *PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"), *PROJECT.glob("integrations/**/*.md")]
    links = [
        (page, target)
        for page in documents
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target
    ]
    assert len(links) > 40
    assert [(str(page), target) for page, target in links if not (page.parent / target).exists()] == []
