"""NAL units: byte streams with start codes, and units with lengths."""

import pytest

from softcam.h264 import nal

SPS, PPS, SEI = b"\x67\x42\x00\x1e\x80", b"\x68\xce\x80", b"\x06\x05\x80"
IDR, SLICE = b"\x65\x88\x80\x10", b"\x41\x9a\x00\x80"
LONG, SHORT = b"\x00\x00\x00\x01", b"\x00\x00\x01"


@pytest.mark.parametrize(
    ("stream", "units"),
    [
        (b"", []),
        (b"no start code", []),
        (LONG + SPS + LONG + PPS + SHORT + IDR, [SPS, PPS, IDR]),
        (SHORT + SLICE + bytes(5), [SLICE]),  # zeros that follow are padding
        (SHORT + SHORT + SLICE, [SLICE]),  # an empty unit
        (b"\xff" + SHORT + SLICE, [SLICE]),
        (SHORT + b"\x41\x00\x00\x03\x01\x80", [b"\x41\x00\x00\x03\x01\x80"]),  # an escaped start code
    ],
)
def test_split(stream: bytes, units: list[bytes]) -> None:
    assert list(nal.split(stream)) == units


def test_only_slices_remain_with_their_lengths() -> None:
    stream = LONG + SPS + LONG + PPS + SHORT + SEI + SHORT + IDR + SHORT + SLICE
    assert nal.only_slices(stream) == b"\x00\x00\x00\x04" + IDR + b"\x00\x00\x00\x04" + SLICE


def test_first_parameter_sets_are_used() -> None:
    other = b"\x67\x64\x00\x1f\x80"
    assert nal.parameter_sets(LONG + SPS + LONG + PPS + LONG + other) == (SPS, PPS)


@pytest.mark.parametrize("stream", [b"", LONG + SPS, LONG + PPS + LONG + IDR])
def test_missing_parameter_set_is_an_error(stream: bytes) -> None:
    with pytest.raises(ValueError, match="no parameter sets"):
        nal.parameter_sets(stream)


@pytest.mark.parametrize(("unit", "is_idr"), [(IDR, True), (SLICE, False), (b"", False)])
def test_keyframe(unit: bytes, is_idr: bool) -> None:
    assert nal.is_idr(len(unit).to_bytes(4) + unit) is is_idr
