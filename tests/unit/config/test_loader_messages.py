"""`load`: errors, warnings, and that neither shows a secret."""

from dataclasses import replace

import pytest

from softcam.config.loader import load
from softcam.config.settings import describe
from softcam.errors import ConfigurationError

KEY = "s3cret-K3y"


def messages_of(argv: list[str], environ: dict[str, str] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(argv, environ or {})
    return caught.value.messages


# -- Errors


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(
            ["--width", "641", "--quality=900", "stray", "--heigth", "480", "--check=1", "--fps"],
            {"CAMERA_PORT": "http", "cam0_linger": "5s", "CAMERA_QUALITY": "good", "cam1_width": "of another camera"},
        )
    assert caught.value.messages == (
        "'stray': unexpected argument",
        "--heigth: unknown flag; did you mean --height?",
        "--check: must not have a value",
        "--fps: must have a value",
        "--width '641': must be an even integer from 64 to 8192",
        "--quality '900': must be an integer from 1 to 100",
        "cam0_linger '5s': must be a number of seconds from 0 to 31536000",
        "CAMERA_PORT 'http': must be an integer from 0 to 65535",
        "CAMERA_QUALITY 'good': must be an integer from 1 to 100",
    )
    assert caught.value.exit_code == 2


def test_overridden_value_is_checked() -> None:
    assert messages_of(["--width", "640"], {"CAMERA_WIDTH": "wide", "cam0_width": "narrow"}) == (
        "cam0_width 'narrow': must be an even integer from 64 to 8192",
        "CAMERA_WIDTH 'wide': must be an even integer from 64 to 8192",
    )


def test_unknown_variable_is_reported_beside_an_invalid_value() -> None:
    assert messages_of([], {"CAMERA_WIDTH": "wide", "CAMERA_HEIHGT": "480"}) == (
        "CAMERA_WIDTH 'wide': must be an even integer from 64 to 8192",
        "CAMERA_HEIHGT: unknown variable, ignored; did you mean CAMERA_HEIGHT?",
    )


def test_invalid_camera_hides_no_other_error() -> None:
    messages = messages_of(["--camera", "gopher://x"], {"CAMERA_WIDTH": "wide", "cam0_width": "of an unknown number"})
    assert [message.partition(" ")[0] for message in messages] == ["--camera", "CAMERA_WIDTH"]


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
def test_exit_code(argv: list[str], environ: dict[str, str], exit_code: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(argv, environ)
    assert caught.value.exit_code == exit_code


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--width"], "--width: must have a value"),
        (["--width", "--check"], "--width: must have a value"),
        (["--width="], "--width '': must be an even integer from 64 to 8192"),
        (["--linger", "-1"], "--linger '-1': must be a number of seconds from 0 to 31536000"),
        (["--autofocus=1"], "--autofocus: must not have a value"),
        (["--wid", "640"], "--wid: unknown flag; did you mean --width?"),
        (["--snapshot_width=640"], "--snapshot_width: unknown flag; did you mean --snapshot-width?"),
        (["-width", "640"], "-width: unknown flag; did you mean --width?"),
        (["--xyzzy"], "--xyzzy: unknown flag"),
        (["--list-camera"], "--list-camera: unknown flag; did you mean --list-cameras?"),
        (["--"], "--: unknown flag"),
        (["--check", "--list-cameras"], "--check and --list-cameras: must not be combined"),
        (["--json"], "--json: must be used with --diagnose"),
        (["--json", "--check"], "--json: must be used with --diagnose"),
        (["--diagnose=1"], "--diagnose: must not have a value"),
        (["a\nb"], r"'a\nb': unexpected argument"),
        (["--x\ny"], r"'--x\ny': unknown flag"),
    ],
)
def test_invalid_flags(argv: list[str], message: str) -> None:
    assert messages_of(argv) == (message,)


def test_long_value_is_shortened() -> None:
    (message,) = messages_of(["--width", "1" * 10_000])
    assert len(message) < 200


# -- Secrets


def test_invalid_url_is_reported_without_password() -> None:
    (message,) = messages_of(["--camera", "gopher://user:secret@10.0.0.2/cam"])
    assert message.startswith("--camera 'gopher://***@10.0.0.2/cam': must be a number from 0 to 99, an id printed")
    assert "; a URL has a host and starts with one of rtsp://, " in message


def test_password_of_url_is_not_shown() -> None:
    settings = load(["--camera", "rtsp://user:secret@10.0.0.2/cam"], {})
    assert "camera = rtsp://***@10.0.0.2/cam  (--camera)" in describe(settings).splitlines()
    assert "secret" not in describe(settings) + repr(settings)


@pytest.mark.parametrize(
    ("argv", "environ", "message", "exit_code"),
    [
        ([], {"CAMERA_API_KEY": KEY, "cam0_view_key": KEY}, "cam0_view_key: must differ from CAMERA_API_KEY", 78),
        (["--view-key", KEY], {"CAMERA_API_KEY": KEY}, "--view-key: must differ from CAMERA_API_KEY", 2),
    ],
)
def test_keys_differ(argv: list[str], environ: dict[str, str], message: str, exit_code: int) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(argv, environ)
    assert (caught.value.messages, caught.value.exit_code) == ((message,), exit_code)


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
def test_errors_do_not_contain_secrets(argv: list[str], environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(argv, environ)
    assert KEY not in f"{caught.value!s} {caught.value!r} {caught.value.__context__!r}"
    assert caught.value.messages


def test_key_that_starts_with_a_dash() -> None:
    assert load(["--api-key", f"-{KEY}"], {}).api_key == f"-{KEY}"
    assert messages_of(["--api-key", "--check"]) == ("--api-key: must have a value",)


@pytest.mark.parametrize(
    ("argv", "environ"),
    [(["--api-key", KEY], {}), ([], {"CAMERA_API_KEY": KEY}), ([], {"cam0_api_key": KEY, "CAMERA_API_KEY": f"{KEY}2"})],
)
def test_key_is_not_shown(argv: list[str], environ: dict[str, str]) -> None:
    settings = load(argv, {**environ, "CAMERA_APIKEY": KEY, "cam0_api_kee": KEY})
    assert settings.api_key == KEY
    assert len(settings.warnings) == 2
    assert KEY not in f"{settings!r} {settings!s} {describe(settings)} {settings.warnings} {settings.origins}"
    assert "\napi_key = set  (" in describe(settings)


# -- Warnings


@pytest.mark.parametrize(
    ("key", "warning"),
    [
        ("CAMERA_WITDH", "CAMERA_WITDH: unknown variable, ignored; did you mean CAMERA_WIDTH?"),
        ("CAMERA_width", "CAMERA_width: unknown variable, ignored; did you mean CAMERA_WIDTH?"),
        ("CAMERA_FRAME_RATE", "CAMERA_FRAME_RATE: unknown variable, ignored; did you mean CAMERA_FRAMERATE?"),
        ("CAMERA_ZOOM", "CAMERA_ZOOM: unknown variable, ignored"),
        ("CAMERA_ID", "CAMERA_ID: unknown variable, ignored"),
        ("cam0_widht", "cam0_widht: unknown variable, ignored; did you mean cam0_width?"),
        ("CAM0_ZOOM", "CAM0_ZOOM: unknown variable, ignored"),
        ("cam0_camera", "cam0_camera: unknown variable, ignored"),
    ],
)
def test_unknown_variable_is_a_warning(key: str, warning: str) -> None:
    settings = load([], {key: "whatever"})
    assert settings.warnings == (warning,)
    assert settings == load([], {})


def test_invalid_name_is_escaped() -> None:
    with pytest.raises(ConfigurationError) as raised:
        load(["--name", "a\r\nb"], {"CAMERA_NAME": "\x1b[2J"})
    rule = "must be 1 to 64 printable characters in one line, no blank at either end"
    assert list(raised.value.messages) == [f"--name 'a\\r\\nb': {rule}", f"CAMERA_NAME '\\x1b[2J': {rule}"]


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
        ("CAMERA_NAME", "/project_web_1/camera"),
        ("CAMERA_ENV_PATH", "/bin"),
    ],
)
def test_foreign_variable_is_not_a_warning(key: str, text: str) -> None:
    settings = load([], {key: text})
    assert settings.warnings == ()
    assert replace(settings, neighbours=()) == load([], {}), "only the list of cameras may differ"
