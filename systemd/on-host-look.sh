#!/usr/bin/env bash
# What is there, a part of on-host.sh: Python, cameras, what the settings say of them, packages.

python_there() { # the interpreter asked for, else the one that is in use, else the system's
  local used
  used=$(sed -n 's/^ExecStart=\(\/[^ ]*\) .*/\1/p' "$UNIT.d/python.conf" 2>/dev/null || true)
  printf '%s\n' "${PYTHON:-${used:-/usr/bin/python3}}"
}

list_cameras() { # number, model and id, a line each, tabs between; the number is the place in Picamera2's list
  "$(python_there)" - <<'END'
from picamera2 import Picamera2
for place, camera in enumerate(Picamera2.global_camera_info()):
    print(place, camera.get("Model", "?"), camera.get("Id", "?"), sep="\t")
END
}

readonly TELL_SETTINGS='
import os, re
for key, text in os.environ.items():
    match = re.fullmatch(r"(?:CAMERA|(?i:(cam(?:0|[1-9][0-9]?))))_(\w+)", key, re.ASCII)
    if match:
        value = " ".join(re.sub(r"(^|\s)#.*", "", text, flags=re.DOTALL).split())
        is_told = match[2].lower() in ("id", "enabled")
        print((match[1] or "camera").lower() + "_" + match[2].lower(), key, value if is_told else "", sep="\t")
'

KNOWN_SETTINGS=''

know_settings() { # name, name as written, and the value where it is a camera's id or whether it is used; as systemd reads them
  KNOWN_SETTINGS=$(in_settings "$(python_there)" -c "$TELL_SETTINGS" 2>/dev/null | LC_ALL=C sort) || true
}

setting() { # NAME: nothing where it is not set
  awk -F '\t' -v name="$1" '$1 == name { value = $3 } END { print value }' <<<"$KNOWN_SETTINGS"
}

is_switched_off() { # N: by the settings, so that it needs no camera
  local value
  value=$(setting "cam$1_enabled")
  [[ ${value:-$(setting camera_enabled)} =~ ^(0|[fF][aA][lL][sS][eE]|[nN][oO]|[oO][fF][fF])$ ]]
}

id_of() { # N LISTED: the id of camera N, nothing where it is missing
  local chosen
  chosen=$(setting "cam$1_id")
  if [[ -z $chosen ]]; then
    awk -F '\t' -v n="$1" '$1 == n { print $3 }' <<<"$2"
  elif [[ $chosen == pattern ]]; then
    say pattern
  elif [[ $chosen == *://* || $chosen == /dev/* || -f $chosen || -p $chosen ]]; then
    say elsewhere
  else
    ID=$chosen awk -F '\t' '$3 == ENVIRON["ID"] { print $3 }' <<<"$2"
  fi
}

enabled_instances() { # their numbers
  local number
  find "$UNITS" -path '*.wants/camera-soft-cam@*.service' 2>/dev/null |
    sed -n 's/.*@\([0-9][0-9]*\)\.service$/\1/p' | sort -nu | while read -r number; do
    is_masked "$number" || say "$number"
  done
}

is_masked() { # N
  [[ $(readlink "$UNITS/camera-soft-cam@$1.service" 2>/dev/null) == /dev/null ]]
}

is_kept_off() { # N: it was installed before, and somebody took it off: nobody but its owner switches it on again
  is_masked "$1" ||
    { [[ -e $UNITS/camera-soft-cam@$1.service.d/binding.conf ]] && ! enabled_instances | grep -x "$1" >/dev/null; }
}

wanted_cameras() { # LISTED: those asked for, else those that are there and not kept off, and those that were enabled before
  local number
  if [[ -n $CAMERAS ]]; then
    tr ',' '\n' <<<"$CAMERAS" | sort -nu
  else
    { cut -f 1 <<<"$1"; enabled_instances; } | sed '/^$/d' | sort -nu | while read -r number; do
      is_kept_off "$number" || say "$number"
    done
  fi
}

systemd_version() {
  systemctl --version | awk 'NR == 1 { print $2 }'
}

is_installed() { # MODULE: whether it works shows when it is used
  "$(python_there)" -c "import importlib.util as u, sys; sys.exit(u.find_spec('$1') is None)"
}

missing_packages() { # those that the portal needs, and nginx where it is asked for
  local python
  python=$(python_there)
  if [[ ! -x $python ]]; then # the system's own
    say python3 python3-picamera2 python3-simplejpeg | tr ' ' '\n'
  else
    is_installed picamera2 || say python3-picamera2
    is_installed simplejpeg || say python3-simplejpeg
  fi
  if [[ -n $WITH_NGINX ]]; then
    command -v nginx >/dev/null || say nginx-light
    command -v openssl >/dev/null || say openssl
  fi
}

need_python() { # packages bring the system's own, and no other
  local python
  python=$(python_there)
  [[ -x $python || $python == /usr/bin/python3 ]] ||
    fail "$python is not there. --python names the host's Python that has picamera2: /usr/bin/python3 as a rule"
}

check() { # says what it finds; fails, with the cure, where the portal could not run
  local python version listed missing number node exports faults=() off=() found
  # shellcheck source=/dev/null
  . /etc/os-release
  python=$(python_there)
  [[ -d /run/systemd/system ]] || fail "systemd does not run here"
  version=$(systemd_version)
  ((version >= 247)) || fail "systemd $version is too old: 247 or newer is needed"
  need_python
  mapfile -t missing < <(missing_packages)
  if ((${#missing[@]})); then
    fail "missing: ${missing[*]}. Install with --install-packages, or there: sudo apt install ${missing[*]}"
  fi
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is $("$python" -V 2>&1); 3.11 or newer is needed"
  listed=$(list_cameras 2>/run/camera-soft-stream-python.log) ||
    fail "picamera2 does not work with $python (a numpy or simplejpeg from pip beside the system's?):" \
      "$(tail -n 1 /run/camera-soft-stream-python.log)"
  found=$(cut -f 1,2 <<<"$listed" | tr '\t' ' ' | paste -sd ',' | sed 's/,/, /g')
  know_settings
  exports=$(sed -nE '/^[[:space:]]*export[[:space:]]/=' "$ENV_FILE" 2>/dev/null | paste -sd ' ' || true)
  say "checked: ${PRETTY_NAME:-?}, systemd $version, $("$python" -V), cameras: ${found:-none}"
  [[ -z $exports ]] ||
    say "$ENV_FILE, line $exports: systemd leaves out what begins with export, and writes it into the journal; take that word away"
  for number in $(wanted_cameras "$listed"); do
    if [[ -z $(id_of "$number" "$listed") ]] && ! is_switched_off "$number"; then faults+=("$number"); fi
    ! is_masked "$number" || fail "camera $number is masked; to use it: sudo systemctl unmask camera-soft-cam@$number"
  done
  while read -r number; do
    if [[ -z $CAMERAS ]] && is_kept_off "$number"; then
      say "camera $number: was disabled on this host and stays off; --cameras $number switches it on"
      off+=("$number")
    fi
  done < <(cut -f 1 <<<"$listed" | sed '/^$/d')
  for node in $(tr ',' '\n' <<<"$BIND" | sed 's/^[0-9]*=//'); do
    [[ $node == none || $node == auto || -e $node ]] || fail "--bind: $node is not there"
  done
  if ((${#faults[@]})) && [[ -n $CAMERAS ]]; then
    fail "camera ${faults[*]} is not found; there: ${found:-none}. Ribbon, or cam${faults[0]}_id in $ENV_FILE?"
  fi
  [[ -n $(wanted_cameras "$listed") || ${#off[@]} == 0 ]] || fail "every camera here was disabled: name those to use by --cameras"
  [[ -n $(wanted_cameras "$listed") ]] ||
    fail "no camera is found. Ribbon? Try: rpicam-hello --list-cameras. For a test picture: --cameras 0, and in $ENV_FILE" \
      "cam0_id=pattern; for the portal without a camera CAMERA_ENABLED=off"
}

plan_packages() { # nothing is said where nothing is missing
  local missing
  need_python
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]} == 0)) || say "would install ${missing[*]}; what else is to be done shows when they are there"
}

packages() {
  local missing
  need_python
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || { say "packages: all there"; return; }
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # Soon after a boot the machine's own renewals may hold apt's lock.
  { apt-get -q update &&
    apt-get -q -o DPkg::Lock::Timeout=120 install -y --no-install-recommends "${missing[@]}"; } >/run/camera-soft-stream-apt.log 2>&1 ||
    fail "apt could not install ${missing[*]}: $(tail -n 1 /run/camera-soft-stream-apt.log)"
  say "installed ${missing[*]}"
}
