"""Finds the images in the body of an HTTP response by their own structure. Pure; used by one thread.

JPEG, PNG (https://www.w3.org/TR/png-3/#5DataRep) and WebP (https://www.rfc-editor.org/rfc/rfc9649#section-2.3).
Boundaries and part headers are skipped like any other bytes between two images: cameras omit, misspell and repeat them
(docs/sources.md has the list), while their images follow the standard. Only a JPEG without its end marker ends at a
boundary with a header, at the next JPEG, or with the body.
"""

import re
from typing import Final

from softcam.imaging.jpeg import EOI, SCAN, SOI, next_marker

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_RIFF: Final = b"RIFF"  # the container of WebP
# Of a JPEG with the first byte of the next marker.
_START: Final = re.compile(re.escape(SOI + b"\xff") + b"|" + re.escape(_PNG) + b"|" + _RIFF + rb"[\s\S]{4}WEBP")
_MIN_START_BYTES: Final = 3
_MAX_START_BYTES: Final = 12
# What ends a JPEG without an end marker: a boundary with a header while it arrives, all text behind it afterwards.
_BOUNDARY: Final = re.compile(rb"\n--[ -~]{1,200}\r?\n[Cc][Oo][Nn][Tt][Ee][Nn][Tt]-")
_MAX_BOUNDARY_BYTES: Final = 213
_TEXT: Final = re.compile(rb"\n--[ -~]*\r?\n?[ -~\r\n\t]*\Z")
_MAX_TEXT_BYTES: Final = 2048
_CHUNK_TYPE: Final = re.compile(rb"[A-Za-z]{4}")
# Markers of segments with a length: tables, comments, frame headers and application data
# (https://www.w3.org/Graphics/JPEG/itu-t81.pdf, table B.1).
_SEGMENTS: Final = frozenset([*range(0xC0, 0xD0), *range(0xDA, 0xE0), *range(0xE0, 0xF0), 0xFE]) - {0xC8}
_MAX_BYTES: Final = 64 << 20


class ImageSplitter:
    """Accepts data in pieces of any size, and returns the images that are complete."""

    def __init__(self) -> None:
        self._data = bytearray()  # begins with the current image, if there is one
        self._at = 0  # of the next marker or chunk of the current image; 0 between two images
        self._is_in_scan = False  # image data precedes that marker

    def push_data(self, data: bytes) -> list[bytes]:
        """The images that `data` completes. A damaged image is skipped, unless only its image data is damaged.

        A JPEG without an end marker is returned as it is.
        """
        self._data += data
        images: list[bytes] = []
        while self._find_start() and (end := self._find_end()):
            if end > 0:
                with memoryview(self._data) as view:
                    images.append(bytes(view[:end]))
            # Behind a damaged image's start: the next image may begin in what its lengths cover.
            del self._data[: max(end, _MIN_START_BYTES)]
            self._at = 0
        return images

    def finish(self) -> list[bytes]:
        """At the end of the body: the last JPEG, if its end marker is missing."""
        return [bytes(self._data[: self._text_at(len(self._data))])] if self._is_in_scan and self._at else []

    def _find_start(self) -> bool:
        """Whether there is an image; discards what precedes it."""
        if self._at:
            return True
        start = _START.search(self._data)
        if start is None:
            del self._data[: 1 - _MAX_START_BYTES]
            return False
        self._at, self._is_in_scan = len(_PNG) if start[0] == _PNG else 2, False
        begin = start.start()
        del start, self._data[:begin]
        return True

    def _find_end(self) -> int:
        """The length of the image, -1 if it is damaged, 0 if more data is needed."""
        if len(self._data) > _MAX_BYTES:
            return -1
        if self._data.startswith(_PNG):
            return self._find_png_end()
        return self._find_webp_end() if self._data.startswith(_RIFF) else self._find_jpeg_end()

    def _find_png_end(self) -> int:
        data = self._data
        while (at := self._at) + 8 <= len(data):
            length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
            if length > _MAX_BYTES or not _CHUNK_TYPE.fullmatch(kind):
                return -1
            end = at + 12 + length  # with the checksum
            if kind == b"IEND":
                return end if end <= len(data) else 0
            self._at = end
        return 0

    def _find_webp_end(self) -> int:
        size = int.from_bytes(self._data[4:8], "little")
        end = 8 + size + size % 2
        if end > _MAX_BYTES:
            return -1
        return end if end <= len(self._data) else 0

    def _find_jpeg_end(self) -> int:
        data = self._data
        while True:
            if self._is_in_scan:
                marker = next_marker(data, self._at)
                # The last byte may be the FF of a marker.
                after = max(self._at, len(data) - 1) if marker is None else marker.start()
                boundary = _BOUNDARY.search(data, max(self._at - _MAX_BOUNDARY_BYTES, 0), after)
                self._at = after
                if boundary is not None:
                    return self._text_at(boundary.end())
                if marker is None:
                    return 0
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
            elif kind == SOI[1] and self._is_in_scan:
                return self._text_at(at)
            elif kind in _SEGMENTS:
                self._at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
                self._is_in_scan = self._is_in_scan or kind == SCAN
            else:
                return -1

    def _text_at(self, end: int) -> int:
        """The position of the boundary and the header that precede `end`; `end` if there are none."""
        text = _TEXT.search(self._data, max(end - _MAX_TEXT_BYTES, 0), end)
        if text is None:
            return end
        return text.start() - (self._data[text.start() - 1] == 0x0D)
