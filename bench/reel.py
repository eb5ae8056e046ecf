"""Reels: the JPEGs that all servers of a measurement serve, on disk as c/reel.h has it. No thread, no state.

They are taken from the portal's own stream, so that every other server sends the very same bytes; or from a folder.
"""

import http.client
from pathlib import Path
from urllib.parse import urlsplit

PICTURES = 30  # one second; more would only leave the processor's caches, for everyone alike
# A JPEG comment, right behind the SOI, with room for the time at which the picture was made.
STAMP = b"\xff\xfe\x00\x12made_ns:" + bytes(8)
TIMEOUT_S = 20.0


def take_from_stream(url: str, count: int = PICTURES) -> list[bytes]:
    """The next pictures of an MJPEG stream whose parts have a Content-Length; raises OSError where it ends before."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "127.0.0.1", parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", parts.path)
        body = connection.getresponse()
        pictures: list[bytes] = []
        while len(pictures) < count:
            size = 0
            while line := body.readline():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    size = int(value)
                if size and not line.strip():
                    break
            picture = body.read(size)
            if not size or len(picture) < size:
                raise OSError(f"{url}: the stream ended after {len(pictures)} pictures")
            pictures.append(picture)
        return pictures
    finally:
        connection.close()


def take_from_folder(folder: Path) -> list[bytes]:
    """The JPEGs in `folder`, by name; raises OSError where there are none."""
    pictures = [path.read_bytes() for path in sorted(folder.glob("*.jp*g"))]
    if not pictures:
        raise OSError(f"no JPEGs in {folder}")
    return pictures


def write_reel(path: Path, pictures: list[bytes]) -> None:
    with path.open("wb") as file:
        for picture in pictures:
            stamped = picture[:2] + STAMP + picture[2:]
            file.write(len(stamped).to_bytes(4, "little") + stamped)


def read_reel(path: Path) -> list[bytes]:
    data = path.read_bytes()
    pictures = []
    while data:
        size = int.from_bytes(data[:4], "little")
        pictures.append(data[4 : 4 + size])
        data = data[4 + size :]
    return pictures
