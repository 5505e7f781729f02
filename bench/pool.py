"""umo's pool against other allocators: hot loops, replays of traces, what is held at the peak and when idle.

    python bench/pool.py [--quick] [--traces FOLDER] [--seed N] [--build FOLDER]

Every trace is replayed by each allocator in a process of its own, in turns, several rounds. The opponents are in the
regime of a user who knows them: glibc that never maps and never trims, jemalloc without decay and without a threshold
for huge blocks, an allocator that decides as PyTorch's does (bench/pool_caching.h). mimalloc as it comes is shown, and
does not count as an opponent here: it gives memory back while it is busy and faults it in again.

Traces are the *.events.csv of --traces or UMO_TRACES, by default the recorded ones beside the repository, and four
made from a seed (bench/traces.py). --quick measures memory and instructions, which are the same in every run, and no
time. Prints JSON lines:

  pool_hot_SIZE_THREADS  ratio of times to mimalloc's; 1, 2 threads, x: taken by one and given by the other
  pool_instructions_SIZE instructions of a pair of calls in one thread, to mimalloc's; `waits` must be empty
  pool_trace_NAME        reserved/live at the peak: the larger of what the statistics say and what the system does
  pool_time_NAME         ratio of times to the fastest opponent's, of touched and untouched the worse
  pool_threads_NAME      the same, touched, with each event on the thread that the trace names
  pool_huge_NAME         touched, with UMO_HUGE_PAGES=on: ratio of times to the same without; beside it the
                         others' times, with their own settings for huge pages
  pool_idle_kept         percent of the peak held 100 ms after all was given back, on the worst trace
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pool_path
import traces

ROOT = Path(__file__).resolve().parent.parent
OPPONENTS = ("glibc", "jemalloc", "caching")
ALL = ("umo", *OPPONENTS, "mimalloc")
WORDS = {
    "glibc": "glibc that never maps or trims",
    "jemalloc": "jemalloc without decay",
    "caching": "PyTorch-like caching allocator",
}
PRELOADED = {
    "jemalloc": {
        "LD_PRELOAD": "libjemalloc.so.2",
        "MALLOC_CONF": "oversize_threshold:0,dirty_decay_ms:-1,muzzy_decay_ms:-1",
    },
    "mimalloc": {"LD_PRELOAD": "libmimalloc.so.2"},
}
# With huge pages; "_" ends the allocator's own name.
HUGE = {
    "umo_huge": {"UMO_HUGE_PAGES": "on"},
    "glibc_huge": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
    "jemalloc_huge": {
        "LD_PRELOAD": "libjemalloc.so.2",
        "MALLOC_CONF": PRELOADED["jemalloc"]["MALLOC_CONF"] + ",thp:always",
    },
}
# What a user may have set for an allocator; each run sets its own.
TUNED = ("LD_PRELOAD", "MALLOC_CONF", "GLIBC_TUNABLES", "UMO_HUGE_PAGES")
SIZES = {"4k": 4096, "64k": 65536, "1m": 1 << 20}
COMMAND = "make bench ARGS=pool"
# The first pass starts with nothing, as a process does; the others with what the one before kept.
PASSES = 3


@dataclass
class Options:
    build: Path
    rounds: int


def row(claim: str, value: float, unit: str, opponent: str, ratio: float, spread: Iterable[float], **more) -> dict:
    return {
        "claim": claim,
        "value": round(value, 3),
        "unit": unit,
        "opponent": opponent,
        "ratio": round(ratio, 3),
        "spread": [round(x, 3) for x in spread],
        **more,
        "command": COMMAND,
    }


def trace_name(path: Path) -> str:
    return path.name.removesuffix(".events.csv")


def trace_files(folder: Path | None, made: Path, seed: int) -> list[Path]:
    """The recorded ones, then those made from the seed. No folder, or none in it: only the latter."""
    found = sorted(folder.glob("*.events.csv")) if folder is not None and folder.is_dir() else []
    return found + traces.write(made, seed)


def replay(options: Options, allocator: str, mode: str, trace: Path, passes: int = 1) -> dict:
    environment = {name: value for name, value in os.environ.items() if name not in TUNED}
    environment.update(PRELOADED.get(allocator, HUGE.get(allocator, {})))
    command = [str(options.build / "bench" / "pool_replay"), allocator.partition("_")[0], mode, str(trace)]
    if mode != "check":
        command.append(str(passes))
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {ran.returncode}: {ran.stderr.strip()}")
    return json.loads(ran.stdout)


# ---- memory ----


def peak_ratio(checked: dict) -> tuple[float, float]:
    """Reserved/live at the peak, by the allocator's own statistics (0 if it has none) and by the system's."""
    live = checked["live_peak_bytes"]
    return checked.get("reserved_peak_bytes", 0) / live, checked["resident_peak_bytes"] / live


def kept_percent(checked: dict) -> tuple[float, float]:
    """What is held of the peak 100 ms after all is given back, by statistics and by the system."""
    said = 100 * checked.get("reserved_kept_bytes", 0) / max(checked.get("reserved_peak_bytes", 0), 1)
    return said, 100 * checked["resident_kept_bytes"] / checked["resident_peak_bytes"]


def memory_rows(options: Options, paths: list[Path], allocators: tuple[str, ...]) -> list[dict]:
    rows = []
    ratios = {}
    kept = {}
    idle_ms = {}
    for path in paths:
        name = trace_name(path)
        checked = {allocator: replay(options, allocator, "check", path) for allocator in allocators}
        said, seen = peak_ratio(checked["umo"])
        ratios[name] = max(said, seen)
        kept[name] = kept_percent(checked["umo"])
        idle_ms[name] = checked["umo"]["idle_ms"]
        others = {allocator: round(max(peak_ratio(checked[allocator])), 3) for allocator in allocators[1:]}
        rows.append(
            row(
                f"pool_trace_{name}",
                max(said, seen) * checked["umo"]["live_peak_bytes"] / 1e6,
                "MB",
                "reserved/live; the others' is in `others`",
                max(said, seen),
                sorted((said, seen)),
                statistics=round(said, 3),
                resident=round(seen, 3),
                others=others,
                events=checked["umo"]["events"],
                ignored=checked["umo"]["ignored"],
            )
        )
    for kind, names in (("", [n for n in ratios if not n.startswith("synthetic_")]), ("_all", list(ratios))):
        if names:
            figures = [ratios[n] for n in names]
            for what, value in (("median", statistics.median(figures)), ("worst", max(figures))):
                spread = (min(figures), max(figures))
                rows.append(row(f"pool_trace{kind}_{what}", value, "x", f"{len(names)} traces", value, spread))
    worst = max(kept, key=lambda n: max(kept[n]))
    rows.append(
        row(
            "pool_idle_kept",
            max(kept[worst]),
            "%",
            f"of the peak, on the worst trace: {worst}",
            max(kept[worst]) / 100,
            (min(max(k) / 100 for k in kept.values()), max(kept[worst]) / 100),
            idle_ms=idle_ms,
            by_trace={n: {"statistics": round(a, 2), "resident": round(b, 2)} for n, (a, b) in kept.items()},
        )
    )
    return rows


# ---- time ----


@dataclass
class Contest:
    """One trace in one mode: times of each round, by allocator, ms."""

    cold: dict[str, list[float]]
    warm: dict[str, list[float]]
    wall: dict[str, list[float]]

    @staticmethod
    def against(times: dict[str, list[float]]) -> tuple[str, list[float]]:
        """The fastest opponent and the ratios to it, round by round."""
        fastest = min(OPPONENTS, key=lambda name: statistics.median(times[name]))
        return fastest, [ours / theirs for ours, theirs in zip(times["umo"], times[fastest], strict=True)]

    def figures(self) -> dict:
        fastest, ratios = self.against(self.cold)
        warm_fastest, warm = self.against(self.warm)
        _, wall = self.against(self.wall)
        return {
            "ratio": statistics.median(ratios),
            "spread": quartiles(ratios),
            "fastest": fastest,
            "ms": {name: round(statistics.median(times), 3) for name, times in self.cold.items()},
            "wall_ratio": round(statistics.median(wall), 3),
            "warm_ratio": round(statistics.median(warm), 3),
            "warm_fastest": warm_fastest,
            "warm_ms": {name: round(statistics.median(times), 3) for name, times in self.warm.items()},
        }


def quartiles(figures: list[float]) -> tuple[float, float]:
    ordered = sorted(figures)
    return ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4]


def contest(options: Options, path: Path, mode: str) -> dict:
    """Replays in turns; the order moves by one each round."""
    c = Contest({}, {}, {})
    for turn in range(options.rounds):
        at = turn % len(ALL)
        for allocator in ALL[at:] + ALL[:at]:
            if allocator == "mimalloc" and turn > 0:
                continue  # shown only, and slow
            ran = replay(options, allocator, mode, path, 1 if allocator == "mimalloc" else PASSES)
            c.cold.setdefault(allocator, []).append(ran["cpu_ns"][0] / 1e6)
            c.wall.setdefault(allocator, []).append(ran["wall_ns"][0] / 1e6)
            if len(ran["cpu_ns"]) > 1:
                c.warm.setdefault(allocator, []).append(statistics.median(ran["cpu_ns"][1:]) / 1e6)
    return c.figures()


def time_row(claim: str, modes: dict[str, dict]) -> dict:
    worst = max(modes, key=lambda mode: modes[mode]["ratio"])
    figures = modes[worst]
    for mode in modes.values():
        mode["ratio"] = round(mode["ratio"], 3)
        mode["spread"] = [round(x, 3) for x in mode["spread"]]
    return row(
        claim,
        figures["ms"]["umo"],
        "ms",
        f"{WORDS[figures['fastest']]} ({worst})",
        figures["ratio"],
        figures["spread"],
        **modes,
    )


def threads_of(path: Path) -> int:
    with path.open() as lines:
        next(lines)
        return len({line.rsplit(",", 1)[1] for line in lines})


def time_rows(options: Options, paths: list[Path]) -> Iterable[dict]:
    for path in paths:
        modes = {mode: contest(options, path, mode) for mode in ("untouched", "touched")}
        yield time_row(f"pool_time_{trace_name(path)}", modes)
    for path in paths:
        if threads_of(path) > 2:  # two: one of them is the interpreter's at start
            yield time_row(f"pool_threads_{trace_name(path)}", {"threads": contest(options, path, "threads")})


def huge_rows(options: Options, paths: list[Path]) -> Iterable[dict]:
    """In turns. Spreads are wide where the system's free memory is partly in pieces, or the host's: a huge page then
    costs as much as its 512 pages, or more."""
    for path in paths:
        times: dict[str, list[float]] = {name: [] for name in ("umo", *HUGE)}
        for _ in range(options.rounds):
            for name, list_of in times.items():
                list_of.append(replay(options, name, "touched", path)["cpu_ns"][0] / 1e6)
        ratios = [huge / plain for huge, plain in zip(times["umo_huge"], times["umo"], strict=True)]
        yield row(
            f"pool_huge_{trace_name(path)}",
            statistics.median(times["umo_huge"]),
            "ms",
            "umo without huge pages",
            statistics.median(ratios),
            (min(ratios), max(ratios)),
            ms={name: round(statistics.median(list_of), 3) for name, list_of in times.items()},
        )


# ---- the hot path ----


def instruction_rows(options: Options) -> Iterable[dict]:
    program = options.build / "bench" / "pool_hot"
    for name, size in SIZES.items():
        ours, buffers, theirs = (pool_path.measure(program, whom, size, 2000) for whom in ("umo", "buffer", "mimalloc"))
        ratio = ours.instructions / theirs.instructions
        yield row(
            f"pool_instructions_{name}",
            ours.instructions,
            "instructions",
            f"mimalloc: {theirs.instructions:.0f}",
            ratio,
            (ratio, ratio),
            objects=ours.objects,
            waits=ours.waits,
            buffer=buffers.instructions,
            buffer_waits=buffers.waits,
        )


def hot_rows(options: Options) -> Iterable[dict]:
    """Loops with two threads tell something only where both run at the same time: on a busy machine they hardly do."""
    load = round(os.getloadavg()[0], 1)
    if load > os.cpu_count() / 2:
        print(f"pool: the machine is busy (load {load}): loops with two threads mean little", file=sys.stderr)
    ran = subprocess.run([str(options.build / "bench" / "pool_hot")], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"pool_hot ended with {ran.returncode}: {ran.stderr.strip()}")
    for line in ran.stdout.splitlines():
        yield {**json.loads(line), "load": load}


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    recorded = os.environ.get("UMO_TRACES", ROOT.parent / "shared" / "data" / "traces")
    parser.add_argument("--traces", type=Path, default=Path(recorded))
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "release")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="what is the same in every run: memory, instructions")
    return parser


def main() -> int:
    given = arguments().parse_args()
    options = Options(given.build, given.rounds)
    with tempfile.TemporaryDirectory() as made:
        paths = trace_files(given.traces, Path(made), given.seed)
        if len(paths) == len(traces.MADE):
            print(f"pool: no *.events.csv in {given.traces}: only the made ones are replayed", file=sys.stderr)
        parts: list[Iterable[dict]] = [instruction_rows(options)]
        if given.quick:
            parts.append(memory_rows(options, paths, ("umo",)))
        else:
            recorded = [path for path in paths if not trace_name(path).startswith("synthetic_")]
            parts = [hot_rows(options), *parts, memory_rows(options, paths, ALL), time_rows(options, paths)]
            parts.append(huge_rows(options, recorded))
        for part in parts:
            for made_row in part:
                print(json.dumps(made_row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
