#!/usr/bin/env bash
# Installs or renews Soft Stream on Raspberry Pis, over SSH. `deploy.sh --help` tells the rest; docs/operating.md more.
# Runs wherever there is bash 3.2 or newer, ssh and tar: on Linux and on a Mac. What it does on a host is in
# systemd/on-host.sh and its parts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
export COPYFILE_DISABLE=1 # a Mac's tar would send a second file, ._NAME, with many a file

usage() {
  cat <<'END'
usage: deploy.sh [options] USER@HOST…

Copies this checkout's portal to each host, next to the release that is there, switches to it, starts one instance for
each camera, and waits until each answers. Where one does not, the host goes back to the release before by itself.
Safe to run again at any time; settings that were edited on a host stay. Hosts are worked on side by side.

  --cameras 0,1        these cameras; otherwise all that the host has, and those that were enabled before; one that
                       was disabled there stays off
  --with-nginx         show camera N at port 8081 + N, with a password, through nginx
  --install-packages   install on the host what is missing there (apt); otherwise it is only said
  --dry-run            check, and say what would be done; changes nothing; also with --rollback, --uninstall
  --rollback           switch back to the release before, without copying anything
  --uninstall          take everything away but settings, saved controls, and drop-ins of your own
  --python PATH        the host's Python that has picamera2; remembered there (/usr/bin/python3)
  --bind N=NODE        bind camera N to this video node (/dev/video0), or to none; remembered there until N=auto,
                       which finds it again
  -o, --ssh-option OPTION
                       handed to ssh as -o OPTION, any number of times: Port=2222, IdentityFile=…
  --no-rsync           copy with tar although rsync is there
  -h, --help           this

The user is root, or one whose sudo asks for no password. With several hosts SSH asks for none either: it takes a key.
Exit: 0 all hosts are done, 1 one failed, 2 usage, 130 interrupted.
END
}

wrong() {
  printf 'deploy.sh: %s (--help tells the options)\n' "$*" >&2
  exit 2
}

# --- Options. Their values are checked to be plain, for they travel through two shells.

readonly NUMBER='(0|[1-9][0-9]?)' # 01 would be another instance than 1
goal=install dry_run=''
cameras='' with_nginx='' install_packages='' python='' bind='' no_rsync=''
hosts=()
ssh_options=()

value_of() { # FLAG [VALUE]
  [[ $# -ge 2 && -n $2 ]] || wrong "$1 wants a value"
}

while (($#)); do
  case $1 in
    --with-nginx=* | --install-packages=* | --dry-run=* | --rollback=* | --uninstall=* | --no-rsync=* | --help=*)
      wrong "$1: ${1%%=*} takes no value"
      ;;
    --*=*)
      flag=${1%%=*} value=${1#*=}
      shift
      set -- "$flag" "$value" "$@"
      continue
      ;;
    --cameras)
      value_of "$@"
      [[ $2 =~ ^$NUMBER(,$NUMBER)*$ ]] || wrong "--cameras $2: wants numbers with commas between, such as 0,1"
      cameras=$2
      shift
      ;;
    --with-nginx) with_nginx=1 ;;
    --install-packages) install_packages=1 ;;
    --dry-run) dry_run=1 ;;
    --rollback | --uninstall)
      [[ $goal == install ]] || wrong "--$goal and $1: only one of them at a time"
      goal=${1#--}
      ;;
    --python)
      value_of "$@"
      [[ $2 =~ ^/[A-Za-z0-9._/+-]+$ ]] || wrong "--python $2: wants a path on the host, such as /usr/bin/python3"
      python=$2
      shift
      ;;
    --bind)
      value_of "$@"
      [[ $2 =~ ^$NUMBER=(none|auto|/dev/[A-Za-z0-9._:/-]+)$ ]] || wrong "--bind $2: wants N=/dev/videoM, N=none or N=auto"
      bind=${bind:+$bind,}$2
      shift
      ;;
    --ssh-option | -o)
      value_of "$@"
      ssh_options+=(-o "$2")
      shift
      ;;
    --no-rsync) no_rsync=1 ;;
    -h | --help)
      usage
      exit 0
      ;;
    -*) wrong "$1: no such option" ;;
    '') wrong "a host without a name" ;;
    *)
      name=$(tr -d '[]' <<<"$1") # pi@[fd00::1] as well
      for host in ${hosts[@]+"${hosts[@]}"}; do
        [[ $host != "$name" ]] || wrong "$1 is named twice"
      done
      hosts+=("$name")
      ;;
  esac
  shift
done
((${#hosts[@]})) || { usage >&2; exit 2; }
if [[ $goal == rollback || $goal == uninstall ]] && [[ -n $cameras$with_nginx$install_packages$bind$no_rsync ]]; then
  wrong "--$goal concerns the whole host: it takes no --cameras, --with-nginx, --install-packages, --bind, --no-rsync"
fi

# --- What is sent

# Short and plain: a socket's path may have a hundred characters, and ssh adds 58 to this folder's.
base=${TMPDIR:-/tmp}
[[ $base =~ ^/[A-Za-z0-9._/-]{0,24}$ && -d $base && -w $base ]] || base=/tmp
work=$(mktemp -d "${base%/}/soft-stream.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap interrupted INT TERM HUP

interrupted() { # ends what runs here, and says what that means for each host
  local host pid stage
  trap '' INT TERM HUP PIPE # its output may be gone with the terminal
  exec 2>/dev/null          # bash would tell of each process that it ends
  for pid in ${pids[@]+"${pids[@]}"}; do
    end_tree "$pid"
  done
  wait || true # so that nobody makes another connection or file
  for host in "${hosts[@]}"; do
    stage=$(cat "$work/stage-$(name_of "$host")" 2>/dev/null || true)
    case $stage in
      /*) on_host "$host" discard "$stage" >/dev/null 2>&1 || true ;;
    esac
    "$work/ssh" -O exit "$host" 2>/dev/null || true
    case $stage in
      changing)
        printf '%s: interrupted here; the host goes on to the end by itself, which is told there by: %s\n' "$host" \
          'sudo journalctl -t camera-soft-stream'
        ;;
      done) ;;
      packages) printf '%s: interrupted; nothing but packages was changed\n' "$host" ;;
      *) printf '%s: interrupted; nothing was changed\n' "$host" ;;
    esac
  done
  exit 130
}

end_tree() { # PID: it and all that it started; shells in the background do not hear Ctrl+C
  local child
  kill -STOP "$1" 2>/dev/null || true # or else it would go on with its next command when this one ends
  for child in $(ps -A -o ppid= -o pid= | awk -v parent="$1" '$1 == parent { print $2 }'); do
    end_tree "$child"
  done
  kill -TERM "$1" 2>/dev/null || true # not KILL: ssh may have to give the terminal its echo back
  kill -CONT "$1" 2>/dev/null || true
}

hash_files() { # their hashes and names; NUL between the names that come in
  if command -v sha256sum >/dev/null; then xargs -0 sha256sum; else xargs -0 shasum -a 256; fi
}

make_release() { # into $work/release; prints its name, which its content makes
  local part version parts=()
  for part in soft_stream.py measure_fps.py softcam systemd env integrations docs/operating.md \
    README.md CHANGELOG.md LICENSE requirements.txt; do
    if [[ -e $part ]]; then parts+=("$part"); fi
  done
  mkdir "$work/release"
  tar -cf - --exclude=__pycache__ --exclude='*.pyc' "${parts[@]}" | tar -xf - -C "$work/release" || return
  # As they are to be there, so that nobody there may ever write to them, and what did not change is the same file.
  chmod -R u=rwX,go=rX "$work/release" || return
  if [[ -d $work/release/env ]]; then chmod -R go= "$work/release/env" || return; fi # somebody may have put a key into it
  version=$(sed -n 's/^__version__[^"]*"\([^"]*\)".*/\1/p' softcam/__init__.py)
  printf '%s-%s\n' "${version:?softcam/__init__.py has no version}" "$(
    cd "$work/release"
    find . -type f | LC_ALL=C sort | tr '\n' '\0' | hash_files >../files
    printf '../files\0' | hash_files | cut -c 1-10
  )"
}

# --- One host

on_host() { # HOST COMMAND… - runs systemd/on-host.sh there as root
  local host=$1
  shift
  cat systemd/on-host-*.sh systemd/on-host.sh |
    "$work/ssh" "$host" "$SAY_MARK; $(as_root "$host") env PYTHON=$python CAMERAS=$cameras BIND=$bind WITH_NGINX=$with_nginx bash -s -- $*" |
    behind_mark
}

# What a login there prints before (.bashrc, for one) is not what was asked for.
readonly MARK='--- soft-stream ---'
readonly SAY_MARK="printf '\n%s\n' '$MARK'"

behind_mark() { # lines as they come
  local line is_behind=''
  while IFS= read -r line || [[ -n $line ]]; do
    if [[ -n $is_behind ]]; then
      printf '%s\n' "$line"
    elif [[ $line == "$MARK" ]]; then
      is_behind=1
    fi
  done
}

as_root() { # HOST
  if [[ $(cat "$work/facts-$(name_of "$1")") == *root* ]]; then printf 'exec'; else printf 'exec sudo -n'; fi
}

name_of() { # HOST: as part of a file's name
  printf '%s' "$1" | tr -c 'A-Za-z0-9.@-' '_'
}

deploy() { # HOST: its lines, without its name
  local host=$1 folder facts heard lacking
  # shellcheck disable=SC2016 # for the shell there
  heard=$("$work/ssh" "$host" "$SAY_MARK;"'if [ "$(id -u)" = 0 ]; then echo root
    elif said=$(sudo -n true 2>&1); then echo sudo; else printf "%s\n" "$said" | tail -n 1 | sed "s/^/why: /"; fi
    command -v rsync >/dev/null && echo rsync
    if [ -d /opt/camera-soft-stream/current ]; then echo older; fi' </dev/null 2>"$work/why-$(name_of "$host")") || {
    printf 'FAILED: no SSH: %s\n' "$(tail -n 1 "$work/why-$(name_of "$host")")"
    return 1
  }
  facts=$(behind_mark <<<"$heard")
  # rsync would take those lines for its own.
  [[ ${heard%%"$MARK"*} =~ ^[[:space:]]*$ ]] || facts=$(sed '/^rsync$/d' <<<"$facts")
  printf '%s\n' "$facts" >"$work/facts-$(name_of "$host")"
  if [[ $facts == *why:* ]]; then
    printf 'FAILED: sudo does not work there without a password: %s; log in as root, or see visudo: NOPASSWD\n' \
      "$(sed -n 's/^why: //p' <<<"$facts")"
    return 1
  fi
  case $goal in
    rollback | uninstall)
      if [[ -n $dry_run ]]; then on_host "$host" plan "$goal"; else change "$host" "$goal"; fi
      return
      ;;
  esac
  if [[ -n $install_packages && -n $dry_run ]]; then
    lacking=$(on_host "$host" plan packages) || {
      printf '%s\n' "${lacking:-FAILED: SSH broke off; nothing was changed}"
      return 1
    }
    if [[ -n $lacking ]]; then
      printf '%s\n' "$lacking"
      return
    fi
  elif [[ -n $install_packages ]]; then
    change "$host" packages || return
    stage "$host" packages
  fi
  on_host "$host" check || return
  if [[ -n $dry_run ]]; then
    on_host "$host" plan install "$release"
    return
  fi
  folder=$(on_host "$host" incoming "$release") || {
    printf '%s\n' "${folder:-FAILED: SSH broke off; nothing was changed}"
    return 1
  }
  if [[ -n $folder ]]; then
    stage "$host" "$folder"
    copy "$host" "$folder" "$facts" 2>"$work/why-$(name_of "$host")" || {
      if grep -qi 'no space left' "$work/why-$(name_of "$host")"; then
        printf 'FAILED: no space left there for %s; nothing was changed\n' "$folder"
      else
        printf 'FAILED: could not copy to %s: %s\n' "$folder" "$(tail -n 1 "$work/why-$(name_of "$host")")"
      fi
      on_host "$host" discard "$folder" >/dev/null 2>&1 || true
      return 1
    }
  fi
  change "$host" install "$release" "$folder"
}

stage() { # HOST WHAT: for the case that this is interrupted: the folder that is copied to, changing, or done
  printf '%s\n' "$2" >"$work/stage-$(name_of "$1")"
}

change() { # HOST COMMAND…: what goes on there even without this side
  local host=$1 status=0
  stage "$host" changing
  on_host "$@" || status=$?
  if ((status == 255)); then
    printf 'FAILED: SSH broke off; the host goes on to the end by itself, which is told there by: %s\n' \
      'sudo journalctl -t camera-soft-stream'
  fi
  stage "$host" 'done'
  return "$status"
}

copy() { # HOST FOLDER FACTS
  # No owner, so that all is root's from the first moment, and no dates: what did not change is then the same file as in
  # the older release. Sizes and dates alone would take a changed file for an old one.
  local host=$1 folder=$2 sudo='' options=(--recursive --links --perms --checksum) there=$1
  if [[ $there == *:* ]]; then there=${there%"${there##*@}"}[${there##*@}]; fi # an IPv6 address
  if [[ $3 != *root* ]]; then sudo='sudo -n '; fi
  # What did not change is not sent, and takes no room.
  if [[ $3 == *older* ]]; then options+=(--link-dest=/opt/camera-soft-stream/current/); fi
  if [[ -z $no_rsync && $3 == *rsync* ]] && command -v rsync >/dev/null; then
    rsync "${options[@]}" --rsh="$work/ssh" --rsync-path="${sudo}rsync" "$work/release/" "$there:$folder/" &&
      printf 'copied release %s (rsync)\n' "$release"
  else
    tar -C "$work/release" -czf - . | "$work/ssh" "$host" "${sudo}tar --no-same-owner -xzpf - -C $folder" >/dev/null &&
      printf 'copied release %s (tar)\n' "$release"
  fi
}

tell() { # HOST: its lines, with its name; and notes whether it said that it failed
  local line
  while IFS= read -r line || [[ -n $line ]]; do
    printf '%s: %s\n' "$1" "$line"
    if [[ $line == FAILED:* ]]; then : >"$work/told-$(name_of "$1")"; fi
  done
}

# --- All hosts

{
  # A file, since rsync wants a program; one connection carries all that is done on a host.
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
    printf 'deploy.sh: the release could not be put together; nothing was changed\n' >&2
    exit 1
  }
fi

for host in "${hosts[@]}"; do
  {
    set +e
    deploy "$host" 2>&1 | tell "$host"
    status=$?
    # Nothing fails without a word. ssh itself is silent where the connection is lost.
    if ((status)) && [[ ! -e $work/told-$(name_of "$host") ]]; then
      if ((status == 255)); then printf '%s: FAILED: SSH broke off\n' "$host"; else
        printf '%s: FAILED: it ended without a word, with exit code %d\n' "$host" "$status"
      fi
    fi
    "$work/ssh" -O exit "$host" 2>/dev/null || true
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
