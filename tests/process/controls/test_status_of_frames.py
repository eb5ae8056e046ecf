"""Every field of the status that describes the camera's frames is that of a frame, as a hook gets it."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.conftest import Portal
from tests.support.control_client import SMALL, change, frames_later
from tests.support.frame_metadata import HOOK, OTHER_FIELDS, FrameRecords, expected_status, wait_for_agreement
from tests.support.http_client import ask, reset, status_of

SENSOR_SIZE = (4608, 2592)
# Changes with the metadata that they must result in, by libcamera's names.
CHANGES: list[tuple[str, Mapping[str, Any], Mapping[str, Any]]] = [
    ("auto_exposure", {"enabled": True}, {"SensorTemperature": 41.0, "DigitalGain": 1.0}),
    ("manual_exposure", {"exposure_us": 12_345, "gain": 3.5}, {"ExposureTime": 12_345, "AnalogueGain": 3.5}),
    ("manual_awb", {"red_gain": 1.51, "blue_gain": 1.8}, {"ColourGains": [1.51, 1.8]}),
    ("lens_position", {"position": 3.25}, {"LensPosition": 3.25}),
    ("exposure_value", {"ev": 1.5}, {"ExposureValue": 1.5}),
    *(
        ("noise_reduction", {"mode": word}, {"NoiseReductionMode": number})
        for number, word in enumerate(("off", "fast", "high_quality", "minimal", "zsl"))
    ),
    *(
        ("ae_constraint_mode", {"mode": word}, {"AeConstraintMode": number})
        for number, word in enumerate(("normal", "highlight", "shadows", "custom"))
    ),
    *(
        ("ae_exposure_mode", {"mode": word}, {"AeExposureMode": number})
        for number, word in enumerate(("normal", "short", "long", "custom"))
    ),
    ("stream", {"fps": 12.5}, {"FrameDurationLimits": [80_000, 80_000]}),
    ("exposure_limits", {"max_exposure_us": 4_000}, {}),
    ("resolution", {"width": 800, "height": 600}, {"size": [800, 600]}),
    ("roi", {"x": 0.25, "y": 0.25, "width": 0.5, "height": 0.5}, {"ScalerCrop": [1152, 648, 2304, 1296]}),
    ("fov_mode", {"mode": "crop"}, {"ScalerCrop": [1984, 1116, 640, 360]}),
    ("lens_correction", {"enabled": False}, {"LensDewarpEnable": False}),
    ("day_night_mode", {"mode": "auto", "threshold_lux": 100}, {"Lux": 400.0}),
]


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> FrameRecords:
    return FrameRecords(tmp_path_factory.mktemp("records"))


@pytest.fixture(scope="module")
def shared(start_shared_portal: Callable[..., Portal], records: FrameRecords) -> Portal:
    return start_shared_portal(*SMALL, "--hook", HOOK, environment=records.environment)


@pytest.fixture
def held(shared: Portal) -> Portal:
    reset(shared)
    assert ask(shared, "/camera/start", method="POST").status == 200
    return shared


@pytest.mark.parametrize(("name", "content", "metadata"), CHANGES)
def test_status_is_that_of_a_frame(
    held: Portal, records: FrameRecords, name: str, content: Mapping[str, Any], metadata: Mapping[str, Any]
) -> None:
    change(held, name, content)

    def repeat() -> None:
        reset(held)
        assert ask(held, "/camera/start", method="POST").status == 200
        frames_later(held)
        change(held, name, content)

    wait_for_agreement(held, records, SENSOR_SIZE, metadata, repeat)


def test_all_fields_are_compared(held: Portal, records: FrameRecords) -> None:
    """A new field of the status belongs to those that are compared, or to the others."""
    frames_later(held)
    status = status_of(held)
    every = dict.fromkeys(("ExposureValue", "NoiseReductionMode", "AeConstraintMode", "AeExposureMode"), 0)
    compared = expected_status(status, [{**every, **records.frames()[-1]}], SENSOR_SIZE)
    assert compared.keys() | OTHER_FIELDS == status.keys()
    assert not compared.keys() & OTHER_FIELDS
