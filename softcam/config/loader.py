"""Reads flags and environment into one frozen `Settings`, and reports all errors at once, warnings among them.

No logging, no files, no environment except the one passed in; no thread.

- A flag overrides `cam<N>_<name>`, which overrides `CAMERA_<NAME>`, which overrides the default. Every value is
  checked, also an overridden one: it would fail on the day when the overriding one is removed.
- N is the number given to `--camera`; 0 for the pattern camera; for an id, the N whose `cam<N>_id` has that value; for
  a URL, a file or a device likewise, or else 0. `cam<N>_id=pattern` makes camera N the pattern camera, and
  `cam<N>_id=rtsp://…` that source.
- An empty variable counts as not set. An empty value of a flag is parsed.
- Blanks around the value of a variable, and a comment after it (` # …`), are removed: the env file parsers of systemd
  and Docker leave comments in the value. Not in a secret, which is rejected instead: cutting it would weaken it
  silently.
- Width and height of a snapshot default to those of the stream, independently, whatever aspect ratio that gives.
- An unknown variable with our prefix is a warning and never an error, since other programs may use `CAMERA_`. Ignored
  without a warning: what Docker links and Kubernetes services named "camera" set in every container (`_is_foreign`),
  variables of other cameras' numbers, and prefixes in another spelling (`camera_`, `CAMERAS_`).
"""

import contextlib
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from softcam import __version__
from softcam.config.parsers import COMMENT, COMMENT_AFTER_TEXT, PATTERN, is_external
from softcam.config.schema import (
    BY_FLAG,
    BY_NAME,
    COMMANDS,
    FIRST_PORT,
    JSON_FLAG,
    KNOWN_FLAGS,
    SAME_AS_STREAM,
    SETTINGS,
    Command,
    Setting,
    help_text,
)
from softcam.config.settings import Settings
from softcam.errors import EXIT_OK, ConfigurationError
from softcam.runtime.redact import MIN_SECRET, without_secrets

_MAX_SHOWN: Final = 100  # characters of an invalid value in a message
_FOREIGN: Final = re.compile(r"CAMERA_(SERVICE_(HOST|PORT)\w*|PORT_[0-9]+_(TCP|UDP|SCTP)\w*|ENV_\w+)")
_FOREIGN_VALUES: Final = {
    "CAMERA_PORT": re.compile(r"(tcp|udp|sctp)://.*"),  # `tcp://10.0.0.1:80`
    "CAMERA_NAME": re.compile(r"/[^/]+/camera"),  # `/web/camera`: this container, and the alias of the linked one
}
_SHARED_KEY: Final = re.compile(r"CAMERA(?:_(.+))?")
_CAMERA_KEY: Final = re.compile(r"cam(0|[1-9][0-9]?)_(.+)", re.IGNORECASE)


class _RawValue(NamedTuple):
    row: Setting
    key: str  # as written by the user
    text: str
    is_flag: bool


class _Loader:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.origins: dict[str, str] = {}
        self.rejected: set[str] = set()  # names of settings with an invalid value
        self.messages: list[str] = []
        self.has_invalid_flag = False
        self.warnings: list[str] = []

    def reject(self, message: str, *, is_flag: bool = True) -> None:
        self.messages.append(message)
        self.has_invalid_flag |= is_flag

    def apply(self, raw_values: Iterable[_RawValue]) -> None:
        """Parse values, and use each unless its setting already has one; the last of a repeated flag is used."""
        for row, key, text, is_flag in raw_values:
            try:
                value = row.parse(text)
            except ValueError as error:
                shown = "(not shown)" if row.secret else _quoted(text)
                self.rejected.add(row.name)
                self.reject(f"{key} {shown}: must be {error}", is_flag=is_flag)
                continue
            if is_flag or row.name not in self.values:
                self.values[row.name] = value
                self.origins[row.name] = key


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Settings:
    """Read flags (without the program's name) and environment.

    Raises ConfigurationError with all errors, and SystemExit(0) after printing for `--help` and `--version`.
    """
    loader = _Loader()
    values, commands = _read_flags(argv, loader)
    loader.apply(values)
    shared = _read_variables(
        environ,
        [key for key, text in environ.items() if _SHARED_KEY.fullmatch(key) and not _is_foreign(key, text)],
        {variable: row for row in SETTINGS if row.is_shared for variable in row.variables},
        loader,
    )
    loader.apply(each for each in shared if each.row.name == "camera")
    as_json = JSON_FLAG in commands
    commands = [flag for flag in commands if flag != JSON_FLAG]
    if as_json and commands != ["--diagnose"]:
        loader.reject(f"{JSON_FLAG}: must be used with --diagnose")
    if len(commands) > 1:
        loader.reject(f"{' and '.join(commands)}: must not be combined")

    number = _camera_number(environ, loader)
    if number is not None:
        keys = [key for key in environ if (match := _CAMERA_KEY.fullmatch(key)) and int(match[1]) == number]
        known = {f"cam{number}_{name}": row for row in SETTINGS if row.is_per_camera for name in row.names}
        loader.apply(_read_variables(environ, keys, known, loader))
    loader.apply(each for each in shared if each.row.name != "camera")
    if loader.values.get("view_key") is not None and loader.values["view_key"] == loader.values.get("api_key"):
        keys = [loader.origins[name] for name in ("view_key", "api_key")]
        loader.reject(f"{keys[0]}: must differ from {keys[1]}", is_flag=any(key.startswith("-") for key in keys))
    if loader.messages:
        raise ConfigurationError([*loader.messages, *loader.warnings], from_flags=loader.has_invalid_flag)
    loader.values.setdefault("state_dir", _state_dir(environ))
    settings = _resolve(loader, COMMANDS[commands[0]] if commands else "run", number, _known_cameras(environ))
    settings = replace(settings, as_json=as_json)
    if "neighbours" in loader.values:
        return settings
    own = () if number is None else (number,)
    return replace(settings, neighbours=settings.cameras_among({*settings.known_cameras, *own}))


def _known_cameras(environ: Mapping[str, str]) -> dict[int, tuple[str, int | None]]:
    """Name and port of each camera with `cam<N>_` variables; no port if it is disabled or has an invalid value."""
    keys = {(int(match[1]), match[2].lower()): key for key in environ if (match := _CAMERA_KEY.fullmatch(key))}
    found: dict[int, tuple[str, int | None]] = {}
    for number in {number for number, _ in keys}:
        defaults = {"name": f"Camera {number}", "enabled": "on", "port": str(FIRST_PORT + number)}
        values: dict[str, object] = {}
        for name, default in defaults.items():
            text = _value(environ.get(keys.get((number, name), ""), ""), BY_NAME[name])
            with contextlib.suppress(ValueError):  # reported by the instance of that camera
                values[name] = BY_NAME[name].parse(text or default)
        port = values.get("port") if values.get("enabled") else None
        found[number] = str(values.get("name", defaults["name"])), port if isinstance(port, int) else None
    return found


def _state_dir(environ: Mapping[str, str]) -> str | None:
    """The state directory of a service, or that of a user; None if neither is known."""
    service_dir = environ.get("STATE_DIRECTORY", "").partition(":")[0]  # systemd separates several folders by colons
    if service_dir:
        return service_dir
    folder = environ.get("XDG_STATE_HOME", "")
    if not folder.startswith("/"):  # the specification demands that a relative one is ignored
        home = environ.get("HOME", "")
        folder = f"{home}/.local/state" if home.startswith("/") else ""
    return f"{folder}/soft-stream" if folder else None


def _read_flags(argv: Sequence[str], loader: _Loader) -> tuple[list[_RawValue], list[str]]:
    values: list[_RawValue] = []
    commands: list[str] = []
    words = list(reversed(argv))
    may_be_secret = False  # the word may belong to the secret before it
    while words:
        word = words.pop()
        flag, has_text, text = word.partition("=")
        if not flag.startswith("-"):
            # A key that contains a blank and was not quoted arrives in several words.
            shown = "argument (not shown)" if may_be_secret else _quoted(word)
            loader.reject(f"{shown}: unexpected argument")
            continue
        row = BY_FLAG.get(flag)
        may_be_secret = row is not None and row.secret
        if row is None and flag not in KNOWN_FLAGS:
            loader.reject(f"{_plain_or_quoted(flag)}: unknown flag{_suggestion(flag, KNOWN_FLAGS)}")
            while words and not words[-1].startswith("-"):
                words.pop()  # its value, which is not an error by itself, and may be the secret of a misspelt flag
        elif row is None or not row.metavar:
            if has_text:
                loader.reject(f"{flag}: must not have a value")
            elif row is not None:
                values.append(_RawValue(row, flag, "on" if flag in row.flags else "off", is_flag=True))
            elif flag not in COMMANDS and flag != JSON_FLAG:
                print(f"soft_stream.py {__version__}" if flag == "--version" else help_text())
                raise SystemExit(EXIT_OK)
            elif flag not in commands:
                commands.append(flag)
        elif has_text:
            values.append(_RawValue(row, flag, text, is_flag=True))
        elif words and _is_value(words[-1], row):
            values.append(_RawValue(row, flag, words.pop(), is_flag=True))
        else:
            loader.reject(f"{flag}: must have a value")
    return values, commands


def _is_value(word: str, row: Setting) -> bool:
    """Whether the word after a flag is its value; a key may start with a dash, and must not be reported as a flag."""
    if row.secret:
        return word.partition("=")[0] not in KNOWN_FLAGS
    return not word.startswith("-") or word[1:2].isdigit()


def _read_variables(
    environ: Mapping[str, str], keys: Sequence[str], known: Mapping[str, Setting], loader: _Loader
) -> list[_RawValue]:
    """The values of `keys` that are set, in the order of `known`; `cam0_` before `CAM0_`.

    Warns of unknown variables, and if one setting has two names with different values, of which the first is used.
    """
    order = list(known)
    ranked: list[tuple[int, str, _RawValue]] = []
    for key in keys:
        name = key if key in known else key.lower()
        if name not in known:
            loader.warnings.append(f"{_plain_or_quoted(key)}: unknown variable, ignored{_suggestion(key, order)}")
        elif text := _value(environ[key], known[name]):
            ranked.append((order.index(name), key.swapcase(), _RawValue(known[name], key, text, is_flag=False)))
    values = [value for _, _, value in sorted(ranked)]
    first: dict[str, _RawValue] = {}
    for value in values:
        used = first.setdefault(value.row.name, value)
        if used.text != value.text:
            loader.warnings.append(f"{value.key}: ignored, overridden by {used.key}, which is the same setting")
    return values


def _is_foreign(key: str, text: str) -> bool:
    """Whether Docker or Kubernetes set the variable; they set some of ours, too, to other values."""
    values = _FOREIGN_VALUES.get(key)
    return _FOREIGN.fullmatch(key) is not None or (values is not None and values.fullmatch(text) is not None)


def _camera_number(environ: Mapping[str, str], loader: _Loader) -> int | None:
    """The N whose variables apply; None if it is not known."""
    if "camera" in loader.rejected and "camera" not in loader.values:
        return None
    choice = loader.values.get("camera", 0)
    if choice == PATTERN:
        return 0
    if isinstance(choice, int):
        return choice
    matches = [match for key in environ if (match := _CAMERA_KEY.fullmatch(key)) is not None]
    ids = [match for match in matches if match[2].lower() == "id"]
    numbers = [int(match[1]) for match in ids if _is_id(environ[match[0]], choice)]
    if numbers:
        return min(numbers)
    if is_external(choice):
        return 0
    if matches:
        loader.warnings.append("cam<N>_ variables ignored: no cam<N>_id has the id of the selected camera")
    return None


def _is_id(text: str, choice: str) -> bool:
    row = BY_NAME["id"]
    try:
        return row.parse(_value(text, row)) == choice
    except ValueError:  # reported by the instance of that camera
        return False


def _resolve(
    loader: _Loader, command: Command, number: int | None, known_cameras: Mapping[int, tuple[str, int | None]]
) -> Settings:
    values = {row.name: loader.values.get(row.name, row.default) for row in SETTINGS}
    for side in ("width", "height"):
        if f"snapshot_{side}" not in loader.values:
            values[f"snapshot_{side}"] = values[side]
            loader.origins[f"snapshot_{side}"] = SAME_AS_STREAM
    if values["recordings_autostart"] != "off" and values["recordings"] is None:
        loader.warnings.append("recordings_autostart: ignored, recordings is not set")
    if values["rtsp_host"] is not None and values["rtsp_port"] is None:
        loader.warnings.append("rtsp_host: ignored, rtsp_port is not set")
    for name in ("api_key", "view_key"):
        if values[name] is not None and len(values[name]) < MIN_SECRET:
            rule = f"should have at least {MIN_SECRET} characters, since"
            loader.warnings.append(
                f"{loader.origins[name]}: {rule} a shorter key is easy to guess and not hidden in the log"
            )
    choice, camera_id = values.pop("camera"), values.pop("id")
    if isinstance(choice, int) and camera_id is not None:
        choice = camera_id
        loader.origins["camera"] = loader.origins["id"]
    is_remote = isinstance(choice, str) and choice != PATTERN and is_external(choice)
    fields: dict[str, Any] = {row.attribute or row.name: values[row.name] for row in SETTINGS if row.name in values}
    return Settings(
        command=command,
        camera_number=number,
        camera_id=choice if isinstance(choice, str) and choice != PATTERN and not is_remote else None,
        url=choice if is_remote else None,
        is_pattern=choice == PATTERN,
        warnings=tuple(loader.warnings),
        origins=MappingProxyType({row.name: loader.origins.get(row.name, "default") for row in SETTINGS}),
        known_cameras=MappingProxyType(dict(known_cameras)),
        **fields,
    )


def _value(text: str, row: Setting) -> str:
    """The value of a variable without blanks and comments, which parsers of env files leave in it."""
    if row.secret:
        return text.strip()
    return (COMMENT_AFTER_TEXT if row.is_text else COMMENT).sub("", text).strip()


def _quoted(text: str) -> str:
    """An invalid value in quotes, shortened, and without the password of a URL."""
    text = without_secrets(text)
    return repr(text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…")


def _plain_or_quoted(key: str) -> str:
    return key if key.isprintable() and len(key) <= _MAX_SHOWN else _quoted(key)


def _suggestion(key: str, known: Sequence[str]) -> str:
    """A suffix for the message about an unknown key: the similar known one, if there is one."""

    def stem(each: str) -> str:
        # A common prefix would make all names similar.
        return re.sub(r"^(camera_|cam[0-9]+_|-+)", "", each.lower())

    by_stem = {stem(each): each for each in known}
    close = difflib.get_close_matches(stem(key), by_stem, 1, 0.75)
    return f"; did you mean {by_stem[close[0]]}?" if close else ""
