#!/usr/bin/env python3
"""Records a stream, MJPEG or RTSP or whatever PyAV opens, to an MP4 file.

    tools/record_stream.py --url http://pi:18081/stream.mjpg --output recording.mp4
    tools/record_stream.py --url rtsp://pi:8554/cam --output recording.mp4 --duration 60

H.264 and H.265 are copied as they are; all else, MJPEG among it, is encoded as H.264. It ends with the stream, at
--limit-frames or --duration, or with Ctrl+C; the file is finished in any case. Where the disk is full, or somebody
kills it, the file plays up to there, with FFmpeg 7.1 or newer. Of a user and password in the address the password is
never shown.

Needs PyAV: apt install python3-av, or pip install av.
"""

import argparse
import contextlib
import math
import os
import queue
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

OK, USAGE, NO_STREAM, NO_OUTPUT = 0, 2, 3, 4

_COPIED = ("h264", "hevc")
_OPEN_LIMIT_S = 15.0
_READ_LIMIT_S = 15.0  # a stream that gives nothing for so long has ended
_LOOK_S = 0.2  # how late a signal and the clock are heard
_LEAVE_S = 1.0  # what a server is given to take note of the end
_WAITING = 200  # packets, for a disk or an encoder that takes its time; then the server waits
_LINE_S = 0.5  # between two lines of progress
_CLOCK = 90_000  # ticks a second, as RTP and MPEG have it for video
_KEYFRAME_S = 2.0
# Written in pieces that can be read meanwhile, and made a usual file at the end. From libavformat 61.7 on.
_IN_PIECES = {"movflags": "hybrid_fragmented+frag_keyframe"}
_UNFIT_FORMATS = ("yuvj420p", "yuvj422p", "yuvj444p")


def main(argv: list[str] | None = None) -> int:
    """Return the exit code: 0 recorded, 2 usage, 3 no stream, 4 the file cannot be written."""
    wish = _parse(argv)
    try:
        import av
    except ImportError as error:
        print(f"record_stream.py: needs PyAV (apt install python3-av, or pip install av): {error}", file=sys.stderr)
        return USAGE
    is_ended = threading.Event()  # by a signal
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: is_ended.set())
    shown = _shown(wish.url)
    reader = _Reader(av, wish.url, is_ended)
    try:
        video = reader.video()
        if video is None:
            return OK
        return _record(av, reader, video, wish)
    except _NoStream as error:
        print(f"record_stream.py: no stream from {shown}: {error}", file=sys.stderr)
        return NO_STREAM
    finally:
        reader.stop()


class _NoStream(Exception):
    """There is no stream; the message is the reason."""


class _Reader:
    """Opens and reads on a thread of its own: FFmpeg does not come back from a stream that stands still, so whoever is
    to be heard meanwhile, a signal or the clock, is heard here."""

    def __init__(self, av: Any, url: str, is_ended: threading.Event) -> None:
        self._av = av
        self._url = url
        self._is_ended = is_ended
        self._is_over = threading.Event()  # set by stop()
        self._came: queue.Queue[Any] = queue.Queue(_WAITING)  # the video stream, packets, and how it ended
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def is_ended(self) -> bool:
        """Whether a signal has requested the end."""
        return self._is_ended.is_set()

    def video(self) -> Any:
        """The stream of pictures; None where a signal came before it. Raises _NoStream."""
        while not self._is_ended.is_set():
            try:
                found = self._came.get(timeout=_LOOK_S)
            except queue.Empty:
                continue
            if isinstance(found, BaseException):
                raise _NoStream(_reason(found))
            return found
        return None

    def packets(self) -> Iterator[tuple[Any, float] | None]:
        """Each with the moment it came at; None now and then, while there is none. Raises _NoStream."""
        while not self._is_ended.is_set():
            try:
                found = self._came.get(timeout=_LOOK_S)
            except queue.Empty:
                yield None
                continue
            if isinstance(found, BaseException):
                raise _NoStream(_reason(found))
            if found is None:
                return
            yield found

    def stop(self) -> None:
        """Let the other side know, where it can still be told. The stream of pictures is gone from then on."""
        self._is_over.set()
        with contextlib.suppress(queue.Empty):
            while True:  # it may be waiting for room
                self._came.get_nowait()
        self._thread.join(_LEAVE_S)

    def _run(self) -> None:
        try:
            with _open(self._av, self._url) as source:
                self._came.put(self._read(source))
                self._is_over.wait()  # what came from it lives as long as it is open
        except Exception as error:  # noqa: BLE001 - told by the one who waits, whatever it is
            self._came.put(error)

    def _read(self, source: Any) -> BaseException | None:
        """Read to the end; return the error, or None at the end of the stream."""
        try:
            video = next((stream for stream in source.streams if stream.type == "video"), None)
            if video is None:
                return OSError("there is no video in it")
            if video.codec_context is None:
                return OSError("its video is of a kind that FFmpeg does not know")
            self._came.put(video)
            for packet in source.demux(video):
                if packet.size:
                    self._came.put((packet, time.monotonic()))
                if self._is_over.is_set():
                    break
        except Exception as error:  # noqa: BLE001 - told by the one who waits, whatever it is
            return error
        return None


def _record(av: Any, reader: _Reader, video: Any, wish: argparse.Namespace) -> int:
    progress = _Progress(wish.output)
    try:
        wish.output.open("wb").close()  # PyAV would tell only at the first frame
        options = _IN_PIECES if av.library_versions["libavformat"] >= (61, 7) else {}
        target = av.open(str(wish.output), "w", format="mp4", options=options)
    except (OSError, av.error.FFmpegError) as error:
        print(f"record_stream.py: {wish.output} cannot be written: {_reason(error)}", file=sys.stderr)
        return NO_OUTPUT
    trouble: BaseException | None = None  # with reading or with writing, whichever came first
    try:
        # What was taken is finished below, however this ends.
        writer = _Copy(target, video) if video.codec_context.name in _COPIED else _Encode(av, target, video)
        try:
            for found in reader.packets():
                if found is not None:
                    progress.count(writer.take(*found), writer.last_s)
                progress.show()
                if wish.duration and progress.seconds >= wish.duration:
                    break
                if wish.limit_frames and progress.frames >= wish.limit_frames:
                    break
        except (_NoStream, OSError, ValueError, av.error.FFmpegError) as error:
            trouble = error
        writer.finish()
    except (OSError, ValueError, av.error.FFmpegError) as error:
        trouble = trouble or error
    finally:
        try:
            target.close()
        except (OSError, av.error.FFmpegError) as error:
            trouble = trouble or error
    progress.show(is_last=True)
    code = NO_STREAM if trouble is None or isinstance(trouble, _NoStream) else NO_OUTPUT
    if not progress.frames:
        wish.output.unlink(missing_ok=True)
        reason = "it gave no frame" if trouble is None else _reason(trouble)
        print(f"record_stream.py: nothing recorded: {reason}", file=sys.stderr)
        return OK if reader.is_ended else code
    if trouble is not None:
        print(f"record_stream.py: ended early: {_reason(trouble)}", file=sys.stderr)
        return code
    return OK


class _Copy:
    """Copies the packets; times start at the first keyframe."""

    def __init__(self, target: Any, video: Any) -> None:
        self._target = target
        self._stream = (
            target.add_stream_from_template(video)
            if hasattr(target, "add_stream_from_template")
            else target.add_stream(template=video)
        )
        self._video = video
        self._zero: int | None = None
        self._last = -1
        self.last_s = 0.0  # when the last frame is shown, by the file's own time

    def take(self, packet: Any, _came_s: float) -> int:
        """How many frames went into the file."""
        if self._zero is None:
            if not packet.is_keyframe:
                return 0
            self._zero = packet.dts if packet.dts is not None else packet.pts
        if self._zero is None or packet.dts is None or packet.pts is None:
            return 0
        packet.dts -= self._zero
        packet.pts -= self._zero
        if packet.dts <= self._last:  # a server that began anew
            return 0
        self._last = packet.dts
        self.last_s = float(packet.dts * packet.time_base)
        packet.stream = self._stream
        self._target.mux(packet)
        return 1

    def finish(self) -> None:
        """Nothing to do: all packets are written."""


class _Encode:
    """Decoded and encoded as H.264; the times are those of arrival, since a stream of JPEGs has none of its own."""

    def __init__(self, av: Any, target: Any, video: Any) -> None:
        self._av = av
        self._target = target
        self._decoder = video.codec_context
        self._stream: Any = None
        self._began_s = 0.0
        self._last = -1
        self._keyframe_s = 0.0
        self.last_s = 0.0  # when the last frame is shown, by the file's own time

    def take(self, packet: Any, came_s: float) -> int:
        taken = 0
        try:
            frames = self._decoder.decode(packet)
        except self._av.error.InvalidDataError:  # one damaged picture; the next one is another
            return 0
        for frame in frames:
            if self._stream is None:
                self._stream = self._new_stream(frame)
                self._began_s = came_s
            picture = frame.reformat(self._stream.width, self._stream.height, "yuv420p")
            picture.pts = max(self._last + 1, round((came_s - self._began_s) * _CLOCK))
            picture.time_base = Fraction(1, _CLOCK)
            self._last = picture.pts
            self.last_s = picture.pts / _CLOCK
            kinds = self._av.video.frame.PictureType
            is_due = came_s >= self._keyframe_s
            picture.pict_type = kinds.I if is_due else kinds.NONE
            if is_due:
                self._keyframe_s = came_s + _KEYFRAME_S
            self._target.mux(self._stream.encode(picture))
            taken += 1
        return taken

    def finish(self) -> None:
        if self._stream is not None:
            self._target.mux(self._stream.encode(None))

    def _new_stream(self, frame: Any) -> Any:
        stream = self._target.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "21"})
        stream.width, stream.height = frame.width // 2 * 2, frame.height // 2 * 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, _CLOCK)
        if frame.format.name in _UNFIT_FORMATS:  # the range of a JPEG is converted, and said to be the usual one
            stream.codec_context.color_range = 1
        return stream


class _Progress:
    """A progress line on the terminal, and a last line at the end."""

    def __init__(self, output: Path) -> None:
        self.frames = 0
        self._output = output
        self._began_s: float | None = None  # the first frame came
        self._last_s = 0.0
        self._next_s = 0.0

    def count(self, frames: int, last_s: float) -> None:
        """So many more in the file, the last of them at `last_s` of the file's own time."""
        if frames and self._began_s is None:
            self._began_s = time.monotonic()
        self.frames += frames
        self._last_s = last_s

    @property
    def seconds(self) -> float:
        """How long the file is with the last frame in it, or how long ago the first came, where that is more.

        PyAV looks at the first second or two before it gives anything, so the file is ahead of the clock; where the
        stream stands still, the clock is ahead.
        """
        if self._began_s is None:
            return 0.0
        last_frame_s = self._last_s / (self.frames - 1) if self.frames > 1 else 0.0
        return max(self._last_s + last_frame_s, time.monotonic() - self._began_s)

    def show(self, *, is_last: bool = False) -> None:
        now_s = time.monotonic()
        is_terminal = sys.stderr.isatty()
        if not is_last and (now_s < self._next_s or not is_terminal):
            return
        self._next_s = now_s + _LINE_S
        size = self._output.stat().st_size if self._output.exists() else 0
        seconds = self.seconds
        rate = self.frames / seconds if seconds else 0.0
        line = f"{self._output}: {self.frames} frames, {seconds:.1f} s, {rate:.1f} fps, {size / 1e6:.1f} MB"
        end = "\n" if is_last else ""
        print(f"\r\033[K{line}" if is_terminal else line, end=end, file=sys.stderr, flush=True)


def _open(av: Any, url: str) -> Any:
    options = {}
    if url.lower().startswith(("rtsp://", "rtsps://")):
        options["rtsp_transport"] = "tcp"
    elif url.lower().startswith(("http://", "https://")):
        options["use_wallclock_as_timestamps"] = "0"
    return av.open(url, options=options, timeout=(_OPEN_LIMIT_S, _READ_LIMIT_S))


def _shown(url: str) -> str:
    """The address without what only its owner may know; a password may have an @ or a slash in it."""
    url = re.sub(r"(?s)(?<=://)([^:/@]*).*@", r"\1:***@", url)
    return re.sub(r"(?i)(?<=[/?&;])((?:pass(?:word|wd)?|pwd|token|key|secret|auth)=)[^&;/\s]*", r"\1***", url)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="record_stream.py", description="Records an MJPEG or RTSP stream to an MP4 file; Ctrl+C ends it."
    )
    parser.add_argument("--url", required=True, help="http://…/stream.mjpg, rtsp://…, or whatever PyAV opens")
    parser.add_argument("--output", required=True, type=Path, help="the file, which is overwritten")
    parser.add_argument("--limit-frames", type=_positive(int), help="end after so many frames")
    parser.add_argument("--duration", type=_positive(float), metavar="SECONDS", help="end after so long")
    return parser.parse_args(argv)


def _positive(kind: type) -> Any:
    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = -1
        if not value > 0 or not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text!r}: wants a number above 0")
        return value

    return parse


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # a stream that stands still keeps its thread in FFmpeg, and Python's own end would meet it there
