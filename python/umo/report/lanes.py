"""Which line of the timeline an event stands on.

A server wraps a client's memory anew for each request, so a recording may name a hundred thousand buffers that are
one thing to the reader: "the input of 2.25 MB of image_prep". Buffers that agree in whose they are, which way bytes go,
device, storage mode and size therefore share a lane; a buffer that is used often has one of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .. import profile as recording
from . import kinds
from .kinds import Columns
from .words import amount, many

FEW = 4  # buffers alike that still get a lane each
OFTEN = 200  # events that earn a buffer a lane
MOST_OWN = 96
MOST_SIZES = 12  # lanes of one scope that differ by size alone
MOST_LANES = 300

_SIZED = ("alloc", "free", "import", "import_hit", "release", "pool_hit", "pool_miss", "pool_give", "move", "pin")
_IN, _OUT, _HOST, _DEVICE = 1, 2, 4, 8
REQUESTS, RUNS, BUFFERS, COPIES, MEMORY, PROCESS = "requests", "runs", "buffers", "copies", "memory", "process"
_ORDER = (REQUESTS, RUNS, BUFFERS, COPIES, MEMORY, PROCESS)


@dataclass
class Lane:
    """One line. `buffer` is a buffer's number where the lane is its own, `buffers` how many share it."""

    scope: int
    what: str
    label: str
    buffer: int = 0
    buffers: int = 0
    role: str = ""
    device: int = 0
    modes: str = ""
    size_bytes: tuple[int, int] = (0, 0)
    events: int = 0


@dataclass
class Buffers:
    """What is known of each buffer, by its place in `numbers`."""

    numbers: np.ndarray
    of_event: np.ndarray
    scope: np.ndarray
    device: np.ndarray
    modes: np.ndarray
    size: np.ndarray
    ways: np.ndarray
    events: Columns


@dataclass
class Lanes:
    lanes: list[Lane] = field(default_factory=list)
    of_event: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))


def role(ways: int) -> str:
    """Which way a buffer's bytes go, seen from the model; or who uses it."""
    if ways & (_IN | _OUT):
        return {_IN: "in", _OUT: "out", _IN | _OUT: "in and out"}[ways & 3]
    return {0: "memory", _HOST: "host only", _DEVICE: "device only", _HOST | _DEVICE: "both sides"}[ways & 12]


def _buffers(events: Columns) -> Buffers:
    numbers, of_event = np.unique(events["buffer"], return_inverse=True)
    of_event = of_event.reshape(-1)
    count = len(numbers)
    found = Buffers(
        numbers, of_event, *(np.zeros(count, kind) for kind in (np.uint32, np.uint32, np.uint8, np.uint64, np.uint8)),
        np.bincount(of_event, minlength=count),
    )  # fmt: skip
    used = kinds.mask(events, "access_begin", "access_end", "access_abort")
    moved = kinds.mask(events, *kinds.TRANSFERS)
    # Whose a buffer is, is who uses it: a wrap that is kept for later belongs to the cache when it is let go.
    for rows in (np.arange(len(events)), np.flatnonzero(used | moved)):
        first, at = np.unique(of_event[rows], return_index=True)
        found.scope[first] = events["scope"][rows[at]]
    np.maximum.at(found.device, of_event, events["device"])
    moded = np.flatnonzero(events["mode"] < 8)
    np.bitwise_or.at(found.modes, of_event[moded], np.left_shift(1, events["mode"][moded]).astype(np.uint8))
    for rows, sizes in (
        (used, events["offset_bytes"] + events["size_bytes"]),
        (kinds.mask(events, *_SIZED), events["size_bytes"]),
    ):
        size = np.zeros(count, np.uint64)
        np.maximum.at(size, of_event[rows], sizes[rows])
        found.size[size > 0] = size[size > 0]
    np.bitwise_or.at(found.ways, of_event[moved], events["direction"][moved] & 3)
    side = np.where(events["side"] == 1, _HOST, _DEVICE).astype(np.uint8)
    np.bitwise_or.at(found.ways, of_event[used], side[used])
    return found


def _label(lane: Lane) -> str:
    low, high = lane.size_bytes
    size = amount(high) if low == high else f"{amount(low)} to {amount(high)}"
    if lane.buffer:
        return f"{lane.role}, {size}, #{lane.buffer}"
    return f"{lane.role}, {size}, {many(lane.buffers, 'buffer')}"


def _modes(bits: int) -> str:
    return " / ".join(name for index, name in enumerate(recording.MODES) if bits >> index & 1)


def _alike(found: Buffers, which: np.ndarray) -> np.ndarray:
    """A number for each of these buffers; the same for those that share a lane."""
    ways = np.where(found.ways & 3, found.ways & 3, found.ways)
    whose = [found.scope[which], ways[which], found.device[which], found.modes[which]]
    exact, first = kinds.codes(*whose, found.size[which])
    owner, _ = kinds.codes(*whose)
    sizes = np.bincount(owner[first], minlength=int(owner.max(initial=0)) + 1)
    rough = np.ceil(np.log2(np.maximum(found.size[which], 1).astype(np.float64)))
    return kinds.codes(*whose, np.where(sizes[owner] > MOST_SIZES, rough, found.size[which].astype(np.float64)))[0]


def _buffer_lanes(found: Buffers) -> tuple[list[Lane], np.ndarray]:
    """The lanes of buffers, and the lane of each buffer; -1 for events without one."""
    lane_of = np.full(len(found.numbers), -1, np.int32)
    which = np.flatnonzero(found.numbers != 0)
    if len(which) == 0:
        return [], lane_of
    group = _alike(found, which)
    own = (np.bincount(group)[group] <= FEW) | (found.events[which] >= OFTEN)
    busiest = np.argsort(-found.events[which][own], kind="stable")
    own[np.flatnonzero(own)[busiest[MOST_OWN:]]] = False
    group = np.where(own, group.max() + 1 + np.arange(len(which)), group)
    codes, first = kinds.codes(group)
    events = np.bincount(codes, found.events[which])
    if len(first) > MOST_LANES:
        # What is hardly used shares one lane a scope.
        spare = np.argsort(-events, kind="stable")[MOST_LANES:]
        rest = np.isin(codes, spare)
        codes = np.where(rest, len(first) + found.scope[which].astype(np.int64), codes)
        codes, first = kinds.codes(codes)
        events = np.bincount(codes, found.events[which])
    members = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    bounds = np.concatenate(([0], np.cumsum(members)))
    lanes = []
    for code in range(len(first)):
        inside = which[order[bounds[code] : bounds[code + 1]]]
        sizes = found.size[inside]
        lane = Lane(
            scope=int(found.scope[inside[0]]),
            what=BUFFERS,
            label="",
            buffer=int(found.numbers[inside[0]]) if len(inside) == 1 else 0,
            buffers=len(inside),
            role=role(int(np.bitwise_or.reduce(found.ways[inside]))),
            device=int(found.device[inside].max()),
            modes=_modes(int(np.bitwise_or.reduce(found.modes[inside]))),
            size_bytes=(int(sizes.min()), int(sizes.max())),
            events=int(events[code]),
        )
        lane.label = _label(lane)
        lanes.append(lane)
    lane_of[which] = codes
    return lanes, lane_of


def assign(events: Columns, weight: dict[int, tuple[int, int]]) -> Lanes:
    """Puts every event on a lane. `weight` orders the scopes, the largest first."""
    found = _buffers(events)
    lanes, lane_of = _buffer_lanes(found)
    of_event = lane_of[found.of_event]
    loose = of_event < 0
    for what, label, rows in (
        (PROCESS, "pressure", loose & kinds.mask(events, "pressure_level", "pressure_answer")),
        (REQUESTS, "requests", loose & kinds.mask(events, "request")),
        (RUNS, "runs of the engine", loose & kinds.mask(events, "batch")),
        (COPIES, "copies in host memory", loose & kinds.mask(events, *kinds.COPIES)),
        (MEMORY, "memory and pools", loose),
    ):
        rows = np.flatnonzero(rows & (of_event < 0))
        scopes, inverse = np.unique(events["scope"][rows], return_inverse=True)
        of_event[rows] = len(lanes) + inverse.reshape(-1)
        for scope, count in zip(scopes.tolist(), np.bincount(inverse.reshape(-1)).tolist(), strict=True):
            lanes.append(Lane(scope, what, label, events=count))
    place = sorted(
        range(len(lanes)),
        key=lambda i: (
            [-value for value in weight.get(lanes[i].scope, (0, 0))],
            lanes[i].scope,
            _ORDER.index(lanes[i].what),
            lanes[i].role,
            -lanes[i].size_bytes[1],
            lanes[i].buffer,
        ),
    )
    rank = np.empty(len(lanes), np.int32)
    rank[place] = np.arange(len(lanes), dtype=np.int32)
    return Lanes([lanes[i] for i in place], rank[of_event] if len(lanes) else of_event)
