#!/usr/bin/env python3
"""Builds what a release consists of, from the files of this checkout, into dist/.

    tools/build_release.py deb       the Debian package, checked by lintian
    tools/build_release.py wheel     for pipx and pip
    tools/build_release.py zipapp    soft-stream.pyz, one file that Python runs
    tools/build_release.py tarball   the sources
    tools/build_release.py sbom      the bill of materials, CycloneDX 1.6 in JSON
    tools/build_release.py all       all of them, and SHA256SUMS; only without uncommitted changes

The version is that of softcam/__init__.py; while CHANGELOG.md calls it unreleased, the package's version also has the
date of the last commit, and sorts before the release. The same commit makes the same bytes: all dates are
SOURCE_DATE_EPOCH, by default the date of the last commit. Standard library only; the programs that it runs are
installed by tools/setup.sh.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import tomllib
import uuid
import zipfile
from collections.abc import Callable, Mapping, Sequence
from email.utils import formatdate
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = "camera-soft-stream"
_LEFT_OUT: Final = ("tests/", "bench/", ".github/", ".ci/")
_FIRST_ZIP_EPOCH: Final = 315_532_800  # 1980; a zip archive has no earlier dates


class Failed(Exception):
    """A part of the release cannot be built; the message is the reason."""


def read_version(project: Path = PROJECT) -> str:
    """The version, which is in one place."""
    found = re.search(r'(?m)^__version__ = "([^"]+)"$', (project / "softcam/__init__.py").read_text())
    if found is None:
        raise Failed('softcam/__init__.py: must have a line __version__ = "…"')
    return found[1]


def is_released(project: Path = PROJECT) -> bool:
    """Whether the changelog has a date for this version. Raises Failed if its first version is another one."""
    found = re.search(r"(?m)^## (\S+) \(([^)]+)\)$", (project / "CHANGELOG.md").read_text())
    if found is None or found[1] != read_version(project):
        raise Failed(f"CHANGELOG.md: the first heading must be ## {read_version(project)} (YYYY-MM-DD or unreleased)")
    return re.fullmatch(r"\d{4}-\d\d-\d\d", found[2]) is not None


def source_epoch(project: Path = PROJECT) -> int:
    """The date of everything that is built, in seconds."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    done = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=project, capture_output=True, text=True, check=False
    )
    return int(done.stdout) if done.returncode == 0 else int((project / "CHANGELOG.md").stat().st_mtime)


def debian_version(project: Path, epoch: int) -> str:
    version = read_version(project)
    return version if is_released(project) else f"{version}~{time.strftime('%Y%m%d.%H%M%S', time.gmtime(epoch))}"


def tracked_files(project: Path) -> list[Path]:
    """The files of the project, relative to it; those in git, or all of them where there is no git."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=project, capture_output=True, text=True, check=False)
    if done.returncode == 0 and done.stdout:
        found = [Path(name) for name in done.stdout.split("\0") if name]
    else:
        found = [path.relative_to(project) for path in project.rglob("*") if "__pycache__" not in path.parts]
    return sorted(path for path in found if (project / path).is_file())


def copy_sources(project: Path, target: Path) -> None:
    """Copy the files that are installed, with modes that do not depend on this machine's umask."""
    for path in tracked_files(project):
        if not path.as_posix().startswith(_LEFT_OUT):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(project / path, target / path)
            (target / path).chmod(0o755 if os.access(project / path, os.X_OK) else 0o644)


def build_deb(project: Path, dist: Path, epoch: int) -> Path:
    """Build the Debian package; its path. Raises Failed if lintian finds an error."""
    version = debian_version(project, epoch)
    with tempfile.TemporaryDirectory(prefix="soft-stream-deb-") as folder:
        tree = Path(folder, f"{PACKAGE}-{version}")
        copy_sources(project, tree)
        shutil.copytree(tree / "packaging/debian", tree / "debian")
        control = (tree / "debian/control").read_text()
        maintainer = next(line for line in control.splitlines() if line.startswith("Maintainer: ")).partition(" ")[2]
        entry = f"{PACKAGE} ({version}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n"
        (tree / "debian/changelog").write_text(f"{entry} -- {maintainer}  {formatdate(epoch)}\n")
        run("dpkg-buildpackage", "--build=binary", "--no-sign", cwd=tree, SOURCE_DATE_EPOCH=str(epoch))
        (built,) = Path(folder).glob("*.deb")
        run("lintian", "--fail-on=error", "--tag-display-limit=0", "--allow-root", str(built), cwd=Path(folder))
        return Path(shutil.move(built, dist / built.name))


def build_wheel(project: Path, dist: Path, epoch: int) -> Path:
    """Build the wheel with the setuptools of this Python; its path."""
    with tempfile.TemporaryDirectory(prefix="soft-stream-wheel-") as folder:
        tree, built = Path(folder, "tree"), Path(folder, "built")
        copy_sources(project, tree)
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--no-build-isolation")
        run(*pip, "--wheel-dir", str(built), str(tree), cwd=tree, SOURCE_DATE_EPOCH=str(epoch))
        (wheel,) = built.glob("*.whl")
        return Path(shutil.move(wheel, dist / wheel.name))


def build_zipapp(project: Path, dist: Path, epoch: int) -> Path:
    """Build the archive that Python runs; its path."""
    names = [path.as_posix() for path in tracked_files(project)]
    contents = {name: (project / name).read_bytes() for name in names if name.startswith("softcam/")}
    contents["soft_stream.py"] = (project / "soft_stream.py").read_bytes()
    contents["__main__.py"] = b"from soft_stream import main\n\nraise SystemExit(main())\n"
    date = time.gmtime(max(epoch, _FIRST_ZIP_EPOCH))[:6]
    path = dist / "soft-stream.pyz"
    with path.open("wb") as file:
        file.write(b"#!/usr/bin/env python3\n")
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(contents):
                member = zipfile.ZipInfo(name, date)
                member.external_attr = 0o644 << 16
                archive.writestr(member, contents[name], zipfile.ZIP_DEFLATED)
    path.chmod(0o755)
    return path


def build_tarball(project: Path, dist: Path, epoch: int) -> Path:
    """Pack the sources, with the tests; the archive's path."""
    stem = f"soft-stream-{read_version(project)}"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in tracked_files(project):
            member = archive.gettarinfo(project / path, f"{stem}/{path.as_posix()}")
            member.mtime, member.mode = epoch, 0o755 if member.mode & 0o100 else 0o644
            member.uid = member.gid = 0
            member.uname = member.gname = "root"
            with (project / path).open("rb") as file:
                archive.addfile(member, file)
    target = dist / f"{stem}.tar.gz"
    target.write_bytes(gzip.compress(packed.getvalue(), mtime=epoch))
    return target


def build_sbom(project: Path, dist: Path, epoch: int) -> Path:
    """Write the bill of materials: the portal, and what it needs at runtime, which is not part of the archives."""
    about = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    version = read_version(project)
    lines = [line for line in (project / "requirements.txt").read_text().splitlines() if re.match(r"\w", line)]
    wanted = [(line, "required") for line in lines]
    wanted += [(line, "optional") for extra in about["optional-dependencies"].values() for line in extra]
    portal = {
        "type": "application",
        "bom-ref": "soft-stream",
        "name": about["name"],
        "version": version,
        "description": about["description"],
        "licenses": [{"license": {"id": "MIT"}}],
        "purl": f"pkg:pypi/{about['name']}@{version}",
    }
    components = []
    for line, scope in wanted:
        name, _, versions = line.partition(" ")
        properties = [{"name": "soft-stream:versions", "value": versions}] if versions else []
        components.append(
            {
                "type": "library",
                "bom-ref": name,
                "name": name,
                "scope": scope,
                "purl": f"pkg:pypi/{name}",
                "properties": properties,
            }
        )
    names = [str(component["name"]) for component in components]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'soft-stream {version} {epoch}')}",
        "version": 1,
        "metadata": {"timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)), "component": portal},
        "components": components,
        "dependencies": [{"ref": "soft-stream", "dependsOn": names}, *({"ref": name} for name in names)],
    }
    target = dist / f"soft-stream-{version}.cdx.json"
    target.write_text(json.dumps(bill, indent=2) + "\n")
    return target


def build_all(project: Path, dist: Path, epoch: int) -> Path:
    """Build everything, and the file with the checksums; its path. Raises Failed if something is not committed."""
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=project, capture_output=True, text=True, check=False)
    if changed.returncode != 0 or changed.stdout:
        raise Failed(f"uncommitted changes, or no git: {' '.join(changed.stdout.split()[1::2][:5])}")
    if not is_released(project):
        print(f"{read_version(project)} is unreleased: CHANGELOG.md has no date for it", file=sys.stderr)
    built = [build(project, dist, epoch) for build in BUILDERS.values() if build is not build_all]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in sorted(built)]
    target = dist / "SHA256SUMS"
    target.write_text("".join(lines))
    sys.stdout.writelines(lines)
    return target


def run(*argv: str, cwd: Path, **environment: str) -> None:
    """Run a program. Raises Failed, with its output on standard error, if it fails."""
    # The locale and the umask decide neither texts nor modes.
    clean: Mapping[str, str] = {**os.environ, "LC_ALL": "C.UTF-8", **environment}
    try:
        done = subprocess.run(
            argv, cwd=cwd, env=clean, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, umask=0o022
        )
    except FileNotFoundError as error:
        raise Failed(f"{argv[0]} is not installed") from error
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        raise Failed(f"{argv[0]} failed with exit code {done.returncode}")


BUILDERS: Final[Mapping[str, Callable[[Path, Path, int], Path]]] = {
    "tarball": build_tarball,
    "wheel": build_wheel,
    "zipapp": build_zipapp,
    "deb": build_deb,
    "sbom": build_sbom,
    "all": build_all,
}


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="Build the parts of a release.")
    parser.add_argument("part", choices=(*BUILDERS,))
    parser.add_argument("--project", type=Path, default=PROJECT, help="the checkout to build from")
    parser.add_argument("--dist", type=Path, help="where to put what was built [dist in the checkout]")
    arguments = parser.parse_args(argv)
    project = arguments.project.resolve()
    dist = (arguments.dist or project / "dist").resolve()
    dist.mkdir(parents=True, exist_ok=True)
    try:
        print(BUILDERS[arguments.part](project, dist, source_epoch(project)))
    except Failed as error:
        print(f"build_release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
