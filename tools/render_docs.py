#!/usr/bin/env python3
"""Regenerates docs/settings.md, docs/controls.md and the env file from the tables of settings and controls, and the
tables of docs/reliability.md from those of their tests.

    make docs

With `--check` it writes nothing and exits with 1 if a file is out of date.
"""

import argparse
import re
import sys
import textwrap
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from softcam.config import schema as settings  # noqa: E402
from softcam.controls import aliases, schema  # noqa: E402
from tests.endurance import fault_rows  # noqa: E402

_ENV_HEAD = """\
# The settings of Soft Stream on this machine: /etc/camera-streamer/camera-soft-stream.env, read by systemd for every
# camera-soft-cam@N. Remove the # from the lines to change, then: sudo systemctl restart 'camera-soft-cam@*'
#
# CAMERA_WIDTH=1280 applies to all cameras; cam0_width=1280 applies to camera 0 and overrides it.
# Comments need separate lines. Quote values that contain a \\ or a blank with single quotes. Lines that start with
# export are ignored by systemd.
#
# An empty value selects the default. Only root may read this file, since it may contain keys. deploy.sh never
# overwrites it after it was edited. What deploy.sh --with-rtsp sets is in rtsp.env, as cam0_rtsp_host=0.0.0.0; values
# of the same name here have priority.

# Settings for one camera, for example the second one:
#cam1_id=/base/axi/pcie@120000/rp1/i2c@80000/imx708@1a
#cam1_name='Front door'
#cam1_width=1280
#cam1_height=720
#cam1_autofocus=off
"""
# What camera-soft-cam@N.service sets.
_CAMERA_NOTE = "; set by the unit: camera-soft-cam@1 is camera 1; cam1_id selects another one"
# Settings that differ between cameras: the same port for all would be available to the first instance only.
_OF_ONE_CAMERA = {"name": "", "port": "18081"}
_TABLE = re.compile(r"(?m)^\|.*\n\|[-|: ]+\n(?:\|.*\n)*")


def _with_tables(page: str, *tables: str) -> str:
    """The page with its first tables replaced."""
    remaining = iter(tables)
    return _TABLE.sub(lambda _: next(remaining), page, count=len(tables))


def env_file() -> str:
    """The settings, commented out, each with its help."""
    parts = [_ENV_HEAD]
    group = ""
    for row in settings.SETTINGS:
        if row.group != group:
            group = row.group
            parts.append(f"\n# ---- {group} {'-' * (100 - len(group))}\n")
        note = _CAMERA_NOTE if row.name == "camera" else ""
        words = f"{row.help}{note} [{row.shown_default}]"
        text = textwrap.fill(words, 118, initial_indent="# ", subsequent_indent="#   ")
        name, value = row.variables[0].replace("<N>", "0"), "" if row.default is None else row.shown_default
        if row.name in _OF_ONE_CAMERA:
            name, value = f"cam0_{row.name}", _OF_ONE_CAMERA[row.name]
        parts.append(f"\n{text}\n#{name}={value}\n")
    return "".join(parts)


def rendered() -> dict[Path, str]:
    """The current content of each generated file, by path."""
    found = {PROJECT / "env/camera-soft-stream.env": env_file()}
    for name, tables in (
        ("settings", [settings.markdown_table()]),
        ("controls", [schema.markdown_table(), aliases.markdown_table()]),
        ("reliability", [fault_rows.clients_table(), fault_rows.effects_table(), fault_rows.rig_table()]),
    ):
        path = PROJECT / f"docs/{name}.md"
        found[path] = _with_tables(path.read_text(), *tables)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Regenerate the tables in docs/ and the env file.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    is_check = parser.parse_args().check
    outdated = {path: text for path, text in rendered().items() if path.read_text() != text}
    for path, text in outdated.items():
        print(f"{path.relative_to(PROJECT)}: {'out of date, run make docs' if is_check else 'updated'}")
        if not is_check:
            path.write_text(text)
    return int(is_check and bool(outdated))


if __name__ == "__main__":
    sys.exit(main())
