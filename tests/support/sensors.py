"""The sensors of Raspberry Pi's camera modules: the pixel array, and the modes that Picamera2 lists for each."""

from collections.abc import Sequence

from softcam.camera.sensor_modes import SensorMode, SensorModes, Size

Row = tuple[tuple[int, int], int, float, tuple[int, int, int, int]]  # size, bits, fps, crop

IMX708 = (4608, 2592)
IMX219 = (3280, 2464)
IMX477 = (4056, 3040)
OV5647 = (2592, 1944)
_TABLES: dict[Size, Sequence[Row]] = {
    IMX708: [
        ((1536, 864), 10, 120.13, (768, 432, 3072, 1728)),
        ((2304, 1296), 10, 56.03, (0, 0, 4608, 2592)),
        ((4608, 2592), 10, 14.35, (0, 0, 4608, 2592)),
    ],
    IMX219: [
        ((640, 480), 10, 206.65, (1000, 752, 1280, 960)),
        ((1640, 1232), 10, 41.85, (0, 0, 3280, 2464)),
        ((1920, 1080), 10, 47.57, (680, 692, 1920, 1080)),
        ((3280, 2464), 10, 21.19, (0, 0, 3280, 2464)),
        ((640, 480), 8, 206.65, (1000, 752, 1280, 960)),
        ((1640, 1232), 8, 83.7, (0, 0, 3280, 2464)),
        ((1920, 1080), 8, 47.57, (680, 692, 1920, 1080)),
        ((3280, 2464), 8, 21.19, (0, 0, 3280, 2464)),
    ],
    IMX477: [
        ((1332, 990), 10, 120.05, (696, 528, 2664, 1980)),
        ((2028, 1080), 12, 50.03, (0, 440, 4056, 2160)),
        ((2028, 1520), 12, 40.01, (0, 0, 4056, 3040)),
        ((4056, 3040), 12, 10.0, (0, 0, 4056, 3040)),
    ],
    OV5647: [
        ((640, 480), 10, 58.92, (16, 0, 2560, 1920)),
        ((1296, 972), 10, 43.25, (0, 0, 2592, 1944)),
        ((1920, 1080), 10, 30.62, (348, 434, 1928, 1080)),
        ((2592, 1944), 10, 15.63, (0, 0, 2592, 1944)),
    ],
}


def modes_of(array_size: Size, *, is_wide: bool = False) -> SensorModes:
    return SensorModes(array_size, tuple(SensorMode(*row) for row in _TABLES[array_size]), is_wide)
