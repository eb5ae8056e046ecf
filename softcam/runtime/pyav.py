"""Imports PyAV late, so that a process that does not use it never loads it; its only importer. Any thread."""

from typing import Any

from softcam.errors import NotSupported


def import_pyav(feature: str) -> Any:
    """The module `av` with `av.video.reformatter`. Raises NotSupported, naming the `feature`, if it is missing."""
    try:
        import av
        import av.video.reformatter
    except ImportError as error:
        raise NotSupported(f"{feature} requires PyAV (Debian package python3-av): {error}") from error
    return av
