#!/bin/sh
# Makes restarts that follow one another wait ever longer, up to half a minute. The unit runs `growing-delay.sh end` after
# each end of an instance, and `growing-delay.sh start` before each start. A life of ten minutes clears the account, and
# so does stopping or restarting by hand. systemd's own RestartSteps= is not in Debian 12, and never forgets: years
# later each small mishap would still cost half a minute.
set -eu

account="${RUNTIME_DIRECTORY:?}/restarts" # systemd keeps the folder between restarts, and for no longer
count='' began_s=''
# Nothing that is wrong with the account may keep a portal down: a full /run leaves an empty one.
if [ -r "$account" ]; then read -r count began_s <"$account" || true; fi
case $count$began_s in '' | *[!0-9]*) count=0 began_s=0 ;; esac
: "${count:=0}" "${began_s:=0}"
read -r now_s _ </proc/uptime
now_s=${now_s%.*}

write() {
  { echo "$1" >"$account.new" && mv "$account.new" "$account"; } || true
}

case $1 in
  end)
    if [ "${SERVICE_RESULT:-}" = success ]; then
      rm -f "$account"
    elif [ $((now_s - began_s)) -lt 600 ]; then
      write "$((count + 1)) $began_s"
    else
      write "1 $began_s"
    fi
    ;;
  start)
    # The unit's own second is enough for the first two.
    case $count in
      0 | 1 | 2) delay_s=0 ;;
      3) delay_s=3 ;;
      4) delay_s=7 ;;
      5) delay_s=15 ;;
      *) delay_s=29 ;;
    esac
    if [ "$delay_s" -gt 0 ]; then
      # Whoever stops or restarts it meanwhile wants it at once, and this is then no failure.
      trap 'rm -f "$account"; exit 0' TERM
      echo "<5>Ended $count times within minutes: waiting $delay_s s"
      sleep "$delay_s" &
      wait $!
      trap - TERM
    fi
    write "$count $((now_s + delay_s))"
    ;;
esac
