"""libx264 through PyAV: one frame in, one access unit out, at once. The encoder where there is none in hardware.

PyAV is imported when the first encoder is made, so that a portal without H.264 never loads it. No thread of its own:
one `X264` belongs to one thread. Frames are full-range BT.601, as in a JPEG, and are encoded and flagged as such, so
that a browser shows both alike. Where a frame's planes lie behind one another in one buffer, as a camera's do, x264
reads them where they lie; others are copied once.
"""

import os
from fractions import Fraction
from typing import Any, Final

import numpy as np

from softcam.errors import CameraError, NotSupported
from softcam.h264.nal import is_idr, only_slices, parameter_sets
from softcam.imaging.frame import Frame, PixelFormat, Plane

# ITU-T H.273: what JFIF says of its pictures, which are sRGB by way of BT.601's matrix.
COLOUR_PRIMARIES: Final = 1
COLOUR_TRANSFER: Final = 13
COLOUR_MATRIX: Final = 6
_FULL_RANGE: Final = 2  # AVCOL_RANGE_JPEG

# Keyframes come when the owner asks for them, and never by x264's own count, which is of frames, not of time.
_NO_OWN_KEYFRAMES: Final = 1 << 30
_BUFFER_S: Final = 0.5  # how far ahead of its rate the stream may run: a keyframe is some times as large as others
# What one core of a Raspberry Pi 5 encodes with a third of it left over; above that two threads share each frame.
_PIXELS_PER_THREAD: Final = 1920 * 1080 * 24

# All JPEGs but the rarest; the j says that the range is full, which newer releases leave to a flag.
_OF_JPEGS: Final = frozenset(
    {"gray", *(f"{letters}{kind}p" for letters in ("yuv", "yuvj") for kind in ("420", "422", "440", "444"))}
)
_NAMES: Final = {"YUV420": "yuv420p", "NV12": "nv12", "YUYV": "nv12", "MJPEG": "yuv420p"}


def require_pyav() -> None:
    """Raises NotSupported where PyAV, or libx264 in it, is missing."""
    _codec(_pyav())


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise NotSupported(
            f"H.264 needs PyAV, the package av, which Debian calls python3-av, and it cannot be loaded: {error}"
        ) from error
    return av


def _codec(av: Any) -> Any:
    try:
        return av.Codec("libx264", "w")
    except (av.error.FFmpegError, ValueError) as error:
        raise NotSupported("H.264 needs libx264, and this PyAV was built without it") from error


class X264:
    """One run: frames of one size and format."""

    def __init__(self, size: tuple[int, int], pixel_format: PixelFormat, fps: float, bitrate: int) -> None:
        """`bitrate` is in bits a second. An odd column or row at the edge is left out, as H.264 has none.

        Raises NotSupported, CameraError.
        """
        self._av = av = _pyav()
        codec = _codec(av)
        self._frame_size = size
        self._pixel_format = pixel_format
        self.size = width, height = size[0] // 2 * 2, size[1] // 2 * 2
        if not width or not height:
            raise CameraError(f"H.264 has no pictures of {size[0]}x{size[1]}")
        rate = Fraction(fps).limit_denominator(1000)
        self._format = _NAMES[pixel_format]
        self._context = context = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt = width, height, self._format
        context.framerate, context.time_base = rate, 1 / rate
        context.bit_rate = bitrate
        context.gop_size = _NO_OWN_KEYFRAMES
        context.max_b_frames = 0
        context.color_range = _FULL_RANGE
        context.colorspace = COLOUR_MATRIX
        context.color_primaries = COLOUR_PRIMARIES
        context.color_trc = COLOUR_TRANSFER
        context.thread_count = _threads(width * height * fps)
        context.options = {
            "preset": "ultrafast",  # which means constrained baseline, too: what WebRTC takes
            "tune": "zerolatency",
            "forced-idr": "1",
            "flags": "+global_header",  # parameter sets apart, in extradata
            "maxrate": str(bitrate),
            "bufsize": str(int(bitrate * _BUFFER_S)),
        }
        try:
            context.open()
        except av.error.FFmpegError as error:
            raise CameraError(f"libx264 does not take {width}x{height}: {error}") from error
        try:
            self.sps, self.pps = parameter_sets(context.extradata or b"")
        except ValueError as error:
            raise CameraError(f"libx264 gave no header: {error}") from error
        self._decoder: Any = None  # of a camera's own JPEGs
        self._copy: Any = None  # where planes are copied to that do not lie as libx264 reads them
        self._count = 0

    def encode(self, frame: Frame, *, is_keyframe: bool) -> tuple[bytes, bool]:
        """The access unit of a frame that the caller holds, and whether it is a keyframe, as which it may be asked for.

        Raises CameraError for a frame that cannot be read.
        """
        if frame.size != self._frame_size or frame.pixel_format != self._pixel_format:
            raise CameraError(f"a {frame.pixel_format} frame of {frame.width}x{frame.height} came between others")
        planes = self._decode(frame) if frame.pixel_format == "MJPEG" else _checked(frame)
        picture = self._picture(planes)
        kinds = self._av.video.frame.PictureType
        picture.pict_type = kinds.I if is_keyframe else kinds.NONE
        picture.pts = self._count
        self._count += 1
        try:
            packets = self._context.encode(picture)
        except self._av.error.FFmpegError as error:
            raise CameraError(f"libx264 failed: {error}") from error
        if len(packets) != 1:
            raise CameraError(f"libx264 gave {len(packets)} packets for a frame")
        data = only_slices(bytes(packets[0]))
        return data, is_idr(data)

    def close(self) -> None:
        """Let go of the memory; the last call."""
        self._context = self._decoder = self._copy = None

    def _picture(self, planes: tuple[Plane, ...]) -> Any:
        """A PyAV frame of the planes, Y first; a view of them where that can be."""
        width, height = self.size
        if self._pixel_format in ("YUV420", "NV12"):
            buffer = _as_one_buffer(planes, width, height)
            if buffer is not None:
                try:
                    return self._av.VideoFrame.from_numpy_buffer(buffer, self._format)
                except ValueError:
                    pass  # PyAV before 13 wants rows without padding
        if self._copy is None:
            # Always the same one: libx264 has its own copy of what it needs later.
            self._copy = self._av.VideoFrame(width, height, self._format)
        targets = [
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height] for plane in self._copy.planes
        ]
        if self._pixel_format == "YUYV":
            _split_yuyv(planes[0], targets[0][:, :width], targets[1][:, :width])
            return self._copy
        for target, plane in zip(targets, planes, strict=True):
            rows, columns = target.shape[0], (width if self._format == "nv12" or target is targets[0] else width // 2)
            target[:, :columns] = plane[:rows, :columns]
        return self._copy

    def _decode(self, frame: Frame) -> tuple[Plane, ...]:
        """The planes of a JPEG, with the chroma halved both ways, whatever it was."""
        av = self._av
        if self._decoder is None:
            self._decoder = av.CodecContext.create("mjpeg", "r")
            self._decoder.thread_count = 1  # more would each keep a picture back
        if len(frame.planes) != 1:
            raise CameraError(f"an MJPEG frame has 1 plane, not {len(frame.planes)}")
        data = frame.planes[0].tobytes()
        if not data:  # to FFmpeg, the end of all of them
            raise CameraError("the camera's JPEG is empty")
        try:
            pictures = self._decoder.decode(av.Packet(data))
        except av.error.FFmpegError as error:
            raise CameraError(f"the camera's JPEG cannot be read: {error}") from error
        if len(pictures) != 1:
            raise CameraError("the camera's JPEG cannot be read")
        picture = pictures[0]
        if (picture.width, picture.height) != frame.size:
            raise CameraError(
                f"the camera's JPEG is {picture.width}x{picture.height}, not {frame.width}x{frame.height}"
            )
        name = picture.format.name
        if name not in _OF_JPEGS:
            raise CameraError(f"the camera's JPEG is {name}, which cannot be encoded")
        planes = [
            np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
            for plane in picture.planes
        ]
        width, height = self.size
        if len(planes) == 1:
            grey = np.full((height // 2, width // 2), 128, np.uint8)
            return planes[0], grey, grey
        return planes[0], *(_halved(plane, frame.size) for plane in planes[1:])


def _threads(pixels_per_s: float) -> int:
    return min(2 if pixels_per_s > _PIXELS_PER_THREAD else 1, os.cpu_count() or 1)


def _checked(frame: Frame) -> tuple[Plane, ...]:
    """The frame's planes, if they are as its format says: libx264 would read beyond the end of what is not."""
    width, height = frame.size
    half = ((height + 1) // 2, (width + 1) // 2)
    shapes: dict[str, tuple[tuple[int, int], ...]] = {
        "YUV420": ((height, width), half, half),
        "NV12": ((height, width), (half[0], 2 * half[1])),
        "YUYV": ((height, 2 * width),),
    }
    wanted = shapes.get(frame.pixel_format, ())
    found = tuple(plane.shape for plane in frame.planes)
    if found != wanted or any(plane.strides[-1] != 1 or plane.dtype != np.uint8 for plane in frame.planes):
        raise CameraError(f"a {frame.pixel_format} frame of {width}x{height} has planes of {found}, not {wanted}")
    return frame.planes


def _as_one_buffer(planes: tuple[Plane, ...], width: int, height: int) -> Plane | None:
    """All planes as the one array that PyAV makes a frame of without a copy; None where they do not lie so.

    It takes their distances from the first one's stride, and a height that is no multiple of four for a smaller one.
    """
    luma = planes[0]
    stride = luma.strides[0]
    if height % 4 or stride < width or luma.shape[0] != height:
        return None
    chroma_stride = stride if len(planes) == 2 else stride // 2
    at = luma.ctypes.data + stride * height
    for plane in planes[1:]:
        if plane.strides[0] != chroma_stride or plane.ctypes.data != at:
            return None
        at += chroma_stride * (height // 2)
    return np.lib.stride_tricks.as_strided(luma, (height * 3 // 2, width), (stride, 1), writeable=False)


def _split_yuyv(packed: Plane, luma: Plane, chroma: Plane) -> None:
    """NV12 of packed 4:2:2: its chroma bytes stand in NV12's order already, and each two rows become one."""
    height, width = luma.shape
    # Numbers of two bytes, luma in the low one, as on all machines that this runs on.
    pairs = np.ascontiguousarray(packed[:height, : 2 * width]).view(np.uint16)
    np.copyto(luma, pairs, casting="unsafe")
    above, below = pairs[0::2] >> 8, pairs[1::2] >> 8
    above += below
    above += 1
    above >>= 1
    np.copyto(chroma, above, casting="unsafe")


def _halved(plane: Plane, size: tuple[int, int]) -> Plane:
    """A chroma plane of a picture of `size` at half its width and height; the mean of what becomes one."""
    width, height = size
    if plane.shape[0] == height and height > 1:
        plane = _mean(plane[0 : height // 2 * 2 : 2], plane[1::2])
    if plane.shape[1] == width and width > 1:
        plane = _mean(plane[:, 0 : width // 2 * 2 : 2], plane[:, 1::2])
    return plane


def _mean(one: Plane, other: Plane) -> Plane:
    total = one.astype(np.uint16)
    total += other
    total += 1
    total >>= 1
    return total.astype(np.uint8)
