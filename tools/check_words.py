#!/usr/bin/env python3
"""Fails on words that do not belong in technical English, in documents, comments, docstrings and messages.

    tools/check_words.py [FILE…]

Code itself is not checked, nor is what stands between backticks. A line with `words: ignore` is skipped.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent

# Pattern and what to write instead.
WORDS: Final = {
    r"(?:is|are|was|were|be|been|being|gets?) told": "is notified, is passed, is reported",
    r"tells(?! you)": "reports, returns, says",
    r"who(?:ever| asks| wants| watches| looks| has| is| does| reads| sees| takes| gets)": "name the component",
    r"lacks?": "does not have, does not support",
    r"wish(?:es|ed)?": "request, options",
    r"wants (?:a|an|to|its|the|one)": "must be, expects, requires",
    r"(?<!there )is no(?! longer\b| more\b| less\b| worse\b| such\b| other\b| effect\b)(?= [a-z])": "is not a",
    r"of (?:its|their|his) own": "own, dedicated, separate",
    r"set aside": "quarantined",
    r"(?:is|are|be|been|was|being) brought back": "recovers, is recovered",
    r"lets? go of": "releases",
    r"(?:gives?|gave|given) back": "releases, returns",
    r"the seconds before": "pre-roll",
    r"nobody (?:wants|watches|looks|asks)": "no client",
    r"somebody": "a client, a caller",
    r"goes on": "continues",
    r"movies?": "video, fMP4 stream, MP4 file",
    r"(?:the )?(?:roof|desk|keeper|mender|holder)": "name the component",
    r"farewell|riddle": "plain words",
    r"answers? (?:with |under |a )?[1-5]\d\d|answers? under|(?:the|of the) answer (?:is|has|to)": "returns, response",
    r"(?:is|are|be|not) wanted|that want": "requested, required",
    r"(?:is|are|was|were|be|been) asked(?! to)": "requested, queried",
    r"tells? when": "is the time of",
    r"takes no": "accepts no, uses no",
    r"gives the": "returns, states",
}
_PATTERN: Final = re.compile("|".join(rf"(?P<w{i}>\b(?:{word})\b)" for i, word in enumerate(WORDS)), re.IGNORECASE)
_CODE_SPAN: Final = re.compile(r"``[^`]*``|`[^`\n]*`")
_SUFFIXES: Final = {".py", ".md", ".sh", ".js", ".html", ".css", ".yml", ".toml", ".env", ".service", ".conf", ""}
# Foreign text: examples of other projects, and the license.
_SKIPPED: Final = ("LICENSE", "tests/process/examples/", "tools/check_words.py", "docs/images/", ".gitignore")


def text_of(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that people read, with their numbers; of Python files, comments and strings."""
    content = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(content.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(content).readline):
        # A string of one word is a name or a value.
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and " " in token.string):
            yield from enumerate(token.string.splitlines(), token.start[0])


def faults_in(path: Path, name: str) -> Iterator[str]:
    """One line for each word that does not belong there."""
    is_fenced = False
    for number, line in text_of(path):
        if path.suffix == ".md" and line.startswith("```"):
            is_fenced = not is_fenced
        if is_fenced or "words: ignore" in line:
            continue
        for match in _PATTERN.finditer(_CODE_SPAN.sub("", line)):
            instead = list(WORDS.values())[int(str(match.lastgroup)[1:])]
            yield f"{name}:{number}: {match[0]!r}; write: {instead}"


def main() -> int:
    names = sys.argv[1:] or subprocess.check_output(["git", "ls-files"], cwd=PROJECT, text=True).splitlines()
    faults: list[str] = []
    for name in names:
        path = PROJECT / name
        if path.suffix in _SUFFIXES and path.is_file() and not name.startswith(_SKIPPED):
            faults += faults_in(path, name)
    print("\n".join(faults) if faults else "words: no fault")
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
