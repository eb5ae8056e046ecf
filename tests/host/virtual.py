"""A virtual machine with /dev/video devices: Debian's kernel and its vivid driver under QEMU's software emulation.

Containers have no udev, so what is bound to a device can only be shown here. The disk is made once and kept beside
the rig's root, under the hash of what it is made from; each run works on a copy. The checks run inside, in
`inside_vm.sh`, over two boots, and come out as a report. No network, no KVM. No thread here.
"""

import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.rig import root as rig_root

HERE = Path(__file__).resolve().parent
PROJECT = rig_root.CHECKOUT
_SIZE = "2500M"
_RUN_LIMIT_S = 300  # software emulation; 40 s on an idle machine with two cores
_CHECKS = """\
[Unit]
Description=The checks
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/bash /opt/checks/inside_vm.sh
StandardOutput=append:/root/report.txt
StandardError=inherit
TimeoutStartSec=240
[Install]
WantedBy=graphical.target
"""


def make_base(root: Path, base: Path) -> Path:
    """The folder with disk.img, vmlinuz and initrd.img: the rig's root with a kernel. Raises CannotMake."""
    digest = hashlib.sha256(f"{root.name}\n{_SIZE}\n".encode())
    digest.update(Path(__file__).read_bytes())
    wanted = base / f"vm-{digest.hexdigest()[:16]}"
    if wanted.is_dir():
        return wanted
    making = Path(tempfile.mkdtemp(prefix="making-vm-", dir=base))
    try:
        _make(root, making)
        making.rename(wanted)
    except subprocess.CalledProcessError as error:
        raise rig_root.CannotMake(f"the virtual machine could not be made: {error.output[-300:]}") from error
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return wanted


def _make(root: Path, making: Path) -> None:
    """Installs the kernel in a layer over the root, by Debian's own tools, and turns both into a disk."""
    layer = making / "layer"
    layer.mkdir()
    settings, shared = rig_root._pip_settings()
    apt = [line.replace('"', "") for line in rig_root._apt_proxies()]
    options = " ".join(f"-o {shlex.quote(line.replace(' ', '=', 1))}" for line in apt)
    # Debian's compressed initrd takes long to unpack in emulation; with few modules it is small.
    install = f"""
        export DEBIAN_FRONTEND=noninteractive
        mkdir -p /etc/initramfs-tools/conf.d
        printf 'MODULES=list\\nCOMPRESS=lz4\\nCOMPRESSLEVEL=1\\n' > /etc/initramfs-tools/conf.d/small.conf
        apt-get -q {options} update
        apt-get -q {options} install -y --no-install-recommends initramfs-tools lz4 e2fsprogs
        printf 'virtio_pci\\nvirtio_blk\\next4\\ncrc32c\\n' > /etc/initramfs-tools/modules
        apt-get -q {options} install -y --no-install-recommends linux-image-$(dpkg --print-architecture) kmod
        cp -L /boot/vmlinuz-* /opt/made/vmlinuz
        cp -L /boot/initrd.img-* /opt/made/initrd.img
        rm -rf /var/lib/apt/lists/* /var/cache/apt/* /boot/*
        systemctl disable nginx ssh systemd-networkd-wait-online || true
        echo vivid > /etc/modules-load.d/vivid.conf
        echo 'options vivid n_devs=2' > /etc/modprobe.d/vivid.conf
        truncate -s {_SIZE} /opt/made/disk.img
        mkdir /run/whole && mount --bind / /run/whole
        rm -rf /run/whole/dev/* /run/whole/proc/* 2>/dev/null || true
        mke2fs -q -t ext4 -O ^has_journal -d /run/whole /opt/made/disk.img
    """
    made = making / "made"
    made.mkdir()
    argv = rig_root.entering(
        root,
        ["sh", "-euxc", install],
        layer=layer,
        binds={"/opt/made": made, **shared},
        writable=("/opt/made",),
        env=settings,
    )
    subprocess.run(
        argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for name in ("disk.img", "vmlinuz", "initrd.img"):
        (made / name).rename(making / name)
    shutil.rmtree(made)
    layer.rmdir()


def run_checks(base: Path, work: Path) -> str:
    """Boots, runs `inside_vm.sh`, powers off; the report. An AssertionError where there is none."""
    disk = work / "disk.img"
    subprocess.run(["cp", "--reflink=auto", "--sparse=always", str(base / "disk.img"), str(disk)], check=True)
    files = work / "files"
    _stage(files)
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
    log = work / "console"
    with log.open("w") as console:
        subprocess.run(
            [
                *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
                *("-m", "1024", "-nographic", "-nic", "none"),
                *("-kernel", str(base / "vmlinuz"), "-initrd", str(base / "initrd.img")),
                *("-append", "root=/dev/vda rw console=ttyS0 quiet systemd.show_status=no"),
                *("-drive", f"file={disk},format=raw,if=virtio,cache=unsafe"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            timeout=_RUN_LIMIT_S,
            check=True,
        )
    report = subprocess.run(["debugfs", "-R", "cat /root/report.txt", str(disk)], capture_output=True, text=True).stdout
    assert report, f"no report; the console: {log.read_text(errors='replace')[-3000:]}"
    return report


def _stage(files: Path) -> None:
    """What the disk gets for this run: the release as deploy.sh lays it out, and the checks."""
    release = files / "opt/camera-soft-stream/releases/vm"
    for name in ("softcam", "systemd", "env", "integrations"):
        shutil.copytree(PROJECT / name, release / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(PROJECT / "soft_stream.py", release)
    rig = files / "opt/rig"
    rig.mkdir()
    for bridge in rig_root.INSIDE.glob("*.py"):
        shutil.copy2(bridge, rig)
    # The kernel in there has /dev/udmabuf: no shim is needed.
    (rig / "python").write_text(f'#!/bin/sh\nexport PYTHONPATH=/opt/rig\nexec {rig_root.PYTHON} "$@"\n')
    (rig / "python").chmod(0o755)
    checks = files / "opt/checks"
    checks.mkdir(parents=True)
    shutil.copy2(HERE / "inside_vm.sh", checks)
    unit = files / "etc/systemd/system/checks.service"
    unit.parent.mkdir(parents=True)
    unit.write_text(_CHECKS)
