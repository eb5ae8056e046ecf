"""The portal that the tests of a module share."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def portal_flags(request: pytest.FixtureRequest, shared_faults: Path) -> tuple[str, ...]:
    """The module's `SHARED_FLAGS`, if it has any, on a camera that fails as `shared_faults` says."""
    return ("--pattern-faults", str(shared_faults), *getattr(request.module, "SHARED_FLAGS", ()))
