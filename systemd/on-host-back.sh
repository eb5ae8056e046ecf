#!/usr/bin/env bash
# The way back, a part of on-host.sh: what is noted before anything is changed, and how it is put in place again. What a
# run that was cut short leaves behind is for the next one.

host_files() { # FOLDER like $UNITS: what makes this host's instances its own, a path each
  (cd "$1" 2>/dev/null && find . -path './camera-soft-cam@.service.d/python.conf' \
    -o -path './camera-soft-cam@*.service.d/binding.conf' -o -path './*.wants/camera-soft-cam@*.service') || true
}

keep_host_files() { # FOLDER: a copy of them
  local folder=$1 name
  install -d -m 700 "$folder"
  while read -r name; do
    (cd "$UNITS" && cp -a --parents --target-directory="$folder" "$name") || return
  done < <(host_files "$UNITS")
}

is_same() { # PATH PATH: both missing, or the same link or file
  if [[ -L $1 || -L $2 ]]; then
    [[ -L $1 && -L $2 && $(readlink "$1") == "$(readlink "$2")" ]]
  elif [[ -e $1 || -e $2 ]]; then
    cmp -s "$1" "$2"
  fi
}

put_back() { # BEFORE [AFTER]: host files as folder BEFORE has them; with AFTER only those that nobody changed since
  local before=$1 after=${2:-} name status=0
  while read -r name; do
    if is_same "$before/$name" "$UNITS/$name"; then continue; fi
    if [[ -n $after ]] && ! is_same "$after/$name" "$UNITS/$name"; then continue; fi
    MUST_RESTART=1
    if [[ -e $before/$name || -L $before/$name ]]; then
      { install -d -m 755 "$UNITS/${name%/*}" && cp -a "$before/$name" "$UNITS/$name.new" &&
        mv -fT "$UNITS/$name.new" "$UNITS/$name"; } || status=1
    else
      rm -f "$UNITS/$name" || status=1
      rmdir "$UNITS/${name%/*}" 2>/dev/null || true # where nothing else is in it
    fi
  done < <({ host_files "$before"; host_files "$UNITS"; } | sort -u)
  return "$status"
}

# shellcheck disable=SC2034 # on-host.sh reads it
MUST_RESTART='' # what an instance is started with was put back, so it is behind

note_way_back() { # RELEASE N…: before anything is changed; RELEASE may be empty
  local note=$PENDING.new number
  rm -rf "$note"
  install -d -m 700 "$note"
  printf '%s\n' "$1" >"$note/release"
  printf '%s\n' "${@:2}" >"$note/numbers"
  for number in "${@:2}"; do
    if systemctl --quiet is-active "camera-soft-cam@$number.service"; then printf '%s\n' "$number"; fi
  done >"$note/active"
  keep_host_files "$note/units"
  [[ ! -e $ENV_FILE ]] || cp -p "$ENV_FILE" "$note/env"
  [[ ! -d $TOP/shipped ]] || cp -a "$TOP/shipped" "$note/shipped"
  [[ -n $1 || ! -e $UNIT ]] || cp -p "$UNIT" "$note/unit" # somebody's own
  mv -T "$note" "$PENDING"
}

forget_way_back() {
  rm -rf "$PENDING.done"
  mv -T "$PENDING" "$PENDING.done" # at once, so that no half of it can be taken for the whole
  rm -rf "$PENDING.done"
}

has_changed() { # any of what was noted of the host's own files
  local name
  while read -r name; do
    is_same "$PENDING/units/$name" "$UNITS/$name" || return 0
  done < <({ host_files "$PENDING/units"; host_files "$UNITS"; } | sort -u)
  return 1
}

remember_change() { # for a rollback: how this switch changed the host's own files
  local folder=$TOP/changed
  rm -rf "$folder" "$folder.new"
  if ! { install -d -m 700 "$folder.new" && cp -a "$PENDING/units" "$folder.new/before" &&
    keep_host_files "$folder.new/after" && mv -T "$folder.new" "$folder"; }; then
    rm -rf "$folder.new" # a rollback then leaves those files as they are
  fi
}

restore() { # RELEASE: files as they were; each as far as it goes, and 1 where one does not
  local status=0
  # What its owner edited since then stays.
  if [[ -e $PENDING/env ]] && ! is_edited "$ENV_FILE" && ! cmp -s "$PENDING/env" "$ENV_FILE"; then
    { cp -p "$PENDING/env" "$ENV_FILE.new" && mv -f "$ENV_FILE.new" "$ENV_FILE"; } || status=1
  fi
  if [[ -d $PENDING/shipped ]] && ! diff -rq "$PENDING/shipped" "$TOP/shipped" >/dev/null 2>&1; then
    rm -rf "$TOP/shipped"
    cp -a "$PENDING/shipped" "$TOP/shipped" || status=1
  fi
  rm -f "$ENV_FILE.new" "$UNIT.new" "$RULES.new" "$TOP/current.new" "$TOP/previous.new"
  if [[ -d $PENDING/units ]]; then put_back "$PENDING/units" || status=1; fi
  activate "$1" || status=1
  systemctl daemon-reload || status=1
  return "$status"
}

was_used() { # N: it was enabled or ran before; where that was not noted, too
  [[ ! -d $PENDING/units ]] || grep -qx "$1" "$PENDING/active" ||
    compgen -G "$PENDING/units/*.wants/camera-soft-cam@$1.service" >/dev/null
}

go_back() { # RELEASE LISTED N…: to what ran before; 1 where that does not run either
  local before=$1 listed=$2 number instances used=()
  shift 2
  mapfile -t instances < <(instances "$@")
  if [[ -z $before ]]; then
    systemctl --quiet disable --now "${instances[@]}" 2>/dev/null || true
    rm -f "$TOP/current" "$UNIT" "$RULES"
    [[ ! -e $PENDING/unit ]] || cp -p "$PENDING/unit" "$UNIT" || true
    if ! is_edited "$ENV_FILE"; then # nor since then
      if [[ -e $PENDING/env ]]; then cp -p "$PENDING/env" "$ENV_FILE" || true; else rm -f "$ENV_FILE"; fi
    fi
    rmdir "$ENV_DIR" 2>/dev/null || true # where nothing is in it
    rm -rf "$TOP/shipped"
    if [[ -d $PENDING/units ]]; then put_back "$PENDING/units" || true; fi
    systemctl daemon-reload || true
    forget_way_back
    return
  fi
  # shellcheck disable=SC2034 # on-host.sh reads it
  MUST_SEE=''
  for number in "$@"; do
    if was_used "$number"; then used+=("$number"); else systemctl stop "camera-soft-cam@$number.service" || true; fi
  done
  restore "$before" || say "not every file could be put back"
  start_and_ask "$before" "$listed" ${used[@]+"${used[@]}"} || return
  forget_way_back
}

settle() { # what a run that was cut short left behind; 1 where there is nothing
  local before listed number numbers
  rm -rf "$PENDING.new" "$PENDING.done"
  [[ -d $PENDING ]] || return 1
  before=$(<"$PENDING/release")
  mapfile -t numbers < <(sed '/^$/d' "$PENDING/numbers")
  if [[ -n $before && ! -d $TOP/releases/$before ]]; then
    forget_way_back
    return 1
  fi
  say "the deployment before this one was cut short; going back to ${before:-what was there before it, nothing,} first"
  # Whatever it came to: each is started anew.
  know_settings
  listed=$(list_cameras 2>/dev/null || true)
  for number in "${numbers[@]}"; do
    systemctl stop "camera-soft-cam@$number.service" 2>/dev/null || true
  done
  go_back "$before" "$listed" "${numbers[@]}" || say "$before does not run either"
  [[ ! -d $PENDING ]] || forget_way_back
}

previous_release() {
  basename "$(readlink "$TOP/previous" 2>/dev/null || true)"
}

need_previous() { # PREVIOUS BEFORE
  [[ -n $1 && -d $TOP/releases/$1 ]] || fail "there is no release before ${2:-none}"
}

rollback() {
  local previous before listed number numbers was_enabled
  if settle; then
    before=$(current_release)
    say "done: ${before:+release }${before:-no release is in use}"
    return
  fi
  previous=$(previous_release)
  before=$(current_release)
  need_previous "$previous" "$before"
  know_settings
  listed=$(list_cameras 2>/dev/null || true)
  mapfile -t was_enabled < <(enabled_instances)
  note_way_back "$before" "${was_enabled[@]}"
  # What this release came with - a Python, a binding, a camera more - goes with it, unless the owner changed it since.
  if [[ -d $TOP/changed ]]; then
    put_back "$TOP/changed/before" "$TOP/changed/after" || say "not every file could be put back"
  fi
  mapfile -t numbers < <(enabled_instances)
  for number in "${was_enabled[@]}"; do
    if [[ " ${numbers[*]} " != *" $number "* ]]; then
      say "camera $number: was not enabled before release $before; stops"
      systemctl stop "camera-soft-cam@$number.service" || true
    fi
  done
  if ! { activate "$previous" && systemctl daemon-reload && start_and_ask "$previous" "$listed" "${numbers[@]}"; }; then
    go_back "$before" "$listed" "${was_enabled[@]}" || forget_way_back
    fail "release $previous does not work; $before stays"
  fi
  remember_change
  switch_link "$before" previous
  forget_way_back
  say "done: release $previous, before it $before"
}

plan_rollback() {
  local previous before number
  before=$(current_release)
  if [[ -d $PENDING ]]; then
    before=$(<"$PENDING/release")
    say "a deployment is under way or was cut short; in that case would go back to ${before:-nothing}, and no further"
    return
  fi
  previous=$(previous_release)
  need_previous "$previous" "$before"
  say "would switch back from ${before:-nothing} to release $previous"
  for number in $(enabled_instances); do
    if compgen -G "$TOP/changed/after/*.wants/camera-soft-cam@$number.service" >/dev/null &&
      ! compgen -G "$TOP/changed/before/*.wants/camera-soft-cam@$number.service" >/dev/null; then
      say "would stop camera-soft-cam@$number.service, which was not enabled before release $before"
    else
      say "would restart camera-soft-cam@$number.service"
    fi
  done
}
