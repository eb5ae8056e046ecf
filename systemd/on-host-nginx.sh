#!/usr/bin/env bash
# nginx in front of the portal, a part of on-host.sh: sites, the password, and whether they are in force.

outside_port() { # N: another one may stand in an edited site
  local port
  port=$(sed -nE 's/^[[:space:]]*listen[[:space:]]+([^;[:space:]]*:)?([0-9]+)([[:space:];].*)?$/\2/p' "$NGINX/sites-available/camera-soft-cam$1.conf" \
    2>/dev/null | head -n 1 || true)
  printf '%s\n' "${port:-$((8081 + $1))}"
}

outside_port_taken() { # N: prints the port where another program than nginx has it
  local port pids
  port=$(outside_port "$1")
  pids=$(cat /run/nginx.pid 2>/dev/null || true)
  # shellcheck disable=SC2086 # one number or none
  "$(python_there)" -c "$HAS_STRANGER" "$port" any $pids 2>/dev/null || return 1
  say "$port"
}

look_at_nginx() { # N…: fails where nginx could not show them, before anything is changed
  local number port log=/run/camera-soft-stream-nginx.log
  for number in "$@"; do
    if port=$(outside_port_taken "$number"); then
      fail "camera $number: port $port, nginx's, is taken by another program, nothing was changed (who: sudo ss -ltnp" \
        "'sport = :$port')"
    fi
  done
  # What is wrong with our own sites may be better with the new ones.
  if ! nginx -t -q 2>"$log" && ! grep -q camera-soft-cam "$log"; then
    fail "nginx does not take its configuration as it is, nothing was changed: $(reason_of "$log")"
  fi
}

write_key() { # RELEASE N: what shows the portal's key to it for nginx; 1 where that is as before
  local file=$NGINX/camera-soft-cam$2.key
  (umask 077 && probe "$1" nginx "$2" >"$file.new") || { rm -f "$file.new"; fail "camera $2: nginx cannot be shown its key"; }
  if cmp -s "$file.new" "$file"; then
    rm -f "$file.new"
    return 1
  fi
  mv -f "$file.new" "$file"
}

renew_keys() { # RELEASE N…: where nginx shows a camera whose settings have another key now
  local number is_new=''
  for number in "${@:2}"; do
    if [[ -e $NGINX/camera-soft-cam$number.key ]] && write_key "$1" "$number"; then
      say "camera $number: nginx knows its new key"
      is_new=1
    fi
  done
  if [[ -n $is_new ]] && systemctl --quiet is-active nginx; then
    systemctl reload nginx 2>/dev/null || # some site is wrong, which need not be one of ours
      say "nginx could not be reloaded, so that does not count yet: sudo nginx -t; then sudo systemctl reload nginx"
  fi
}

sites_off() { # LINK…: those that were not there before; nginx goes on without them
  (($# == 0)) || rm -f "$@"
  if nginx -t -q 2>/dev/null && systemctl --quiet is-active nginx; then systemctl reload nginx 2>/dev/null || true; fi
}

nginx_sites() { # RELEASE N…
  local release=$1 number port site link added=()
  local from="$TOP/releases/$1/integrations/nginx"
  shift
  [[ -d $NGINX/sites-enabled ]] || fail "nginx has no $NGINX/sites-enabled here: see integrations/nginx/README.md"
  make_password
  ship "$from/camera-soft-cam.conf" "$NGINX/snippets/camera-soft-cam.conf" 644
  for number in "$@"; do
    port=$(probe "$release" port "$number")
    site=$(mktemp -p /run)
    sed -e "s/@N@/$number/g; s/@OUTSIDE@/$((8081 + number))/g; s/@INSIDE@/$port/g" "$from/site.conf" >"$site"
    [[ -e /proc/net/if_inet6 ]] || sed -i '/listen \[::\]/d' "$site"
    ship "$site" "$NGINX/sites-available/camera-soft-cam$number.conf" 644
    rm -f "$site"
    write_key "$release" "$number" || true
    link="$NGINX/sites-enabled/camera-soft-cam$number.conf"
    [[ -e $link || -L $link ]] || added+=("$link")
    ln -sfn "../sites-available/camera-soft-cam$number.conf" "$link"
  done
  # A site that does not work would keep nginx down at the next boot.
  if ! nginx -t -q 2>/run/camera-soft-stream-nginx.log; then
    sites_off ${added[@]+"${added[@]}"}
    fail "nginx would not take the sites; new ones are off again: $(reason_of /run/camera-soft-stream-nginx.log)"
  fi
  if ! systemctl reload-or-restart nginx 2>/dev/null; then
    sites_off ${added[@]+"${added[@]}"}
    fail "nginx does not start; new sites are off again: sudo journalctl -u nginx"
  fi
  for number in "$@"; do
    port=$(outside_port "$number")
    "$(python_there)" -c "$ASK_NGINX" "$port" || {
      sites_off ${added[@]+"${added[@]}"}
      fail "nginx does not ask for a password at port $port; new sites are off again (who is there: sudo ss -ltnp 'sport = :$port')"
    }
    say "camera $number: nginx shows it at port $port, with the password of $NGINX/camera-soft-cam.htpasswd"
  done
  systemctl --quiet enable nginx
}

# An edited site may have TLS, with a certificate for a name that this machine does not have for itself.
readonly ASK_NGINX='
import ssl, sys, time, urllib.error, urllib.request
tls = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), tls)
for _ in range(50):
    for scheme in ("http", "https"):
        try:
            opener.open(f"{scheme}://127.0.0.1:{sys.argv[1]}/", timeout=5)
            sys.exit(1)
        except urllib.error.HTTPError as error:
            if error.code == 401:
                sys.exit(0)
        except OSError:
            pass
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
