"""Events by the names of their kinds, so that a kind that this or that version of umo lacks is simply never found."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .. import profile as recording
from ..profile import labels

# What a report counts as bytes that went somewhere, and as bytes that did not have to.
MOVED = ("transfer_performed", "copy")
SAVED = ("transfer_eliminated", "copy_avoided")
TRANSFERS = ("transfer_performed", "transfer_eliminated")
COPIES = ("copy", "copy_avoided")


class Columns:
    """Events as columns: what NumPy's records are to read, but a column is one piece of memory, made when it is first
    asked for. Chosen with rows (a mask, places, a slice) it is the same of these rows; with a number, one event."""

    def __init__(self, source: Any, rows: Any = None) -> None:
        self._source, self._rows = source, rows
        self._known: dict[str, np.ndarray] = {}

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, str):
            return Columns(self, key)
        if key not in self._known:
            column = self._source[key]
            self._known[key] = np.ascontiguousarray(column) if self._rows is None else column[self._rows]
        return self._known[key]

    def __len__(self) -> int:
        return len(self["kind"])

    def __iter__(self) -> Iterator[Columns]:
        return (self[i] for i in range(len(self)))


def number(name: str) -> int:
    """A kind's number; one that no event has where there is no such kind."""
    return recording.KINDS.index(name) if name in recording.KINDS else 0xFF


def mask(events: Columns, *names: str) -> np.ndarray:
    """Which events are of one of these kinds."""
    wanted = np.zeros(256, bool)
    wanted[[number(name) for name in names]] = True
    wanted[0xFF] = False
    return wanted[events["kind"]]


def succeeded(events: Columns) -> np.ndarray:
    """Which events are of something that was done and not refused."""
    return events["status"] == 0


def ranks(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values that occur, in their order, and each row's place among them; np.unique, but small numbers are counted
    instead of sorted."""
    if column.dtype.kind in "ui" and len(column) and int(column.min()) >= 0 and int(column.max()) < 1 << 22:
        there = np.bincount(column) > 0
        return np.flatnonzero(there).astype(column.dtype), (np.cumsum(there) - 1)[column]
    values, inverse = np.unique(column, return_inverse=True)
    return values, inverse.reshape(-1)


def codes(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers rows that agree in all columns alike: (the number of each row, the first row of each number)."""
    combined = np.zeros(len(columns[0]), np.int64)
    count = 1
    for column in columns:
        values, inverse = ranks(column)
        if len(values) > 1:
            known, combined = ranks(combined * len(values) + inverse)
            count = len(known)
    first = np.zeros(count if len(combined) else 0, np.int64)
    first[combined[::-1]] = np.arange(len(combined) - 1, -1, -1)
    return combined, first


def sums(codes: np.ndarray, weights: np.ndarray, count: int) -> np.ndarray:
    """The sum of weights of each code, exact: a float has 53 bits, a byte count 64."""
    high = np.bincount(codes, (weights >> np.uint64(32)).astype(np.float64), minlength=count)
    low = np.bincount(codes, (weights & np.uint64(0xFFFFFFFF)).astype(np.float64), minlength=count)
    return high.astype(np.uint64) * np.uint64(1 << 32) + low.astype(np.uint64)


def word(words: tuple[str, ...], value: Any) -> str:
    """The label of a number; "" for one that has none."""
    return words[value] if value < len(words) else ""


def detail_words(header: str, enum: str, prefix: str) -> tuple[str, ...]:
    """The names of what an event's detail numbers; none where these headers do not have the enumeration."""
    try:
        return labels.enumerators(header, enum, prefix)
    except RuntimeError:
        return ()


def pressure_levels() -> tuple[str, ...]:
    return detail_words("pressure.h", "umo_pressure_level", "UMO_PRESSURE_")


def pressure_answers() -> tuple[str, ...]:
    return detail_words("pressure.h", "umo_pressure_answer", "UMO_PRESSURE_")


def patterns() -> tuple[str, ...]:
    """Of PATTERN: the new one in the detail's lowest byte, the one before in the next. Of PLACEMENT: the next byte."""
    return detail_words("access.h", "umo_pattern", "UMO_PATTERN_")


def whys() -> tuple[str, ...]:
    """Of PLACEMENT: the detail's lowest byte."""
    return detail_words("profile.h", "umo_placement_why", "UMO_WHY_")
