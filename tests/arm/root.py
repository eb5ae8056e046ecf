"""Builds small Debian 13 roots of other processors, and runs Python in them with QEMU's user-mode emulation.

`python3 -m tests.arm.root` builds both. Nothing is emulated meanwhile: packages and wheels are only unpacked, and
simplejpeg, of which PyPI has no wheel for armhf, is built by a cross compiler with Debian's libjpeg-turbo. The emulator
is started by its name, so no binary format is registered in the kernel; what runs inside cannot start programs.

A root is named by the hash of its inputs, and renamed to that name when it is complete. No thread here.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.rig import root as rig_root
from tests.rig.root import CannotMake

PROJECT = "/opt/project"
_REQUIREMENTS = rig_root.CHECKOUT / "tests/requirements.txt"
_TESTING = ("pytest", "pytest-timeout", "hypothesis")
_VERSION = "3.13"  # Debian 13's Python
_LEFT_OUT = ("/usr/share/*/*", "/usr/lib/linux/*", "*.a", "*/gconv/*", "*/idlelib/*")
_COMPILER = "arm-linux-gnueabihf-gcc"
_ANY = "*-" + "[0-9a-f]" * 16

# As in the rig: an interrupted mmdebstrap leaves no mounts behind, in a folder that the next one removes.
_ENDS_AS_ONE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A processor: its name in Debian, its emulator, and where its Python modules are from."""

    architecture: str
    emulator: str
    platforms: tuple[str, ...]  # of wheels
    packages: tuple[str, ...]
    wheels: tuple[str, ...]
    triplet: str

    @property
    def has_pyav(self) -> bool:
        return "av" in self.wheels


MACHINES = {
    "arm64": Machine(
        "arm64",
        "qemu-aarch64-static",
        ("manylinux_2_28_aarch64", "manylinux2014_aarch64"),
        ("base-files", "python3", "libstdc++6"),
        ("av", "numpy", "simplejpeg", *_TESTING),
        "aarch64-linux-gnu",
    ),
    # Debian's PyAV depends on 200 packages, which would take longer than all tests here. So this is also the test of
    # what works without it.
    "armhf": Machine(
        "armhf",
        "qemu-arm-static",
        ("manylinux_2_31_armv7l", "manylinux2014_armv7l"),
        (
            "base-files",
            "python3",
            "python3-numpy",
            "python3-numpy-dev",
            f"libpython{_VERSION}-dev",
            "libturbojpeg0-dev",
        ),
        _TESTING,
        "arm-linux-gnueabihf",
    ),
}


def ensure(machine: Machine, base: Path | None = None) -> Path:
    """The machine's root; built if necessary. Raises CannotMake."""
    base = (base or rig_root.CHECKOUT / ".cache/arm").resolve()
    made = base / f"{machine.architecture}-{_recipe_hash()}"
    if os.geteuid() != 0:
        raise CannotMake("the ARM tests need root (they change their root): run them with sudo")
    for program in ("mmdebstrap", machine.emulator, "unshare", "setpriv", *_compilers(machine)):
        if shutil.which(program) is None:
            raise CannotMake(f"the ARM tests need {program}")
    if made.is_dir():
        rig_root.mark_used(made)
        return made
    source = rig_root.debian_source()
    base.mkdir(parents=True, exist_ok=True)
    with rig_root.lock(base / f"lock-{machine.architecture}"):
        if not made.is_dir():
            print(f"arm: unpacking Debian for {machine.architecture}, only the first time", file=sys.stderr)
            rig_root.remove_unused(base, _ANY)
            making = base / f"making-{machine.architecture}"
            shutil.rmtree(making, ignore_errors=True)  # of an interrupted build
            try:
                _make(machine, making, source)
                making.rename(made)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return made


def entering(
    machine: Machine, root: Path, arguments: Sequence[str], *, env: Mapping[str, str] = {}, folder: Path | None = None
) -> list[str]:
    """The command line that runs the root's Python with these arguments, in the checkout, which is read-only.

    The started process becomes the emulator by exec, so that its pid, signals and exit status are those of Python. It
    has the host's network, processes and devices, an empty /tmp, and `folder` of the host as /mnt.
    """
    binds = {root / PROJECT[1:]: rig_root.CHECKOUT, **({} if folder is None else {root / "mnt": folder})}
    lines = [
        *(f"mount --rbind /{name} {shlex.quote(str(root / name))}" for name in ("proc", "dev")),
        f"mount -t tmpfs -o mode=1777 arm {shlex.quote(str(root / 'tmp'))}",
        *(f"mount --bind {shlex.quote(str(outside))} {shlex.quote(str(inside))}" for inside, outside in binds.items()),
        f"mount -o remount,bind,ro {shlex.quote(str(root / PROJECT[1:]))}",
        'exec "$@"',
    ]
    settings = {
        "HOME": "/tmp",
        "LANG": "C.UTF-8",
        "LD_LIBRARY_PATH": f"/usr/lib/{machine.triplet}/blas:/usr/lib/{machine.triplet}/lapack",
        "PATH": "/usr/bin",
        "PYTHONPATH": "/opt/python",
        "PYTHONPYCACHEPREFIX": "/opt/bytecode",  # nothing was compiled when the packages were unpacked
        "PYTHONUNBUFFERED": "1",
    } | dict(env)
    return [
        *("setpriv", "--pdeathsig", "KILL"),
        *("unshare", "--mount", "--propagation", "private", "sh", "-euc", "\n".join(lines), "enter"),
        *("env", "-i", *(f"{name}={value}" for name, value in settings.items())),
        *("unshare", f"--root={root}", f"--wd={PROJECT}"),
        *(f"/{machine.emulator}", "/usr/bin/python3", *arguments),
    ]


def _compilers(machine: Machine) -> tuple[str, ...]:
    return () if "simplejpeg" in machine.wheels else (_COMPILER,)


def _recipe_hash() -> str:
    return hashlib.sha256(Path(__file__).read_bytes() + _REQUIREMENTS.read_bytes()).hexdigest()[:16]


def _make(machine: Machine, root: Path, source: str) -> None:
    _run(
        "unpack Debian",
        *(*_ENDS_AS_ONE, "mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--format=directory"),
        f"--architectures={machine.architecture}",
        f"--include={','.join(machine.packages)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        *('--aptopt=Acquire::Languages "none"', "--aptopt=Acquire::Retries 3"),
        *(f"--aptopt={line}" for line in rig_root.apt_proxies()),
        *(rig_root.SUITE, str(root), source),
    )
    for name in ("dev", "mnt", "proc", "tmp", "opt/bytecode", "opt/python", PROJECT[1:]):
        (root / name).mkdir(parents=True, exist_ok=True)
    emulator = shutil.which(machine.emulator)
    assert emulator is not None
    shutil.copy(emulator, root / machine.emulator)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    _run(
        "install the Python modules",
        *(*pip, "install", "--no-compile", "--only-binary=:all:", f"--target={root / 'opt/python'}"),
        *(f"--platform={platform}" for platform in machine.platforms),
        *(f"--python-version={_VERSION}", "--implementation=cp", f"--constraint={_REQUIREMENTS}", *machine.wheels),
    )
    if _compilers(machine):
        _build_simplejpeg(machine, root, pip)


def _build_simplejpeg(machine: Machine, root: Path, pip: Sequence[str]) -> None:
    """Compile the sources of PyPI against the root's libjpeg-turbo, as Raspberry Pi OS does."""
    version = next(line for line in _REQUIREMENTS.read_text().splitlines() if line.startswith("simplejpeg=="))
    with tempfile.TemporaryDirectory(prefix="soft-stream-arm-") as folder:
        # pip runs its set-up to learn about it, which fails where it cannot fetch libjpeg-turbo. The sources stay.
        subprocess.run(
            [*pip, "download", "--no-clean", "--no-deps", "--no-build-isolation", "--no-binary=:all:", version],
            cwd=folder,
            env=dict(os.environ, TMPDIR=folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        sources = next((path.parent for path in Path(folder).rglob("_jpeg.c")), None)
        if sources is None:
            raise CannotMake(f"the ARM tests could not fetch the sources of {version} (is there a network?)")
        package = root / "opt/python/simplejpeg"
        package.mkdir()
        shutil.copy(sources / "__init__.py", package)
        headers = (
            f"usr/include/python{_VERSION}",
            "usr/include",
            f"usr/include/{machine.triplet}",
            "usr/lib/python3/dist-packages/numpy/_core/include",
        )
        _run(
            "build simplejpeg",
            *(_COMPILER, "-O1", "-w", "-shared", "-fPIC", "-DTJSAMP_UNKNOWN=-1"),  # a name of libjpeg-turbo 3
            *(f"-I{root / header}" for header in headers),
            *("-o", str(package / "_jpeg.so"), str(sources / "_jpeg.c"), str(sources / "_color.c")),
            str(root / f"usr/lib/{machine.triplet}/libturbojpeg.so.0"),
        )


def _run(what: str, *argv: str) -> None:
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        raise CannotMake(f"the ARM tests could not {what} (is there a network?)")


def main() -> int:
    try:
        for machine in MACHINES.values():
            print(ensure(machine))
    except CannotMake as reason:
        print(f"arm: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
