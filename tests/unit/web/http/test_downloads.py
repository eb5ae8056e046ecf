"""File names of downloads, and Content-Disposition."""

import re
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest

from softcam.web.http.downloads import content_disposition, file_stem, picture_name


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        (None, "snapshot"),
        ("Front door", "Front-door"),
        ("Gärten 庭 🐦", "Gärten-庭-🐦"),
        ("a/b\\c:d*e?f\"g<h>i|j%k;l'm", "a-b-c-d-e-f-g-h-i-j-k-l-m"),
        ("../../etc/passwd", "etc-passwd"),
        (".hidden.", "hidden"),
        ("???", "snapshot"),
        ("Door #2 (left), new", "Door-#2-(left),-new"),
        ("a\r\nb", "a-b"),
        ("CON", "camera-CON"),
        ("nul.txt", "camera-nul.txt"),
        ("com1.tar.gz", "camera-com1.tar.gz"),
        ("LPT²", "camera-LPT²"),
        ("CONOUT$", "camera-CONOUT$"),
        (".aux. ", "camera-aux"),
        ("Console", "Console"),
        ("com10", "com10"),
        ("con-1.b", "con-1.b"),
    ],
)
def test_file_stem(name: str | None, stem: str) -> None:
    assert file_stem(name) == stem


def test_long_name_fits_into_a_file_name() -> None:
    for letter in ("x", "é", "庭", "🐦"):
        name = picture_name(letter * 64, 0.0, ".jpg")
        assert len(name.encode()) <= 255
        assert name.startswith(letter * 50)


def test_long_name_after_a_device_fits_too() -> None:
    assert len(picture_name(f"nul.{'x' * 300}", 0.0, ".jpg").encode()) <= 255


def test_picture_name_in_local_time() -> None:
    taken = datetime(2026, 11, 20, 23, 15, 2, 999_999, UTC)
    assert picture_name("Door", taken.timestamp(), ".dng") == f"Door-{taken.astimezone():%Y-%m-%d_%H-%M-%S}.dng"


@pytest.mark.parametrize(
    ("file_name", "value"),
    [
        ("Front-door.jpg", 'attachment; filename="Front-door.jpg"'),
        ("Gärten.jpg", "attachment; filename=\"Garten.jpg\"; filename*=UTF-8''G%C3%A4rten.jpg"),
        ("庭 (1).mp4", "attachment; filename=\"_-(1).mp4\"; filename*=UTF-8''%E5%BA%AD%20%281%29.mp4"),
        ("½\uff0f.mp4", "attachment; filename=\"1_2-.mp4\"; filename*=UTF-8''%C2%BD%EF%BC%8F.mp4"),  # become slashes
    ],
)
def test_content_disposition(file_name: str, value: str) -> None:
    assert content_disposition("attachment", file_name) == value
    assert value.isascii()
    if encoded := re.search(r"filename\*=UTF-8''([A-Za-z0-9!#$&+.^_`|~%-]+)$", value):  # RFC 8187, 3.2.1
        assert unquote(encoded[1]) == file_name


def test_no_header_injection() -> None:
    assert content_disposition("inline", 'a"; x="\r\nSet-Cookie: b.jpg') == 'inline; filename="a-x=-Set-Cookie-b.jpg"'
