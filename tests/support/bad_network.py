"""Two network namespaces, with a network between them that is slow and loses packets, as tc-netem(8) makes it.

Not with netem itself, which many kernels omit. Each namespace has a TUN device; a thread of the test process carries
the packets from one to the other. Nothing else reaches the namespaces. All packets that are delivered can be written to
a file for tshark. Needs root.
"""

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import threading
import time
from pathlib import Path
from typing import BinaryIO, Final, Self

import pytest

from tests.support.timeouts import PATIENCE_S

SERVER: Final = "10.0.0.1"
CLIENT: Final = "10.0.0.2"
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x1001
_CLONE_NEWNET: Final = 0x40000000
_MAX_PACKET: Final = 65536
_PCAP: Final = struct.Struct("=IHHiIII")
_PCAP_PACKET: Final = struct.Struct("=IIII")
_RAW_IP: Final = 101


class BadNetwork:
    """Carries packets while the block runs; `delay_s` and `loss` apply to those from the server to the client.

    `mtu` is in bytes, and known at both ends.
    """

    def __init__(
        self, *, delay_s: float = 0.0, loss: float = 0.0, mtu: int = 1500, capture: Path | None = None
    ) -> None:
        self._mtu = mtu
        self._delay_s = delay_s
        self._loss = loss
        self._capture: BinaryIO | None = None if capture is None else capture.open("wb")
        self._random = random.Random(15)
        self._names = [f"soft-stream-{os.getpid()}-{side}" for side in ("server", "client")]
        self._fds: list[int] = []
        self._is_ending = threading.Event()
        self._thread = threading.Thread(target=self._carry, name="bad network", daemon=True)
        self.lost = 0
        self.delivered = 0

    def command(self, address: str, *command: str) -> list[str]:
        """Runs a command in the namespace with this address."""
        return ["ip", "netns", "exec", self._names[address == CLIENT], *command]

    def stop_losing(self) -> None:
        """From now on every packet arrives, as late as before."""
        self._loss = 0.0

    def __enter__(self) -> Self:
        try:
            for name, address in zip(self._names, (SERVER, CLIENT), strict=True):
                _ip("netns", "add", name)
                self._fds.append(_tun_of(name))
                _ip("-n", name, "addr", "add", f"{address}/24", "dev", "tun0")
                _ip("-n", name, "link", "set", "tun0", "mtu", str(self._mtu))
                for device in ("lo", "tun0"):
                    _ip("-n", name, "link", "set", device, "up")
        except BaseException:
            self._remove()
            raise
        if self._capture is not None:
            self._capture.write(_PCAP.pack(0xA1B2C3D4, 2, 4, 0, 0, _MAX_PACKET, _RAW_IP))
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._is_ending.set()
        self._thread.join(PATIENCE_S)
        self._remove()
        if self._capture is not None:
            self._capture.close()

    def _remove(self) -> None:
        for fd in self._fds:
            os.close(fd)
        for name in self._names:
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", name)

    def _carry(self) -> None:
        server, client = self._fds
        epoll = select.epoll()
        for fd in self._fds:
            epoll.register(fd, select.EPOLLIN)
        waiting: list[tuple[float, int, bytes]] = []
        while not self._is_ending.is_set():
            timeout_s = max(0.0, waiting[0][0] - time.monotonic()) if waiting else 0.1
            for fd, _ in epoll.poll(min(timeout_s, 0.1)):
                packet = os.read(fd, _MAX_PACKET)
                if packet[0] >> 4 != 4:  # IPv6 looks for its neighbours
                    continue
                if fd == client:
                    self._deliver(server, packet)
                elif self._random.random() < self._loss:
                    self.lost += 1
                else:
                    heapq.heappush(waiting, (time.monotonic() + self._delay_s, self.delivered + len(waiting), packet))
            while waiting and waiting[0][0] <= time.monotonic():
                self._deliver(client, heapq.heappop(waiting)[2])
        epoll.close()

    def _deliver(self, fd: int, packet: bytes) -> None:
        os.write(fd, packet)
        self.delivered += 1
        if self._capture is not None:
            now_s = time.time()
            self._capture.write(_PCAP_PACKET.pack(int(now_s), int(now_s % 1 * 1e6), len(packet), len(packet)))
            self._capture.write(packet)


def require_namespaces() -> None:
    """Skip the test, which fails it in CI, where network namespaces cannot be made."""
    if os.geteuid() != 0 or not Path("/dev/net/tun").exists():
        pytest.skip("needs root, and TUN devices")
    try:
        _ip("netns", "list")
    except OSError:
        pytest.skip("needs iproute2")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=PATIENCE_S)


def _tun_of(namespace: str) -> int:
    """A new device `tun0` of the namespace. A thread enters it, and no other thread of this process."""
    made: list[int] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/run/netns/{namespace}", "rb") as file:  # noqa: PTH123 - its descriptor is needed
            if libc.setns(file.fileno(), _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", b"tun0", _IFF_TUN_NO_PI))
        made.append(fd)

    thread = threading.Thread(target=make, name="namespace", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return made[0]
