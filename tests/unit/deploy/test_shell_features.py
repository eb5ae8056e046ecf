"""deploy.sh on a Mac: it uses nothing that bash 3.2 and BSD tools do not have. Scripts for the host are POSIX shell."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[3]

# What bash 3.2 does not have, or treats differently, and what BSD tools do not have.
UNSUPPORTED = {
    "associative array, global or name reference": r"\b(?:declare|local|typeset|readonly)\s+-\w*[Agnul]",
    "mapfile": r"\b(?:mapfile|readarray)\b",
    "change of case": r"\$\{\w+(?:\[[^]]*\])?(?:,,?|\^\^?)",
    "transformation": r"\$\{[^}]*@[QEPAaKkUuL]\}",
    "both outputs appended": r"&>>",
    "pipe of both outputs": r"\|&",
    "negative index": r"\[-\d+\]|\$\{\w+: -|\$\{\w+:\d+:-",
    "wait for any": r"\bwait\s+-\w",
    "coprocess": r"\bcoproc\b",
    "date of printf": r"printf\s[^\n]*%\([^)]*\)T",
    "test of a variable": r"\[\[?\s+(?:!\s+)?-[vR]\s",
    "fall through of case": r";;&|;&",
    "name for a descriptor": r"\{\w+\}[<>]",
    "expansion with padding or step": r"\{0\d+\.\.|\{\w+\.\.\w+\.\.",
    "option of shopt": r"shopt\s+-[su]\s+(?:globstar|lastpipe|inherit_errexit|autocd|compat\d+)",
    "newer variable": r"\$\{?(?:BASHPID|EPOCHSECONDS|EPOCHREALTIME|SRANDOM|BASH_ARGV0|READLINE_LINE)\b",
    "option of read": r"\bread\s+(?:-\w+\s+)*-\w*[iN]",
    "array that may be empty": r"\$\{(?:hosts|pids|ssh_options|failed)\[@\]\}",
    "unicode escape": r"\$'[^']*\\[uU]",
    "GNU option of a program": r"\b(?:sed -[ir]|readlink -f|realpath|date -d|stat -c|xargs -[rd]|grep -P|"
    r"cp -a|mktemp -p|tac|head -c|tail --|sort -V|timeout \d|ps -e|ps aux|seq|base64 -w)\b",
}
# Arrays that are empty in some runs: bash 3.2 reports `unbound variable` for "${name[@]}", but not for a count.
GUARDED = r'\(\(\$\{#\w+\[@\]\} == 0\)\) \|\| .*|\$\{\w+\[@\]\+"\$\{\w+\[@\]\}"\}|\$\{#\w+\[@\]\}|\$\{\w+\[\*\]:\+'


def statements(path: Path) -> list[tuple[int, str]]:
    """The lines with their numbers, without comments and without the help text."""
    text = re.sub(r"(?s)<<'END'\n.*?\nEND\n", lambda match: "\n" * match[0].count("\n"), path.read_text())
    return [(at, re.sub(r"(^|\s)#\s.*", "", line)) for at, line in enumerate(text.splitlines(), 1)]


@pytest.mark.parametrize("feature", UNSUPPORTED)
def test_bash_3_2_and_bsd_tools(feature: str) -> None:
    found = [
        f"{at}: {line}"
        for at, line in statements(PROJECT / "deploy.sh")
        if re.search(UNSUPPORTED[feature], re.sub(GUARDED, "", line))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("feature", "line"),
    [
        ("associative array, global or name reference", "declare -A names"),
        ("associative array, global or name reference", "local -n name=$1"),
        ("mapfile", "mapfile -t lines"),
        ("change of case", "echo ${name,,}"),
        ("change of case", "echo ${name^}"),
        ("transformation", "echo ${name@Q}"),
        ("both outputs appended", "make &>>log"),
        ("pipe of both outputs", "make |& tee log"),
        ("negative index", "echo ${names[-1]}"),
        ("wait for any", "wait -n"),
        ("coprocess", "coproc cat"),
        ("date of printf", "printf '%(%F)T' -1"),
        ("test of a variable", "[[ -v name ]]"),
        ("fall through of case", "a) echo ;;&"),
        ("name for a descriptor", "exec {log}>file"),
        ("expansion with padding or step", "echo {01..10}"),
        ("option of shopt", "shopt -s lastpipe"),
        ("newer variable", "echo $BASHPID"),
        ("option of read", "read -r -N 1 key"),
        ("array that may be empty", 'wait "${pids[@]}"'),
        ("unicode escape", r"echo $'\u2026'"),
        ("GNU option of a program", "sed -i s/a/b/ file"),
        ("GNU option of a program", "readlink -f ."),
    ],
)
def test_unsupported_features_are_found(feature: str, line: str) -> None:
    assert re.search(UNSUPPORTED[feature], line)
