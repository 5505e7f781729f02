"""umo top's sums of what a flight recorder says."""

from __future__ import annotations

import time

import numpy as np
import pytest

from umo.profile import DIRECTIONS, EVENT, KINDS, MODES, NONE, REASONS, STATUSES
from umo.top import recorded
from umo.top.recorded import Sums
from umo.top.source import ModelKey, Reading

SCOPES = {1: "bert", 2: "resnet", 3: "bert"}
BERT, RESNET = ModelKey("bert", "?"), ModelKey("resnet", "?")


def event(kind: str, size: int = 0, scope: int = 1, **fields: int) -> np.ndarray:
    made = np.zeros(1, EVENT)
    made["mode"] = made["mode_before"] = NONE
    made["kind"], made["size_bytes"], made["scope"] = KINDS.index(kind), size, scope
    for name, value in fields.items():
        made[name] = value
    return made


def read(sums: Sums, *events: np.ndarray) -> Reading:
    sums.add(np.concatenate(events), SCOPES)
    return sums.reading(0.0, SCOPES, 3)


def test_events_add_up_by_model() -> None:
    way, limit = DIRECTIONS.index("in"), REASONS.index("limit")
    reading = read(
        Sums(),
        event("copy", 10, direction=way, reason=limit),
        event("copy", 5, scope=3, direction=way, reason=limit),  # the same model, loaded anew
        event("copy", 99, direction=way, reason=limit, status=3),  # failed
        event("copy_avoided", 7, scope=2, direction=DIRECTIONS.index("out")),
        event("transfer_performed", 4, direction=way),
        event("transfer_eliminated", 8, direction=DIRECTIONS.index("out")),
        event("import", 100),
        event("import_hit", 100),
        event("import_hit", 100),
        event("pool_hit", 64),
        event("pool_miss", 64),
        event("pool_trim", 4096),
        event("alloc", 4096),
        event("pressure_level", detail=2, scope=0),
        event("pressure_answer", detail=0, scope=0),
    )
    bert = reading.models[BERT].counters
    assert bert["copied", "limit", "in"] == 15 and bert["copies", "limit", "in"] == 2
    assert bert["crossed", "host_to_device", "performed"] == 4
    assert bert["crossings", "device_to_host", "eliminated"] == 1
    assert bert["bound", "hit"] == 200 and bert["bindings", "miss"] == 1
    assert bert["blocks", "kept"] == bert["blocks", "new"] == 1
    assert bert["trimmed",] == bert["allocated",] == 4096
    assert reading.models[RESNET].counters == {("avoided", "out"): 7, ("avoids", "out"): 1}
    assert reading.process.gauges == {("level",): 2}
    assert reading.process.counters == {("answers", "trim"): 1}
    assert reading.lost == 3


def test_buffers_are_followed_from_one_batch_of_events_to_the_next() -> None:
    sums = Sums()
    unified, private = MODES.index("unified"), MODES.index("private")
    first = read(
        sums,
        event("alloc", 1000, buffer=7, mode=unified),
        event("access_begin", 200, buffer=8, offset_bytes=100, mode=private, scope=2),
        event("transfer_performed", 30, buffer=7, direction=1),
    )
    assert first.buffers is not None
    assert (first.buffers[7].model, first.buffers[7].size_bytes, first.buffers[7].mode) == ("bert", 1000, "unified")
    assert (first.buffers[8].model, first.buffers[8].size_bytes) == ("resnet", 300)
    second = read(
        sums,
        event("move", 1000, buffer=7, mode=private, mode_before=unified),
        event("pattern", buffer=7, detail=4 + 256 * 3),
        event("placement", buffer=8, detail=1 + 256 * 2, mode=unified, scope=2, offset_bytes=900_000),
        event("transfer_performed", 12, buffer=7, direction=1),
        event("access_begin", 10, buffer=7, mode=private),
    )
    assert second.buffers is not None
    seven = second.buffers[7]
    assert (seven.mode, seven.pattern, seven.size_bytes) == ("private", "streaming", 1000)
    assert seven.counters == {
        ("crossed", "host_to_device", "performed"): 42,
        ("crossings", "host_to_device", "performed"): 2,
    }
    assert (second.buffers[8].pattern, second.buffers[8].size_bytes) == ("gpu_dominant", 300)  # no nanoseconds
    gauges = second.models[BERT].gauges
    assert gauges["live",] == 1000 and gauges["mode", "private"] == 1000 and gauges["pattern", "streaming"] == 1000
    third = read(sums, event("free", 1000, buffer=7), event("release", buffer=8))
    assert third.buffers == {}
    assert first.buffers[7].counters["crossed", "host_to_device", "performed"] == 30  # a reading stays what it was


def test_moves_to_another_node_are_counted_and_the_last_one_is_where_a_buffer_is() -> None:
    sums = Sums()
    unified, busy = MODES.index("unified"), STATUSES.index("BUSY")
    first = read(
        sums,
        event("alloc", 5000, buffer=7, mode=unified),
        event("numa_move", 8192, buffer=7, mode=unified, detail=1),
        event("numa_move", 4096, buffer=7, mode=unified, detail=0, status=busy),
    )
    assert first.buffers is not None
    # Whole pages move: the buffer is as large as it was, and in the mode in which it was.
    assert (first.buffers[7].node, first.buffers[7].size_bytes, first.buffers[7].mode) == ("1", 5000, "unified")
    assert first.buffers[7].pattern == ""
    counters = first.models[BERT].counters
    assert counters["relocated",] == 8192 and counters["relocations",] == 1
    assert ("moved",) not in counters and ("crossings", "host_to_device", "performed") not in counters
    second = read(sums, event("numa_move", 8192, buffer=7, detail=0), event("numa_move", 8192, buffer=99, detail=300))
    assert second.buffers is not None and (second.buffers[7].node, second.buffers[99].node) == ("0", "300")


def test_what_nobody_knows_is_no_error() -> None:
    odd = event("copy", 5, scope=77, reason=250, direction=9)
    new = event("copy", 5)
    new["kind"] = 200  # a newer library's
    reading = read(Sums(), odd, new, event("pattern", buffer=99, detail=255))
    assert reading.models[ModelKey("?", "?")].counters["copied", "?", "?"] == 5
    assert read(Sums(), np.empty(0, EVENT)).models == {}


def test_buffers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "BUFFERS_MOST", 10)
    sums = Sums()
    reading = read(sums, *[event("alloc", 1, buffer=number) for number in range(1, 31)])
    assert reading.buffers is not None and sorted(reading.buffers) == list(range(21, 31))


def test_a_million_events_are_added_in_time() -> None:
    rng = np.random.default_rng(1)
    events = np.zeros(65536, EVENT)
    events["kind"] = rng.integers(1, len(KINDS), len(events))
    events["buffer"] = rng.integers(0, 500, len(events))
    events["scope"] = rng.integers(1, 4, len(events))
    events["size_bytes"] = rng.integers(1, 1 << 20, len(events))
    events["mode"] = 0
    sums = Sums()
    start = time.process_time()
    for _ in range(4):
        sums.add(events, SCOPES)
    # Of the 100,000 events a second that a busy server makes, this is a small part of a processor.
    assert (time.process_time() - start) * 4 < 4.0
