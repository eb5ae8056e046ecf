"""libx264 through PyAV: returns the access unit of each frame at once. Used without a hardware encoder.

PyAV is imported when the first encoder is created, so a process without H.264 never loads it. Starts no thread; an
`X264` belongs to one thread. Frames are full-range BT.601, as in a JPEG, and are encoded and flagged as such, so that a
browser shows both alike. If a frame's planes are contiguous in one buffer, as a camera's are, x264 reads them in place;
otherwise they are copied once.
"""

import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final

import numpy as np

from softcam.errors import CameraError, NotSupported
from softcam.h264.nal import is_idr, only_slices, parameter_sets
from softcam.h264.packet import Packet
from softcam.imaging.colour import COLOUR_MATRIX, COLOUR_PRIMARIES, COLOUR_TRANSFER
from softcam.imaging.frame import Frame, PixelFormat, Plane
from softcam.imaging.jpeg_decoder import JpegDecoder
from softcam.imaging.planes import checked_planes
from softcam.imaging.rgb import rows_of
from softcam.runtime.pyav import import_pyav

_FULL_RANGE: Final = 2  # AVCOL_RANGE_JPEG

# Keyframes are encoded on request only; x264 would count frames instead of time.
_NO_AUTOMATIC_KEYFRAMES: Final = 1 << 30
_BUFFER_S: Final = 0.5  # rate control buffer: a keyframe is several times larger than other frames
# What one core of a Raspberry Pi 5 encodes at two thirds load; above that, two threads share each frame.
_PIXELS_PER_THREAD: Final = 1920 * 1080 * 24

# All common JPEG formats; the j marks full range, which newer releases of FFmpeg express by a flag.
_JPEG_FORMATS: Final = frozenset(
    {"gray", *(f"{letters}{kind}p" for letters in ("yuv", "yuvj") for kind in ("420", "422", "440", "444"))}
)
_SCALED_FORMAT: Final = "yuv420p"
_FORMATS: Final = {"YUV420": "yuv420p", "NV12": "nv12", "YUYV": "nv12", "MJPEG": "yuv420p"}


def require_libx264() -> None:
    """Raises NotSupported where PyAV, or libx264 in it, is missing."""
    _codec(import_pyav("H.264"))


def _codec(av: Any) -> Any:
    try:
        return av.Codec("libx264", "w")
    except (av.error.FFmpegError, ValueError) as error:
        raise NotSupported("H.264 requires libx264, and this PyAV was built without it") from error


class X264:
    """An encoder for frames of one size and format; implements `Backend`."""

    name: Final = "libx264"
    is_keeping_buffers = False
    is_full = False
    is_busy = False

    def __init__(
        self,
        size: tuple[int, int],
        pixel_format: PixelFormat,
        fps: float,
        bitrate: int,
        _wake: Callable[[], None] | None = None,
        *,
        fit: tuple[int, int] | None = None,
    ) -> None:
        """`bitrate` is in bits per second. An odd column or row at the edge is cropped, because H.264 has even sizes.

        Frames that are larger than `fit` (width, height) are scaled down to it, and keep their aspect ratio. Of frames
        that are at least twice as high, only every second, third… row is read: reading costs more than scaling.

        Raises NotSupported, CameraError.
        """
        self._av = av = import_pyav("H.264")
        codec = _codec(av)
        self.bitrate = bitrate
        self._frame_size = size
        self._pixel_format = pixel_format
        self._source_size = size[0] // 2 * 2, size[1] // 2 * 2
        self.size = width, height = self._source_size if fit is None else fitted_size(self._source_size, fit)
        if not width or not height:
            raise CameraError(f"H.264 cannot encode {size[0]}x{size[1]}")
        self._scaler: Any = None  # libswscale; None where the size stays
        self._row_step = 1  # of the source; the rows between are left out
        if self.size != self._source_size:
            self._scaler = av.video.reformatter.VideoReformatter()
            self._row_step = _row_step(self._source_size[1], height)
        # PyAV 17 and later divide each frame among threads, which costs more than it saves at this size.
        self._scaling = {"interpolation": "AREA", **({"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {})}
        rate = Fraction(fps).limit_denominator(1000)
        self._format = _FORMATS[pixel_format]
        self._context = context = av.CodecContext.create(codec, "w")
        context.width, context.height = width, height
        context.pix_fmt = self._format if self._scaler is None else _SCALED_FORMAT
        context.framerate, context.time_base = rate, 1 / rate
        context.bit_rate = bitrate
        context.gop_size = _NO_AUTOMATIC_KEYFRAMES
        context.max_b_frames = 0
        context.color_range = _FULL_RANGE
        context.colorspace = COLOUR_MATRIX
        context.color_primaries = COLOUR_PRIMARIES
        context.color_trc = COLOUR_TRANSFER
        context.thread_count = min(2 if width * height * fps > _PIXELS_PER_THREAD else 1, os.cpu_count() or 1)
        context.options = {
            "preset": "ultrafast",  # implies constrained baseline, which WebRTC requires
            "tune": "zerolatency",
            "forced-idr": "1",
            "flags": "+global_header",  # parameter sets in extradata instead of in packets
            "maxrate": str(bitrate),
            "bufsize": str(int(bitrate * _BUFFER_S)),
        }
        try:
            context.open()
        except av.error.FFmpegError as error:
            raise CameraError(f"libx264 rejected {width}x{height}: {error}") from error
        try:
            self.parameter_sets = parameter_sets(context.extradata or b"")
        except ValueError as error:
            raise CameraError(f"libx264 returned no header: {error}") from error
        self._decoder: JpegDecoder | None = None  # for cameras that deliver JPEGs
        self._copy: Any = None  # the frame that non-contiguous planes are copied to
        self._count = 0
        self._packet: Packet | None = None

    def has_output(self) -> bool:
        return self._packet is not None

    def send_frame(self, frame: Frame, *, is_keyframe: bool) -> None:
        data, is_keyframe = self.encode(frame, is_keyframe=is_keyframe)
        self._packet = Packet(data, is_keyframe, frame.began_s, frame.timestamp_s)

    def receive_packet(self) -> Packet | None:
        packet, self._packet = self._packet, None
        return packet

    def encode(self, frame: Frame, *, is_keyframe: bool) -> tuple[bytes, bool]:
        """The access unit of a frame that the caller holds, and whether it is a keyframe.

        Raises CameraError for a frame that cannot be encoded.
        """
        if frame.size != self._frame_size or frame.pixel_format != self._pixel_format:
            raise CameraError(f"unexpected {frame.pixel_format} frame of {frame.width}x{frame.height}")
        planes = self._decode(frame) if frame.pixel_format == "MJPEG" else checked_planes(frame)
        picture = self._picture(planes)
        if self._scaler is not None:
            picture = self._scaler.reformat(picture, *self.size, _SCALED_FORMAT, **self._scaling)
        kinds = self._av.video.frame.PictureType
        picture.pict_type = kinds.I if is_keyframe else kinds.NONE
        picture.pts = self._count
        self._count += 1
        try:
            packets = self._context.encode(picture)
        except self._av.error.FFmpegError as error:
            raise CameraError(f"libx264 failed: {error}") from error
        if len(packets) != 1:
            raise CameraError(f"libx264 returned {len(packets)} packets for a frame")
        data = only_slices(bytes(packets[0]))
        return data, is_idr(data)

    def close(self) -> None:
        self._context = self._decoder = self._copy = self._scaler = None

    def _picture(self, planes: tuple[Plane, ...]) -> Any:
        """A PyAV frame of the planes, Y first; a view of them if they are contiguous."""
        width, height = self._source_size
        if self._row_step > 1:
            height //= self._row_step
            planes = tuple(plane[self._row_step // 2 :: self._row_step] for plane in planes)
        elif self._pixel_format in ("YUV420", "NV12"):
            buffer = as_one_buffer(planes, width, height)
            if buffer is not None:
                try:
                    return self._av.VideoFrame.from_numpy_buffer(buffer, self._format)
                except ValueError:
                    pass  # PyAV before 13 requires rows without padding
        if self._copy is None:
            # Reused for all frames: libx264 copies what it needs later.
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
        """The planes of a JPEG in 4:2:0, whatever its chroma subsampling."""
        self._decoder = self._decoder or JpegDecoder()
        picture = self._decoder.decode(frame.planes[0].tobytes())
        if (picture.width, picture.height) != frame.size:
            raise CameraError(
                f"the camera's JPEG is {picture.width}x{picture.height}, not {frame.width}x{frame.height}"
            )
        name = picture.format.name
        if name not in _JPEG_FORMATS:
            raise CameraError(f"the camera's JPEG has an unsupported format: {name}")
        planes = rows_of(picture)
        width, height = self._source_size
        if len(planes) == 1:
            grey = np.full((height // 2, width // 2), 128, np.uint8)
            return planes[0], grey, grey
        return planes[0], *(_halved(plane, frame.size) for plane in planes[1:])


def fitted_size(size: tuple[int, int], limit: tuple[int, int]) -> tuple[int, int]:
    """The largest even size (width, height) of about the same aspect ratio within the limit; never enlarged."""
    factor = min(1.0, limit[0] / size[0], limit[1] / size[1])
    width, height = (max(2, 2 * round(side * factor / 2)) for side in size)
    return width, height


def _row_step(height: int, to: int) -> int:
    """The largest step through `height` rows that leaves an even number of them, `to` or more."""
    return next(step for step in range(height // to, 0, -1) if height % (2 * step) == 0)


def as_one_buffer(planes: tuple[Plane, ...], width: int, height: int) -> Plane | None:
    """All planes as one array, of which PyAV creates a frame without a copy; None if they are not contiguous.

    PyAV derives the offsets from the first plane's stride, and misreads a height that is not a multiple of four.
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
    """Convert packed 4:2:2 to NV12: the chroma bytes have NV12's order already; each two rows are averaged."""
    height, width = luma.shape
    # 16-bit numbers with luma in the low byte: all supported machines are little-endian.
    pairs = np.ascontiguousarray(packed[:height, : 2 * width]).view(np.uint16)
    np.copyto(luma, pairs, casting="unsafe")
    above, below = pairs[0::2] >> 8, pairs[1::2] >> 8
    above += below
    above += 1
    above >>= 1
    np.copyto(chroma, above, casting="unsafe")


def _halved(plane: Plane, size: tuple[int, int]) -> Plane:
    """The chroma plane of an image of `size` at half width and height, by averaging."""
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
