"""Reads an RTSP stream with PyAV or OpenCV for some seconds, as a separate program, and prints the number of frames.

    python rtsp_readers.py pyav|opencv tcp|udp URL SECONDS

PyAV only receives, OpenCV decodes too. What their FFmpeg warns about is printed to the standard error.
"""

import os
import sys
import time


def read_with_pyav(transport: str, url: str, seconds: float) -> int:
    import av
    import av.logging

    av.logging.set_level(av.logging.WARNING)
    frames = 0
    with av.open(url, options={"rtsp_transport": transport}) as container:
        until_s = time.monotonic() + seconds
        for packet in container.demux(video=0):
            frames += packet.size > 0
            if time.monotonic() > until_s:
                break
    return frames


def read_with_opencv(transport: str, url: str, seconds: float) -> int:
    os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = f"rtsp_transport;{transport}"
    import cv2

    capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG)
    until_s = time.monotonic() + seconds
    frames = 0
    while time.monotonic() < until_s and capture.read()[0]:
        frames += 1
    capture.release()
    return frames


def main(arguments: list[str]) -> None:
    library, transport, url, seconds = arguments
    read = {"pyav": read_with_pyav, "opencv": read_with_opencv}[library]
    print(read(transport, url, float(seconds)))


if __name__ == "__main__":
    main(sys.argv[1:])
