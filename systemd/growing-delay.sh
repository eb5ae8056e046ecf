#!/bin/sh
# Runs before each start of an instance: the more often it was restarted lately, the longer this takes, up to 29 s. A
# life of ten minutes clears the account, and so does stopping or starting it by hand. systemd's own RestartSteps=
# is not in Debian 12, and never forgets: years later each small mishap would still cost half a minute.
set -eu

account="$RUNTIME_DIRECTORY/restarts" # systemd keeps the folder between restarts, and for no longer
read -r uptime_s _ </proc/uptime
uptime_s=${uptime_s%.*}
count=0
if [ -r "$account" ]; then
  read -r count began_s <"$account"
  count=$((count + 1))
  if [ $((uptime_s - began_s)) -ge 600 ]; then count=0; fi
fi

# The unit's own second is enough for the first two.
case $count in
  0 | 1 | 2) delay_s=0 ;;
  3) delay_s=3 ;;
  4) delay_s=7 ;;
  5) delay_s=15 ;;
  *) delay_s=29 count=6 ;;
esac
echo "$count $((uptime_s + delay_s))" >"$account"
if [ "$delay_s" -gt 0 ]; then
  echo "<5>Restarted $count times within minutes: waiting $delay_s s"
  sleep "$delay_s"
fi
