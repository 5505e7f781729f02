"""A process of this machine as a source: what its flight recorder says, added up.

It sees single buffers, their patterns, their placement and the node that they were moved to, of which /metrics has the
sums alone; and only what happens while it looks, so that memory held before is not known. A thread takes the events,
since the recorder waits two seconds for somebody to do so and no longer; it adds up arrays and never single events, so
that a busy server costs a few percent of one processor here.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ..profile import DIRECTIONS, KINDS, MODES, REASONS
from ..profile.recorder import ROOM, Recorder, RecorderError
from ..report import kinds as words
from .source import Buffer, Figures, Model, ModelKey, Reading, SourceError

BUFFERS_MOST = 20_000  # those that were seen first are forgotten
_PAUSE_S = 0.02
_WAYS = {"in": "host_to_device", "out": "device_to_host"}
_MOVING = ("copy", "copy_avoided", "transfer_performed", "transfer_eliminated")
_COUNTED = (*_MOVING, "import", "import_hit", "alloc", "move", "numa_move", "pool_hit", "pool_miss", "pool_trim")
# Kinds whose offset and size are not a range of the buffer: a placement's offset is nanoseconds, and whole pages move.
_NO_RANGE = ("placement", "numa_move")

Key = tuple[str, ...] | None


def _label(labels: Sequence[str], number: int) -> str:
    return (labels[number] if number < len(labels) else "") or "?"


def _keys(kind: str, reason: int, direction: int) -> tuple[Key, Key]:
    """Where the bytes and the events of a kind are counted."""
    way = _label(DIRECTIONS, direction)
    match kind:
        case "copy":
            return ("copied", _label(REASONS, reason), way), ("copies", _label(REASONS, reason), way)
        case "copy_avoided":
            return ("avoided", way), ("avoids", way)
        case "transfer_performed" | "transfer_eliminated":
            crossed = (_WAYS.get(way, "?"), kind.removeprefix("transfer_"))
            return ("crossed", *crossed), ("crossings", *crossed)
        case "import":
            return ("bound", "miss"), ("bindings", "miss")
        case "import_hit":
            return ("bound", "hit"), ("bindings", "hit")
        case "alloc":
            return ("allocated",), ("allocations",)
        case "move":
            return ("moved",), ("moves",)
        case "numa_move":
            return ("relocated",), ("relocations",)
        case "pool_hit":
            return None, ("blocks", "kept")
        case "pool_miss":
            return None, ("blocks", "new")
        case _:
            return ("trimmed",), None


def _count(figures: Figures, keys: tuple[Key, Key], size_bytes: int, events: int) -> None:
    for key, more in zip(keys, (size_bytes, events), strict=True):
        if key is not None:
            figures[key] = figures.get(key, 0.0) + more


def _numbers(kinds: Sequence[str]) -> np.ndarray:
    return np.array([KINDS.index(kind) for kind in kinds if kind in KINDS], np.uint8)


def _of(events: np.ndarray, kinds: Sequence[str]) -> np.ndarray:
    """The events of some kinds."""
    return events[np.isin(events["kind"], _numbers(kinds))]


def _grouped(events: np.ndarray, owners: np.ndarray) -> Iterator[tuple[int, np.void, int, int]]:
    """For each owner, and all that _keys() looks at: the owner, an event, how many there are, and their bytes."""
    if not len(events):
        return
    # One number for all of it: sorting records is ten times as slow. Owners are less than 2**32.
    codes = owners.astype(np.uint64) << np.uint64(24)
    for field, shift in (("kind", 16), ("reason", 8), ("direction", 0)):
        codes |= events[field].astype(np.uint64) << np.uint64(shift)
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    counts = np.bincount(inverse)
    sizes = words.sums(inverse, events["size_bytes"], len(first))
    for place, count, size in zip(first.tolist(), counts.tolist(), sizes.tolist(), strict=True):
        yield int(owners[place]), events[place], count, size


class Sums:
    """What events add up to, by scope and by buffer."""

    def __init__(self) -> None:
        self.scopes: dict[int, Model] = {}
        self.process = Model()
        self.buffers: dict[int, Buffer] = {}
        self._patterns = words.patterns()
        self._answers = words.pressure_answers()

    def add(self, events: np.ndarray, scopes: dict[int, str]) -> None:
        """Takes in events, which lie by time. `scopes` names the numbers of scopes."""
        right = events[events["status"] == 0]
        counted = _of(right, _COUNTED)
        for scope, event, count, size in _grouped(counted, counted["scope"]):
            keys = _keys(KINDS[event["kind"]], int(event["reason"]), int(event["direction"]))
            _count(self.scopes.setdefault(scope, Model()).counters, keys, size, count)
        self._look_at_buffers(right[right["buffer"] != 0], scopes)
        for event in _of(right, ("pattern", "placement", "numa_move", "pressure_level", "pressure_answer")):
            self._tell(KINDS[event["kind"]], int(event["buffer"]), int(event["detail"]))
        for number in np.unique(_of(right, ("free", "release"))["buffer"]).tolist():
            self.buffers.pop(number, None)
        while len(self.buffers) > BUFFERS_MOST:
            del self.buffers[next(iter(self.buffers))]

    def _look_at_buffers(self, events: np.ndarray, scopes: dict[int, str]) -> None:
        numbers, last, inverse = np.unique(events["buffer"][::-1], return_index=True, return_inverse=True)
        inverse = inverse[::-1]
        ends = np.zeros(len(numbers), np.uint64)
        ranges = ~np.isin(events["kind"], _numbers(_NO_RANGE))
        np.maximum.at(ends, inverse[ranges], (events["offset_bytes"] + events["size_bytes"])[ranges])
        found = []
        for number, at, end in zip(numbers.tolist(), (len(events) - 1 - last).tolist(), ends.tolist(), strict=True):
            buffer = self.buffers.setdefault(number, Buffer(""))
            buffer.model = scopes.get(int(events["scope"][at]), buffer.model) or "?"  # who used it last
            buffer.size_bytes = max(buffer.size_bytes, end)
            found.append(buffer)
        placed = np.flatnonzero(events["mode"] < len(MODES))
        places, last = np.unique(inverse[placed][::-1], return_index=True)
        for place, at in zip(places.tolist(), placed[len(placed) - 1 - last].tolist(), strict=True):
            found[place].mode = MODES[events["mode"][at]]
        moving = np.isin(events["kind"], _numbers(_MOVING))
        for place, event, count, size in _grouped(events[moving], inverse[moving]):
            keys = _keys(KINDS[event["kind"]], int(event["reason"]), int(event["direction"]))
            _count(found[place].counters, keys, size, count)

    def _tell(self, kind: str, number: int, detail: int) -> None:
        """What an event says in its detail."""
        if kind == "pressure_level":
            self.process.gauges["level",] = float(detail)
        elif kind == "pressure_answer":
            _count(self.process.counters, (None, ("answers", _label(self._answers, detail))), 0, 1)
        elif number not in self.buffers:
            return
        elif kind == "numa_move":
            self.buffers[number].node = str(detail)
        else:
            pattern = detail & 0xFF if kind == "pattern" else detail >> 8 & 0xFF
            self.buffers[number].pattern = _label(self._patterns, pattern)

    def reading(self, time_s: float, scopes: dict[int, str], lost: int) -> Reading:
        """All of it now. Scopes of one name, as of a model that was reloaded, are one model."""
        buffers = {number: replace(buffer, counters=dict(buffer.counters)) for number, buffer in self.buffers.items()}
        process = Model(dict(self.process.counters), dict(self.process.gauges))
        made = Reading(time_s, process=process, buffers=buffers, lost=lost)
        for number, model in self.scopes.items():
            into = made.models.setdefault(ModelKey(scopes.get(number) or "?", "?"), Model())
            for key, value in model.counters.items():
                into.counters[key] = into.counters.get(key, 0.0) + value
        for buffer in self.buffers.values():
            gauges = made.models.setdefault(ModelKey(buffer.model, "?"), Model()).gauges
            for gauge, more in (
                (("live",), buffer.size_bytes),
                (("buffers",), 1),
                (("mode", buffer.mode or "?"), buffer.size_bytes),
                (("pattern", buffer.pattern or "unknown"), buffer.size_bytes),
            ):
                gauges[gauge] = gauges.get(gauge, 0.0) + more
        return made


class Recorded:
    """Readings of a process. Raises RecorderError or FileNotFoundError (no libumo) when it is made."""

    def __init__(self, pid: int) -> None:
        self.name = f"process {pid}"
        self._recorder = Recorder(pid)
        try:
            self._recorder.start()
        except BaseException:
            self._recorder.close()
            raise
        self._sums = Sums()
        self._lock = threading.Lock()  # the sums, and what is known of the recording
        self._over = threading.Event()
        self._failed: str | None = None
        self._thread = threading.Thread(target=self._run, name="umo-top-record", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                events, _ = self._recorder.take()
                with self._lock:
                    self._sums.add(events, self._recorder.scopes)
                if self._recorder.figures.ended and self._recorder.taken == 0:
                    self._failed = "it has ended"
                    return
                if self._recorder.taken < ROOM:
                    self._over.wait(_PAUSE_S)
        except RecorderError as error:
            self._failed = str(error)

    def read(self) -> Reading:
        if self._failed is not None:
            raise SourceError(f"{self.name}: {self._failed}")
        with self._lock:
            return self._sums.reading(time.monotonic(), self._recorder.scopes, self._recorder.figures.lost)

    def close(self) -> None:
        """Ends the recording: the process goes on as before."""
        self._over.set()
        self._thread.join()
        with contextlib.suppress(RecorderError):
            self._recorder.stop()
        self._recorder.close()
