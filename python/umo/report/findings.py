"""What costs something beside bytes: what was refused, what took time, memory that is made or wrapped again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import profile as recording
from .. import words as library
from . import kinds
from .kinds import Columns
from .words import many, percent, span

MOST = 12
_WORK = ("request", "batch", "pressure_level")  # their time is not umo's


@dataclass
class Finding:
    """One thing to look at. `scope` is None where it concerns several."""

    scope: int | None
    title: str
    text: str
    remedy: str


@dataclass
class TimeRow:
    """What operations of one kind took, where that is measured."""

    scope: int
    kind: str
    events: int
    total_ns: int
    longest_ns: int


def time_rows(events: Columns) -> list[TimeRow]:
    """The kinds that took time, the longest first."""
    which = np.flatnonzero((events["duration_ns"] > 0) & ~kinds.mask(events, *_WORK))
    if len(which) == 0:
        return []
    code, first = kinds.codes(events["scope"][which], events["kind"][which])
    count = len(first)
    duration = events["duration_ns"][which]
    total = kinds.sums(code, duration, count)
    longest = np.zeros(count, np.uint64)
    np.maximum.at(longest, code, duration)
    number = np.bincount(code, minlength=count)
    made = [
        TimeRow(
            int(events["scope"][which[at]]),
            kinds.word(recording.KINDS, events["kind"][which[at]]),
            int(number[i]),
            int(total[i]),
            int(longest[i]),
        )
        for i, at in enumerate(first)
    ]
    return sorted(made, key=lambda row: -row.total_ns)[:MOST]


def _refused(events: Columns) -> list[Finding]:
    which = np.flatnonzero(~kinds.succeeded(events))
    if len(which) == 0:
        return []
    code, first = kinds.codes(*(events[name][which] for name in ("scope", "kind", "status", "reason")))
    found = []
    for count, at in sorted(zip(np.bincount(code).tolist(), which[first].tolist(), strict=True), reverse=True):
        event = events[at]
        why = library.reasons() if event["reason"] else library.results()
        number = int(event["reason"] or event["status"])
        known = why[number] if number < len(why) else library.Words("unknown", "an unknown result", "")
        kind = kinds.word(recording.KINDS, event["kind"])
        title = f"{kind} did not succeed {many(count, 'time')}: {known.label}"
        found.append(Finding(int(event["scope"]), title, known.cause, known.remedy))
    return found[:MOST]


def _counts(events: Columns, *names: str) -> dict[int, int]:
    scopes, number = np.unique(events["scope"][kinds.mask(events, *names)], return_counts=True)
    return dict(zip(scopes.tolist(), number.tolist(), strict=True))


def _pools(events: Columns) -> list[Finding]:
    hits, misses = _counts(events, "pool_hit"), _counts(events, "pool_miss")
    return [
        Finding(
            scope,
            f"a pool had to make {percent(missed, missed + hits.get(scope, 0))} of its blocks anew",
            f"{many(missed, 'block')} were made, {many(hits.get(scope, 0), 'block')} found",
            "sizes that change from request to request, or a pool that is trimmed between them: "
            "pad to few sizes, or let the pool keep more",
        )
        for scope, missed in sorted(misses.items(), key=lambda item: -item[1])
        if missed >= 20 and missed > 0.1 * (missed + hits.get(scope, 0))
    ]


def _wraps(events: Columns) -> list[Finding]:
    hits, imports = _counts(events, "import_hit"), _counts(events, "import")
    return [
        Finding(
            scope,
            "memory is wrapped anew more often than it is found again",
            f"{many(made, 'wrap')} made, {hits.get(scope, 0):,} found in the cache",
            "keep tensors at the same places of a shared-memory region that stays registered",
        )
        for scope, made in sorted(imports.items(), key=lambda item: -item[1])
        if made >= 50 and made > hits.get(scope, 0)
    ]


def _restless(events: Columns) -> list[Finding]:
    moved = events[kinds.mask(events, "move") & kinds.succeeded(events)]
    buffers, first, number = np.unique(moved["buffer"], return_index=True, return_counts=True)
    found = []
    for buffer, at, count in zip(buffers.tolist(), first.tolist(), number.tolist(), strict=True):
        if count >= 6:
            spent = int(moved["duration_ns"][moved["buffer"] == buffer].sum(dtype=np.uint64))
            title = f"buffer #{buffer} changed its storage mode {count:,} times"
            text = f"the moves took {span(spent)}"
            remedy = "declare its pattern (umo_buffer_set_pattern), or pin it where it is used most"
            found.append(Finding(int(moved["scope"][at]), title, text, remedy))
    return found[:MOST]


def _pressure(events: Columns) -> list[Finding]:
    refusals = events[kinds.mask(events, "pressure_answer")]
    level = events[kinds.mask(events, "pressure_level")]
    if len(refusals) == 0 or len(level) == 0:
        return []
    text = f"{many(len(refusals), 'answer')} while memory was short; the level changed {many(len(level), 'time')}"
    remedy = "give the server more memory, fewer instances or smaller batches; docs/pressure.md has the marks"
    return [Finding(None, "memory was short", text, remedy)]


def find(events: Columns) -> list[Finding]:
    """All that is worth a look, the plainest first."""
    return [*_refused(events), *_pressure(events), *_pools(events), *_wraps(events), *_restless(events)]
