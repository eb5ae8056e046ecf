"""A hook that writes the date and time into the picture's lower left corner.

soft_stream.py --hook integrations.hooks.stamp:stamp
"""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from softcam.imaging.font import draw_text, text_size

_SHARE = 0.035  # of the picture's height


def stamp(image: npt.NDArray[np.uint8], metadata: Mapping[str, Any]) -> npt.NDArray[np.uint8]:
    """`image` is RGB (height, width, 3); `metadata["timestamp"]` the moment of the exposure, in Unix seconds."""
    taken_s = metadata["timestamp"]
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(taken_s)) + f".{int(taken_s % 1 * 10)}"
    scale = max(1.0, image.shape[0] * _SHARE / 7)
    width, height = text_size(text, scale)
    margin = round(2 * scale)
    top, left = image.shape[0] - height - 2 * margin, margin
    # Darkened behind the letters, so that they can be read on white, too.
    ground = image[max(0, top - margin) : top + height + margin, left : left + width + margin]
    ground //= 3
    for channel in range(3):
        draw_text(image[:, :, channel], text, left + margin, top, scale)
    return image
