"""The metrics, read with the parser of the Prometheus client library."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse

from softcam import __version__
from softcam.camera.session.manager import State
from softcam.system.monitor import SystemMonitor
from softcam.web.api.metrics import CONTENT_TYPE, metrics_routes
from softcam.web.api.status import StatusApi
from softcam.web.http.messages import Response
from tests.support.machines import PI_3, PI_5, Files, write_tree
from tests.support.raw_http import make_request
from tests.support.web_app import Scene


def samples(
    content: dict[str, Any], machine: SystemMonitor | None = None, max_bytes: int | None = None
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Without `machine`, the status is that of a machine without `/proc` and `/sys`."""
    machine = machine or SystemMonitor(Path("/"), root=Path("/dev/null"))
    content = {"h264": None, "h264_substream": None, **content}
    (route,) = metrics_routes(lambda: content, list, machine.state, max_bytes)
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
    exported = samples({**content, "exposure_us": 20_000, "fps": 29.97, "available": True, "restarts": 2})
    assert exported["soft_stream_viewers", ()] == 3
    assert exported["soft_stream_pictures_encoded_total", ()] == 7
    assert exported["soft_stream_exposure_seconds", ()] == pytest.approx(0.02)
    assert exported["soft_stream_fps", ()] == pytest.approx(29.97)
    assert exported["soft_stream_camera_available", ()] == 1
    assert exported["soft_stream_restarts_total", ()] == 2
    assert exported["process_resident_memory_bytes", ()] > 1e6
    assert exported["process_open_fds", ()] > 2
    assert exported["process_cpu_seconds_total", ()] > 0


def test_unknown_values_are_omitted(content: dict[str, Any]) -> None:
    exported = samples({**content, "fps": None, "lux": None})
    assert ("soft_stream_fps", ()) not in exported
    assert ("soft_stream_lux", ()) not in exported


@pytest.mark.parametrize("state", list(State))
def test_camera_state(content: dict[str, Any], state: State) -> None:
    exported = samples({**content, "state": state})
    of_states = {
        labels[0][1]: value for (name, labels), value in exported.items() if name == "soft_stream_camera_state"
    }
    assert of_states == {each.value: float(each is state) for each in State}


@pytest.mark.parametrize("name", ["imx708", 'a "b" \\ c\nd', "é", None])
def test_label_escaping(content: dict[str, Any], name: str | None) -> None:
    exported = samples({**content, "camera": name})
    labels = next(dict(labels) for (family, labels) in exported if family == "soft_stream_info")
    assert labels["camera"] == (name or "")
    assert labels["version"] == __version__


def test_encoders(content: dict[str, Any]) -> None:
    exported = samples({**content, "h264": {"encoded": 90, "skipped": 10}})
    prefix = "soft_stream_h264_frames_"
    assert exported[f"{prefix}encoded_total", (("stream", "main"),)] == 90
    assert exported[f"{prefix}skipped_total", (("stream", "main"),)] == 10
    assert (f"{prefix}encoded_total", (("stream", "sub"),)) not in exported
    assert (f"{prefix}encoded_total", (("stream", "main"),)) not in samples(content), "the encoder does not run"


def test_recordings(content: dict[str, Any]) -> None:
    video = {"interrupted": 1000.5}
    cut_short = {"video": None, "timelapse": 2000.5}
    recording = {"video": video, "timelapse": None, "cut_short": cut_short, "last_error": None}
    exported = samples({**content, "recording": recording})
    assert exported["soft_stream_recording_active", (("kind", "video"),)] == 1
    assert exported["soft_stream_recording_active", (("kind", "timelapse"),)] == 0
    interrupted = "soft_stream_recording_interrupted_timestamp_seconds"
    assert exported[interrupted, (("kind", "video"),)] == 1000.5, "resumed"
    assert exported[interrupted, (("kind", "timelapse"),)] == 2000.5, "not resumed"
    exported = samples({**content, "recording": {**recording, "video": None}})
    assert [labels for name, labels in exported if name == interrupted] == [(("kind", "timelapse"),)]
    assert exported["soft_stream_recording_failed", ()] == 0
    assert samples(content, max_bytes=5_000_000_000)["soft_stream_recording_max_bytes", ()] == 5e9
    assert not any("recording" in name for name, _ in samples(content))


# The machine


def of_machine(content: dict[str, Any], root: Path, files: Files) -> dict[tuple[str, str], float]:
    """The samples of the machine by name and the value of their label."""
    exported = samples(content, SystemMonitor(root, root=write_tree(root, files), pause=lambda _: None))
    prefix = "soft_stream_system_"
    return {
        (name.removeprefix(prefix), "".join(value for _, value in labels)): sample
        for (name, labels), sample in exported.items()
        if name.startswith(prefix)
    }


def test_machine(content: dict[str, Any], tmp_path: Path) -> None:
    exported = of_machine(content, tmp_path, PI_3)
    assert exported["temperature_celsius", ""] == pytest.approx(58.312)
    assert exported["throttling", "under_voltage"] == exported["throttling_since_boot", "throttled"] == 1
    assert exported["throttling", "frequency_capped"] == exported["throttling_since_boot", "frequency_capped"] == 0
    assert [exported["load_average", period] for period in ("1m", "5m", "15m")] == [1.52, 1.07, 0.61]
    assert exported["memory_size_bytes", ""] == 948_012 * 1024
    assert exported["memory_available_bytes", ""] == 512_004 * 1024
    assert 0 < exported["disk_free_bytes", str(tmp_path)] < exported["disk_size_bytes", str(tmp_path)]
    assert exported["wifi_signal_dbm", "wlan0"] == -58


def test_machine_without_some_of_it(content: dict[str, Any], tmp_path: Path) -> None:
    exported = of_machine(content, tmp_path, PI_5)
    assert {label for name, label in exported if name == "throttling"} == {"under_voltage"}
    assert not any(name.startswith("soft_stream_system_throttling") for name, _ in samples(content))
    assert not any(name.startswith("soft_stream_system_temp") for name, _ in samples(content))
