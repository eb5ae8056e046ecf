#!/usr/bin/env bash
# What deploy.sh does on the host, as root. It comes over SSH on standard input, behind its parts, so that the newest one
# runs, also where nothing is installed yet:  cat on-host-*.sh on-host.sh | bash -s -- COMMAND
#
#   check                what is there and what is missing; changes nothing
#   packages             installs what is missing
#   incoming NAME        prints an empty folder, which only root can enter, to copy release NAME to, or nothing where it
#                        is there already
#   discard FOLDER       takes such a folder away, where the copy broke off
#   install NAME FOLDER  switches to release NAME, copied to FOLDER; goes back by itself where it does not answer
#   rollback             switches to the release before
#   uninstall            takes everything away but settings and saved controls
#   plan GOAL [NAME]     what one of these three would do, or `packages`
#
# Options come as variables, which deploy.sh quotes: PYTHON, CAMERAS, BIND, WITH_NGINX. Each line that is printed is for
# people. Nothing here reads a value in the settings file: systemd does, for the portal, for probe.py, and for what is
# asked here.
#
# What changes the host goes on to its end whatever becomes of the connection. Where even that is cut short (power,
# kill -9), the folder `pending` stays behind, and whatever runs next goes back first (on-host-back.sh).
set -Eeuo pipefail
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022
cd / # Python looks for modules here first; whoever logged in may have a numpy.py at home

readonly TOP=/opt/camera-soft-stream
readonly ENV_DIR=/etc/camera-streamer
readonly ENV_FILE=$ENV_DIR/camera-soft-stream.env
readonly UNITS=/etc/systemd/system
readonly UNIT=$UNITS/camera-soft-cam@.service
readonly RULES=/etc/udev/rules.d/70-camera-soft-cam.rules
readonly NGINX=/etc/nginx
readonly PENDING=$TOP/pending
readonly LEFT_HASH=$ENV_DIR/.shipped # that of the settings, which --uninstall leaves: an untouched file is no edited one
readonly KEPT_RELEASES=3
readonly CHECK_S=60 # of settings and, where there is one, of the hook, which is somebody else's code
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

waits_for_device() { # N: it is bound to a device that is not there, so systemd does not even start it
  local device
  # systemctl would show it in quotes, each backslash twice.
  device=$(sed -n 's/^BindsTo=//p' "$UNITS/camera-soft-cam@$1.service.d/binding.conf" 2>/dev/null || true)
  [[ -n $device ]] && ! systemctl --quiet is-active "$device"
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
    if ! waits_for_device "$number" && is_behind "$number"; then
      restarts+=("camera-soft-cam@$number.service")
    fi
  done
  if ((${#restarts[@]})); then
    systemctl reset-failed "${restarts[@]}" 2>/dev/null || true
    systemctl restart "${restarts[@]}" 2>/dev/null || true # how each is doing is asked below
  fi
  for number in "$@"; do
    if waits_for_device "$number"; then
      say "camera $number: its device is not there; its instance waits for it"
      continue
    fi
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
  local folder
  install -d -m 755 "$TOP" "$TOP/releases"
  # Of copies that broke off; one may be under way right now.
  find "$TOP/releases" -mindepth 1 -maxdepth 1 -name '.incoming-*' -mmin +60 -exec rm -rf {} +
  [[ ! -d $TOP/releases/$1 ]] || return 0
  # The outer folder keeps everybody out while it is copied; the inner one may get any mode by that.
  { folder=$(mktemp -d "$TOP/releases/.incoming-XXXXXX") && mkdir "$folder/release"; } ||
    fail "there is no room for a release in $TOP"
  say "$folder/release"
}

discard() { # FOLDER of `incoming`
  [[ $1 != "$TOP"/releases/.incoming-*/release ]] || rm -rf "${1%/release}"
}

take_in() { # NAME [FOLDER]: what was copied gets its name once it is whole
  local from=${2:-}
  if [[ -d $TOP/releases/$1 ]]; then
    discard "$from" # somebody else copied the same
    return
  fi
  [[ $from == "$TOP"/releases/.incoming-*/release ]] || fail "release $1 is not there"
  [[ -f $from/soft_stream.py && -f $from/systemd/on-host.sh ]] || {
    discard "$from"
    fail "release $1 was not copied in whole"
  }
  chown -R root:root "$from"
  # Before anybody can enter. Of what is one file with the older release's nothing changes.
  chmod -R u=rwX,go=rX "$from"
  if [[ -d $from/env ]]; then chmod -R go= "$from/env"; fi # whoever deploys may have written a key into it
  # The service may not write there; it starts faster with what Python would have written.
  "$(python_there)" -m compileall -q "$from/softcam" >/dev/null 2>&1 || true
  touch "$from" # its age counts from here
  sync --file-system "$from" || true # or else a power cut might leave its name and empty files
  mv -T "$from" "$TOP/releases/$1"
  discard "$from"
}

drop_release() { # NAME: where it was the first one, nothing is left
  rm -rf "${TOP:?}/releases/$1"
  rmdir "$TOP/releases" "$TOP" 2>/dev/null || true
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

reason_of() { # FILE: what a program said last, or as its reason (nginx), without where it stands
  { grep -F '[emerg]' "$1" || tail -n 1 "$1"; } 2>/dev/null | tail -n 1 | sed -E 's/^(bash: )?line [0-9]+: //' | without_secrets
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

look_ahead() { # RELEASE N…: 1, and why, where one of them could not start with it
  local release=$1 number answer status port
  for number in "${@:2}"; do
    status=0
    answer=$(in_settings /usr/bin/timeout "$CHECK_S" "$(python_there)" "$TOP/releases/$release/soft_stream.py" \
      --camera "$number" --check 2>&1) || status=$?
    case $status in
      0) ;;
      124)
        say "camera $number: checking its settings takes more than $CHECK_S s, nothing was changed (a hook that does not end loading?)"
        return 1
        ;;
      78 | 2)
        say "camera $number: bad settings in $ENV_FILE, nothing was changed: $(without_secrets <<<"$answer")"
        return 1
        ;;
      *)
        answer=$(sed '/^[[:space:]]*$/d' <<<"$answer" | tail -n 1 | without_secrets)
        say "release $release does not run here, nothing was changed: ${answer:-it says nothing, and ends with exit code $status}"
        return 1
        ;;
    esac
    if port=$(port_taken "$release" "$number"); then
      say "camera $number: port $port is taken by another program, nothing was changed (who: sudo ss -ltnp 'sport = :$port')"
      return 1
    fi
  done
}

install_release() { # NAME [FOLDER that it was copied to]
  local release=$1 listed before number asked numbers answer status
  local reasons=/run/camera-soft-stream-why.log
  take_in "$release" "${2:-}"
  settle || true
  know_settings
  listed=$(list_cameras 2>/dev/null || true) # whether it works was checked before
  mapfile -t asked < <(wanted_cameras "$listed")
  # All of them run the release that `current` names, so all are started anew and asked.
  mapfile -t numbers < <({ printf '%s\n' "${asked[@]}"; enabled_instances; } | sort -nu)
  before=$(current_release)
  for number in "${numbers[@]}"; do
    [[ " ${asked[*]} " == *" $number "* ]] ||
      say "camera $number: enabled before, so it goes on, with the same release (off: sudo systemctl disable --now camera-soft-cam@$number)"
  done
  answer=$(look_ahead "$release" "${numbers[@]}") || {
    # What is wrong may be the release, and it is copied anew then; settings and ports are none of its faults.
    [[ $release == "$before" || $answer != 'release '* ]] || drop_release "$release"
    fail "$answer"
  }
  [[ -z $WITH_NGINX ]] || look_at_nginx "${asked[@]}"
  for number in "${numbers[@]}"; do
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
    [[ $release == "$before" ]] || drop_release "$release"
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
      drop_release "$release"
      fail "$answer, and there is no older one: nothing of it is left"
    fi
    if [[ $before == "$release" ]] && ! has_changed; then
      forget_way_back
      fail "$answer any more, as this host and its settings are now; it was not changed"
    fi
    say "going back to $before"
    go_back "$before" "$listed" "${numbers[@]}" || { forget_way_back; fail "$answer, and $before does not either"; }
    [[ $before != "$release" ]] || fail "$answer with these options; it runs again as before"
    drop_release "$release"
    fail "$answer; $before runs again"
  fi
  if [[ -n $before && $before != "$release" ]]; then
    remember_change
    switch_link "$before" previous
  fi
  forget_way_back
  if [[ -n $WITH_NGINX ]]; then nginx_sites "$release" "${asked[@]}"; fi
  renew_keys "$release" "${numbers[@]}"
  prune
  if [[ $before == "$release" ]]; then
    say "done: release $release, as before"
  else
    say "done: release $release${before:+, before it $before}"
  fi
}

plan() { # NAME
  local listed number numbers before answer
  know_settings
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
  # By the release that is there: the new one is not yet. Where that does not run, the new one may.
  if [[ -n $before && -d $TOP/releases/$before ]]; then
    answer=$(look_ahead "$before" "${numbers[@]}") || [[ $answer == 'release '* ]] || fail "$answer"
  fi
  if [[ -n $WITH_NGINX ]] && command -v nginx >/dev/null; then look_at_nginx "${numbers[@]}"; fi
  for number in "${numbers[@]}"; do
    say "would enable and start camera-soft-cam@$number.service"
    [[ -z $WITH_NGINX ]] || say "would let nginx show camera $number at port $((8081 + number)), with a password"
  done
  for number in $(enabled_instances); do
    [[ " ${numbers[*]} " == *" $number "* ]] || say "would go on with camera $number, enabled before, with the same release"
  done
}

uninstall() {
  local number folder hash left=() reasons
  for number in $(enabled_instances); do
    systemctl --quiet disable --now "camera-soft-cam@$number.service" 2>/dev/null || true
  done
  find "$UNITS" -path '*.wants/camera-soft-cam@*.service' -delete # of masked ones
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
    reasons=$(mktemp -p /run)
    if nginx -t -q 2>"$reasons"; then
      systemctl reload nginx 2>/dev/null || true
    elif command -v nginx >/dev/null; then # a site of the owner's own, which wants what is gone, for one
      say "nginx does not take its configuration any more, so it would not start again: $(reason_of "$reasons")"
    fi
    rm -f "$reasons"
  fi
  hash=$(shipped_hash "$ENV_FILE")
  if [[ -n $hash && -e $ENV_FILE ]]; then write_if_other "$LEFT_HASH" <<<"$hash"; fi
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
        packages) plan_packages ;;
        install) plan "$3" ;;
        rollback) plan_rollback ;;
        uninstall) plan_uninstall ;;
      esac
      ;;
    packages) alone && go_on_alone && packages ;;
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
