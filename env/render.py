#!/usr/bin/env python3
"""Prints `camera-soft-stream.env` from the table of settings; a test holds the file to it.

python3 env/render.py > env/camera-soft-stream.env
"""

import sys
import textwrap
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from softcam.config.schema import SETTINGS, Setting

_HEAD = """\
# Soft Stream's settings on this machine: /etc/camera-streamer/camera-soft-stream.env, read by systemd for every
# camera-soft-cam@N. Take the # away from what you change, then: sudo systemctl restart 'camera-soft-cam@*'
#
# CAMERA_WIDTH=1280 is for all cameras, cam0_width=1280 for camera 0 alone, and goes before the other.
# A comment stands on a line of its own, a value with a \\ or a blank in it in single quotes, and no line begins with
# export: systemd would leave it out.
#
# No value is the default. Only root may read this file: there may be a key in it. deploy.sh never overwrites it once
# it was edited.

# One camera by its own settings, for example the second one:
#cam1_id=/base/axi/pcie@120000/rp1/i2c@80000/imx708@1a
#cam1_width=1280
#cam1_height=720
#cam1_autofocus=off
"""

# What camera-soft-cam@N.service decides by itself.
_NOTES = {"camera": "the unit says it: camera-soft-cam@1 is camera 1; cam0_id chooses another one"}


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
    # A port for all would be one that only the first instance gets.
    if row.name == "port":
        return "cam0_port"
    return row.variables[0].replace("<N>", "0")


def _value(row: Setting) -> str:
    if row.name == "port":
        return "18081"
    return "" if row.default is None else row.shown_default


if __name__ == "__main__":
    sys.stdout.write(render())
