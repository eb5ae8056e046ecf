"""Creates the images that the first virtual camera shows: `take_pictures.py WHEEL FOLDER`, run once inside the root.

They are photographs in scikit-image's wheel, each in the public domain or under CC0 according to the documentation of
`skimage.data`: astronaut and hubble_deep_field (NASA), chelsea (Stefan van der Walt), coffee (Rachel Michetti), rocket
(SpaceX), retina (Wikimedia Commons, Mikael Haggstrom).
"""

import io
import pathlib
import sys
import zipfile

from PIL import Image, ImageOps

PICTURES = ("astronaut.png", "coffee.png", "rocket.jpg", "chelsea.png", "hubble_deep_field.jpg", "retina.jpg")
SIZE = (1920, 1080)


def main(wheel: str, folder: str) -> None:
    pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(wheel) as archive:
        for number, name in enumerate(PICTURES):
            picture = Image.open(io.BytesIO(archive.read(f"skimage/data/{name}"))).convert("RGB")
            # libcamera reads files from number zero to the first one that is missing.
            ImageOps.fit(picture, SIZE, Image.Resampling.BICUBIC).save(
                pathlib.Path(folder, f"{number}.jpg"), quality=92, subsampling="4:2:0"
            )


if __name__ == "__main__":
    main(*sys.argv[1:])
