"""A recording as what viewers of traces draw: spans on tracks, marks, counters, arrows.

Viewers want the spans of one track to lie inside one another. A thread's do; brackets of a buffer, requests of a model
and the server's requests may overlap in any way, and so each gets the first free lane of its kind.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from . import labels
from .model import NONE, Profile
from .triton import Traced


@dataclass(frozen=True)
class Track:
    group: str  # "threads", "requests", "buffers", "server", "memory"
    name: str


@dataclass
class Span:
    """duration_ns None: a mark. Times count from the start of the recording."""

    track: Track
    name: str
    start_ns: int
    duration_ns: int | None
    args: dict[str, Any] = field(default_factory=dict)
    arrow_out: int | None = None
    arrow_in: int | None = None


@dataclass
class Counter:
    track: Track
    time_ns: int
    value: int


class _Lanes:
    """The first lane that is free at a time. Spans come in the order of their starts."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._busy: list[tuple[int, int]] = []
        self._made = 0

    def take(self, start: int, end: int) -> int:
        while self._busy and self._busy[0][0] <= start:
            heapq.heappush(self._free, heapq.heappop(self._busy)[1])
        if not self._free:
            heapq.heappush(self._free, self._made)
            self._made += 1
        lane = heapq.heappop(self._free)
        heapq.heappush(self._busy, (end, lane))
        return lane


def _lane_name(name: str, lane: int) -> str:
    return name if lane == 0 else f"{name} ({lane + 1})"


_SKIPPED = {"time_ns", "duration_ns", "thread", "kind", "scope", "device"}


class _Maker:
    def __init__(self, profile: Profile, traced: dict[int, Traced]) -> None:
        self.profile = profile
        self.traced = traced
        self.words = {name: labels.words(group) for name, group in labels.FIELDS.items()}
        self.kinds = self.words["kind"]
        self.open: dict[tuple[int, ...], list[dict[str, int]]] = defaultdict(list)
        self.lanes: dict[tuple[str, int], _Lanes] = defaultdict(_Lanes)
        self.live: dict[tuple[int, int], int] = defaultdict(int)
        self.later: list[tuple[int, int, int, str, dict[str, int]]] = []  # overlapping spans, to be laid out

    def scope(self, number: int) -> str:
        return self.profile.scopes.get(number) or (f"scope {number}" if number else "nobody")

    def args(self, event: dict[str, int]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if event["scope"]:
            made["scope"] = self.scope(event["scope"])
        if event["device"]:
            made["device"] = f"{self.profile.devices.get(event['device'], 'device')} {event['device']}"
        for name, value in event.items():
            if name in _SKIPPED or value == 0 or (name.startswith("mode") and value == NONE):
                continue
            made[name] = self.words[name][value] if name in self.words else value
        if event["mode"] == 0:
            made["mode"] = self.words["mode"][0]
        return made

    def request_args(self, event: dict[str, int]) -> dict[str, Any]:
        made: dict[str, Any] = {"model": self.scope(event["scope"]), "run": event["offset_bytes"]}
        made["size_bytes"] = event["size_bytes"]
        made["place" if self.kinds[event["kind"]] == "request" else "requests"] = event["detail"]
        if event["fence_value"]:
            made["trace_id"] = event["fence_value"]
        if event["status"]:
            made["status"] = self.words["status"][event["status"]]
        return made

    def bracket(self, kind: str, event: dict[str, int]) -> Span | None:
        key = tuple(event[name] for name in ("buffer", "side", "use", "offset_bytes", "size_bytes", "thread"))
        if kind == "access_begin" and event["status"] == 0:
            self.open[key].append(event)
            return None
        if kind in ("access_end", "access_abort") and (waiting := self.open.get(key)):
            begun = waiting.pop()
            self.later.append((begun["time_ns"], event["time_ns"], event["buffer"], "buffer", event))
            return None
        return self.thread_span(kind, event)

    def thread_span(self, kind: str, event: dict[str, int]) -> Span:
        duration = event["duration_ns"]
        track = Track("threads", f"thread {event['thread']}")
        args = self.request_args(event) if kind == "batch" else self.args(event)
        start = max(event["time_ns"] - duration, 0)
        return Span(track, kind, start, event["time_ns"] - start if duration else None, args)

    def events(self) -> Iterator[Span | Counter]:
        names = self.profile.events.dtype.names or ()
        for begin in range(0, len(self.profile.events), 1 << 16):
            for row in self.profile.events[begin : begin + (1 << 16)].tolist():
                event = dict(zip(names, row, strict=True))
                kind = self.kinds[event["kind"]]
                if kind == "request":
                    start = max(event["time_ns"] - event["duration_ns"], 0)
                    self.later.append((start, event["time_ns"], event["scope"], "request", event))
                elif kind.startswith("access_"):
                    span = self.bracket(kind, event)
                    if span is not None:
                        yield span
                else:
                    yield self.thread_span(kind, event)
                    if kind in ("alloc", "free") and event["status"] == 0:
                        yield self.memory(kind, event)

    def memory(self, kind: str, event: dict[str, int]) -> Counter:
        key = (event["scope"], event["device"])
        self.live[key] += event["size_bytes"] if kind == "alloc" else -event["size_bytes"]
        device = self.profile.devices.get(event["device"], "")
        name = f"{self.scope(event['scope'])}{' on ' + device if device else ''}: bytes since the start"
        return Counter(Track("memory", name), event["time_ns"], self.live[key])

    def overlapping(self) -> Iterator[Span]:
        for waiting in self.open.values():  # never closed while it was recorded
            for event in waiting:
                yield self.thread_span("access_begin", event)
        for start, end, number, what, event in sorted(self.later, key=lambda item: item[:3]):
            lane = self.lanes[(what, number)].take(start, end)
            if what == "buffer":
                track = Track("buffers", _lane_name(f"buffer {number}", lane))
                name = f"{self.words['side'][event['side']]} {self.words['use'][event['use']]}"
                yield Span(track, name, start, end - start, self.args(event))
            else:
                track = Track("requests", _lane_name(self.scope(number), lane))
                traced = event["fence_value"] if event["fence_value"] in self.traced else None
                yield Span(track, "request", start, end - start, self.request_args(event), arrow_in=traced)

    def server(self) -> Iterator[Span]:
        zero = int(self.profile.facts.get("clock_ns", 0))
        last = int(self.profile.facts.get("duration_ns", 0))
        lanes = _Lanes()
        for traced in sorted(self.traced.values(), key=lambda t: min(t.times.values(), default=0)):
            stages = [(name, first - zero, end - zero) for name, first, end in traced.stages()]
            if not stages or stages[0][2] < 0 or stages[0][1] > last:
                continue  # before the recording, or after it
            lane = lanes.take(min(s[1] for s in stages), max(s[2] for s in stages))
            for name, start, end in stages:
                args: dict[str, Any] = {"trace_id": traced.number, "model": traced.model}
                if traced.parent is not None:
                    args["parent_id"] = traced.parent
                out = traced.number if name == "compute" else None
                title = f"{traced.model}: {name}" if name == "request" else name
                yield Span(Track("server", _lane_name("Triton", lane)), title, start, end - start, args, arrow_out=out)


def timeline(profile: Profile, traced: dict[int, Traced] | None = None) -> Iterator[Span | Counter]:
    """All that there is to draw. With the server's trace, an arrow leads from a request's computation there to the
    request here that has its number."""
    maker = _Maker(profile, traced or {})
    yield from maker.events()
    yield from maker.overlapping()
    yield from maker.server()
