"""Files on the host: atomic writes, shipped files that the owner may edit, texts without secrets."""

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from deploy.system import Host, last_line, read_text

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
    emergencies = [line for line in output.splitlines() if "[emerg]" in line]
    return redact(last_line("\n".join(emergencies) or output))


def write(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Replace the file in one step, also if the power fails; whether it was written. On a full disk the old one stays.

    An equal file is not written, since an instance is restarted if one of its files is newer.
    """
    if path.is_file() and path.read_bytes() == data:
        return False
    new = _make_room(path)
    try:
        new.touch(mode, exist_ok=False)
        new.chmod(mode)  # whatever the umask is
        with new.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file)
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return True


def link(path: Path, target: str) -> None:
    """Create or replace a symbolic link in one step."""
    new = _make_room(path)
    new.symlink_to(target)
    new.replace(path)


def _make_room(path: Path) -> Path:
    """The name under which the next content of `path` is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    return new


def remove(path: Path) -> None:
    """Remove the file, and its folder if that is empty then, except for those of the system."""
    path.unlink(missing_ok=True)
    if path.parent.name not in ("system", "rules.d"):
        with suppress(OSError):
            path.parent.rmdir()


def _shipped_hashes(host: Host) -> dict[str, str]:
    """The hash of each file as shipped last, by its path."""
    rows = (line.partition("  ") for line in read_text(host.shipped).splitlines())
    return {path: digest for digest, _, path in rows}


def is_edited(host: Host, path: Path) -> bool:
    """Whether the owner changed the file since it was shipped."""
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != _shipped_hashes(host).get(str(path))


def ship(host: Host, data: bytes, path: Path, mode: int, *, earlier: str = "") -> None:
    """Write a file that the owner may edit. An edited file stays, and what is new in the shipped one is shown.

    `earlier` is the file as it was shipped by the release before; empty if there is none.
    """
    if is_edited(host, path) and path.read_bytes() != data:
        find = _new_settings if path == host.env_file else _new_lines
        new = find(f"{earlier}\n{path.read_text(errors='replace')}", data.decode())
        host.say(f"{path} was edited and is kept{'; new in the shipped file:' if new else ''}")
        for line in new[:_NEW_LINES_SHOWN]:
            host.say(f"    +{redact(line)}")
        return
    # The hash is written first: a file written during a power failure is still recognized as shipped.
    hashes = {**_shipped_hashes(host), str(path): hashlib.sha256(data).hexdigest()}
    write(host.shipped, "".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)).encode())
    write(path, data, mode)


def _new_settings(known: str, shipped: str) -> list[str]:
    """The lines of settings whose names are not in the text, also commented out. Values of the user are not shown."""
    pattern = re.compile(r"(?m)^([ \t]*#?(\w+)[ \t]*=).*")
    names = {name.lower() for _, name in pattern.findall(known)}
    lines = [match for match in pattern.finditer(shipped) if match[2].lower() not in names]
    return [match[0] if match[0].lstrip().startswith("#") else f"{match[1].strip()}(not shown)" for match in lines]


def _new_lines(known: str, shipped: str) -> list[str]:
    """The lines that are not in the text, without help. None of the current file, as any may be a secret."""
    lines = {*known.splitlines()}
    return [line for line in shipped.splitlines() if line not in lines and not re.fullmatch(r"\s*(#(\s.*)?)?", line)]
