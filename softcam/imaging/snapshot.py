"""A finished snapshot. An immutable value; any thread."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A JPEG, and the Unix time of its exposure."""

    jpeg: bytes
    taken_s: float
