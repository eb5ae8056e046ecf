"""URLs without their secrets."""

import pytest

from softcam.runtime.redact import display_url, without_secrets

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
