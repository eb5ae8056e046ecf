"""A hook that writes date and time into the lower left corner of the image.

soft_stream.py --hook integrations.hooks.stamp:stamp
"""

import time

from softcam.hook_api import Image, Metadata, draw_text, text_size

_SHARE = 0.035  # height of the letters, as a share of the image


def stamp(image: Image, metadata: Metadata) -> Image:
    """Draw the time of the exposure, in the local time zone."""
    taken_s = metadata["timestamp"]
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(taken_s)) + f".{int(taken_s % 1 * 10)}"
    scale = max(1.0, image.shape[0] * _SHARE / 7)
    width, height = text_size(text, scale)
    margin = round(2 * scale)
    top, left = image.shape[0] - height - 2 * margin, margin
    # Darken the background, so that the text is legible on white.
    background = image[max(0, top - margin) : top + height + margin, left : left + width + margin]
    background //= 3
    for channel in range(3):
        draw_text(image[:, :, channel], text, left + margin, top, scale)
    return image
