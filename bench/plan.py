"""umo's planner: hard instances, recorded traces, and rectangles cut into pieces, each against what it is asked.

    python bench/plan.py [--data FOLDER] [--turns N] [--peers]

Instances are *.csv of FOLDER/plan (capacity 1,048,576) and *.dsa.csv of FOLDER/traces, by default those beside the
repository; the rectangles are made here, and their optimum is their height. Every plan is checked, by another way than
it was made, before a time counts. Time is that of the search, one thread, the median of the turns, each with another
seed. The plan's ratio to the bound stands against two others made here in the same run: first fit in the order of time,
and greedy by size (Pisarchyk and Lee 2020, as TFLite plans). --peers adds OR-Tools' CP-SAT, one thread too.
MiniMalloc is in no registry: its times are those that its authors publish, and stand beside, not against.

Three claims an instance: plan_solved_NAME (1: a plan of the capacity, or at the bound), plan_bound_NAME (peak / bound
after the search without a capacity, 10 s), plan_time_NAME (to the capacity, or where there is none to the end).

plan_pool_MODEL: the tensors between the nodes of a model, taken from umo's pool and given back in the order of the
nodes (bench/pool_replay), and what the pool has reserved at the peak over the planned peak. Beside it first fit, and
the allocator that decides as PyTorch's does.

plan_arena_MODEL: the same from an arena that has seen the request often enough to plan it (umo_arena_free), and what it
holds over the planned peak. Beside it what it would hold by its mark alone.

plan_batch_MODEL: the same as one batch with lifetimes (umo_optimizer_alloc_planned, bench/plan_batch), each tensor on
whole pages, and what it takes over the planned peak. The ratio is to the batch without lifetimes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

import pool as pool_bench  # noqa: E402

from umo import planning  # noqa: E402
from umo.models import minilm  # noqa: E402
from umo.planning import Buffer  # noqa: E402

COMMAND = "make bench (bench/plan.py)"
CAPACITY = 1_048_576
SECONDS = 10.0
PEER_SECONDS = 60.0  # for another planner to a capacity
# MiniMalloc's own time to the capacity, s: on a machine like this one (docs/planning.md).
MINIMALLOC = {"A": 4.97, "B": 3.66, "C": 0.61, "D": 2.74, "E": 3.40, "F": 4.80}


@dataclass
class Instance:
    name: str
    buffers: list[Buffer]
    capacity: int  # 0: none is given
    most_s: float  # what it may take


def cut(count: int, width: int, height: int, pinwheels: bool, seed: int) -> list[Buffer]:
    """A full rectangle in so many pieces: by straight cuts, or by pinwheels, which no straight cut makes."""
    chance = random.Random(seed)
    pieces = [(0, width, 0, height)]
    whole: list[tuple[int, int, int, int]] = []
    while pieces and len(pieces) + len(whole) < count:
        # The largest of some, so that all become about as large.
        tried = [chance.randrange(len(pieces)) for _ in range(16)]
        at = max(tried, key=lambda k: (pieces[k][1] - pieces[k][0]) * (pieces[k][3] - pieces[k][2]))
        pieces[at], pieces[-1] = pieces[-1], pieces[at]
        a, b, c, d = pieces.pop()
        w, h = b - a, d - c
        if pinwheels and w >= 10 and h >= 10:
            x1, x2 = chance.randint(a + w // 5, a + w * 2 // 5), chance.randint(a + w * 3 // 5, a + w * 4 // 5)
            y1, y2 = chance.randint(c + h // 5, c + h * 2 // 5), chance.randint(c + h * 3 // 5, c + h * 4 // 5)
            pieces += [(a, x2, c, y1), (x2, b, c, y2), (x1, b, y2, d), (a, x1, y1, d), (x1, x2, y1, y2)]
        elif w >= 2 and chance.random() * (w / width + h / height) < w / width:
            x = chance.randint(a + max(1, w // 5), b - max(1, w // 5))
            pieces += [(a, x, c, d), (x, b, c, d)]
        elif h >= 2:
            y = chance.randint(c + max(1, h // 5), d - max(1, h // 5))
            pieces += [(a, b, c, y), (a, b, y, d)]
        else:
            whole.append((a, b, c, d))
    pieces += whole
    chance.shuffle(pieces)
    return [Buffer(str(k), a, b, d - c) for k, (a, b, c, d) in enumerate(pieces)]


def first_fit(buffers: list[Buffer], order: list[int]) -> int:
    """The peak when each buffer, in this order, takes the lowest gap that holds it."""
    placed: list[tuple[int, int, int, int]] = []  # offset, end, lower, upper; by offset
    peak = 0
    for k in order:
        b, at = buffers[k], 0
        for offset, end, lower, upper in placed:
            if lower < b.upper and b.lower < upper:
                if offset >= at + b.size:
                    break
                at = max(at, end)
        placed.append((at, at + b.size, b.lower, b.upper))
        placed.sort()
        peak = max(peak, at + b.size)
    return peak


def cp_sat(buffers: list[Buffer], bound: int, seconds: float, capacity: int = 0) -> tuple[int | None, float]:
    """The peak that CP-SAT finds on one thread, None if it finds none, and its seconds. With a capacity it may stop at
    the first plan that fits."""
    from ortools.sat.python import cp_model

    model = cp_model.CpModel()
    most = capacity or sum(b.size for b in buffers)
    peak = model.new_int_var(bound, most, "peak")
    across, up = [], []
    for k, b in enumerate(buffers):
        offset = model.new_int_var(0, most - b.size, f"o{k}")
        across.append(model.new_fixed_size_interval_var(b.lower, b.upper - b.lower, f"t{k}"))
        up.append(model.new_fixed_size_interval_var(offset, b.size, f"m{k}"))
        model.add(offset + b.size <= peak)
    model.add_no_overlap_2d(across, up)
    if not capacity:
        model.minimize(peak)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds, solver.parameters.num_workers = seconds, 1
    start = time.perf_counter()
    found = solver.solve(model) in (cp_model.OPTIMAL, cp_model.FEASIBLE)
    return (round(solver.value(peak)) if found else None), time.perf_counter() - start


def row(claim: str, value: float, unit: str, opponent: str, ratio: float, spread: list[float]) -> None:
    fields = {"claim": claim, "value": value, "unit": unit, "opponent": opponent, "ratio": ratio, "spread": spread}
    print(json.dumps({**fields, "command": COMMAND}), flush=True)


def instances(data: Path) -> Iterator[Instance]:
    for path in sorted((data / "plan").glob("*.csv")):
        hard = path.name.endswith(f".{CAPACITY}.csv")
        yield Instance(path.name.split(".")[0], planning.read(path)[0], CAPACITY if hard else 12, SECONDS)
    for path in sorted((data / "traces").glob("*.dsa.csv")):
        buffers = planning.read(path)[0]
        most_s = 0.1 if len(buffers) <= 3000 else 1.0 if len(buffers) <= 11000 else SECONDS
        yield Instance(path.name.removesuffix(".dsa.csv"), buffers, 0, most_s)
    for kind, pinwheels in (("cut", False), ("pinwheel", True)):
        for count, most_s in ((3000, 0.1), (11000, 1.0), (60000, SECONDS)):
            width = 2 * count
            yield Instance(f"{kind}{count}", cut(count, width, 1 << 30, pinwheels, count), 0, most_s)


def measure(instance: Instance, turns: int, peers: bool) -> None:
    name, buffers = instance.name, instance.buffers
    ratios, times, solved = [], [], 1
    for seed in range(turns):
        free = planning.solve(buffers, seconds=SECONDS, seed=seed)
        asked = planning.solve(buffers, capacity=instance.capacity, seconds=SECONDS, seed=seed)
        for plan in (free, asked):
            if plan.offsets is None or planning.check(buffers, plan.offsets) != plan.peak:
                raise SystemExit(f"{name}: the plan is not right")
        ratios.append((free.peak or 0) / free.bound)
        times.append(asked.seconds)
        solved &= (asked.peak or 0) <= instance.capacity if instance.capacity else asked.optimal
    opponent, other = "the bound", 1.0
    if len(buffers) <= 3000:
        by_time = first_fit(buffers, sorted(range(len(buffers)), key=lambda k: buffers[k].lower))
        by_size = first_fit(buffers, sorted(range(len(buffers)), key=lambda k: -buffers[k].size))
        bound = free.bound
        opponent = f"first fit {by_time / bound:.3f}, greedy by size {by_size / bound:.3f} of the bound"
        other = min(by_time, by_size) / bound
        if peers:
            peak, spent = cp_sat(buffers, bound, SECONDS)
            opponent += f", CP-SAT in {spent:.1f} s {peak / bound:.3f}" if peak else f", CP-SAT in {spent:.1f} s none"
    ratio, middle = statistics.median(ratios), statistics.median(times)
    row(f"plan_solved_{name}", int(solved), "", f"{turns} seeds, {SECONDS:.0f} s", int(solved), [int(solved)] * 2)
    spread = [round(min(ratios), 5), round(max(ratios), 5)]
    row(f"plan_bound_{name}", round(ratio, 5), "x bound", opponent, round(ratio / other, 5), spread)
    against = f"at most {instance.most_s:g} s asked"
    share = middle / instance.most_s
    if name in MINIMALLOC:
        against, share = f"MiniMalloc, {MINIMALLOC[name]} s as recorded (not run here)", middle / MINIMALLOC[name]
        if peers:
            peak, spent = cp_sat(buffers, 0, PEER_SECONDS, instance.capacity)
            against += f", CP-SAT {'' if peak else 'nothing in '}{spent:.1f} s"
    row(
        f"plan_time_{name}",
        round(middle, 5),
        "s",
        against,
        round(share, 6),
        [round(min(times), 5), round(max(times), 5)],
    )


def models(folder: Path) -> Iterator[tuple[str, list[Buffer]]]:
    """Tensors between the nodes: MiniLM at two batches, and image models of the graphs that onnx carries."""
    import onnx

    text = folder / "minilm.onnx"
    minilm.write(text)
    for batch in (1, 8):
        shapes = {name: (batch, 128) for name in ("input_ids", "attention_mask", "token_type_ids")}
        yield f"minilm_b{batch}", planning.from_onnx(text, shapes).buffers
    light = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    for name in ("resnet50", "densenet121", "shufflenet"):
        yield name, planning.from_onnx(light / f"light_{name}.onnx", {}).buffers


def events_write(path: Path, buffers: list[Buffer]) -> None:
    """The lifetimes as a trace of one thread: what ends at a time ends before what begins there."""
    events = [(b.lower, 1, k) for k, b in enumerate(buffers)] + [(b.upper, 0, k) for k, b in enumerate(buffers)]
    lines = [f"{at},{'fa'[begins]},{k},{buffers[k].size if begins else 0},0" for at, begins, k in sorted(events)]
    path.write_text("t,op,id,size,thread\n" + "\n".join(lines) + "\n")


def against_the_pool(build: Path, name: str, buffers: list[Buffer], folder: Path) -> None:
    plan = planning.solve(buffers, seconds=SECONDS)
    if plan.offsets is None or not plan.peak or planning.check(buffers, plan.offsets) != plan.peak:
        raise SystemExit(f"{name}: the plan is not right")
    trace = folder / f"{name}.events.csv"
    events_write(trace, buffers)
    options = pool_bench.Options(build=build, rounds=1)
    pool = pool_bench.replay(options, "umo", "check", trace)["reserved_peak_bytes"] / plan.peak
    arena = pool_bench.replay(options, "arena", "check", trace)
    caching = pool_bench.replay(options, "caching", "check", trace)["reserved_peak_bytes"] / plan.peak
    first = planning.first_fit(buffers) / plan.peak
    opponent = f"planned peak {plan.peak} bytes; first fit {first:.3f}, as PyTorch's allocator {caching:.3f} of it"
    row(f"plan_pool_{name}", round(pool, 4), "x planned", opponent, round(pool, 4), [round(pool, 4)] * 2)
    held, mark = arena["reserved_peak_bytes"] / plan.peak, arena["mark_bytes"] / plan.peak
    opponent = f"planned peak {plan.peak} bytes; by the mark {mark:.3f} of it"
    row(f"plan_arena_{name}", round(held, 4), "x planned", opponent, round(held / mark, 4), [round(held, 4)] * 2)


def as_a_batch(build: Path, name: str, buffers: list[Buffer], folder: Path) -> None:
    table = folder / f"{name}.csv"
    planning.write(table, buffers)
    ran = subprocess.run([str(build / "bench" / "plan_batch"), str(table)], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise SystemExit(f"{name}: {ran.stderr.strip()}")
    said = json.loads(ran.stdout)
    peak = planning.solve(buffers, seconds=SECONDS).peak or 0
    taken, apart = said["planned_bytes"], said["batch_bytes"]
    opponent = f"planned peak {peak} bytes; without lifetimes {apart / peak:.3f} of it ({apart} bytes)"
    value = round(taken / peak, 4)
    row(f"plan_batch_{name}", value, "x planned", opponent, round(taken / apart, 4), [value] * 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    beside = os.environ.get("UMO_DATA", ROOT.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(beside))
    parser.add_argument("--build", type=Path, default=Path(os.environ.get("UMO_BUILD", ROOT / "build" / "release")))
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    if options.peers and importlib.util.find_spec("ortools") is None:
        raise SystemExit("--peers needs OR-Tools' CP-SAT: pip install ortools")
    for instance in instances(options.data):
        measure(instance, options.turns, options.peers)
    with tempfile.TemporaryDirectory() as made:
        for name, buffers in models(Path(made)):
            against_the_pool(options.build, name, buffers, Path(made))
            as_a_batch(options.build, name, buffers, Path(made))


if __name__ == "__main__":
    main()
