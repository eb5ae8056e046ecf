"""Who holds the camera open, and the words in which the holder tells what it does. No thread and no camera in here."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, Self, get_args

from softcam.camera.base import StreamConfig

LeaseKind = Literal["stream", "snapshot", "hold", "publish", "recording"]
LEASE_KINDS: Final[tuple[LeaseKind, ...]] = get_args(LeaseKind)
# These take frame after frame, and want the focus held all the while.
STREAMS: Final[frozenset[LeaseKind]] = frozenset({"stream", "publish", "recording"})


class State(StrEnum):
    """What the camera is doing, in the words of the status."""

    CLOSED = "closed"
    OPENING = "opening"
    OPEN = "open"
    LINGERING = "lingering"
    CLOSING = "closing"
    RECOVERING = "recovering"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """A look at the holder; `fps` is measured, `mode` None while the camera is closed."""

    state: State
    mode: StreamConfig | None
    fps: float | None
    leases: Mapping[LeaseKind, int]
    last_error: str | None
    restarts: int
    opens: int
    frames: int
    metadata: Mapping[str, Any] | None
    held_since: Mapping[LeaseKind, float] = field(default_factory=dict)  # Unix time of the oldest lease

    @property
    def is_streaming(self) -> bool:
        """Whether somebody takes frame after frame."""
        return any(self.leases[kind] for kind in STREAMS)


@dataclass(slots=True, eq=False)
class Lease:
    """The right to an open camera; `release()` gives it back, any number of times."""

    kind: LeaseKind
    _give_back: Callable[["Lease"], None] = field(repr=False)
    since_s: float = field(default_factory=time.time)  # Unix time, for people

    def release(self) -> None:
        self._give_back(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()
