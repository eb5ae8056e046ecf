#!/usr/bin/env python3
"""Records an MJPEG or RTSP stream, or any other video that PyAV opens, to an MP4 file.

    tools/record_stream.py --url http://pi:18081/stream.mjpg --output recording.mp4
    tools/record_stream.py --url rtsp://pi:8554/cam --output recording.mp4 --duration 60

H.264 and H.265 are copied; other codecs, such as MJPEG, are encoded as H.264. The recording ends with the stream, at
--limit-frames or --duration, or on Ctrl+C; the file is completed in all cases. After a full disk or SIGKILL the file is
playable up to that point with FFmpeg 7.1 or newer. A password in the URL is never printed.

Needs PyAV: apt install python3-av, or pip install av.
"""

import argparse
import contextlib
import io
import math
import os
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

try:
    import av
    from av.video.frame import PictureType
except ImportError as error:
    print(f"record_stream.py: needs PyAV (apt install python3-av, or pip install av): {error}", file=sys.stderr)
    raise SystemExit(2) from error

OK, NO_STREAM, NO_OUTPUT = 0, 3, 4

_COPIED_CODECS = ("h264", "hevc")
_TIMEOUT_S = 15.0  # for opening, and for each read
_POLL_S = 0.2  # how often signals and the duration are checked
_QUEUE_PACKETS = 200  # for a slow disk or encoder; when it is full, the server waits
_PROGRESS_S = 0.5
_CLOCK_HZ = 90_000  # as in RTP and MPEG
_KEYFRAME_S = 2.0
# A fragmented file, which is playable while it is written, converted to a plain one at the end. Since libavformat 61.7.
# Without flushing, libavformat would write in blocks of 256 KiB: at a low bitrate one in a minute.
_FRAGMENTED = {"movflags": "hybrid_fragmented+frag_keyframe", "flush_packets": "1"}
_END = object()


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 recorded, 2 usage, 3 no stream, 4 the file cannot be written."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # what is shown need not be text in the encoding of the terminal
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parse(argv)
    is_interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: is_interrupted.set())
    reader = Reader(options.url, is_interrupted)
    try:
        video = next((item for item in reader.items() if item is not None), None)
        return OK if video is None else _record(reader, video, options)
    except NoStream as error:
        return _fail(NO_STREAM, f"no stream from {_redacted(options.url)}: {error}")


class NoStream(Exception):
    """The stream cannot be opened or read; the message is the reason."""


class Reader:
    """Reads the stream in a thread, since FFmpeg blocks while it stalls; callers can still check signals and time.

    The thread is never waited for. The source stays open as long as the reader exists.
    """

    def __init__(self, url: str, is_interrupted: threading.Event) -> None:
        self.is_interrupted = is_interrupted
        self._url = url
        self._source: Any = None
        self._queue: queue.Queue[Any] = queue.Queue(_QUEUE_PACKETS)
        threading.Thread(target=self._run, name="reader", daemon=True).start()

    def items(self) -> Iterator[Any]:
        """Yield the video stream first, then each packet with its time of arrival; None now and then while it waits.

        Ends with the stream or after a signal. Raises NoStream.
        """
        while not self.is_interrupted.is_set():
            try:
                item = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                item = None
            if item is _END:
                return
            if isinstance(item, Exception):
                raise NoStream(_reason(item))
            yield item

    def _run(self) -> None:
        try:
            self._read()
            self._queue.put(_END)
        except Exception as error:  # noqa: BLE001 - raised by items()
            self._queue.put(error)

    def _read(self) -> None:
        options = {"rtsp_transport": "tcp"} if self._url.lower().startswith(("rtsp://", "rtsps://")) else {}
        self._source = av.open(self._url, options=options, timeout=_TIMEOUT_S)
        video = next((stream for stream in self._source.streams if stream.type == "video"), None)
        if video is None:
            raise OSError("no video stream")
        if video.codec_context is None:
            raise OSError("unknown video codec")
        self._queue.put(video)
        for packet in self._source.demux(video):
            if packet.size:
                self._queue.put((packet, time.monotonic()))


def _record(reader: Reader, video: Any, options: argparse.Namespace) -> int:
    try:
        options.output.open("wb").close()  # PyAV would report an error only at the first frame
        fragmented = _FRAGMENTED if av.library_versions["libavformat"] >= (61, 7) else {}
        target = av.open(str(options.output), "w", format="mp4", options=fragmented)
    except (OSError, av.error.FFmpegError) as error:
        return _fail(NO_OUTPUT, f"{options.output} cannot be written: {_reason(error)}")
    writer = Copy(target, video) if video.codec_context.name in _COPIED_CODECS else _Encode(target, video)
    progress = _Progress(options.output)

    def write_packets() -> None:
        for item in reader.items():
            if item is not None:
                progress.add(writer.write(*item))
            progress.show()
            is_long_enough = progress.seconds >= (options.duration or math.inf)
            if is_long_enough or progress.frames >= (options.limit_frames or math.inf):
                break

    errors: list[Exception] = []
    for step in (write_packets, writer.finish, target.close):  # after an error the file is still completed
        try:
            step()
        except (NoStream, OSError, ValueError, av.error.FFmpegError) as error:
            errors.append(error)
    progress.show(is_last=True)
    code = NO_OUTPUT if errors and not isinstance(errors[0], NoStream) else NO_STREAM
    if not progress.frames:
        options.output.unlink(missing_ok=True)
        _fail(code, f"nothing recorded: {_reason(errors[0]) if errors else 'no frames received'}")
        return OK if reader.is_interrupted.is_set() else code
    return _fail(code, f"ended early: {_reason(errors[0])}") if errors else OK


class Copy:
    """Copies packets, starting with a keyframe at time 0."""

    def __init__(self, target: Any, video: Any) -> None:
        self._target = target
        self._video = video
        self._stream: Any = None
        self._first_dts = 0
        self._last_dts = -1

    def write(self, packet: Any, _arrived_s: float) -> list[float]:
        """The time in the file of each frame that was written."""
        if packet.dts is None or packet.pts is None:
            return []
        if self._stream is None:
            if not packet.is_keyframe:
                return []
            self._first_dts = packet.dts
            if hasattr(self._target, "add_stream_from_template"):
                self._stream = self._target.add_stream_from_template(self._video)
            else:
                self._stream = self._target.add_stream(template=self._video)
        packet.dts -= self._first_dts
        packet.pts -= self._first_dts
        if packet.dts <= self._last_dts:  # the server restarted its clock
            return []
        self._last_dts = packet.dts
        time_s = float(packet.dts * packet.time_base)
        packet.stream = self._stream
        self._target.mux(packet)
        return [time_s]

    def finish(self) -> None:
        """Do nothing: all packets are written."""


class _Encode:
    """Decodes and encodes as H.264. Frames have their time of arrival, as an MJPEG stream has no timestamps."""

    def __init__(self, target: Any, video: Any) -> None:
        self._target = target
        self._decoder = video.codec_context
        self._stream: Any = None
        self._began_s = 0.0
        self._last_pts = -1
        self._keyframe_s = 0.0

    def write(self, packet: Any, arrived_s: float) -> list[float]:
        try:
            frames = self._decoder.decode(packet)
        except av.error.InvalidDataError:  # one damaged JPEG
            return []
        times_s = []
        for frame in frames:
            if self._stream is None:
                self._stream = self._new_stream(frame)
                self._began_s = arrived_s
            picture = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
            picture.pts = self._last_pts = max(self._last_pts + 1, round((arrived_s - self._began_s) * _CLOCK_HZ))
            picture.time_base = Fraction(1, _CLOCK_HZ)
            times_s.append(picture.pts / _CLOCK_HZ)
            picture.pict_type = PictureType.NONE
            if arrived_s >= self._keyframe_s:
                picture.pict_type = PictureType.I
                self._keyframe_s = arrived_s + _KEYFRAME_S
            self._target.mux(self._stream.encode(picture))
        return times_s

    def finish(self) -> None:
        """Write the frames that the encoder has buffered."""
        if self._stream is not None:
            self._target.mux(self._stream.encode(None))

    def _new_stream(self, frame: Any) -> Any:
        stream = self._target.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "21"})
        stream.width, stream.height = frame.width // 2 * 2, frame.height // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, _CLOCK_HZ)
        if frame.format.name.startswith("yuvj"):  # full range, converted to limited range by reformat()
            stream.codec_context.color_range = 1
        return stream


class _Progress:
    """A progress line on the terminal, and a last line at the end."""

    def __init__(self, output: Path) -> None:
        self.frames = 0
        self._output = output
        self._began_s = math.inf  # arrival of the first frame
        self._last_s = 0.0
        self._next_s = 0.0

    def add(self, times_s: Sequence[float]) -> None:
        """Add written frames by their times in the file."""
        self.frames += len(times_s)
        if times_s:
            self._last_s = times_s[-1]
            self._began_s = min(self._began_s, time.monotonic())

    @property
    def seconds(self) -> float:
        """The length of the file, or the time since the first frame if that is longer.

        PyAV reads ahead for a second or two before it returns packets, so the file may be ahead of the clock; when the
        stream stalls, the clock is ahead.
        """
        last_frame_s = self._last_s / (self.frames - 1) if self.frames > 1 else 0.0
        return max(self._last_s + last_frame_s, time.monotonic() - self._began_s)

    def show(self, *, is_last: bool = False) -> None:
        now_s = time.monotonic()
        is_terminal = sys.stderr.isatty()
        if not is_last and (now_s < self._next_s or not is_terminal):
            return
        self._next_s = now_s + _PROGRESS_S
        size = self._output.stat().st_size if self._output.exists() else 0
        seconds = self.seconds
        rate = self.frames / seconds if seconds else 0.0
        line = f"{self._output}: {self.frames} frames, {seconds:.1f} s, {rate:.1f} fps, {size / 1e6:.1f} MB"
        end = "\n" if is_last else ""
        print(f"\r\033[K{line}" if is_terminal else line, end=end, file=sys.stderr, flush=True)


def _fail(code: int, message: str) -> int:
    print(f"record_stream.py: {message}", file=sys.stderr)
    return code


def _redacted(url: str) -> str:
    """The URL without passwords and keys; a password may contain @ or a slash."""
    url = re.sub(r"(?s)(?<=://)([^:/@]*).*@", r"\1:***@", url)
    return re.sub(r"(?i)(?<=[/?&;])((?:pass(?:word|wd)?|pwd|token|key|secret|auth)=)[^&;/\s]*", r"\1***", url)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="record_stream.py", description="Record an MJPEG or RTSP stream to an MP4 file; Ctrl+C ends the recording."
    )
    parser.add_argument("--url", required=True, help="http://…/stream.mjpg, rtsp://…, or any URL that PyAV opens")
    parser.add_argument("--output", required=True, type=Path, help="output file; an existing one is overwritten")
    parser.add_argument("--limit-frames", type=_positive(int), help="stop after this many frames")
    parser.add_argument("--duration", type=_positive(float), metavar="SECONDS", help="stop after this time")
    return parser.parse_args(argv)


def _positive(kind: type) -> Any:
    def parse(text: str) -> Any:
        with contextlib.suppress(ValueError):
            if 0 < (value := kind(text)) < math.inf:
                return value
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number above 0")

    return parse


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # disconnects, although the reader may be blocked in FFmpeg, which crashes at a regular exit
