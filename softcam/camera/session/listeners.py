"""Forwards the events of a camera session to all its listeners."""

from collections.abc import Mapping
from typing import Any

from softcam.camera.base import SessionListener, StreamConfig
from softcam.errors import CameraError


class ListenerGroup:
    """A `SessionListener` that forwards each event to all its listeners, in the order of subscription."""

    def __init__(self) -> None:
        self._listeners: tuple[SessionListener, ...] = ()  # complete before the first lease, so it needs no lock

    def subscribe(self, listener: SessionListener) -> None:
        self._listeners = (*self._listeners, listener)

    def on_opening(self) -> None:
        for listener in self._listeners:
            listener.on_opening()

    def on_configured(self, config: StreamConfig) -> None:
        for listener in self._listeners:
            listener.on_configured(config)

    def on_open_failed(self, error: CameraError) -> bool:
        """Whether any listener reverted something; all of them are notified."""
        results = [listener.on_open_failed(error) for listener in self._listeners]
        return any(results)

    def on_stall(self) -> None:
        for listener in self._listeners:
            listener.on_stall()

    def on_frame(self, metadata: Mapping[str, Any], *, is_settled: bool) -> None:
        for listener in self._listeners:
            listener.on_frame(metadata, is_settled=is_settled)

    def on_closing(self) -> None:
        for listener in self._listeners:
            listener.on_closing()

    def on_closed(self) -> None:
        for listener in self._listeners:
            listener.on_closed()
