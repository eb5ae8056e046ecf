#!/usr/bin/env bash
# What deploy.sh does on the host, as root. It comes over SSH on standard input, so that the newest one runs, also where
# nothing is installed yet:  bash -s -- COMMAND < on-host.sh
#
#   check                what is there and what is missing; changes nothing
#   packages             installs what is missing
#   incoming NAME        prints an empty folder to copy release NAME to, or nothing where it is there already
#   install NAME FOLDER  switches to release NAME, copied to FOLDER; goes back by itself where it does not answer
#   plan NAME            what `install` would do
#   rollback             switches to the release before
#   uninstall            takes everything away but settings and saved controls
#
# Options come as variables, which deploy.sh quotes: PYTHON, CAMERAS, BIND, WITH_NGINX. Each line that is printed is for
# people. Nothing here reads the settings file's values: systemd does, for the portal and for probe.py.
set -euo pipefail
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
umask 022

readonly TOP=/opt/camera-soft-stream
readonly ENV_DIR=/etc/camera-streamer
readonly ENV_FILE=$ENV_DIR/camera-soft-stream.env
readonly UNITS=/etc/systemd/system
readonly UNIT=$UNITS/camera-soft-cam@.service
readonly RULES=/etc/udev/rules.d/70-camera-soft-cam.rules
readonly NGINX=/etc/nginx
readonly KEPT_RELEASES=3
readonly PATIENCE_S=45 # a Pi Zero needs 20 to import Picamera2 and open a camera

PYTHON=${PYTHON:-}
CAMERAS=${CAMERAS:-}
BIND=${BIND:-}
WITH_NGINX=${WITH_NGINX:-}

say() {
  printf '%s\n' "$*"
}

fail() {
  printf 'FAILED: %s\n' "$*"
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

chosen_id() { # N: cam<N>_id of the settings file. An id is no secret.
  sed -n "s/^[[:space:]]*[cC][aA][mM]$1_[iI][dD]=\"\{0,1\}\([^\"#]*[^\"# ]\).*/\1/p" "$ENV_FILE" 2>/dev/null | tail -n 1 || true
}

id_of() { # N LISTED: the id of camera N, nothing where it is missing
  local chosen
  chosen=$(chosen_id "$1")
  if [[ -z $chosen ]]; then
    awk -F '\t' -v n="$1" '$1 == n { print $3 }' <<<"$2"
  elif [[ $chosen == pattern ]]; then
    say pattern
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
  local python version listed missing number faults=() found
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
  listed=$(list_cameras 2>/tmp/camera-soft-stream-python.log) ||
    fail "picamera2 does not work with $python (a numpy or simplejpeg from pip beside the system's?):" \
      "$(tail -n 1 /tmp/camera-soft-stream-python.log)"
  found=$(cut -f 1,2 <<<"$listed" | tr '\t' ' ' | paste -sd ',' | sed 's/,/, /g')
  say "checked: ${PRETTY_NAME:-?}, systemd $version, $("$python" -V), cameras: ${found:-none}"
  for number in $(wanted_cameras "$listed"); do
    [[ -n $(id_of "$number" "$listed") ]] || faults+=("$number")
  done
  if ((${#faults[@]})) && [[ -n $CAMERAS ]]; then
    fail "camera ${faults[*]} is not found; there: ${found:-none}. Ribbon, or cam${faults[0]}_id in $ENV_FILE?"
  fi
  [[ -n $(wanted_cameras "$listed") ]] ||
    fail "no camera is found. Ribbon? Try: rpicam-hello --list-cameras. For a test picture: --cameras 0 and cam0_id=pattern"
}

packages() {
  local missing
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || { say "packages: all there"; return; }
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get -q update && apt-get -q install -y --no-install-recommends "${missing[@]}"; } >/tmp/camera-soft-stream-apt.log 2>&1 ||
    fail "apt could not install ${missing[*]}: $(tail -n 1 /tmp/camera-soft-stream-apt.log)"
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
  sed -E -e 's/^([+ -]?[#[:space:]]*[A-Za-z0-9_]*(KEY|key|PASSWORD|password|TOKEN|token|SECRET|secret)[A-Za-z0-9_]*=).+/\1(not shown)/' \
    -e 's#(://)[^/@[:space:]]+@#\1(not shown)@#g'
}

ship() { # SOURCE DESTINATION MODE: an edited file stays, and how the new one differs is shown
  local source=$1 destination=$2 mode=$3
  if is_edited "$destination"; then
    if [[ $(hash_of "$source") != "$(hash_of "$destination")" ]]; then
      say "$destination was edited and stays; the shipped one differs (- yours, + shipped):"
      # Comments are help texts; what is set and what is offered is told by the lines themselves.
      { diff -U 0 "$destination" "$source" || true; } | sed '1,2d; /^@@/d' | without_secrets | sed 's/^/    /' | head -n 60
    fi
    return
  fi
  if [[ -e $destination ]] && cmp -s "$source" "$destination"; then
    return
  fi
  install -D -m "$mode" "$source" "$destination.new"
  mv -f "$destination.new" "$destination"
  install -d -m 755 "$TOP/shipped"
  hash_of "$source" >"$TOP/shipped/${destination//\//_}"
}

write_if_other() { # FILE: from standard input
  local file=$1 text
  text=$(cat)
  if [[ ! -e $file || $(<"$file") != "$text" ]]; then
    install -d -m 755 "${file%/*}"
    printf '%s\n' "$text" >"$file.new"
    mv -f "$file.new" "$file"
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

node_of() { # RELEASE N LISTED: the node that was asked for, or that belongs to the camera; nothing, and why on 2
  local asked id
  asked=$(tr ',' '\n' <<<"$BIND" | sed -n "s/^$2=//p" | tail -n 1)
  if [[ -n $asked ]]; then
    [[ $asked == none ]] || say "$asked"
    return
  fi
  id=$(id_of "$2" "$3")
  [[ -n $id ]] || { printf 'the camera is not there\n' >&2; return; }
  [[ $id != pattern ]] || { printf 'a made-up camera has none\n' >&2; return; }
  "$(python_there)" "$TOP/releases/$1/systemd/find_node.py" "$id" || true
}

bind_instance() { # RELEASE N LISTED
  local release=$1 number=$2 node device why tries
  local folder="$UNITS/camera-soft-cam@$2.service.d" reasons
  reasons=$(mktemp)
  node=$(node_of "$release" "$number" "$3" 2>"$reasons")
  why=$(tail -n 1 "$reasons")
  rm -f "$reasons"
  if [[ -z $node && -z $BIND && $why == "the camera is not there" && -e $folder/binding.conf ]]; then
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
    if systemctl --quiet is-active "$device" || [[ ,$BIND == *",$number="* ]]; then
      write_if_other "$folder/binding.conf" <<END
# Written by deploy.sh. The instance stops when its camera's device goes, and starts when that comes back.
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
# Written by deploy.sh: ${why:-as was asked for}.
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
  ln -sfn "releases/$1" "$TOP/$2.new"
  mv -T "$TOP/$2.new" "$TOP/$2"
}

activate() { # NAME: its unit, rule and code are those in use from now on
  local release="$TOP/releases/$1"
  cmp -s "$release/systemd/camera-soft-cam@.service" "$UNIT" ||
    install -m 644 "$release/systemd/camera-soft-cam@.service" "$UNIT"
  if ! cmp -s "$release/systemd/70-camera-soft-cam.rules" "$RULES"; then
    install -D -m 644 "$release/systemd/70-camera-soft-cam.rules" "$RULES"
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

fingerprint() { # N: of everything that a running instance was started with
  {
    readlink "$TOP/current" || true
    cat "$UNIT" "$UNIT".d/*.conf "$UNITS/camera-soft-cam@$1.service.d"/*.conf "$ENV_FILE" 2>/dev/null || true
  } | sha256sum
}

instances() { # N…: their units
  printf 'camera-soft-cam@%s.service\n' "$@"
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
    if [[ $(fingerprint "$number") != "${PRINTS[$number]:-}" ]] ||
      ! systemctl --quiet is-active "camera-soft-cam@$number.service"; then
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
  [[ -d $TOP/releases/$1 ]] || mktemp -d "$TOP/releases/.incoming-XXXXXX"
}

take_in() { # NAME [FOLDER]: what was copied gets its name once it is whole
  local from=${2:-}
  if [[ -d $TOP/releases/$1 ]]; then
    [[ -z $from ]] || rm -rf "$from" # somebody else copied the same
    return
  fi
  [[ $from == "$TOP"/releases/.incoming-* ]] || fail "release $1 is not there"
  [[ -f $from/soft_stream.py && -f $from/systemd/on-host.sh ]] || fail "release $1 was not copied in whole"
  chown -R root:root "$from"
  chmod -R u=rwX,go=rX "$from"
  # The service may not write there; it starts faster with what Python would have written.
  "$(python_there)" -m compileall -q "$from/softcam" || true
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

declare -A PRINTS=() # of each instance, before anything was changed
MUST_SEE='' # cameras that a release must get a picture from: those that gave one before, or were never asked

install_release() { # NAME [FOLDER that it was copied to]
  local release=$1 listed before number numbers answer status saved has_saved=''
  take_in "$release" "${2:-}"
  listed=$(list_cameras 2>/dev/null)
  mapfile -t numbers < <(wanted_cameras "$listed")
  before=$(current_release)
  for number in "${numbers[@]}"; do
    PRINTS[$number]=$(fingerprint "$number")
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
    if ! systemctl --quiet is-active "camera-soft-cam@$number.service"; then
      if [[ -z $before ]]; then MUST_SEE+=" $number"; fi
    elif [[ $before != "$release" ]] && probe "$before" look "$number" 5 >/dev/null 2>&1; then
      MUST_SEE+=" $number"
    fi
  done

  install -d -m 755 "$ENV_DIR"
  saved=$(mktemp -d)
  chmod 700 "$saved"
  # shellcheck disable=SC2064 # its name as it is now
  trap "rm -rf '$saved'" EXIT
  if [[ -e $ENV_FILE ]]; then
    cp -p "$ENV_FILE" "$saved/env"
    has_saved=1
  fi
  [[ ! -d $TOP/shipped ]] || cp -a "$TOP/shipped" "$saved/shipped"
  ship "$TOP/releases/$release/env/camera-soft-stream.env" "$ENV_FILE" 600
  chmod 600 "$ENV_FILE"
  write_python
  activate "$release"
  for number in "${numbers[@]}"; do
    bind_instance "$release" "$number" "$listed"
  done
  systemctl daemon-reload
  # Anew, since what wants an instance may be another device now.
  mapfile -t instances < <(instances "${numbers[@]}")
  systemctl --quiet reenable "${instances[@]}" 2>/dev/null || systemctl --quiet enable "${instances[@]}"

  if ! start_and_ask "$release" "$listed" "${numbers[@]}"; then
    if [[ -z $before || $before == "$release" ]]; then
      if [[ -z $before ]]; then
        systemctl --quiet disable --now "${instances[@]}" 2>/dev/null || true
        rm -f "$TOP/current"
        fail "release $release does not work here, and there is no older one: its instances are stopped"
      fi
      fail "release $release does not work any more, and was not changed"
    fi
    say "going back to $before"
    PRINTS=() # whatever runs now is to be started anew
    [[ -z $has_saved ]] || cp -p "$saved/env" "$ENV_FILE"
    rm -rf "$TOP/shipped"
    [[ ! -d $saved/shipped ]] || cp -a "$saved/shipped" "$TOP/shipped"
    activate "$before"
    systemctl daemon-reload
    MUST_SEE=''
    start_and_ask "$before" "$listed" "${numbers[@]}" || fail "release $release does not work, and $before does not either"
    rm -rf "${TOP:?}/releases/$release"
    fail "release $release does not work; $before runs again"
  fi
  if [[ -n $before && $before != "$release" ]]; then
    switch_link "$before" previous
  fi
  [[ -z $WITH_NGINX ]] || nginx_sites "$release" "${numbers[@]}"
  prune
  if [[ $before == "$release" ]]; then
    say "done: release $release, as before"
  else
    say "done: release $release${before:+, before it $before}"
  fi
}

plan() { # NAME
  local listed number numbers before
  listed=$(list_cameras 2>/dev/null)
  mapfile -t numbers < <(wanted_cameras "$listed")
  before=$(current_release)
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

rollback() {
  local previous before listed number numbers
  previous=$(basename "$(readlink "$TOP/previous" 2>/dev/null || true)")
  before=$(current_release)
  [[ -n $previous && -d $TOP/releases/$previous ]] || fail "there is no release before ${before:-none}"
  listed=$(list_cameras 2>/dev/null || true)
  mapfile -t numbers < <(enabled_instances)
  for number in "${numbers[@]}"; do
    PRINTS[$number]=$(fingerprint "$number")
  done
  activate "$previous"
  systemctl daemon-reload
  if ! start_and_ask "$previous" "$listed" "${numbers[@]}"; then
    PRINTS=()
    activate "$before"
    systemctl daemon-reload
    start_and_ask "$before" "$listed" "${numbers[@]}" || true
    fail "release $previous does not work; $before stays"
  fi
  switch_link "$before" previous
  say "done: release $previous, before it $before"
}

# --- nginx

nginx_sites() { # RELEASE N…
  local release=$1 number port site
  local from="$TOP/releases/$1/integrations/nginx"
  shift
  [[ -d $NGINX/sites-enabled ]] || fail "nginx has no $NGINX/sites-enabled here: see integrations/nginx/README.md"
  make_password
  ship "$from/camera-soft-cam.conf" "$NGINX/snippets/camera-soft-cam.conf" 644
  for number in "$@"; do
    port=$(probe "$release" port "$number")
    site=$(mktemp)
    sed -e "s/@N@/$number/g; s/@OUTSIDE@/$((8081 + number))/g; s/@INSIDE@/$port/g" "$from/site.conf" >"$site"
    [[ -e /proc/net/if_inet6 ]] || sed -i '/listen \[::\]/d' "$site"
    ship "$site" "$NGINX/sites-available/camera-soft-cam$number.conf" 644
    rm -f "$site"
    (umask 077 && probe "$release" nginx "$number" >"$NGINX/camera-soft-cam$number.key.new")
    mv -f "$NGINX/camera-soft-cam$number.key.new" "$NGINX/camera-soft-cam$number.key"
    ln -sfn "../sites-available/camera-soft-cam$number.conf" "$NGINX/sites-enabled/camera-soft-cam$number.conf"
  done
  if ! nginx -t -q 2>/tmp/camera-soft-stream-nginx.log; then
    for number in "$@"; do
      rm -f "$NGINX/sites-enabled/camera-soft-cam$number.conf"
    done
    fail "nginx would not take the sites, so they are off again: $(tail -n 1 /tmp/camera-soft-stream-nginx.log)"
  fi
  systemctl --quiet enable nginx
  systemctl reload-or-restart nginx
  for number in "$@"; do
    "$(python_there)" -c "$ASK_NGINX" "$((8081 + number))" || fail "nginx does not ask for a password at port $((8081 + number))"
    say "camera $number: nginx shows it at port $((8081 + number)), with the password of $NGINX/camera-soft-cam.htpasswd"
  done
}

readonly ASK_NGINX='
import sys, time, urllib.error, urllib.request
for _ in range(50):
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"http://127.0.0.1:{sys.argv[1]}/", timeout=5)
    except urllib.error.HTTPError as error:
        sys.exit(error.code != 401)
    except OSError:
        time.sleep(0.1)
sys.exit(1)
'

make_password() { # where there is none: made up, and only root can read it
  local file=$NGINX/camera-soft-cam.htpasswd word
  [[ ! -e $file ]] || return 0
  word=$(openssl rand -base64 15 | tr '+/' '-_')
  (umask 077 && printf '%s\n' "$word" >"$ENV_DIR/nginx-password")
  (umask 077 && printf 'camera:%s\n' "$(openssl passwd -6 -stdin <<<"$word")" >"$file")
  chgrp www-data "$file"
  chmod 640 "$file"
  say "nginx: user camera; its password is on the host, for root alone: sudo cat $ENV_DIR/nginx-password"
}

uninstall() {
  local number
  for number in $(enabled_instances); do
    systemctl --quiet disable --now "camera-soft-cam@$number.service" 2>/dev/null || true
  done
  systemctl stop 'camera-soft-cam@*.service' 2>/dev/null || true
  rm -rf "$UNIT" "$UNIT.d" "$UNITS"/camera-soft-cam@*.service.d "$RULES"
  systemctl daemon-reload
  systemctl reset-failed 'camera-soft-cam@*.service' 2>/dev/null || true
  if compgen -G "$NGINX/sites-available/camera-soft-cam*.conf" >/dev/null; then
    rm -f "$NGINX"/sites-enabled/camera-soft-cam*.conf "$NGINX"/sites-available/camera-soft-cam*.conf \
      "$NGINX"/camera-soft-cam*.key "$NGINX/camera-soft-cam.htpasswd" "$NGINX/snippets/camera-soft-cam.conf"
    if nginx -t -q 2>/dev/null; then systemctl reload nginx 2>/dev/null || true; fi
  fi
  rm -rf "${TOP:?}"
  say "done: uninstalled. Left: $ENV_DIR (settings) and /var/lib/private/camera-soft-cam (saved controls)"
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
  ((EUID == 0)) || fail "needs root"
  case ${1:-} in
    check) check ;;
    plan) plan "$2" ;;
    packages) alone && packages ;;
    incoming) incoming "$2" ;;
    install) alone && install_release "$2" "${3:-}" ;;
    rollback) alone && rollback ;;
    uninstall) alone && uninstall ;;
    *) fail "no such command: ${1:-none}" ;;
  esac
}

# All of it is read before the first line runs, so nothing below can eat it.
main "$@" </dev/null
