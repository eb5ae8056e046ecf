"""`describe`, the report of `--check`, and where a setting is from."""

from softcam.config.loader import load
from softcam.config.schema import SETTINGS
from softcam.config.settings import describe, secrets_of

PI5_ID = "/base/axi/pcie@1000120000/rp1/i2c@88000/imx708@1a"


def test_describe() -> None:
    settings = load(
        ["--width", "640", "--no-autofocus"], {"cam0_fps": "29.97", "CAMERA_FRAMERATE": "30", "CAMERA": "0"}
    )
    lines = describe(settings).splitlines()
    assert len(lines) == len(SETTINGS) - 1  # the id is part of the camera
    for line in (
        "camera = 0  (CAMERA)",
        "width = 640  (--width)",
        "height = 864  (default)",
        "snapshot_width = 640  (as the stream)",
        "fps = 29.97  (cam0_fps)",
        "autofocus = off  (--no-autofocus)",
        "linger = 5  (default)",
        "port = 18081  (default)",
        "api_key = not set  (default)",
        "tuning_file = none  (default)",
    ):
        assert line in lines


def test_describe_camera_with_id() -> None:
    assert f"camera = {PI5_ID}  (cam0_id)" in describe(load([], {"cam0_id": PI5_ID})).splitlines()
    lines = describe(load(["--camera", "Virtual0"], {})).splitlines()
    assert "camera = Virtual0  (--camera)" in lines
    assert "port = 18081 + number  (default)" in lines
    assert "camera = pattern  (CAMERA)" in describe(load([], {"CAMERA": "pattern"})).splitlines()


def test_is_flag() -> None:
    settings = load(["--no-autofocus"], {"cam0_width": "640"})
    assert settings.is_flag("autofocus")
    assert settings.is_flag("width", "autofocus")
    assert not settings.is_flag("width", "height")
    assert not settings.is_flag()


def test_secrets() -> None:
    flags = ["--camera", "rtsp://user:p%40ss@10.0.0.2/cam", "--rtsp-url", "rtsp://u:a@b/c@10.0.0.3/cam"]
    settings = load(
        flags, {"CAMERA_API_KEY": "full", "CAMERA_VIEW_KEY": "view", "CAMERA_WEBRTC_URL": "http://host/cam"}
    )
    assert set(secrets_of(settings)) == {"full", "view", "p%40ss", "p@ss", "a@b/c"}
    assert secrets_of(load([], {})) == []
