"""The table of settings, and the texts that are generated from it."""

import re
from pathlib import Path

import pytest

from softcam.config.parsers import Substream
from softcam.config.schema import EXIT_CODES, SETTINGS, Setting, help_text, markdown_table
from tests.unit.config.test_parsers import rule_of

# A valid text of each row that is not its default, and its value.
EXAMPLES: dict[str, tuple[str, object]] = {
    "camera": ("7", 7),
    "id": ("Virtual0", "Virtual0"),
    "name": ("Gärten 庭", "Gärten 庭"),
    "enabled": ("0", False),
    "tuning_file": ("imx708_noir.json", "imx708_noir.json"),
    "is_noir": ("1", True),
    "camera_model": ("imx708_wide", "imx708_wide"),
    "pattern_faults": ("/run/faults", "/run/faults"),
    "host": ("::1", "::1"),
    "port": ("65535", 65535),
    "api_key": ("secret", "secret"),
    "view_key": ("view", "view"),
    "host_names": ("Cam.Example.org", ("cam.example.org",)),
    "allowed_origins": ("HTTPS://Dash.example:443", ("https://dash.example",)),
    "state_dir": ("/var/lib/soft-stream", "/var/lib/soft-stream"),
    "max_clients": ("1", 1),
    "max_clients_per_address": ("8", 8),
    "neighbours": ("Door=18082", (("Door", 18082),)),
    "fov_mode": ("Crop", "crop"),
    "width": ("64", 64),
    "height": ("8192", 8192),
    "fps": ("29.97", 29.97),
    "quality": ("100", 100),
    "linger": ("2.5", 2.5),
    "watchdog_timeout": ("0", 0.0),
    "snapshot_width": ("4608", 4608),
    "snapshot_height": ("2592", 2592),
    "snapshot_quality": ("95", 95),
    "autofocus": ("0", False),
    "autofocus_timeout": ("31536000", 31_536_000.0),
    "rtsp_url": ("rtsp://127.0.0.1:8554/cam", "rtsp://127.0.0.1:8554/cam"),
    "rtsp_autostart": ("no", False),
    "rtsp_port": ("8554", 8554),
    "rtsp_host": ("0.0.0.0", "0.0.0.0"),
    "substream": ("640x360@5", Substream(640, 360, 5.0)),
    "bitrate": ("100000", 100_000),
    "webrtc_url": ("http://pi.local:8889/cam", "http://pi.local:8889/cam"),
    "recordings": ("/var/lib/recordings", "/var/lib/recordings"),
    "recordings_max_bytes": ("10000000", 10_000_000),
    "recordings_preroll": ("5", 5.0),
    "recordings_autostart": ("Timelapse:30.0", "timelapse:30"),
    "hook": ("my_hooks:stamp", "my_hooks:stamp"),
    "log_level": ("debug", "DEBUG"),
}


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_parser_of_each_row(row: Setting) -> None:
    text, value = EXAMPLES[row.name]
    assert row.parse(text) == value
    assert value != row.default
    assert rule_of(row.parse)  # that of an invalid text


def test_help_text() -> None:
    lines = help_text().splitlines()
    for row in SETTINGS:
        first = row.flags[0] if row.flags else row.variables[0]
        (number,) = [number for number, line in enumerate(lines) if re.match(rf"  {re.escape(first)}([ ,]|$)", line)]
        line = lines[number] if row.help in lines[number] else lines[number + 1]
        assert line[33] == " " != line[34]
        assert row.help in line
        assert row.shown_default in line
        assert row.variables[0] in line
    assert max(map(len, lines)) <= 130


def test_exit_codes_are_those_of_the_readme() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", readme, re.MULTILINE)
    assert [(int(code), meaning) for code, meaning in rows] == list(EXIT_CODES)
    assert help_text().splitlines()[-len(rows) :] == [f"  {code:<3} {meaning}" for code, meaning in rows]


def test_markdown_table() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == len(SETTINGS) + 2
    assert all(line.count("|") == 5 for line in lines)
    assert "| `--fps` | `CAMERA_FPS` `CAMERA_FRAMERATE` | 20 | frames per second |" in lines
    assert (
        "|  | `cam<N>_id` | none | id of camera N, which --list-cameras prints and which is stable, or its URL |"
        in lines
    )
