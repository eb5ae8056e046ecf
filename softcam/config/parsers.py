"""The rules for values: each parser takes text and gives a value, or raises ValueError with the rule as its message.

The rule completes "wants …" and never repeats the text, which may be a secret. Knows no setting; runs on any thread.
"""

import ipaddress
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

Parser = Callable[[str], object]

PATTERN: Final = "pattern"
HIGHEST_CAMERA: Final = 99  # no machine has more, and the ports stay clear of those that the kernel gives out

COMMENT: Final = re.compile(r"(^|\s)#.*", re.DOTALL)  # what readers of env files take for a comment, or leave there
# No sign, exponent, underscore or foreign digit, all of which int() and float() take; and too short to overflow.
_WHOLE: Final = re.compile(r"[0-9]{1,18}")
_DECIMAL: Final = re.compile(r"[0-9]{1,18}(\.[0-9]{0,30})?|\.[0-9]{1,30}")
_LIKE_NUMBER: Final = re.compile(r"[+-]*[0-9.]+")  # no id looks so
_LABEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}")
_URL: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")
_WEB_ADDRESS: Final = re.compile(r"([A-Za-z0-9._~:/?#\[\]@!$&()*+,;=-]|%[0-9A-Fa-f]{2})+")  # no quotes, for one
_URL_SCHEMES: Final = ("rtsp", "rtsps", "http", "https", "rtmp", "rtmps", "srt", "rtp", "udp", "tcp")
_MEDIA_FILE: Final = re.compile(
    r".*\.(264|265|3gp|avi|flv|gif|h264|h265|hevc|jpe?g|m2ts|m3u8|m4v|mjpe?g|mkv|mov|mp4|mpd|mpe?g|mts|ogv|png|sdp"
    r"|ts|webm|wmv|y4m|yuv)",
    re.IGNORECASE | re.DOTALL,
)


def whole(low: int, high: int, *, is_even: bool = False) -> Callable[[str], int]:
    rule = f"{'an even' if is_even else 'a'} whole number from {low} to {high}"

    def parse(text: str) -> int:
        value = int(text) if _WHOLE.fullmatch(text) else -1
        if not low <= value <= high or (is_even and value % 2):
            raise ValueError(rule)
        return value

    return parse


def decimal(low: float, high: float, of_what: str = "") -> Parser:
    rule = f"a number {of_what}from {low:g} to {high:.15g}"

    def parse(text: str) -> float:
        value = float(text) if _DECIMAL.fullmatch(text) else -1.0
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


def log_level(text: str) -> str:
    level = text.upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError("DEBUG, INFO, WARNING or ERROR")
    return level


def _is_plain(text: str, longest: int) -> bool:
    return 0 < len(text) <= longest and text.isprintable() and text == text.strip()


def plain_text(rule: str) -> Parser:
    def parse(text: str) -> str:
        if not _is_plain(text, 4096):  # Linux' PATH_MAX; a name is far below
            raise ValueError(rule)
        return text

    return parse


def host(text: str) -> str:
    if _is_plain(text, 253) and text.isascii() and " " not in text:  # 253: the longest name in the DNS
        try:
            ipaddress.ip_address(text)
        except ValueError:
            labels = text.removesuffix(".").split(".")
            # All digits at the end is an address gone wrong ("300.1.1.1"), never a name.
            if all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit():
                return text
        else:
            return text
    raise ValueError("an IP address or a host name")


def host_names(text: str) -> tuple[str, ...]:
    """`cam.example.org, pi.example.org`, in small letters."""
    try:
        return tuple(host(name.strip()).lower().removesuffix(".") for name in text.split(","))
    except ValueError as error:
        raise ValueError("host names, separated by commas, as in cam.example.org") from error


def address(*schemes: str) -> Callable[[str], str]:
    """A URL of one of these schemes, with a host."""
    rule = f"an address that begins with {' or '.join(f'{scheme}://' for scheme in schemes)}, with a host"

    def parse(text: str) -> str:
        if not _is_plain(text, 2048) or " " in text:
            raise ValueError(rule)
        try:
            parts = urlsplit(text)
            has_host = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError as error:  # a port that is none, an IPv6 address without its end
            raise ValueError(rule) from error
        if parts.scheme not in schemes or not has_host:
            raise ValueError(rule)
        return text

    return parse


def web_address(text: str) -> str:
    """A URL that browsers are given, written as RFC 3986 wants it, so that it can stand in a page and in a policy."""
    rule = "an address that begins with http:// or https://, with a host, and no other characters than addresses have"
    try:
        name = urlsplit(address("http", "https")(text)).hostname or ""
        host(name)
    except ValueError as error:
        raise ValueError(rule) from error
    if not _WEB_ADDRESS.fullmatch(text):
        raise ValueError(rule)
    return text


def neighbours(text: str) -> tuple[tuple[str, int | str], ...]:
    """`Door=18082, Garden=https://garden.example/`: names, and for each a port of this machine or an address."""
    found: list[tuple[str, int | str]] = []
    for part in text.split(","):
        name, has_target, target = (piece.strip() for piece in part.partition("="))
        try:
            where = whole(1, 65535)(target) if _WHOLE.fullmatch(target) else web_address(target)
        except ValueError:
            has_target = ""
        if not has_target or not _is_plain(name, 40):
            raise ValueError("name=port or name=address, several separated by commas, as in Door=18082, Garden=18083")
        found.append((name, where))
    return tuple(found)


def function_name(text: str) -> str:
    """`package.module:function`."""
    module, _, name = text.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise ValueError("module:function, as in my_hooks:stamp")
    return text


def api_key(text: str) -> str:
    # A header's value loses its outer blanks, so a key that has some would never match.
    if not _is_plain(text, 512) or not text.isascii() or COMMENT.search(text):
        raise ValueError("1 to 512 printable ASCII characters, no blank at an end, no # at the start or after a blank")
    return text


def camera_choice(*, has_numbers: bool) -> Parser:
    """A number where `has_numbers`, an id of libcamera's, `pattern`, or what PyAV opens; `is_elsewhere` tells that."""
    number = f"a number from 0 to {HIGHEST_CAMERA}, " if has_numbers else ""
    rule = f"{number}an id that --list-cameras prints, {PATTERN}, or a URL, a file or a device"
    url_rule = f"{rule}; a URL has a host, and begins with {', '.join(f'{name}://' for name in _URL_SCHEMES)}"

    def parse(text: str) -> int | str:
        if text.lower() == PATTERN:
            return PATTERN
        if _URL.match(text):
            scheme, _, rest = text.partition(":")
            try:
                return address(*_URL_SCHEMES)(f"{scheme.lower()}:{rest}")  # FFmpeg knows no capitals
            except ValueError as error:
                raise ValueError(url_rule) from error
        if is_elsewhere(text):
            if not _is_plain(text, 4096) or text.endswith("/"):
                raise ValueError(rule)
            return text
        if not _is_plain(text, 255):
            raise ValueError(rule)
        if _LIKE_NUMBER.fullmatch(text):
            if not has_numbers or not _WHOLE.fullmatch(text) or int(text) > HIGHEST_CAMERA:
                raise ValueError(rule)
            return int(text)
        return text

    return parse


def is_elsewhere(text: str) -> bool:
    """Tell `/dev/video0`, `clip.mp4` and `rtsp://…` from the ids that libcamera makes.

    An id is a path in the device tree, which always begins with `/base/`; or an ACPI path (`\\_SB_.PCI0.LNK1`); or a
    name (`Virtual0`, `platform/vimc.0 Sensor B`). So dots and slashes say nothing, and the known endings have to.
    """
    if _URL.match(text) or _MEDIA_FILE.fullmatch(text):
        return True
    return text.startswith(("/", "~", "./", "../")) and not text.startswith("/base/")
