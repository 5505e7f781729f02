"""Floats that are recognised wherever they turn up: the neighbour's data, looked for in what an attacker gets."""

from __future__ import annotations

import numpy as np

_HIGH = 0x6B5A  # floats of about 2.6e26, positive or, after a negation, negative
_RUN = 3  # so many in a row: random bytes do not look like that, and what leaks is a piece of a tensor


def marked(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` floats that bear the mark, all else random."""
    return (rng.integers(0, 1 << 16, count, dtype=np.uint32) | np.uint32(_HIGH << 16)).view(np.float32)


def plain(rng: np.random.Generator, count: int) -> np.ndarray:
    """`count` floats of either sign that do not bear it."""
    return rng.random(count, np.float32) - np.float32(0.5)


def bears(data: bytes) -> bool:
    """Whether a piece of marked floats is in the bytes, at any alignment."""
    for shift in range(min(4, len(data) - 3)):
        words = np.frombuffer(data, "<u4", (len(data) - shift) // 4, shift)
        hits = (words >> np.uint32(16)) & np.uint32(0x7FFF) == _HIGH
        run = hits
        for ahead in range(1, _RUN):
            run = run[:-1] & hits[ahead:]
        if run.any():
            return True
    return False
