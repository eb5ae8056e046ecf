"""Builds the rig's root file system, Debian 13 with the real libcamera and Picamera2, and runs commands in it.

`python3 tests/rig/root.py [DIR]` builds the root if it does not exist and prints its path. Standard library only: it
runs on a fresh machine before anything is installed. It requires Debian, root privileges, the network and mmdebstrap,
and prints one line if one of them is missing.

A root is named by the hash of its inputs, so that a changed recipe builds a new one; it is renamed to that name when it
is complete. Commands run in a writable layer in memory above it (`entering()`), so that no test can change it. No
thread here.
"""

import argparse
import configparser
import contextlib
import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
INSIDE = HERE / "inside"

SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PACKAGES = (
    # the machine: packages of Raspberry Pi OS that the portal, its unit and its deployment use
    *(
        "systemd",
        "systemd-sysv",
        "udev",
        "dbus",
        "openssh-server",
        "nginx",
        "haproxy",
        "sudo",
        "rsync",
        "curl",
        "procps",
    ),
    *("iproute2", "make", "git", "ca-certificates", "ffmpeg"),
    # the camera
    *("python3", "python3-venv", "python3-libcamera", "libcamera-ipa", "libcamera-tools"),
    # another program's camera: GStreamer's unixfdsink
    *("gstreamer1.0-tools", "gstreamer1.0-plugins-base", "gstreamer1.0-plugins-bad", "gir1.2-gst-plugins-base-1.0"),
    *("python3-gi",),
    # Picamera2's python-prctl is built from source, and so is the shim
    *("python3-dev", "gcc", "libc6-dev", "libcap-dev"),
)
PICAMERA2 = "picamera2==0.3.38"
PICTURES_WHEEL = "scikit-image==0.26.0"  # contains free photographs, listed in take_pictures.py
PYTHON = "/opt/picamera2/bin/python"

# Manuals and translations are a fifth of the root, and half the time that dpkg takes.
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_UNUSED_S = 3 * 3600
_ANY_ROOT = "[0-9a-f]" * 16
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


class CannotMake(Exception):
    """The root cannot be built here; the message is the reason in one line."""


def ensure(base: Path | None = None) -> Path:
    """Return the root's path; builds it if necessary. Raises CannotMake.

    `base` is the folder for roots, by default `$SOFT_STREAM_RIG` or `.cache/rig` in the checkout. Building takes about
    a minute; a second process waits for it.
    """
    base = base or Path(os.environ.get("SOFT_STREAM_RIG") or CHECKOUT / ".cache/rig")
    wanted = base.resolve() / _recipe_hash()
    if os.geteuid() != 0:
        raise CannotMake("the rig needs root (it mounts and changes its root): run it with sudo")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode != 0:
        raise CannotMake("the rig must be allowed to mount: start the container with --privileged")
    if wanted.is_dir():
        mark_used(wanted)
        return wanted
    if shutil.which("mmdebstrap") is None:
        raise CannotMake("the rig needs mmdebstrap: apt-get install mmdebstrap")
    source = debian_source()
    wanted.parent.mkdir(parents=True, exist_ok=True)
    with lock(wanted.parent / "lock"):
        if not wanted.is_dir():
            remove_unused(wanted.parent, _ANY_ROOT)
            for leftover in wanted.parent.glob("making-root-*"):
                shutil.rmtree(leftover)  # an interrupted build; its process no longer has the lock
            making = Path(tempfile.mkdtemp(prefix="making-root-", dir=wanted.parent))
            try:
                _make(making / "root", source)
                (making / "root").rename(wanted)
            finally:
                shutil.rmtree(making, ignore_errors=True)
    return wanted


def entering(
    root: Path,
    argv: Sequence[str],
    *,
    layer: Path,
    binds: Mapping[str, Path] = {},
    writable: Sequence[str] = (),
    env: Mapping[str, str] = {},
    cwd: str = "/",
) -> list[str]:
    """Return the command line that runs `argv` inside `root`, with the files of tests/rig/inside in /opt/rig.

    The started process becomes `argv` by exec, so that its pid, signals and exit status are those of the command. It
    has `root` below a layer in memory, which is mounted at `layer` (an empty folder) until the process ends, a separate
    /dev without cameras, and the host's processes and network. `binds` maps a path inside to a file or folder of the
    host, read-only unless it is in `writable`. `env` is the environment except PATH and HOME.
    """
    return [
        *("unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c"),
        _entry_script(
            root, layer, {f"/opt/rig/{path.name}": path for path in INSIDE.glob("*.py")} | dict(binds), writable
        ),
        *("enter", "chroot", str(layer / "root")),
        *("env", "-i", f"--chdir={cwd}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"),
        *(f"{name}={value}" for name, value in env.items()),
        *argv,
    ]


def _entry_script(root: Path, layer: Path, binds: Mapping[str, Path], writable: Sequence[str]) -> str:
    top, quoted = layer / "root", shlex.quote
    lines = [
        f"mount -t tmpfs -o mode=755 rig {quoted(str(layer))}",
        f"cd {quoted(str(layer))}",
        "mkdir upper work root",
        # A relative path, as a colon or a comma in a path would end the option.
        "ln -s -- " + quoted(str(root)) + " lower",
        "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work rig root",
        "mount --rbind /proc root/proc",
        "mount --bind -o ro /sys root/sys",
        "mount -t tmpfs -o mode=755 rig root/dev",
        "mkdir root/dev/pts root/dev/shm",
        "mount -t devpts -o newinstance,ptmxmode=0666 rig root/dev/pts",
        "mount -t tmpfs -o mode=1777 rig root/dev/shm",
        "mount -t tmpfs -o mode=755 rig root/run",
        "ln -s pts/ptmx root/dev/ptmx",
        "ln -s /proc/self/fd root/dev/fd",
        *(f"ln -s /proc/self/fd/{number} root/dev/{name}" for number, name in enumerate(("stdin", "stdout", "stderr"))),
        *(f": > root/dev/{name}; mount --bind /dev/{name} root/dev/{name}" for name in _DEVICES),
    ]
    for inside, outside in binds.items():
        target = quoted(str(top) + inside)
        if outside.is_dir():
            lines.append(f"mkdir -p {target}")
        else:
            lines += [f"mkdir -p {quoted(str(top) + str(Path(inside).parent))}", f"rm -f {target}", f": > {target}"]
        lines.append(f"mount --bind {quoted(str(outside))} {target}")
        if inside not in writable:
            lines.append(f"mount -o remount,bind,ro {target}")
    return "\n".join([*lines, 'exec "$@"'])


def _recipe_hash() -> str:
    digest = hashlib.sha256()
    for part in (HERE / "root.py", INSIDE / "dmabuf_shim.c", INSIDE / "take_pictures.py"):
        digest.update(part.read_bytes())
    digest.update(_architecture().encode())
    return digest.hexdigest()[:16]


def _architecture() -> str:
    return os.uname().machine


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file; waits for another process."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("rig: waiting for another process", file=sys.stderr)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def mark_used(made: Path) -> None:
    """Protect the folder from `remove_unused` for some hours."""
    os.utime(made)


def remove_unused(base: Path, name: str) -> None:
    """Remove matching folders that were not used for hours: each is more than a gigabyte.

    No test run takes that long, so none of them is in use.
    """
    for old in base.glob(name):
        if old.is_dir() and time.time() - old.stat().st_mtime > _UNUSED_S:
            shutil.rmtree(old)


def _make(root: Path, source: str) -> None:
    print("rig: building the Debian root, which takes about a minute, only the first time", file=sys.stderr)
    _run(
        "unpack Debian",
        *("mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory"),
        f"--include={','.join(PACKAGES)}",
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        *('--aptopt=Acquire::Languages "none"', "--aptopt=Acquire::Retries 3"),
        *(f"--aptopt={line}" for line in apt_proxies()),
        *(SUITE, str(root), source),
    )
    (root / "opt/picamera2").mkdir(parents=True)
    (root / "opt/rig").mkdir()
    settings, shared = pip_settings()
    work = {"/opt/picamera2": root / "opt/picamera2", "/opt/rig": root / "opt/rig", "/opt/inside": INSIDE} | shared
    steps = {
        "compile the shim": "gcc -O2 -Wall -Werror -shared -fPIC -o /opt/rig/dmabuf_shim.so /opt/inside/dmabuf_shim.c",
        "make the venv": "python3 -m venv --system-site-packages /opt/picamera2",
        "install Picamera2": f"/opt/picamera2/bin/pip install --quiet --no-cache-dir {PICAMERA2}",
        "fetch the photographs": "cd /tmp"
        f" && /opt/picamera2/bin/pip download --quiet --no-cache-dir --no-deps {PICTURES_WHEEL}"
        f" && {PYTHON} /opt/inside/take_pictures.py scikit_image-*.whl /opt/rig/pictures",
    }
    for what, command in steps.items():
        with tempfile.TemporaryDirectory(prefix="soft-stream-rig-") as layer:
            argv = entering(
                root,
                ["sh", "-euc", command],
                layer=Path(layer),
                binds=work,
                writable=("/opt/picamera2", "/opt/rig"),
                env=settings,
            )
            _run(what, *argv)


# A step that is interrupted leaves neither processes nor mounts: both belong to it, and end with it. Otherwise the next
# build, which removes what this one left, would find this machine's /dev and /proc in there.
_ENDS_AS_ONE = (
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
)


def _run(what: str, *argv: str) -> None:
    done = subprocess.run(
        (*_ENDS_AS_ONE, *argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout)
        lines = [line for line in done.stdout.splitlines() if line.strip()] or ["no output"]
        raise CannotMake(f"the rig could not {what} (is there a network?): {lines[-1].strip()}")


def debian_source(etc: Path = Path("/etc")) -> str:
    """A line of sources.list for the suite, with this machine's mirror."""
    release = (etc / "os-release").read_text() if (etc / "os-release").exists() else ""
    if re.search(r'^ID(_LIKE)?="?debian"?$', release, re.MULTILINE) is None or "ID=ubuntu" in release:
        raise CannotMake("the rig needs Debian (or Raspberry Pi OS) as its host")
    if not KEYRING.exists():
        raise CannotMake(f"the rig needs {KEYRING}: apt-get install debian-archive-keyring")
    for mirror, suite, components in _apt_sources(etc / "apt"):
        if "main" in components and "-" not in suite and re.search(r"/debian/?$", mirror) and "raspberry" not in mirror:
            return f"deb [signed-by={KEYRING}] {mirror} {SUITE} main"
    raise CannotMake("the rig found no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d")


def _apt_sources(folder: Path) -> Iterator[tuple[str, str, list[str]]]:
    """Yield mirror, suite and components of every enabled binary source, in both of apt's formats."""
    for path in (folder / "sources.list", *sorted(folder.glob("sources.list.d/*.list"))):
        for line in path.read_text().splitlines() if path.exists() else []:
            words = re.sub(r"\[.*?\]", "", line.partition("#")[0]).split()
            if len(words) > 3 and words[0] == "deb":
                yield _mirror(words[1]), words[2], words[3:]
    for path in sorted(folder.glob("sources.list.d/*.sources")):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        for paragraph in re.split(r"\n\s*\n", "\n".join(lines)):
            fields = {
                name.lower(): value.split()
                for name, value in re.findall(r"(?m)^([\w-]+):(.*(?:\n[ \t].*)*)", paragraph)
            }
            if "deb" in fields.get("types", []) and fields.get("enabled", ["yes"]) != ["no"]:
                for mirror in fields.get("uris", []):
                    for suite in fields.get("suites", []):
                        yield _mirror(mirror), suite, fields.get("components", [])


def _mirror(uri: str) -> str:
    """The mirror; Debian's cloud images refer to a file with a list, of which the first one is used."""
    listed = re.fullmatch(r"mirror\+file:(?://)?(/.*)", uri)
    if listed is None or not Path(listed[1]).exists():
        return uri
    return next((line.split()[0] for line in Path(listed[1]).read_text().splitlines() if line.strip()), uri)


def apt_proxies() -> list[str]:
    """The host's proxy settings for apt, which mmdebstrap does not read."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return re.findall(r'(?m)^Acquire::\w+::Proxy\S* ".+"(?=;)', dump)


def pip_settings() -> tuple[dict[str, str], dict[str, Path]]:
    """The host's pip settings as environment variables, and the host's files that they refer to, for bind mounts.

    They are used only during the build and not stored in the root.
    """
    settings: dict[str, str] = {}
    files = [*os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"), "/etc"]
    home = Path.home()
    for path in (
        *(Path(folder, "pip/pip.conf" if folder != "/etc" else "pip.conf") for folder in files),
        *(home / ".pip/pip.conf", home / ".config/pip/pip.conf", Path(sys.prefix, "pip.conf")),
        Path(os.environ.get("PIP_CONFIG_FILE", os.devnull)),
    ):
        parser = configparser.RawConfigParser()
        parser.read(path)
        for section in ("global", "install", "download"):
            if parser.has_section(section):
                for name, value in parser.items(section):
                    settings["PIP_" + name.upper().replace("-", "_")] = " ".join(value.split())
    prefixes = ("PIP_", "SSL_CERT_", "REQUESTS_CA_")
    proxies = ("http_proxy", "https_proxy", "no_proxy", "all_proxy")
    settings |= {n: v for n, v in os.environ.items() if n.startswith(prefixes) or n.lower() in proxies}
    for name in ("PIP_CONFIG_FILE", "PIP_REQUIRE_VIRTUALENV", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_CACHE_DIR"):
        settings.pop(name, None)
    shared = {str(path): path for path in (_CERTIFICATES, Path("/etc/resolv.conf")) if path.exists()}
    for value in settings.values():
        for path in map(Path, re.findall(r"(?:^|\s|file://)(/[^\s]+)", value)):
            # The parent of an index, as pages of a local index may refer to files beside it.
            path = path.parent if path.name == "simple" and path.is_dir() else path
            if path.is_file() or (path.is_dir() and not path.is_relative_to("/etc")):
                shared[str(path)] = path
    return settings, {inside: path.resolve() for inside, path in shared.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Build the rig's Debian root if necessary, and print its path.")
    parser.add_argument("dir", nargs="?", type=Path, help="folder for roots ($SOFT_STREAM_RIG, or .cache/rig)")
    try:
        print(ensure(parser.parse_args().dir))
    except CannotMake as reason:
        print(f"rig: {reason}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
