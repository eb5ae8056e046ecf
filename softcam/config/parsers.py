"""Parsers for values: each converts a text, or raises ValueError with its rule as the message.

The rule follows "must be" and does not repeat the text, which may be a secret. Independent of the settings. Pure
functions.
"""

import contextlib
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

Parser = Callable[[str], object]

PATTERN: Final = "pattern"
MAX_NAME_LENGTH: Final = 64  # characters
HIGHEST_CAMERA: Final = 99  # no machine has more, and the ports stay below those that the kernel assigns

COMMENT: Final = re.compile(r"(^|\s)#.*", re.DOTALL)  # parsers of env files remove it, or leave it in the value
COMMENT_AFTER_TEXT: Final = re.compile(r"(^|\s)#(\s.*|$)", re.DOTALL)
# No sign, exponent, underscore or non-ASCII digit, which int() and float() accept; too short to overflow.
_INTEGER: Final = re.compile(r"[0-9]{1,18}")
_NUMBER: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{0,30})?|\.[0-9]{1,30}")
_LIKE_NUMBER: Final = re.compile(r"[+-]*[0-9.]+")  # an id does not look like this
_JOINER: Final = re.compile("[\u200c\u200d]")
_LABEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_SOCKET: Final = re.compile(r"unixfd:/.*[^/]")  # of GStreamer's unixfdsink
_WEB_URL: Final = re.compile(r"([A-Za-z0-9._~:/?#\[\]@!$&()*+,;=-]|%[0-9A-Fa-f]{2})+")  # no quotes, for one
_SUBSTREAM: Final = re.compile(r"([0-9]+)x([0-9]+)@([0-9.]+)")
_URL_SCHEMES: Final = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "rtp", "udp", "tcp")
_MEDIA_FILE: Final = re.compile(
    r".*\.(264|265|3gp|avi|flv|gif|h264|h265|hevc|jpe?g|m2ts|m3u8|m4v|mjpe?g|mkv|mov|mp4|mpd|mpe?g|mts|ogv|png|sdp"
    r"|ts|webm|wmv|y4m|yuv)",
    re.IGNORECASE | re.DOTALL,
)


def integer(low: int, high: int, *, is_even: bool = False) -> Callable[[str], int]:
    rule = f"an {'even ' if is_even else ''}integer from {low} to {high}"

    def parse(text: str) -> int:
        value = int(text) if _INTEGER.fullmatch(text) else -1
        if not low <= value <= high or (is_even and value % 2):
            raise ValueError(rule)
        return value

    return parse


def integer_or(word: str, low: int, high: int) -> Callable[[str], int | None]:
    """An integer, or None for `word`."""
    rule = f"{word}, or an integer from {low} to {high}"
    number_of = integer(low, high)

    def parse(text: str) -> int | None:
        if text.lower() == word:
            return None
        try:
            return number_of(text)
        except ValueError as error:
            raise ValueError(rule) from error

    return parse


def number(low: float, high: float, unit: str = "") -> Callable[[str], float]:
    rule = f"a number {unit and f'of {unit} '}from {low:g} to {high:.15g}"

    def parse(text: str) -> float:
        value = float(text) if _NUMBER.fullmatch(text) else -1.0
        if not low <= value <= high:
            raise ValueError(rule)
        return value

    return parse


def boolean(text: str) -> bool:
    match text.lower():
        case "1" | "true" | "yes" | "on":
            return True
        case "0" | "false" | "no" | "off":
            return False
    raise ValueError("1 or 0, true or false, yes or no, on or off")


def one_of(*words: str) -> Callable[[str], str]:
    rule = " or ".join(words)

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(rule)
        return text.lower()

    return parse


def log_level(text: str) -> str:
    level = text.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("DEBUG, INFO, WARNING or ERROR")
    return level


def _is_plain(text: str, max_length: int) -> bool:
    return 0 < len(text) <= max_length and text.isprintable() and text == text.strip()


def is_display_name(text: str, max_length: int) -> bool:
    """Whether it is a name for people in any script, in one line.

    Without control characters, and without those that change the direction of the text around it. Persian, Indic
    scripts and emoji need joiners, which are not printable characters to Python.
    """
    return _is_plain(_JOINER.sub("", text), max_length) and len(text) <= max_length


def display_name(text: str) -> str:
    if not is_display_name(text, MAX_NAME_LENGTH):
        raise ValueError(f"1 to {MAX_NAME_LENGTH} printable characters in one line, no blank at either end")
    return text


def plain_text(rule: str) -> Parser:
    def parse(text: str) -> str:
        if not _is_plain(text, 4096):  # PATH_MAX of Linux; names are far shorter
            raise ValueError(rule)
        return text

    return parse


def host(text: str) -> str:
    if _is_plain(text, 253) and text.isascii() and " " not in text:  # 253: the limit of the DNS
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(text)
            return text
        labels = text.removesuffix(".").split(".")
        # A last label of digits is an invalid address (300.1.1.1), never a name.
        if all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit():
            return text
    raise ValueError("an IP address or a host name")


def host_names(text: str) -> tuple[str, ...]:
    """`cam.example.org, pi.example.org`, in lower case."""
    try:
        return tuple(host(name.strip()).lower().removesuffix(".") for name in text.split(","))
    except ValueError as error:
        raise ValueError("a comma-separated list of host names, such as cam.example.org") from error


def origins(text: str) -> tuple[str, ...]:
    """`http://localhost:3000, https://dash.example`, each as browsers write it in `Origin`."""
    try:
        return tuple(_origin(each.strip()) for each in text.split(","))
    except ValueError as error:
        raise ValueError(
            "a comma-separated list of origins, each http:// or https://, a host and a port if it is not the default,"
            " such as http://localhost:3000; without a path, and * is not one"
        ) from error


def _origin(text: str) -> str:
    parts = urlsplit(web_url(text.removesuffix("/")))
    if parts.path or "@" in parts.netloc or any(mark in text for mark in "?#"):
        raise ValueError("an origin")
    name = (parts.hostname or "").lower()
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(name)
        name = f"[{address}]" if address.version == 6 else name
    is_default = parts.port in (None, 443 if parts.scheme == "https" else 80)
    return f"{parts.scheme}://{name}" if is_default else f"{parts.scheme}://{name}:{parts.port}"


def url(*schemes: str) -> Callable[[str], str]:
    """A URL with one of these schemes and a host."""
    rule = f"a URL with a host that starts with {' or '.join(f'{scheme}://' for scheme in schemes)}"

    def parse(text: str) -> str:
        try:
            parts = urlsplit(text)
            is_valid = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        except ValueError:  # an invalid port, an incomplete IPv6 address
            is_valid = False
        if not is_valid or not _is_plain(text, 2048) or " " in text:
            raise ValueError(rule)
        return text

    return parse


def web_url(text: str) -> str:
    """A URL for browsers, restricted to the characters of RFC 3986: it appears in pages and in a content policy."""
    rule = "a URL with a host that starts with http:// or https://, without characters that URLs do not contain"
    try:
        host(urlsplit(url("http", "https")(text)).hostname or "")
    except ValueError as error:
        raise ValueError(rule) from error
    if not _WEB_URL.fullmatch(text):
        raise ValueError(rule)
    return text


def camera_list(text: str) -> tuple[tuple[str, int | str], ...]:
    """`Door=18082, Garden=https://garden.example/`: names, each with a port of this machine or a URL. `off` is none."""
    if text.lower() in ("", "off"):
        return ()
    found: list[tuple[str, int | str]] = []
    for part in text.split(","):
        name, has_target, target = (piece.strip() for piece in part.partition("="))
        try:
            where = integer(1, 65535)(target) if _INTEGER.fullmatch(target) else web_url(target)
        except ValueError:
            has_target = ""
        if not has_target or not _is_plain(name, 40):
            raise ValueError(
                "off, or a comma-separated list of name=port or name=URL, such as Door=18082, Garden=18083"
            )
        found.append((name, where))
    return tuple(found)


def autostart(text: str) -> str:
    """What is recorded after every start."""
    kind, colon, interval = text.lower().partition(":")
    if kind in ("off", "video", "timelapse") and not colon:
        return kind
    with contextlib.suppress(ValueError):
        if kind == "timelapse":
            return f"timelapse:{number(0.5, 86_400)(interval):g}"
    raise ValueError("off, video, timelapse or timelapse:SECONDS, which are from 0.5 to 86400")


@dataclass(frozen=True, slots=True)
class Substream:
    """A second, smaller stream: its largest size in pixels, and its highest frame rate."""

    width: int
    height: int
    fps: float

    def __str__(self) -> str:
        return f"{self.width}x{self.height}@{self.fps:g}"


def substream(text: str) -> Substream | None:
    """`640x360@5`; None for `off`."""
    if text.lower() == "off":
        return None
    match = _SUBSTREAM.fullmatch(text)
    side = integer(64, 1920, is_even=True)
    if match is not None:
        with contextlib.suppress(ValueError):
            return Substream(side(match[1]), side(match[2]), number(0.5, 60)(match[3]))
    raise ValueError("off, or WIDTHxHEIGHT@FPS with even sides from 64 to 1920 and 0.5 to 60 fps, such as 640x360@5")


def function_name(text: str) -> str:
    """`package.module:function`."""
    module, _, name = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError("module:function, such as my_hooks:stamp")
    return text


def api_key(text: str) -> str:
    # Blanks around a header value are removed, so a key with such blanks would never match.
    if not _is_plain(text, 512) or not text.isascii() or COMMENT.search(text):
        raise ValueError(
            "1 to 512 printable ASCII characters, no blank at either end, no # at the start or after a blank"
        )
    return text


def camera_choice(*, has_numbers: bool) -> Parser:
    """A number if `has_numbers`, an id of libcamera, `pattern`, or another source (see `is_external`)."""
    numbers = f"a number from 0 to {HIGHEST_CAMERA}, " if has_numbers else ""
    rule = f"{numbers}an id printed by --list-cameras, {PATTERN}, or a URL, a file or a device"
    url_rule = f"{rule}; a URL has a host and starts with one of {', '.join(f'{name}://' for name in _URL_SCHEMES)}, "
    url_rule += "and the socket of a GStreamer pipeline with unixfd:/"

    def parse(text: str) -> int | str:
        if text.lower() == PATTERN:
            return PATTERN
        if text.startswith("unixfd:"):
            if _SOCKET.fullmatch(text) and _is_plain(text, 114):  # 107 bytes of path, as Linux allows
                return text
            raise ValueError(url_rule)
        if _URL.match(text):
            scheme, _, rest = text.partition(":")
            try:
                return url(*_URL_SCHEMES)(f"{scheme.lower()}:{rest}")  # FFmpeg expects lower case
            except ValueError as error:
                raise ValueError(url_rule) from error
        if _LIKE_NUMBER.fullmatch(text):
            if has_numbers and _INTEGER.fullmatch(text) and int(text) <= HIGHEST_CAMERA:
                return int(text)
        elif _is_plain(text, 4096 if is_external(text) else 255) and not (is_external(text) and text.endswith("/")):
            return text
        raise ValueError(rule)

    return parse


def is_external(text: str) -> bool:
    """Whether a text is a URL, a file or a device, such as `/dev/video0` and `clip.mp4`, and not an id of libcamera.

    An id is a path in the device tree, which always starts with `/base/`; or an ACPI path (`\\_SB_.PCI0.LNK1`); or a
    name (`Virtual0`, `platform/vimc.0 Sensor B`). So dots and slashes do not tell them apart, but known suffixes do.
    """
    if _URL.match(text) or _MEDIA_FILE.fullmatch(text):
        return True
    return text.startswith(("/", "~", "./", "../")) and not text.startswith("/base/")
