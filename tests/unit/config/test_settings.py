import re
from dataclasses import fields, replace
from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from softcam import __version__
from softcam.config.schema import BY_FLAG, BY_NAME, COMMANDS
from softcam.config.settings import SETTINGS, Setting, Settings, describe, help_text, load, markdown_table
from softcam.errors import ConfigurationError

PI5_ID = "/base/axi/pcie@1000120000/rp1/i2c@88000/imx708@1a"
PI4_ID = "/base/soc/i2c0mux/i2c@1/imx219@10"
USB_ID = "/base/axi/pcie@1000120000/rp1/usb@200000-1:1.0-046d:0825"
KEY = "s3cret-K3y"

GOOD = [
    ("camera", "0", 0),
    ("camera", "7", 7),
    ("camera", "007", 7),
    ("camera", "99", 99),
    ("camera", "pattern", "pattern"),
    ("camera", "Pattern", "pattern"),
    ("camera", PI5_ID, PI5_ID),
    ("camera", PI4_ID, PI4_ID),
    ("camera", USB_ID, USB_ID),
    ("camera", "Virtual0", "Virtual0"),
    ("camera", "platform/vimc.0 Sensor B", "platform/vimc.0 Sensor B"),
    ("camera", r"\_SB_.PC00.LNK1", r"\_SB_.PC00.LNK1"),
    ("camera", r"\_SB_.PCI0.XHC_.RHUB.HS08-8:1.0-0c45:6730", r"\_SB_.PCI0.XHC_.RHUB.HS08-8:1.0-0c45:6730"),
    ("id", PI5_ID, PI5_ID),
    ("id", "Virtual0", "Virtual0"),
    ("id", "pattern", "pattern"),
    ("host", "127.0.0.1", "127.0.0.1"),
    ("host", "0.0.0.0", "0.0.0.0"),
    ("host", "::1", "::1"),
    ("host", "fe80::1%eth0", "fe80::1%eth0"),
    ("host", "localhost", "localhost"),
    ("host", "reachy-mini.local", "reachy-mini.local"),
    ("host", "host.example.", "host.example."),
    ("host", "7seas.example", "7seas.example"),
    ("port", "0", 0),
    ("port", "65535", 65535),
    ("width", "64", 64),
    ("width", "1536", 1536),
    ("height", "8192", 8192),
    ("snapshot_width", "4608", 4608),
    ("snapshot_height", "2592", 2592),
    ("fps", "0.1", 0.1),
    ("fps", ".5", 0.5),
    ("fps", "29.97", 29.97),
    ("fps", "30.", 30.0),
    ("fps", "240", 240.0),
    ("quality", "1", 1),
    ("quality", "100", 100),
    ("snapshot_quality", "95", 95),
    ("linger", "0", 0.0),
    ("linger", "2.5", 2.5),
    ("watchdog_timeout", "0", 0.0),
    ("autofocus_timeout", "31536000", 31_536_000.0),
    *(("autofocus", text, True) for text in ("1", "true", "True", "YES", "on")),
    *(("autofocus", text, False) for text in ("0", "false", "False", "NO", "off")),
    ("is_noir", "false", False),
    ("is_noir", "1", True),
    ("enabled", "0", False),
    ("api_key", "x", "x"),
    ("api_key", "your-secret-key", "your-secret-key"),
    ("api_key", "two words#and!~", "two words#and!~"),
    ("view_key", "only-look", "only-look"),
    ("host_names", "Cam.Example.org, pi.example.org.", ("cam.example.org", "pi.example.org")),
    ("state_dir", "/var/lib/soft-stream", "/var/lib/soft-stream"),
    ("max_clients", "1", 1),
    ("log_level", "debug", "DEBUG"),
    ("log_level", "Warning", "WARNING"),
    *(
        ("camera", text, text)
        for text in ("rtsp://10.0.0.2/cam", "http://x/stream.mjpg", "rtsp://u:p@[::1]:8554/a?b=c")
    ),
    *(("camera", text, text) for text in ("/dev/video0", "clip.mp4", "a b.MKV", "/home/pi/clip.mp4", "/base/x.ts")),
    *(("camera", text, text) for text in ("./x", "../x", "~/x", "udp://@239.0.0.1:1234")),
    ("camera", "HTTP://x/Stream", "http://x/Stream"),
    *(("id", text, text) for text in ("/dev/video0", "rtsp://x/y", "/home/pi/clip.mp4")),
    ("tuning_file", "imx708_noir.json", "imx708_noir.json"),
    ("tuning_file", "/usr/share/libcamera/ipa/rpi/pisp/imx708.json", "/usr/share/libcamera/ipa/rpi/pisp/imx708.json"),
    ("camera_model", "imx708_wide", "imx708_wide"),
    ("pattern_faults", "/run/faults", "/run/faults"),
    ("rtsp_url", "rtsp://127.0.0.1:8554/cam", "rtsp://127.0.0.1:8554/cam"),
    ("rtsp_url", "rtsps://user:secret@[::1]/cam?x=1", "rtsps://user:secret@[::1]/cam?x=1"),
    ("rtsp_autostart", "no", False),
    ("bitrate", "100000", 100_000),
    ("webrtc_url", "http://pi.local:8889/cam", "http://pi.local:8889/cam"),
    ("webrtc_url", "https://pi.example/cam/", "https://pi.example/cam/"),
    (
        "webrtc_url",
        "https://a:b%20c@[fd00::2]:8889/cam/x-1?y=~z&k=(1)",
        "https://a:b%20c@[fd00::2]:8889/cam/x-1?y=~z&k=(1)",
    ),
    ("recordings", "/var/lib/recordings", "/var/lib/recordings"),
    ("recordings_max_bytes", "10000000", 10_000_000),
    ("recordings_preroll", "5", 5.0),
    ("hook", "my_hooks:stamp", "my_hooks:stamp"),
    ("hook", "a.b_1.c:f", "a.b_1.c:f"),
    ("neighbours", "Door=18082", (("Door", 18082),)),
    ("neighbours", " Front door = 1 ,b=https://x:1/y/", (("Front door", 1), ("b", "https://x:1/y/"))),
]

NOT_WHOLE = ("", " 64", "64 ", "-64", "+64", "1_00", "64.0", "1e2", "0x40", "\u0666\u0664", "nan", "9" * 5000, "none")
NOT_DECIMAL = (
    "",
    "-1",
    "+1",
    "1e1",
    "1_0",
    "nan",
    "inf",
    "-inf",
    "1,5",
    "1.5 s",
    "5s",
    "\u0665",
    ".",
    "1" * 400,
    "1" * 5000,
)
BAD = [
    *(("width", text) for text in (*NOT_WHOLE, "0", "62", "65", "1537", "8193", "8194")),
    *(("snapshot_height", text) for text in ("63", "65", "8194")),
    *(("quality", text) for text in (*NOT_WHOLE, "0", "101")),
    *(("port", text) for text in (*NOT_WHOLE, "65536", "http")),
    *(("max_clients", text) for text in (*NOT_WHOLE, "0", "100001")),
    *(("fps", text) for text in (*NOT_DECIMAL, "0", "0.09", "240.1")),
    *(("linger", text) for text in (*NOT_DECIMAL, "31536000.1")),
    *(("watchdog_timeout", text) for text in NOT_DECIMAL),
    *(("autofocus", text) for text in ("", "2", "maybe", "tru", " on", "none")),
    *(("log_level", text) for text in ("", "loud", "WARN", "10")),
    *(("api_key", text) for text in ("", " ", " x", "x ", "a\tb", "a\n", "\x7f", "é", "key # mine", "#", "x" * 513)),
    *(("host", text) for text in ("", "a b", "*", "300.1.1.1", "1.2.3", "[::1]", "-a", "a..b", "::g", "ho\nst")),
    *(("host", text) for text in ("é.example", "http://x", "127.0.0.1:80", "a" * 64, "a." * 200, "::1%\n")),
    *(("camera", text) for text in ("", " ", "-1", "+1", "1.5", "100", "9" * 30, "a\nb", "x" * 256, "Virtual0 ")),
    *(("camera", text) for text in ("file:/a", "rtsp://", "http:///x", "gopher://x/", "rtsp://x:0/", "rtsp://a b/")),
    *(("camera", text) for text in ("/", "/dev/", "clip\n.mp4", " clip.mp4", "/a" * 3000, "rtsp://x/\n")),
    *(("id", text) for text in ("0", "1", "", "/", "rtsp://", "ftp://x/y.mp4")),
    *(("tuning_file", text) for text in ("", "a\nb", "a\x00b", " x", "x" * 5000)),
    *(("pattern_faults", text) for text in ("", "a\x00b")),
    *(("rtsp_url", text) for text in ("", "http://x/cam", "rtsp://", "rtsp:///cam", "rtsp://x:99999/", "rtsp://a b/")),
    *(("rtsp_url", text) for text in ("rtsp://[::1/cam", "rtsp://x:0/", "x:8554/cam", "rtsp://x/\n")),
    *(("webrtc_url", text) for text in ("", "rtsp://x/cam", "//x/cam", "https://", "http://x/ä", "http://x/%zz")),
    *(("webrtc_url", f"http://x/{mark}") for mark in (*"\"'<>\\^`{|} \t\x7f", "a\nb", "a b")),
    *(("webrtc_url", f"http://{name}/") for name in ("x;y", "x,y", "*", "a..b", "300.1.1.1", "x%22y", "[::1", "ä")),
    *(("bitrate", text) for text in (*NOT_WHOLE, "99999", "100000001")),
    *(("recordings_max_bytes", text) for text in (*NOT_WHOLE, "9999999")),
    *(("recordings_preroll", text) for text in (*NOT_DECIMAL, "60.1")),
    *(("host_names", text) for text in ("", "a,", "http://a.example", "a b", "a.example:80", "1.2.3")),
    *(("neighbours", text) for text in ("", "Door", "=1", "Door=", "Door=0", "Door=65536", "a=1,", "a\nb=1")),
    *(("neighbours", text) for text in ('a=http://x/"', "a=http://x;y/")),
    *(("neighbours", text) for text in ("a=rtsp://x/", "a=x", f"{'a' * 41}=1")),
    *(("hook", text) for text in ("", "stamp", ":f", "m:", "m:f:g", "m.:f", "m-n:f", "/a/b.py:f", "m:f()", "m: f")),
]  # fmt: skip


def faults_of(argv: list[str], environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(argv, environ or {})
    return caught.value.messages


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ()),
        ({"cam0_width": "640"}, ()),
        ({"cam1_width": "640"}, (("Camera 0", 18081), ("Camera 1", 18082))),
        ({"cam0_port": "8000", "CAM2_port": "8002 # old"}, (("Camera 0", 8000), ("Camera 2", 8002))),
        ({"cam1_enabled": "0"}, ()),
        ({"cam1_port": "http"}, ()),
        ({"cam1_id": "pattern", "CAMERA_NEIGHBOURS": "Door=18085"}, (("Door", 18085),)),
    ],
)
def test_neighbours_are_those_with_variables(environ: dict[str, str], expected: object) -> None:
    assert load([], environ).neighbours == expected


# -- Values


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_ok_value(name: str, text: str, value: object) -> None:
    parsed = BY_NAME[name].parse(text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(("name", "text"), BAD)
def test_fail_value(name: str, text: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as caught:
        BY_NAME[name].parse(text)
    assert str(caught.value).startswith(rule_of(BY_NAME[name]))


def rule_of(row: Setting) -> str:
    """A control character is good for nothing, so the message for it is the bare rule."""
    with pytest.raises(ValueError, match=r"\S") as caught:
        row.parse("\x01")
    return str(caught.value)


def test_the_rule_says_the_bounds() -> None:
    assert rule_of(BY_NAME["quality"]) == "a whole number from 1 to 100"
    assert rule_of(BY_NAME["width"]) == "an even whole number from 64 to 8192"
    assert rule_of(BY_NAME["linger"]) == "a number of seconds from 0 to 31536000"


# A busy machine may take its time for an example.
unhurried = hypothesis_settings(deadline=None, database=None)

ANY_TEXT = st.one_of(
    st.text(),
    st.text(st.characters(categories=["Cs", "Cc", "Nd", "Zs"])),
    st.from_regex(r"[0-9+\-._eE ]{0,30}", fullmatch=True),
    st.from_regex(r"[a-z0-9:/.%\[\]@ -]{0,40}", fullmatch=True),
)


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
@unhurried
@given(text=ANY_TEXT)
@example("\udcff")
@example("²")
@example("1" * 5000)
def test_a_parser_gives_a_value_or_its_rule(row: Setting, text: str) -> None:
    rule = rule_of(row)
    fault: ValueError | None = None
    value: object = None
    try:
        value = row.parse(text)
    except ValueError as error:
        fault = error
    if fault is None:
        assert value is not None
        assert not isinstance(value, str) or (value.isprintable() and value)
    else:
        assert type(fault) is ValueError
        assert str(fault).startswith(rule)


@unhurried
@given(text=st.text())
def test_a_host_is_an_address_or_looks_like_a_name(text: str) -> None:
    try:
        host = BY_NAME["host"].parse(text)
    except ValueError:
        return
    assert host == text
    if not re.fullmatch(r"[\w-]+(\.[\w-]+)*\.?", text, re.ASCII):
        assert ip_address(text)


@unhurried
@given(argv=st.lists(st.one_of(st.sampled_from([*BY_FLAG, *COMMANDS]), st.text())), value=st.text(min_size=1))
def test_load_gives_settings_or_faults(argv: list[str], value: str) -> None:
    environ = {"CAMERA_WIDTH": value, "cam0_fps": value, f"CAMERA_{value}": "1", "CAMERA_CAMERA": value}
    if {"--help", "-h", "--version"} & {word.partition("=")[0] for word in argv}:
        return
    try:
        settings = load(argv, environ)
        told = [*settings.warnings, *describe(settings).splitlines()]
    except ConfigurationError as error:
        told = list(error.messages)
    assert told
    assert all(line.isprintable() for line in told)


# -- Defaults and derived values


def test_defaults() -> None:
    settings = load([], {})
    assert settings == Settings(
        command="run",
        camera_number=0,
        camera_id=None,
        url=None,
        is_pattern=False,
        enabled=True,
        tuning_file=None,
        is_noir=False,
        camera_model=None,
        pattern_faults=None,
        host="127.0.0.1",
        port=None,
        api_key=None,
        view_key=None,
        host_names=None,
        state_dir=None,
        max_clients=200,
        neighbours=(),
        width=1536,
        height=864,
        fps=20.0,
        quality=80,
        linger_s=5.0,
        watchdog_timeout_s=10.0,
        snapshot_width=1536,
        snapshot_height=864,
        snapshot_quality=90,
        autofocus=True,
        autofocus_timeout_s=5.0,
        rtsp_url=None,
        rtsp_autostart=True,
        bitrate=8_000_000,
        webrtc_url=None,
        recordings=None,
        recordings_max_bytes=None,
        recordings_preroll_s=0.0,
        hook=None,
        log_level="INFO",
    )
    assert settings.warnings == ()
    assert set(settings.origins) == {row.name for row in SETTINGS}


def test_every_default_is_good_by_its_own_rule() -> None:
    for row in SETTINGS:
        if row.default is not None:
            assert row.parse(str(row.default)) == row.default, row.name


def test_every_row_has_a_field_and_every_field_a_row() -> None:
    rows = {row.attribute or row.name for row in SETTINGS} - {"camera"}
    made = {"command", "camera_number", "is_pattern", "url", "warnings", "origins"}
    assert {each.name for each in fields(Settings)} == rows | made


def test_no_name_and_no_flag_stands_for_two() -> None:
    names = [name for row in SETTINGS for name in row.names]
    flags = [flag for row in SETTINGS for flag in (*row.flags, *row.off_flags)] + [*COMMANDS]
    assert len(set(names)) == len(names)
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize("row", [row for row in SETTINGS if row.flags], ids=lambda row: row.name)
def test_every_row_is_read_from_flag_camera_variable_and_shared_variable(row: Setting) -> None:
    text, value = next((text, value) for name, text, value in GOOD if name == row.name and value != row.default)
    if row.metavar:
        flagged = [[row.flags[0], text], [f"{row.flags[0]}={text}"]]
    else:
        flagged = [[(row.off_flags if row.default else row.flags)[0]]]
    expected = str(value) if row.name == "camera" else value
    shared = [{variable: text} for variable in row.variables]
    own = [{f"cam0_{name}": text} for name in row.names if row.is_per_camera]
    for argv, environ in [*((argv, {}) for argv in flagged), *(([], environ) for environ in (*shared, *own))]:
        settings = load(argv, environ)
        assert getattr(settings, row.attribute or row.name) == expected, (argv, environ)
        assert settings.origins[row.name] == (argv[0].partition("=")[0] if argv else next(iter(environ)))
        assert settings.warnings == ()


def test_a_snapshot_is_as_large_as_the_stream_unless_told() -> None:
    assert load(["--width", "640"], {"CAMERA_HEIGHT": "480"}).snapshot_width == 640
    settings = load(["--snapshot-height", "720"], {"CAMERA_HEIGHT": "480", "cam0_width": "640"})
    assert (settings.snapshot_width, settings.snapshot_height) == (640, 720)


def test_the_port_follows_the_number_unless_told() -> None:
    assert load([], {}).port_for(0) == 18081
    assert load(["--camera", "1"], {}).port_for(1) == 18082
    assert load(["--camera", "pattern"], {}).port_for(0) == 18081
    assert load(["--port", "0"], {}).port_for(3) == 0
    assert load([], {"CAMERA_PORT": "8000"}).port_for(1) == 8000


# -- Which camera


@pytest.mark.parametrize(
    ("argv", "environ", "number", "camera_id", "is_pattern"),
    [
        ([], {}, 0, None, False),
        (["--camera", "1"], {}, 1, None, False),
        ([], {"CAMERA": "2"}, 2, None, False),
        ([], {"CAMERA_CAMERA": "3", "CAMERA": "3"}, 3, None, False),
        (["--camera=1"], {"CAMERA": "2", "CAMERA_CAMERA": "2"}, 1, None, False),
        (["--camera", "pattern"], {}, 0, None, True),
        (["--camera", "pattern"], {"cam0_id": PI5_ID}, 0, None, True),
        ([], {"CAMERA": "pattern"}, 0, None, True),
        ([], {"cam0_id": PI5_ID, "cam1_id": PI4_ID}, 0, PI5_ID, False),
        (["--camera", "1"], {"cam0_id": PI5_ID, "cam1_id": PI4_ID}, 1, PI4_ID, False),
        (["--camera", "1"], {"cam1_id": "pattern"}, 1, None, True),
        (["--camera", PI4_ID], {}, None, PI4_ID, False),
        (["--camera", PI4_ID], {"cam0_id": PI5_ID, "cam1_id": f" {PI4_ID}  # left"}, 1, PI4_ID, False),
        ([], {"CAMERA": "Virtual0"}, None, "Virtual0", False),
    ],
)
def test_ok_which_camera(
    argv: list[str], environ: dict[str, str], number: int | None, camera_id: str | None, is_pattern: bool
) -> None:
    settings = load(argv, environ)
    assert (settings.camera_number, settings.camera_id, settings.is_pattern) == (number, camera_id, is_pattern)
    assert settings.warnings == ()


def test_a_camera_given_by_its_id_has_the_variables_of_its_number() -> None:
    settings = load(["--camera", PI4_ID], {"cam1_id": PI4_ID, "cam1_width": "640", "cam0_height": "480"})
    assert (settings.width, settings.height) == (640, 864)


def test_a_camera_of_no_known_number_has_no_variables_of_its_own_and_says_so() -> None:
    settings = load(["--camera", PI4_ID], {"cam1_width": "640"})
    assert settings.width == 1536
    assert settings.warnings == ("no cam<N>_ variable is used: the camera is given by an id, and no cam<N>_id has it",)


@pytest.mark.parametrize("text", ["rtsp://10.0.0.2/cam", "/dev/video0", "clip.mp4"])
def test_a_url_or_file_is_camera_0_where_no_id_says_otherwise(text: str) -> None:
    settings = load(["--camera", text], {"cam0_width": "640", "cam1_id": "rtsp://elsewhere/"})
    assert (settings.url, settings.camera_id, settings.camera_number, settings.width) == (text, None, 0, 640)
    assert not settings.is_pattern
    assert settings.warnings == ()


def test_a_url_may_be_the_id_of_a_camera() -> None:
    environ = {"cam3_id": "RTSP://user:secret@10.0.0.2/cam", "cam3_width": "640"}
    by_number = load(["--camera", "3"], environ)
    by_url = load(["--camera", "rtsp://user:secret@10.0.0.2/cam"], environ)
    assert by_number == by_url
    assert (by_url.url, by_url.camera_id) == ("rtsp://user:secret@10.0.0.2/cam", None)
    assert (by_url.camera_number, by_url.width, by_url.port_for(3)) == (3, 640, 18084)


def test_fail_a_url_is_told_its_rule_and_keeps_its_password() -> None:
    (fault,) = faults_of(["--camera", "gopher://user:secret@10.0.0.2/cam"])
    assert fault.startswith("--camera 'gopher://***@10.0.0.2/cam': wants a number from 0 to 99, an id")
    assert "; a URL has a host, and begins with rtsp://, " in fault


def test_the_password_of_a_url_is_never_shown() -> None:
    settings = load(["--camera", "rtsp://user:secret@10.0.0.2/cam"], {})
    assert "camera = rtsp://***@10.0.0.2/cam  (--camera)" in describe(settings).splitlines()
    assert "secret" not in describe(settings) + repr(settings)


# -- Precedence


def test_flag_over_camera_variable_over_shared_variable_over_default() -> None:
    environ: dict[str, str] = {}
    assert load([], environ).width == 1536
    environ["CAMERA_WIDTH"] = "320"
    assert load([], environ).width == 320
    environ["cam0_width"] = "640"
    assert load([], environ).width == 640
    assert load(["--width", "800"], environ).width == 800
    assert load(["--camera", "1"], environ).width == 320


def test_the_last_of_a_repeated_flag_counts() -> None:
    assert load(["--width", "320", "--width=640"], {}).width == 640
    assert load(["--autofocus", "--no-autofocus"], {}).autofocus is False


def test_a_flag_brings_back_what_the_environment_switched_off() -> None:
    assert load(["--autofocus", "--enabled"], {"cam0_autofocus": "0", "CAMERA_ENABLED": "no"}).autofocus is True


@pytest.mark.parametrize("key", ["cam0_width", "CAM0_WIDTH", "Cam0_Width", "CAM0_width"])
def test_a_cameras_variable_in_any_case(key: str) -> None:
    assert load([], {key: "640"}).width == 640


def test_the_canonical_name_goes_before_its_aliases_and_the_loser_is_told() -> None:
    settings = load([], {"CAMERA_FRAMERATE": "30", "CAMERA_FPS": "25"})
    assert settings.fps == 25
    assert settings.warnings == ("CAMERA_FRAMERATE is not used: CAMERA_FPS is the same setting and goes before it",)
    settings = load([], {"CAMERA": "1", "CAMERA_CAMERA": "2"})
    assert settings.camera_number == 2
    assert settings.warnings == ("CAMERA is not used: CAMERA_CAMERA is the same setting and goes before it",)
    settings = load([], {"CAM0_WIDTH": "320", "cam0_width": "640"})
    assert settings.width == 640
    assert settings.warnings == ("CAM0_WIDTH is not used: cam0_width is the same setting and goes before it",)
    assert load([], {"CAMERA_FRAMERATE": "25", "CAMERA_FPS": "25"}).warnings == ()


@pytest.mark.parametrize("empty", ["", " ", "\t", "# a comment alone"])
@pytest.mark.parametrize("row", [row for row in SETTINGS if not row.secret], ids=lambda row: row.name)
def test_ok_an_empty_variable_is_not_set(row: Setting, empty: str) -> None:
    environ = dict.fromkeys(row.variables if row.is_shared else (), empty)
    if row.is_per_camera:
        environ[f"cam0_{row.name}"] = empty
    assert load([], environ) == load([], {})


def test_ok_an_empty_key_locks_nobody_out() -> None:
    assert load([], {"CAMERA_API_KEY": "", "cam0_api_key": "  "}).api_key is None
    assert load([], {"CAMERA_API_KEY": KEY, "cam0_api_key": ""}).api_key == KEY


def test_ok_an_env_file_as_people_have_it() -> None:
    settings = load(
        [],
        {
            "CAMERA_WIDTH": "1920",
            "CAMERA_HEIGHT": "1080",
            "CAMERA_FRAMERATE": "30",
            "CAMERA_HOST": "0.0.0.0",
            "CAMERA_PORT": "8000",
            "CAMERA_API_KEY": "your-secret-key",
            "CAMERA_CAMERA_MODEL": "imx708         # Camera sensor model",
            "CAMERA_IS_NOIR": "false               # True for NoIR cameras",
            "CAMERA_LOG_LEVEL": "INFO",
            "CAMERA_TUNING_FILE": "",
            "CAMERA_ENABLED": "1",
            "cam0_autofocus": "1",
            "cam0_id": PI5_ID,
            "cam1_id": PI4_ID,
            "cam1_autofocus": "0",
            "PATH": "/usr/bin",
            "HOME": "/root",
        },
    )
    assert (settings.width, settings.height, settings.fps, settings.port) == (1920, 1080, 30.0, 8000)
    assert (settings.camera_model, settings.is_noir, settings.camera_id) == ("imx708", False, PI5_ID)
    assert settings.warnings == ()


# -- Faults


def test_fail_all_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(
            ["--width", "641", "--quality=900", "stray", "--heigth", "480", "--check=1", "--fps"],
            {"CAMERA_PORT": "http", "cam0_linger": "5s", "CAMERA_QUALITY": "good", "cam1_width": "not ours"},
        )
    assert caught.value.messages == (
        "'stray': belongs to no flag",
        "--heigth: no such flag; did you mean --height?",
        "--check: takes no value",
        "--fps: wants a value",
        "--width '641': wants an even whole number from 64 to 8192",
        "--quality '900': wants a whole number from 1 to 100",
        "cam0_linger '5s': wants a number of seconds from 0 to 31536000",
        "CAMERA_PORT 'http': wants a whole number from 0 to 65535",
        "CAMERA_QUALITY 'good': wants a whole number from 1 to 100",
    )
    assert caught.value.exit_code == 2


def test_fail_an_overridden_value_is_checked_too() -> None:
    assert faults_of(["--width", "640"], {"CAMERA_WIDTH": "wide", "cam0_width": "narrow"}) == (
        "cam0_width 'narrow': wants an even whole number from 64 to 8192",
        "CAMERA_WIDTH 'wide': wants an even whole number from 64 to 8192",
    )


def test_fail_a_bad_camera_hides_no_other_fault() -> None:
    faults = faults_of(["--camera", "gopher://x"], {"CAMERA_WIDTH": "wide", "cam0_width": "not known to be ours"})
    assert [fault.partition(" ")[0] for fault in faults] == ["--camera", "CAMERA_WIDTH"]


@pytest.mark.parametrize(
    ("argv", "environ", "exit_code"),
    [
        ([], {"CAMERA_WIDTH": "x"}, 78),
        (["--check"], {"cam0_width": "x"}, 78),
        (["--width", "x"], {}, 2),
        (["--width", "x"], {"CAMERA_HEIGHT": "x"}, 2),
        (["--nonsense"], {}, 2),
        (["stray"], {}, 2),
        (["--check", "--list-cameras"], {}, 2),
    ],
)
def test_fail_exit_code(argv: list[str], environ: dict[str, str], exit_code: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(argv, environ)
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize(
    ("argv", "fault"),
    [
        (["--width"], "--width: wants a value"),
        (["--width", "--check"], "--width: wants a value"),
        (["--width="], "--width '': wants an even whole number from 64 to 8192"),
        (["--linger", "-1"], "--linger '-1': wants a number of seconds from 0 to 31536000"),
        (["--autofocus=1"], "--autofocus: takes no value"),
        (["--wid", "640"], "--wid: no such flag; did you mean --width?"),
        (["--snapshot_width=640"], "--snapshot_width: no such flag; did you mean --snapshot-width?"),
        (["-width", "640"], "-width: no such flag; did you mean --width?"),
        (["--xyzzy"], "--xyzzy: no such flag"),
        (["--list-camera"], "--list-camera: no such flag; did you mean --list-cameras?"),
        (["--"], "--: no such flag"),
        (["--check", "--list-cameras"], "--check and --list-cameras: only one of them at a time"),
        (["a\nb"], r"'a\nb': belongs to no flag"),
        (["--x\ny"], r"'--x\ny': no such flag"),
    ],
)
def test_fail_flags(argv: list[str], fault: str) -> None:
    assert faults_of(argv) == (fault,)


def test_fail_a_long_value_is_cut() -> None:
    (fault,) = faults_of(["--width", "1" * 10_000])
    assert len(fault) < 200


# -- Secrets


@pytest.mark.parametrize(
    ("argv", "environ"),
    [
        (["--api-key", f"{KEY}\x7f"], {}),
        (["--api-key", f"{KEY}é", "--width", "x"], {}),
        (["--api-key", "two", KEY], {}),
        (["--api-key=two", KEY, KEY], {}),
        (["--apikey", KEY], {}),
        (["--apikey", "two", KEY], {}),
        ([f"--apikey={KEY}"], {}),
        ([f"--check={KEY}"], {}),
        (["--api-key", f"-{KEY}\t"], {}),
        ([], {"CAMERA_API_KEY": f"{KEY} # mine"}),
        ([], {"cam0_api_key": f"{KEY}\n{KEY}"}),
        (["--camera", f"gopher://admin:{KEY}@10.0.0.2/cam"], {}),
        (["--camera", f"gopher://admin:1/2@{KEY}@10.0.0.2/cam"], {}),
        (["--camera", f"gopher://10.0.0.2/cam?user=a&password={KEY}"], {}),
    ],
)
def test_fail_without_telling_a_secret(argv: list[str], environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(argv, environ)
    assert KEY not in f"{caught.value!s} {caught.value!r} {caught.value.__context__!r}"
    assert caught.value.messages


def test_a_key_may_begin_with_a_dash() -> None:
    assert load(["--api-key", f"-{KEY}"], {}).api_key == f"-{KEY}"
    assert faults_of(["--api-key", "--check"]) == ("--api-key: wants a value",)


@pytest.mark.parametrize(
    ("argv", "environ"),
    [(["--api-key", KEY], {}), ([], {"CAMERA_API_KEY": KEY}), ([], {"cam0_api_key": KEY, "CAMERA_API_KEY": f"{KEY}2"})],
)
def test_a_key_is_in_no_text(argv: list[str], environ: dict[str, str]) -> None:
    settings = load(argv, {**environ, "CAMERA_APIKEY": KEY, "cam0_api_kee": KEY})
    assert settings.api_key == KEY
    assert len(settings.warnings) == 2
    assert KEY not in f"{settings!r} {settings!s} {describe(settings)} {settings.warnings} {settings.origins}"
    assert "\napi_key = set  (" in describe(settings)


# -- Warnings


@pytest.mark.parametrize(
    ("key", "warning"),
    [
        ("CAMERA_WITDH", "CAMERA_WITDH is not known here and does nothing; did you mean CAMERA_WIDTH?"),
        ("CAMERA_width", "CAMERA_width is not known here and does nothing; did you mean CAMERA_WIDTH?"),
        ("CAMERA_FRAME_RATE", "CAMERA_FRAME_RATE is not known here and does nothing; did you mean CAMERA_FRAMERATE?"),
        ("CAMERA_ZOOM", "CAMERA_ZOOM is not known here and does nothing"),
        ("CAMERA_ID", "CAMERA_ID is not known here and does nothing"),
        ("cam0_widht", "cam0_widht is not known here and does nothing; did you mean cam0_width?"),
        ("CAM0_ZOOM", "CAM0_ZOOM is not known here and does nothing"),
        ("cam0_camera", "cam0_camera is not known here and does nothing"),
    ],
)
def test_an_unknown_variable_is_a_warning(key: str, warning: str) -> None:
    settings = load([], {key: "whatever"})
    assert settings.warnings == (warning,)
    assert settings == load([], {})


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("cam1_widht", "x"),
        ("cam1_width", "x"),
        ("cam00_width", "x"),
        ("camera_width", "x"),
        ("CAMERAS_WIDTH", "x"),
        ("MY_CAMERA_WIDTH", "x"),
        ("CAMERA_SERVICE_HOST", "10.0.0.1"),
        ("CAMERA_SERVICE_PORT_HTTP", "80"),
        ("CAMERA_PORT", "tcp://10.0.0.1:80"),
        ("CAMERA_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("CAMERA_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("CAMERA_NAME", "/web/camera"),
        ("CAMERA_ENV_PATH", "/bin"),
    ],
)
def test_a_foreign_variable_is_no_warning(key: str, text: str) -> None:
    settings = load([], {key: text})
    assert settings.warnings == ()
    assert replace(settings, neighbours=()) == load([], {}), "of another camera it tells that there is one"


# -- Commands and texts


@pytest.mark.parametrize(
    ("argv", "command"),
    [([], "run"), (["--check"], "check"), (["--list-cameras"], "list-cameras"), (["--check", "--check"], "check")],
)
def test_ok_commands(argv: list[str], command: str) -> None:
    assert load(argv, {}).command == command


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--width", "bad", "--help"]])
def test_help_is_printed_and_leaves_with_0(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(argv, {"CAMERA_WIDTH": "bad"})
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{help_text()}\n"


def test_help_has_a_line_for_each_setting_and_exit_code() -> None:
    lines = help_text().splitlines()
    for row in SETTINGS:
        first = row.flags[0] if row.flags else row.variables[0]
        (line,) = [line for line in lines if re.match(rf"  {re.escape(first)}[ ,]", line)]
        assert row.help in line
        assert row.shown_default in line
        assert row.variables[0] in line
    assert max(map(len, lines)) <= 125
    codes = lines[lines.index("Exit codes:") + 1 :]
    assert [line.split()[0] for line in codes] == ["0", "2", "66", "69", "70", "78"]


@pytest.mark.parametrize(
    ("argv", "environ", "folder"),
    [
        ([], {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "HOME": "/home/pi"}, "/var/lib/a"),
        ([], {"XDG_STATE_HOME": "/home/pi/state", "HOME": "/home/pi"}, "/home/pi/state/soft-stream"),
        ([], {"XDG_STATE_HOME": "state", "HOME": "/home/pi"}, "/home/pi/.local/state/soft-stream"),
        ([], {"HOME": "/home/pi"}, "/home/pi/.local/state/soft-stream"),
        ([], {"HOME": ""}, None),
        ([], {"STATE_DIRECTORY": "/var/lib/a", "CAMERA_STATE_DIR": "/srv/b"}, "/srv/b"),
        (["--state-dir", "/srv/c"], {"STATE_DIRECTORY": "/var/lib/a", "CAMERA_STATE_DIR": "/srv/b"}, "/srv/c"),
    ],
)
def test_where_controls_are_kept(argv: list[str], environ: dict[str, str], folder: str | None) -> None:
    assert load(argv, environ).state_dir == folder


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"soft_stream.py {__version__}\n"


def test_describe_tells_each_value_and_where_it_came_from() -> None:
    settings = load(
        ["--width", "640", "--no-autofocus"], {"cam0_fps": "29.97", "CAMERA_FRAMERATE": "30", "CAMERA": "0"}
    )
    lines = describe(settings).splitlines()
    assert len(lines) == len(SETTINGS) - 1  # the id is told as the camera
    for line in (
        "camera = 0  (CAMERA)",
        "width = 640  (--width)",
        "height = 864  (default)",
        "snapshot_width = 640  (the stream's)",
        "fps = 29.97  (cam0_fps)",
        "autofocus = off  (--no-autofocus)",
        "linger = 5  (default)",
        "port = 18081  (default)",
        "api_key = not set  (default)",
        "tuning_file = none  (default)",
    ):
        assert line in lines


def test_describe_a_camera_with_an_id() -> None:
    assert f"camera = {PI5_ID}  (cam0_id)" in describe(load([], {"cam0_id": PI5_ID})).splitlines()
    lines = describe(load(["--camera", "Virtual0"], {})).splitlines()
    assert "camera = Virtual0  (--camera)" in lines
    assert "port = 18081 + number  (default)" in lines
    assert "camera = pattern  (CAMERA)" in describe(load([], {"CAMERA": "pattern"})).splitlines()


def test_the_table_has_a_row_for_each_setting_and_four_columns() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == len(SETTINGS) + 2
    assert all(line.count("|") == 5 for line in lines)
    assert "| `--fps` | `CAMERA_FPS` `CAMERA_FRAMERATE` | 20 | frames in a second |" in lines
    assert "|  | `cam<N>_id` | none | id or URL of camera N, for when the numbers move |" in lines
