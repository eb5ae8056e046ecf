"""Metrics in Prometheus' text format (version 0.0.4). Runs on the request threads.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import os
import resource
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from softcam.camera.session.manager import State
from softcam.web.http.messages import NO_STORE, AnyResponse, Request, Response
from softcam.web.http.router import Doc

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
METRICS_DOC: Final = Doc("Metrics for Prometheus", "camera", {200: {CONTENT_TYPE: None}})

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class _Metric:
    """One metric family and its field of the status; `factor` converts to base units."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    field: str
    factor: float = 1.0


_METRICS: Final = (
    _Metric("soft_stream_camera_available", "gauge", "1 if the camera can deliver frames.", "available"),
    _Metric("soft_stream_viewers", "gauge", "Connected stream clients.", "viewers"),
    _Metric(
        "soft_stream_fps",
        "gauge",
        "Measured frame rate in frames per second; absent while the camera is closed.",
        "fps",
    ),
    _Metric("soft_stream_frames_total", "counter", "Frames received from the camera.", "frames"),
    _Metric("soft_stream_pictures_encoded_total", "counter", "JPEGs encoded for streams.", "pictures_encoded"),
    _Metric("soft_stream_camera_opens_total", "counter", "Number of times the camera was opened.", "opens"),
    _Metric("soft_stream_restarts_total", "counter", "Number of stream restarts by the watchdog.", "restarts"),
    _Metric("soft_stream_uptime_seconds", "gauge", "Time since the portal started.", "uptime_s"),
    _Metric("soft_stream_exposure_seconds", "gauge", "Exposure time of the newest frame.", "exposure_us", 1e-6),
    _Metric("soft_stream_analogue_gain", "gauge", "Analogue gain of the newest frame.", "analogue_gain"),
    _Metric("soft_stream_lux", "gauge", "Estimated scene brightness in lux.", "lux"),
    _Metric("soft_stream_colour_temperature_kelvin", "gauge", "Colour temperature of the scene.", "colour_temperature"),
    _Metric("soft_stream_lens_position_dioptres", "gauge", "Lens position.", "lens_position"),
    _Metric("soft_stream_sensor_temperature_celsius", "gauge", "Temperature of the sensor.", "sensor_temperature_c"),
)


class Metrics:
    """The handler of `/metrics`."""

    def __init__(self, content: Callable[[], Mapping[str, Any]]) -> None:
        """`content` returns the fields of the status; metrics whose field is null are omitted."""
        self._content = content

    def answer(self, _request: Request) -> AnyResponse:
        lines = [*_camera_lines(self._content()), *_process_lines()]
        return Response("".join(f"{line}\n" for line in lines).encode(), CONTENT_TYPE, headers=NO_STORE)


def _camera_lines(content: Mapping[str, Any]) -> Iterator[str]:
    labels = ",".join(
        f'{name}="{_escaped(content[field] or "")}"'
        for name, field in (("version", "version"), ("backend", "backend"), ("camera", "camera"))
    )
    yield from _family("soft_stream_info", "gauge", "Always 1; version, backend and camera in the labels.")
    yield f"soft_stream_info{{{labels}}} 1"
    yield from _family("soft_stream_camera_state", "gauge", "1 for the current state of the camera, 0 for the others.")
    for state in State:
        yield f'soft_stream_camera_state{{state="{state.value}"}} {int(content["state"] == state)}'
    for metric in _METRICS:
        value = content[metric.field]
        if value is not None:
            yield from _family(metric.name, metric.kind, metric.help)
            yield f"{metric.name} {_number(value * metric.factor)}"


def _process_lines() -> Iterator[str]:
    """The process metrics of Prometheus client libraries, under their usual names."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield from _family("process_cpu_seconds_total", "counter", "User and system CPU time.")
    yield f"process_cpu_seconds_total {_number(usage.ru_utime + usage.ru_stime)}"
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    yield from _family("process_resident_memory_bytes", "gauge", "Resident memory.")
    yield f"process_resident_memory_bytes {resident_pages * _PAGE_BYTES}"
    yield from _family("process_open_fds", "gauge", "Open file descriptors.")
    yield f"process_open_fds {sum(1 for _ in Path('/proc/self/fd').iterdir())}"


def _family(name: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"


def _number(value: float) -> str:
    return f"{value:.10g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
