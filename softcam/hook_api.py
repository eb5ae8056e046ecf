"""The public interface for frame hooks: `soft_stream.py --hook module:function`. See docs/hooks.md.

A hook is a function `hook(image, metadata)`, called for each frame on the thread `hook`:

- `image` is RGB, uint8, shape (height, width, 3), a copy that the function may modify.
- `metadata` is a mapping: libcamera's metadata of the frame by its control names (`ExposureTime`, `Lux`, …), and
  `timestamp` (Unix time of the exposure in seconds), `sequence` (number of the frame) and `portal` (URL of the portal).
- It returns the image to show, an array of the same shape and type, or None to show the frame unchanged.

An exception, or any other result, is counted and logged, and the frame is shown unchanged. Frames that arrive while the
function runs are dropped; after one second they bypass it. Snapshots are not passed to the hook.

Everything in `__all__` is stable: it changes only with a major version.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from softcam.imaging.font import draw_text, text_size

__all__ = ["HookFunction", "Image", "Metadata", "draw_text", "text_size"]

Image = npt.NDArray[np.uint8]
Metadata = Mapping[str, Any]
HookFunction = Callable[[Image, Metadata], Image | None]
