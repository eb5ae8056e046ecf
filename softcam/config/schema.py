"""The table of settings, and what is printed straight from it: `--help` and the README's table.

A new setting is a row here and a field of `softcam.config.settings.Settings`, and nothing else. No value is read
here. Nothing changes after the import, so any thread may look.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from softcam.config.parsers import (
    PATTERN,
    Parser,
    address,
    api_key,
    boolean,
    camera_choice,
    decimal,
    function_name,
    host,
    host_names,
    log_level,
    neighbours,
    plain_text,
    web_address,
    whole,
)
from softcam.errors import EXIT_BUSY, EXIT_CONFIGURATION, EXIT_MISSING, EXIT_OK, EXIT_STUCK, EXIT_USAGE

Command = Literal["run", "check", "list-cameras"]

FIRST_PORT: Final = 18081  # of camera 0; nginx shows it outside as 8081
_LONGEST_S: Final = 31_536_000  # a year; lock and socket timeouts overflow only far above


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `default` is a value; `default_text` says it where it depends on another setting.

    `aliases` are other names for the variables: `framerate` makes `CAMERA_FRAMERATE` and `cam0_framerate`. A switch has
    no `metavar`, and `off_flags` for its opposite. `attribute` is the field in `Settings`, where it is not `name`.
    """

    group: str
    name: str
    flags: tuple[str, ...]
    default: object
    parse: Parser
    help: str
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    off_flags: tuple[str, ...] = ()
    default_text: str = ""
    attribute: str = ""
    secret: bool = False
    is_shared: bool = True  # has CAMERA_<NAME>
    is_per_camera: bool = True  # has cam<N>_<name>

    @property
    def names(self) -> tuple[str, ...]:
        """What stands behind `CAMERA_` or `cam<N>_`, the canonical one first."""
        return self.name, *self.aliases

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables for all cameras, the canonical one first; `cam<N>_…` where there is none for all."""
        if not self.is_shared:
            return tuple(f"cam<N>_{name}" for name in self.names)
        bare = ("CAMERA",) if self.name == "camera" else ()
        return (*(f"CAMERA_{name.upper()}" for name in self.names), *bare)

    @property
    def shown_default(self) -> str:
        return self.default_text or say(self.default)


_SECONDS: Final = decimal(0, _LONGEST_S, "of seconds ")
_SIDE: Final = whole(64, 8192, is_even=True)  # colour is stored for every second pixel; no sensor is larger
_QUALITY: Final = whole(1, 100)
THE_STREAMS: Final = "the stream's"

SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        "Camera", "camera", ("--camera",), 0, camera_choice(has_numbers=True),
        f"number, id, URL, file, or {PATTERN} for a made-up picture", metavar="CAMERA", is_per_camera=False,
    ),
    Setting(
        "Camera", "id", (), None, camera_choice(has_numbers=False), "id or URL of camera N, for when the numbers move",
        attribute="camera_id", is_shared=False,
    ),
    Setting(
        "Camera", "enabled", ("--enabled",), True, boolean, "whether to use the camera at all; off: the portal alone",
        off_flags=("--disabled",),
    ),
    Setting(
        "Camera", "tuning_file", ("--tuning-file",), None, plain_text("the name or path of a tuning file"),
        "libcamera's tuning file, by name or path; goes before --noir", metavar="FILE",
    ),
    Setting(
        "Camera", "is_noir", ("--noir",), False, boolean, "no infrared filter: take the NoIR tuning of the model",
        off_flags=("--no-noir",), aliases=("noir",),
    ),
    Setting(
        "Camera", "camera_model", ("--camera-model",), None, plain_text("the name of a sensor, such as imx708"),
        "the sensor that --noir tunes for", metavar="MODEL", aliases=("model",), default_text="as the camera says",
    ),
    Setting(
        "Camera", "pattern_faults", ("--pattern-faults",), None, plain_text("the path of a file"),
        "file that tells the pattern camera how to fail, for tests", metavar="FILE",
    ),
    Setting("Server", "host", ("--host",), "127.0.0.1", host, "address to listen on; 0.0.0.0 for all", metavar="HOST"),
    Setting(
        "Server", "port", ("--port",), None, whole(0, 65535), "port to listen on; 0 takes a free one", metavar="PORT",
        default_text=f"{FIRST_PORT} + number",
    ),
    Setting(
        "Server", "api_key", ("--api-key",), None, api_key,
        "what clients must show; better not as a flag, which others can read", metavar="KEY", secret=True,
    ),
    Setting(
        "Server", "view_key", ("--view-key",), None, api_key,
        "a second key, whose owners may look and change nothing", metavar="KEY", secret=True,
    ),
    Setting(
        "Server", "host_names", ("--host-names",), None, host_names,
        "names of the page, for browsers without TLS and key", metavar="NAMES",
        default_text="this machine's own",
    ),
    Setting(
        "Server", "state_dir", ("--state-dir",), None, plain_text("the path of a folder"),
        "folder for controls", metavar="FOLDER",
        default_text="$STATE_DIRECTORY, else $XDG_STATE_HOME/soft-stream",
    ),
    Setting(
        "Server", "max_clients", ("--max-clients",), 200, whole(1, 100_000), "viewers at once; the next gets a 503",
        metavar="COUNT",
    ),
    Setting(
        "Server", "neighbours", ("--neighbours",), None, neighbours,
        "cameras on the page: name=port or URL, …", metavar="LIST",
        default_text="those with cam<N>_",
    ),
    Setting("Stream", "width", ("--width",), 1536, _SIDE, "width of the stream", metavar="PIXELS"),
    Setting("Stream", "height", ("--height",), 864, _SIDE, "height of the stream", metavar="PIXELS"),
    Setting(
        "Stream", "fps", ("--fps",), 20.0, decimal(0.1, 240), "frames in a second", metavar="RATE",
        aliases=("framerate",),
    ),
    Setting("Stream", "quality", ("--quality",), 80, _QUALITY, "JPEG quality of the stream, 1 to 100", metavar="Q"),
    Setting(
        "Stream", "linger", ("--linger",), 5.0, _SECONDS, "how long the camera stays open after the last client",
        metavar="SECONDS", attribute="linger_s",
    ),
    Setting(
        "Stream", "watchdog_timeout", ("--watchdog-timeout",), 10.0, _SECONDS,
        "restart the stream after so long without a frame; 0 is off", metavar="SECONDS", attribute="watchdog_timeout_s",
    ),
    Setting(
        "Snapshots", "snapshot_width", ("--snapshot-width",), None, _SIDE, "width of a snapshot", metavar="PIXELS",
        default_text=THE_STREAMS,
    ),
    Setting(
        "Snapshots", "snapshot_height", ("--snapshot-height",), None, _SIDE, "height of a snapshot", metavar="PIXELS",
        default_text=THE_STREAMS,
    ),
    Setting(
        "Snapshots", "snapshot_quality", ("--snapshot-quality",), 90, _QUALITY, "JPEG quality of a snapshot, 1 to 100",
        metavar="Q",
    ),
    Setting(
        "Autofocus", "autofocus", ("--autofocus",), True, boolean, "focus before streaming and before snapshots",
        off_flags=("--no-autofocus",),
    ),
    Setting(
        "Autofocus", "autofocus_timeout", ("--autofocus-timeout",), 5.0, _SECONDS, "how long focusing may take",
        metavar="SECONDS", attribute="autofocus_timeout_s",
    ),
    Setting(
        "H.264", "rtsp_url", ("--rtsp-url",), None, address("rtsp", "rtsps"),
        "RTSP server to publish H.264 to", metavar="URL",
    ),
    Setting(
        "H.264", "rtsp_autostart", ("--rtsp-autostart",), True, boolean,
        "publish from the start on; off: when asked to",
        off_flags=("--no-rtsp-autostart",),
    ),
    Setting(
        "H.264", "bitrate", ("--bitrate",), 8_000_000, whole(100_000, 100_000_000), "of H.264, in bits a second",
        metavar="BITS",
    ),
    Setting(
        "H.264", "webrtc_url", ("--webrtc-url",), None, web_address,
        "where that server gives WebRTC (WHEP)", metavar="URL",
    ),
    Setting(
        "Recordings", "recordings", ("--recordings",), None, plain_text("the path of a folder"),
        "folder for recordings", metavar="FOLDER",
    ),
    Setting(
        "Recordings", "recordings_max_bytes", ("--recordings-max-bytes",), None, whole(10_000_000, 10**15),
        "how much they may fill; the oldest go", metavar="BYTES", default_text="until the disk is full",
    ),
    Setting(
        "Recordings", "recordings_preroll", ("--recordings-preroll",), 0.0, decimal(0, 60, "of seconds "),
        "from before a recording; keeps the camera open", metavar="SECONDS",
        attribute="recordings_preroll_s",
    ),
    Setting(
        "Hooks", "hook", ("--hook",), None, function_name,
        "function that gets each frame and may change it", metavar="MOD:FUNC",
    ),
    Setting(
        "Logging", "log_level", ("--log-level",), "INFO", log_level, "DEBUG, INFO, WARNING or ERROR", metavar="LEVEL"
    ),
)  # fmt: skip

COMMANDS: Final[Mapping[str, Command]] = MappingProxyType({"--check": "check", "--list-cameras": "list-cameras"})
_COMMANDS_HELP: Final = (
    ("--check", "check the configuration, print it and leave"),
    ("--list-cameras", "print the cameras and leave"),
    ("--version", "print the version and leave"),
    ("-h, --help", "print this and leave"),
)
BY_NAME: Final = MappingProxyType({name: row for row in SETTINGS for name in row.names})
BY_FLAG: Final = MappingProxyType({flag: row for row in SETTINGS for flag in (*row.flags, *row.off_flags)})
KNOWN_FLAGS: Final = (*BY_FLAG, *COMMANDS, "--help", "-h", "--version")


def markdown_table() -> str:
    """The README's table of settings: flag, variable, default, meaning."""
    lines = ["| flag | variable | default | meaning |", "|---|---|---|---|"]
    for row in SETTINGS:
        flags = " ".join(f"`{flag}`" for flag in (*row.flags, *row.off_flags))
        variables = " ".join(f"`{variable}`" for variable in row.variables)
        lines.append(f"| {flags} | {variables} | {row.shown_default} | {row.help} |")
    return "\n".join(lines) + "\n"


def help_text() -> str:
    """What `--help` prints."""
    lines = [
        "usage: soft_stream.py [flags]",
        "",
        "Shows a Raspberry Pi camera, or a moving test picture, to browsers and other programs.",
        "Every setting is also read from the environment: the variable in brackets is for all cameras, and",
        "cam<N>_<name> (cam0_width) for camera N alone. A flag goes before cam<N>_, that before CAMERA_.",
    ]
    group = ""
    for row in SETTINGS:
        if row.group != group:
            group = row.group
            lines += ["", f"{group}:"]
        left = ", ".join((*row.flags, *row.off_flags)) or row.variables[0]
        source = f", {row.variables[0]}" if row.flags else ""
        lines.append(f"  {f'{left} {row.metavar}'.strip():<31} {row.help} [{row.shown_default}{source}]")
    lines += ["", "Instead of running:", *(f"  {flag:<31} {meaning}" for flag, meaning in _COMMANDS_HELP)]
    lines += [
        "",
        "Exit codes:",
        f"  {EXIT_OK}   asked to stop",
        f"  {EXIT_USAGE}   bad configuration, a flag among it",
        f"  {EXIT_MISSING}  the camera is missing",
        f"  {EXIT_BUSY}  the camera is there and cannot be used",
        f"  {EXIT_STUCK}  stuck beyond repair from inside",
        f"  {EXIT_CONFIGURATION}  bad configuration in the environment",
    ]
    return "\n".join(lines)


def say(value: object) -> str:
    """A value as people write it."""
    match value:
        case None:
            return "none"
        case bool():
            return "on" if value else "off"
        case float():
            return f"{value:.15g}"
        case tuple():
            return ", ".join(each if isinstance(each, str) else "{}={}".format(*each) for each in value) or "none"
    return str(value)
