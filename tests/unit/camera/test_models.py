"""Models of camera modules: wide lenses, and published fields of view."""

import pytest

from softcam.camera.models import horizontal_field_degrees, is_wide


@pytest.mark.parametrize(
    ("model", "wide", "degrees"),
    [
        ("imx708", False, 66),
        ("imx708_noir", False, 66),
        ("imx708_wide", True, 102),
        ("imx708_wide_noir", True, 102),
        ("imx219", False, 62.2),
        ("ov5647", False, 53.5),
        ("imx500", False, 66),
        ("imx477", False, None),
        ("imx296", False, None),
        ("HD Pro Webcam C920: HD Pro Webca", False, None),
    ],
)
def test_model(model: str, wide: bool, degrees: float | None) -> None:
    assert is_wide(model) is wide
    assert horizontal_field_degrees(model) == degrees
