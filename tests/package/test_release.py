"""What a release consists of: the same bytes from the same commit, and each part runs."""

import json
import os
import re
import subprocess
import sys
import tarfile
import urllib.request
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

import softcam
from tests.conftest import LISTENING
from tests.support.timeouts import PATIENCE_S, RUN_LIMIT_S
from tools import build_release

PROJECT = Path(__file__).resolve().parents[2]
EPOCH = 1_800_000_000  # in 2027


def build(part: str, dist: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, str(PROJECT / "tools/build_release.py"), part, "--dist", str(dist)]
    return subprocess.run(argv, env=os.environ | environment, capture_output=True, text=True, timeout=RUN_LIMIT_S)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    for part in ("wheel", "zipapp", "tarball", "sbom"):
        done = build(part, folder, SOURCE_DATE_EPOCH=str(EPOCH))
        assert done.returncode == 0, done.stderr
    return folder


@contextmanager
def running(argv: list[str], state: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """The address of a portal on the pattern camera."""
    flags = ["--camera", "pattern", "--port", "0", "--state-dir", str(state)]
    clean = {name: value for name, value in os.environ.items() if not re.match(r"CAMERA|cam\d|PYTHON", name)}
    process = subprocess.Popen(
        [*argv, *flags], env=clean | dict(environment), cwd=state, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := LISTENING.search(line):
                    yield found[1]
                    break
            else:
                raise AssertionError("".join(lines))
        finally:
            process.terminate()
            process.stderr.read()
    assert process.returncode == 0


def assert_portal(url: str) -> None:
    """Assert that page and picture are there, and that it runs this version."""
    for path, start in (("", b"<!doctype html>"), ("docs", b"<!doctype html>"), ("snapshot.jpg", b"\xff\xd8\xff")):
        with urllib.request.urlopen(url + path, timeout=PATIENCE_S) as response:
            assert response.read().startswith(start), path
    with urllib.request.urlopen(f"{url}health", timeout=PATIENCE_S) as response:
        assert json.loads(response.read())["version"] == softcam.__version__


def test_same_bytes_from_the_same_sources(dist: Path, tmp_path: Path) -> None:
    """Also with another umask and in another time zone."""
    previous = os.umask(0o077)
    try:
        for part in ("wheel", "zipapp", "tarball", "sbom"):
            done = build(part, tmp_path, SOURCE_DATE_EPOCH=str(EPOCH), TZ="Pacific/Auckland")
            assert done.returncode == 0, done.stderr
    finally:
        os.umask(previous)
    names = sorted(path.name for path in dist.iterdir())
    assert len(names) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert [name for name in names if (dist / name).read_bytes() != (tmp_path / name).read_bytes()] == []


def test_zipapp_runs_as_one_file(dist: Path, tmp_path: Path) -> None:
    with running([sys.executable, str(dist / "soft-stream.pyz")], tmp_path, {}) as url:
        assert_portal(url)


def test_installed_wheel_runs_as_a_command(dist: Path, tmp_path: Path) -> None:
    """As pipx does: a virtual environment that sees the packages of the Python that made it."""
    (wheel,) = dist.glob("*.whl")
    folder = tmp_path / "venv"
    venv.create(folder, symlinks=True)
    # The packages of the tests stand for those of the system.
    site = next(folder.glob("lib/python*/site-packages"))
    shared = [path for path in sys.path if path.endswith("-packages")]
    (site / "system.pth").write_text("\n".join(shared))
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--no-index", str(wheel)]
    done = subprocess.run(pip, capture_output=True, text=True, timeout=RUN_LIMIT_S)
    assert done.returncode == 0, done.stderr
    assert (site / "softcam").is_dir()
    with running([str(folder / "bin/soft-stream")], tmp_path, {}) as url:
        assert_portal(url)


def test_wheel_and_zipapp_have_every_file(dist: Path) -> None:
    """All of softcam that is in git, and nothing else at the top."""
    (wheel,) = dist.glob("*.whl")
    expected = {
        path.as_posix()
        for path in build_release.tracked_files(PROJECT)
        if path.as_posix().startswith("softcam/") and path.suffix != ".md"
    }
    assert len(expected) > 200
    for archive in (wheel, dist / "soft-stream.pyz"):
        names = set(zipfile.ZipFile(archive).namelist())
        assert expected - names == set(), archive.name
        rest = {name.partition("/")[0] for name in names - expected}
        assert rest <= {
            "soft_stream.py",
            "measure_fps.py",
            "__main__.py",
            f"soft_stream-{softcam.__version__}.dist-info",
        }


def test_tarball_is_the_checkout(dist: Path, tmp_path: Path) -> None:
    (tarball,) = dist.glob("*.tar.gz")
    with tarfile.open(tarball) as archive:
        members = {member.name.partition("/")[2]: member for member in archive}
        assert {path.as_posix() for path in build_release.tracked_files(PROJECT)} == set(members)
        assert {(member.uid, member.uname, int(member.mtime)) for member in members.values()} == {(0, "root", EPOCH)}
        assert members["deploy.sh"].mode == 0o755
        file = archive.extractfile(members["README.md"])
        assert file is not None
        assert file.read() == (PROJECT / "README.md").read_bytes()


def test_bill_of_materials(dist: Path) -> None:
    (path,) = dist.glob("*.cdx.json")
    bill = json.loads(path.read_text())
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["version"] == softcam.__version__
    scopes = {component["name"]: component["scope"] for component in bill["components"]}
    assert scopes == {"numpy": "required", "simplejpeg": "required", "picamera2": "optional", "av": "optional"}
    references = {"soft-stream", *scopes}
    assert {entry["ref"] for entry in bill["dependencies"]} == references


# --- Versions


def make_project(folder: Path, version: str, heading: str) -> Path:
    (folder / "softcam").mkdir(parents=True)
    (folder / "softcam/__init__.py").write_text(f'__version__ = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n## {heading}\n")
    return folder


@pytest.mark.parametrize(
    ("heading", "expected"),
    [("1.0.0 (2026-12-01)", "1.0.0"), ("1.0.0 (unreleased)", "1.0.0~20270115.080000")],
)
def test_version_of_the_package(tmp_path: Path, heading: str, expected: str) -> None:
    project = make_project(tmp_path, "1.0.0", heading)
    assert build_release.debian_version(project, EPOCH) == expected


def test_unreleased_package_is_older(tmp_path: Path) -> None:
    unreleased = build_release.debian_version(make_project(tmp_path, "1.0.0", "1.0.0 (unreleased)"), EPOCH)
    for other, relation in (("1.0.0", "lt"), ("0.9.9", "gt")):
        subprocess.run(["dpkg", "--compare-versions", unreleased, relation, other], check=True, timeout=RUN_LIMIT_S)


def test_changelog_of_another_version(tmp_path: Path) -> None:
    project = make_project(tmp_path, "1.0.1", "1.0.0 (2026-12-01)")
    with pytest.raises(build_release.Failed, match=r"the first heading must be ## 1\.0\.1 "):
        build_release.is_released(project)


def test_release_needs_a_clean_checkout(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", "1.0.0", "1.0.0 (2026-12-01)")
    subprocess.run(["git", "init", "--quiet", project], check=True, timeout=RUN_LIMIT_S)
    with pytest.raises(build_release.Failed, match=r"uncommitted changes, or no git: CHANGELOG\.md"):
        build_release.build_all(project, tmp_path, EPOCH)
