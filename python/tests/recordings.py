"""Recordings for tests and the benchmark: made of the events that requests to umo's backends leave behind.

The shapes are those of a recorded server (umo_kernel over shared memory and over the network, umo_onnxruntime), with
times, thread and jitter drawn anew for each request.
"""

from __future__ import annotations

import numpy as np

from umo import profile

# (microseconds after the start, kind, side, use, direction, which buffer, share of the size, reason)
_WRAPPED = [
    (0, "import", 0, 0, 0, 1, 0.25, 0), (1, "transfer_eliminated", 2, 0, 1, 1, 0.25, 0),
    (2, "access_begin", 2, 1, 0, 1, 0.25, 0), (9, "import", 0, 0, 0, 2, 1, 0), (10, "access_begin", 2, 2, 0, 2, 1, 0),
    (1460, "access_end", 2, 2, 0, 2, 1, 0), (1463, "transfer_eliminated", 1, 0, 2, 2, 1, 0),
    (1464, "access_begin", 1, 1, 0, 2, 1, 0), (1465, "access_end", 1, 1, 0, 2, 1, 0),
    (1466, "access_end", 2, 1, 0, 1, 0.25, 0), (1468, "release", 0, 0, 0, 1, 0.25, 0),
    (1471, "release", 0, 0, 0, 2, 1, 0),
]  # fmt: skip
_PRIVATE = [
    (0, "pool_hit", 0, 0, 0, 1, 0.25, 0), (1, "access_begin", 2, 2, 0, 1, 0.25, 0),
    (3, "transfer_performed", 2, 0, 1, 1, 0.25, 0), (400, "access_end", 2, 2, 0, 1, 0.25, 0),
    (402, "access_begin", 2, 1, 0, 1, 0.25, 0), (410, "pool_hit", 0, 0, 0, 2, 1, 0),
    (411, "access_begin", 2, 2, 0, 2, 1, 0), (1800, "access_end", 2, 2, 0, 2, 1, 0),
    (1803, "transfer_performed", 1, 0, 2, 2, 1, 0), (2200, "access_end", 2, 1, 0, 1, 0.25, 0),
    (2210, "pool_give", 0, 0, 0, 1, 0.25, 0), (2212, "pool_give", 0, 0, 0, 2, 1, 0),
]  # fmt: skip
_ENGINE = [
    (0, "pool_take", 0, 0, 0, 0, 1, 0), (2, "copy", 0, 0, 1, 0, 0.01, "control_data"),
    (5, "pool_hit", 0, 0, 0, 3, 1, 0), (3900, "copy_avoided", 0, 0, 2, 0, 1, 0), (3904, "pool_give", 0, 0, 0, 3, 1, 0),
    (3910, "pool_give", 0, 0, 0, 0, 1, 0),
]  # fmt: skip
_MODELS = [
    ("image_prep", _WRAPPED, 9_000_000, 0, True), ("image_prep_off", _PRIVATE, 9_000_000, 2, False),
    ("minilm", _ENGINE, 24_576, 0, False), ("detector", _WRAPPED, 1_228_800, 0, True),
    ("segmenter", _PRIVATE, 4_194_304, 1, False), ("ranker", _ENGINE, 262_144, 0, False),
    ("upscaler", _WRAPPED, 12_441_600, 0, True), ("embedder", _ENGINE, 98_304, 0, False),
]  # fmt: skip


def _one_model(place: int, count: int, seconds: float, rng: np.random.Generator) -> np.ndarray:
    name, template, size, mode, fresh = _MODELS[place]
    requests = max(1, count // len(template))
    start = np.sort(rng.uniform(0, seconds * 1e9, requests))
    stretch = rng.gamma(20, 1 / 20, requests)
    events = np.zeros((requests, len(template)), profile.EVENT)
    numbers = np.arange(requests, dtype=np.uint64)
    for i, (at_us, kind, side, use, direction, buffer, share, reason) in enumerate(template):
        column = events[:, i]
        column["time_ns"] = start + at_us * 1e3 * stretch + rng.integers(0, 900, requests)
        column["kind"] = profile.KINDS.index(kind)
        column["side"], column["use"], column["direction"] = side, use, direction
        column["size_bytes"] = int(size * share)
        column["reason"] = profile.REASONS.index(reason) if reason else 0
        if buffer:
            kept = numbers * np.uint64(2) if fresh else np.uint64(0)
            column["buffer"] = np.uint64(1 + place * 100_000_000) + kept + np.uint64(buffer)
        column["mode"] = mode if buffer else profile.NONE
        column["fence_value"] = numbers + np.uint64(1) if kind == "access_end" else 0
    # A request's events stay in their order, whatever was drawn.
    events["time_ns"] = np.maximum.accumulate(events["time_ns"], axis=1)
    events["thread"] = rng.integers(1, 17, requests)[:, None]
    events["scope"], events["device"], events["mode_before"] = place + 2, 1, profile.NONE
    return events.reshape(-1)


def _requests(place: int, count: int, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """What the kit tells of requests and of the engine's runs, each of which served up to four of them."""
    events = np.zeros((count, 2), profile.EVENT)
    times = np.sort(rng.uniform(0.01, seconds, count)) * 1e9
    duration = (rng.gamma(20, 1 / 20, count) * 2e6).astype(np.uint64)
    run = np.arange(count, dtype=np.uint64) // np.uint64(4) + np.uint64(1)
    request, batch = events[:, 0], events[:, 1]
    request["kind"], request["time_ns"], request["duration_ns"] = profile.KINDS.index("request"), times, duration
    request["offset_bytes"], request["detail"] = run, np.arange(count) % 4
    request["fence_value"] = np.where(np.arange(count) % 10 == 0, np.arange(count) + 1, 0)
    batch["kind"], batch["time_ns"], batch["duration_ns"] = (
        profile.KINDS.index("batch"),
        times,
        duration // np.uint64(2),
    )
    batch["offset_bytes"], batch["detail"] = run, 4
    events = np.concatenate((request, batch[::4]))
    events["scope"], events["thread"] = place + 2, rng.integers(1, 17, len(events))
    events["mode"] = events["mode_before"] = profile.NONE
    return events


def _moves(seconds: float) -> np.ndarray:
    """A buffer whose pattern changes and that is moved for it, then one for which there was no time; its pages go to
    another node."""
    why = (
        ("pattern", 4 + 256 * 0, 0xFF, 0xFF, 0, 0), ("placement", 1 + 256 * 4, 0, 2, 900_000, 150_000),
        ("move", 0, 0, 2, 0, 0), ("pattern", 1 + 256 * 4, 0xFF, 0xFF, 0, 0), ("placement", 2 + 256, 2, 2, 500, 400),
        ("numa_move", 1, 0, 0xFF, 0, 0),
    )  # fmt: skip
    events = np.zeros(len(why), profile.EVENT)
    for i, (kind, detail, mode, before, here, there) in enumerate(why):
        event = events[i]
        event["kind"], event["detail"], event["mode"], event["mode_before"] = (
            profile.KINDS.index(kind),
            detail,
            mode,
            before,
        )
        event["offset_bytes"], event["fence_value"], event["time_ns"] = here, there, seconds * 1e8 * (i + 1)
        event["duration_ns"] = 120_000 if kind in ("move", "numa_move") else 0
        event["size_bytes"] = 1 << 20
    events["buffer"], events["scope"], events["device"] = 7, 3, 1
    return events


def _memory(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Allocations that come and go, and a time in which memory is short."""
    count = 2000
    events = np.zeros(2 * count + 4, profile.EVENT)
    begin = np.sort(rng.uniform(0, seconds * 1e9, count))
    end = np.minimum(begin + rng.exponential(seconds * 1e8, count), seconds * 1e9)
    size = 1 << rng.integers(12, 25, count)
    for part, times, kind in ((events[:count], begin, "alloc"), (events[count : 2 * count], end, "free")):
        part["time_ns"], part["size_bytes"], part["kind"] = times, size, profile.KINDS.index(kind)
        part["scope"] = 2 + np.arange(count) % len(_MODELS)
    for place, (share, level) in enumerate(((0.5, 1), (0.55, 3), (0.6, 2), (0.7, 0))):
        event = events[2 * count + place]
        event["time_ns"], event["detail"] = seconds * 1e9 * share, level
        event["kind"], event["scope"] = profile.KINDS.index("pressure_level"), 1
    events["mode"] = events["mode_before"] = profile.NONE
    return events


def synthetic(count: int, seconds: float = 60, seed: int = 1) -> profile.Profile:
    """About so many events of eight models that are asked at the same time."""
    rng = np.random.default_rng(seed)
    each = count // len(_MODELS)
    parts = [_one_model(place, each, seconds, rng) for place in range(len(_MODELS))]
    parts += [_requests(place, max(1, each // 12), seconds, rng) for place in range(len(_MODELS))]
    events = profile.in_order(np.concatenate([*parts, _memory(seconds, rng), _moves(seconds)]))
    scopes = {1: "umo", **{place + 2: model[0] for place, model in enumerate(_MODELS)}}
    facts = {"duration_ns": int(events["time_ns"][-1]), "command": "tritonserver", "pid": 4711}
    return profile.Profile(events, scopes, {1: "opencl"}, 0, 0, facts)
