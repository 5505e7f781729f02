"""Two readings make rates. What is kept from one to the next: the last counts, and a trend for each model.

A counter that has fallen was started over, by a server or a model that was: it is taken as counted from 0, as
Prometheus does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from .source import Buffer, Figures, Model, ModelKey, Reading

TREND = 240  # readings


def _rates(before: Figures, now: Figures, seconds: float) -> tuple[Figures, bool]:
    """Counts a second, and whether one was started over."""
    rates = {}
    fell = False
    for key, value in now.items():
        last = before.get(key, 0.0)
        fell = fell or value < last
        rates[key] = (value if value < last else value - last) / seconds
    return rates, fell


def total(figures: Figures, word: str, *parts: str | None) -> float:
    """The sum of the figures of a word whose parts are those given; None stands for any."""
    return sum(
        value
        for key, value in figures.items()
        if key[0] == word and all(part is None or part == have for part, have in zip(parts, key[1:], strict=False))
    )


def greatest(figures: Figures, word: str) -> tuple[str, float]:
    """The part with the greatest figure of a word, and its share; ("", 0) without any."""
    parts = {key[1]: value for key, value in figures.items() if key[0] == word and value > 0}
    if not parts:
        return "", 0.0
    best = max(parts, key=lambda part: parts[part])
    return best, parts[best] / sum(parts.values())


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole > 0 else None


@dataclass
class Reason:
    """What is copied for one reason, one way."""

    label: str
    direction: str
    bytes_s: float
    events_s: float
    bytes: float


@dataclass
class Row:
    """A model as one reading left it: each has rows of its own, so that a sum is made once. Rates are a second."""

    key: ModelKey
    totals: Figures = field(default_factory=dict)
    rates: Figures = field(default_factory=dict)
    gauges: Figures = field(default_factory=dict)
    trend: deque[float] = field(default_factory=lambda: deque(maxlen=TREND))
    fresh: bool = True  # rates are not known yet

    @property
    def name(self) -> str:
        return self.key.name

    @cached_property
    def copied(self) -> float:
        return total(self.rates, "copied")

    @cached_property
    def crossed(self) -> float:
        return total(self.rates, "crossed", None, "performed")

    @cached_property
    def moves(self) -> float:
        """Copies and transfers, how often."""
        return total(self.rates, "copies") + total(self.rates, "crossings", None, "performed")

    @cached_property
    def moving(self) -> float:
        return self.copied + self.crossed

    @cached_property
    def saved(self) -> float:
        return total(self.rates, "avoided") + total(self.rates, "crossed", None, "eliminated")

    @cached_property
    def saved_share(self) -> float | None:
        return _share(self.saved, self.saved + self.moving)

    @cached_property
    def live(self) -> float:
        return total(self.gauges, "live")

    @cached_property
    def pool_used(self) -> float:
        return total(self.gauges, "pool", "used")

    @cached_property
    def pool_idle(self) -> float:
        return total(self.gauges, "pool", "idle")

    @cached_property
    def reused(self) -> float | None:
        """Share of the pools' blocks that needed no new memory."""
        return _share(total(self.rates, "blocks", "kept"), total(self.rates, "blocks"))

    @cached_property
    def hits(self) -> float | None:
        """Share of the bindings that were found in the cache."""
        return _share(total(self.rates, "bindings", "hit"), total(self.rates, "bindings"))

    @cached_property
    def refused(self) -> float:
        return total(self.rates, "refused")

    @cached_property
    def pattern(self) -> str:
        return greatest(self.gauges, "pattern")[0]

    @cached_property
    def mode(self) -> str:
        return greatest(self.gauges, "mode")[0]

    def reasons(self) -> list[Reason]:
        """The one that copies most first; those that copied once, last."""
        found = [
            Reason(
                key[1],
                key[2],
                self.rates.get(key, 0.0),
                self.rates.get(("copies", *key[1:]), 0.0),
                value,
            )
            for key, value in self.totals.items()
            if key[0] == "copied"
        ]
        return sorted(found, key=lambda reason: (-reason.bytes_s, -reason.bytes, reason.label, reason.direction))


@dataclass
class BufferRow:
    """A buffer as it is shown."""

    number: int
    buffer: Buffer
    rates: Figures

    @property
    def moving(self) -> float:
        return total(self.rates, "copied") + total(self.rates, "crossed", None, "performed")

    @property
    def saved(self) -> float:
        return total(self.rates, "avoided") + total(self.rates, "crossed", None, "eliminated")


@dataclass
class State:
    """All that is shown."""

    rows: dict[ModelKey, Row] = field(default_factory=dict)
    process: Row = field(default_factory=lambda: Row(ModelKey("", "")))
    buffers: list[BufferRow] | None = None
    readings: int = 0
    restarts: int = 0
    lost: int = 0
    error: str | None = None  # of the last try; the figures are then older
    seconds: float = 0.0  # between the last two readings

    @property
    def trend(self) -> list[float]:
        """Of all models together."""
        longest = max((len(row.trend) for row in self.rows.values()), default=0)
        sums = [0.0] * longest
        for row in self.rows.values():
            start = longest - len(row.trend)
            for place, value in enumerate(row.trend):
                sums[start + place] += value
        return sums

    def sum(self, what: str) -> float:
        return sum(getattr(row, what) for row in self.rows.values())


class Tracker:
    """Makes a State of readings, one after the other."""

    def __init__(self) -> None:
        self.state = State()
        self._last: Reading | None = None

    def fail(self, error: str) -> State:
        """There was no reading."""
        self.state.error = error
        return self.state

    def take(self, reading: Reading) -> State:
        state, last = self.state, self._last
        seconds = reading.time_s - last.time_s if last is not None else 0.0
        if last is not None and seconds <= 0:
            return state
        restarted = False
        rows: dict[ModelKey, Row] = {}
        for key, model in reading.models.items():
            before = last.models.get(key) if last is not None else None
            rows[key], fell = self._row(key, state.rows.get(key), model, before, seconds)
            restarted |= fell
        before_process = last.process if last is not None else None
        state.process, fell = self._row(state.process.key, None, reading.process, before_process, seconds)
        restarted |= fell
        state.rows = rows
        state.buffers = self._buffers(reading, last, seconds)
        state.restarts += restarted
        state.readings += 1
        state.lost = reading.lost
        state.error = None
        state.seconds = seconds
        self._last = reading
        return state

    def _row(
        self, key: ModelKey, old: Row | None, now: Model, before: Model | None, seconds: float
    ) -> tuple[Row, bool]:
        """A model's new row, and whether one of its counters was started over."""
        row = Row(key, totals=now.counters, gauges=now.gauges, fresh=self._last is None)
        if row.fresh:  # nobody knows since when it was counted
            return row, False
        if old is not None:
            row.trend = old.trend
        # A model that was not there before has counted all of it since.
        row.rates, fell = _rates(before.counters if before is not None else {}, now.counters, seconds)
        row.trend.append(row.moving)
        return row, fell

    @staticmethod
    def _buffers(reading: Reading, last: Reading | None, seconds: float) -> list[BufferRow] | None:
        if reading.buffers is None:
            return None
        before = last.buffers if last is not None and last.buffers is not None else {}
        rows = []
        for number, buffer in reading.buffers.items():
            old = before.get(number)
            rates = _rates(old.counters if old else {}, buffer.counters, seconds)[0] if seconds > 0 else {}
            rows.append(BufferRow(number, buffer, rates))
        return rows


def chosen(rows: Iterable[Row], text: str) -> list[Row]:
    """Those whose name holds a text, whatever its case."""
    low = text.lower()
    return [row for row in rows if low in row.name.lower()]
