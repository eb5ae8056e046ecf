"""The effective configuration, and the report of `--check`.

The rows are in `softcam.config.schema`, `softcam.config.loader` reads the values. Only `softcam.app`,
`softcam.application` and `softcam.components` use `Settings`; components get plain arguments. No logging, no files, no
thread.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote

from softcam.config.parsers import PATTERN, Substream
from softcam.config.schema import FIRST_PORT, SETTINGS, Command, format_value
from softcam.runtime.redact import without_secrets


@dataclass(frozen=True, slots=True)
class Settings:
    """The effective configuration; None means not set.

    `camera_number` is None if the camera was selected by an id that is not the value of any `cam<N>_id`. A `camera_id`
    or a `url` (also a file or a device; never both are set) selects the camera, and the number then only names the
    instance. If `port` is None, `port_for` returns it.
    """

    command: Command
    camera_number: int | None
    camera_id: str | None
    url: str | None = field(repr=False)
    is_pattern: bool
    name: str | None
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
    allowed_origins: tuple[str, ...] | None
    state_dir: str | None
    max_clients: int
    max_clients_per_address: int
    neighbours: tuple[tuple[str, int | str], ...]  # if not set: those that `known_cameras` lists
    width: int
    height: int
    fps: float
    fov_mode: Literal["scale", "crop"]
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
    rtsp_port: int | None
    rtsp_host: str | None
    substream: Substream | None
    bitrate: int | None
    webrtc_url: str | None
    recordings: str | None
    recordings_max_bytes: int | None
    recordings_preroll_s: float
    recordings_autostart: str
    hook: str | None
    log_level: str
    as_json: bool = False  # the report of `diagnose`
    warnings: tuple[str, ...] = field(default=(), compare=False)
    # The source of each row's value, by its name: a flag, a variable or "default".
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)
    # The names and ports of cameras with `cam<N>_` variables, by number; the port is None if it is disabled.
    known_cameras: Mapping[int, tuple[str, int | None]] = field(default_factory=dict, compare=False, repr=False)

    @property
    def camera(self) -> str:
        """The selected camera: `pattern`, the URL including a password, the id, or the number."""
        return PATTERN if self.is_pattern else self.url or self.camera_id or str(self.camera_number)

    def is_flag(self, *names: str) -> bool:
        """Whether the value of one of these settings is from a flag."""
        return any(self.origins.get(name, "").startswith("-") for name in names)

    def cameras_among(self, numbers: Iterable[int]) -> tuple[tuple[str, int | str], ...]:
        """Names and ports of these cameras of this machine, without disabled ones; empty if there is only one."""
        found: list[tuple[str, int | str]] = []
        for number in sorted(numbers):
            name, port = self.known_cameras.get(number, (f"Camera {number}", FIRST_PORT + number))
            if port is not None:
                found.append((name, port))
        return tuple(found) if len(found) > 1 else ()

    def port_for(self, number: int) -> int:
        return FIRST_PORT + number if self.port is None else self.port


def secrets_of(settings: Settings) -> list[str]:
    """The keys, and the passwords in URLs, as they are written and decoded."""
    found = [settings.api_key, settings.view_key]
    for url in (settings.url, settings.rtsp_url, settings.webrtc_url):
        user, at, _ = (url or "").partition("://")[2].rpartition("@")
        password = user.partition(":")[2] if at else ""
        found += [password, unquote(password)]
    return [secret for secret in found if secret]


def describe(settings: Settings) -> str:
    """The effective configuration, a line `name = value  (source)` per setting; secrets as `set` or `not set`."""
    lines = []
    for row in SETTINGS:
        if row.name == "id":  # included in `camera`
            continue
        value, origin = getattr(settings, row.attribute or row.name), settings.origins.get(row.name, "default")
        if row.secret:
            shown = "not set" if value is None else "set"
        elif row.name == "port" and settings.camera_number is not None:
            shown = str(settings.port_for(settings.camera_number))
        else:
            is_open = value is None or (value == () and origin == "default")
            shown = row.default_text if is_open and row.default_text else format_value(value)
        lines.append(f"{row.name} = {without_secrets(shown)}  ({origin})")
    return "\n".join(lines)
