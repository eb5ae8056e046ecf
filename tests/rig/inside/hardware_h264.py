"""Replaces Picamera2's class for the hardware encoder of a Raspberry Pi 4 in processes with `RIG_H264` set.

The test machine has no such encoder. This one is Picamera2's software encoder, which has the same base class, requests
and outputs. `RIG_H264` selects its behaviour: `well`; `behind` buffers frames before it encodes them; `silent` delivers
no more packets after some frames and does not release the frames that it has; `broken` does not start.
"""

import os
import pathlib
from typing import Any

import av
from picamera2.encoders.libav_h264_encoder import LibavH264Encoder
from picamera2.request import MappedArray

_FRAMES_UNTIL_SILENCE = 40

pathlib.Path("/dev/video11").touch()  # the rig has its own /dev


class H264Encoder(LibavH264Encoder):
    def start(self, quality: Any = None) -> None:
        print(
            f"rig: encoder for {self.width}x{self.height} {self.format} at {self.bitrate}, {self.profile}", flush=True
        )
        if os.environ["RIG_H264"] == "broken":
            raise OSError(12, "Cannot allocate memory")
        # Picamera2 runs libx264 with frame threads: each additional thread buffers one more frame.
        self.threads = 3 if os.environ["RIG_H264"] == "behind" else 1
        super().start(quality)

    def stop(self) -> None:
        super().stop()
        print(f"rig: encoder stopped after {self.frames_encoded} frames", flush=True)

    def _start(self) -> None:
        super()._start()
        self._stream.codec_context.options["forced-idr"] = "1"  # as with the hardware encoder

    def _encode(self, stream: str, request: Any) -> None:
        if os.environ["RIG_H264"] == "silent" and self.frames_encoded >= _FRAMES_UNTIL_SILENCE:
            request.acquire()
            return
        # As in the base class, which uses a name for keyframes that PyAV 14 and newer do not have.
        request.acquire()
        self._request_release_queue.append(request)
        with MappedArray(request, stream) as mapped:
            frame = av.VideoFrame.from_numpy_buffer(mapped.array, format=self._av_input_format, width=self.width)
            frame.pts = self._timestamp(request)
            if self._key_frames_requested > self._key_frames_generated:  # type: ignore[has-type]  # of the base class
                self._key_frames_generated = self._key_frames_requested
                frame.pict_type = 1
            for packet in self._stream.encode(frame):
                self.outputframe(bytes(packet), packet.is_keyframe, timestamp=packet.pts, packet=packet)
        while len(self._request_release_queue) > self._request_release_delay:
            self._request_release_queue.popleft().release()
