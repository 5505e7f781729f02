"""Events as the page reads them: columns of small numbers, deflated.

A bracket's two events are one row, a span. Rows are in the order of their lanes and in a lane in that of their time, so
that what stands side by side is alike. What repeats (kind, side, use, mode, scope, thread, ...) is one number into a
list of the combinations that occur; times and buffers are differences. A column is written byte by byte: all lowest
bytes, then all second ones; the upper planes are nearly all zeros and cost nothing.

A view of the whole does not look at rows at all but at levels: for each lane, class and 4096th of the time, how busy it
was.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import kinds, spans
from .kinds import Columns
from .lanes import Lanes
from .memory import Memory

BINS = 4096
OVERVIEW = 1024
# What the page may weigh beside its data, and what a row costs at most, are far below this.
MOST_BYTES = 9_300_000
CLASSES = ("request", "host", "device", "moved", "saved", "change", "failed", "memory")
_CLASS_OF = {
    "request": "request",
    "batch": "request",
    "transfer_performed": "moved",
    "copy": "moved",
    "transfer_eliminated": "saved",
    "copy_avoided": "saved",
    "move": "change",
    "pattern": "change",
    "placement": "change",
    "numa_move": "change",
    "pressure_level": "change",
    "pressure_answer": "change",
}
_REPEATED = ("kind", "side", "use", "mode", "mode_before", "direction", "reason", "status", "queue", "thread", "scope",
             "device", "detail")  # fmt: skip
# Kinds whose offset is no place in a buffer but a number of its own: of a run, or nanoseconds.
_NUMBERED = ("request", "batch", "placement")
MOST_LISTED = 1 << 16
WHOLE, OPEN, LONE = 0, 1, 2  # a row's ends: both seen, no end, no begin


@dataclass
class Rows:
    """One row an event or span: `event` is where its fields are, `end` where its fence and status are."""

    event: np.ndarray
    end: np.ndarray
    start: np.ndarray
    duration: np.ndarray
    lane: np.ndarray
    kind_class: np.ndarray
    ends: np.ndarray


def rows_of(events: Columns, lanes: Lanes, duration_ns: int) -> Rows:
    """All rows, in the order of lanes and time."""
    pairs = spans.pair(events)
    event = np.ones(len(events), bool)
    event[pairs.ends] = False
    end_of = np.arange(len(events))
    end_of[pairs.begins] = pairs.ends
    ends = np.zeros(len(events), np.uint8)
    ends[pairs.open_begins], ends[pairs.lone_ends] = OPEN, LONE
    time = events["time_ns"].astype(np.int64)
    # An event with a duration is written when it is over; a bracket begins with its first event.
    start = np.maximum(time - events["duration_ns"].astype(np.int64), 0)
    stop = time[end_of]
    start[pairs.begins], start[pairs.open_begins] = time[pairs.begins], time[pairs.open_begins]
    stop[pairs.open_begins] = duration_ns

    known = np.full(256, CLASSES.index("memory"), np.uint8)
    for name, which in _CLASS_OF.items():
        known[kinds.number(name)] = CLASSES.index(which)
    known[0xFF] = CLASSES.index("memory")
    kind_class = known[events["kind"]]
    bracket = kinds.mask(events, "access_begin", "access_end", "access_abort", "export_begin", "export_end", "prefetch")
    side = np.where(events["side"] == 1, CLASSES.index("host"), CLASSES.index("device"))
    kind_class = np.where(bracket, side, kind_class).astype(np.uint8)
    failed = ~kinds.succeeded(events) | kinds.mask(events, "access_abort")
    failed[pairs.begins] |= failed[pairs.ends]
    kind_class[failed] = CLASSES.index("failed")

    which = np.flatnonzero(event)
    which = which[np.argsort(start[which], kind="stable")]
    order = which[np.argsort(lanes.of_event[which].astype(np.uint16), kind="stable")]
    return Rows(
        order, end_of[order], start[order], (stop - start)[order], lanes.of_event[order], kind_class[order], ends[order]
    )  # fmt: skip


def _busy(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """uint8 [bin]: how much of each was busy; what is there at all is at least 40 of 255."""
    low, high = first.astype(np.int64), last.astype(np.int64)
    # A span adds what it covers of its first and last bin, and 1 to all between: there by a running sum.
    steps = np.bincount(low + 1, minlength=BINS + 1) - np.bincount(np.maximum(high, low + 1), minlength=BINS + 1)
    busy = np.cumsum(steps)[:BINS].astype(np.float64)
    busy += np.bincount(low, np.where(low == high, last - first, low + 1 - first), minlength=BINS)
    busy += np.bincount(high, np.where(low == high, 0, last - high), minlength=BINS)
    # What takes no time counts by its number: from four on a bin is full.
    busy += 0.25 * np.bincount(low[first == last], minlength=BINS)
    there = (busy > 0) | (np.bincount(low, minlength=BINS) > 0)
    return np.where(there, 40 + 215 * np.minimum(busy, 1), 0).astype(np.uint8)


def levels(rows: Rows, lane_count: int, duration_ns: int) -> tuple[list[int], np.ndarray]:
    """The lines that hold anything (lane * classes + class), and for each its bins."""
    width = (duration_ns + 1) / BINS
    first = np.clip(rows.start / width, 0, BINS - 1e-6)
    last = np.clip((rows.start + rows.duration) / width, first, BINS - 1e-6)
    line = rows.lane.astype(np.int64) * len(CLASSES) + rows.kind_class
    order = np.argsort(line, kind="stable")
    counts = np.bincount(line, minlength=lane_count * len(CLASSES))
    bounds = np.concatenate(([0], np.cumsum(counts)))
    lines = np.flatnonzero(counts)
    made = np.zeros((len(lines), BINS), np.uint8)
    for place, number in enumerate(lines.tolist()):
        inside = order[bounds[number] : bounds[number + 1]]
        made[place] = _busy(first[inside], last[inside])
    return lines.tolist(), made


def _overview(events: Columns, duration_ns: int, names: tuple[str, ...]) -> list[int]:
    which = events[kinds.mask(events, *names)]
    bins = np.minimum(which["time_ns"].astype(np.float64) * (OVERVIEW / (duration_ns + 1)), OVERVIEW - 1)
    return kinds.sums(bins.astype(np.int64), which["size_bytes"], OVERVIEW).tolist()


class _Blob:
    """Columns one behind the other, and where each begins."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.columns: dict[str, dict[str, int]] = {}
        self.used = 0

    def add(self, name: str, values: np.ndarray, signed: bool = False) -> None:
        """Whole numbers below 2^53."""
        values = values.astype(np.int64)
        if signed:
            values = (values << 1) ^ (values >> 63)
        planes = max(1, (int(values.max(initial=0)).bit_length() + 7) // 8)
        for plane in range(planes):
            self.parts.append(((values >> (8 * plane)) & 0xFF).astype(np.uint8).tobytes())
        self.columns[name] = {"at": self.used, "count": len(values), "planes": planes, "signed": int(signed)}
        self.used += len(values) * planes


def _differences(values: np.ndarray, line: np.ndarray) -> np.ndarray:
    """From the row before; the first of each lane as it is."""
    values = values.astype(np.int64)
    made = np.diff(values, prepend=0)
    starts = np.concatenate(([True], line[1:] != line[:-1])) if len(line) else np.empty(0, bool)
    made[starts] = values[starts]
    return made


def _listed(values: np.ndarray) -> tuple[list[int] | None, np.ndarray]:
    """The values that occur, the most frequent first, and each row's place in that list; where they are too many to
    list, none and the values themselves."""
    found, inverse = kinds.ranks(values)
    if len(found) > MOST_LISTED:
        return None, np.minimum(values, np.uint64(1 << 52))
    order = np.argsort(-np.bincount(inverse, minlength=len(found)), kind="stable")
    rank = np.empty(len(found), np.int64)
    rank[order] = np.arange(len(found))
    return [str(v) if v >= 1 << 53 else v for v in found[order].tolist()], rank[inverse]


def _rows_add(blob: _Blob, head: dict[str, Any], events: Columns, rows: Rows) -> None:
    picked, closed = events[rows.event], events[rows.end]
    aborted = kinds.mask(closed, "access_abort")
    repeated = {name: picked[name] for name in _REPEATED}
    repeated["status"] = np.maximum(picked["status"], closed["status"])
    repeated |= {"aborted": aborted.astype(np.uint8), "ends": rows.ends}
    code, first = kinds.codes(*repeated.values())
    order = np.argsort(-np.bincount(code, minlength=len(first)), kind="stable") if len(first) else first
    rank = np.empty(len(first), np.int64)
    rank[order] = np.arange(len(first))
    head["repeated"] = [*repeated]
    head["combinations"] = [column[first[order]].tolist() for column in repeated.values()]
    head["sizes"], sizes = _listed(picked["size_bytes"])
    numbered = kinds.mask(picked, *_NUMBERED)
    head["offsets"], offsets = _listed(np.where(numbered, 0, picked["offset_bytes"]))
    blob.add("start", _differences(rows.start, rows.lane))
    blob.add("duration", rows.duration)
    blob.add("class", rows.kind_class)
    blob.add("combination", rank[code])
    blob.add("size", sizes)
    blob.add("offset", offsets)
    own = np.minimum(np.where(numbered, picked["offset_bytes"], 0), np.uint64(1 << 51))
    blob.add("number", _differences(own, rows.lane), signed=True)
    blob.add("buffer", _differences(np.minimum(picked["buffer"], np.uint64(1 << 51)), rows.lane), signed=True)
    fence = np.minimum(np.maximum(picked["fence_value"], closed["fence_value"]), np.uint64(1 << 51))
    blob.add("fence", _differences(fence, rows.lane), signed=True)


def _latest(rows: Rows, count: int) -> tuple[Rows, int]:
    """The rows that begin last, and from when on they are complete."""
    if count >= len(rows.start):
        return rows, 0
    place = len(rows.start) - max(1, count)
    since = int(np.partition(rows.start, place)[place]) + (count == 0)
    kept = rows.start >= since
    return Rows(**{name: column[kept] for name, column in vars(rows).items()}), since


def _pressure(events: Columns) -> dict[str, list[list[int]]]:
    level = events[kinds.mask(events, "pressure_level")]
    answer = events[kinds.mask(events, "pressure_answer")]
    most = 5000
    return {
        "levels": [[int(e["time_ns"]), int(e["detail"])] for e in level[-most:]],
        "answers": [
            [int(e["time_ns"]) - int(e["duration_ns"]), int(e["duration_ns"]), int(e["detail"]), int(e["size_bytes"])]
            for e in answer[-most:]
        ],
    }


def _deflated(blob: _Blob, head: dict[str, Any]) -> bytes:
    text = json.dumps({**head, "columns": blob.columns}, separators=(",", ":")).encode()
    packer = zlib.compressobj(6)
    parts = [packer.compress(len(text).to_bytes(4, "little") + text)]
    parts += [packer.compress(part) for part in blob.parts]
    return b"".join((*parts, packer.flush()))


def pack(events: Columns, lanes: Lanes, memory: Memory, duration_ns: int, head: dict[str, Any]) -> str:
    """All that the page's script reads, as base64."""
    rows = rows_of(events, lanes, duration_ns)
    lines, level = levels(rows, len(lanes.lanes), duration_ns)
    head = {
        **head,
        "duration_ns": duration_ns,
        "bins": BINS,
        "classes": CLASSES,
        "lines": lines,
        "rows": len(rows.start),
        "overview": {
            "moved": _overview(events, duration_ns, kinds.MOVED),
            "saved": _overview(events, duration_ns, kinds.SAVED),
        },
        "pressure": _pressure(events),
        "memory": {
            "exact": memory.exact,
            "scopes": memory.scopes,
            "peak_bytes": memory.peak_bytes,
            "peak_ns": memory.peak_ns,
        },
    }
    count = len(rows.start)
    while True:
        kept, since = _latest(rows, count)
        blob = _Blob()
        made = {**head, "since_ns": since}
        made["first"] = np.searchsorted(kept.lane, np.arange(len(lanes.lanes) + 1)).tolist()
        _rows_add(blob, made, events, kept)
        blob.add("memory_times", np.diff(memory.times.astype(np.int64), prepend=0))
        for i, series in enumerate(memory.levels):
            blob.add(f"memory_{i}", np.diff(series, prepend=0), signed=True)
        blob.add("memory_idle", np.diff(memory.idle, prepend=0), signed=True)
        blob.add("levels", level.reshape(-1))
        text = base64.b64encode(_deflated(blob, made)).decode()
        if len(text) <= MOST_BYTES or count == 0:
            return text
        # What does not fit is still in the levels.
        count = int(count * 0.97 * MOST_BYTES / len(text))
