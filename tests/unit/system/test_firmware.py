"""The request to the firmware, and what it returns."""

import fcntl
import struct
from pathlib import Path

import pytest

from softcam.system import firmware
from softcam.system.firmware import flags_of_reply, throttled_flags
from tests.support.machines import write_tree

SUCCESS = 0x80000000
HEADER = 24  # bytes in front of the text


def reply(text: bytes, status: int = SUCCESS, error: int = 0) -> bytes:
    return struct.pack("=6I", 1052, status, 0x00030080, 1024, 0, error) + text.ljust(1024, b"\0") + bytes(4)


@pytest.mark.parametrize(
    ("message", "flags"),
    [
        (reply(b"throttled=0x50005"), 0x50005),
        (reply(b"throttled=0x0\n"), 0),
        (reply(b"throttled=0x50005", status=0x80000001), None),
        (reply(b"throttled=0x50005", status=0), None),
        (reply(b"throttled=0x50005", error=1), None),
        (reply(b'error=1 error_msg="Command not registered"'), None),
        (reply(b""), None),
        (reply(b"\xff" * 1024), None),
        (reply(b"9" * 1024), None),
    ],
)
def test_reply(message: bytes, flags: int | None) -> None:
    assert flags_of_reply(message) == flags


def test_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = []

    def ioctl(device: int, request: int, message: bytearray) -> int:
        requests.append((request, bytes(message)))
        message[:] = reply(b"throttled=0x80008")
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert throttled_flags(write_tree(tmp_path, {firmware.DEVICE: ""})) == 0x80008
    ((number, message),) = requests
    assert number == {8: 0xC0086400, 4: 0xC0046400}[struct.calcsize("P")]
    assert struct.unpack_from("=6I", message) == (len(message), 0, 0x00030080, 1024, 0, 0)
    assert message[HEADER:].rstrip(b"\0") == b"get_throttled"
    assert len(message) == HEADER + 1024 + 4


def test_other_devices(tmp_path: Path) -> None:
    assert throttled_flags(tmp_path) is None
    assert throttled_flags(write_tree(tmp_path, {firmware.DEVICE: "0"})) is None
