#!/bin/sh
# Makes restarts that follow one another wait ever longer, up to half a minute. The unit runs `growing-delay.sh end` after
# each end of an instance, and `growing-delay.sh start` before each start. A life of ten minutes clears the account, and
# so does stopping or restarting by hand. systemd's own RestartSteps= is not in Debian 12, and never forgets: years
# later each small mishap would still cost half a minute.
set -eu

account="${RUNTIME_DIRECTORY:?}/restarts" # systemd keeps the folder between restarts, and for no longer
count=0 began_s=0
if [ -r "$account" ]; then read -r count began_s <"$account"; fi
read -r now_s _ </proc/uptime
now_s=${now_s%.*}

case $1 in
  end)
    if [ "${SERVICE_RESULT:-}" = success ]; then
      rm -f "$account"
    elif [ $((now_s - began_s)) -lt 600 ]; then
      echo "$((count + 1)) $began_s" >"$account"
    else
      echo "1 $began_s" >"$account"
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
      echo "<5>Ended $count times within minutes: waiting $delay_s s"
      sleep "$delay_s"
    fi
    echo "$count $((now_s + delay_s))" >"$account"
    ;;
esac
