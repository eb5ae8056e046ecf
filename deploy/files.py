"""Files on the host: atomic writes, shipped files that the owner may edit, texts without secrets. No thread here."""

import hashlib
import os
import re
from pathlib import Path

from deploy.system import Host, read_text

_REDACTED = (
    (r"^([+ -]?[#\s]*\w*(?:KEY|PASSWORD|TOKEN|SECRET)\w*\s*=).+", r"\1(not shown)"),
    (r"((?:authorization|x-[a-z-]*(?:key|token|secret|password))[\"']?:?)[\s=].+", r"\1 (not shown)"),
    (r"([?&][a-z_-]*(?:key|token|secret|pass|pwd|password|auth|sig|signature)=)[^&\s\"]+", r"\1(not shown)"),
    (r"(invalid environment assignment '[^=]*=).*", r"\1(not shown)"),
    (r"(://)\S+@", r"\1(not shown)@"),
)
_NEW_LINES_SHOWN = 60


def redact(text: str) -> str:
    """The text without keys, passwords and credentials in URLs, for output of programs."""
    lines = []
    for line in text.splitlines():
        for pattern, replacement in _REDACTED:
            line = re.sub(pattern, replacement, line, flags=re.IGNORECASE)
        lines.append(line)
    return "\n".join(lines)


def reason(output: str) -> str:
    """Why a program failed: nginx's `[emerg]` line, otherwise the last line; without secrets."""
    lines = [line for line in output.splitlines() if line.strip()]
    emergencies = [line for line in lines if "[emerg]" in line]
    return redact((emergencies or lines or [""])[-1].strip())


def write(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replaces the file in one step. If the disk is full, the old file stays and nothing else is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


def link(path: Path, target: str) -> None:
    """Creates or replaces a symbolic link in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def write_if_changed(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Leaves an equal file alone, since an instance is restarted if a file of it is newer. Whether it was written."""
    if path.is_file() and path.read_bytes() == data:
        return False
    write(path, data, mode)
    return True


def is_edited(host: Host, path: Path) -> bool:
    """Whether the owner changed the file since it was shipped."""
    return path.exists() and hash_of(path.read_bytes()) != shipped_hash(host, path)


def hash_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def shipped_hash(host: Host, path: Path) -> str:
    """The hash of the file as shipped last; empty if it never was."""
    recorded = read_text(_record(host, path))
    if not recorded and path == host.env_file:
        recorded = read_text(left_hash(host))
    return recorded.strip()


def left_hash(host: Host) -> Path:
    """Where --uninstall keeps the hash of the settings file that it leaves."""
    return host.env_dir / ".shipped"


def ship(host: Host, data: bytes, path: Path, mode: int, *, set_names: str = "") -> None:
    """Writes a file that the owner may edit. An edited file stays, and the new lines of the shipped one are shown.

    `set_names` are the names of the settings in the file, shown with the edited one; never a value.
    """
    if is_edited(host, path) and path.read_bytes() != data:
        host.say(f"{path} was edited and is kept; new lines in the shipped file:")
        for line in new_lines(path.read_text(errors="replace"), data.decode(), is_env=path == host.env_file):
            host.say(f"    +{line}")
        if path == host.env_file:
            host.say(f"    set in your file: {set_names}")
        return
    # The hash is written first: a file written during a power failure is still recognized as shipped.
    write_if_changed(_record(host, path), f"{hash_of(data)}\n".encode())
    write_if_changed(path, data, mode)


def _record(host: Host, path: Path) -> Path:
    return host.top / "shipped" / f"/{path.relative_to(host.root)}".replace("/", "_")


def new_lines(current: str, shipped: str, *, is_env: bool) -> list[str]:
    """Lines that only the shipped file has, without help texts. No line of the current file, as any may be a secret."""
    known = set(current.splitlines())
    lines = []
    for line in shipped.splitlines():
        if line in known or re.fullmatch(r"\s*(#(\s.*)?)?", line):
            continue
        if is_env:  # a value in the shipped file may be a secret of the user
            name = re.match(r"\w+(?=\s*=)", line)
            if name is not None:
                line = f"{name[0]}=(not shown)"
            elif not re.match(r"#\w+=", line):
                continue
        lines.append(redact(line))
    return lines[:_NEW_LINES_SHOWN]
