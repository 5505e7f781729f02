"""A photograph of twelve megapixels, from one that ships inside scikit-image: nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTH, HEIGHT = 4000, 3000


def photo(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 [height, width, 3], RGB: a cup of coffee (Rachel Michetti, CC0), cut to shape and scaled up."""
    import skimage.data
    from PIL import Image

    picture = Image.fromarray(skimage.data.coffee())
    # The largest part of the picture with the asked proportions, from its middle.
    cut_width = min(picture.width, round(picture.height * width / height))
    cut_height = min(picture.height, round(picture.width * height / width))
    left, top = (picture.width - cut_width) // 2, (picture.height - cut_height) // 2
    box = (left, top, left + cut_width, top + cut_height)
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC, box=box))


def cached_photo(folder: Path, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """photo(), kept as a file, because scaling takes longer than reading."""
    path = folder / f"photo_{width}x{height}.npy"
    if path.exists():
        return np.load(path)
    picture = photo(width, height)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npy")
    np.save(part, picture)
    part.replace(path)
    return picture
