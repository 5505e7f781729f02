"""Writes the files of numbers that the examples dequantise and convolution read.

make_weights.py [FOLDER]      FOLDER is a model repository, by default the folder of this file
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

CHANNELS = 64
PLANES, FEATURES = 3, 16


def scales() -> tuple[np.ndarray, np.ndarray]:
    """A scale and a zero point for each channel."""
    rng = np.random.default_rng(1)
    scale = rng.uniform(0.001, 0.1, CHANNELS).astype("<f4")
    zero = rng.integers(-20, 21, CHANNELS).astype("i1")
    return scale, zero


def filters() -> tuple[np.ndarray, np.ndarray]:
    """Filters as (plane, y, x, feature), and a bias for each feature."""
    rng = np.random.default_rng(2)
    weights = (rng.standard_normal((PLANES, 3, 3, FEATURES)) / np.sqrt(9 * PLANES)).astype("<f4")
    bias = (0.1 * rng.standard_normal(FEATURES)).astype("<f4")
    return weights, bias


def write(folder: Path) -> None:
    """One file for each model that the folder has: its arrays one behind the other."""
    for model, name, arrays in (("dequantise", "scales.bin", scales()), ("convolution", "filters.bin", filters())):
        if (folder / model / "1").is_dir():
            (folder / model / "1" / name).write_bytes(b"".join(array.tobytes() for array in arrays))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
