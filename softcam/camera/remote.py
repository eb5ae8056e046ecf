"""What the holder asks of a camera that belongs to another program or machine, beyond `Camera`.

Such a camera goes and comes back as it likes, maybe with a picture of another size. That is nobody's fault here, and no
restart of anything would better it: it is waited for. No thread of its own.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from softcam.camera.base import StreamMode


@runtime_checkable
class Remote(Protocol):
    """Any thread may ask."""

    @property
    def absence(self) -> str | None:
        """Why there are no frames now, in a line for people and without secrets; None while they come."""

    @property
    def mode(self) -> StreamMode:
        """As `open` gave it, but for what has changed since; replaced before the first frame that differs."""

    def give_up(self) -> None:
        """The portal ends: an `open` that waits for a picture waits no longer."""

    def tell_absence(self, told: Callable[[], None]) -> None:
        """`told` is called whenever it goes, on the camera's own thread."""
