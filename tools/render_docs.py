#!/usr/bin/env python3
"""Regenerates docs/settings.md, docs/controls.md and the env file from the tables of settings and controls.

    make docs

With `--check` it writes nothing and exits with 1 if a file is out of date.
"""

import argparse
import re
import runpy
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from softcam.config import schema as settings  # noqa: E402
from softcam.controls import schema  # noqa: E402

_TABLE = re.compile(r"(?m)^\|.*\n\|[-|: ]+\n(?:\|.*\n)*")


def _with_table(page: str, table: str) -> str:
    return _TABLE.sub(lambda _: table, page, count=1)


def rendered() -> dict[Path, str]:
    """The current content of each generated file, by path."""
    found = {PROJECT / "env/camera-soft-stream.env": runpy.run_path(str(PROJECT / "env/render.py"))["render"]()}
    for name, table in (("settings", settings.markdown_table()), ("controls", schema.markdown_table())):
        path = PROJECT / f"docs/{name}.md"
        found[path] = _with_table(path.read_text(), table)
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
