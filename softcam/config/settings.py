"""From flags and environment to one frozen `Settings`, with all faults told at once, and the report of `--check`.

The rows are in `softcam.config.schema`, their parsers in `softcam.config.parsers`. Only `softcam.app` sees `Settings`;
components take plain arguments. No logging, no files, no environment but the one passed in; no thread.

- A flag goes before `cam<N>_<name>`, that before `CAMERA_<NAME>`, that before the default. Every value that was given
  is checked, also one that a higher place overrides: it would fail on the day when that is taken away.
- N is the number given to `--camera`; 0 for the pattern camera; for a camera given by its id, the N whose `cam<N>_id`
  has the same id; for a URL, a file or a device likewise, or else 0. `cam<N>_id=pattern` makes camera N the pattern
  camera, and `cam<N>_id=rtsp://…` what is there.
- An empty variable is one that is not set, whatever it stands for. A flag's empty value is judged by the rule.
- Blanks around a variable's value, and a comment behind it (` # …`), are dropped: systemd's and docker's readers of env
  files leave comments there. Not so in a secret, which is refused instead: cutting it would weaken it unseen.
- A snapshot's width and height default to the stream's, each on its own, whatever that makes of the aspect ratio.
- A variable with our prefix that no row knows is a warning and never a fault, since `CAMERA_` is nobody's property. Not
  even that for what Docker links and Kubernetes services named "camera" put into every container (`_is_foreign`), for
  variables of other cameras' numbers, and for prefixes in another spelling (`camera_`, `CAMERAS_`).
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from softcam import __version__
from softcam.config.parsers import COMMENT, PATTERN, is_elsewhere
from softcam.config.schema import (
    BY_FLAG,
    BY_NAME,
    COMMANDS,
    FIRST_PORT,
    KNOWN_FLAGS,
    SETTINGS,
    THE_STREAMS,
    Command,
    Setting,
    help_text,
    markdown_table,
    say,
)
from softcam.errors import EXIT_OK, ConfigurationError
from softcam.runtime.redact import without_secrets

__all__ = ["SETTINGS", "Setting", "Settings", "describe", "help_text", "load", "markdown_table"]

_LONGEST_SHOWN: Final = 100  # characters of a bad value in a message
_FOREIGN: Final = re.compile(r"CAMERA_(SERVICE_(HOST|PORT)\w*|PORT_[0-9]+_(TCP|UDP|SCTP)\w*|NAME|ENV_\w+)")
_FOREIGN_PORT: Final = re.compile(r"(tcp|udp|sctp)://.*")
_SHARED_KEY: Final = re.compile(r"CAMERA(?:_(.+))?")
_CAMERA_KEY: Final = re.compile(r"cam(0|[1-9][0-9]?)_(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective configuration; None means not set.

    `camera_number` is None where the camera was given by an id that no `cam<N>_id` has. Where there is a `camera_id` or
    a `url` (which may also be a file or a device, and never both are set), it selects the camera, and the number only
    names the instance. Where `port` is None, `port_for` knows it.
    """

    command: Command
    camera_number: int | None
    camera_id: str | None
    url: str | None = field(repr=False)
    is_pattern: bool
    enabled: bool
    tuning_file: str | None
    is_noir: bool
    camera_model: str | None
    pattern_faults: str | None
    host: str
    port: int | None
    api_key: str | None = field(repr=False)
    view_key: str | None = field(repr=False)
    host_names: tuple[str, ...] | None
    state_dir: str | None
    max_clients: int
    neighbours: tuple[tuple[str, int | str], ...]
    width: int
    height: int
    fps: float
    quality: int
    linger_s: float
    watchdog_timeout_s: float
    snapshot_width: int
    snapshot_height: int
    snapshot_quality: int
    autofocus: bool
    autofocus_timeout_s: float
    rtsp_url: str | None
    rtsp_autostart: bool
    bitrate: int
    webrtc_url: str | None
    recordings: str | None
    recordings_max_bytes: int | None
    recordings_preroll_s: float
    hook: str | None
    log_level: str
    warnings: tuple[str, ...] = field(default=(), compare=False)
    # By a row's name, where its value came from: a flag, a variable, "default".
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def camera(self) -> str:
        """What was chosen: `pattern`, the URL with any password in it, the id, or the number."""
        return PATTERN if self.is_pattern else self.url or self.camera_id or str(self.camera_number)

    def port_for(self, number: int) -> int:
        """The port to listen on, once it is known which place the camera has."""
        return FIRST_PORT + number if self.port is None else self.port


# -- Reading


class _Given(NamedTuple):
    row: Setting
    key: str  # as the user wrote it
    text: str
    is_flag: bool


class _Reading:
    """What one `load` has understood so far."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.refused: set[str] = set()
        self.messages: list[str] = []
        self.has_flag_faults = False
        self.warnings: list[str] = []

    def blame_flag(self, fault: str) -> None:
        self.messages.append(fault)
        self.has_flag_faults = True

    def take(self, given: _Given) -> None:
        """Check it, and use it unless its setting has a value already; of a flag given twice the last one counts."""
        try:
            value = given.row.parse(given.text)
        except ValueError as error:
            shown = "(not shown)" if given.row.secret else _shown(given.text)
            fault = f"{given.key} {shown}: wants {error}"
            self.refused.add(given.row.name)
            if given.is_flag:
                self.blame_flag(fault)
            else:
                self.messages.append(fault)
            return
        name = given.row.name
        if given.is_flag or name not in self.values:
            self.values[name] = value
            self.origins[name] = given.key

    def warn_conflicts(self, given: Sequence[_Given]) -> None:
        """Say when one place has the same setting under two names with different values; the first counts."""
        first: dict[str, _Given] = {}
        for each in given:
            rival = first.setdefault(each.row.name, each)
            if rival.text != each.text:
                self.warnings.append(f"{each.key} is not used: {rival.key} is the same setting and goes before it")


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read flags (without the program's name) and environment.

    Raises ConfigurationError with every fault there is, and SystemExit(0) after printing for `--help` and `--version`.
    """
    reading = _Reading()
    given, commands = _read_flags(argv, reading)
    for each in given:
        reading.take(each)
    shared = _read_shared(environ, reading)
    for each in shared:
        if each.row.name == "camera":
            reading.take(each)
    if len(commands) > 1:
        reading.blame_flag(f"{' and '.join(commands)}: only one of them at a time")

    number = _read_number(environ, reading)
    if number is not None:
        for each in _read_of_camera(environ, number, reading):
            reading.take(each)
    for each in shared:
        if each.row.name != "camera":
            reading.take(each)
    if reading.messages:
        raise ConfigurationError(reading.messages, from_flags=reading.has_flag_faults)
    reading.values.setdefault("state_dir", _state_dir(environ))
    reading.values.setdefault("neighbours", _neighbours(environ, number))
    return _settle(reading, COMMANDS[commands[0]] if commands else "run", number)


def _neighbours(environ: Mapping[str, str], own: int | None) -> tuple[tuple[str, int | str], ...]:
    """All cameras that have variables of their own, this one among them, with their ports; nobody where it is alone."""
    keys = {(int(match[1]), match[2].lower()): key for key in environ if (match := _CAMERA_KEY.fullmatch(key))}
    found: list[tuple[str, int | str]] = []
    for number in sorted({number for number, _ in keys} | (set() if own is None else {own})):
        texts = {name: environ[keys[number, name]] for name in ("port", "enabled") if (number, name) in keys}
        try:
            is_enabled = BY_NAME["enabled"].parse(_value(texts.get("enabled") or "on", BY_NAME["enabled"]))
            port = BY_NAME["port"].parse(_value(texts.get("port") or str(FIRST_PORT + number), BY_NAME["port"]))
        except ValueError:
            continue  # that camera's own instance says so
        if is_enabled and isinstance(port, int):
            found.append((f"Camera {number}", port))
    return tuple(found) if len(found) > 1 else ()


def _state_dir(environ: Mapping[str, str]) -> str | None:
    """Where services and then where people keep their state; None where nobody says, and there is no home."""
    of_service = environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd separates several by colons
    if of_service:
        return of_service
    folder = environ.get("XDG_STATE_HOME", "")
    if not folder.startswith("/"):  # the specification has a relative one ignored
        home = environ.get("HOME", "")
        folder = f"{home}/.local/state" if home.startswith("/") else ""
    return f"{folder}/soft-stream" if folder else None


def _read_flags(argv: Sequence[str], reading: _Reading) -> tuple[list[_Given], list[str]]:
    """What the flags give, and the commands among them."""
    given: list[_Given] = []
    commands: list[str] = []
    words = list(reversed(argv))
    may_be_secret = False
    while words:
        word = words.pop()
        flag, has_text, text = word.partition("=")
        if not flag.startswith("-"):
            # A key with a blank in it and no quotes comes here in pieces.
            shown = "a word (not shown)" if may_be_secret else _shown(word)
            reading.blame_flag(f"{shown}: belongs to no flag")
            continue
        row = BY_FLAG.get(flag)
        may_be_secret = row is not None and row.secret
        if row is None and flag not in KNOWN_FLAGS:
            reading.blame_flag(f"{_unquoted(flag)}: no such flag{_guess(flag, KNOWN_FLAGS)}")
            while words and not words[-1].startswith("-"):
                words.pop()  # its value, which is no fault of its own, and may be a misspelt flag's secret
        elif row is None or not row.metavar:
            if has_text:
                reading.blame_flag(f"{flag}: takes no value")
            elif row is not None:
                given.append(_Given(row, flag, "on" if flag in row.flags else "off", is_flag=True))
            elif flag not in COMMANDS:
                print(f"soft_stream.py {__version__}" if flag == "--version" else help_text())
                raise SystemExit(EXIT_OK)
            elif flag not in commands:
                commands.append(flag)
        elif has_text:
            given.append(_Given(row, flag, text, is_flag=True))
        elif words and _is_value(words[-1], row):
            given.append(_Given(row, flag, words.pop(), is_flag=True))
        else:
            reading.blame_flag(f"{flag}: wants a value")
    return given, commands


def _is_value(word: str, row: Setting) -> bool:
    """Whether a word behind a flag is its value; a key may begin with a dash, and then must not be told as a flag."""
    if row.secret:
        return word.partition("=")[0] not in KNOWN_FLAGS
    return not word.startswith("-") or word[1:2].isdigit()


def _read_shared(environ: Mapping[str, str], reading: _Reading) -> list[_Given]:
    """What `CAMERA_<NAME>` gives."""
    given: list[_Given] = []
    for key, text in environ.items():
        match = _SHARED_KEY.fullmatch(key)
        if match is None or _is_foreign(key, text):
            continue
        name = match[1] or "CAMERA"
        row = BY_NAME.get(name.lower()) if name == name.upper() else None
        if row is not None and row.is_shared:
            given.append(_Given(row, key, _value(text, row), is_flag=False))
        else:
            known = [variable for row in SETTINGS if row.is_shared for variable in row.variables]
            reading.warnings.append(f"{_unquoted(key)} is not known here and does nothing{_guess(key, known)}")
    return _ordered(given, reading)


def _is_foreign(key: str, text: str) -> bool:
    """Whether Docker or Kubernetes put it there; they make `CAMERA_PORT=tcp://10.0.0.1:80` too."""
    return _FOREIGN.fullmatch(key) is not None or (key == "CAMERA_PORT" and _FOREIGN_PORT.fullmatch(text) is not None)


def _read_of_camera(environ: Mapping[str, str], number: int, reading: _Reading) -> list[_Given]:
    """What `cam<N>_<name>` gives to the camera with this number."""
    given: list[_Given] = []
    for key, text in environ.items():
        match = _CAMERA_KEY.fullmatch(key)
        if match is None or int(match[1]) != number:
            continue
        row = BY_NAME.get(match[2].lower())
        if row is not None and row.is_per_camera:
            given.append(_Given(row, key, _value(text, row), is_flag=False))
        else:
            known = [f"cam{number}_{name}" for row in SETTINGS if row.is_per_camera for name in row.names]
            reading.warnings.append(f"{_unquoted(key)} is not known here and does nothing{_guess(key, known)}")
    return _ordered(given, reading)


def _ordered(given: Sequence[_Given], reading: _Reading) -> list[_Given]:
    """Those that are set, in the table's order; canonical names before aliases, `cam0_` before `CAM0_`."""

    def rank(each: _Given) -> tuple[int, int, int, str]:
        name = each.key.lower().partition("_")[2] or "camera"
        # The longer key first: CAMERA_CAMERA before the bare CAMERA.
        return SETTINGS.index(each.row), each.row.names.index(name), -len(each.key), each.key.swapcase()

    ordered = sorted((each for each in given if each.text), key=rank)
    reading.warn_conflicts(ordered)
    return ordered


def _read_number(environ: Mapping[str, str], reading: _Reading) -> int | None:
    """Which N's variables count; None where that cannot be known."""
    if "camera" in reading.refused and "camera" not in reading.values:
        return None
    choice = reading.values.get("camera", 0)
    if choice == PATTERN:
        return 0
    if isinstance(choice, int):
        return choice
    matches = [match for key in environ if (match := _CAMERA_KEY.fullmatch(key)) is not None]
    ids = [match for match in matches if match[2].lower() == "id"]
    numbers = [int(match[1]) for match in ids if _is_id(environ[match[0]], choice)]
    if numbers:
        return min(numbers)
    if is_elsewhere(choice):
        return 0
    if matches:
        reading.warnings.append("no cam<N>_ variable is used: the camera is given by an id, and no cam<N>_id has it")
    return None


def _is_id(text: str, choice: str) -> bool:
    row = BY_NAME["id"]
    try:
        return row.parse(_value(text, row)) == choice
    except ValueError:  # that camera's own instance says so
        return False


def _settle(reading: _Reading, command: Command, number: int | None) -> Settings:
    """Fill in the defaults and what follows from other settings."""
    values = {row.name: reading.values.get(row.name, row.default) for row in SETTINGS}
    for side in ("width", "height"):
        if f"snapshot_{side}" not in reading.values:
            values[f"snapshot_{side}"] = values[side]
            reading.origins[f"snapshot_{side}"] = THE_STREAMS
    choice, camera_id = values.pop("camera"), values.pop("id")
    if isinstance(choice, int) and camera_id is not None:
        choice = camera_id
        reading.origins["camera"] = reading.origins["id"]
    is_remote = isinstance(choice, str) and choice != PATTERN and is_elsewhere(choice)
    fields: dict[str, Any] = {row.attribute or row.name: values[row.name] for row in SETTINGS if row.name in values}
    return Settings(
        command=command,
        camera_number=number,
        camera_id=choice if isinstance(choice, str) and choice != PATTERN and not is_remote else None,
        url=choice if is_remote else None,
        is_pattern=choice == PATTERN,
        warnings=tuple(reading.warnings),
        origins=MappingProxyType({row.name: reading.origins.get(row.name, "default") for row in SETTINGS}),
        **fields,
    )


def _value(text: str, row: Setting) -> str:
    """A variable's value without what readers of env files leave in it."""
    return text.strip() if row.secret else COMMENT.sub("", text).strip()


# -- Saying


def describe(settings: Settings) -> str:
    """The effective configuration, `name = value  (from where)`, one line for each; secrets as `set` or `not set`."""
    return "\n".join(_description(settings))


def _description(settings: Settings) -> Iterator[str]:
    for row in SETTINGS:
        if row.name == "id":  # `camera` says it where it counts
            continue
        value = getattr(settings, row.attribute or row.name)
        if row.secret:
            said = "not set" if value is None else "set"
        elif row.name == "port" and settings.camera_number is not None:
            said = str(settings.port_for(settings.camera_number))
        else:
            said = row.default_text if value is None and row.default_text else say(value)
            said = without_secrets(said)
        yield f"{row.name} = {said}  ({settings.origins.get(row.name, 'default')})"


def _shown(text: str) -> str:
    """A bad value in one line of a message, without the password that a URL may carry."""
    text = without_secrets(text)
    return repr(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")


def _unquoted(key: str) -> str:
    """A key, which is plain but for accidents."""
    return key if key.isprintable() and len(key) <= _LONGEST_SHOWN else _shown(key)


def _guess(key: str, known: Sequence[str]) -> str:
    """Behind a key that nobody knows: the one that was probably meant."""

    def stem(each: str) -> str:
        # Prefixes alike would make all names alike.
        return re.sub(r"^(camera_|cam[0-9]+_|-+)", "", each.lower())

    by_stem = {stem(each): each for each in known}
    close = difflib.get_close_matches(stem(key), by_stem, 1, 0.75)
    return f"; did you mean {by_stem[close[0]]}?" if close else ""
