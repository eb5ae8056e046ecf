"""Measures simplejpeg alone, on the planes of a reel's JPEGs.

    encode.py REEL [QUALITY]

Prints one JSON object with the median CPU milliseconds per encode. One thread.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import simplejpeg
from reel import read_reel

ROUNDS = 4


def to_planes(jpeg: bytes) -> list[np.ndarray]:
    """Y, U and V of a JPEG in 4:2:0, full range; equal to the camera's planes except for rounding."""
    red, green, blue = np.moveaxis(simplejpeg.decode_jpeg(jpeg).astype(np.float32), 2, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [luma]
    for colour, scale in ((blue, 0.564), (red, 0.713)):
        chroma = (colour - luma) * scale + 128
        height, width = chroma.shape[0] // 2, chroma.shape[1] // 2
        planes.append(chroma[: height * 2, : width * 2].reshape(height, 2, width, 2).mean(axis=(1, 3)))
    return [np.ascontiguousarray(np.clip(plane.round(), 0, 255).astype(np.uint8)) for plane in planes]


def main() -> None:
    pictures = read_reel(Path(sys.argv[1]))[:10]
    quality = int(sys.argv[2]) if len(sys.argv) > 2 else 80
    costs_ms = []
    for planes in [to_planes(picture) for picture in pictures]:
        for _ in range(ROUNDS):
            began_ns = time.thread_time_ns()
            simplejpeg.encode_jpeg_yuv_planes(*planes, quality=quality)
            costs_ms.append((time.thread_time_ns() - began_ns) / 1e6)
    print(json.dumps({"encode_cpu_ms": statistics.median(costs_ms), "encodes": len(costs_ms)}))


if __name__ == "__main__":
    main()
