#!/usr/bin/env bash
# Installs what a target of the Makefile needs; prints nothing if everything is there.
#
#   tools/setup.sh run [CAMERA]   prints the Python to run the portal with
#   tools/setup.sh lint           .venv-test, shellcheck
#   tools/setup.sh test           .venv-test, the Debian packages of tests/packages.txt, the images that tests boot
#   tools/setup.sh bench          .venv-test, a compiler, ustreamer and GStreamer's RTSP server
#   tools/setup.sh deb            the Debian packages that build a Debian package
#   tools/setup.sh release        those and .venv-test
#
# An error is one line and exit code 1. All files are created in the checkout (.venv, .venv-test, .cache), except Debian
# packages, which are installed as root or with a sudo that needs no password, unless NO_APT=1. The stamp of a virtual
# environment is written last, so an interrupted one is created again.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

goal=${1:?run, lint, test, bench, deb or release}
camera=${2:-pattern}
command="make $goal$([[ $camera == pattern ]] || printf ' CAMERA=%s' "$camera")"
log=.cache/setup.log

exec 3>&2 # the terminal, also in steps whose output goes to the log
say() {
  printf '%s\n' "$*" >&3
}

fail() {
  say "$command: $*"
  exit 1
}

start_work() { # takes the lock, as two set-ups at once would write into the same folder, and empties the log
  if [[ -n ${is_working:-} ]]; then return; fi
  { mkdir -p .cache && : >>.cache/setup.lock; } 2>/dev/null || fail "cannot write to $PWD/.cache"
  exec 9>.cache/setup.lock
  flock 9
  : >"$log"
  is_working=1
}

# --- Debian packages

may_install() {
  [[ ${NO_APT:-} != 1 ]] && command -v apt-get >/dev/null && { ((EUID == 0)) || sudo -n true 2>/dev/null; }
}

install_packages() { # NAME…; the caller checks whether they are installed
  local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
  ((EUID == 0)) || apt=(sudo -n "${apt[@]}")
  say "Installing with apt: $*"
  # The package lists may be good enough even if the update failed.
  { "${apt[@]}" update || true; "${apt[@]}" install -y --no-install-recommends "$@" || true; } >>"$log" 2>&1
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
  [[ $goal != deb && $goal != release ]] || fail "needs ${missing[*]}: sudo apt install ${missing[*]}"
  say "$command: tests that need missing programs are skipped; to run all: sudo apt install ${missing[*]}"
}

# --- Python

has() { # PYTHON [MODULE…]: the version is supported, and the modules are installed (not imported)
  "$1" -c 'import sys
from importlib.util import find_spec
sys.exit(sys.version_info < (3, 11) or not all(map(find_spec, sys.argv[1:])))' "${@:2}" 2>/dev/null
}

imports() { # PYTHON MODULE
  "$1" -c "import $2" 2>/dev/null
}

find_python() { # [MODULE…]: the first Python with these modules; the system's first, as Picamera2 is installed there
  local python
  for python in "${PYTHON:-}" /usr/bin/python3 "$(command -v python3 || true)"; do
    if [[ -x $python ]] && has "$python" "$@"; then
      printf '%s\n' "$python"
      return
    fi
  done
  return 1
}

python_for_venv() {
  find_python ensurepip venv && return
  if command -v "${PYTHON:-python3}" >/dev/null && ! find_python >/dev/null; then
    fail "needs Python 3.11 or newer, as in Debian 12 and later; here is $("${PYTHON:-python3}" -V 2>&1)"
  fi
  may_install || fail "needs python3-venv: sudo apt install python3-venv"
  install_packages python3 python3-venv
  find_python ensurepip venv || fail "could not install python3-venv (no network? see $log)"
}

make_venv() { # FOLDER REQUIREMENTS MODULE [venv's option]: creates it unless MODULE works in it
  local folder=$1 requirements=$2 module=$3 option=${4:-} python stamp
  local pip=("$folder/bin/python" -m pip install --disable-pip-version-check --no-input --retries 2)
  stamp=$(printf '%s\n' "$PWD" "$option" | cat - tools/setup.sh "$requirements" | sha256sum)
  for _ in 'without the lock' 'with it'; do # another process may create it meanwhile
    if [[ -f $folder/stamp && $(<"$folder/stamp") == "$stamp" ]] && imports "$folder/bin/python" "$module"; then
      return
    fi
    start_work
  done
  python=$(python_for_venv)
  say "Setting up $folder with ${python##*/}: about a minute, only the first time"
  rm -rf "$folder" 2>>"$log" || fail "cannot write to $folder (see $log)"
  trap 'rm -rf "$folder"' EXIT
  {
    # shellcheck disable=SC2086 # an option or none
    "$python" -m venv $option "$folder" || fail "could not make $folder with $python (see $log)"
    # Keep the system's numpy: Picamera2 is built against it.
    "$folder/bin/python" -c 'import numpy; print(f"numpy=={numpy.__version__}")' >.cache/constraints.txt 2>/dev/null || true
    "${pip[@]}" --constraint .cache/constraints.txt --requirement "$requirements" || pip_failed "$requirements"
    "$folder/bin/python" -c "import $module" || fail "$module does not work in $folder (see $log)"
    if [[ $goal == run ]] && ! has "$folder/bin/python" av; then # PyAV is optional, and takes half an hour to build
      "${pip[@]}" --constraint .cache/constraints.txt --only-binary av 'av >=12, <20' ||
        say "$command: no H.264: pip cannot install PyAV (see $log)"
    fi
  } >>"$log" 2>&1
  printf '%s\n' "$stamp" >"$folder/stamp"
  trap - EXIT
}

pip_failed() { # REQUIREMENTS
  if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeout|ProxyError|SSLError|Max retries' "$log"; then
    fail "no network: pip cannot fetch what $1 lists (see $log)"
  fi
  fail "pip cannot install what $1 lists: $(grep '^ERROR' "$log" | tail -n 1) (see $log)"
}

# --- The goals

needs_picamera2() { # not for the pattern camera or for what PyAV opens; a camera id, /base/…, is not a file
  [[ $camera != pattern && $camera != *://* && $camera != /dev/* && ! -f $camera && ! -p $camera ]]
}

for_run() { # prints the system's Python if it has all modules, otherwise that of .venv
  local modules=(simplejpeg numpy) python option=''
  if needs_picamera2; then
    modules+=(picamera2 libcamera)
    if ! find_python picamera2 libcamera >/dev/null && may_install; then
      start_work
      install_packages python3-picamera2
    fi
    find_python picamera2 libcamera >/dev/null ||
      fail "needs Picamera2, which Raspberry Pi OS has: sudo apt install python3-picamera2"
  fi
  # Importing Picamera2 takes a second, so it is not imported. simplejpeg is, as another numpy version breaks it.
  if python=$(find_python "${modules[@]}"); then
    if imports "$python" simplejpeg; then
      printf '%s\n' "$python"
      return
    elif needs_picamera2; then
      fail "$python cannot import simplejpeg ($("$python" -c 'import simplejpeg' 2>&1 | tail -n 1));" \
        "a numpy or simplejpeg from pip hides the system's: pip uninstall numpy simplejpeg"
    fi
  elif python=$(find_python picamera2 libcamera); then # add what it does not have
    option=--system-site-packages
    export PYTHON=$python
  fi
  make_venv .venv requirements.txt simplejpeg "$option"
  printf '%s\n' "$PWD/.venv/bin/python"
}

for_tests() { # PACKAGE…
  make_venv .venv-test tests/requirements.txt pytest
  need_packages "$@"
}

deb_tools=(dpkg-dev debhelper dh-python lintian)

case $goal in
  run) for_run ;;
  lint) for_tests shellcheck ;;
  bench)
    for_tests gcc libc6-dev linux-libc-dev ustreamer gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good python3-gi
    ;;
  deb) need_packages "${deb_tools[@]}" ;;
  release) for_tests "${deb_tools[@]}" ;;
  test)
    mapfile -t packages < <(sed 's/ *#.*//; /^$/d' tests/packages.txt)
    for_tests "${packages[@]}"
    .venv-test/bin/python -m tests.deploy.virtual 2>&3
    .venv-test/bin/python -m tests.container.engine 2>&3 >/dev/null || true # its tests say why
    .venv-test/bin/python -m tests.support.prometheus >/dev/null 2>&1 || true # so do those of the alert rules
    ;;
  *) fail "no such goal" ;;
esac
