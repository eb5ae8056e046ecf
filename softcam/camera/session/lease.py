"""Leases: the rights to an open camera. No thread and no camera in here."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Self, get_args

LeaseKind = Literal["stream", "snapshot", "hold", "publish", "recording"]
LEASE_KINDS: Final[tuple[LeaseKind, ...]] = get_args(LeaseKind)
# These consume frame after frame, so the lens is kept in focus while there is one.
STREAMS: Final[frozenset[LeaseKind]] = frozenset({"stream", "publish", "recording"})


@dataclass(slots=True, eq=False)
class Lease:
    """The right to an open camera, until `release()`, which may be called any number of times."""

    kind: LeaseKind
    _on_release: Callable[["Lease"], None] = field(repr=False)
    since_s: float = field(default_factory=time.time)  # Unix time, for the status

    def release(self) -> None:
        self._on_release(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class LeaseRegistry:
    """The leases that are not released yet. Has no lock: the caller holds the session's."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()

    def __bool__(self) -> bool:
        return bool(self._leases)

    def add(self, lease: Lease) -> None:
        self._leases.add(lease)

    def remove(self, lease: Lease) -> bool:
        """Remove a lease; False if it was released before."""
        if lease not in self._leases:
            return False
        self._leases.remove(lease)
        return True

    @property
    def has_stream(self) -> bool:
        return any(lease.kind in STREAMS for lease in self._leases)

    def counts(self) -> dict[LeaseKind, int]:
        """The number of leases of each kind."""
        counts: dict[LeaseKind, int] = dict.fromkeys(LEASE_KINDS, 0)
        for lease in self._leases:
            counts[lease.kind] += 1
        return counts

    def oldest_s(self) -> Mapping[LeaseKind, float]:
        """Unix time of the oldest lease of each kind that has one."""
        oldest_s: dict[LeaseKind, float] = {}
        for lease in self._leases:
            oldest_s[lease.kind] = min(lease.since_s, oldest_s.get(lease.kind, lease.since_s))
        return oldest_s
