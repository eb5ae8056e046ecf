"""Recordings for tests: files in a library with real packets."""

from pathlib import Path

from softcam.h264.packet import Packet, VideoFormat
from softcam.imaging import jpeg
from softcam.recording.library import Library
from softcam.recording.mp4_file import Mp4Writer
from tests.support.fakes import make_frame
from tests.support.h264_samples import FPS, FakeSource

LONG_AGO_S = 1_795_216_502.0  # 2026-11-20 23:15:02 UTC
STILL = jpeg.encode(make_frame(size=(32, 16)), None, 80)


def contents(folder: Path) -> list[Path]:
    """What is in a folder of recordings, without the file with their order."""
    return [path for path in folder.iterdir() if path.name != ".order"]


class Tape:
    """A sink that records packets."""

    def __init__(self) -> None:
        self.packets: list[Packet] = []
        self.fmt: VideoFormat | None = None

    def on_format(self, fmt: VideoFormat) -> None:
        self.fmt = fmt

    def on_packet(self, packet: Packet) -> None:
        self.packets.append(packet)


def packets(count: int) -> tuple[VideoFormat, list[Packet]]:
    source, tape = FakeSource(), Tape()
    source.subscribe(tape)
    source.give(count)
    assert tape.fmt is not None
    return tape.fmt, tape.packets


def open_video(library: Library, count: int = 40, began_s: float = LONG_AGO_S) -> Mp4Writer:
    """An open file with fragments of ten frames."""
    fmt, taken = packets(count)
    video = Mp4Writer(library, "video", fmt, began_s, taken[0].began_s)
    for place in range(0, count, 10):
        video.add_fragment(taken[place : place + 10], 1 / FPS)
    return video


def make_video(library: Library, began_s: float = LONG_AGO_S) -> str:
    video = open_video(library, began_s=began_s)
    video.close()
    return video.name


def interrupt(video: Mp4Writer, library: Library) -> None:
    """Leave the file as a crash does: without an index, and not locked."""
    path = library.folder / video.name
    content = path.read_bytes()
    video.close()
    path.write_bytes(content)
