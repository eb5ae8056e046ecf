#!/usr/bin/env bash
# Installs or updates Soft Stream on Raspberry Pis over SSH: see `deploy.sh --help` and docs/operating.md. Needs bash 3.2,
# ssh and tar, on Linux or a Mac. Everything that happens on a host is in deploy/host.py.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export COPYFILE_DISABLE=1 # a Mac's tar would otherwise add files named ._NAME

usage() {
  cat <<'END'
usage: deploy.sh [options] USER@HOST…

Copies this checkout's portal to each host, next to the current release, switches to it, starts one instance for each
camera, and waits until each delivers a picture. A host where one does not is rolled back to the previous release.
Safe to run again at any time; edited settings on a host are kept. Hosts are processed in parallel.

  --cameras 0,1        these cameras; default: all present and all enabled before, except for disabled ones
  --with-nginx         serve camera N at port 8081 + N by nginx, with a password
  --install-packages   install missing packages on the host (apt); default: only report them
  --dry-run            check, and print what would be done; changes nothing; also with --rollback, --uninstall
  --rollback           switch back to the previous release, without copying anything
  --uninstall          remove everything but settings, saved controls and your own drop-ins
  --python PATH        the host's Python with picamera2; remembered on the host (default: /usr/bin/python3)
  --bind N=NODE        bind camera N to this video node (/dev/video0) or to none; remembered on the host until N=auto,
                       which detects the node again
  -o, --ssh-option OPTION
                       pass -o OPTION to ssh; repeatable: Port=2222, IdentityFile=…
  --no-rsync           copy with tar even if rsync is available
  -h, --help           show this help

The user must be root or have sudo without a password. With several hosts, SSH must not ask for a password: use a key.
Exit code: 0 all hosts done, 1 a host failed, 2 usage error, 130 interrupted.
END
}

usage_error() {
  printf 'deploy.sh: %s (see --help)\n' "$*" >&2
  exit 2
}

# --- Options. Their values must be plain, since they pass through two shells.

readonly NUMBER='(0|[1-9][0-9]?)' # 01 would be a different instance than 1
goal=install dry_run=''
cameras='' with_nginx='' install_packages='' python='' bind='' no_rsync=''
hosts=()
ssh_options=()

check_value() { # PATTERN EXPECTED: that of the option at hand
  [[ -n $value ]] || usage_error "$flag requires a value"
  [[ $value =~ ^$1$ ]] || usage_error "$flag $value: must be $2"
  has_value=1
}

while (($#)); do
  flag=$1 value=${2-} is_joined='' has_value=''
  if [[ $1 == --*=* ]]; then flag=${1%%=*} value=${1#*=} is_joined=1; fi
  case $flag in
    --cameras)
      check_value "$NUMBER(,$NUMBER)*" 'numbers separated by commas, such as 0,1'
      cameras=$value
      ;;
    --with-nginx) with_nginx=1 ;;
    --install-packages) install_packages=1 ;;
    --dry-run) dry_run=1 ;;
    --rollback | --uninstall)
      [[ $goal == install ]] || usage_error "--$goal and $flag: only one of them at a time"
      goal=${flag#--}
      ;;
    --python)
      check_value '/[A-Za-z0-9._/+-]+' 'a path on the host, such as /usr/bin/python3'
      python=$value
      ;;
    --bind)
      check_value "$NUMBER=(none|auto|/dev/[A-Za-z0-9._:/-]+)" 'N=/dev/videoM, N=none or N=auto'
      bind=${bind:+$bind,}$value
      ;;
    --ssh-option | -o)
      check_value '.*' 'an option of ssh'
      ssh_options+=(-o "$value")
      ;;
    --no-rsync) no_rsync=1 ;;
    -h | --help) [[ -n $is_joined ]] || { usage && exit; } ;;
    -*) usage_error "$flag: unknown option" ;;
    '') usage_error 'empty host name' ;;
    *)
      name=$(tr -d '[]' <<<"$1") # pi@[fd00::1] as well
      for host in ${hosts[@]+"${hosts[@]}"}; do
        [[ $host != "$name" ]] || usage_error "$1 is listed twice"
      done
      hosts+=("$name")
      ;;
  esac
  [[ -z $is_joined || -n $has_value ]] || usage_error "$1: $flag must not have a value"
  if [[ -n $has_value && -z $is_joined ]]; then shift; fi
  shift
done
((${#hosts[@]})) || usage_error 'USER@HOST is missing'
if [[ $goal != install && -n $cameras$with_nginx$install_packages$bind$no_rsync ]]; then
  usage_error "--$goal applies to the whole host: not with --cameras, --with-nginx, --install-packages, --bind, --no-rsync"
fi

# --- What is sent

# Short and plain: the path of a socket is limited to about 100 characters, of which ssh adds 58.
base=${TMPDIR:-/tmp}
[[ $base =~ ^/[A-Za-z0-9._/-]{0,24}$ && -d $base && -w $base ]] || base=/tmp
work=$(mktemp -d "${base%/}/soft-stream.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap interrupted INT TERM HUP

interrupted() { # ends all local processes and reports the state of each host
  local pid stage
  trap '' INT TERM HUP PIPE # the terminal may be gone
  exec 2>/dev/null          # bash reports each process that ends
  for pid in ${pids[@]+"${pids[@]}"}; do
    end_tree "$pid"
  done
  wait || true # then none of them can open a connection or write a file
  for ((i = 0; i < ${#hosts[@]}; i++)); do
    select_host "$i"
    stage=$(cat "$mine/stage" 2>/dev/null || true)
    if [[ $stage == /* ]]; then on_host discard "$stage" >/dev/null 2>&1 || true; fi
    close_connection
    case $stage in
      changing) printf '%s: interrupted here; %s\n' "$host" "$CONTINUES" ;;
      done) ;;
      packages) printf '%s: interrupted; only packages were changed\n' "$host" ;;
      *) printf '%s: interrupted; nothing was changed\n' "$host" ;;
    esac
  done
  exit 130
}

end_tree() { # PID: it and its descendants; background shells ignore Ctrl+C
  local child
  kill -STOP "$1" 2>/dev/null || true # it would otherwise continue with its next command
  for child in $(ps -A -o ppid= -o pid= | awk -v parent="$1" '$1 == parent { print $2 }'); do
    end_tree "$child"
  done
  kill -TERM "$1" 2>/dev/null || true # not KILL: ssh may have to restore the terminal's echo
  kill -CONT "$1" 2>/dev/null || true
}

hash_files() { # hashes and names of the files that standard input names, separated by NUL
  if command -v sha256sum >/dev/null; then xargs -0 sha256sum; else xargs -0 shasum -a 256; fi
}

make_release() { # into $work/release; prints its name, made from its content
  local part version parts=()
  for part in soft_stream.py measure_fps.py softcam deploy systemd env integrations docs/operating.md \
    README.md CHANGELOG.md LICENSE requirements.txt; do
    if [[ -e $part ]]; then parts+=("$part"); fi
  done
  mkdir "$work/release"
  tar -cf - --exclude=__pycache__ --exclude='*.pyc' "${parts[@]}" | tar -xf - -C "$work/release" || return
  # As on the host, where only root may write, and where unchanged files are hard links to those of the last release.
  chmod -R u=rwX,go=rX "$work/release" || return
  if [[ -d $work/release/env ]]; then chmod -R go= "$work/release/env" || return; fi # it may contain a key
  version=$(sed -n 's/^__version__[^"]*"\([^"]*\)".*/\1/p' softcam/__init__.py)
  printf '%s-%s\n' "${version:?no version in softcam/__init__.py}" "$(
    cd "$work/release"
    find . -type f | LC_ALL=C sort | tr '\n' '\0' | hash_files >../files
    printf '../files\0' | hash_files | cut -c 1-10
  )"
}

# --- One host

readonly CONTINUES='the host continues to the end by itself and logs there: sudo journalctl -t camera-soft-stream'
# Output of the login (.bashrc, for example) comes before the mark and is dropped.
readonly MARK='--- soft-stream ---'
readonly SAY_MARK="printf '\n%s\n' '$MARK'"
# shellcheck disable=SC2016 # for the shell of the host
readonly UNPACK_AND_RUN='folder=$(mktemp -d /run/camera-soft-stream.XXXXXX) && tar -xf - -C "$folder" && cd "$folder" &&
  sh deploy/bootstrap.sh "$@"; status=$?; rm -rf "$folder"; exit $status'

select_host() { # INDEX: the one that the functions below work on
  host=${hosts[$1]}
  mine=$work/$1 # facts, why ssh failed, the stage, and `failed`
  mkdir -p "$mine"
}

on_host() { # COMMAND…: runs deploy/host.py there as root
  local as_root='exec sudo -n'
  if grep -qs '^root$' "$mine/facts"; then as_root='exec'; fi
  tar -cf - --format=ustar --exclude=__pycache__ deploy | "$work/ssh" "$host" "$SAY_MARK; $as_root sh -c \
'$UNPACK_AND_RUN' sh --python=$python --cameras=$cameras --bind=$bind ${with_nginx:+--with-nginx} $*" | after_mark
}

after_mark() { # prints each line as soon as it arrives
  local line is_after=''
  while IFS= read -r line || [[ -n $line ]]; do
    if [[ -n $is_after ]]; then
      printf '%s\n' "$line"
    elif [[ $line == "$MARK" ]]; then
      is_after=1
    fi
  done
}

close_connection() {
  "$work/ssh" -O exit "$host" 2>/dev/null || true
}

ask_host() { # COMMAND…: sets `answer`, or prints why it failed
  answer=$(on_host "$@") && return
  printf '%s\n' "${answer:-FAILED: SSH connection lost; nothing was changed}"
  return 1
}

enter_stage() { # for `interrupted`: the folder that is copied to, packages, changing or done
  printf '%s\n' "$1" >"$mine/stage"
}

change_host() { # COMMAND…: one that continues there if the connection is lost
  local status=0
  enter_stage changing
  on_host "$@" || status=$?
  if ((status == 255)); then printf 'FAILED: SSH connection lost; %s\n' "$CONTINUES"; fi
  enter_stage 'done'
  return "$status"
}

gather_facts() { # root or sudo, rsync, older; or prints why the host cannot be used
  local output facts
  # shellcheck disable=SC2016 # for the shell of the host
  output=$("$work/ssh" "$host" "$SAY_MARK;"'if [ "$(id -u)" = 0 ]; then echo root
    elif said=$(sudo -n true 2>&1); then echo sudo; else printf "%s\n" "$said" | tail -n 1 | sed "s/^/why: /"; fi
    command -v rsync >/dev/null && echo rsync
    if [ -d /opt/camera-soft-stream/current ]; then echo older; fi' </dev/null 2>"$mine/why") || {
    printf 'FAILED: no SSH: %s\n' "$(tail -n 1 "$mine/why")"
    return 1
  }
  facts=$(after_mark <<<"$output")
  # The output of a login would break rsync's protocol.
  [[ ${output%%"$MARK"*} =~ ^[[:space:]]*$ ]] || facts=$(sed '/^rsync$/d' <<<"$facts")
  printf '%s\n' "$facts" >"$mine/facts"
  [[ $facts == *why:* ]] || return 0
  printf 'FAILED: sudo requires a password: %s; log in as root, or allow NOPASSWD with visudo\n' \
    "$(sed -n 's/^why: //p' <<<"$facts")"
  return 1
}

deploy() { # prints lines without the host's name
  gather_facts || return
  if [[ $goal != install ]]; then
    if [[ -n $dry_run ]]; then on_host plan "$goal"; else change_host "$goal"; fi
    return
  fi
  if [[ -n $install_packages && -n $dry_run ]]; then
    ask_host plan packages || return
    if [[ -n $answer ]]; then
      printf '%s\n' "$answer"
      return
    fi
  elif [[ -n $install_packages ]]; then
    change_host packages || return
    enter_stage packages
  fi
  on_host check || return
  if [[ -n $dry_run ]]; then
    on_host plan install "$release"
    return
  fi
  ask_host incoming "$release" || return
  if [[ -n $answer ]]; then copy "$answer" || return; fi
  change_host install "$release" "$answer"
}

copy() { # FOLDER
  enter_stage "$1"
  copy_release "$1" 2>"$mine/why" && return
  printf 'FAILED: could not copy to %s, nothing was changed: %s\n' "$1" \
    "$(grep -im 1 'no space left' "$mine/why" || tail -n 1 "$mine/why")"
  on_host discard "$1" >/dev/null 2>&1 || true
  return 1
}

copy_release() { # FOLDER
  # Without owners, so that root owns everything from the start, and without dates, so that unchanged files are hard
  # links to those of the current release. --checksum: a changed file may have the same size and date.
  local facts sudo='' target=$host options=(--recursive --links --perms --checksum)
  facts=$(<"$mine/facts")
  if [[ $target == *:* ]]; then target=${target%"${target##*@}"}[${target##*@}]; fi # an IPv6 address
  if [[ $facts != *root* ]]; then sudo='sudo -n '; fi
  if [[ $facts == *older* ]]; then options+=(--link-dest=/opt/camera-soft-stream/current/); fi
  if [[ -z $no_rsync && $facts == *rsync* ]] && command -v rsync >/dev/null; then
    rsync "${options[@]}" --rsh="$work/ssh" --rsync-path="${sudo}rsync" "$work/release/" "$target:$1/" &&
      printf 'copied release %s (rsync)\n' "$release"
  else
    tar -C "$work/release" -czf - . | "$work/ssh" "$host" "${sudo}tar --no-same-owner -xzpf - -C $1" >/dev/null &&
      printf 'copied release %s (tar)\n' "$release"
  fi
}

prefix_lines() { # prints each line with the host's name, and records a failure
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    printf '%s: %s\n' "$host" "$line"
    if [[ $line == FAILED:* ]]; then : >"$mine/failed"; fi
  done
}

# --- All hosts

{
  # A file, as rsync needs a program. All commands for a host share one connection.
  printf '#!/usr/bin/env bash\nexec ssh -o ControlMaster=auto -o ControlPersist=30 -o ControlPath=%q' "$work/%C"
  printf ' -o ConnectTimeout=10 -o ServerAliveInterval=15'
  ((${#hosts[@]} == 1)) || printf ' -o BatchMode=yes'
  ((${#ssh_options[@]} == 0)) || printf ' %q' "${ssh_options[@]}"
  # shellcheck disable=SC2016 # for that file
  printf ' "$@"\n'
} >"$work/ssh"
chmod +x "$work/ssh"

pids=()
release=''
if [[ $goal == install ]]; then
  release=$(make_release) || {
    printf 'deploy.sh: failed to assemble the release; nothing was changed\n' >&2
    exit 1
  }
fi

for ((i = 0; i < ${#hosts[@]}; i++)); do
  select_host "$i"
  {
    set +e
    deploy 2>&1 | prefix_lines
    status=$?
    # Every failure has a message; ssh prints none if the connection is lost.
    if ((status)) && [[ ! -e $mine/failed ]]; then
      if ((status == 255)); then words='SSH connection lost'; else words="exited with code $status and no output"; fi
      printf '%s: FAILED: %s\n' "$host" "$words"
    fi
    close_connection
    exit "$status"
  } &
  pids+=($!)
done

failed=()
for ((i = 0; i < ${#hosts[@]}; i++)); do
  wait "${pids[i]}" || failed+=("${hosts[i]}")
done
if ((${#hosts[@]} > 1)); then
  printf '%d hosts: %d done, %d failed%s\n' "${#hosts[@]}" $((${#hosts[@]} - ${#failed[@]})) "${#failed[@]}" \
    "${failed[*]:+: ${failed[*]}}"
fi
((${#failed[@]} == 0))
