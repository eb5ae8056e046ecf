"""One portal for each module, on a pattern camera that a file makes fail."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Portal
from tests.support.control_client import SMALL, change, eventually, frames_later, picture_of
from tests.support.http_client import ask


@pytest.fixture
def faults(shared_faults: Path) -> Path:
    """The file that makes the pattern camera fail; empty at first."""
    shared_faults.write_text("")
    return shared_faults


@pytest.fixture(scope="module")
def portal_flags(shared_faults: Path) -> tuple[str, ...]:
    return (*SMALL, "--pattern-faults", str(shared_faults), "--linger", "0.2")


@pytest.fixture(scope="module")
def automatic() -> dict[str, Any]:
    """The status of the camera with all controls at their defaults, settled and in focus; filled by `held`."""
    return {}


@pytest.fixture
def held(portal: Portal, faults: Path, automatic: dict[str, Any]) -> Portal:
    """The portal of the module, which holds its camera open; the camera has settled and is in focus."""
    assert ask(portal, "/camera/start", method="POST").status == 200
    if automatic:
        change(portal, "autofocus", {"trigger": True})
    else:
        picture_of(portal, "autofocus=1")
        automatic |= frames_later(portal)
    names = ("colour_gains", "exposure_us", "analogue_gain", "lens_position", "frame_duration_us")

    def is_settled(status: Mapping[str, Any]) -> bool:
        return all(status[name] == pytest.approx(automatic[name], rel=0.01) for name in names)

    eventually(portal, is_settled)
    portal.forget_log()
    return portal
