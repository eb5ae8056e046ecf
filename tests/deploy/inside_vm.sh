#!/bin/bash
# Runs in the virtual machine, as root, once after each boot: deploys and plays with the devices after the first,
# looks after the second. Every line of the report is `what: value`; test_devices.py judges them.
set -u

tell() {
  printf '%s: %s\n' "$1" "$2"
}

state() { # N
  systemctl show --value --property=ActiveState "camera-soft-cam@$1.service"
}

await() { # N STATE
  local tries
  for ((tries = 0; tries < 90; tries++)); do
    [[ $(state "$1") == "$2" ]] && break
    sleep 1 # asking costs a third of a second here, and takes it from the portal
  done
  state "$1"
}

restarts() { # N
  systemctl show --value --property=NRestarts "camera-soft-cam@$1.service"
}

in_cgroup_of() { # N COMMAND: with what that instance may do to devices
  local group
  group=$(systemctl show --value --property=ControlGroup "camera-soft-cam@$1.service")
  # shellcheck disable=SC2016 # for the other shell
  bash -c 'echo $$ >"$1/cgroup.procs" || exit 3; exec 2>/dev/null; eval "$2"' _ "/sys/fs/cgroup$group" "$2"
  case $? in 0) echo yes ;; 3) echo unknown ;; *) echo no ;; esac
}

first_boot() {
  mkdir -p /etc/camera-streamer
  printf 'cam%d_id=pattern\n' 0 1 >/etc/camera-streamer/camera-soft-stream.env
  # Small, slow pictures: every instruction is emulated here.
  printf '%s\n' CAMERA_WIDTH=320 CAMERA_HEIGHT=180 CAMERA_FPS=5 CAMERA_LINGER=0 \
    cam1_pattern_faults=/run/camera-faults >>/etc/camera-streamer/camera-soft-stream.env
  tell 'names that stay' "$(cd /dev/v4l/by-path && echo *)"
  tell 'known before the rule' "$(systemctl is-active dev-video0.device)"
  (cd /opt/camera-soft-stream/releases/vm && /usr/bin/python3 -m deploy.host --python=/opt/picamera2/bin/python --cameras=0,1 \
    --bind=0=/dev/video0,1=/dev/v4l/by-path/platform-vivid.0-video-index0 install vm) 2>&1 | sed 's/^/install: /'
  tell 'known after it' "$(systemctl is-active dev-video0.device)"
  tell 'deployed 0' "$(state 0)"
  tell 'deployed 1' "$(state 1)"
  tell 'enabled' "$(cd /etc/systemd/system && find . -path '*.wants/camera-soft*' | sort | paste -sd ' ')"

  modprobe -r vivid
  tell 'gone 0' "$(await 0 inactive)"
  tell 'gone 1' "$(await 1 inactive)"
  echo missing >/run/camera-faults
  chmod 644 /run/camera-faults
  modprobe vivid
  tell 'back 0' "$(await 0 active)"
  tell 'back but missing 1' "$(await 1 failed)"
  tell 'exit of 1' "$(systemctl show --value --property=ExecMainStatus camera-soft-cam@1.service)"
  sleep 5 # longer than any first delay of a restart
  tell 'still missing 1' "$(state 1), $(restarts 1) restarts"
  rm /run/camera-faults
  modprobe -r vivid
  await 0 inactive >/dev/null
  modprobe vivid
  tell 'back again 1' "$(await 1 active)"
}

second_boot() {
  tell 'at boot 0' "$(await 0 active)"
  tell 'at boot 1' "$(await 1 active)"
  tell 'memory limit' "$(cat "/sys/fs/cgroup$(systemctl show --value --property=ControlGroup camera-soft-cam@0.service)/memory.max")"
  tell 'may use video0' "$(in_cgroup_of 0 ': </dev/video0')"
  tell 'may use media0' "$(in_cgroup_of 0 ': </dev/media0')"
  tell 'may use udmabuf' "$(in_cgroup_of 0 ': </dev/udmabuf')"
  tell 'may read the disk' "$(in_cgroup_of 0 ': </dev/vda')"
  tell 'may read the kernel log' "$(in_cgroup_of 0 ': </dev/kmsg')"
  tell 'groups' "$(grep '^Groups:' "/proc/$(systemctl show --value --property=MainPID camera-soft-cam@0.service)/status" | tr -d '\t')"
  tell 'group video' "$(getent group video | cut -d : -f 3)"
  tell 'status line' "$(systemctl show --value --property=StatusText camera-soft-cam@0.service)"
}

udevadm settle
if [[ ! -e /root/booted-once ]]; then
  touch /root/booted-once
  first_boot
else
  second_boot
fi
tell 'uptime' "$(cut -d ' ' -f 1 /proc/uptime)"
systemctl --no-block start poweroff.target
