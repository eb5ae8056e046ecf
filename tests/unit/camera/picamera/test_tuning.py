"""Tuning files: by name, by path, and for cameras without infrared filter."""

import os
import sys
from pathlib import Path

import pytest

from softcam.camera.picamera import tuning
from softcam.camera.picamera.camera import PicameraCamera
from softcam.errors import ConfigurationError
from tests.support.fake_picamera2 import CSI, REQUEST, TUNING_VARIABLE, FakePicamera2, OpenedCamera, camera_info

pytestmark = pytest.mark.usefixtures("fake")


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders for tuning files, as libcamera has; the files are in the second."""
    monkeypatch.setattr(tuning, "TUNING_FOLDERS", (str(tmp_path / "local"), str(tmp_path / "usual")))
    for platform in ("vc4", "pisp"):
        (tmp_path / "usual" / platform).mkdir(parents=True)
        for model in ("imx708", "imx708_noir"):
            (tmp_path / "usual" / platform / f"{model}.json").touch()
    return tmp_path / "usual"


@pytest.mark.parametrize("name", ["imx708_noir", "imx708_noir.json"])
@pytest.mark.parametrize(("platform", "folder"), [("VC4", "vc4"), ("PISP", "pisp")])
def test_tuning_file_by_name(fake: type[FakePicamera2], folders: Path, name: str, platform: str, folder: str) -> None:
    fake.platform = sys.modules["picamera2.platform"].Platform[platform]
    opened = OpenedCamera(tuning_file=name)
    expected = str(folders / folder / "imx708_noir.json")
    assert fake.tuning_read == [expected]
    assert os.environ[TUNING_VARIABLE] == expected
    # libcamera's camera manager ends when the camera is closed, and the next one reads the file again.
    opened.camera.close()
    opened.camera.open(opened.frames.append)
    assert os.environ[TUNING_VARIABLE] == expected


def test_tuning_file_by_path(fake: type[FakePicamera2], tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.touch()
    OpenedCamera(tuning_file=str(path))
    assert fake.tuning_read == [str(path)]


@pytest.mark.parametrize("name", ["/nowhere/imx708.json", "imx999", "./imx708.json"])
def test_missing_tuning_file_is_a_configuration_error(folders: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"tuning_file {name}: must be a file") as raised:
        PicameraCamera(0, None, REQUEST, tuning_file=name)
    assert raised.value.exit_code == 78


@pytest.mark.parametrize(
    ("model", "noir_model"),
    [
        pytest.param("imx708", None, id="the sensor's own name"),
        pytest.param("imx708_noir", None, id="a sensor that reports it"),
        pytest.param("unknown", "imx708", id="a configured sensor"),
    ],
)
def test_noir_tuning(fake: type[FakePicamera2], folders: Path, model: str, noir_model: str | None) -> None:
    fake.cameras = [camera_info(CSI, model)]
    opened = OpenedCamera(is_noir=True, noir_model=noir_model)
    expected = str(folders / "vc4" / "imx708_noir.json")
    # The sensor was detected with the usual tuning; a new manager reads the right one.
    assert fake.tuning_read == [None, expected]
    assert os.environ[TUNING_VARIABLE] == expected
    assert opened.config.pixel_format == "YUV420"


def test_missing_noir_tuning(fake: type[FakePicamera2], folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    fake.cameras = [camera_info(CSI, "ov5647")]
    OpenedCamera(is_noir=True)
    assert fake.tuning_read == [None]
    assert "No tuning file ov5647_noir.json" in caplog.text


def test_tuning_file_overrides_noir(fake: type[FakePicamera2], folders: Path) -> None:
    OpenedCamera(tuning_file="imx708", is_noir=True)
    assert fake.tuning_read == [str(folders / "vc4" / "imx708.json")]
