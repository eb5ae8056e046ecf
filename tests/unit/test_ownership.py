"""The rules of ownership and size: objects change their own attributes, and modules and classes stay small."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

import pytest

PROJECT: Final = Path(__file__).resolve().parents[2]
FOLDERS: Final = ("softcam", "deploy", "tools")
MAX_LINES: Final = 400  # of a module
MAX_METHODS: Final = 25  # of a class, unless its docstring says why: "many methods: …"

# Objects of other libraries that are configured by their attributes, by module and expression.
FOREIGN: Final = {
    "softcam/camera/picamera/buffers.py": {
        "allocator": "Picamera2's allocator",
        "picam2": "Picamera2",
        "self._allocator": "Picamera2's allocator",
    },
    "softcam/camera/picamera/camera.py": {"picam2": "Picamera2"},
    "softcam/camera/picamera/h264_encoder.py": {"encoder": "Picamera2's encoder"},
    "softcam/camera/session/state.py": {"timer": "threading.Timer, whose constructor has no name"},
    "softcam/camera/url/http_client.py": {"context": "ssl.SSLContext"},
    "softcam/camera/url/source.py": {"video": "PyAV's stream", "video.codec_context": "PyAV's context"},
    "softcam/camera/url/unixfd.py": {"picture": "PyAV's frame"},
    "softcam/h264/x264.py": {"context": "PyAV's context of libx264", "picture": "PyAV's frame"},
    "softcam/imaging/jpeg_decoder.py": {"self._context": "PyAV's context"},
    "softcam/net/io_uring.py": {"syscall": "a function of ctypes"},
    "softcam/net/sockets.py": {"_send": "a function of ctypes", "_write": "a function of ctypes"},
    "softcam/net/udp.py": {"messages[position]": "a structure of ctypes"},
    "deploy/nginx.py": {"context": "ssl.SSLContext"},
    "deploy/system.py": {"done": "subprocess.CompletedProcess"},
    "tools/build_release.py": {"member": "a member of a tar or zip archive"},
    "tools/record_stream.py": {
        "packet": "PyAV's packet",
        "picture": "PyAV's frame",
        "stream": "PyAV's stream",
        "stream.codec_context": "PyAV's context",
    },
}


@cache
def modules() -> tuple[tuple[str, str], ...]:
    """The path and the source of every module."""
    paths = (path for folder in FOLDERS for path in sorted((PROJECT / folder).rglob("*.py")))
    return tuple((path.relative_to(PROJECT).as_posix(), path.read_text()) for path in paths)


parse = cache(ast.parse)


def outside_stores(source: str) -> Iterator[tuple[int, str, str]]:
    """The line, object and attribute of each assignment to, or deletion of, an attribute of another object."""
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            owner = ast.unparse(node.value)
            if owner not in ("self", "cls"):
                yield node.lineno, owner, node.attr


def large_classes(source: str) -> Iterator[str]:
    """The classes with too many methods whose docstring has no reason."""
    for node in ast.walk(parse(source)):
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) for each in node.body)
            if methods > MAX_METHODS and "many methods: " not in (ast.get_docstring(node) or "").lower():
                yield f"{node.name} has {methods} methods"


def test_no_attribute_is_assigned_from_outside() -> None:
    found = [
        f"{path}:{line}: {owner}.{attribute}"
        for path, source in modules()
        for line, owner, attribute in outside_stores(source)
        if owner not in FOREIGN.get(path, {})
    ]
    assert found == []


def test_no_unused_exception() -> None:
    used = {(path, owner) for path, source in modules() for _, owner, _ in outside_stores(source)}
    assert {(path, owner) for path, owners in FOREIGN.items() for owner in owners} - used == set()


def test_modules_are_small() -> None:
    lines = {path: len(source.splitlines()) for path, source in modules()}
    assert {path: count for path, count in lines.items() if count > MAX_LINES} == {}


def test_classes_are_small() -> None:
    assert [f"{path}: {found}" for path, source in modules() for found in large_classes(source)] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("run.size = 1", ["run.size"]),
        ("run.size += 1", ["run.size"]),
        ("run.size: int = 1", ["run.size"]),
        ("run.name, self.size = 1, 2", ["run.name"]),
        ("for run.name in names: pass", ["run.name"]),
        ("with lock as run.lock: pass", ["run.lock"]),
        ("del run.name", ["run.name"]),
        ("self._run.paused = None", ["self._run.paused"]),
        ("runs[0].paused = None", ["runs[0].paused"]),
        ("self.size = cls.size = run.size", []),
        ("run.sizes[name] = 1", []),
    ],
)
def test_store_is_found(source: str, expected: list[str]) -> None:
    assert [f"{owner}.{attribute}" for _, owner, attribute in outside_stores(source)] == expected


@pytest.mark.parametrize(
    ("docstring", "methods", "is_found"),
    [("A class.", 26, True), ("A class.", 25, False), ("A class.\n\nMany methods: one per route.", 26, False)],
)
def test_large_class_is_found(docstring: str, methods: int, *, is_found: bool) -> None:
    body = "".join(f"    def method_{number}(self): ...\n" for number in range(methods))
    assert bool([*large_classes(f'class Large:\n    """{docstring}"""\n{body}')]) == is_found
