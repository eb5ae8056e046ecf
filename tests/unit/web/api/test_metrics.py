"""The metrics, read with the parser of the Prometheus client library."""

from collections.abc import Iterator
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from softcam import __version__
from softcam.camera.session.manager import State
from softcam.web.api.metrics import CONTENT_TYPE, metrics_routes
from softcam.web.api.status import StatusApi
from softcam.web.http.messages import Response
from tests.support.raw_http import make_request
from tests.support.web_app import Scene


def samples(content: dict[str, Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    (route,) = metrics_routes(lambda: content)
    answer = route.handle(make_request("/metrics"))
    assert isinstance(answer, Response)
    assert answer.content_type == CONTENT_TYPE
    found = {}
    for family in parse(answer.body.decode()):
        assert family.documentation
        assert family.type in ("gauge", "counter")
        for sample in family.samples:
            found[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
    return found


@pytest.fixture
def content() -> Iterator[dict[str, Any]]:
    with Scene() as scene:
        yield StatusApi(scene.manager, scene.control_manager, lambda: 3, lambda: 7, True).content()


def test_status_metrics(content: dict[str, Any]) -> None:
    told = samples({**content, "exposure_us": 20_000, "fps": 29.97, "available": True, "restarts": 2})
    assert told["soft_stream_viewers", ()] == 3
    assert told["soft_stream_pictures_encoded_total", ()] == 7
    assert told["soft_stream_exposure_seconds", ()] == pytest.approx(0.02)
    assert told["soft_stream_fps", ()] == pytest.approx(29.97)
    assert told["soft_stream_camera_available", ()] == 1
    assert told["soft_stream_restarts_total", ()] == 2
    assert told["process_resident_memory_bytes", ()] > 1e6
    assert told["process_open_fds", ()] > 2
    assert told["process_cpu_seconds_total", ()] > 0


def test_unknown_values_are_omitted(content: dict[str, Any]) -> None:
    told = samples({**content, "fps": None, "lux": None})
    assert ("soft_stream_fps", ()) not in told
    assert ("soft_stream_lux", ()) not in told


@pytest.mark.parametrize("state", list(State))
def test_camera_state(content: dict[str, Any], state: State) -> None:
    told = samples({**content, "state": state})
    of_states = {labels[0][1]: value for (name, labels), value in told.items() if name == "soft_stream_camera_state"}
    assert of_states == {each.value: float(each is state) for each in State}


@pytest.mark.parametrize("name", ["imx708", 'a "b" \\ c\nd', "é", None])
def test_label_escaping(content: dict[str, Any], name: str | None) -> None:
    told = samples({**content, "camera": name})
    labels = next(dict(labels) for (family, labels) in told if family == "soft_stream_info")
    assert labels["camera"] == (name or "")
    assert labels["version"] == __version__


def test_recordings(content: dict[str, Any]) -> None:
    video = {"interrupted": 1000.5}
    told = samples({**content, "recording": {"video": video, "timelapse": None, "last_error": None}})
    assert told["soft_stream_recording_active", (("kind", "video"),)] == 1
    assert told["soft_stream_recording_active", (("kind", "timelapse"),)] == 0
    of_kinds = [labels for name, labels in told if name == "soft_stream_recording_interrupted_timestamp_seconds"]
    assert of_kinds == [(("kind", "video"),)]
    assert told["soft_stream_recording_failed", ()] == 0
    assert not any("recording" in name for name, _ in samples(content))
