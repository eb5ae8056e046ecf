#!/usr/bin/env bash
# Files that the owner may edit, a part of on-host.sh: what was edited stays, and nothing of it is shown.

shipped_hash() { # DESTINATION
  cat "$TOP/shipped/${1//\//_}" 2>/dev/null || { [[ $1 == "$ENV_FILE" ]] && cat "$LEFT_HASH" 2>/dev/null; } || true
}

hash_of() { # FILE
  sha256sum <"$1" | cut -d ' ' -f 1
}

is_edited() { # DESTINATION: it is there and not as it was shipped
  [[ -e $1 && $(hash_of "$1") != "$(shipped_hash "$1")" ]]
}

without_secrets() { # of what a program says, for people; a file of the owner's own is never shown
  sed -E -e 's/^([+ -]?[#[:space:]]*[A-Za-z0-9_]*(KEY|PASSWORD|TOKEN|SECRET)[A-Za-z0-9_]*[[:space:]]*=).+/\1(not shown)/I' \
    -e 's/((authorization|x-[a-z-]*(key|token|secret|password))["'"'"']?:?)[[:space:]=].+/\1 (not shown)/I' \
    -e 's/([?&][a-z_-]*(key|token|secret|pass|pwd|password|auth|sig|signature)=)[^&[:space:]"]+/\1(not shown)/Ig' \
    -e "s/(invalid environment assignment '[^=]*=).*/\1(not shown)/I" \
    -e 's#(://)[^[:space:]]+@#\1(not shown)@#g'
}

new_lines() { # YOURS SHIPPED: what is new in the shipped one, with nothing of yours: any line there may be a secret's
  # Help texts are left out: what is offered, #NAME=, is told by the lines themselves. What is set in the shipped file
  # whoever deploys put there.
  { diff -U 0 "$1" "$2" || true; } | sed -nE '1,2d; /^[+][[:space:]]*(#([[:space:]].*)?)?$/d; /^[+]/p' |
    { if [[ $1 == "$ENV_FILE" ]]; then sed -nE 's/^([+][A-Za-z0-9_]+)[[:space:]]*=.*/\1=(not shown)/p; /^[+]#[A-Za-z0-9_]+=/p'; else cat; fi; } |
    without_secrets | sed -n '1,60s/^/    /p'
}

ship() { # SOURCE DESTINATION MODE: an edited file stays, and how the new one differs is shown
  local source=$1 destination=$2 mode=$3
  if is_edited "$destination" && ! cmp -s "$source" "$destination"; then
    say "$destination was edited and stays; the shipped one differs by (nothing of yours is shown):"
    new_lines "$destination" "$source"
    if [[ $destination == "$ENV_FILE" ]]; then
      say "    set in yours: $(cut -f 2 <<<"$KNOWN_SETTINGS" | paste -sd ' ')"
    fi
    return
  fi
  # The hash goes first: a file that came while the power failed is then known for what it is.
  hash_of "$source" | write_if_other "$TOP/shipped/${destination//\//_}"
  if [[ ! -e $destination ]] || ! cmp -s "$source" "$destination"; then
    place "$source" "$destination" "$mode"
  fi
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
