"""URLs without their secrets."""

import time

import pytest

from softcam.runtime.redact import Redactor, display_url, without_secrets

SECRET = "s3cr3t"  # must not appear in a result


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("rtsp://10.0.0.2/cam", "rtsp://10.0.0.2/cam"),
        ("http://[::1]:8080/stream.mjpg", "http://[::1]:8080/stream.mjpg"),
        ("clip.mp4", "clip.mp4"),
        ("/dev/video0", "/dev/video0"),
        (f"rtsp://admin:{SECRET}@10.0.0.2:554/cam", "rtsp://10.0.0.2:554/cam"),
        (f"rtsp://admin:1/2@{SECRET}@10.0.0.2/cam", "rtsp://10.0.0.2/cam"),
        (f"rtsp://admin:{SECRET}?@10.0.0.2/cam", "rtsp://10.0.0.2/cam"),
        (f"http://10.0.0.2/video?token={SECRET}&x=1", "http://10.0.0.2/video"),
        (
            f"rtsp://10.0.0.2/user=admin&password={SECRET}&channel=1.sdp",
            "rtsp://10.0.0.2/user=***&password=***&channel=1.sdp",
        ),
        (f"rtsp://10.0.0.2/user=admin_password={SECRET}_channel=1", "rtsp://10.0.0.2/user=***"),
    ],
)
def test_display_url(address: str, expected: str) -> None:
    assert display_url(address) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1536", "1536"),
        ("my_key=1", "my_key=1"),
        (f"rtsp://admin:{SECRET}@10.0.0.2/cam", "rtsp://***@10.0.0.2/cam"),
        (f"http://10.0.0.2/v?PWD={SECRET}&x=1", "http://10.0.0.2/v?PWD=***&x=1"),
        (f"http://10.0.0.2/v?x=1&auth={SECRET}", "http://10.0.0.2/v?x=1&auth=***"),
    ],
)
def test_without_secrets(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Camera open after 0.3 s", "Camera open after 0.3 s"),
        (f"to rtsp://admin:{SECRET}@10.0.0.2/cam: a@b", "to rtsp://***@10.0.0.2/cam: a@b"),
        (f"a@b, rtsp://admin:{SECRET}@10.0.0.2/cam", "a@b, rtsp://***@10.0.0.2/cam"),
        (f"'rtsp://admin:1/2@{SECRET}@10.0.0.2/cam'", "'rtsp://***@10.0.0.2/cam'"),
        (f"GET /stream?fps=5&key={SECRET} HTTP/1.1", "GET /stream?fps=5&key=*** HTTP/1.1"),
        (f"X-API-Key: {SECRET}, Host: a", "X-API-Key: ***, Host: a"),
        (f"{{'Authorization': 'Basic {SECRET}'}}", "{'Authorization': 'Basic ***'}"),
        ("X-API-Key, Authorization: Bearer, or Basic", "X-API-Key, Authorization: Bearer, or Basic"),
    ],
)
def test_forms_of_secrets_in_text(text: str, expected: str) -> None:
    assert Redactor()(text) == expected


@pytest.mark.parametrize(
    ("secret", "text", "expected"),
    [
        ("battery staple", "xbattery stapley", "x***y"),
        ("battery staple", "battery%20staple battery+staple", "*** ***"),
        ("a/b c&d=1", "a%2Fb%20c%26d%3D1, a/b%20c%26d%3D1", "***, ***"),
        ("quote'back\\slash", repr("quote'back\\slash"), '"***"'),
        ("admin", "admin, administrator", "***, administrator"),
        ("1", "1 client connected", "1 client connected"),
        ("abc", "abc /?key=abc X-API-Key: abc", "abc /?key=*** X-API-Key: ***"),
        ("(.*)[a-z]+$", "(.*)[a-z]+$ abc", "*** abc"),
        ("schl\udcfcssel", "schl\udcfcssel", "***"),
        ("", "a b", "a b"),
    ],
)
def test_known_secrets_in_text(secret: str, text: str, expected: str) -> None:
    assert Redactor([secret])(text) == expected


def test_longer_secret_is_found_first() -> None:
    assert Redactor(["battery staple", "correct battery staple"])("correct battery staple") == "***"


@pytest.mark.parametrize("piece", ["://", "://@", "?key=", "authorization: basic ", "x-api-key:", "://a@ "])
def test_time_is_linear(piece: str) -> None:
    """Text of clients appears in log lines."""
    began_s = time.process_time()
    Redactor(["battery staple"])(piece * 20_000)
    assert time.process_time() - began_s < 1
