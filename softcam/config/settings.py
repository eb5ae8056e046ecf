"""The effective configuration, and the report of `--check`.

The rows are in `softcam.config.schema`, `softcam.config.loader` reads the values. Only `softcam.app` and
`softcam.application` use `Settings`; components get plain arguments. No logging, no files, no thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from softcam.config.parsers import PATTERN
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
    recordings_autostart: str
    hook: str | None
    log_level: str
    warnings: tuple[str, ...] = field(default=(), compare=False)
    # The source of each row's value, by its name: a flag, a variable or "default".
    origins: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    @property
    def camera(self) -> str:
        """The selected camera: `pattern`, the URL including a password, the id, or the number."""
        return PATTERN if self.is_pattern else self.url or self.camera_id or str(self.camera_number)

    def is_flag(self, *names: str) -> bool:
        """Whether the value of one of these settings is from a flag."""
        return any(self.origins.get(name, "").startswith("-") for name in names)

    def port_for(self, number: int) -> int:
        return FIRST_PORT + number if self.port is None else self.port


def describe(settings: Settings) -> str:
    """The effective configuration, a line `name = value  (source)` per setting; secrets as `set` or `not set`."""
    lines = []
    for row in SETTINGS:
        if row.name == "id":  # included in `camera`
            continue
        value = getattr(settings, row.attribute or row.name)
        if row.secret:
            shown = "not set" if value is None else "set"
        elif row.name == "port" and settings.camera_number is not None:
            shown = str(settings.port_for(settings.camera_number))
        else:
            shown = row.default_text if value is None and row.default_text else format_value(value)
        lines.append(f"{row.name} = {without_secrets(shown)}  ({settings.origins.get(row.name, 'default')})")
    return "\n".join(lines)
