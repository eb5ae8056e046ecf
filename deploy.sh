#!/usr/bin/env bash
# Installs or updates Soft Stream on Raspberry Pis over SSH, or on this one: see `deploy.sh --help` and docs/operating.md.
# Needs bash 3.2, ssh and tar, on Linux or a Mac. Everything that happens on a host is in deploy/host.py.
set -euo pipefail
started_in=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")"
export COPYFILE_DISABLE=1 # a Mac's tar would otherwise add files named ._NAME

usage() {
  cat <<'END'
usage: deploy.sh [options] USER@HOST…
       sudo ./deploy.sh --local [options]

Copies this checkout's portal to each host, next to the current release, switches to it, starts one instance for each
camera, and waits until each delivers a picture. A host where one does not is rolled back to the previous release.
Safe to run again at any time; edited settings on a host are kept. Hosts are processed in parallel.

  --local              install on this machine, without SSH
  --cameras 0,1        these cameras; default: all present and all enabled before, except for disabled ones
  --with-nginx         serve camera N at port 8081 + N by nginx, with a password
  --with-rtsp          serve the H.264 of camera N by RTSP at port 8554 + N, with a password
  --install-packages   install missing packages on the host (apt); default: only report them
  --dry-run            check, and print what would be done; changes nothing; also with --rollback, --uninstall
  --rollback           switch back to the previous release, without copying anything
  --diagnose           check the cameras of the installed release from end to end, print a report, and save it here as
                       diagnosis-HOST.txt, for a bug report; changes nothing
  --uninstall          remove everything but settings, saved controls and your own drop-ins
  --python PATH        the host's Python with picamera2; remembered on the host (default: /usr/bin/python3)
  --bind N=NODE        bind camera N to this video node (/dev/video0) or to none; remembered on the host until N=auto,
                       which detects the node again
  -o, --ssh-option OPTION
                       pass -o OPTION to ssh; repeatable: Port=2222, IdentityFile=…
  --no-rsync           copy with tar even if rsync is available
  -h, --help           show this help

The user must be root or have sudo. If sudo requires a password, deploy.sh asks for it once and uses it for every host
that requires one. With several hosts, SSH must not ask for a password: use a key.
Exit code: 0 all hosts done, 1 a host failed, 2 usage error, 130 interrupted.
END
}

usage_error() {
  printf 'deploy.sh: %s (see --help)\n' "$*" >&2
  exit 2
}

# --- Options. Their values must be plain, since they pass through two shells.

readonly NUMBER='(0|[1-9][0-9]?)' # 01 would be a different instance than 1
goal=install dry_run='' is_local=''
cameras='' with_nginx='' with_rtsp='' install_packages='' python='' bind='' no_rsync=''
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
    --local) is_local=1 ;;
    --with-nginx) with_nginx=1 ;;
    --with-rtsp) with_rtsp=1 ;;
    --install-packages) install_packages=1 ;;
    --dry-run) dry_run=1 ;;
    --rollback | --uninstall | --diagnose)
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
if [[ -n $is_local ]]; then
  ((${#hosts[@]} == 0)) || usage_error "--local is this machine: not with ${hosts[0]}"
  ((${#ssh_options[@]} == 0)) || usage_error '--local uses no SSH: not with --ssh-option'
  command -v systemctl setsid >/dev/null || usage_error '--local: this machine has no systemd'
  ((EUID == 0)) || usage_error '--local must run as root: sudo ./deploy.sh --local'
  hosts=(localhost)
fi
((${#hosts[@]})) || usage_error 'USER@HOST is missing; on the Raspberry Pi itself: sudo ./deploy.sh --local'
if [[ $goal == diagnose && -n $dry_run$with_nginx$with_rtsp$install_packages$bind$no_rsync ]]; then
  usage_error '--diagnose changes nothing: only with --cameras, --python, --local and --ssh-option'
elif [[ $goal != install && $goal != diagnose && -n $cameras$with_nginx$with_rtsp$install_packages$bind$no_rsync ]]; then
  usage_error "--$goal applies to the whole host: not with --cameras, --with-nginx, --with-rtsp, \
--install-packages, --bind, --no-rsync"
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
  restore_echo
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

end_tree() { # PID: it and its descendants, except for those that --local detached; background shells ignore Ctrl+C
  local child
  kill -STOP "$1" 2>/dev/null || true # it would otherwise continue with its next command
  for child in $(ps -A -o ppid= -o pid= -o pgid= | awk -v parent="$1" '$1 == parent && $2 != $3 { print $2 }'); do
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
# A line of standard input that ends the password: if sudo does not read it after all, it is dropped here.
readonly BEGIN='--- begin ---'
readonly DROP_PASSWORD="until [ \"\$line\" = \"$BEGIN\" ]; do IFS= read -r line || exit 1; done; unset line"
# shellcheck disable=SC2016 # for the shell of the host
readonly UNPACK_AND_RUN="$DROP_PASSWORD;"'folder=$(mktemp -d /run/camera-soft-stream.XXXXXX) &&
  tar -xf - -C "$folder" && cd "$folder" && sh deploy/bootstrap.sh "$@"; status=$?; rm -rf "$folder"; exit $status'

select_host() { # INDEX: the one that the functions below work on
  host=${hosts[$1]}
  mine=$work/$1 # facts, address, why ssh failed, the stage, and `failed`
  mkdir -p "$mine"
}

has_fact() { # root, sudo, password, rsync, or older
  grep -qs "^$1\$" "$mine/facts"
}

as_root() { # prints what precedes a command for the host
  if has_fact password; then
    printf "sudo -k -S -p ''" # -k: it must read the password even if it would not need it now
  elif ! has_fact root; then
    printf 'sudo -n'
  fi
}

send() { # COMMAND…: runs it, with the password for the sudo at the other end of the pipe before its output
  if has_fact password; then printf '%s\n' "$sudo_password"; fi
  printf '%s\n' "$BEGIN"
  "$@"
}

on_host() { # COMMAND…: runs deploy/host.py there as root
  local address=''
  if [[ -s $mine/address ]]; then address=$(<"$mine/address"); fi
  send tar -cf - --format=ustar --exclude=__pycache__ deploy | "$work/ssh" "$host" "$SAY_MARK; exec $(as_root) sh -c \
'$UNPACK_AND_RUN' sh --python=$python --cameras=$cameras --bind=$bind --address=$address ${with_nginx:+--with-nginx} \
${with_rtsp:+--with-rtsp} $*" | after_mark
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

gather_facts() { # root, sudo or password, rsync, older; or prints why the host cannot be used
  local output facts
  # shellcheck disable=SC2016 # for the shell of the host
  output=$("$work/ssh" "$host" "$SAY_MARK;"'if [ "$(id -u)" = 0 ]; then echo root
    elif ! command -v sudo >/dev/null; then echo "why: sudo is not installed; log in as root"
    elif sudo -n sh -c true 2>/dev/null; then echo sudo; else echo password; fi
    command -v rsync >/dev/null && echo rsync
    if [ -d /opt/camera-soft-stream/current ]; then echo older; fi' </dev/null 2>"$mine/why") || {
    printf 'FAILED: no SSH: %s\n' "$(tail -n 1 "$mine/why")"
    return 1
  }
  facts=$(after_mark <<<"$output")
  # The output of a login would break rsync's protocol.
  [[ ${output%%"$MARK"*} =~ ^[[:space:]]*$ ]] || facts=$(sed '/^rsync$/d' <<<"$facts")
  printf '%s\n' "$facts" >"$mine/facts"
  if [[ -z $is_local ]]; then find_address >"$mine/address"; fi
  [[ $facts == *why:* ]] || return 0
  printf 'FAILED: %s\n' "$(sed -n 's/^why: //p' <<<"$facts")"
  return 1
}

find_address() { # prints the host's name or address, as SSH uses it
  local name
  name=$("$work/ssh" -G "$host" 2>/dev/null </dev/null | sed -n 's/^hostname //p')
  name=${name:-${host##*@}}
  if [[ $name =~ ^[A-Za-z0-9._:-]+$ ]]; then printf '%s' "$name"; fi
}

# --- sudo with a password

unset sudo_password # it may be exported
sudo_password='' has_password='' terminal=''

ask_for_password() { # once, if a host requires one; it stays in this shell, and reaches sudo on standard input
  local names='' i
  for ((i = 0; i < ${#hosts[@]}; i++)); do
    select_host "$i"
    if has_fact password; then names="$names${names:+, }$host"; fi
  done
  [[ -n $names ]] && { : </dev/tty; } 2>/dev/null || return 0
  set +x # it would print the password
  terminal=$(stty -g </dev/tty)
  stty -echo </dev/tty
  printf 'sudo password of %s: ' "$names" >/dev/tty
  # A subshell, as Ctrl+C does not end `read` where it is trapped.
  if sudo_password=$(IFS= read -r line </dev/tty && printf '%s' "$line"); then has_password=1; fi
  restore_echo
}

restore_echo() { # after the question
  [[ -n $terminal ]] || return 0
  stty "$terminal" </dev/tty || true
  terminal=''
  printf '\n' >/dev/tty || true
}

check_password() { # prints why the host cannot be used
  local said
  has_fact password || return 0
  if [[ -z $has_password ]]; then
    printf 'FAILED: sudo requires a password, and there is no terminal to ask for it; run deploy.sh in a terminal, %s\n' \
      'log in as root, or allow NOPASSWD with visudo'
    return 1
  fi
  # Alone: at a wrong one, sudo would take the next lines for the next attempts.
  said=$(printf '%s\n' "$sudo_password" | "$work/ssh" "$host" "LC_ALL=C sudo -k -S -p '' sh -c true" 2>&1) && return
  case $said in
    *'try again'* | *'incorrect password'*) said='sudo rejected the password' ;;
    *'not in the sudoers file'* | *'not allowed to'*) said='sudo does not permit this user to run programs as root' ;;
    *) said="sudo failed: $(tail -n 1 <<<"$said")" ;;
  esac
  printf 'FAILED: %s; nothing was changed\n' "$said"
  return 1
}

deploy() { # prints lines without the host's name
  check_password || return
  if [[ $goal == diagnose ]]; then
    on_host diagnose | tee "$started_in/diagnosis-$(tr -c 'A-Za-z0-9.\n-' _ <<<"${host##*@}").txt"
    return
  fi
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
  local root status=0 target=$host options=(--recursive --links --perms --checksum)
  root=$(as_root)
  if [[ $target == *:* ]]; then target=${target%"${target##*@}"}[${target##*@}]; fi # an IPv6 address
  if has_fact older; then options+=(--link-dest=/opt/camera-soft-stream/current/); fi
  # rsync itself speaks on standard input, where sudo would expect the password.
  if [[ -z $no_rsync ]] && has_fact rsync && ! has_fact password && command -v rsync >/dev/null; then
    rsync "${options[@]}" --rsh="$work/ssh" --rsync-path="${root:+$root }rsync" "$work/release/" "$target:$1/" || status=$?
    case $status in
      0) printf 'copied release %s (rsync)\n' "$release" && return ;;
      1 | 2 | 4) printf 'this rsync does not support what is needed; copying with tar\n' ;; # openrsync, of a Mac
      *) return "$status" ;;
    esac
  fi
  send tar -C "$work/release" -czf - . | "$work/ssh" "$host" "exec $root sh -c \
'$DROP_PASSWORD; exec tar --no-same-owner -xzpf - -C \"\$0\"' $1" >/dev/null &&
    printf 'copied release %s (tar)\n' "$release"
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
  if [[ -n $is_local ]]; then
    # Detached, so that it continues after Ctrl+C and without the terminal, as over SSH.
    # shellcheck disable=SC2016 # for that file
    printf '#!/bin/sh\n[ "$1" = -O ] || { shift; exec setsid sh -c "$*"; }\n'
  else
    printf '#!/usr/bin/env bash\nexec ssh -o ControlMaster=auto -o ControlPersist=300 -o ControlPath=%q' "$work/%C"
    printf ' -o ConnectTimeout=10 -o ServerAliveInterval=15'
    ((${#hosts[@]} == 1)) || printf ' -o BatchMode=yes'
    ((${#ssh_options[@]} == 0)) || printf ' %q' "${ssh_options[@]}"
    # shellcheck disable=SC2016 # for that file
    printf ' "$@"\n'
  fi
} >"$work/ssh"
chmod +x "$work/ssh"

on_each_host() { # FUNCTION: runs it for all at once that have not failed yet
  local i pid status words
  pids=()
  for ((i = 0; i < ${#hosts[@]}; i++)); do
    select_host "$i"
    if [[ -e $mine/failed ]]; then continue; fi
    {
      set +e
      "$1" 2>&1 | prefix_lines
      status=$?
      # Every failure has a message; ssh prints none if the connection is lost.
      if ((status)) && [[ ! -e $mine/failed ]]; then
        if ((status == 255)); then words='SSH connection lost'; else words="exited with code $status and no output"; fi
        prefix_lines <<<"FAILED: $words"
      fi
    } &
    pids+=($!)
  done
  for pid in ${pids[@]+"${pids[@]}"}; do
    wait "$pid" || true
  done
  pids=()
}

pids=()
release=''
if [[ $goal == install ]]; then
  release=$(make_release) || {
    printf 'deploy.sh: failed to assemble the release; nothing was changed\n' >&2
    exit 1
  }
fi

on_each_host gather_facts
ask_for_password
on_each_host deploy

failed=()
for ((i = 0; i < ${#hosts[@]}; i++)); do
  select_host "$i"
  close_connection
  if [[ -e $mine/failed ]]; then failed+=("$host"); fi
done
if ((${#hosts[@]} > 1)); then
  printf '%d hosts: %d done, %d failed%s\n' "${#hosts[@]}" $((${#hosts[@]} - ${#failed[@]})) "${#failed[@]}" \
    "${failed[*]:+: ${failed[*]}}"
fi
((${#failed[@]} == 0))
