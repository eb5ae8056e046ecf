"""Stands where Picamera2 has its class for the encoder of a Raspberry Pi 4, in a process with `RIG_H264` set.

The machine of the tests has no such encoder. Here is Picamera2's own software one, which has the same base class, takes
the same requests and writes to the same outputs. `RIG_H264` says how it does: `well`; `behind`, when it holds frames
back until it has more; `silent`, when it gives nothing any more after some frames, and keeps those it has; `broken`,
when it does not start.
"""

import os
import pathlib

import av
from picamera2.encoders.libav_h264_encoder import LibavH264Encoder
from picamera2.request import MappedArray

_FRAMES_UNTIL_SILENCE = 40

pathlib.Path("/dev/video11").touch()  # the rig has its own /dev


class H264Encoder(LibavH264Encoder):
    def start(self, quality=None):
        print(
            f"rig: encoder for {self.width}x{self.height} {self.format} at {self.bitrate}, {self.profile}", flush=True
        )
        if os.environ["RIG_H264"] == "broken":
            raise OSError(12, "Cannot allocate memory")
        # Picamera2 has libx264 encode frames side by side: each thread more is a frame more that it holds back.
        self.threads = 3 if os.environ["RIG_H264"] == "behind" else 1
        super().start(quality)

    def stop(self):
        super().stop()
        print(f"rig: encoder stopped after {self.frames_encoded} frames", flush=True)

    def _start(self):
        super()._start()
        self._stream.codec_context.options["forced-idr"] = "1"  # as the hardware's are

    def _encode(self, stream, request):
        if os.environ["RIG_H264"] == "silent" and self.frames_encoded >= _FRAMES_UNTIL_SILENCE:
            request.acquire()
            return
        # As in the base class, which asks for a keyframe with a word that PyAV 14 and newer do not know.
        request.acquire()
        self._request_release_queue.append(request)
        with MappedArray(request, stream) as mapped:
            frame = av.VideoFrame.from_numpy_buffer(mapped.array, format=self._av_input_format, width=self.width)
            frame.pts = self._timestamp(request)
            if self._key_frames_requested > self._key_frames_generated:
                self._key_frames_generated = self._key_frames_requested
                frame.pict_type = 1
            for packet in self._stream.encode(frame):
                self.outputframe(bytes(packet), packet.is_keyframe, timestamp=packet.pts, packet=packet)
        while len(self._request_release_queue) > self._request_release_delay:
            self._request_release_queue.popleft().release()
