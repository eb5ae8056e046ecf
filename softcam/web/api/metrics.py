"""Metrics in Prometheus' text format (version 0.0.4). Runs on the request threads.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import resource
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from softcam.camera.session.manager import State
from softcam.runtime import memory
from softcam.system.monitor import MachineState
from softcam.web.api.problems import CODES
from softcam.web.http.messages import NO_STORE, AnyResponse, Request, Response
from softcam.web.http.router import Doc, Route

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_DOC: Final = Doc("Metrics for Prometheus", "camera", {200: {CONTENT_TYPE: None}})

_LABELS: Final = ("version", "backend", "camera")

_ENCODERS: Final = (("main", "h264"), ("sub", "h264_substream"))
# Name, help, field of the status, and factor to base units. A name that ends with _total is a counter.
_METRICS: Final = (
    ("camera_available", "1 if the camera can deliver frames.", "available", 1),
    ("viewers", "Connected clients of all streams.", "viewers", 1),
    ("fps", "Measured frame rate in frames per second; absent while the camera is closed.", "fps", 1),
    ("frames_total", "Frames received from the camera.", "frames", 1),
    ("pictures_encoded_total", "JPEGs encoded for streams.", "pictures_encoded", 1),
    ("camera_opens_total", "Number of times the camera was opened.", "opens", 1),
    (
        "restarts_total",
        "Restarts of the stream because no frames arrived, and reconnections of a URL source.",
        "restarts",
        1,
    ),
    ("uptime_seconds", "Time since the portal started.", "uptime_s", 1),
    ("frame_duration_seconds", "Time from the newest frame to the next one, by the sensor.", "frame_duration_us", 1e-6),
    ("exposure_seconds", "Exposure time of the newest frame.", "exposure_us", 1e-6),
    ("analogue_gain", "Analogue gain of the newest frame.", "analogue_gain", 1),
    ("lux", "Estimated scene brightness in lux.", "lux", 1),
    ("colour_temperature_kelvin", "Colour temperature of the scene.", "colour_temperature", 1),
    ("lens_position_dioptres", "Lens position.", "lens_position", 1),
    ("sensor_temperature_celsius", "Temperature of the sensor.", "sensor_temperature_c", 1),
)


def metrics_routes(
    content: Callable[[], Mapping[str, Any]],
    problems: Callable[[], Collection[str]],
    machine: Callable[[], MachineState],
    max_bytes: int | None = None,
) -> list[Route]:
    """`content` returns the fields of the status, `problems` the codes of what is wrong now, `machine` the state of the
    machine; `max_bytes` is the limit of the recordings. Unknown values are omitted."""

    def answer(_request: Request) -> AnyResponse:
        lines = [
            *_camera_lines(content()),
            *_problem_lines(problems()),
            *_quota_lines(max_bytes),
            *_machine_lines(machine()),
            *_process_lines(),
        ]
        body = "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")
        return Response(body, CONTENT_TYPE, headers=NO_STORE)

    return [Route(("/metrics",), answer, is_same_origin=True, doc=_DOC)]


def _camera_lines(content: Mapping[str, Any]) -> Iterator[str]:
    labels = ",".join(f'{name}="{_escaped(content[name] or "")}"' for name in _LABELS)
    yield from _family("soft_stream_info", "Always 1; version, backend and camera in the labels.", {f"{{{labels}}}": 1})
    states = {f'{{state="{state.value}"}}': int(content["state"] == state) for state in State}
    yield from _family("soft_stream_camera_state", "1 for the current state of the camera, 0 for the others.", states)
    if (recording := content["recording"]) is not None:
        yield from _recording_lines(recording)
    encoders = {f'{{stream="{name}"}}': content[field] for name, field in _ENCODERS if content[field] is not None}
    for name, summary, field in (
        ("frames_encoded", "H.264 frames encoded; absent while the encoder does not run.", "encoded"),
        ("frames_skipped", "Frames that arrived while the H.264 encoder was busy.", "skipped"),
    ):
        yield from _family(
            f"soft_stream_h264_{name}_total", summary, {at: each[field] for at, each in encoders.items()}
        )
    for name, summary, field, factor in _METRICS:
        if content[field] is not None:
            yield from _family(f"soft_stream_{name}", summary, {"": content[field] * factor})


def _problem_lines(current: Collection[str]) -> Iterator[str]:
    summary = "1 while a person should look at this, as in /health."
    yield from _family("soft_stream_problem", summary, {f'{{code="{code}"}}': int(code in current) for code in CODES})


def _recording_lines(recording: Mapping[str, Any]) -> Iterator[str]:
    running = {f'{{kind="{kind}"}}': recording[kind] for kind in ("video", "timelapse")}
    active = {label: int(each is not None) for label, each in running.items()}
    yield from _family("soft_stream_recording_active", "1 while a recording of this kind is running.", active)
    interrupted = {
        f'{{kind="{kind}"}}': moment
        for kind in ("video", "timelapse")
        if (moment := (recording[kind] or {}).get("interrupted") or recording["cut_short"][kind])
    }
    yield from _family(
        "soft_stream_recording_interrupted_timestamp_seconds",
        "When the end of the portal interrupted a recording; it is resumed if it is active.",
        interrupted,
    )
    has_failed = {"": int(recording["last_error"] is not None)}
    yield from _family("soft_stream_recording_failed", "1 while something cannot be recorded.", has_failed)


def _quota_lines(max_bytes: int | None) -> Iterator[str]:
    if max_bytes is not None:
        summary = "The oldest recordings are deleted when there is more; absent without a limit."
        yield from _family("soft_stream_recording_max_bytes", summary, {"": max_bytes})


def _machine_lines(state: MachineState) -> Iterator[str]:
    """Of the machine, so portals of several cameras on one machine export the same values."""
    if state.temperature_c is not None:
        summary = "Temperature of the processor."
        yield from _family("soft_stream_system_temperature_celsius", summary, {"": state.temperature_c})
    if (throttling := state.throttling) is not None:
        for name, summary, flags in (
            ("", "1 while the firmware reports it: under-voltage, or a reduced clock rate.", throttling.now),
            ("_since_boot", "1 if it was reported since the boot, as far as the portal ran.", throttling.since_boot),
        ):
            known = {kind: flag for kind, flag in throttling.by_name(flags).items() if flag is not None}
            samples = {f'{{kind="{kind}"}}': int(flag) for kind, flag in known.items()}
            yield from _family(f"soft_stream_system_throttling{name}", summary, samples)
    if state.load_average is not None:
        loads = zip(("1m", "5m", "15m"), state.load_average, strict=True)
        summary = "Average number of processes that run or wait, over a period."
        yield from _family(
            "soft_stream_system_load_average", summary, {f'{{period="{period}"}}': load for period, load in loads}
        )
    if (memory := state.memory) is not None:
        yield from _family("soft_stream_system_memory_size_bytes", "Memory of the machine.", {"": memory.total})
        summary = "Memory that programs can get without swapping."
        yield from _family("soft_stream_system_memory_available_bytes", summary, {"": memory.available})
    if (disk := state.disk) is not None:
        label = f'{{path="{_escaped(disk.folder)}"}}'
        summary = "Size of the disk of the recordings, or of the saved controls without recordings."
        yield from _family("soft_stream_system_disk_size_bytes", summary, {label: disk.total})
        yield from _family("soft_stream_system_disk_free_bytes", "What the portal may use of it.", {label: disk.free})
    if (wifi := state.wifi) is not None:
        label = f'{{interface="{_escaped(wifi.interface)}"}}'
        yield from _family("soft_stream_system_wifi_signal_dbm", "Strength of the Wi-Fi signal.", {label: wifi.dbm})


def _process_lines() -> Iterator[str]:
    """The process metrics of Prometheus client libraries, under their usual names."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield from _family("process_cpu_seconds_total", "User and system CPU time.", {"": usage.ru_utime + usage.ru_stime})
    yield from _family("process_resident_memory_bytes", "Resident memory.", {"": memory.resident_bytes()})
    descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
    yield from _family("process_open_fds", "Open file descriptors.", {"": descriptors})


def _family(name: str, summary: str, samples: Mapping[str, float]) -> Iterator[str]:
    """One metric with its samples, by their labels."""
    yield f"# HELP {name} {summary}"
    yield f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}"
    yield from (f"{name}{labels} {value:.10g}" for labels, value in samples.items())


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
