"""Asks the firmware of a Raspberry Pi for its throttling flags, as vcgencmd(1) does. No state; any thread.

`/dev/vcio_gencmd` passes text commands to the firmware and nothing else, unlike `/dev/vcio`, which could also change
clocks and run code. It belongs to the group `video`. Kernels of Raspberry Pi have it since May 2026
(https://github.com/raspberrypi/linux/pull/7351).
"""

import fcntl
import os
import struct
from pathlib import Path
from typing import Final

from softcam.system.throttling import parse_flags

DEVICE: Final = "dev/vcio_gencmd"
_COMMAND: Final = b"get_throttled"
_TEXT_BYTES: Final = 1024  # for the command, and then for what the firmware returns; as vcgencmd has it
_GET_GENCMD_RESULT: Final = 0x00030080
_SUCCESS: Final = 0x80000000
_HEADER: Final = struct.Struct("=6I")  # size, status, tag, size of the text, length, error
_END: Final = struct.pack("=I", 0)
_IOCTL_MBOX_PROPERTY: Final = 3 << 30 | struct.calcsize("P") << 16 | 100 << 8  # _IOWR(100, 0, char *)


def throttled_flags(root: Path) -> int | None:
    """The flags of `vcgencmd get_throttled`. May block for some seconds if the firmware does not answer."""
    size = _HEADER.size + _TEXT_BYTES + len(_END)
    message = bytearray(_HEADER.pack(size, 0, _GET_GENCMD_RESULT, _TEXT_BYTES, 0, 0))
    message += _COMMAND.ljust(_TEXT_BYTES, b"\0") + _END
    try:
        device = os.open(root / DEVICE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.ioctl(device, _IOCTL_MBOX_PROPERTY, message)
        finally:
            os.close(device)
    except OSError:
        return None
    return flags_of_reply(bytes(message))


def flags_of_reply(message: bytes) -> int | None:
    """The flags in the buffer as the kernel returns it; None if the firmware reports an error."""
    _, status, _, _, _, error = _HEADER.unpack_from(message)
    text, _, _ = message[_HEADER.size :].partition(b"\0")
    return parse_flags(text.decode("ascii", "replace")) if status == _SUCCESS and error == 0 else None
