"""The exception tree: its drawing, and what each error does to the process and to a request."""

import re

import pytest

from softcam import errors
from softcam.errors import CameraError, ConfigurationError, PortalError


def drawn() -> dict[str, list[int]]:
    """The numbers beside each class in the drawing of the module: exit code, status or both."""
    assert errors.__doc__ is not None
    lines = re.findall(r"(?m)^ +[│├└─ ]*([A-Z]\w+)((?: +\d+)*)", errors.__doc__)
    return {name: [int(number) for number in numbers.split()] for name, numbers in lines}


def classes() -> dict[str, type[PortalError]]:
    return {
        name: each for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, PortalError)
    }


def test_drawing_has_every_class() -> None:
    assert drawn().keys() == classes().keys()


@pytest.mark.parametrize("name", [name for name, numbers in drawn().items() if numbers])
def test_numbers_of_the_drawing(name: str) -> None:
    error = classes()[name](["x"]) if name == "ConfigurationError" else classes()[name]("x")
    for number in drawn()[name]:
        assert number == (error.exit_code if number < 100 else error.status)


def test_configuration_error_has_all_messages() -> None:
    error = ConfigurationError(["fps: must be a number", "width: must be even"], settings=("fps", "width"))
    assert str(error) == "fps: must be a number; width: must be even"
    assert (error.messages[1], error.settings, error.exit_code) == ("width: must be even", ("fps", "width"), 78)
    assert ConfigurationError(["--fps: must be a number"], from_flags=True).exit_code == 2


def test_errors_of_the_camera_share_a_class() -> None:
    cameras = {name for name, each in classes().items() if issubclass(each, CameraError)}
    assert cameras == {"CameraError", "CameraMissing", "CameraBusy", "CameraStuck", "NotSupported", "NoPicture"}
