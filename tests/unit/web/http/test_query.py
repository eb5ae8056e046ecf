"""Query parameters are parsed by one rule each; an error names the parameter, the value and the rule."""

from http import HTTPStatus

import pytest

from softcam.web.http import query
from softcam.web.http.messages import HttpError

QUALITY = query.integer("quality", "JPEG quality", 1, 100)
FPS = query.number("fps", "maximum frame rate", 0.01, 1000)
FULL = query.boolean("full", "the whole sensor")
FORMAT = query.choice("format", "of the image", "jpeg", "dng")


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("80", 80), ("100", 100), ("080", 80)])
def test_integer_is_read(text: str, value: int) -> None:
    assert QUALITY.read({"quality": text}) == value


@pytest.mark.parametrize(
    "text", ["", " ", "0", "101", "-1", "+5", "5.0", "1e2", "1_0", "0x10", "five", "\u0665", "9" * 5000, "5\n", " 5"]
)
def test_invalid_integer_is_rejected(text: str) -> None:
    with pytest.raises(HttpError) as caught:
        QUALITY.read({"quality": text})
    assert caught.value.status is HTTPStatus.BAD_REQUEST
    assert str(caught.value).startswith("quality: must be ")
    assert str(caught.value).endswith(" from 1 to 100")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.5", 0.5), (".5", 0.5), ("5", 5.0), ("5.", 5.0), ("1000", 1000.0), ("2e-1", 0.2), ("1.5E+2", 150.0)],
)
def test_number_is_read(text: str, value: float) -> None:
    assert FPS.read({"fps": text}) == value


@pytest.mark.parametrize(
    "text", ["", "0", "0.001", "1001", "-1", "nan", "inf", "1e4", "-1e1", "1e", "1e99999", "1,5", "five"]
)
def test_invalid_number_is_rejected(text: str) -> None:
    with pytest.raises(HttpError, match=r"^fps: must be a number from 0\.01 to 1000$"):
        FPS.read({"fps": text})


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("true", True), ("YES", True), ("on", True), ("0", False), ("No", False)]
)
def test_boolean_is_read(text: str, value: bool) -> None:
    assert FULL.read({"full": text}) is value


@pytest.mark.parametrize("text", ["", "2", "ja", "null", "truely"])
def test_invalid_boolean_is_rejected(text: str) -> None:
    with pytest.raises(HttpError, match=r"^full: must be 1 or 0"):
        FULL.read({"full": text})


def test_absent_parameter() -> None:
    parameters = {"timestamp": "123"}  # unknown parameters are ignored
    assert [parameter.read(parameters) for parameter in (QUALITY, FPS, FULL, FORMAT)] == [None] * 4


def test_choice() -> None:
    assert FORMAT.read({"format": "dng"}) == "dng"
    with pytest.raises(HttpError, match=r"^format: must be one of jpeg, dng$"):
        FORMAT.read({"format": "DNG"})


def test_schema() -> None:
    assert QUALITY.schema == {"type": "integer", "minimum": 1, "maximum": 100}
    assert FPS.schema == {"type": "number", "minimum": 0.01, "maximum": 1000}
    assert FORMAT.schema == {"type": "string", "enum": ["jpeg", "dng"]}
    for word in FULL.schema["enum"]:
        assert FULL.read({"full": word}) in (True, False)
