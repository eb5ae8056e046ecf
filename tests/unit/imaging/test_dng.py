"""The orientation that is written into a DNG."""

import struct

import pytest

from softcam.imaging import dng


@pytest.mark.parametrize(
    "picture",
    [b"", b"no TIFF at all", b"II*\0", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"MM\0*\0\0\0\x08\0\0"],
)
def test_other_data_is_returned_unchanged(picture: bytes) -> None:
    assert dng.turned(picture, 6) == picture


@pytest.mark.parametrize(("mark", "order"), [(b"II*\0", "<"), (b"MM\0*", ">")])
def test_orientation_in_both_byte_orders(mark: bytes, order: str) -> None:
    def file(orientation: int) -> bytes:
        fields = ((256, 3, 1, 640, 0), (274, 3, 1, orientation, 0))
        directory = b"".join(struct.pack(f"{order}HHIHH", *field) for field in fields)
        return mark + struct.pack(f"{order}IH", 8, len(fields)) + directory + bytes(4)

    assert dng.turned(file(1), 6) == file(6)
