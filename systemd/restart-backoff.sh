#!/bin/sh
# Delays repeated restarts, up to half a minute. The unit runs `restart-backoff.sh end` after an instance ends and
# `restart-backoff.sh start` before it starts. The count is cleared by a run of ten minutes, by a manual stop or restart,
# and where systemd does not restart. systemd's own RestartSteps= is not in Debian 12 and never resets: years later each
# single failure would still be delayed by half a minute.
#
# What ended an instance is left for the next one in `result`: a killed portal could not log that itself.
set -eu

record="${RUNTIME_DIRECTORY:?}/restarts" result="$RUNTIME_DIRECTORY/result"
count='' started_s=''
# Nothing may keep a portal from starting: a full /run leaves an empty file.
if [ -r "$record" ]; then read -r count started_s <"$record" || true; fi
case $count$started_s in '' | *[!0-9]*) count=0 started_s=0 ;; esac
: "${count:=0}" "${started_s:=0}"
read -r now_s _ </proc/uptime
now_s=${now_s%.*}

write() {
  { echo "$2" >"$1.new" && mv "$1.new" "$1"; } || true
}

case $1 in
  end)
    write "$result" "${SERVICE_RESULT:-unknown} ${EXIT_CODE:-unknown} ${EXIT_STATUS:-unknown}"
    case ${SERVICE_RESULT:-}:${EXIT_STATUS:-} in
      success:* | exit-code:66 | exit-code:78 | exit-code:2) rm -f "$record" ;; # as RestartPreventExitStatus=
      *)
        if [ $((now_s - started_s)) -ge 600 ]; then count=0; fi
        write "$record" "$((count + 1)) $started_s"
        ;;
    esac
    ;;
  start)
    # The unit's RestartSec= is enough for the first two.
    case $count in
      0 | 1 | 2) delay_s=0 ;;
      3) delay_s=3 ;;
      4) delay_s=7 ;;
      5) delay_s=15 ;;
      *) delay_s=29 ;;
    esac
    if [ "$delay_s" -gt 0 ]; then
      # A manual stop or restart ends the delay at once, and is not a failure.
      trap 'rm -f "$record"; exit 0' TERM
      echo "<5>Failed $count times within minutes, restarting in $delay_s s"
      sleep "$delay_s" &
      wait $!
      trap - TERM
    fi
    write "$record" "$count $((now_s + delay_s))"
    ;;
esac
