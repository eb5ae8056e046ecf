"""Names of recordings, and of the hidden files that belong to them."""

import pytest

from softcam.recording.names import owner_of

NAME = "2026-11-20_23-15-02.mp4"


@pytest.mark.parametrize(
    ("hidden", "owner"),
    [
        (f".{NAME}.jpg", NAME),
        (f".{NAME}.keep", NAME),
        # Not written to their end:
        (f".{NAME}", NAME),
        (f"..{NAME}.jpg", NAME),
        (f"..{NAME}.keep", NAME),
        # Other files:
        (NAME, None),
        (f"{NAME}.jpg", None),
        (f"..{NAME}", None),
        (f"...{NAME}.keep", None),
        (f".{NAME}.keep.jpg", None),
        (".holiday.mp4.jpg", None),
        ("..order", None),
        ("", None),
    ],
)
def test_owner_of(hidden: str, owner: str | None) -> None:
    assert owner_of(hidden) == owner
