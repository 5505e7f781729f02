"""The JSON that chrome://tracing, Perfetto and speedscope read ("Trace Event Format")."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from .model import Profile
from .timeline import Counter, Span, Track, timeline
from .triton import Traced

_GROUPS = ("threads", "requests", "buffers", "memory", "server")  # each is shown as a process


def _rows(profile: Profile, traced: dict[int, Traced] | None) -> Iterator[dict[str, Any]]:
    tracks: dict[Track, int] = {}
    base = int(profile.facts.get("pid", 0)) * len(_GROUPS)

    def process(track: Track) -> int:
        return base + _GROUPS.index(track.group)

    for item in timeline(profile, traced):
        if isinstance(item, Counter):
            name = item.track.name
            row = {"ph": "C", "name": name, "pid": process(item.track), "ts": item.time_ns / 1000}
            yield row | {"args": {"bytes": item.value}}
            continue
        if item.track not in tracks:
            tracks[item.track] = len(tracks) + 1
            where = {"ph": "M", "pid": process(item.track), "tid": tracks[item.track]}
            yield where | {"name": "thread_name", "args": {"name": item.track.name}}
        yield from _span(item, process(item.track), tracks[item.track])
    words = profile.facts.get("command") or "umo"
    for number, group in enumerate(_GROUPS):
        yield {"ph": "M", "pid": base + number, "name": "process_name", "args": {"name": f"{group}: {words}"}}
        yield {"ph": "M", "pid": base + number, "name": "process_sort_index", "args": {"sort_index": number}}


def _span(span: Span, process: int, thread: int) -> Iterator[dict[str, Any]]:
    where = {"pid": process, "tid": thread, "ts": span.start_ns / 1000, "cat": span.track.group}
    if span.duration_ns is None:
        yield where | {"ph": "i", "s": "t", "name": span.name, "args": span.args}
        return
    yield where | {"ph": "X", "name": span.name, "dur": span.duration_ns / 1000, "args": span.args}
    arrow = where | {"cat": "trace_id", "name": "request"}
    if span.arrow_out is not None:
        yield arrow | {"ph": "s", "id": span.arrow_out}
    if span.arrow_in is not None:
        yield arrow | {"ph": "f", "bp": "e", "id": span.arrow_in}


def write_chrome(file: BinaryIO, profile: Profile, traced: dict[int, Traced] | None = None) -> None:
    other = {"umo": profile.facts, "lost": profile.lost, "names_lost": profile.names_lost}
    file.write(b'{"displayTimeUnit":"ns","otherData":' + json.dumps(other).encode() + b',"traceEvents":[\n')
    first = True
    for row in _rows(profile, traced):
        file.write((b"" if first else b",\n") + json.dumps(row, separators=(",", ":")).encode())
        first = False
    file.write(b"\n]}\n")
