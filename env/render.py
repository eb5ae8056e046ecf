#!/usr/bin/env python3
"""Prints `camera-soft-stream.env` from the table of settings; a test compares the file with it.

python3 env/render.py > env/camera-soft-stream.env
"""

import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from softcam.config.schema import SETTINGS, Setting

_HEAD = """\
# The settings of Soft Stream on this machine: /etc/camera-streamer/camera-soft-stream.env, read by systemd for every
# camera-soft-cam@N. Remove the # from the lines to change, then: sudo systemctl restart 'camera-soft-cam@*'
#
# CAMERA_WIDTH=1280 applies to all cameras; cam0_width=1280 applies to camera 0 and overrides it.
# Comments need separate lines. Quote values that contain a \\ or a blank with single quotes. Lines that start with
# export are ignored by systemd.
#
# An empty value selects the default. Only root may read this file, since it may contain keys. deploy.sh never
# overwrites it after it was edited.

# Settings for one camera, for example the second one:
#cam1_id=/base/axi/pcie@120000/rp1/i2c@80000/imx708@1a
#cam1_width=1280
#cam1_height=720
#cam1_autofocus=off
"""

# What camera-soft-cam@N.service sets.
_NOTES = {"camera": "set by the unit: camera-soft-cam@1 is camera 1; cam1_id selects another one"}


def render() -> str:
    """The whole file."""
    parts = [_HEAD]
    group = ""
    for row in SETTINGS:
        if row.group != group:
            group = row.group
            parts.append(f"\n# ---- {group} {'-' * (100 - len(group))}\n")
        note = _NOTES.get(row.name)
        words = f"{row.help}{f'; {note}' if note else ''} [{row.shown_default}]"
        parts.append("\n" + textwrap.fill(words, 118, initial_indent="# ", subsequent_indent="#   "))
        parts.append(f"\n#{_variable(row)}={_value(row)}\n")
    return "".join(parts)


def _variable(row: Setting) -> str:
    # The same port for all cameras would be available to the first instance only.
    if row.name == "port":
        return "cam0_port"
    return row.variables[0].replace("<N>", "0")


def _value(row: Setting) -> str:
    if row.name == "port":
        return "18081"
    return "" if row.default is None else row.shown_default


if __name__ == "__main__":
    sys.stdout.write(render())
