"""The first line of requests and their URLs, as lenient as clients need it, and responses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from softcam.rtsp.messages import InvalidMessage, Message
from softcam.rtsp.server.requests import REASONS, Target, format_response, read_request, read_target


@pytest.mark.parametrize(
    "first",
    [
        "OPTIONS rtsp://pi:8554/ RTSP/1.0",
        "OPTIONS\trtsp://pi:8554/  RTSP/1.0 ",
        "options rtsp://pi:8554/ rtsp/1.0",
        "OPTIONS rtsp://pi:8554/",
    ],
    ids=["RFC", "white space", "case", "no version"],
)
def test_ok_request(first: str) -> None:
    request = read_request(Message(first, {"cseq": ["1"]}, b"body"))
    assert (request.method, request.url) == ("OPTIONS", "rtsp://pi:8554/")
    assert (request.protocol, request.version, request.cseq, request.body) == ("RTSP", (1, 0), "1", b"body")


@pytest.mark.parametrize(
    "first",
    [
        "",
        "nonsense",
        "RTSP/1.0 200 OK",
        "OPTIONS rtsp://a b RTSP/1.0",
        "OPTIONS * RTSP/11.0",
        "OPTIONS * SIP/2.0",
        "OPTIONS a\x00b RTSP/1.0",
    ],
)
def test_fail_request(first: str) -> None:
    with pytest.raises(InvalidMessage, match="must be METHOD URL") as raised:
        read_request(Message(first, {}, b""))
    assert raised.value.status == 400


def test_reasons_of_invalid_messages() -> None:
    assert {400, 413} <= set(REASONS)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("rtsp://pi:8554", Target("", "rtsp://pi:8554/")),
        ("rtsp://pi:8554/", Target("", "rtsp://pi:8554/")),
        ("RTSP://pi/cam0", Target("cam0", "rtsp://pi/cam0/")),
        ("rtspu://pi/cam0//", Target("cam0", "rtsp://pi/cam0/")),
        ("rtsp://me:it@pi:8554/cam0/", Target("cam0", "rtsp://pi:8554/cam0/")),
        ("rtsp://me:p@ss@pi/cam0", Target("cam0", "rtsp://pi/cam0/")),
        ("rtsp://[::1]:8554/cam0", Target("cam0", "rtsp://[::1]:8554/cam0/")),
        ("rtsp://pi/trackID=0", Target("", "rtsp://pi/")),
        ("rtsp://pi/cam0/trackID=0", Target("cam0", "rtsp://pi/cam0/")),
        ("rtsp://pi/cam0/trackid=0/", Target("cam0", "rtsp://pi/cam0/")),
        ("rtsp://pi/cam0//trackID=0", Target("cam0", "rtsp://pi/cam0/")),
        ("rtsp://pi/cam0/trackID=1", Target("cam0/trackID=1", "rtsp://pi/cam0/trackID=1/")),
        ("rtsp://pi:8554/?a=b", Target("", "rtsp://pi:8554/?a=b/")),
        ("rtsp://pi:8554?a=b", Target("", "rtsp://pi:8554/?a=b/")),
        ("rtsp://pi/cam0?a=b/c", Target("cam0", "rtsp://pi/cam0?a=b/c/")),
        ("rtsp://pi/cam0?a=b/trackID=0", Target("cam0", "rtsp://pi/cam0?a=b/")),
        ("rtsp://pi/cam0/trackID=0?a=b", Target("cam0/trackID=0", "rtsp://pi/cam0/trackID=0?a=b/")),
        ("rtsp://pi/c%61m0#x", Target("cam0", "rtsp://pi/c%61m0/")),
        ("/cam0/trackID=0", Target("cam0", "")),
        ("*", Target("", "")),
        ("http://pi/", None),
        ("rtsp:/cam0", None),
        ("cam0", None),
        ("rtsp://[::1/cam0", None),
        ("rtsp:///cam0", None),
    ],
)
def test_target(url: str, target: Target | None) -> None:
    assert read_target(url) == target


@given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=255), max_size=40))
def test_any_url(url: str) -> None:
    for text in (url, f"rtsp://{url}", f"rtsp://pi/{url}"):
        target = read_target(text)
        assert target is None or target.base == "" or target.base.endswith("/")


def test_response() -> None:
    assert format_response(401, [("CSeq", "1")], b"no") == (
        b"RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\nContent-Length: 2\r\n\r\nno"
    )
