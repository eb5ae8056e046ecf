#!/usr/bin/env bash
# What deploy.sh does on the host, as root. It comes over SSH on standard input, behind its parts, so that the newest one
# runs, also where nothing is installed yet:  cat on-host-*.sh on-host.sh | bash -s -- COMMAND
#
#   check                what is there and what is missing; changes nothing
#   packages             installs what is missing
#   incoming NAME        prints an empty folder to copy release NAME to, or nothing where it is there already
#   discard FOLDER       takes such a folder away, where the copy broke off
#   install NAME FOLDER  switches to release NAME, copied to FOLDER; goes back by itself where it does not answer
#   rollback             switches to the release before
#   uninstall            takes everything away but settings and saved controls
#   plan GOAL [NAME]     what one of these three would do
#
# Options come as variables, which deploy.sh quotes: PYTHON, CAMERAS, BIND, WITH_NGINX. Each line that is printed is for
# people. Nothing here reads the settings file's values but camera ids and whether a camera is used: systemd does, for the
# portal and for probe.py.
#
# What changes the host goes on to its end whatever becomes of the connection. Where even that is cut short (power,
# kill -9), the folder `pending` stays behind, and whatever runs next goes back first (on-host-back.sh).
set -Eeuo pipefail
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022

readonly TOP=/opt/camera-soft-stream
readonly ENV_DIR=/etc/camera-streamer
readonly ENV_FILE=$ENV_DIR/camera-soft-stream.env
readonly UNITS=/etc/systemd/system
readonly UNIT=$UNITS/camera-soft-cam@.service
readonly RULES=/etc/udev/rules.d/70-camera-soft-cam.rules
readonly NGINX=/etc/nginx
readonly PENDING=$TOP/pending
readonly KEPT_RELEASES=3
readonly PATIENCE_S=45 # a Pi Zero needs 20 to import Picamera2 and open a camera

PYTHON=${PYTHON:-}
CAMERAS=${CAMERAS:-}
BIND=${BIND:-}
WITH_NGINX=${WITH_NGINX:-}

say() {
  printf '%s\n' "$*"
}

relay() { # each line to whoever listens, and to the journal; goes on where nobody listens any more
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    printf '%s\n' "$line" 2>/dev/null || true
    printf '%s\n' "$line" >&4 2>/dev/null || true
  done 4> >(exec systemd-cat --identifier=camera-soft-stream >/dev/null 2>&1)
}

RELAY=''

go_on_alone() { # from here on neither Ctrl+C nor a lost connection ends this
  trap '' PIPE HUP INT
  exec > >(exec 9>&-; relay) 2>&1
  RELAY=$!
}

leave() { # nothing ends without a word
  local status=$?
  if ((status)) && [[ -z $HAS_FAILED ]]; then
    say "FAILED: it broke off with exit code $status${BROKE_AT:+ at: $BROKE_AT}"
  fi
  exec >&- 2>&-
  [[ -z $RELAY ]] || wait "$RELAY" || true # until the last line is told
  exit "$status"
}

HAS_FAILED=''
BROKE_AT='' # the command as it is written here, without values

fail() {
  HAS_FAILED=1
  say "FAILED: $*"
  exit 1
}

# --- What is there

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

is_switched_off() { # N: by the settings file, so that it needs no camera
  local value
  value=$(sed -nE "s/^[[:space:]]*(CAMERA|[cC][aA][mM]$1)_[eE][nN][aA][bB][lL][eE][dD]=[\"']?([A-Za-z0-9]*).*/\L\1=\2/p" "$ENV_FILE" \
    2>/dev/null | sort -t = -k 1,1 -s -r | tail -n 1 || true) # cam0 goes before camera
  [[ ${value#*=} =~ ^(0|[fF][aA][lL][sS][eE]|[nN][oO]|[oO][fF][fF])$ ]]
}

chosen_id() { # N: cam<N>_id of the settings file. An id is no secret, the address of another program's camera may be.
  sed -n "s/^[[:space:]]*[cC][aA][mM]$1_[iI][dD]=\"\{0,1\}\([^\"#]*[^\"# ]\).*/\1/p" "$ENV_FILE" 2>/dev/null | tail -n 1 || true
}

id_of() { # N LISTED: the id of camera N, nothing where it is missing
  local chosen
  chosen=$(chosen_id "$1")
  if [[ -z $chosen ]]; then
    awk -F '\t' -v n="$1" '$1 == n { print $3 }' <<<"$2"
  elif [[ $chosen == pattern ]]; then
    say pattern
  elif [[ $chosen == *://* || $chosen == /dev/* || -f $chosen ]]; then
    say elsewhere
  else
    awk -F '\t' -v id="$chosen" '$3 == id { print $3 }' <<<"$2"
  fi
}

enabled_instances() { # their numbers
  find "$UNITS" -path '*.wants/camera-soft-cam@*.service' 2>/dev/null |
    sed -n 's/.*@\([0-9][0-9]*\)\.service$/\1/p' | sort -nu
}

wanted_cameras() { # LISTED: those asked for, else those that are there and those that were enabled before
  if [[ -n $CAMERAS ]]; then
    tr ',' '\n' <<<"$CAMERAS" | sort -nu
  else
    { cut -f 1 <<<"$1"; enabled_instances; } | sed '/^$/d' | sort -nu
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
  if [[ ! -x $python ]]; then
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

check() { # says what it finds; fails, with the cure, where the portal could not run
  local python version listed missing number node faults=() found
  # shellcheck source=/dev/null
  . /etc/os-release
  python=$(python_there)
  [[ -d /run/systemd/system ]] || fail "systemd does not run here"
  version=$(systemd_version)
  ((version >= 247)) || fail "systemd $version is too old: 247 or newer is needed"
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
  say "checked: ${PRETTY_NAME:-?}, systemd $version, $("$python" -V), cameras: ${found:-none}"
  for number in $(wanted_cameras "$listed"); do
    if [[ -z $(id_of "$number" "$listed") ]] && ! is_switched_off "$number"; then faults+=("$number"); fi
  done
  for node in $(tr ',' '\n' <<<"$BIND" | sed 's/^[0-9]*=//'); do
    [[ $node == none || $node == auto || -e $node ]] || fail "--bind: $node is not there"
  done
  if ((${#faults[@]})) && [[ -n $CAMERAS ]]; then
    fail "camera ${faults[*]} is not found; there: ${found:-none}. Ribbon, or cam${faults[0]}_id in $ENV_FILE?"
  fi
  [[ -n $(wanted_cameras "$listed") ]] ||
    fail "no camera is found. Ribbon? Try: rpicam-hello --list-cameras. For a test picture: --cameras 0, and in $ENV_FILE" \
      "cam0_id=pattern; for the portal without a camera CAMERA_ENABLED=off"
}

packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || { say "packages: all there"; return; }
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"; } >/run/camera-soft-stream-apt.log 2>&1 ||
    fail "apt could not install ${missing[*]}: $(tail -n 1 /run/camera-soft-stream-apt.log)"
}

# --- Files that the owner may edit

shipped_hash() { # DESTINATION
  cat "$TOP/shipped/${1//\//_}" 2>/dev/null || true
}

hash_of() { # FILE
  sha256sum <"$1" | cut -d ' ' -f 1
}

is_edited() { # DESTINATION: it is there and not as it was shipped
  [[ -e $1 && $(hash_of "$1") != "$(shipped_hash "$1")" ]]
}

without_secrets() { # a settings file's or a site's text, for people
  sed -E -e 's/^([+ -]?[#[:space:]]*[A-Za-z0-9_]*(KEY|PASSWORD|TOKEN|SECRET)[A-Za-z0-9_]*=).+/\1(not shown)/I' \
    -e 's/((authorization|x-[a-z-]*(key|token|secret|password))["'"'"']?:?)[[:space:]=].+/\1 (not shown)/I' \
    -e 's/([?&][a-z_-]*(key|token|secret|password)=)[^&[:space:]"]+/\1(not shown)/Ig' \
    -e 's#(://)[^[:space:]]+@#\1(not shown)@#g'
}

ship() { # SOURCE DESTINATION MODE: an edited file stays, and how the new one differs is shown
  local source=$1 destination=$2 mode=$3
  if is_edited "$destination"; then
    if [[ $(hash_of "$source") != "$(hash_of "$destination")" ]]; then
      say "$destination was edited and stays; the shipped one differs (- yours, + shipped):"
      # Help texts are left out: what is set and what is offered, #NAME=, is told by the lines themselves.
      { diff -U 0 "$destination" "$source" || true; } | sed -E '1,2d; /^@@/d; /^[+-][[:space:]]*(#([[:space:]].*)?)?$/d' |
        without_secrets | sed -n '1,60s/^/    /p'
    fi
    return
  fi
  if [[ -e $destination ]] && cmp -s "$source" "$destination"; then
    return
  fi
  place "$source" "$destination" "$mode"
  hash_of "$source" | write_if_other "$TOP/shipped/${destination//\//_}"
}

place() { # SOURCE DESTINATION MODE: whole or not at all, on a full disk as well
  if ! { install -D -m "$3" "$1" "$2.new" && mv -f "$2.new" "$2"; }; then
    rm -f "$2.new"
    return 1
  fi
}

write_if_other() { # FILE: from standard input
  local file=$1 text
  text=$(cat)
  if [[ ! -e $file || $(<"$file") != "$text" ]]; then
    install -d -m 755 "${file%/*}"
    if ! { printf '%s\n' "$text" >"$file.new" && mv -f "$file.new" "$file"; }; then
      rm -f "$file.new"
      return 1
    fi
  fi
}

# --- Running something where the portal runs: its settings, and rights as few

in_settings() { # COMMAND…
  systemd-run --quiet --wait --pipe --collect --property="EnvironmentFile=-$ENV_FILE" --property=DynamicUser=yes \
    --property=Environment=PYTHONDONTWRITEBYTECODE=1 "$@" </dev/null
}

probe() { # RELEASE look|port|nginx N [SECONDS]
  in_settings "$(python_there)" "$TOP/releases/$1/systemd/probe.py" "${@:2}"
}

# --- The device that an instance is bound to

device_unit() { # NODE
  systemd-escape --path --suffix=device "$1"
}

asked_node() { # N: what --bind said now, or the last time: a node, or none; nothing where it is to be found
  local asked
  asked=$(tr ',' '\n' <<<"$BIND" | sed -n "s/^$1=//p" | tail -n 1)
  if [[ -z $asked ]]; then
    asked=$(sed -n '1s/^# Written by deploy.sh --bind [0-9]*=\(.*\)\.$/\1/p' "$UNITS/camera-soft-cam@$1.service.d/binding.conf" 2>/dev/null || true)
  fi
  [[ $asked == auto ]] || printf '%s' "$asked"
}

node_of() { # RELEASE N LISTED: the node that was asked for, or that belongs to the camera; nothing, and why on 2
  local asked id
  asked=$(asked_node "$2")
  if [[ -n $asked ]]; then
    [[ $asked == none ]] || say "$asked"
    return
  fi
  id=$(id_of "$2" "$3")
  [[ -n $id ]] || { printf 'the camera is not there\n' >&2; return; }
  [[ $id != pattern ]] || { printf 'a made-up camera has none\n' >&2; return; }
  [[ $id != elsewhere ]] || { printf 'the camera belongs to another program\n' >&2; return; }
  "$(python_there)" "$TOP/releases/$1/systemd/find_node.py" "$id" || true
}

bind_instance() { # RELEASE N LISTED
  local release=$1 number=$2 node device why tries
  local folder="$UNITS/camera-soft-cam@$2.service.d" reasons asked by='deploy.sh'
  asked=$(asked_node "$number")
  if [[ -n $asked ]]; then by="deploy.sh --bind $number=$asked"; fi
  reasons=$(mktemp -p /run)
  node=$(node_of "$release" "$number" "$3" 2>"$reasons")
  why=$(tail -n 1 "$reasons")
  rm -f "$reasons"
  if [[ -n $asked && $asked != none && ! -e $node ]]; then why="$node is not there"; fi
  if [[ ,$BIND != *",$number="* && $why == *" is not there" && -e $folder/binding.conf ]]; then
    say "camera $number: stays bound as it is; $why"
    return
  fi
  if [[ -n $node ]]; then
    device=$(device_unit "$node")
    # udev tells systemd a moment after the rule is there.
    for ((tries = 0; tries < 20; tries++)); do
      systemctl --quiet is-active "$device" && break
      [[ -e $node && -e /run/udev/control ]] || break
      sleep 0.2
    done
    if systemctl --quiet is-active "$device"; then
      write_if_other "$folder/binding.conf" <<END
# Written by $by.
# The instance stops when its camera's device goes, and starts when that comes back.
[Unit]
Description=Soft Stream, camera %i, bound to $node
BindsTo=$device
After=$device

[Install]
WantedBy=
WantedBy=$device
END
      say "camera $number: bound to $node"
      return
    fi
    why="systemd does not know $node"
  fi
  write_if_other "$folder/binding.conf" <<END
# Written by $by.
# Bound to no device: ${why:-as was asked for}.
[Unit]
Description=Soft Stream, camera %i, bound to no device
END
  say "camera $number: bound to no device: ${why:-as was asked for}"
}

# --- Releases

current_release() {
  basename "$(readlink "$TOP/current" 2>/dev/null || true)"
}

switch_link() { # NAME LINK: at once; nobody ever sees no link or half of one
  ln -sfn "releases/$1" "$TOP/$2.new" && mv -T "$TOP/$2.new" "$TOP/$2"
}

activate() { # NAME: its unit, rule and code are those in use from now on; 1 where not
  local release="$TOP/releases/$1"
  cmp -s "$release/systemd/camera-soft-cam@.service" "$UNIT" ||
    place "$release/systemd/camera-soft-cam@.service" "$UNIT" 644 || return
  if ! cmp -s "$release/systemd/70-camera-soft-cam.rules" "$RULES"; then
    place "$release/systemd/70-camera-soft-cam.rules" "$RULES" 644 || return
    if [[ -e /run/udev/control ]]; then
      udevadm control --reload
      udevadm trigger --settle --subsystem-match=video4linux
    fi
  fi
  [[ $(current_release) == "$1" ]] || switch_link "$1" current
}

write_python() {
  local python
  python=$(python_there)
  if [[ $python == /usr/bin/python3 ]]; then
    rm -f "$UNIT.d/python.conf"
    return
  fi
  write_if_other "$UNIT.d/python.conf" <<END
# Written by deploy.sh --python.
[Service]
ExecStart=
ExecStart=$python $TOP/current/soft_stream.py --camera %i
END
}

is_behind() { # N: it runs, but something of what it is started with is newer than its start; or it does not run
  local file files=("$TOP/current") began_us
  [[ -z $MUST_RESTART ]] || return 0
  systemctl --quiet is-active "camera-soft-cam@$1.service" || return 0
  for file in "$UNIT" "$UNIT.d" "$UNIT.d"/*.conf "$UNITS/camera-soft-cam@$1.service.d"{,/*.conf} "$ENV_FILE"; do
    if [[ -e $file ]]; then files+=("$file"); fi
  done
  began_us=$(systemctl show --value --property=ExecMainStartTimestampMonotonic "camera-soft-cam@$1.service")
  ! "$(python_there)" -c "$IS_UP_TO_DATE" "$began_us" "${files[@]}" 2>/dev/null
}

# By the clock that never jumps, as a Pi's does once it hears of the time; and by when a file came there, not by the
# date that it has.
readonly IS_UP_TO_DATE='
import os, sys, time
began_s = int(sys.argv[1]) / 1e6 + time.time() - time.clock_gettime(time.CLOCK_MONOTONIC)
sys.exit(max(os.lstat(path).st_ctime for path in sys.argv[2:]) > began_s)
'

instances() { # N…: their units
  (($# == 0)) || printf 'camera-soft-cam@%s.service\n' "$@"
}

last_words() { # N: what the journal has of the last start
  journalctl --quiet --no-pager --output=cat --unit "camera-soft-cam@$1.service" --lines 8 2>/dev/null | without_secrets | sed 's/^/    /'
}

is_missing() { # N: it ended because its camera is not there
  [[ $(systemctl show --value --property=ExecMainStatus "camera-soft-cam@$1.service") == 66 ]] &&
    ! systemctl --quiet is-active "camera-soft-cam@$1.service"
}

ask() { # RELEASE N: what probe.py says; gives up early on an instance that only ends and ends
  local answer status began=$SECONDS restarts
  while :; do
    status=0
    answer=$(probe "$1" look "$2" 3) || status=$?
    restarts=$(systemctl show --value --property=NRestarts "camera-soft-cam@$2.service")
    if ((status != 1)) || ((SECONDS - began > PATIENCE_S)) || { ((SECONDS - began > 5)) && ((restarts > 1)); }; then
      break
    fi
  done
  printf '%s\n' "$answer"
  return "$status"
}

start_and_ask() { # RELEASE LISTED N…: start what does not run as it should, and ask each; 1 where one does not answer
  local release=$1 listed=$2 number answer status restarts=()
  shift 2
  for number in "$@"; do
    if is_behind "$number"; then
      restarts+=("camera-soft-cam@$number.service")
    fi
  done
  if ((${#restarts[@]})); then
    systemctl reset-failed "${restarts[@]}" 2>/dev/null || true
    systemctl restart "${restarts[@]}" 2>/dev/null || true # how each is doing is asked below
  fi
  for number in "$@"; do
    if [[ -z $(id_of "$number" "$listed") ]] && is_missing "$number"; then
      say "camera $number: missing; its instance waits for it (exit 66)"
      continue
    fi
    status=0
    answer=$(ask "$release" "$number") || status=$?
    say "camera $number: ${answer:-cannot be asked}"
    if ((status == 3)) && [[ " $MUST_SEE " != *" $number "* ]]; then
      say "camera $number: as before"
    elif ((status)); then
      say "camera $number: its journal:"
      last_words "$number"
      return 1
    fi
  done
}

incoming() { # NAME
  install -d -m 755 "$TOP" "$TOP/releases"
  # Of copies that broke off; one may be under way right now.
  find "$TOP/releases" -mindepth 1 -maxdepth 1 -name '.incoming-*' -mmin +60 -exec rm -rf {} +
  [[ -d $TOP/releases/$1 ]] || mktemp -d "$TOP/releases/.incoming-XXXXXX" ||
    fail "there is no room for a release in $TOP"
}

discard() { # FOLDER of `incoming`
  [[ $1 != "$TOP"/releases/.incoming-* ]] || rm -rf "$1"
}

take_in() { # NAME [FOLDER]: what was copied gets its name once it is whole
  local from=${2:-}
  if [[ -d $TOP/releases/$1 ]]; then
    [[ -z $from ]] || rm -rf "$from" # somebody else copied the same
    return
  fi
  [[ $from == "$TOP"/releases/.incoming-* ]] || fail "release $1 is not there"
  [[ -f $from/soft_stream.py && -f $from/systemd/on-host.sh ]] || {
    rm -rf "$from"
    fail "release $1 was not copied in whole"
  }
  chown -R root:root "$from"
  chmod -R u=rwX,go=rX "$from"
  if [[ -d $from/env ]]; then chmod -R go= "$from/env"; fi # whoever deploys may have written a key into it
  # The service may not write there; it starts faster with what Python would have written.
  "$(python_there)" -m compileall -q "$from/softcam" >/dev/null 2>&1 || true
  mv -T "$from" "$TOP/releases/$1"
}

prune() { # keeps the newest few, those in use among them
  local name kept=0
  while read -r name; do
    if [[ $name == "$(current_release)" || $name == "$(basename "$(readlink "$TOP/previous" || true)")" ]]; then
      continue
    fi
    ((++kept > KEPT_RELEASES - 2)) && rm -rf "${TOP:?}/releases/$name"
  done < <(find "$TOP/releases" -mindepth 1 -maxdepth 1 -type d -not -name '.*' -printf '%T@ %f\n' | sort -rn | cut -d ' ' -f 2)
  return 0
}

MUST_SEE='' # cameras that a release must get a picture from: those that gave one before, or were never asked

put_in_place() { # RELEASE LISTED N…: all that has to be there before the instances start
  local release=$1 listed=$2 number instances
  shift 2
  ship "$TOP/releases/$release/env/camera-soft-stream.env" "$ENV_FILE" 600
  # Only where it is needed, since it makes the file newer than the instances.
  [[ $(stat -c %a "$ENV_FILE") == 600 ]] || chmod 600 "$ENV_FILE"
  write_python
  activate "$release"
  for number in "$@"; do
    bind_instance "$release" "$number" "$listed"
  done
  systemctl daemon-reload
  # Anew, since what wants an instance may be another device now.
  mapfile -t instances < <(instances "$@")
  systemctl --quiet reenable "${instances[@]}" 2>/dev/null || systemctl --quiet enable "${instances[@]}"
}

reason_of() { # FILE: what a program said last, without where it stands
  tail -n 1 "$1" 2>/dev/null | sed -E 's/^(bash: )?line [0-9]+: //' | without_secrets
}

port_taken() { # RELEASE N: prints the port where another program has it
  local port pids
  port=$(probe "$1" port "$2") || return 1
  pids=$(systemctl show --value --property=MainPID 'camera-soft-cam@*.service' | grep -v '^0*$' || true)
  # shellcheck disable=SC2086 # some numbers
  "$(python_there)" -c "$HAS_STRANGER" "$port" here $pids 2>/dev/null || return 1
  say "$port"
}

# Exit 0 where something listens at that port, on this machine's own address or on all (here), or anywhere (any), and is
# none of these processes.
readonly HAS_STRANGER='
import os, sys
port, where, pids = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
ours = set()
for pid in pids:
    for entry in os.scandir(f"/proc/{pid}/fd"):
        ours.add(os.readlink(entry.path))
everywhere_or_here = ("00000000", "0100007F", "0" * 32, "0" * 24 + "01000000", "0000000000000000FFFF00000100007F")
for name in ("/proc/net/tcp", "/proc/net/tcp6"):
    if os.path.exists(name):
        for fields in map(str.split, list(open(name))[1:]):
            address, _, number = fields[1].partition(":")
            listens = fields[3] == "0A" and int(number, 16) == port and (where == "any" or address in everywhere_or_here)
            if listens and f"socket:[{fields[9]}]" not in ours:
                sys.exit(0)
sys.exit(1)
'

install_release() { # NAME [FOLDER that it was copied to]
  local release=$1 listed before number asked numbers answer status port
  local reasons=/run/camera-soft-stream-why.log
  take_in "$release" "${2:-}"
  settle || true
  listed=$(list_cameras 2>/dev/null || true) # whether it works was checked before
  mapfile -t asked < <(wanted_cameras "$listed")
  # All of them run the release that `current` names, so all are started anew and asked.
  mapfile -t numbers < <({ printf '%s\n' "${asked[@]}"; enabled_instances; } | sort -nu)
  before=$(current_release)
  for number in "${numbers[@]}"; do
    [[ " ${asked[*]} " == *" $number "* ]] ||
      say "camera $number: enabled before, so it goes on, with the same release (off: sudo systemctl disable --now camera-soft-cam@$number)"
    status=0
    answer=$(in_settings "$(python_there)" "$TOP/releases/$release/soft_stream.py" --camera "$number" --check 2>&1) || status=$?
    case $status in
      0) ;;
      78 | 2) fail "camera $number: bad settings in $ENV_FILE, nothing was changed: $(without_secrets <<<"$answer")" ;;
      *)
        [[ $release == "$before" ]] || rm -rf "${TOP:?}/releases/$release"
        fail "release $release does not run here, nothing was changed: $(tail -n 1 <<<"$answer" | without_secrets)"
        ;;
    esac
    if port=$(port_taken "$release" "$number"); then
      fail "camera $number: port $port is taken by another program, nothing was changed (who: sudo ss -ltnp 'sport = :$port')"
    fi
    if [[ -n $WITH_NGINX && " ${asked[*]} " == *" $number "* ]] && port=$(outside_port_taken "$number"); then
      fail "camera $number: port $port, nginx's, is taken by another program, nothing was changed (who: sudo ss -ltnp" \
        "'sport = :$port')"
    fi
    if ! systemctl --quiet is-active "camera-soft-cam@$number.service"; then
      if [[ -z $before ]]; then MUST_SEE+=" $number"; fi
    elif [[ $before != "$release" ]] && probe "$before" look "$number" 5 >/dev/null 2>&1; then
      MUST_SEE+=" $number"
    fi
  done

  install -d -m 755 "$ENV_DIR"
  # Their own shells: what fails in them ends them, and only them. Outside of `if`, where bash would go on.
  set +e
  (set -e; note_way_back "$before" "${numbers[@]}") 2>"$reasons"
  status=$?
  set -e
  if ((status)); then
    rm -rf "$PENDING.new"
    [[ $release == "$before" ]] || rm -rf "${TOP:?}/releases/$release"
    fail "nothing was changed: $(reason_of "$reasons")"
  fi
  set +e
  (set -e; put_in_place "$release" "$listed" "${numbers[@]}") 2>"$reasons"
  status=$?
  set -e
  if ((status)); then
    answer="no settings or unit could be written for release $release: $(reason_of "$reasons")"
  elif ! start_and_ask "$release" "$listed" "${numbers[@]}"; then
    status=1
    answer="release $release does not work"
  fi
  if ((status)); then
    if [[ -z $before ]]; then
      go_back "$before" "$listed" "${numbers[@]}"
      fail "$answer, and there is no older one: its instances are stopped"
    fi
    if [[ $before == "$release" ]] && ! has_changed; then
      forget_way_back
      fail "$answer any more, as this host and its settings are now; it was not changed"
    fi
    say "going back to $before"
    go_back "$before" "$listed" "${numbers[@]}" || { forget_way_back; fail "$answer, and $before does not either"; }
    [[ $before != "$release" ]] || fail "$answer with these options; it runs again as before"
    rm -rf "${TOP:?}/releases/$release"
    fail "$answer; $before runs again"
  fi
  if [[ -n $before && $before != "$release" ]]; then
    remember_change
    switch_link "$before" previous
  fi
  forget_way_back
  [[ -z $WITH_NGINX ]] || nginx_sites "$release" "${asked[@]}"
  prune
  if [[ $before == "$release" ]]; then
    say "done: release $release, as before"
  else
    say "done: release $release${before:+, before it $before}"
  fi
}

plan() { # NAME
  local listed number numbers before
  listed=$(list_cameras 2>/dev/null || true) # whether it works was checked before
  mapfile -t numbers < <(wanted_cameras "$listed")
  before=$(current_release)
  if [[ -d $PENDING ]]; then
    before=$(<"$PENDING/release")
    say "a deployment is under way or was cut short; in that case would go back to ${before:-nothing} first"
  fi
  if [[ $before == "$1" ]]; then
    say "would keep release $1, which is in use"
  elif [[ -d $TOP/releases/$1 ]]; then
    say "would switch from ${before:-nothing} to release $1, which is there"
  else
    say "would copy release $1, and switch to it from ${before:-nothing}"
  fi
  if [[ ! -e $ENV_FILE ]]; then
    say "would install $ENV_FILE"
  elif is_edited "$ENV_FILE"; then
    say "would keep $ENV_FILE, which was edited"
  else
    say "would renew $ENV_FILE, which was never edited"
  fi
  for number in "${numbers[@]}"; do
    say "would enable and start camera-soft-cam@$number.service"
    [[ -z $WITH_NGINX ]] || say "would let nginx show camera $number at port $((8081 + number)), with a password"
  done
}

uninstall() {
  local number folder left=()
  for number in $(enabled_instances); do
    systemctl --quiet disable --now "camera-soft-cam@$number.service" 2>/dev/null || true
  done
  systemctl stop 'camera-soft-cam@*.service' 2>/dev/null || true
  systemctl reset-failed 'camera-soft-cam@*.service' 2>/dev/null || true
  rm -f "$UNIT" "$UNIT.d/python.conf" "$UNITS"/camera-soft-cam@*.service.d/binding.conf "$RULES"
  for folder in "$UNITS"/camera-soft-cam@*.service.d; do
    # What else is in there the owner wrote.
    if [[ -d $folder ]] && ! rmdir "$folder" 2>/dev/null; then left+=("$folder"); fi
  done
  systemctl daemon-reload
  systemctl reset-failed 'camera-soft-cam@*.service' 2>/dev/null || true
  if compgen -G "$NGINX/sites-available/camera-soft-cam*.conf" >/dev/null; then
    rm -f "$NGINX"/sites-enabled/camera-soft-cam*.conf "$NGINX"/sites-available/camera-soft-cam*.conf \
      "$NGINX"/camera-soft-cam*.key "$NGINX/camera-soft-cam.htpasswd" "$NGINX/snippets/camera-soft-cam.conf" \
      "$ENV_DIR/nginx-password"
    if nginx -t -q 2>/dev/null; then systemctl reload nginx 2>/dev/null || true; fi
  fi
  rm -rf "${TOP:?}"
  say "done: uninstalled. Left: $ENV_DIR (settings), /var/lib/private/camera-soft-cam (saved controls)${left[*]:+, your own ${left[*]}}"
}

plan_uninstall() {
  local number
  for number in $(enabled_instances); do
    say "would stop and disable camera-soft-cam@$number.service"
  done
  say "would take away $UNIT, $RULES, $TOP, and nginx's sites and password"
  say "would leave $ENV_DIR (settings), /var/lib/private/camera-soft-cam (saved controls), and drop-ins of your own"
}

# --- One at a time, whoever else deploys; what only looks need not wait

alone() {
  exec 9>/run/camera-soft-stream.lock
  flock --nonblock 9 || {
    say "waits for another deployment to end"
    flock --timeout 600 9 || fail "another deployment does not end"
  }
}

main() {
  trap 'BROKE_AT=${BASH_COMMAND%%$'"'\\n'"'*}' ERR
  trap leave EXIT
  ((EUID == 0)) || fail "needs root"
  case ${1:-} in
    check) check ;;
    plan)
      case $2 in
        install) plan "$3" ;;
        rollback) plan_rollback ;;
        uninstall) plan_uninstall ;;
      esac
      ;;
    packages) alone && packages ;;
    incoming) incoming "$2" ;;
    discard) discard "$2" ;;
    install) alone && go_on_alone && install_release "$2" "${3:-}" ;;
    rollback) alone && go_on_alone && rollback ;;
    uninstall) alone && go_on_alone && uninstall ;;
    *) fail "no such command: ${1:-none}" ;;
  esac
}

# All of it is read before the first line runs, so nothing below can eat it.
main "$@" </dev/null
