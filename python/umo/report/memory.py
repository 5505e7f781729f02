"""Memory over time: what each scope holds, and what pools keep without using it.

alloc less free is a scope's live memory (docs/profiling.md). A recording that starts in the middle of a program's life,
or has lost its beginning, does not say what was there before: at least as much as is given back more than was taken.
That least is the base from which the line starts.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from . import kinds
from .kinds import Columns

SHOWN = 7  # scopes with a colour of their own
EXACT = 20_000  # steps that are kept as they are
BINS = 4096  # else so many, each at its highest point


@dataclass
class Memory:
    """Steps: at times[i] a scope's level became levels[scope][i]. `scopes` ends with None: all others."""

    times: np.ndarray
    scopes: list[int | None]
    levels: np.ndarray
    idle: np.ndarray
    exact: bool
    peak_bytes: int = 0
    peak_ns: int = 0
    idle_peak_bytes: int = 0
    base_bytes: int = 0
    peaks: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)


def _scope_levels(scope: np.ndarray, delta: np.ndarray) -> dict[int, tuple[int, int, int]]:
    """Each scope's base, peak and end."""
    order = np.argsort(scope, kind="stable")
    found: dict[int, tuple[int, int, int]] = {}
    if len(order) == 0:
        return found
    bounds = np.flatnonzero(np.concatenate(([True], np.diff(scope[order]) != 0, [True])))
    for start, end in zip(bounds[:-1], bounds[1:], strict=True):
        rows = order[start:end]
        level = np.cumsum(delta[rows])
        base = max(0, -int(level.min()))
        found[int(scope[rows[0]])] = (base, base + int(level.max(initial=0)), base + int(level[-1]))
    return found


def _idle(events: Columns, live: np.ndarray) -> np.ndarray:
    """What pools hold and nobody uses: live memory, less what has no pool, less what is taken from pools.

    A block is a little longer than what was asked for; that counts as idle.
    """
    took = kinds.mask(events, "pool_hit", "pool_miss", "pool_take")
    gave = kinds.mask(events, "pool_give")
    pooled = np.unique(events["buffer"][took | gave])
    size = events["size_bytes"].astype(np.int64)
    used = np.cumsum(np.where(took, size, np.where(gave, -size, 0)))
    used += max(0, -int(used.min(initial=0)))
    alone = (events["buffer"] != 0) & ~np.isin(events["buffer"], pooled)
    apart = np.cumsum(np.where(alone, live, 0))
    apart += max(0, -int(apart.min(initial=0)))
    return apart + used


def _pick(times: np.ndarray, total: np.ndarray, duration_ns: int) -> tuple[np.ndarray, bool]:
    """Which steps are kept: all, or of each bin the highest."""
    if len(times) <= EXACT:
        return np.arange(len(times)), True
    bins = (times.astype(np.float64) * (BINS / max(1, duration_ns + 1))).astype(np.int64)
    order = np.lexsort((-total, bins))
    first = np.concatenate(([True], np.diff(bins[order]) != 0))
    return np.sort(order[first]), False


def over_time(events: Columns, duration_ns: int) -> Memory:
    """Reads the memory's levels out of events in the order of time."""
    done = kinds.succeeded(events)
    step = done & kinds.mask(events, "alloc", "free", "pool_hit", "pool_miss", "pool_take", "pool_give")
    events = events[step]
    size = events["size_bytes"].astype(np.int64)
    live = np.where(kinds.mask(events, "alloc"), size, np.where(kinds.mask(events, "free"), -size, np.zeros_like(size)))
    moved = live != 0
    scopes = _scope_levels(events["scope"][moved], live[moved])
    base = sum(found[0] for found in scopes.values())
    total = base + np.cumsum(live)
    not_idle = _idle(events, live)
    kept, exact = _pick(events["time_ns"], total, duration_ns)
    largest = sorted(scopes, key=lambda scope: -scopes[scope][1])
    shown: list[int | None] = [scope for scope in largest[:SHOWN] if scopes[scope][1] > 0]
    rows = []
    for scope in shown:
        rows.append(scopes[scope][0] + np.cumsum(np.where(events["scope"] == scope, live, 0))[kept])
    rows.append(total[kept] - sum(rows, np.zeros(len(kept), np.int64)))
    idle = np.maximum(total - not_idle, 0) if kinds.mask(events, "pool_give").any() else np.zeros_like(total)
    memory = Memory(events["time_ns"][kept], [*shown, None], np.array(rows, np.int64), idle[kept], exact)
    if len(total):
        memory.peak_bytes, memory.peak_ns = int(total.max()), int(events["time_ns"][int(total.argmax())])
        memory.idle_peak_bytes, memory.base_bytes = int(idle.max()), base
    memory.peaks = {scope: found[1] for scope, found in scopes.items()}
    memory.ends = {scope: found[2] for scope, found in scopes.items()}
    return memory
