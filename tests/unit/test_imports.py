"""The import rule of docs/architecture.md: packages import in one direction, importing has no side effects."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.timeouts import RUN_LIMIT_S

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENTATION = PROJECT / "docs" / "architecture.md"

# A package or module imports only what stands on a later line; names on one line never import each other. Within a
# package, modules import freely, as long as there is no cycle.
IMPORT_RULE: tuple[tuple[str, ...], ...] = (
    ("soft_stream",),
    ("softcam.app",),
    ("softcam.application",),
    ("softcam.components",),
    ("softcam.health",),
    ("softcam.web", "softcam.diagnose"),
    ("softcam.controls", "softcam.streaming", "softcam.rtsp.server", "softcam.rtsp.publisher", "softcam.recording"),
    ("softcam.camera.picamera", "softcam.camera.pattern", "softcam.camera.url"),
    ("softcam.camera.session", "softcam.mp4", "softcam.rtsp.messages", "softcam.rtsp.rtp", "softcam.rtsp.schedule"),
    ("softcam.camera.base", "softcam.h264", "softcam.hook_api"),
    ("softcam.imaging", "softcam.config", "softcam.system", "softcam.camera.sensor_modes", "softcam.camera.models"),
    ("softcam.net",),
    ("softcam.runtime",),
    ("softcam.errors",),
    ("softcam", "softcam.camera", "softcam.rtsp"),  # the packages' own `__init__.py`, which import nothing
)

# The modules that may import a package from outside the standard library; None means every module.
IMPORTERS: dict[str, set[str] | None] = {
    "av": {"softcam.runtime.pyav"},
    "libcamera": {"softcam.camera.picamera.library"},
    "numpy": None,
    "picamera2": {"softcam.camera.picamera.library"},
    "simplejpeg": {"softcam.imaging.jpeg"},
}


def modules(project: Path = PROJECT) -> dict[str, Path]:
    """All that runs, by module name: the package and `soft_stream.py`."""
    found = {}
    for path in sorted((project / "softcam").rglob("*.py")):
        parts = path.relative_to(project).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found["soft_stream"] = project / "soft_stream.py"
    return found


def layer(module: str) -> tuple[int, str] | None:
    """The line of the rule that `module` stands on, and the name there that it belongs to."""
    for number, names in enumerate(IMPORT_RULE):
        for name in names:
            if module == name or (names is not IMPORT_RULE[-1] and module.startswith(f"{name}.")):
                return number, name
    return None


def imports(module: str, path: Path, known: set[str]) -> set[str]:
    """What `module` imports, wherever in it: whole module names for our own, the first part for foreign ones.

    An import of `softcam.a.b` also runs `softcam/a/__init__.py`, so the packages on the way count, but for those that
    `module` itself lies in.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        names.update(_named_by(node, module, is_package=path.name == "__init__.py", known=known))
    found = set()
    for name in names:
        if name.split(".")[0] != "softcam":
            found.add(name.split(".")[0])
            continue
        found.add(name)
        parts = name.split(".")
        packages = {".".join(parts[:count]) for count in range(1, len(parts))}
        found |= {package for package in packages if not f"{module}.".startswith(f"{package}.")}
    return found - {module}


def _named_by(node: ast.AST, module: str, *, is_package: bool, known: set[str]) -> Iterator[str]:
    match node:
        case ast.Import():
            yield from (alias.name for alias in node.names)
        case ast.ImportFrom():
            origin = node.module or ""
            if node.level:
                here = module.split(".") if is_package else module.split(".")[:-1]
                base = here[: len(here) - node.level + 1]
                origin = ".".join([*base, *([origin] if origin else [])])
            for alias in node.names:
                inside = f"{origin}.{alias.name}"
                yield inside if inside in known else origin
        case ast.Call(
            func=ast.Attribute(attr="import_module") | ast.Name(id="import_module" | "__import__"),
            args=[ast.Constant(value=str(name)), *_],
        ):
            yield name


@cache
def graph(project: Path = PROJECT) -> dict[str, set[str]]:
    found = modules(project)
    return {module: imports(module, path, set(found)) for module, path in found.items()}


def violations(edges: dict[str, set[str]]) -> list[str]:
    """The imports that break the rule, one line each."""
    found = []
    for module, targets in edges.items():
        own = layer(module)
        if own is None:
            found.append(f"{module} does not appear in the import rule")
            continue
        for target in sorted(targets):
            if target.split(".")[0] in ("softcam", "soft_stream"):
                other = layer(target)
                if other is not None and other[1] != own[1] and other[0] <= own[0]:
                    found.append(f"{module} may not import {target}")
            elif target in sys.stdlib_module_names:
                continue
            elif target not in IMPORTERS:
                found.append(f"{module} imports {target}, which is not a runtime dependency")
            elif (importers := IMPORTERS[target]) is not None and module not in importers:
                found.append(f"{module} imports {target}; only {', '.join(sorted(importers))} may")
    ours = {module: targets & edges.keys() for module, targets in edges.items()}
    try:
        graphlib.TopologicalSorter(ours).prepare()
    except graphlib.CycleError as error:
        found.append(f"import cycle: {' <- '.join(error.args[1])}")
    return found


def test_import_rule() -> None:
    assert violations(graph()) == []


def test_package_graph_has_no_cycle() -> None:
    packages: dict[str, set[str]] = {}
    for module, targets in graph().items():
        own = layer(module)
        assert own is not None
        packages.setdefault(own[1], set()).update(other[1] for target in targets if (other := layer(target)))
    graphlib.TopologicalSorter({name: targets - {name} for name, targets in packages.items()}).prepare()


def test_entry_point_imports_only_app() -> None:
    ours = {name for name in graph()["soft_stream"] if name.split(".")[0] == "softcam"}
    assert ours == {"softcam", "softcam.app"}


def test_measure_fps_imports_only_the_standard_library() -> None:
    found = imports("measure_fps", PROJECT / "measure_fps.py", set())
    assert found
    assert found - set(sys.stdlib_module_names) == set()


def test_rule_has_no_unused_name() -> None:
    found = modules()
    assert {name for names in IMPORT_RULE for name in names if name not in found} == set()
    assert {name for importers in IMPORTERS.values() for name in importers or () if name not in found} == set()


def test_documentation_has_the_rule() -> None:
    """As one expression, `a > {b, c} > d`: without the entry point, and the packages that import nothing."""
    (rule,) = re.findall(r"`(app > [^`]+)`", DOCUMENTATION.read_text())
    documented = [re.findall(r"[\w.]+", names) for names in rule.split(">")]
    assert documented == [[name.removeprefix("softcam.") for name in names] for names in IMPORT_RULE[1:-1]]


def test_documentation_names_the_importers() -> None:
    text = DOCUMENTATION.read_text()
    paths = {name.partition(".")[2].replace(".", "/") for importers in IMPORTERS.values() for name in importers or ()}
    assert {path for path in paths if f"`{path}.py`" not in text} == set()


@pytest.mark.parametrize(
    ("edges", "violation"),
    [
        ({"softcam.errors": {"softcam.imaging.frame"}}, "softcam.errors may not import softcam.imaging.frame"),
        ({"softcam.imaging.jpeg": {"softcam.streaming.fanout"}}, "may not import softcam.streaming.fanout"),
        ({"softcam.streaming.hook": {"softcam.rtsp.server.stream"}}, "may not import softcam.rtsp.server.stream"),
        ({"softcam.rtsp.server.stream": {"softcam.rtsp.publisher.sender"}}, "may not import softcam.rtsp.publisher"),
        ({"softcam.rtsp.attic": set()}, "softcam.rtsp.attic does not appear"),
        ({"softcam.camera.base": {"softcam.h264.nal"}}, "may not import softcam.h264.nal"),
        ({"softcam.app": {"soft_stream"}}, "may not import soft_stream"),
        ({"softcam.attic": set()}, "softcam.attic does not appear"),
        ({"softcam.app": {"requests"}}, "requests, which is not a runtime dependency"),
        ({"softcam.app": {"av"}}, "av; only softcam.runtime.pyav may"),
        ({"softcam.app": {"picamera2"}}, "picamera2; only softcam.camera.picamera.library may"),
        ({"softcam.web.pages": {"simplejpeg"}}, "simplejpeg; only softcam.imaging.jpeg may"),
        ({"softcam.web.a": {"softcam.web.b"}, "softcam.web.b": {"softcam.web.a"}}, "cycle.*softcam.web.b"),
    ],
)
def test_violation_is_found(edges: dict[str, set[str]], violation: str) -> None:
    found = violations(edges)
    assert len(found) == 1
    assert re.search(violation, found[0])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os.path, numpy.typing", {"os", "numpy"}),
        ("from softcam.camera.base import Camera", {"softcam.camera.base", "softcam.camera"}),
        ("from softcam.camera import base", {"softcam.camera.base", "softcam.camera"}),
        ("from softcam import errors", {"softcam.errors"}),
        ("from softcam import __version__", {"softcam"}),
        ("from . import server", {"softcam.web.http.server"}),
        ("from .server import serve", {"softcam.web.http.server"}),
        ("from ...errors import PortalError", {"softcam.errors"}),
        ("def later():\n    import picamera2", {"picamera2"}),
        ("import importlib\nimportlib.import_module('av')", {"importlib", "av"}),
    ],
)
def test_every_way_to_import_is_seen(source: str, expected: set[str], tmp_path: Path) -> None:
    path = tmp_path / "routes.py"
    path.write_text(source)
    known = {
        "softcam",
        "softcam.camera",
        "softcam.camera.base",
        "softcam.errors",
        "softcam.web",
        "softcam.web.http.server",
    }
    assert imports("softcam.web.http.router", path, known) - {"softcam"} == expected - {"softcam"}


# Runs in a fresh process: side effects of an import only show if nothing was imported before.
WATCH = """
import importlib, json, logging, sys, threading

done = []
now = ""

def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.fork", "os.posix_spawn", "os.system")):
        done.append(f"{now}: {event}")

def watch_threads(thread):  # Python 3.11 has no audit event for them
    done.append(f"{now}: started {thread.name}")

sys.addaudithook(watch)
threading.Thread.start = watch_threads
for now in sys.argv[1:]:
    importlib.import_module(now)
    loggers = [logging.root, *logging.root.manager.loggerDict.values()]
    if any(getattr(logger, "handlers", None) for logger in loggers) or logging.root.level != logging.WARNING:
        done.append(f"{now}: configured logging")
        break
print(json.dumps(done))
"""


def done_on_import(names: list[str], folder: Path) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-c", WATCH, *names],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=RUN_LIMIT_S,
    )
    assert answer.stderr == ""
    done: list[str] = json.loads(answer.stdout)
    return done


def test_importing_does_nothing() -> None:
    assert done_on_import([*modules(), "measure_fps"], PROJECT) == []


def test_side_effects_of_an_import_are_seen(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text("import threading\nthreading.Thread(target=int).start()")
    (tmp_path / "sockets.py").write_text("import socket\nsocket.socket().close()")
    (tmp_path / "logs.py").write_text("import logging\nlogging.basicConfig()")
    done = done_on_import(["threads", "sockets", "logs"], tmp_path)
    assert {line.split(":")[0] for line in done} == {"threads", "sockets", "logs"}
