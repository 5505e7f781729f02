"""Brackets put together again: an access_begin and the access_end that belongs to it become one line of the timeline.

The k-th end of a range, side and use of a buffer closes the k-th begin that is open. Where events were lost, ends
without a begin and begins without an end stay; both are counted and shown as such.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import kinds
from .kinds import Columns


@dataclass
class Pairs:
    """Indices of events. begins[i] was closed by ends[i]."""

    begins: np.ndarray
    ends: np.ndarray
    open_begins: np.ndarray
    lone_ends: np.ndarray


def _keys(events: Columns) -> np.ndarray:
    """Equal for brackets of one range, side and use of one buffer."""
    key = events["buffer"] * np.uint64(0x9E3779B97F4A7C15)
    for column in ("offset_bytes", "size_bytes", "side", "use"):
        key = (key ^ (key >> np.uint64(29)) ^ events[column]) * np.uint64(0xBF58476D1CE4E5B9)
    return key


def pair(events: Columns) -> Pairs:
    """Pairs the brackets of events that are in the order of time."""
    begin = kinds.mask(events, "access_begin") & kinds.succeeded(events)
    which = np.flatnonzero(begin | kinds.mask(events, "access_end", "access_abort"))
    order = np.argsort(_keys(events[which]), kind="stable")
    which = which[order]
    key = _keys(events[which])
    opens = begin[which]
    if len(which) == 0:
        return Pairs(which, which, which, which)

    # How many are open after each event of a key, and the least that this ever was: an end that makes it less than
    # all before has no begin. Each key starts below all that came before it, so that one running minimum serves all.
    starts = np.concatenate(([True], key[1:] != key[:-1]))
    segment = np.cumsum(starts) - 1
    level = np.cumsum(np.where(opens, 1, -1))
    before = np.where(starts, level - np.where(opens, 1, -1), 0)
    level = level - before[np.flatnonzero(starts)][segment]
    drop = np.int64(len(which) + 1) * segment
    least = np.minimum.accumulate(np.minimum(level, 0) - drop) + drop
    earlier = np.concatenate(([0], least[:-1]))
    earlier[starts] = 0
    lone = ~opens & (least < earlier)

    kept = ~lone
    segment, opens, place = segment[kept], opens[kept], which[kept]
    begins, ends = np.flatnonzero(opens), np.flatnonzero(~opens)
    # The k-th begin and the k-th end of a key: both lists are in the order of keys.
    count = int(segment.max(initial=0)) + 1
    have = np.bincount(segment[begins], minlength=count)
    closed = np.bincount(segment[ends], minlength=count)
    rank = np.arange(len(begins)) - (np.cumsum(have) - have)[segment[begins]]
    paired = rank < closed[segment[begins]]
    return Pairs(place[begins[paired]], place[ends], place[begins[~paired]], which[lone])
