"""Finds the JPEGs in the body of an HTTP response by their own structure. Pure; used by one thread.

Boundaries and part headers are skipped like any other bytes between two images: cameras omit, misspell and repeat them
(docs/sources.md has the list), while their JPEGs follow the standard.
"""

from typing import Final

from softcam.imaging.jpeg import EOI, SCAN, SOI, next_marker

_START: Final = SOI + b"\xff"  # the first byte of the next marker
# Markers of segments with a length: tables, comments, frame headers and application data
# (https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1).
_SEGMENTS: Final = frozenset([*range(0xC0, 0xD0), *range(0xDA, 0xE0), *range(0xE0, 0xF0), 0xFE]) - {0xC8}
_MAX_BYTES: Final = 64 << 20


class JpegSplitter:
    """Accepts data in pieces of any size, and returns the JPEGs that are complete."""

    def __init__(self) -> None:
        self._data = bytearray()  # begins with the current image, if there is one
        self._at = 0  # of the next marker of the current image; 0 between two images
        self._is_in_scan = False  # image data precedes that marker

    def push_data(self, data: bytes) -> list[bytes]:
        """Return the images that `data` completes. A damaged image is skipped."""
        self._data += data
        images: list[bytes] = []
        while self._find_start() and (end := self._find_end()):
            if end > 0:
                with memoryview(self._data) as view:
                    images.append(bytes(view[:end]))
            # Behind a damaged image's start: the next image may begin in what its lengths cover.
            del self._data[: max(end, len(_START))]
            self._at = 0
        return images

    def _find_start(self) -> bool:
        """Whether there is an image; discards what precedes it."""
        if self._at:
            return True
        start = self._data.find(_START)
        if start < 0:
            del self._data[: -len(_START) + 1]
            return False
        del self._data[:start]
        self._at, self._is_in_scan = 2, False
        return True

    def _find_end(self) -> int:
        """The length of the image, -1 if it is damaged, 0 if more data is needed."""
        data = self._data
        if len(data) > _MAX_BYTES:
            return -1
        while True:
            if self._is_in_scan:
                marker = next_marker(data, self._at)
                if marker is None:
                    self._at = max(self._at, len(data) - 1)  # the last byte may be the FF of a marker
                    return 0
                self._at = marker.start()
            at = self._at
            if at + 4 > len(data):
                # The end of an image may be the last that arrives for a while.
                return at + 2 if data[at : at + 2] == EOI else 0
            if data[at] != 0xFF:
                return -1
            kind = data[at + 1]
            if kind == 0xFF:
                self._at += 1
            elif kind == EOI[1]:
                return at + 2
            elif kind in _SEGMENTS:
                self._at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
                self._is_in_scan = self._is_in_scan or kind == SCAN
            else:
                return -1
