#!/usr/bin/env bash
# Runs shellcheck on every shell file of the checkout, found by its first line; part of `make lint`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

mapfile -t files < <(
  find . \( -name .git -o -name '.venv*' -o -name .cache \) -prune -o -type f -size -200k -print0 |
    xargs -0 awk 'FNR == 1 && /^#!.*[\/ ](ba|da)?sh( |$)/ { print FILENAME } { nextfile }' | sort
)
((${#files[@]})) || { echo "shellcheck: no shell file found" >&2; exit 1; }
if ! command -v shellcheck >/dev/null; then
  echo "shellcheck is not installed: ${#files[@]} shell files not checked" >&2
  [[ -z ${CI:-} ]]
  exit
fi
shellcheck "${files[@]}"
echo "shellcheck: ${#files[@]} files passed"
