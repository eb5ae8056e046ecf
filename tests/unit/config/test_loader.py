"""`load`: sources, their precedence, and commands; see test_loader_messages.py for errors and warnings."""

from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from softcam import __version__
from softcam.config.loader import load
from softcam.config.schema import BY_FLAG, COMMANDS, SETTINGS, Setting, help_text
from softcam.config.settings import Settings, describe
from softcam.errors import ConfigurationError
from tests.unit.config.test_schema import EXAMPLES

PI5_ID = "/base/axi/pcie@1000120000/rp1/i2c@88000/imx708@1a"
PI4_ID = "/base/soc/i2c0mux/i2c@1/imx219@10"
KEY = "s3cret-K3y"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ()),
        ({"cam0_width": "640"}, ()),
        ({"cam1_width": "640"}, (("Camera 0", 18081), ("Camera 1", 18082))),
        ({"cam0_port": "8000", "CAM2_port": "8002 # old"}, (("Camera 0", 8000), ("Camera 2", 8002))),
        ({"cam1_enabled": "0"}, ()),
        ({"cam1_port": "http"}, ()),
        ({"cam1_name": "'Door'", "cam2_name": "x" * 99}, (("Camera 0", 18081), ("'Door'", 18082), ("Camera 2", 18083))),
        ({"cam1_id": "pattern", "CAMERA_NEIGHBOURS": "off"}, ()),
        ({"cam1_id": "pattern", "CAMERA_NEIGHBOURS": ""}, (("Camera 0", 18081), ("Camera 1", 18082))),
        ({"cam1_id": "pattern", "CAMERA_NEIGHBOURS": "Door=18085"}, (("Door", 18085),)),
    ],
)
def test_sibling_cameras_are_those_with_variables(environ: dict[str, str], expected: object) -> None:
    assert load([], environ).neighbours == expected


# A loaded machine may be slow with an example.
unhurried = hypothesis_settings(deadline=None, database=None, max_examples=40)


@unhurried
@given(argv=st.lists(st.one_of(st.sampled_from([*BY_FLAG, *COMMANDS]), st.text())), value=st.text(min_size=1))
def test_load_returns_settings_or_raises_messages(argv: list[str], value: str) -> None:
    environ = {"CAMERA_WIDTH": value, "cam0_fps": value, f"CAMERA_{value}": "1", "CAMERA_CAMERA": value}
    if {"--help", "-h", "--version"} & {word.partition("=")[0] for word in argv}:
        return
    try:
        settings = load(argv, environ)
        lines = [*settings.warnings, *describe(settings).splitlines()]
    except ConfigurationError as error:
        lines = list(error.messages)
    assert lines
    assert all(line.isprintable() for line in lines)


# -- Defaults and derived values


def test_defaults() -> None:
    settings = load([], {})
    assert (settings.command, settings.camera, settings.camera_number, settings.is_pattern) == ("run", "0", 0, False)
    assert (settings.snapshot_width, settings.snapshot_height) == (settings.width, settings.height) == (1536, 864)
    assert (settings.neighbours, settings.port_for(0)) == ((), 18081)
    derived = {"camera", "id", "snapshot_width", "snapshot_height", "neighbours"}
    for row in SETTINGS:
        if row.name not in derived:
            assert getattr(settings, row.attribute or row.name) == row.default, row.name
    assert settings.warnings == ()
    assert set(settings.origins) == {row.name for row in SETTINGS}


def test_defaults_are_valid() -> None:
    for row in SETTINGS:
        if row.default is not None:
            assert row.parse(str(row.default)) == row.default, row.name


def test_rows_and_fields_match() -> None:
    rows = {row.attribute or row.name for row in SETTINGS} - {"camera"}
    derived = {"as_json", "command", "camera_number", "is_pattern", "url", "warnings", "origins", "known_cameras"}
    assert {each.name for each in fields(Settings)} == rows | derived


def test_names_and_flags_are_unique() -> None:
    names = [name for row in SETTINGS for name in row.names]
    flags = [flag for row in SETTINGS for flag in (*row.flags, *row.off_flags)] + [*COMMANDS]
    assert len(set(names)) == len(names)
    assert len(set(flags)) == len(flags)


@pytest.mark.parametrize("row", [row for row in SETTINGS if row.flags], ids=lambda row: row.name)
def test_each_row_is_read_from_all_its_sources(row: Setting) -> None:
    text, value = EXAMPLES[row.name]
    if row.metavar:
        flagged = [[row.flags[0], text], [f"{row.flags[0]}={text}"]]
    else:
        flagged = [[(row.off_flags if row.default else row.flags)[0]]]
    expected = str(value) if row.name == "camera" else value
    shared = [{variable: text} for variable in row.variables]
    own = [{f"cam0_{name}": text} for name in row.names if row.is_per_camera]
    required = {"recordings_autostart": {"CAMERA_RECORDINGS": "/srv"}, "rtsp_host": {"CAMERA_RTSP_PORT": "8554"}}
    needed = required.get(row.name, {})
    for argv, environ in [*((argv, {}) for argv in flagged), *(([], environ) for environ in (*shared, *own))]:
        settings = load(argv, environ | needed)
        assert getattr(settings, row.attribute or row.name) == expected, (argv, environ)
        assert settings.origins[row.name] == (argv[0].partition("=")[0] if argv else next(iter(environ)))
        assert settings.warnings == ()


def test_snapshot_size_defaults_to_stream_size() -> None:
    assert load(["--width", "640"], {"CAMERA_HEIGHT": "480"}).snapshot_width == 640
    settings = load(["--snapshot-height", "720"], {"CAMERA_HEIGHT": "480", "cam0_width": "640"})
    assert (settings.snapshot_width, settings.snapshot_height) == (640, 720)


def test_port_defaults_to_number() -> None:
    assert load([], {}).port_for(0) == 18081
    assert load(["--camera", "1"], {}).port_for(1) == 18082
    assert load(["--camera", "pattern"], {}).port_for(0) == 18081
    assert load(["--port", "0"], {}).port_for(3) == 0
    assert load([], {"CAMERA_PORT": "8000"}).port_for(1) == 8000


# -- Camera selection


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
        (["--camera", PI4_ID], {"cam0_id": PI5_ID, "cam1_id": f" {PI4_ID}  # left side"}, 1, PI4_ID, False),
        ([], {"CAMERA": "Virtual0"}, None, "Virtual0", False),
    ],
)
def test_camera_selection(
    argv: list[str], environ: dict[str, str], number: int | None, camera_id: str | None, is_pattern: bool
) -> None:
    settings = load(argv, environ)
    assert (settings.camera_number, settings.camera_id, settings.is_pattern) == (number, camera_id, is_pattern)
    assert settings.warnings == ()


def test_variables_of_camera_selected_by_id() -> None:
    settings = load(["--camera", PI4_ID], {"cam1_id": PI4_ID, "cam1_width": "640", "cam0_height": "480"})
    assert (settings.width, settings.height) == (640, 864)


def test_warning_for_autostart_without_folder() -> None:
    assert load(["--recordings-autostart", "video", "--recordings", "/srv"], {}).warnings == ()
    settings = load([], {"CAMERA_RECORDINGS_AUTOSTART": "video"})
    assert settings.warnings == ("recordings_autostart: ignored, recordings is not set",)


def test_warning_for_rtsp_host_without_port() -> None:
    assert load(["--rtsp-host", "0.0.0.0", "--rtsp-port", "8554"], {}).warnings == ()
    settings = load([], {"CAMERA_RTSP_HOST": "0.0.0.0", "cam0_rtsp_port": "off"})
    assert settings.warnings == ("rtsp_host: ignored, rtsp_port is not set",)


def test_warning_for_short_key() -> None:
    """Not an error: a portal that had such a key must start."""
    assert load([], {"CAMERA_API_KEY": "1234", "CAMERA_VIEW_KEY": "abcd"}).warnings == ()
    settings = load(["--view-key", "x"], {"CAMERA_API_KEY": "abc"})
    assert (settings.api_key, settings.view_key) == ("abc", "x")
    rule = "should have at least 4 characters, since a shorter key is easy to guess and not hidden in the log"
    assert settings.warnings == (f"CAMERA_API_KEY: {rule}", f"--view-key: {rule}")


def test_warning_for_camera_without_number() -> None:
    settings = load(["--camera", PI4_ID], {"cam1_width": "640"})
    assert settings.width == 1536
    assert settings.warnings == ("cam<N>_ variables ignored: no cam<N>_id has the id of the selected camera",)


@pytest.mark.parametrize("text", ["rtsp://10.0.0.2/cam", "/dev/video0", "clip.mp4"])
def test_url_or_file_is_camera_0_by_default(text: str) -> None:
    settings = load(["--camera", text], {"cam0_width": "640", "cam1_id": "rtsp://elsewhere/"})
    assert (settings.url, settings.camera_id, settings.camera_number, settings.width) == (text, None, 0, 640)
    assert not settings.is_pattern
    assert settings.warnings == ()


def test_url_as_id_of_a_camera() -> None:
    environ = {"cam3_id": "RTSP://user:secret@10.0.0.2/cam", "cam3_width": "640"}
    by_number = load(["--camera", "3"], environ)
    by_url = load(["--camera", "rtsp://user:secret@10.0.0.2/cam"], environ)
    assert by_number == by_url
    assert (by_url.url, by_url.camera_id) == ("rtsp://user:secret@10.0.0.2/cam", None)
    assert (by_url.camera_number, by_url.width, by_url.port_for(3)) == (3, 640, 18084)


# -- Precedence


def test_order_of_precedence() -> None:
    environ: dict[str, str] = {}
    assert load([], environ).width == 1536
    environ["CAMERA_WIDTH"] = "320"
    assert load([], environ).width == 320
    environ["cam0_width"] = "640"
    assert load([], environ).width == 640
    assert load(["--width", "800"], environ).width == 800
    assert load(["--camera", "1"], environ).width == 320


def test_last_of_a_repeated_flag_is_used() -> None:
    assert load(["--width", "320", "--width=640"], {}).width == 640
    assert load(["--autofocus", "--no-autofocus"], {}).autofocus is False


def test_flag_overrides_switch_in_environment() -> None:
    assert load(["--autofocus", "--enabled"], {"cam0_autofocus": "0", "CAMERA_ENABLED": "no"}).autofocus is True


@pytest.mark.parametrize("key", ["cam0_width", "CAM0_WIDTH", "Cam0_Width", "CAM0_width"])
def test_camera_variable_is_case_insensitive(key: str) -> None:
    assert load([], {key: "640"}).width == 640


def test_canonical_name_overrides_alias_with_warning() -> None:
    settings = load([], {"CAMERA_FRAMERATE": "30", "CAMERA_FPS": "25"})
    assert settings.fps == 25
    assert settings.warnings == ("CAMERA_FRAMERATE: ignored, overridden by CAMERA_FPS, which is the same setting",)
    settings = load([], {"CAMERA": "1", "CAMERA_CAMERA": "2"})
    assert settings.camera_number == 2
    assert settings.warnings == ("CAMERA: ignored, overridden by CAMERA_CAMERA, which is the same setting",)
    settings = load([], {"CAM0_WIDTH": "320", "cam0_width": "640"})
    assert settings.width == 640
    assert settings.warnings == ("CAM0_WIDTH: ignored, overridden by cam0_width, which is the same setting",)
    assert load([], {"CAMERA_FRAMERATE": "25", "CAMERA_FPS": "25"}).warnings == ()


@pytest.mark.parametrize("empty", ["", " ", "\t", "# a comment alone"])
@pytest.mark.parametrize("row", [row for row in SETTINGS if not row.secret], ids=lambda row: row.name)
def test_empty_variable_is_not_set(row: Setting, empty: str) -> None:
    environ = dict.fromkeys(row.variables if row.is_shared else (), empty)
    if row.is_per_camera:
        environ[f"cam0_{row.name}"] = empty
    assert load([], environ) == load([], {})


def test_empty_key_is_not_set() -> None:
    assert load([], {"CAMERA_API_KEY": "", "cam0_api_key": "  "}).api_key is None
    assert load([], {"CAMERA_API_KEY": KEY, "cam0_api_key": ""}).api_key == KEY


def test_typical_env_file() -> None:
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


@pytest.mark.parametrize(
    ("text", "name"),
    [("Door #2", "Door #2"), ("Door  # at the front", "Door"), ("Door #", "Door"), ("#2", "#2"), ("# none", None)],
)
def test_comment_after_name(text: str, name: str | None) -> None:
    assert load([], {"cam0_name": text}).name == name


# -- Commands


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        ([], "run"),
        (["--check"], "check"),
        (["--list-cameras"], "list-cameras"),
        (["--check", "--check"], "check"),
        (["--diagnose"], "diagnose"),
        (["--json", "--diagnose"], "diagnose"),
    ],
)
def test_commands(argv: list[str], command: str) -> None:
    settings = load(argv, {})
    assert settings.command == command
    assert settings.as_json == ("--json" in argv)


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--width", "bad", "--help"]])
def test_help_is_printed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(argv, {"CAMERA_WIDTH": "bad"})
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"{help_text()}\n"


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
def test_state_directory(argv: list[str], environ: dict[str, str], folder: str | None) -> None:
    assert load(argv, environ).state_dir == folder


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        load(["--version"], {})
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"soft_stream.py {__version__}\n"
