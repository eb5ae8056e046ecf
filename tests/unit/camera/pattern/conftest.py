"""A pattern camera with a faults file, and a consumer of its frames."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from softcam.camera.base import StreamRequest
from softcam.camera.pattern.camera import PatternCamera
from tests.support.pattern_client import DEADLINE_S, FaultsFile, FrameCollector


@pytest.fixture
def faults(tmp_path: Path) -> FaultsFile:
    return FaultsFile(tmp_path / "faults")


@pytest.fixture
def camera(faults: FaultsFile) -> Iterator[PatternCamera]:
    camera = PatternCamera(StreamRequest(192, 108, 50), faults_file=faults.path, stop_timeout_s=DEADLINE_S)
    yield camera
    faults.inject()
    camera.close()


@pytest.fixture
def collector() -> FrameCollector:
    return FrameCollector()
