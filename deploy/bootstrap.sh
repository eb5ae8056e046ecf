#!/bin/sh
# Runs deploy.host with a Python of the host that is new enough: the system's, otherwise --python, otherwise the one in use.
# The working directory has the folder deploy/. Arguments: those of host.py.
set -u
requested='' used=''
for argument in "$@"; do
  case $argument in --python=*) requested=${argument#--python=} ;; esac
done
if [ ! -e /usr/bin/python3 ] && command -v apt-get >/dev/null; then
  case " $* " in
    *' plan packages '*) echo 'would install python3; run again afterwards to see the other steps'; exit ;;
    *' packages '*)
      echo 'installing python3'
      { apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends python3; } >&2 </dev/null
      ;;
  esac
fi
used=$(sed -n 's/^ExecStart=\(\/[^ ]*\) .*/\1/p' /etc/systemd/system/camera-soft-cam@.service.d/python.conf 2>/dev/null)
for python in /usr/bin/python3 "$requested" "$used"; do
  if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    exec "$python" -sEBm deploy.host "$@" </dev/null
  fi
done
echo "FAILED: no Python 3.11 or newer; /usr/bin/python3 is $(/usr/bin/python3 -V 2>&1). Update the system, or name one with --python"
exit 1
