"""The table of built-in presets, for any camera: what one does not support is left out when it is applied.

The values are chosen for the sensors of Raspberry Pi cameras. Their lenses have a fixed aperture, so exposure time and
gain are all that can be varied. An automatic exposure never exceeds a frame: low light requires a low frame rate.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from softcam.controls.presets import Preset
from softcam.controls.state import Values


def _built_in(name: str, title: str, description: str, **controls: Values) -> Preset:
    return Preset(name, MappingProxyType(controls), title=title, description=description, is_built_in=True)


BUILT_IN: Final[Mapping[str, Preset]] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _built_in(
                "normal",
                "Normal",
                "Everything automatic, at the configured frame rate.",
            ),
            _built_in(
                "low-light",
                "Low light",
                "Still scenes in the evening or in dim rooms: exposures of up to 1/8 s instead of noise, and slightly "
                "brighter. What moves is blurred; 8 frames per second.",
                # 125 ms for an exposure, of which libcamera's mode long uses 120. The best noise reduction has time.
                stream={"fps": 8.0},
                ae_exposure_mode={"mode": "long"},
                ae_constraint_mode={"mode": "shadows"},
                image_processing={"noise_reduction": "high_quality", "exposure_value": 0.5, "sharpness": 0.8},
            ),
            _built_in(
                "low-light-motion",
                "Low light with movement",
                "People and animals in dim light: at most 1/50 s, so that a walking person is sharp, and as much gain "
                "as that requires. Noisier and darker than low-light; 25 frames per second.",
                # 20 ms are two periods of lamps on 50 Hz mains, so they do not flicker.
                stream={"fps": 25.0},
                ae_exposure_mode={"mode": "short"},
                exposure_limits={"max_exposure_us": 20_000},
                image_processing={"noise_reduction": "fast", "exposure_value": 0.5, "sharpness": 0.8},
            ),
            _built_in(
                "night-infrared",
                "Night with infrared",
                "For cameras without an infrared filter, under an infrared lamp: monochrome, with fixed white balance "
                "and more contrast. The whole image is metered and highlights are protected, as what is close reflects "
                "most of the lamp; 15 frames per second.",
                stream={"fps": 15.0},
                ae_constraint_mode={"mode": "highlight"},
                awb_preset={"preset": "ir_850nm"},
                # Infrared images are flat. One cycle of autofocus: continuous focus hunts in the dark.
                image_processing={
                    "saturation": 0.0,
                    "contrast": 1.2,
                    "metering": "matrix",
                    "noise_reduction": "high_quality",
                    "sharpness": 0.8,
                },
                autofocus_mode={"mode": "auto"},
                autofocus_range={"range_mode": "full"},
            ),
            _built_in(
                "sports",
                "Sports",
                "Fast movement in good light: at most 1/500 s, 50 frames per second, and continuous autofocus at high "
                "speed. Images are dark indoors.",
                # Faster modes of a Camera Module 3 show the middle of the image only.
                stream={"fps": 50.0},
                ae_exposure_mode={"mode": "short"},
                exposure_limits={"max_exposure_us": 2_000},
                image_processing={"noise_reduction": "fast"},
                autofocus_mode={"mode": "continuous"},
                autofocus={"speed": "fast"},
            ),
            _built_in(
                "long-exposure",
                "Long exposure",
                "Light trails, night skies and landscapes on a tripod: a fixed exposure of 2 s at the lowest gain, "
                "colours of daylight, and the focus kept where it is. Adapt exposure time and gain to the light, then "
                "save that as a preset.",
                manual_exposure={"exposure_us": 2_000_000, "gain": 1.0},
                # The automatics would need many frames of two seconds each.
                awb_preset={"preset": "daylight"},
                image_processing={"noise_reduction": "high_quality"},
                autofocus_mode={"mode": "manual"},
            ),
            _built_in(
                "3d-print",
                "3D print",
                "The print in focus, and a head that is sharp while it moves: at most 1/50 s. The whole image is "
                "metered, so that the head does not change the brightness, and white prints keep their structure. "
                "Autofocus runs once, as continuous focus would follow the head; 15 frames per second.",
                stream={"fps": 15.0},
                ae_constraint_mode={"mode": "highlight"},
                exposure_limits={"max_exposure_us": 20_000},
                image_processing={"metering": "matrix", "noise_reduction": "fast"},
                autofocus_mode={"mode": "auto"},
            ),
        )
    }
)
