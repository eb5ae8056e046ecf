"""The parsers: a table of good and bad texts for each."""

import re
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from softcam.config import parsers
from softcam.config.parsers import Parser

PI5_ID = "/base/axi/pcie@1000120000/rp1/i2c@88000/imx708@1a"
PI4_ID = "/base/soc/i2c0mux/i2c@1/imx219@10"
USB_ID = "/base/axi/pcie@1000120000/rp1/usb@200000-1:1.0-046d:0825"

CAMERA = parsers.camera_choice(has_numbers=True)
CAMERA_ID = parsers.camera_choice(has_numbers=False)
RTSP_URL = parsers.url("rtsp", "rtsps")

NOT_AN_INTEGER = (
    "",
    " 64",
    "64 ",
    "-64",
    "+64",
    "1_00",
    "64.0",
    "1e2",
    "0x40",
    "\u0666\u0664",
    "nan",
    "9" * 5000,
    "none",
)
NOT_A_NUMBER = (
    *("", "-1", "+1", "1e1", "1_0", "nan", "inf", "-inf", "1,5", "1.5 s", "5s", "\u0665", ".", "1" * 400, "1" * 5000),
)

# Each parser with texts that it accepts, and their values.
GOOD: list[tuple[Parser, dict[str, object]]] = [
    (parsers.integer(0, 65535), {"0": 0, "65535": 65535, "007": 7}),
    (parsers.integer(64, 8192, is_even=True), {"64": 64, "1536": 1536, "8192": 8192}),
    (parsers.number(0.1, 240), {"0.1": 0.1, ".5": 0.5, "29.97": 29.97, "30.": 30.0, "240": 240.0}),
    (parsers.number(0, 31_536_000), {"0": 0.0, "2.5": 2.5, "31536000": 31_536_000.0}),
    (parsers.boolean, dict.fromkeys(("1", "true", "True", "YES", "on"), True)),
    (parsers.boolean, dict.fromkeys(("0", "false", "False", "NO", "off"), False)),
    (parsers.autostart, {"OFF": "off", "video": "video", "timelapse": "timelapse", "timelapse:.5": "timelapse:0.5"}),
    (
        parsers.substream,
        {"640x360@5": parsers.Substream(640, 360, 5.0), "64x1920@.5": parsers.Substream(64, 1920, 0.5)},
    ),
    (parsers.substream, {"off": None, "OFF": None}),
    (parsers.integer_or("off", 0, 65535), {"0": 0, "8554": 8554, "off": None, "OFF": None}),
    (parsers.integer_or("auto", 100_000, 100_000_000), {"8000000": 8_000_000, "auto": None, "Auto": None}),
    (parsers.log_level, {"debug": "DEBUG", "Warning": "WARNING"}),
    (parsers.plain_text("a path"), {text: text for text in ("imx708_wide", "/usr/share/x.json", "a b")}),
    (
        parsers.host,
        {
            text: text
            for text in (
                *("127.0.0.1", "0.0.0.0", "::1", "fe80::1%eth0", "localhost"),
                *("reachy-mini.local", "host.example.", "7seas.example"),
            )
        },
    ),
    (parsers.host_names, {"Cam.Example.org, pi.example.org.": ("cam.example.org", "pi.example.org")}),
    (
        parsers.origins,
        {
            "http://localhost:3000, https://dash.example/": ("http://localhost:3000", "https://dash.example"),
            "HTTP://Dash.Example:80": ("http://dash.example",),
            "https://dash.example:443,https://dash.example:80": ("https://dash.example", "https://dash.example:80"),
            "http://[FD00:0::1]:08080": ("http://[fd00::1]:8080",),
        },
    ),
    (RTSP_URL, {text: text for text in ("rtsp://127.0.0.1:8554/cam", "rtsps://user:secret@[::1]/cam?x=1")}),
    (
        parsers.web_url,
        {
            text: text
            for text in (
                *("http://pi.local:8889/cam", "https://pi.example/cam/"),
                "https://a:b%20c@[fd00::2]:8889/cam/x-1?y=~z&k=(1)",
            )
        },
    ),
    (
        parsers.camera_list,
        {
            "": (),
            "Off": (),
            "Door=18082": (("Door", 18082),),
            " Front door = 1 ,b=https://x:1/y/": (("Front door", 1), ("b", "https://x:1/y/")),
        },
    ),
    (parsers.function_name, {text: text for text in ("my_hooks:stamp", "a.b_1.c:f")}),
    (parsers.api_key, {text: text for text in ("x", "your-secret-key", "two words#and!~")}),
    (CAMERA, {"0": 0, "7": 7, "007": 7, "99": 99, "pattern": "pattern", "Pattern": "pattern"}),
    (
        CAMERA,
        {
            text: text
            for text in (
                *(PI5_ID, PI4_ID, USB_ID, "Virtual0", "platform/vimc.0 Sensor B", r"\_SB_.PC00.LNK1"),
                r"\_SB_.PCI0.XHC_.RHUB.HS08-8:1.0-0c45:6730",
                *("rtsp://10.0.0.2/cam", "http://x/stream.mjpg", "rtsp://u:p@[::1]:8554/a?b=c"),
                *("/dev/video0", "clip.mp4", "a b.MKV", "/home/pi/clip.mp4", "/base/x.ts"),
                *("./x", "../x", "~/x", "udp://@239.0.0.1:1234"),
                *("unixfd:/tmp/reachymini_camera_socket", "unixfd:/a b"),
            )
        },
    ),
    (CAMERA, {"HTTP://x/Stream": "http://x/Stream"}),
    (
        CAMERA_ID,
        {text: text for text in (PI5_ID, "Virtual0", "pattern", "/dev/video0", "rtsp://x/y", "/home/pi/clip.mp4")},
    ),
]

# Each parser with texts that it rejects.
BAD: list[tuple[Parser, tuple[str, ...]]] = [
    (parsers.integer(1, 100), (*NOT_AN_INTEGER, "0", "101")),
    (parsers.integer(0, 65535), (*NOT_AN_INTEGER, "65536", "http")),
    (parsers.integer(64, 8192, is_even=True), (*NOT_AN_INTEGER, "0", "62", "63", "65", "1537", "8193", "8194")),
    (parsers.number(0.1, 240), (*NOT_A_NUMBER, "0", "0.09", "240.1")),
    (parsers.number(0, 31_536_000), (*NOT_A_NUMBER, "31536000.1")),
    (parsers.boolean, ("", "2", "maybe", "tru", " on", "none")),
    (
        parsers.autostart,
        ("", "on", "videos", "video:5", "off:", "timelapse:", "timelapse:0", "timelapse:1e2", "timelapse:1:2"),
    ),
    (
        parsers.substream,
        ("", "on", "640x360", "640x360@", "640x360@0", "640x360@61", "641x360@5", "62x64@5", "1922x64@5", "axb@c"),
    ),
    (parsers.integer_or("off", 0, 65535), (*NOT_AN_INTEGER, "65536", "on", "none")),
    (parsers.integer_or("auto", 100_000, 100_000_000), (*NOT_AN_INTEGER, "99999", "off", "automatic")),
    (parsers.substream, ("640X360@5", "640x360@5 ", "640x360@1e1", "-640x360@5", "640x360@5.5.5")),
    (parsers.log_level, ("", "loud", "WARN", "10")),
    (parsers.plain_text("a path"), ("", "a\nb", "a\x00b", " x", "x" * 5000)),
    (parsers.host, ("", "a b", "*", "300.1.1.1", "1.2.3", "[::1]", "-a", "a..b", "::g", "ho\nst")),
    (parsers.host, ("é.example", "http://x", "127.0.0.1:80", "a" * 64, "a." * 200, "::1%\n")),
    (parsers.host_names, ("", "a,", "http://a.example", "a b", "a.example:80", "1.2.3")),
    (parsers.origins, ("", "*", "http://*", "null", "localhost:3000", "http://a,", "file:///a", "http://a:0")),
    (parsers.origins, tuple(f"http://a{end}" for end in ("/b", "//", "?", "#", "/?x", ":x", ".*", " b", "@b"))),
    (RTSP_URL, ("", "http://x/cam", "rtsp://", "rtsp:///cam", "rtsp://x:99999/", "rtsp://a b/")),
    (RTSP_URL, ("rtsp://[::1/cam", "rtsp://x:0/", "x:8554/cam", "rtsp://x/\n")),
    (parsers.web_url, ("", "rtsp://x/cam", "//x/cam", "https://", "http://x/ä", "http://x/%zz")),
    (parsers.web_url, tuple(f"http://x/{mark}" for mark in (*"\"'<>\\^`{|} \t\x7f", "a\nb", "a b"))),
    (
        parsers.web_url,
        tuple(f"http://{name}/" for name in ("x;y", "x,y", "*", "a..b", "300.1.1.1", "x%22y", "[::1", "ä")),
    ),
    (parsers.camera_list, (",", "on", "Door", "=1", "Door=", "Door=0", "Door=65536", "a=1,", "a\nb=1")),
    (parsers.camera_list, ('a=http://x/"', "a=http://x;y/", "a=rtsp://x/", "a=x", f"{'a' * 41}=1")),
    (parsers.function_name, ("", "stamp", ":f", "m:", "m:f:g", "m.:f", "m-n:f", "/a/b.py:f", "m:f()", "m: f")),
    (parsers.api_key, ("", " ", " x", "x ", "a\tb", "a\n", "\x7f", "é", "key # mine", "#", "x" * 513)),
    (CAMERA, ("", " ", "-1", "+1", "1.5", "100", "9" * 30, "a\nb", "x" * 256, "Virtual0 ")),
    (CAMERA, ("file:/a", "rtsp://", "http:///x", "gopher://x/", "rtsp://x:0/", "rtsp://a b/")),
    (CAMERA, ("/", "/dev/", "clip\n.mp4", " clip.mp4", "/a" * 3000, "rtsp://x/\n")),
    (CAMERA, ("unixfd:/", "unixfd:/run/", "unixfd:camera", "unixfd://run/camera\n", f"unixfd:/{'x' * 108}")),
    (CAMERA_ID, ("0", "1", "", "/", "rtsp://", "ftp://x/y.mp4")),
]

ANY_TEXT = st.one_of(
    st.text(),
    st.text(st.characters(categories=["Cs", "Cc", "Nd", "Zs"])),
    st.from_regex(r"[0-9+\-._eE ]{0,30}", fullmatch=True),
    st.from_regex(r"[a-z0-9:/.%\[\]@ -]{0,40}", fullmatch=True),
    st.sampled_from(["\udcff", "²", "1" * 5000]),
)
# A loaded machine may be slow with an example.
unhurried = hypothesis_settings(deadline=None, database=None)


def rule_of(parse: Parser) -> str:
    """The rule of a parser; no parser accepts a control character."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        parse("\x01")
    return str(caught.value)


@pytest.mark.parametrize(("parse", "values"), GOOD)
def test_valid_texts(parse: Parser, values: dict[str, object]) -> None:
    for text, value in values.items():
        parsed = parse(text)
        assert parsed == value, text
        assert type(parsed) is type(value), text


@pytest.mark.parametrize(("parse", "texts"), BAD)
def test_invalid_texts_raise_the_rule(parse: Parser, texts: tuple[str, ...]) -> None:
    rule = rule_of(parse)
    for text in texts:
        with pytest.raises(ValueError, match=r"\S") as caught:
            parse(text)
        assert str(caught.value).startswith(rule), text


def test_rule_states_the_bounds() -> None:
    assert rule_of(parsers.integer(1, 100)) == "an integer from 1 to 100"
    assert rule_of(parsers.integer(64, 8192, is_even=True)) == "an even integer from 64 to 8192"
    assert rule_of(parsers.number(0.1, 240)) == "a number from 0.1 to 240"
    assert rule_of(parsers.number(0, 31_536_000, "seconds")) == "a number of seconds from 0 to 31536000"


@pytest.mark.parametrize("parse", list(dict.fromkeys(parse for parse, _ in GOOD)))
@unhurried
@given(text=ANY_TEXT)
def test_any_text_is_a_value_or_raises_the_rule(parse: Parser, text: str) -> None:
    error: ValueError | None = None
    value: object = None
    try:
        value = parse(text)
    except ValueError as caught:
        error = caught
    if error is None:
        assert value is not None or text.lower() in ("auto", "off")
        assert not isinstance(value, str) or (value.isprintable() and value)
    else:
        assert type(error) is ValueError
        assert str(error).startswith(rule_of(parse))


@unhurried
@given(text=st.text())
def test_host_is_an_address_or_looks_like_a_name(text: str) -> None:
    try:
        host = parsers.host(text)
    except ValueError:
        return
    assert host == text
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", text, re.ASCII):
        assert ip_address(text)


@pytest.mark.parametrize(
    "text", ["x", "Front door", "Gärten 庭 🐦", "a, b; <c> & \"d\" 'e' = #2", "\u0645\u06cc\u200c\u062e", "é" * 64]
)
def test_display_name(text: str) -> None:
    assert parsers.display_name(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", " x", "x ", "a\nb", "a\rb", "a\tb", "a\0b", "a\x1b[1m", "a\x7f", "a\x85b", "a\u2028b"),
        *("a\u202eb", "a\u2066b", "\ufeffa", "\udcff", "\u200d", "\u200d x", "x" * 65),
    ],
)
def test_invalid_display_name(text: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 printable characters in one line"):
        parsers.display_name(text)
