"""The list of checks of one machine and one camera, and the run of all. Everything here runs on the main thread."""

import logging
import signal
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final

from softcam import __version__
from softcam.controls.schema import GROUPS
from softcam.diagnose.camera import CheckedCamera
from softcam.diagnose.controls import PROBES, check_group
from softcam.diagnose.encoders import check_h264, check_jpeg
from softcam.diagnose.libcamera_log import LibcameraLog, problems_in
from softcam.diagnose.machine import MachineChecks
from softcam.diagnose.openings import check_openings
from softcam.diagnose.report import Finding, Report, Result, result_lines, summary_lines
from softcam.diagnose.runner import Check, Runner
from softcam.diagnose.stream import (
    check_autofocus,
    check_first_frame,
    check_frame_rate,
    check_sensor_modes,
    check_still,
)
from softcam.runtime.deadline import Deadline
from softcam.runtime.log.memory import LogMemory, Selection

_RATE_S: Final = 5.0
_CLOSE_TIMEOUT_S: Final = 10.0  # as long as the session itself waits for a camera that closes
_MAX_LOG_LINES: Final = 200
_MAX_WARNINGS: Final = 30
# Above all limits inside a check, each of which ends with a better message.
_MACHINE_LIMIT_S: Final = 20.0
_OPEN_LIMIT_S: Final = 45.0
_LIMIT_S: Final = 60.0
_CONTROL_LIMIT_S: Final = 120.0  # two reopenings
_OPENINGS_LIMIT_S: Final = 300.0


class Diagnosis:
    """One diagnosis. The main thread calls `run` once; `interrupt` may be called in a signal handler."""

    def __init__(
        self,
        machine: MachineChecks,
        camera: CheckedCamera,
        *,
        camera_name: str,
        quality: int,
        settings: Sequence[str],
        redact: Callable[[str], str],
        log_memory: LogMemory,
        libcamera_log: LibcameraLog,
        rate_s: float = _RATE_S,
    ) -> None:
        """`settings` are those to report; `redact` removes secrets from every text of the report."""
        self._machine = machine
        self._camera = camera
        self._camera_name = camera_name
        self._quality = quality
        self._settings = settings
        self._redact = redact
        self._log_memory = log_memory
        self._libcamera_log = libcamera_log
        self._rate_s = rate_s
        self._runner = Runner(lambda: camera.error)

    def interrupt(self, number: signal.Signals) -> None:
        """End the diagnosis: the checks so far are reported, and the camera is closed."""
        self._runner.interrupt(number)

    def run(self, write_line: Callable[[str], None], *, as_json: bool) -> int:
        """Run the checks and write the report, each line when it is known; returns the exit code."""
        began_s, now = time.monotonic(), datetime.now(UTC)
        stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        section = ""

        def show(result: Result) -> None:
            nonlocal section
            if result.is_skipped:  # one line at the end
                return
            if result.section != section:
                section = result.section
                write_line(f"\n{section}")
            for line in result_lines(result, self._redact):
                write_line(line)

        if not as_json:
            write_line(self._redact(f"Soft Stream {__version__}, {stamp}, camera {self._camera_name}"))
        results = self._runner.run(self._checks(), (lambda _: None) if as_json else show)
        if not self._camera.close(Deadline.after(_CLOSE_TIMEOUT_S)):
            logging.getLogger(__name__).error("Camera did not close in time")
        libcamera_lines = self._libcamera_log.lines()
        self._libcamera_log.close()
        interrupted_by = self._runner.interrupted_by
        report = Report(
            version=__version__,
            camera=self._camera_name,
            time=stamp,
            duration_s=time.monotonic() - began_s,
            results=results,
            settings=self._settings,
            log=self._log_lines(logging.INFO, _MAX_LOG_LINES),
            libcamera_log=libcamera_lines,
            interrupted_by=None if interrupted_by is None else interrupted_by.name,
        )
        if as_json:
            write_line(report.to_json(self._redact))
        else:
            warnings = [
                *self._log_lines(logging.WARNING, _MAX_WARNINGS),
                *problems_in(libcamera_lines)[-_MAX_WARNINGS:],
            ]
            for line in summary_lines(report, warnings, self._redact):
                write_line(line)
        return report.exit_code

    def _log_lines(self, level: int, limit: int) -> list[str]:
        return [line.text for line in self._log_memory.newest(limit, Selection(level))[0]]

    def _checks(self) -> list[Check]:
        machine = self._machine
        checks = [
            Check(run.__name__, "Machine", run, _MACHINE_LIMIT_S)
            for run in (machine.versions, machine.permissions, machine.throttling, machine.memory, machine.disk)
        ]
        checks.append(Check("cameras", "Machine", machine.cameras, _MACHINE_LIMIT_S))
        camera = self._camera
        if camera.is_enabled:
            checks.append(Check("first_frame", "Camera", partial(check_first_frame, camera), _OPEN_LIMIT_S))

        def add(
            section: str, name: str, run: Callable[..., Finding], *arguments: object, limit_s: float = _LIMIT_S
        ) -> None:
            checks.append(Check(name, section, partial(run, camera, *arguments), limit_s, uses_camera=True))

        add("Camera", "sensor_modes", check_sensor_modes)
        add("Camera", "frame_rate", check_frame_rate, self._rate_s)
        add("Camera", "autofocus", check_autofocus)
        add("Camera", "still", check_still)
        for group in GROUPS:
            if group.name in PROBES:
                add("Controls", f"control.{group.name}", check_group, group.name, limit_s=_CONTROL_LIMIT_S)
        add("Encoders", "jpeg", check_jpeg, self._quality)
        add("Encoders", "h264", check_h264)
        add("Openings", "openings", check_openings, limit_s=_OPENINGS_LIMIT_S)
        return checks
