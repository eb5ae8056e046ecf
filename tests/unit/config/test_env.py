"""The shipped env file says what the table of settings says, and systemd's reader and ours both take it."""

import re
import subprocess
import sys
from pathlib import Path

from softcam.config.schema import SETTINGS
from softcam.config.settings import load

PROJECT = Path(__file__).resolve().parents[3]
ENV_FILE = PROJECT / "env/camera-soft-stream.env"
EXAMPLE_LINES = 4  # at the top: how one camera gets settings of its own


def offered() -> list[tuple[str, str]]:
    """Name and value of every line that waits to be taken out of its comment."""
    lines = re.findall(r"^#(\w+)=(.*)$", ENV_FILE.read_text(), re.MULTILINE)
    return lines[EXAMPLE_LINES:]


def test_the_file_is_what_the_table_gives() -> None:
    rendered = subprocess.run(
        [sys.executable, "env/render.py"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert ENV_FILE.read_text() == rendered.stdout, "run: python3 env/render.py > env/camera-soft-stream.env"


def test_every_setting_has_a_line_with_help_above_it() -> None:
    names = {name.lower().removeprefix("camera_").removeprefix("cam0_") for name, _ in offered()}
    assert names == {row.name for row in SETTINGS}
    text = ENV_FILE.read_text()
    for row in SETTINGS:
        assert row.help.split(";")[0][:40] in " ".join(text.split()), row.name


def test_as_shipped_nothing_is_set() -> None:
    lines = [line for line in ENV_FILE.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == []


def test_every_line_taken_out_of_its_comment_is_the_default() -> None:
    spoken = dict(offered())
    assert spoken["cam0_port"] == str(load([], {}).port_for(0))
    del spoken["cam0_port"]
    assert load([], spoken) == load([], {})
    assert load([], spoken).warnings == ()


def test_the_examples_at_the_top_are_settings() -> None:
    lines = re.findall(r"^#(cam1_\w+)=(.*)$", ENV_FILE.read_text(), re.MULTILINE)
    assert len(lines) == EXAMPLE_LINES
    settings = load(["--camera", "1"], dict(lines))
    assert (settings.width, settings.height, settings.autofocus) == (1280, 720, False)
    assert settings.warnings == ()


def test_only_its_owner_may_write_it_here() -> None:
    assert ENV_FILE.stat().st_mode & 0o022 == 0
