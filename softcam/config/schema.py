"""The table of settings, and the texts that are generated from it: `--help` and the table in docs/settings.md.

CONTRIBUTING.md lists the other places that a new setting touches. Immutable after the import.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

from softcam.config.parsers import (
    PATTERN,
    Parser,
    api_key,
    autostart,
    boolean,
    camera_choice,
    camera_list,
    display_name,
    function_name,
    host,
    host_names,
    integer,
    integer_or,
    log_level,
    number,
    one_of,
    origins,
    plain_text,
    substream,
    url,
    web_url,
)
from softcam.errors import EXIT_BUSY, EXIT_CONFIGURATION, EXIT_MISSING, EXIT_OK, EXIT_STUCK, EXIT_USAGE

Command = Literal["run", "check", "list-cameras", "diagnose"]

FIRST_PORT: Final = 18081  # of camera 0; nginx publishes it as 8081
FIRST_RTSP_PORT: Final = 8554
_MAX_S: Final = 31_536_000  # a year; lock and socket timeouts overflow only far above


@dataclass(frozen=True, slots=True)
class Setting:
    """One row. `default_text` describes a default that depends on another setting.

    `aliases` are further names for the variables: `framerate` makes `CAMERA_FRAMERATE` and `cam0_framerate`. The flag
    is made from the name, unless `flag` is set. A switch has no `metavar`, and a second flag, `off_flag` or `--no-…`.
    `attribute` is the field in `Settings`, if it differs from `name`.
    """

    name: str
    default: object
    parse: Parser
    help: str
    metavar: str = ""
    aliases: tuple[str, ...] = ()
    flag: str = ""
    off_flag: str = ""
    default_text: str = ""
    attribute: str = ""
    secret: bool = False
    is_text: bool = False  # for people: a comment starts with a # and a blank, `Door #2` has none
    is_shared: bool = True  # has a flag and CAMERA_<NAME>
    is_per_camera: bool = True  # has cam<N>_<name>
    group: str = ""

    @property
    def flags(self) -> tuple[str, ...]:
        return (self.flag or f"--{self.name.replace('_', '-')}",) if self.is_shared else ()

    @property
    def off_flags(self) -> tuple[str, ...]:
        return () if self.metavar else tuple(self.off_flag or flag.replace("--", "--no-", 1) for flag in self.flags)

    @property
    def names(self) -> tuple[str, ...]:
        """The names after `CAMERA_` or `cam<N>_`, the canonical one first."""
        return self.name, *self.aliases

    @property
    def variables(self) -> tuple[str, ...]:
        """The variables for all cameras, the canonical one first; `cam<N>_…` if there is none."""
        if not self.is_shared:
            return tuple(f"cam<N>_{name}" for name in self.names)
        bare = ("CAMERA",) if self.name == "camera" else ()
        return (*(f"CAMERA_{name.upper()}" for name in self.names), *bare)

    @property
    def shown_default(self) -> str:
        return self.default_text or format_value(self.default)


_SECONDS: Final = number(0, _MAX_S, "seconds")
_SIDE: Final = integer(64, 8192, is_even=True)  # chroma has half the resolution; no sensor is larger
_QUALITY: Final = integer(1, 100)
_FOLDER: Final = plain_text("the path of a folder")
SAME_AS_STREAM: Final = "as the stream"

_GROUPS: Final[Mapping[str, tuple[Setting, ...]]] = {
    "Camera": (
        Setting("camera", 0, camera_choice(has_numbers=True),
                f"number, id, URL or file; {PATTERN}: the pattern camera, a moving test image", "CAMERA",
                is_per_camera=False),
        Setting("id", None, camera_choice(has_numbers=False),
                "id of camera N, which --list-cameras prints and which is stable, or its URL",
                attribute="camera_id", is_shared=False),
        Setting("name", None, display_name, "name for people: on the page, in pictures and file names", "NAME",
                default_text="the camera's model", is_text=True),
        Setting("enabled", True, boolean, "use the camera; off: only the page and saved recordings",
                off_flag="--disabled"),
        Setting("tuning_file", None, plain_text("the name or path of a tuning file"),
                "libcamera tuning file, name or path; overrides --noir", "FILE"),
        Setting("is_noir", False, boolean, "camera without infrared filter: use the NoIR tuning file",
                flag="--noir", aliases=("noir",)),
        Setting("camera_model", None, plain_text("the name of a sensor, such as imx708"),
                "sensor name for --noir, if the camera reports a wrong one", "MODEL", aliases=("model",),
                default_text="as detected"),
        Setting("pattern_faults", None, plain_text("the path of a file"),
                "file with faults for the pattern camera: see docs/sources.md", "FILE"),
    ),
    "Server": (
        Setting("host", "127.0.0.1", host, "address to listen on; 0.0.0.0 for all", "HOST"),
        Setting("port", None, integer(0, 65535), "port to listen on; 0 for any free port", "PORT",
                default_text=f"{FIRST_PORT} + number"),
        Setting("api_key", None, api_key, "key for full access; prefer the variable, flags are public", "KEY",
                secret=True),
        Setting("view_key", None, api_key, "read-only API key; alone, it makes the portal read-only", "KEY",
                secret=True),
        Setting("host_names", None, host_names, "public DNS names at which the page may change settings", "NAMES"),
        Setting("allowed_origins", None, origins, "other pages that may change settings: http://HOST:PORT, …",
                "ORIGINS"),
        Setting("state_dir", None, _FOLDER, "folder of saved controls", "FOLDER",
                default_text="$STATE_DIRECTORY, else $XDG_STATE_HOME/soft-stream"),
        Setting("max_clients", 200, integer(1, 100_000),
                "maximum number of stream clients, and of RTSP viewers; more get 503", "COUNT"),
        Setting("max_clients_per_address", 50, integer(8, 100_000),
                "the same for one address, also for connections", "COUNT"),
        Setting("neighbours", None, camera_list, "cameras on the page: off, or name=port or URL, …", "LIST",
                default_text="enabled units, or cam<N>_"),
    ),
    "Stream": (
        Setting("width", 1536, _SIDE, "width of the stream", "PIXELS"),
        Setting("height", 864, _SIDE, "height of the stream", "PIXELS"),
        Setting("fps", 20.0, number(0.1, 240), "frames per second", "RATE", aliases=("framerate",)),
        Setting("fov_mode", "scale", one_of("scale", "crop"),
                "scale: whole field of view at every size; crop: middle of the sensor", "MODE"),
        Setting("quality", 80, _QUALITY, "JPEG quality of the stream, 1 to 100", "Q"),
        Setting("linger", 5.0, _SECONDS, "seconds that the camera stays open after the last client", "SECONDS",
                attribute="linger_s"),
        Setting("watchdog_timeout", 10.0, _SECONDS, "seconds without a frame until a stream restart; 0 disables",
                "SECONDS", attribute="watchdog_timeout_s"),
    ),
    "Snapshots": (
        Setting("snapshot_width", None, _SIDE, "width of a snapshot", "PIXELS", default_text=SAME_AS_STREAM),
        Setting("snapshot_height", None, _SIDE, "height of a snapshot", "PIXELS", default_text=SAME_AS_STREAM),
        Setting("snapshot_quality", 90, _QUALITY, "JPEG quality of a snapshot, 1 to 100", "Q"),
    ),
    "Autofocus": (
        Setting("autofocus", True, boolean, "focus before streaming and before snapshots"),
        Setting("autofocus_timeout", 5.0, _SECONDS, "time limit for autofocus, in seconds", "SECONDS",
                attribute="autofocus_timeout_s"),
    ),
    "H.264": (
        Setting("rtsp_url", None, url("rtsp", "rtsps"), "RTSP server to publish H.264 to", "URL"),
        Setting("rtsp_autostart", True, boolean, "publish from the start on; off: only on request"),
        Setting("rtsp_port", None, integer_or("off", 0, 65535),
                f"RTSP port of the portal, recommended: {FIRST_RTSP_PORT} + number; 0 for any free port", "PORT",
                default_text="off"),
        Setting("rtsp_host", None, host, "address that the RTSP server listens on", "HOST", default_text="as --host"),
        Setting("substream", None, substream,
                "second, smaller H.264 stream, for detectors: such as 640x360@5", "SIZE@FPS", default_text="off"),
        Setting("bitrate", None, integer_or("auto", 100_000, 100_000_000),
                "H.264 bit rate, in bits per second; auto follows size and frame rate", "BITS", default_text="auto"),
        Setting("webrtc_url", None, web_url, "WebRTC (WHEP) URL, or MediaMTX's page of a stream", "URL"),
    ),
    "Recordings": (
        Setting("recordings", None, _FOLDER, "folder for recordings", "FOLDER"),
        Setting("recordings_max_bytes", None, integer(10_000_000, 10**15),
                "total size limit; the oldest are deleted", "BYTES", default_text="disk size"),
        Setting("recordings_preroll", 0.0, number(0, 60, "seconds"), "seconds of pre-roll; keeps the camera open",
                "SECONDS", attribute="recordings_preroll_s"),
        Setting("recordings_autostart", "off", autostart,
                "recorded after every start: off, video, timelapse[:SECONDS]", "KIND"),
    ),
    "Hooks": (
        Setting("hook", None, function_name, "function that is called with each frame and may replace it", "MOD:FUNC"),
    ),
    "Logging": (
        Setting("log_level", "INFO", log_level, "minimum level of log messages: DEBUG, INFO, WARNING or ERROR",
                "LEVEL"),
    ),
}  # fmt: skip
SETTINGS: Final = tuple(replace(row, group=group) for group, rows in _GROUPS.items() for row in rows)

COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {"--check": "check", "--list-cameras": "list-cameras", "--diagnose": "diagnose"}
)
JSON_FLAG: Final = "--json"
_COMMANDS_HELP: Final = (
    ("--check", "check the configuration, print it and exit"),
    ("--list-cameras", "print the cameras and exit"),
    ("--diagnose", "check machine and camera, print a report and exit with 0 or 1"),
    (JSON_FLAG, "with --diagnose: the report as JSON"),
    ("--version", "print the version and exit"),
    ("-h, --help", "print this help and exit"),
)
_HELP_INDENT: Final = 31  # of the column with the meaning
EXIT_CODES: Final = (  # also in README.md
    (EXIT_OK, "stopped by SIGTERM or Ctrl+C"),
    (EXIT_USAGE, "invalid configuration, in flags"),
    (EXIT_MISSING, "the camera is missing, or picamera2 is"),
    (EXIT_BUSY, "the camera is present but in use by another program, or the address to listen on is not available"),
    (EXIT_STUCK, "the camera is stuck and only a fresh process can help"),
    (EXIT_CONFIGURATION, "invalid configuration, in the environment; also if numpy or simplejpeg is missing"),
)
BY_NAME: Final = MappingProxyType({name: row for row in SETTINGS for name in row.names})
BY_FLAG: Final = MappingProxyType({flag: row for row in SETTINGS for flag in (*row.flags, *row.off_flags)})
KNOWN_FLAGS: Final = (*BY_FLAG, *COMMANDS, JSON_FLAG, "--help", "-h", "--version")


def markdown_table() -> str:
    """The table in docs/settings.md: flag, variable, default, meaning."""
    lines = ["| flag | variable | default | meaning |", "|---|---|---|---|"]
    for row in SETTINGS:
        flags = " ".join(f"`{flag}`" for flag in (*row.flags, *row.off_flags))
        variables = " ".join(f"`{variable}`" for variable in row.variables)
        lines.append(f"| {flags} | {variables} | {row.shown_default} | {row.help} |")
    return "\n".join(lines) + "\n"


def help_text() -> str:
    lines = [
        "usage: soft_stream.py [flags]",
        "",
        "Serves one camera over HTTP: a web page, MJPEG, snapshots, H.264 and a JSON API.",
        "In brackets: the default, and the environment variable that sets the value for all cameras of this machine.",
        "cam<N>_<name> (cam0_width) sets it for camera N. A flag overrides cam<N>_, which overrides CAMERA_.",
    ]
    for group, rows in _GROUPS.items():
        lines += ["", f"{group}:"]
        for row in rows:
            left = ", ".join((*row.flags, *row.off_flags)) or row.variables[0]
            source = f", {row.variables[0]}" if row.flags else ""
            left = f"{left} {row.metavar}".strip()
            if len(left) > _HELP_INDENT:
                lines.append(f"  {left}")
                left = ""
            lines.append(f"  {left:<{_HELP_INDENT}} {row.help} [{row.shown_default}{source}]")
    lines += ["", "Instead of running:", *(f"  {flag:<{_HELP_INDENT}} {meaning}" for flag, meaning in _COMMANDS_HELP)]
    lines += ["", "Exit codes:", *(f"  {code:<3} {meaning}" for code, meaning in EXIT_CODES)]
    return "\n".join(lines)


def format_value(value: object) -> str:
    """A value as it is written in an env file."""
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
