"""Reels: the JPEGs that all servers send, in the file format of c/reel.h. No thread, no state.

They are recorded from the portal's stream, so that all servers send the same bytes, or read from a folder.
"""

import http.client
from pathlib import Path
from urllib.parse import urlsplit

PICTURES = 30  # one second; more would not fit into the processor's caches, for all servers alike
# A JPEG comment after the SOI, with room for the creation time.
STAMP = b"\xff\xfe\x00\x12made_ns:" + bytes(8)
TIMEOUT_S = 20.0


def take_from_stream(url: str, count: int = PICTURES) -> list[bytes]:
    """Return the next JPEGs of an MJPEG stream whose parts have a Content-Length. Raises OSError if it ends early."""
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
    """Return the JPEGs in `folder`, sorted by name. Raises OSError if there are none."""
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
