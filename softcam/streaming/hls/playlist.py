"""The newest segments of HLS and their playlists (RFC 8216). No I/O and no lock: the owner calls one method at a time.

    stream.m3u8                     multivariant playlist: the format, and the address of a viewer's media playlist
    hls/TOKEN-VIEWER-BASE.m3u8      media playlist, live, without parts
    hls/TOKEN-NUMBER.mp4            initial segment
    hls/TOKEN-NUMBER-BASE.m4s       media segment

Each viewer has a media playlist, whose address contains the media time that is its time 0: GStreamer's older demuxer
(playbin, WebKitGTK) takes media time for the time since it started, and would wait for as long as the stream exists.
Media time is Unix time when the portal started, so that this is still right after a restart.

Addresses are relative, so a proxy may serve them under any path. Each name contains a token of the process, and numbers
follow the time: a player that survives a restart of the portal neither gets an old segment from a cache nor waits for
numbers that were used, and hls.js, which derives the time of a segment from its number, is not far off.
"""

import re
import secrets
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from softcam.mp4 import fragment
from softcam.streaming.hls.segmenter import Media

FOLDER: Final = "hls"
_LISTED: Final = 8  # segments; players start three before the end, and resume after a stall of the others
# RFC 8216, 6.2.2: a removed segment is available for its duration and that of the longest playlist with it.
_KEPT: Final = 2 * _LISTED + 1
_MIN_LISTED: Final = 3
_MAX_BYTES: Final = 32 << 20  # half of it at 15 Mbit/s
# A segment's number is about the time since then, in seconds; below 2**31 for decades. The first, shorter segments let
# it run ahead of the time by up to three: a portal that is back sooner than that repeats numbers, with other names.
_EPOCH_S: Final = 1_735_689_600  # 2025
# Discontinuities are counted from another number after a restart, too, but from a small one: hls.js has arrays with an
# element for each number up to it.
_ERAS_PER_S: Final = 10
_MAX_FIRST_ERA: Final = 1000
_PLAYLIST_NAME: Final = re.compile(r"[0-9a-z]{1,16}-[0-9]{1,12}-([0-9]{1,15})\.m3u8")
_SEGMENT_NAME: Final = re.compile(r"([0-9a-z]{1,16})-([0-9]{1,12})(?:-([0-9]{1,15})\.m4s|\.mp4)")
_MS: Final = 1000  # bases are in milliseconds
_TICKS_PER_MS: Final = fragment.TIMESCALE // _MS


@dataclass(frozen=True, slots=True)
class _Segment:
    number: int
    era: int  # discontinuities up to this segment
    initial_number: int  # of the first segment of its format
    media: Media


class Playlist:
    """Holds the listed segments and those that were listed until recently."""

    def __init__(self, started_s: float, *, max_bytes: int = _MAX_BYTES, token: str | None = None) -> None:
        """`started_s` is the Unix time of the portal's start; media time must be Unix time, too."""
        self._token = token or secrets.token_hex(4)
        self._max_bytes = max_bytes
        self._next_number = 0
        self._era = int(started_s) * _ERAS_PER_S % _MAX_FIRST_ERA
        self._segments: deque[_Segment] = deque()
        self._bytes = 0
        self._target_s = 1
        self._viewers = 0

    @property
    def duration_s(self) -> float:
        """Of the segments in memory."""
        return sum(segment.media.duration_s for segment in self._segments)

    @property
    def size_bytes(self) -> int:
        return self._bytes

    def append(self, media: Media) -> None:
        before = self._segments[-1] if self._segments else None
        if before is None:
            self._next_number = max(self._next_number, int(media.time_s) - _EPOCH_S)
        self._era += media.is_discontinuous
        initial_number = self._next_number
        if before is not None and before.media.fmt is media.fmt:
            initial_number = before.initial_number
        self._segments.append(_Segment(self._next_number, self._era, initial_number, media))
        self._next_number += 1
        self._bytes += len(media.data)
        # Must not change while players load the playlist (RFC 8216, 6.2.1). If frames become so rare that a segment is
        # longer, no value of before would be correct; it never decreases.
        self._target_s = max(self._target_s, int(media.duration_s + 0.5))
        while len(self._segments) > _KEPT or (self._bytes > self._max_bytes and len(self._segments) > _MIN_LISTED):
            self._bytes -= len(self._segments.popleft().media.data)

    def clear(self) -> None:
        """Remove all segments; the numbers of later ones are greater."""
        self._segments.clear()
        self._bytes = 0
        self._target_s = 1

    def find(self, name: str) -> bytes | None:
        """The content of a media segment or initial segment; None if there is none of that name."""
        found = _SEGMENT_NAME.fullmatch(name)
        if found is None or found[1] != self._token:
            return None
        number, base = int(found[2]), found[3]
        for segment in reversed(self._segments):
            if base is None and number == segment.initial_number:
                return segment.media.fmt.initial
            if base is not None and number == segment.number:
                return fragment.moved_back(segment.media.data, int(base) * _TICKS_PER_MS)
        return None

    def variants(self, prefix: str = "", suffix: str = "") -> str:
        """The multivariant playlist for a new viewer; there must be a segment.

        Each address, here and in `text`, is `prefix`, a name, `suffix`.
        """
        self._viewers += 1
        listed = self._listed
        video = listed[-1].media.fmt.video
        peak = max(8 * len(each.media.data) / each.media.duration_s for each in listed)
        attributes = (
            f"BANDWIDTH={round(peak)}",
            f'CODECS="avc1.{video.sps[1:4].hex()}"',
            f"RESOLUTION={video.width}x{video.height}",
            f"FRAME-RATE={video.fps:.3f}",
        )
        base = int(listed[0].media.time_s * _MS)
        return "\n".join(
            (
                "#EXTM3U",
                "#EXT-X-VERSION:7",
                "#EXT-X-INDEPENDENT-SEGMENTS",
                f"#EXT-X-STREAM-INF:{','.join(attributes)}",
                f"{prefix}{self._token}-{self._viewers}-{base}.m3u8{suffix}",
                "",
            )
        )

    def text(self, name: str, prefix: str = "", suffix: str = "") -> str:
        """The media playlist of that name, which may be of an earlier process; there must be a segment."""
        found = _PLAYLIST_NAME.fullmatch(name)
        base = "0" if found is None else found[1]
        listed = self._listed
        first = listed[0]
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:7",
            f"#EXT-X-TARGETDURATION:{self._target_s}",
            f"#EXT-X-MEDIA-SEQUENCE:{first.number}",
            # The number of tags before the first segment, whose own tag counts when it is removed.
            f"#EXT-X-DISCONTINUITY-SEQUENCE:{first.era - first.media.is_discontinuous}",
            "#EXT-X-INDEPENDENT-SEGMENTS",
        ]
        for segment in listed:
            media = segment.media
            if media.is_discontinuous:
                lines.append("#EXT-X-DISCONTINUITY")
            if media.is_discontinuous or segment is first:
                lines.append(f'#EXT-X-MAP:URI="{prefix}{self._token}-{segment.initial_number}.mp4{suffix}"')
            began = datetime.fromtimestamp(media.timestamp_s, UTC).isoformat(timespec="milliseconds")
            lines += [
                f"#EXT-X-PROGRAM-DATE-TIME:{began.replace('+00:00', 'Z')}",
                f"#EXTINF:{media.duration_s:.6f},",
                f"{prefix}{self._token}-{segment.number}-{base}.m4s{suffix}",
            ]
        return "\n".join((*lines, ""))

    @property
    def _listed(self) -> list[_Segment]:
        return list(self._segments)[-_LISTED:]


def is_playlist_name(name: str) -> bool:
    """Whether it is the name of a viewer's media playlist, of this process or an earlier one."""
    return _PLAYLIST_NAME.fullmatch(name) is not None
