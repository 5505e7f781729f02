"""What the events add up to: the figures at the top, what still moves and why, the tables of models and buffers.

Every sum is over all events of the recording, also over those that the timeline has no room for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from .. import profile as recording
from .. import words as library
from . import kinds
from .kinds import Columns
from .lanes import Lanes

DIRECTIONS = ("in", "out")
# Scopes in which libumo measures the machine when it starts; no client's bytes are in them.
MEASUREMENTS = ("zero-copy", "calibration")


@dataclass
class Tally:
    events: int = 0
    bytes: int = 0


@dataclass
class Totals:
    """The figures at the top. `covered_ns` is the time that the events reach back over; `measured` is what libumo moved
    and saved while it measured the machine, which is in none of the others."""

    duration_ns: int
    covered_ns: int
    events: int
    lost: int
    names_lost: int
    truncated: bool
    requests: int | None
    uses: int
    transfer_performed: dict[str, Tally]
    transfer_eliminated: dict[str, Tally]
    copy: dict[str, Tally]
    copy_avoided: dict[str, Tally]
    measured: Tally
    busiest_second_saved_bytes: int | None = None

    @property
    def moved(self) -> Tally:
        return _total(self.transfer_performed, self.copy)

    @property
    def saved(self) -> Tally:
        return _total(self.transfer_eliminated, self.copy_avoided)


@dataclass
class Row:
    """Bytes that still move for one reason, of buffers that are alike.

    `inferred`: the event named no reason, the storage mode does.
    """

    scope: int
    lanes: list[int]
    what: str  # transfer or copy
    direction: str
    reason: str
    inferred: bool
    cause: str
    remedy: str
    events: int
    bytes: int
    size_bytes: tuple[int, int]
    share: float


@dataclass
class Model:
    scope: int
    requests: int
    uses: dict[str, int]
    moved: dict[str, Tally]
    saved: dict[str, Tally]
    pool_takes: int
    pool_misses: int
    median_ns: int
    p99_ns: int


@dataclass
class BufferRow:
    lane: int
    uses: int
    used_bytes: int
    moved: Tally
    saved: Tally
    moves: int
    pattern: str


@dataclass
class Summary:
    totals: Totals
    rows: list[Row] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    buffers: list[BufferRow] = field(default_factory=list)


def _total(*parts: dict[str, Tally]) -> Tally:
    values = [tally for part in parts for tally in part.values()]
    return Tally(sum(t.events for t in values), sum(t.bytes for t in values))


def _tally(events: Columns, which: np.ndarray) -> Tally:
    return Tally(int(np.count_nonzero(which)), int(events["size_bytes"][which].sum(dtype=np.uint64)))


def _direction(events: Columns, name: str) -> np.ndarray:
    return events["direction"] == recording.DIRECTIONS.index(name)


def _by_direction(events: Columns, name: str) -> dict[str, Tally]:
    which = kinds.mask(events, name)
    return {way: _tally(events, which & _direction(events, way)) for way in DIRECTIONS}


def _busiest(events: Columns, covered_ns: int) -> int | None:
    if covered_ns < 3e9:
        return None
    saved = events[kinds.mask(events, *kinds.SAVED)]
    seconds = (saved["time_ns"] // np.uint64(10**9)).astype(np.int64)
    if len(seconds) == 0:
        return 0
    # By their ranks: there may be a very long time between two of them.
    found, rank = np.unique(seconds, return_inverse=True)
    return int(kinds.sums(rank, saved["size_bytes"], len(found)).max())


def _served(profile: recording.Profile, events: Columns) -> np.ndarray:
    """Which events are no measurement of libumo's own."""
    own = [number for number, name in profile.scopes.items() if name in MEASUREMENTS]
    return ~np.isin(events["scope"], own)


def totals(profile: recording.Profile, events: Columns) -> Totals:
    last = int(events["time_ns"][-1]) if len(events) else 0
    first = int(events["time_ns"][0]) if len(events) else 0
    duration = max(int(profile.facts.get("duration_ns") or 0), last)
    # Events are lost at the beginning: what is left tells of the time since the first that is there.
    covered = duration - first if profile.lost else duration
    served = _served(profile, events)
    measured = _tally(events, ~served & kinds.mask(events, *kinds.MOVED, *kinds.SAVED))
    number, events = len(events), events[served]
    asked = kinds.mask(events, "request")
    return Totals(
        duration_ns=duration,
        covered_ns=covered,
        events=number,
        lost=profile.lost,
        names_lost=profile.names_lost,
        truncated=bool(profile.facts.get("truncated")),
        requests=int(np.count_nonzero(asked)) if "request" in recording.KINDS and asked.any() else None,
        uses=int(np.count_nonzero(kinds.mask(events, "access_begin") & kinds.succeeded(events))),
        transfer_performed=_by_direction(events, "transfer_performed"),
        transfer_eliminated=_by_direction(events, "transfer_eliminated"),
        copy=_by_direction(events, "copy"),
        copy_avoided=_by_direction(events, "copy_avoided"),
        measured=measured,
        busiest_second_saved_bytes=_busiest(events, covered),
    )


def _families(lanes: Lanes) -> np.ndarray:
    """The same number for lanes that differ in nothing but which buffer they are of."""
    known: dict[tuple[object, ...], int] = {}
    keys = [(lane.scope, lane.what, lane.role, lane.device, lane.modes, lane.size_bytes) for lane in lanes.lanes]
    return np.array([known.setdefault(key, len(known)) for key in keys], np.int64)


def _row(event: Columns, known: tuple[library.Words, ...]) -> Row:
    """A row without its figures."""
    reason = known[event["reason"]] if event["reason"] < len(known) else library.Words("unknown", "", "")
    transfer = event["kind"] == kinds.number("transfer_performed")
    # A transfer happens because there are two memories, and that is what its buffer's storage mode says.
    inferred = event["reason"] == 0 and transfer
    if inferred:
        reason = next(words for words in known if words.label == "mode")
    return Row(
        scope=int(event["scope"]),
        lanes=[],
        what="transfer" if transfer else "copy",
        direction=kinds.word(recording.DIRECTIONS, event["direction"]),
        reason=reason.label,
        inferred=bool(inferred),
        cause=reason.cause,
        remedy=reason.remedy,
        events=0,
        bytes=0,
        size_bytes=(0, 0),
        share=0.0,
    )


def _rows(profile: recording.Profile, events: Columns, lanes: Lanes) -> list[Row]:
    which = np.flatnonzero(kinds.mask(events, *kinds.MOVED) & _served(profile, events))
    if len(which) == 0:
        return []
    moved = events[which]
    lane = lanes.of_event[which]
    columns = [moved[name] for name in ("scope", "kind", "direction", "reason")]
    code, first = kinds.codes(*columns, _families(lanes)[lane])
    count = len(first)
    size = kinds.sums(code, moved["size_bytes"], count)
    number = np.bincount(code, minlength=count)
    least = np.full(count, np.iinfo(np.uint64).max, np.uint64)
    most = np.zeros(count, np.uint64)
    np.minimum.at(least, code, moved["size_bytes"])
    np.maximum.at(most, code, moved["size_bytes"])
    pairs = np.unique(np.stack((code, lane)), axis=1)
    whole = max(1, int(size.sum(dtype=np.uint64)))
    known = library.reasons()
    rows = []
    for i, event in enumerate(moved[first]):
        row = _row(event, known)
        row.lanes = pairs[1][pairs[0] == i].tolist()
        row.events, row.bytes, row.share = int(number[i]), int(size[i]), int(size[i]) / whole
        row.size_bytes = (int(least[i]), int(most[i]))
        rows.append(row)
    return sorted(rows, key=lambda row: (-row.bytes, -row.events, row.scope, row.lanes))


def _split(events: Columns, names: tuple[str, ...], code: np.ndarray, count: int) -> list[dict[str, Tally]]:
    """For each code, what these kinds moved in and out."""
    which = kinds.mask(events, *names)
    found: list[dict[str, Tally]] = [{} for _ in range(count)]
    for way in DIRECTIONS:
        rows = np.flatnonzero(which & _direction(events, way))
        number = np.bincount(code[rows], minlength=count).tolist()
        size = kinds.sums(code[rows], events["size_bytes"][rows], count).tolist()
        for i in range(count):
            found[i][way] = Tally(number[i], size[i])
    return found


def bytes_of(found: dict[str, Tally]) -> int:
    """In and out together."""
    return sum(tally.bytes for tally in found.values())


def _times(durations: np.ndarray) -> tuple[int, int]:
    """The median, and what 99 of 100 stay within (nearest rank)."""
    ordered = np.sort(durations)
    return tuple(int(ordered[max(0, math.ceil(share * len(ordered)) - 1)]) for share in (0.5, 0.99))


def _models(events: Columns) -> list[Model]:
    scopes, code = np.unique(events["scope"], return_inverse=True)
    code, count = code.reshape(-1), len(scopes)

    def counted(which: np.ndarray) -> list[int]:
        return np.bincount(code[which], minlength=count).tolist()

    begun = kinds.mask(events, "access_begin") & kinds.succeeded(events)
    host, device = counted(begun & (events["side"] == 1)), counted(begun & (events["side"] == 2))
    asked = kinds.mask(events, "request")
    requests = counted(asked)
    times = [_times(events["duration_ns"][asked & (code == i)]) if requests[i] else (0, 0) for i in range(count)]
    takes = counted(kinds.mask(events, "pool_hit", "pool_miss", "pool_take"))
    misses = counted(kinds.mask(events, "pool_miss"))
    moved, saved = _split(events, kinds.MOVED, code, count), _split(events, kinds.SAVED, code, count)
    return [
        Model(
            scope,
            requests[i],
            {"host": host[i], "device": device[i]},
            moved[i],
            saved[i],
            takes[i],
            misses[i],
            *times[i],
        )
        for i, scope in enumerate(scopes.tolist())
    ]


def _buffer_rows(events: Columns, lanes: Lanes) -> list[BufferRow]:
    code, count = lanes.of_event, len(lanes.lanes)
    moved, saved = _split(events, kinds.MOVED, code, count), _split(events, kinds.SAVED, code, count)
    begun = kinds.mask(events, "access_begin") & kinds.succeeded(events)
    uses = np.bincount(code[begun], minlength=count).tolist()
    used = kinds.sums(code[begun], events["size_bytes"][begun], count).tolist()
    changed = kinds.mask(events, "move") & kinds.succeeded(events)
    changes = np.bincount(code[changed], minlength=count).tolist()
    named = np.flatnonzero(kinds.mask(events, "pattern"))
    latest = np.full(count, -1)
    latest[code[named]] = events["detail"][named] & 0xFF  # the last one stays
    words = kinds.patterns()
    pattern = ["" if number < 0 else kinds.word(words, number) for number in latest.tolist()]
    return [
        BufferRow(i, uses[i], used[i], _total(moved[i]), _total(saved[i]), changes[i], pattern[i])
        for i, lane in enumerate(lanes.lanes)
        if lane.buffers
    ]


def weights(events: Columns) -> dict[int, tuple[int, int]]:
    """What each scope moved and what it saved: the order in which scopes are shown."""
    return {m.scope: (_total(m.moved).bytes, _total(m.saved).bytes) for m in _models(events)}


def summarise(profile: recording.Profile, events: Columns, lanes: Lanes) -> Summary:
    models = sorted(_models(events), key=lambda m: (-_total(m.moved).bytes, -_total(m.saved).bytes, m.scope))
    return Summary(totals(profile, events), _rows(profile, events, lanes), models, _buffer_rows(events, lanes))
