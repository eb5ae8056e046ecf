"""Leases: the rights to an open camera. No thread and no camera in here."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal, Self, get_args

LeaseKind = Literal["stream", "snapshot", "hold", "publish", "rtsp", "recording"]
LEASE_KINDS: Final[tuple[LeaseKind, ...]] = get_args(LeaseKind)
# These consume frame after frame, so the lens is kept in focus while there is one.
STREAMS: Final[frozenset[LeaseKind]] = frozenset({"stream", "publish", "rtsp", "recording"})


@dataclass(slots=True, eq=False)
class Lease:
    """The right to an open camera, until `release()`, which may be called any number of times."""

    kind: LeaseKind
    _on_release: Callable[["Lease"], None] = field(repr=False)
    since_s: float = field(default_factory=time.time)  # Unix time, for the status
    needs_focus: bool = False  # from the first frame on, if the camera has to be opened
    kept_s: float = 0.0  # how long the camera stays open at least after its release

    def release(self) -> None:
        self._on_release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()
