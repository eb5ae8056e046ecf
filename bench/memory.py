"""Reads the memory of a process and of its sockets from the kernel. No state, no thread."""

import socket
import struct
from pathlib import Path

# From linux/netlink.h, linux/sock_diag.h and linux/inet_diag.h.
NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY = 20
NLM_F_REQUEST_DUMP = 0x301
NLMSG_DONE = 3
INET_DIAG_SKMEMINFO = 7
TCP_ESTABLISHED_MASK = 1 << 1
MESSAGE_BYTES = 72  # struct inet_diag_msg


def user_bytes(pid: int) -> int:
    """Anonymous memory of a process in bytes: heap and stacks without mapped files."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no Anonymous line for process {pid}")


def kernel_bytes(port: int) -> list[int]:
    """The bytes in the kernel's queues of each established IPv4 connection of the local `port`."""
    request = struct.pack(
        "=BBBBI", socket.AF_INET, socket.IPPROTO_TCP, 1 << (INET_DIAG_SKMEMINFO - 1), 0, TCP_ESTABLISHED_MASK
    )
    request += bytes(48)  # struct inet_diag_sockid: any
    header = struct.pack("=IHHII", 16 + len(request), SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 0, 0)
    found: list[int] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(5)
        netlink.sendto(header + request, (0, 0))
        while True:
            data = netlink.recv(1 << 18)
            while data:
                length, kind = struct.unpack_from("=IH", data)
                if kind == NLMSG_DONE:
                    return found
                if kind == SOCK_DIAG_BY_FAMILY and struct.unpack_from(">H", data, 16 + 4)[0] == port:
                    found += _queues(data[16 + MESSAGE_BYTES : length])
                data = data[(length + 3) & ~3 :]


def _queues(attributes: bytes) -> list[int]:
    while len(attributes) >= 4:
        length, kind = struct.unpack_from("=HH", attributes)
        if kind == INET_DIAG_SKMEMINFO:
            received, _, _, _, reserved, queued = struct.unpack_from("=6I", attributes, 4)
            return [received + reserved + queued]
        attributes = attributes[(length + 3) & ~3 :]
    return []
