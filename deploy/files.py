"""Files on the host: atomic writes, shipped files that the owner may edit, texts without secrets."""

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
    for pattern, replacement in _REDACTED:
        text = "\n".join(re.sub(pattern, replacement, line, flags=re.IGNORECASE) for line in text.splitlines())
    return text


def reason(output: str) -> str:
    """Why a program failed: nginx's `[emerg]` line, otherwise the last line; without secrets."""
    lines = [line for line in output.splitlines() if line.strip()]
    emergencies = [line for line in lines if "[emerg]" in line]
    return redact((emergencies or lines or [""])[-1].strip())


def write(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Replaces the file in one step; whether it was written. If the disk is full, the old file stays.

    An equal file is not written, since an instance is restarted if one of its files is newer.
    """
    if path.is_file() and path.read_bytes() == data:
        return False
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
    return True


def link(path: Path, target: str) -> None:
    """Creates or replaces a symbolic link in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(path)


def _shipped_hashes(host: Host) -> dict[str, str]:
    """The hash of each file as shipped last, by its path."""
    rows = (line.partition("  ") for line in read_text(host.shipped).splitlines())
    return {path: digest for digest, _, path in rows}


def is_edited(host: Host, path: Path) -> bool:
    """Whether the owner changed the file since it was shipped."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != _shipped_hashes(host).get(str(path))


def ship(host: Host, data: bytes, path: Path, mode: int, *, set_names: str = "") -> None:
    """Writes a file that the owner may edit. An edited file stays, and the new lines of the shipped one are shown.

    `set_names` are the names of the settings in the file, shown with the edited one; never a value.
    """
    is_env = path == host.env_file
    if is_edited(host, path) and path.read_bytes() != data:
        host.say(f"{path} was edited and is kept; new lines in the shipped file:")
        for line in _new_lines(path.read_text(errors="replace"), data.decode(), is_env=is_env):
            host.say(f"    +{line}")
        if is_env:
            host.say(f"    set in your file: {set_names}")
        return
    # The hash is written first: a file written during a power failure is still recognized as shipped.
    hashes = {**_shipped_hashes(host), str(path): hashlib.sha256(data).hexdigest()}
    write(host.shipped, "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode())
    write(path, data, mode)


def _new_lines(current: str, shipped: str, *, is_env: bool) -> list[str]:
    """Lines that only the shipped file has, without help texts. No line of the current file, as any may be a secret."""
    known = set(current.splitlines())
    lines = [line for line in shipped.splitlines() if line not in known and not re.fullmatch(r"\s*(#(\s.*)?)?", line)]
    if is_env:  # a value in the shipped file may be a secret of the user
        lines = [re.sub(r"^(\w+)\s*=.*", r"\1=(not shown)", line) for line in lines if re.match(r"\w+\s*=|#\w+=", line)]
    return [redact(line) for line in lines[:_NEW_LINES_SHOWN]]
