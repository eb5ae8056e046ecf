"""The house stands as drawn: imports run downwards, foreign packages enter by one door each, importing does nothing."""

import ast
import graphlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent

# Every module has its floor here; `name.*` is a package with all that is in it.
FLOORS: dict[str, int] = {
    "softcam": 0,
    "softcam.addresses": 0,
    "softcam.ends": 0,
    "softcam.errors": 0,
    "softcam.glyphs": 0,
    "softcam.memory": 0,
    "softcam.options": 0,
    "softcam.rules": 0,
    "softcam.settings": 0,
    "softcam.syscalls": 0,
    "softcam.systemd": 0,
    "softcam.workers": 0,
    "softcam.camera.*": 1,
    "softcam.controls.*": 1,
    "softcam.frames": 1,
    "softcam.exif": 2,
    "softcam.h264.*": 2,
    "softcam.hooks": 2,
    "softcam.jpeg": 2,
    "softcam.pictures": 2,
    "softcam.rgb": 2,
    "softcam.placeholder": 2,
    "softcam.scale": 2,
    "softcam.fanout": 3,
    "softcam.movie": 3,
    "softcam.viewers": 3,
    "softcam.web.*": 3,
    "softcam.app": 4,
    "softcam.health": 4,
    "soft_stream": 5,
}

# In which module or package a package from outside the standard library may be imported; None is everywhere.
DOORS: dict[str, set[str] | None] = {
    "av": {"softcam.camera.url_source", "softcam.h264", "softcam.rgb"},
    "libcamera": {"softcam.camera.picamera_library"},
    "numpy": None,
    "picamera2": {"softcam.camera.picamera_library"},
    "simplejpeg": {"softcam.jpeg"},
}


def modules(project: Path = PROJECT) -> dict[str, Path]:
    """All that runs, by module name: the package and `soft_stream.py`."""
    found = {}
    for path in sorted((project / "softcam").rglob("*.py")):
        parts = path.relative_to(project).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    found["soft_stream"] = project / "soft_stream.py"
    return found


def floor(module: str) -> int | None:
    for name, number in FLOORS.items():
        package = name.removesuffix(".*")
        if module == package or (name.endswith(".*") and module.startswith(f"{package}.")):
            return number
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


def graph(project: Path = PROJECT) -> dict[str, set[str]]:
    found = modules(project)
    return {module: imports(module, path, set(found)) for module, path in found.items()}


def faults(edges: dict[str, set[str]]) -> list[str]:
    """What breaks the order, one line each."""
    told = []
    for module, targets in edges.items():
        own_floor = floor(module)
        if own_floor is None:
            told.append(f"{module} has no floor in the table")
            continue
        for target in sorted(targets):
            if target.split(".")[0] in ("softcam", "soft_stream"):
                target_floor = floor(target)
                if target_floor is not None and target_floor > own_floor:
                    told.append(f"{module} (floor {own_floor}) imports {target} (floor {target_floor})")
            elif target in sys.stdlib_module_names:
                continue
            elif target not in DOORS:
                told.append(f"{module} imports {target}, which the portal does not run with")
            elif (doors := DOORS[target]) is not None and not {module, module.rpartition(".")[0]} & doors:
                told.append(f"{module} imports {target}, which only {', '.join(sorted(doors))} may")
    ours = {module: targets & edges.keys() for module, targets in edges.items()}
    try:
        graphlib.TopologicalSorter(ours).prepare()
    except graphlib.CycleError as error:
        told.append(f"imports run in a circle: {' ← '.join(error.args[1])}")
    return told


def test_imports_run_downwards_and_by_the_doors() -> None:
    assert faults(graph()) == []


def test_top_imports_the_roof_alone() -> None:
    ours = {name for name in graph()["soft_stream"] if name.split(".")[0] == "softcam"}
    assert ours == {"softcam", "softcam.app"}


def test_probe_runs_on_the_standard_library_alone() -> None:
    probe = imports("measure_fps", PROJECT / "measure_fps.py", set())
    assert probe
    assert probe - set(sys.stdlib_module_names) == set()


def test_table_has_no_floor_for_what_is_gone() -> None:
    found = modules()
    gone = {name for name in FLOORS if name.removesuffix(".*") not in found}
    assert gone == set()


@pytest.mark.parametrize(
    ("edges", "fault"),
    [
        ({"softcam.errors": {"softcam.frames"}}, "floor 0.*floor 1"),
        ({"softcam.jpeg": {"softcam.fanout"}}, "floor 2.*floor 3"),
        ({"softcam.app": {"soft_stream"}}, "floor 4.*floor 5"),
        ({"softcam.attic": set()}, "softcam.attic has no floor"),
        ({"softcam.app": {"requests"}}, "requests, which the portal does not run with"),
        ({"softcam.app": {"av"}}, "av, which only softcam.camera.url_source, softcam.h264, softcam.rgb may"),
        ({"softcam.app": {"picamera2"}}, "picamera2, which only softcam.camera.picamera_library may"),
        ({"softcam.web.pages": {"simplejpeg"}}, "simplejpeg, which only softcam.jpeg may"),
        ({"softcam.web.a": {"softcam.web.b"}, "softcam.web.b": {"softcam.web.a"}}, "circle.*softcam.web.b"),
    ],
)
def test_fail_faults_are_seen(edges: dict[str, set[str]], fault: str) -> None:
    told = faults(edges)
    assert len(told) == 1
    assert [line for line in told if re.search(fault, line)] == told


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os.path, numpy.typing", {"os", "numpy"}),
        ("from softcam.camera.base import Camera", {"softcam.camera.base", "softcam.camera"}),
        ("from softcam.camera import base", {"softcam.camera.base", "softcam.camera"}),
        ("from softcam import errors", {"softcam.errors"}),
        ("from softcam import __version__", {"softcam"}),
        ("from . import server", {"softcam.web.server"}),
        ("from .server import serve", {"softcam.web.server"}),
        ("from ..errors import PortalError", {"softcam.errors"}),
        ("def later():\n    import picamera2", {"picamera2"}),
        ("import importlib\nimportlib.import_module('av')", {"importlib", "av"}),
    ],
)
def test_ok_every_way_to_import_is_seen(source: str, expected: set[str], tmp_path: Path) -> None:
    path = tmp_path / "routes.py"
    path.write_text(source)
    known = {"softcam", "softcam.camera", "softcam.camera.base", "softcam.errors", "softcam.web", "softcam.web.server"}
    assert imports("softcam.web.routes", path, known) - {"softcam"} == expected - {"softcam"}


# Runs in a process of its own: what a module does on import shows only where nothing was imported before.
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
        [sys.executable, "-c", WATCH, *names], cwd=folder, capture_output=True, text=True, check=True, timeout=60
    )
    assert answer.stderr == ""
    told: list[str] = json.loads(answer.stdout)
    return told


def test_importing_does_nothing() -> None:
    assert done_on_import([*modules(), "measure_fps"], PROJECT) == []


def test_fail_doing_something_on_import_is_seen(tmp_path: Path) -> None:
    (tmp_path / "threads.py").write_text("import threading\nthreading.Thread(target=int).start()")
    (tmp_path / "sockets.py").write_text("import socket\nsocket.socket().close()")
    (tmp_path / "logs.py").write_text("import logging\nlogging.basicConfig()")
    told = done_on_import(["threads", "sockets", "logs"], tmp_path)
    assert {line.split(":")[0] for line in told} == {"threads", "sockets", "logs"}
