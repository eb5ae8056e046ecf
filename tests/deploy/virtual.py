"""A virtual machine with /dev/video devices: Debian's kernel and its vivid driver under QEMU's software emulation.

Containers have no udev, so device bindings can only be tested here. The disk is made once and kept beside the rig's
root, under the hash of what it is made from; each run works on a copy. The checks run inside, in `inside_vm.sh`, over
two boots, and write a report, which is kept in .cache/vm-reports until what decides it changes. No network, no KVM. No
thread here.
"""

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.rig import root as rig_root
from tests.support.timeouts import TIMEOUT_FACTOR

HERE = Path(__file__).resolve().parent
PROJECT = rig_root.CHECKOUT
_SIZE = "2500M"  # half of it is holes
_BOOTS = 2
_RELEASE = "/opt/camera-soft-stream/releases/vm"
# A report is kept here under the hash of what decides it: the checks, what is installed, and how a portal starts and
# ends. Of the rest of the portal the machine sees no more than that it starts, which all other tests see, too.
_REPORTS = PROJECT / ".cache/vm-reports"
_DECIDES = (
    *("etc", "opt/checks"),
    *(f"{_RELEASE}/{name}".lstrip("/") for name in ("deploy", "systemd", "env", "soft_stream.py")),
    *(f"{_RELEASE}/softcam/{name}".lstrip("/") for name in ("app.py", "application.py", "health.py", "errors.py")),
    *(f"{_RELEASE}/softcam/{name}".lstrip("/") for name in ("config", "runtime")),
)
# The machine is stopped if its console is silent for so long: an emulated one may be slow, but it makes progress.
_SILENCE_LIMIT_S = 600 * TIMEOUT_FACTOR
_PROCESSOR = "Nehalem"  # the oldest that numpy supports; each later feature would have to be emulated
_KERNEL_OPTIONS = (
    *("quiet", "systemd.show_status=no"),
    "panic=-1",  # a reboot, which ends the emulation
    "mitigations=off",  # of no use in emulation, and slow
)
_CHECKS = """\
[Unit]
Description=The checks
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /opt/checks/inside_vm.sh
StandardOutput=append:/root/report.txt
StandardError=inherit
TimeoutStartSec=infinity
[Install]
WantedBy=graphical.target
"""

# Not needed here, and seconds of emulation at each boot.
_MASKED = (
    *("nginx.service", "ssh.service", "systemd-networkd-wait-online.service", "e2scrub_reap.service"),
    *("getty.target", "systemd-logind.service", "systemd-binfmt.service", "systemd-random-seed.service"),
    *("modprobe@drm.service", "modprobe@fuse.service", "modprobe@efi_pstore.service", "sys-fs-fuse-connections.mount"),
    *("dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("modprobe@configfs.service", "sys-kernel-config.mount", "proc-sys-fs-binfmt_misc.automount", "timers.target"),
    *("systemd-user-sessions.service", "systemd-sysctl.service", "systemd-udev-load-credentials.service"),
    *("systemd-ask-password-console.path", "systemd-ask-password-wall.path", "systemd-journal-flush.service"),
    *("systemd-update-utmp.service", "systemd-hostnamed.socket", "systemd-sysext.socket", "systemd-creds.socket"),
    *("systemd-tmpfiles-setup-dev-early.service", "systemd-tmpfiles-setup-dev.service", "kmod-static-nodes.service"),
    *("tmp.mount", "run-lock.mount"),
)

# What Debian boots with is slow in emulation: a compressed kernel, an initrd with udev in it, compressed modules, and
# modules for whatever the emulated PC has. So the kernel is unpacked, the initrd is a shell script that mounts the
# disk, and the modules are those of vivid alone.
_MOUNT_DISK = """\
#!/bin/busybox sh
for module in /modules/*.ko; do /bin/busybox insmod $module; done
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t ext4 /dev/vda /root
exec /bin/busybox switch_root /root /sbin/init
"""
_UNPACK_KERNEL = """\
import struct, subprocess, sys
image = open(sys.argv[1], "rb").read()
start, size = struct.unpack_from("<II", image, 0x248) # payload_offset and payload_length of Linux' boot protocol
start += (image[0x1F1] + 1) * 512
subprocess.run(["zstd", "-dc"], input=image[start:start + size - 4], check=True)
"""
_INSTALL = f"""\
export DEBIAN_FRONTEND=noninteractive
apt() {{ apt-get -q -o Acquire::Retries=3 -o APT::Update::Error-Mode=any "$@"; }}
export INITRD=No
apt update
apt install -y --no-install-recommends linux-image-amd64 kmod busybox-static cpio zstd xz-utils e2fsprogs
cd /lib/modules/*
release=${{PWD##*/}}
python3 -c {shlex.quote(_UNPACK_KERNEL)} "/boot/vmlinuz-$release" > /opt/made/vmlinux

mkdir -p /run/initrd/bin /run/initrd/dev /run/initrd/root /run/initrd/modules
cp /bin/busybox /run/initrd/bin
printf %s {shlex.quote(_MOUNT_DISK)} > /run/initrd/init
chmod +x /run/initrd/init
paths() {{ # MODULE…: the files to insert, in their order
  for module; do modprobe -S "$release" --show-depends "$module"; done |
    awk '$1 == "insmod" && !seen[$2]++ {{ print $2 }}'
}}
number=10
for path in $(paths virtio_pci virtio_blk crc32c_generic ext4); do
  xz -dc "$path" > "/run/initrd/modules/$((number += 1)).ko"
done
(cd /run/initrd && find . | cpio -o -H newc) > /opt/made/initrd.img

mkdir /run/vivid
xz -d $(paths vivid)
find kernel -name '*.ko' -exec mv -t /run/vivid {{}} +
rm -r kernel
mv /run/vivid kernel
depmod "$release"
cd /
rm -rf /var/lib/apt/lists/* /var/cache/apt/* /boot/* /run/initrd
systemctl mask {" ".join(_MASKED)}
rm -f /usr/lib/systemd/system-generators/systemd-ssh-generator
mkdir -p /etc/systemd/system/systemd-udev-trigger.service.d
cat > /etc/systemd/system/systemd-udev-trigger.service.d/few.conf << END
[Service]
ExecStart=
ExecStart=udevadm trigger --action=add --subsystem-match=block --subsystem-match=video4linux --subsystem-match=media
END
echo vivid > /etc/modules-load.d/vivid.conf
echo 'options vivid node_types=0x1' > /etc/modprobe.d/vivid.conf # one device that captures, and not ten of all kinds
touch /etc/.updated /var/.updated
truncate -s {_SIZE} /opt/made/disk.img
mkdir /run/whole
mount --bind / /run/whole
rm -rf /run/whole/dev/* /run/whole/proc/* 2>/dev/null || true
mke2fs -q -t ext4 -O ^has_journal -d /run/whole /opt/made/disk.img
"""


def main() -> None:
    """Make what boots before the tests start. Where that is impossible, the tests that need it say why."""
    with contextlib.suppress(rig_root.CannotMake):
        root = rig_root.ensure()
        if os.uname().machine == "x86_64":
            make_base(root, root.parent)


def make_base(root: Path, base: Path) -> Path:
    """The folder with disk.img, vmlinux and initrd.img: the rig's root with a kernel. Raises CannotMake."""
    digest = hashlib.sha256(f"{root.name}\n{_INSTALL}".encode())
    wanted = base / f"vm-{digest.hexdigest()[:16]}"
    with rig_root.lock(base / "vm-lock"):
        if not wanted.is_dir():
            rig_root.remove_unused(base, "vm-*")
            for leftover in base.glob("making-vm-*"):
                shutil.rmtree(leftover)  # of an interrupted build, as its lock is free
            making = Path(tempfile.mkdtemp(prefix="making-vm-", dir=base))
            try:
                _make(root, making)
                making.rename(wanted)
            except subprocess.CalledProcessError as error:
                raise rig_root.CannotMake(f"the virtual machine could not be made: {error.output[-300:]}") from error
            finally:
                shutil.rmtree(making, ignore_errors=True)
    rig_root.mark_used(wanted)
    return wanted


def _make(root: Path, making: Path) -> None:
    """Installs the kernel in a layer over the root, by Debian's own tools, and turns both into a disk."""
    layer = making / "layer"
    layer.mkdir()
    settings, shared = rig_root.pip_settings()  # certificates and the resolver, too
    proxies = "".join(f"{line};\n" for line in rig_root.apt_proxies())
    made = making / "made"
    made.mkdir()
    argv = rig_root.entering(
        root,
        ["sh", "-euxc", f"printf %s {shlex.quote(proxies)} > /etc/apt/apt.conf.d/90host\n{_INSTALL}"],
        layer=layer,
        binds={"/opt/made": made, **shared},
        writable=("/opt/made",),
        env=settings,
    )
    subprocess.run(
        argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for name in ("disk.img", "vmlinux", "initrd.img"):
        (made / name).rename(making / name)
    shutil.rmtree(made)
    layer.rmdir()


def make_report(root: Path, base: Path, work: Path) -> Path:
    """The report of the checks, which run unless it is kept from the same inputs. An AssertionError if it is empty."""
    files = work / "files"
    _stage(files)
    _REPORTS.mkdir(parents=True, exist_ok=True)
    kept = _REPORTS / hash_files(files, _DECIDES, Path(__file__).read_bytes(), base.name.encode())
    with rig_root.lock(_REPORTS / "lock"):
        if not kept.exists():
            report = _run_checks(root, base, work, files)
            kept.with_suffix(".new").write_text(report)
            kept.with_suffix(".new").rename(kept)
    return kept


def hash_files(folder: Path, names: Iterable[str], *parts: bytes) -> str:
    """A hash of the names and contents of these files and folders below `folder`, and of `parts`."""
    digest = hashlib.sha256(b"\0".join(parts))
    for name in names:
        path = folder / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            digest.update(str(file.relative_to(folder)).encode() + b"\0")
            if not file.is_dir():
                digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _run_checks(root: Path, base: Path, work: Path, files: Path) -> str:
    """Boots twice, runs `inside_vm.sh` each time; the report."""
    disk = work / "disk.img"
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", str(base / "disk.img"), str(disk)], check=True)
    _compile(root, files / _RELEASE.lstrip("/"), work)
    commands = []
    for path in sorted(files.rglob("*")):
        inside = f"/{path.relative_to(files)}"
        if path.is_dir():
            commands.append(f"mkdir {inside}")
        else:
            commands.append(f"write {path} {inside}")
            commands.append(f"set_inode_field {inside} mode 0{(0o100755 if os.access(path, os.X_OK) else 0o100644):o}")
    commands.append("mkdir /etc/systemd/system/graphical.target.wants")
    commands.append("symlink /etc/systemd/system/graphical.target.wants/checks.service ../checks.service")
    (work / "commands").write_text("\n".join(commands) + "\n")
    subprocess.run(["debugfs", "-w", "-f", str(work / "commands"), str(disk)], check=True, capture_output=True)
    for boot in range(_BOOTS):
        _boot(base, disk, work / f"console{boot}")
    done = subprocess.run(["debugfs", "-R", "cat /root/report.txt", str(disk)], capture_output=True, text=True)
    assert done.stdout, f"no report; the console: {_tail(work / 'console0')}"
    return done.stdout


def _boot(base: Path, disk: Path, log: Path) -> None:
    """From power on until the machine ends itself: by a power off, a reboot or a panic."""
    argv = [
        *("setpriv", "--pdeathsig", "KILL"),  # it ends with this process
        # One processor: the kernel changes its own code while it runs, and another processor of QEMU's
        # emulation may meet the half-changed place ("Oops: int3").
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-cpu", _PROCESSOR, "-smp", "1"),
        *("-m", "1024", "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(base / "vmlinux"), "-initrd", str(base / "initrd.img")),
        *("-append", f"root=/dev/vda rw console=ttyS0 {' '.join(_KERNEL_OPTIONS)}"),
        *("-drive", f"id=disk,file={disk},format=raw,if=none,cache=unsafe"),
        *("-device", "virtio-blk-pci,drive=disk", "-no-reboot"),
    ]
    with log.open("w") as console:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=console, stderr=subprocess.STDOUT)
        code = wait_while_growing(process, log, _SILENCE_LIMIT_S)
    assert code == 0, f"exit code {code}; the console: {_tail(log)}"


def wait_while_growing(process: subprocess.Popen[bytes], log: Path, silence_limit_s: float, poll_s: float = 1.0) -> int:
    """The exit code of the process. Kills it, with an AssertionError, if its log does not grow for that long."""
    size, changed_s = -1, time.monotonic()
    try:
        while True:
            try:
                return process.wait(poll_s)
            except subprocess.TimeoutExpired:
                now_s = time.monotonic()
            if log.stat().st_size != size:
                size, changed_s = log.stat().st_size, now_s
            elif now_s - changed_s > silence_limit_s:
                raise AssertionError(f"no output for {silence_limit_s:.0f} s; the console: {_tail(log)}")
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def _compile(root: Path, release: Path, work: Path) -> None:
    """As deploy.sh does on a host: in emulation it saves seconds at each start."""
    layer = work / "layer"
    layer.mkdir()
    argv = rig_root.entering(
        root,
        # Not by the date of the source, which debugfs changes.
        [rig_root.PYTHON, "-m", "compileall", "-q", "--invalidation-mode=unchecked-hash", _RELEASE],
        layer=layer,
        binds={_RELEASE: release},
        writable=(_RELEASE,),
    )
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)


def _stage(files: Path) -> None:
    """The files added to the disk for this run: the release as deploy.sh installs it, and the checks."""
    release = files / _RELEASE.lstrip("/")
    for name in ("softcam", "deploy", "systemd", "env", "integrations"):
        shutil.copytree(PROJECT / name, release / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(PROJECT / "soft_stream.py", release)
    checks = files / "opt/checks"
    checks.mkdir(parents=True)
    shutil.copy2(HERE / "inside_vm.sh", checks)
    units = files / "etc/systemd/system"
    patience = units / "camera-soft-cam@.service.d/patience.conf"
    patience.parent.mkdir(parents=True)
    patience.write_text("[Service]\nTimeoutStartSec=infinity\nTimeoutStopSec=infinity\nWatchdogSec=0\n")
    (units / "checks.service").write_text(_CHECKS)


if __name__ == "__main__":
    main()
