#!/bin/bash
# Runs in the virtual machine, as root, after each boot: deploys and removes devices after the first, checks after the
# second. Every line of the report is `name: value`, for test_devices.py. The console shows progress, since the machine is
# stopped if it is silent for minutes.
set -u

report() {
  printf '%s: %s\n' "$1" "$2" | tee /dev/console
}

state() { # N
  systemctl show --value --property=ActiveState "camera-soft-cam@$1.service"
}

await() { # N STATE
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    [[ $(state "$1") == "$2" ]] && break
    echo "waiting for $2" >/dev/console
    sleep 2 # systemctl costs a third of a second here
  done
  state "$1"
}

restarts() { # N
  systemctl show --value --property=NRestarts "camera-soft-cam@$1.service"
}

in_cgroup_of() { # N COMMAND: with the instance's access to devices
  local group
  group=$(systemctl show --value --property=ControlGroup "camera-soft-cam@$1.service")
  # shellcheck disable=SC2016 # for the other shell
  bash -c 'echo $$ >"$1/cgroup.procs" || exit 3; exec 2>/dev/null; eval "$2"' _ "/sys/fs/cgroup$group" "$2"
  case $? in 0) echo yes ;; 3) echo unknown ;; *) echo no ;; esac
}

replace_portal() { # DROP-IN: where systemd is tested, and not the portal, whose start costs many seconds here
  mkdir -p "${1%/*}"
  cat >"$1" <<'END'
[Service]
ExecStart=
ExecStart=/bin/sh -c 'test ! -e /run/missing%i || exit 66; exec systemd-notify --ready --exec \; sleep infinity'
END
}

first_boot() {
  mkdir -p /etc/camera-streamer
  printf 'cam%d_id=pattern\n' 0 1 >/etc/camera-streamer/camera-soft-stream.env
  # Small images and a low rate: every instruction is emulated.
  printf '%s\n' CAMERA_WIDTH=320 CAMERA_HEIGHT=180 CAMERA_FPS=5 CAMERA_LINGER=0 >>/etc/camera-streamer/camera-soft-stream.env
  report 'persistent names' "$(cd /dev/v4l/by-path && echo *)"
  report 'known before the rule' "$(systemctl is-active dev-video0.device)"
  (cd /opt/camera-soft-stream/releases/vm && /usr/bin/python3 -m deploy.host --python=/opt/picamera2/bin/python --cameras=0,1 --start-timeout=900 \
    --bind=0=/dev/video0,1=/dev/v4l/by-path/platform-vivid.0-video-index0 install vm) 2>&1 | sed -u 's/^/install: /' | tee /dev/console
  report 'known after it' "$(systemctl is-active dev-video0.device)"
  report 'deployed 0' "$(state 0)"
  report 'deployed 1' "$(state 1)"
  report 'enabled' "$(cd /etc/systemd/system && find . -path '*.wants/camera-soft*' | sort | paste -sd ' ')"

  replace_portal /run/systemd/system/camera-soft-cam@.service.d/stand-in.conf
  replace_portal /etc/systemd/system/camera-soft-cam@1.service.d/stand-in.conf # also after the reboot
  systemctl daemon-reload
  modprobe -r vivid # stops the portals, which still run
  report 'gone 0' "$(await 0 inactive)"
  report 'gone 1' "$(await 1 inactive)"
  touch /run/missing1
  modprobe vivid
  report 'back 0' "$(await 0 active)"
  report 'back but missing 1' "$(await 1 failed)"
  report 'exit of 1' "$(systemctl show --value --property=ExecMainStatus camera-soft-cam@1.service)"
  sleep 5 # longer than the first delays of a restart
  report 'still missing 1' "$(state 1), $(restarts 1) restarts"
  rm /run/missing1
  modprobe -r vivid
  await 0 inactive >/dev/null
  modprobe vivid
  report 'back again 1' "$(await 1 active)"
}

second_boot() {
  report 'at boot 0' "$(await 0 active)"
  report 'at boot 1' "$(await 1 active)"
  report 'memory limit' "$(cat "/sys/fs/cgroup$(systemctl show --value --property=ControlGroup camera-soft-cam@0.service)/memory.max")"
  report 'may use video0' "$(in_cgroup_of 0 ': </dev/video0')"
  report 'may use media0' "$(in_cgroup_of 0 ': </dev/media0')"
  report 'may use udmabuf' "$(in_cgroup_of 0 ': </dev/udmabuf')"
  report 'may read the disk' "$(in_cgroup_of 0 ': </dev/vda')"
  report 'may read the kernel log' "$(in_cgroup_of 0 ': </dev/kmsg')"
  report 'groups' "$(grep '^Groups:' "/proc/$(systemctl show --value --property=MainPID camera-soft-cam@0.service)/status" | tr -d '\t')"
  report 'group video' "$(getent group video | cut -d : -f 3)"
  report 'status line' "$(systemctl show --value --property=StatusText camera-soft-cam@0.service)"
}

udevadm settle
if [[ ! -e /root/booted-once ]]; then
  touch /root/booted-once
  first_boot
else
  second_boot
fi
report 'uptime' "$(cut -d ' ' -f 1 /proc/uptime)"
systemctl --no-block start poweroff.target
