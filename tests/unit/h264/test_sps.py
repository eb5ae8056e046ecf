"""Parameter sets declare the colours afterwards, and are otherwise unchanged."""

import io
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from softcam.h264 import nal, sps
from softcam.h264.packet import Packet, VideoFormat
from softcam.mp4 import fragment

av = pytest.importorskip("av")

SIZE = (128, 96)
FPS = 25


def encoded(**options: Any) -> tuple[bytes, bytes, list[bytes]]:
    """libx264's SPS and PPS, and the access units of some frames, without declared colours by default."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height = SIZE
    context.pix_fmt = options.pop("pix_fmt", "yuv420p")
    context.framerate, context.time_base = Fraction(FPS), Fraction(1, FPS)
    for name in ("color_range", "colorspace"):
        if name in options:
            setattr(context, name, options.pop(name))
    context.options = {"tune": "zerolatency", "flags": "+global_header", **options}
    context.open()
    units = []
    for number in range(4):
        frame = av.VideoFrame(*SIZE, context.pix_fmt)
        for plane in frame.planes:
            plane.update(np.full(plane.buffer_size, 40 * number + 20, np.uint8).tobytes())
        frame.pts = number
        units += [nal.only_slices(bytes(packet)) for packet in context.encode(frame)]
    return *nal.parameter_sets(bytes(context.extradata)), units


def shown(set_: bytes, pps: bytes, units: list[bytes]) -> list[Any]:
    fmt = VideoFormat(*SIZE, FPS, set_, pps)
    packets = [Packet(unit, nal.is_idr(unit), number / FPS, 0.0) for number, unit in enumerate(units)]
    movie = fragment.initial_segment(fmt) + fragment.fragment(1, packets, 0.0, 1 / FPS)
    with av.open(io.BytesIO(movie)) as container:
        return list(container.decode(video=0))


def without_vui(set_: bytes) -> bytes:
    """As a simple encoder writes it."""
    bits = sps.BitReader(set_.replace(b"\x00\x00\x03", b"\x00\x00"))
    sps.skip_to_vui(bits)
    return sps.to_nal_unit(bits.all[: bits.at] + "01")


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"preset": "ultrafast"}, id="baseline"),
        pytest.param({"profile": "main"}, id="main"),
        pytest.param({"profile": "high"}, id="high"),
        pytest.param({"profile": "high", "x264-params": "interlaced=1"}, id="fields"),
        pytest.param({"color_range": 1, "colorspace": 1}, id="other colours"),
        pytest.param({"x264-params": "sar=4/3:overscan=show:nal-hrd=vbr:vbv-maxrate=500:vbv-bufsize=500"}, id="more"),
        pytest.param({"x264-params": "sar=12/11"}, id="a ratio of the table"),
        pytest.param({"pix_fmt": "yuv444p"}, id="whole chroma"),
    ],
)
@pytest.mark.parametrize("has_vui", [True, False], ids=["VUI", "none"])
def test_colours_are_declared_and_frames_unchanged(options: dict[str, Any], has_vui: bool) -> None:
    before, pps, units = encoded(**options)
    if not has_vui:
        before = without_vui(before)
    after = sps.with_colours(before)
    assert b"\x00\x00\x01" not in after
    pictures, wanted = shown(after, pps, units), shown(before, pps, units)
    assert len(pictures) == len(wanted) == 4
    for picture, other in zip(pictures, wanted, strict=True):
        assert (picture.color_range, picture.colorspace) == (2, 6)
        for plane, same in zip(picture.planes, other.planes, strict=True):
            assert bytes(plane) == bytes(same)
    assert sps.with_colours(after) == after


def test_without_vui_no_frame_is_delayed() -> None:
    before, _, _ = encoded(preset="ultrafast")
    declared = sps.with_colours(without_vui(before))
    bits = sps.BitReader(declared.replace(b"\x00\x00\x03", b"\x00\x00"))
    frames = sps.skip_to_vui(bits)
    assert bits.all[bits.at :].rstrip("0").endswith(sps.exp_golomb(0) + sps.exp_golomb(frames) + "1")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        pytest.param(b"", "truncated", id="nothing"),
        pytest.param(b"\x67\x42\x80\x28", "truncated", id="cut off"),
        pytest.param(b"\x67" + bytes(40), "truncated", id="zeros"),
        pytest.param(b"\x67\x64\x00\x28\xad\xff", "scaling", id="scaling lists"),
    ],
)
def test_invalid_parameter_set_is_rejected(data: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        sps.with_colours(data)
