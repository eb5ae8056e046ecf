"""The shipped env file matches the table of settings, and the loader accepts it."""

import re
import subprocess
import sys
from pathlib import Path

from softcam.config.loader import load
from softcam.config.schema import SETTINGS

PROJECT = Path(__file__).resolve().parents[3]
ENV_FILE = PROJECT / "env/camera-soft-stream.env"
EXAMPLE_LINES = 5  # at the top: settings for one camera


def commented_settings() -> list[tuple[str, str]]:
    """Name and value of each commented setting."""
    lines = re.findall(r"^#(\w+)=(.*)$", ENV_FILE.read_text(), re.MULTILINE)
    return lines[EXAMPLE_LINES:]


def test_generated_files_are_up_to_date() -> None:
    check = [sys.executable, "tools/render_docs.py", "--check"]
    done = subprocess.run(check, cwd=PROJECT, capture_output=True, text=True)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


def test_each_setting_has_a_line_and_its_help() -> None:
    names = {name.lower().removeprefix("camera_").removeprefix("cam0_") for name, _ in commented_settings()}
    assert names == {row.name for row in SETTINGS}
    text = ENV_FILE.read_text()
    for row in SETTINGS:
        assert row.help.split(";")[0][:40] in " ".join(text.split()), row.name


def test_all_settings_are_commented_out() -> None:
    lines = [line for line in ENV_FILE.read_text().splitlines() if line and not line.startswith("#")]
    assert lines == []


def test_uncommented_settings_are_the_defaults() -> None:
    values = dict(commented_settings())
    assert values["cam0_port"] == str(load([], {}).port_for(0))
    del values["cam0_port"]
    assert load([], values) == load([], {})
    assert load([], values).warnings == ()


def test_examples_are_valid() -> None:
    lines = re.findall(r"^#(cam1_\w+)=(.*)$", ENV_FILE.read_text(), re.MULTILINE)
    assert len(lines) == EXAMPLE_LINES
    settings = load(["--camera", "1"], dict(lines))
    assert (settings.width, settings.height, settings.autofocus) == (1280, 720, False)
    assert settings.warnings == ()


def test_file_is_writable_by_its_owner_only() -> None:
    assert ENV_FILE.stat().st_mode & 0o022 == 0
