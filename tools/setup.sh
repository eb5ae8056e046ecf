#!/usr/bin/env bash
# Installs what a target of the Makefile needs; prints nothing if everything is there.
#
#   tools/setup.sh run [CAMERA]   prints the Python to run the portal with
#   tools/setup.sh lint           .venv-test, shellcheck
#   tools/setup.sh test           .venv-test, and the Debian packages of tests/packages.txt
#   tools/setup.sh bench          .venv-test, a compiler and ustreamer
#
# An error is one line and exit code 1. All files are created in the checkout (.venv, .venv-test, .cache), except Debian
# packages, which are installed as root or with a sudo that needs no password, unless NO_APT=1. The stamp of a virtual
# environment is written last, so an interrupted one is created again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

goal=${1:?run, lint, test or bench}
camera=${2:-pattern}
command="make $goal$([[ $camera == pattern ]] || printf ' CAMERA=%s' "$camera")"
log=.cache/setup.log
pyav='av >=12, <20' # for H.264; without it, requests for H.264 get an error that says so

exec 3>&2 # the terminal, also in steps whose output goes to the log
say() {
  printf '%s\n' "$*" >&3
}

fail() {
  say "$command: $*"
  exit 1
}

start_work() { # FOLDER…: checks that they are writable, takes the lock and empties the log
  local folder
  mkdir -p .cache 2>/dev/null || true
  for folder in . .cache "$@"; do
    [[ -w $folder || ! -e $folder ]] || fail "cannot write to $(realpath "$folder")"
  done
  if [[ -z ${is_working:-} ]]; then
    exec 9>.cache/setup.lock
    flock 9 # two set-ups at once would write into the same folder
    : >"$log"
    is_working=1
  fi
}

# --- Debian packages

may_install() {
  [[ ${NO_APT:-} != 1 ]] && command -v apt-get >/dev/null && { ((EUID == 0)) || sudo -n true 2>/dev/null; }
}

install_packages() { # NAME…; the caller checks whether they are installed
  local root=(env DEBIAN_FRONTEND=noninteractive) try
  ((EUID == 0)) || root=(sudo -n "${root[@]}")
  say "Installing with apt: $*"
  for try in 1 2 3; do
    "${root[@]}" apt-get -q -o DPkg::Lock::Timeout=120 -o APT::Update::Error-Mode=any update && break
    [[ -n ${CI:-} ]] || break # apt has its own retries; only CI waits longer
    sleep "$try"
  done >>"$log" 2>&1
  # The package lists may be good enough even if the update failed.
  "${root[@]}" apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "$@" >>"$log" 2>&1 || true
}

missing_packages() { # NAME…
  local name
  for name in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null) == installed ]] || printf '%s\n' "$name"
  done
}

need_packages() { # NAME…: installs them or prints what is missing, which is an error in CI
  local missing
  command -v dpkg-query >/dev/null || return 0 # not Debian: each test checks for the programs that it needs
  mapfile -t missing < <(missing_packages "$@")
  if ((${#missing[@]})) && may_install; then
    start_work
    install_packages "${missing[@]}"
    mapfile -t missing < <(missing_packages "$@")
  fi
  ((${#missing[@]})) || return 0
  [[ -z ${CI:-} ]] || fail "could not install ${missing[*]} (see $log)"
  say "$command: tests that need missing programs are skipped; to run all: sudo apt install ${missing[*]}"
}

# --- Python

pythons() { # the installed ones, the system's first, as Picamera2 is installed there
  printf '%s\n' "${PYTHON:-}" /usr/bin/python3 "$(command -v python3 || true)" | awk 'NF && !seen[$0]++' |
    while read -r python; do
      if [[ -x $python ]]; then printf '%s\n' "$python"; fi
    done
}

has() { # PYTHON [MODULE…]: the version is supported, and the modules are installed (not imported)
  "$1" -c 'import sys
from importlib.util import find_spec
sys.exit(sys.version_info < (3, 11) or not all(map(find_spec, sys.argv[1:])))' "${@:2}" 2>/dev/null
}

imports() { # PYTHON MODULE
  "$1" -c "import $2" 2>/dev/null
}

runs_portal() { # PYTHON
  local modules=(simplejpeg numpy)
  if needs_picamera2; then modules+=(picamera2 libcamera); fi
  # Importing Picamera2 takes a second, so it is not imported. simplejpeg is, as another numpy version breaks it.
  has "$1" "${modules[@]}" && imports "$1" simplejpeg
}

needs_picamera2() { # not for the pattern camera or for what PyAV opens; a camera id, /base/…, is not a file
  [[ $camera != pattern && $camera != *://* && $camera != /dev/* && ! -f $camera && ! -p $camera ]]
}

find_python() { # has|runs_portal [MODULE…]: the first Python for which the function succeeds
  local python
  while read -r python; do
    if "$1" "$python" "${@:2}"; then
      printf '%s\n' "$python"
      return
    fi
  done < <(pythons)
  return 1
}

python_for_venv() {
  local old
  find_python has ensurepip venv && return
  old=$(pythons | head -n 1)
  if [[ -n $old ]] && ! find_python has >/dev/null; then
    fail "needs Python 3.11 or newer, as in Debian 12 and later; here is $("$old" -V 2>&1)"
  fi
  if may_install; then
    install_packages python3 python3-venv
    find_python has ensurepip venv && return
    fail "could not install python3-venv (no network? see $log)"
  fi
  fail "needs python3-venv: sudo apt install python3-venv"
}

is_ready() { # FOLDER STAMP MODULE
  [[ -f $1/stamp && $(<"$1/stamp") == "$2" ]] && imports "$1/bin/python" "$3"
}

make_venv() { # FOLDER REQUIREMENTS MODULE [venv's option [EXTRA]]: creates it unless MODULE works in it
  local folder=$1 requirements=$2 module=$3 option=${4:-} extra=${5:-} python stamp
  stamp=$(printf '%s\n' "$PWD" "$option" | cat - tools/setup.sh "$requirements" | sha256sum)
  if is_ready "$folder" "$stamp" "$module"; then return; fi
  start_work "$folder"
  if is_ready "$folder" "$stamp" "$module"; then return; fi # another process has created it
  python=$(python_for_venv)
  say "Setting up $folder with ${python##*/}: about a minute, only the first time"
  trap 'rm -rf "$folder"' EXIT
  trap 'exit 130' INT TERM
  rm -rf "$folder"
  {
    # shellcheck disable=SC2086 # an option or none
    "$python" -m venv $option "$folder" || fail "could not make $folder with $python (see $log)"
    # Keep the system's numpy: Picamera2 is built against it.
    "$folder/bin/python" -c 'import numpy; print(f"numpy=={numpy.__version__}")' >.cache/constraints.txt 2>/dev/null || true
    "$folder/bin/python" -m pip install --disable-pip-version-check --no-input --retries 2 \
      --constraint .cache/constraints.txt --requirement "$requirements" || pip_failed "$requirements"
    "$folder/bin/python" -c "import $module" || fail "$module does not work in $folder (see $log)"
    # Optional. Building it from source would need FFmpeg's sources and half an hour.
    if [[ -n $extra ]] && ! has "$folder/bin/python" "${extra%% *}"; then
      "$folder/bin/python" -m pip install --disable-pip-version-check --no-input --retries 2 \
        --constraint .cache/constraints.txt --only-binary "${extra%% *}" "$extra" ||
        say "$command: no H.264: pip cannot install $extra (see $log)"
    fi
  } >>"$log" 2>&1
  printf '%s\n' "$stamp" >"$folder/stamp"
  trap - EXIT INT TERM
}

pip_failed() { # REQUIREMENTS
  if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|SSLError|Max retries' "$log"; then
    fail "no network: pip cannot fetch what $1 lists (see $log)"
  fi
  fail "pip cannot install what $1 lists: $(grep '^ERROR' "$log" | tail -n 1) (see $log)"
}

# --- The goals

for_run() {
  local python option=
  if python=$(find_python runs_portal); then
    printf '%s\n' "$python"
    return
  fi
  if needs_picamera2 && ! python=$(find_python has picamera2 libcamera); then
    if may_install; then
      start_work
      install_packages python3-picamera2
    fi
    find_python runs_portal && return
    fail "needs Picamera2, which Raspberry Pi OS has: sudo apt install python3-picamera2"
  fi
  # Use the system's Picamera2 if it is installed, unless its numpy or simplejpeg is broken.
  if python=$(find_python has picamera2 libcamera); then
    if ! has "$python" simplejpeg; then
      option=--system-site-packages
      export PYTHON=$python
    elif needs_picamera2; then
      fail "$python cannot import simplejpeg ($("$python" -c 'import simplejpeg' 2>&1 | tail -n 1));" \
        "a numpy or simplejpeg from pip hides the system's: pip uninstall numpy simplejpeg"
    fi
  fi
  make_venv .venv requirements.txt simplejpeg "$option" "$pyav"
  printf '%s\n' "$PWD/.venv/bin/python"
}

case $goal in
  run | lint | test | bench) ;;
  *) fail "no such goal" ;;
esac
case $goal in
  run) for_run ;;
  lint)
    make_venv .venv-test tests/requirements.txt pytest
    need_packages shellcheck
    ;;
  bench)
    make_venv .venv-test tests/requirements.txt pytest
    need_packages gcc libc6-dev linux-libc-dev ustreamer
    ;;
  test)
    make_venv .venv-test tests/requirements.txt pytest
    mapfile -t packages < <(sed 's/ *#.*//; /^$/d' tests/packages.txt)
    need_packages "${packages[@]}"
    ;;
esac
