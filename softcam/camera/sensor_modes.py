"""The readout modes of a sensor, and which of them fits a stream; docs/decisions/0005-sensor-mode.md has the reasons.

Pure values, for any thread. Sizes are (width, height) in pixels, rates in frames per second.
"""

from dataclasses import dataclass
from typing import Final, Literal

# scale: the whole field of view at every size; crop: the sensor's middle, a pixel of it for each pixel of the image
FovMode = Literal["scale", "crop"]
Size = tuple[int, int]
Rectangle = tuple[int, int, int, int]  # x, y, width, height

# A mode without a few rows shows practically the whole field of view: an imx219's 1600x1200 has 95.03 %.
_FULL_FIELD: Final = 0.95
_RATE_SLACK: Final = 0.98  # the rates of modes are rounded: 29.97 is 30
_DENSITY_SLACK: Final = 0.99  # an ov5647's 1920x1080 reads 1928 columns


@dataclass(frozen=True, slots=True)
class SensorMode:
    """One mode: the size of its images, its highest rate, and `crop`, the part of the pixel array that it reads."""

    size: Size
    bit_depth: int
    fps: float
    crop: Rectangle

    @property
    def area(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def density(self) -> float:
        """The share of the pixels in a row that it delivers: 1 for a pixel of the sensor for each of the image."""
        return self.size[0] / self.crop[2]

    @property
    def is_one_to_one(self) -> bool:
        return self.density >= _DENSITY_SLACK

    def is_large(self, size: Size) -> bool:
        """Whether an image of `size` can be made without enlarging."""
        return self.size[0] >= size[0] and self.size[1] >= size[1]

    def is_fast(self, fps: float) -> bool:
        return self.fps >= fps * _RATE_SLACK


@dataclass(frozen=True, slots=True)
class SensorModes:
    """The modes of one sensor, at least one, with the size of its pixel array.

    Behind a wide lens (`is_wide`), modes that show less than the whole field of view are not used for the sake of a
    frame rate.
    """

    array_size: Size
    modes: tuple[SensorMode, ...]
    is_wide: bool = False

    def field(self, mode: SensorMode) -> float:
        """The share of the pixel array that a mode shows, from 0 to 1."""
        return mode.crop[2] * mode.crop[3] / (self.array_size[0] * self.array_size[1])

    def is_full(self, mode: SensorMode) -> bool:
        """Whether a mode shows the whole field of view."""
        return self.field(mode) >= _FULL_FIELD

    @property
    def scaled(self) -> tuple[SensorMode, ...]:
        """The modes for `scale`."""
        full = tuple(mode for mode in self.modes if self.is_full(mode)) if self.is_wide else ()
        return full or self.modes

    def choose_mode(self, size: Size, fps: float, fov: FovMode = "scale") -> SensorMode:
        """The mode for frames of `size` at `fps`, 0 for any rate.

        For `crop` see `_choose_detailed`. For `scale`, of the modes that are large and fast enough, it is the smallest
        with the whole field of view; if only cropped ones are fast enough, the one with the largest field. If none is
        both, a lower rate is accepted, and then a smaller size. Between equal modes the one with more bits is chosen.
        """
        if fov == "crop":
            return self._choose_detailed(size, fps)
        modes = self.scaled
        large = [mode for mode in modes if mode.is_large(size)]
        if not large:
            return max(modes, key=lambda mode: (self.is_full(mode), mode.area, mode.is_fast(fps), mode.bit_depth))
        fast = [mode for mode in large if mode.is_fast(fps)]
        if not fast:
            return max(large, key=lambda mode: (self.is_full(mode), mode.fps, -mode.area, mode.bit_depth))
        full = [mode for mode in fast if self.is_full(mode)]
        if full:
            return min(full, key=lambda mode: (mode.area, -mode.bit_depth))
        return min(fast, key=lambda mode: (-self.field(mode), mode.area, -mode.bit_depth))

    def highest_fps(self, size: Size, fov: FovMode = "scale") -> float:
        """The highest rate at which `choose_mode` delivers frames of `size`."""
        return max(self.choose_mode(size, mode.fps, fov).fps for mode in self.modes)

    def _choose_detailed(self, size: Size, fps: float) -> SensorMode:
        """The mode for the middle `size` pixels of the sensor: the smallest that reads each of them; crops are central.

        If none of those is fast enough, a lower rate is accepted, rather than an enlarged image. If there are none, as
        with a sensor's HDR, the mode that combines the fewest pixels is chosen.
        """
        width, height = (min(side, whole) for side, whole in zip(size, self.array_size, strict=True))
        complete = [mode for mode in self.modes if mode.crop[2] >= width and mode.crop[3] >= height] or self.modes
        density = max(mode.density for mode in complete)
        detailed = [mode for mode in complete if mode.density >= density * _DENSITY_SLACK]
        fast = [mode for mode in detailed if mode.is_fast(fps)]
        if fast:
            return min(fast, key=lambda mode: (mode.area, -mode.bit_depth))
        return max(detailed, key=lambda mode: (mode.fps, -mode.area, mode.bit_depth))
