"""What own views of shared memory cost, with ten regions registered and with ten thousand.

A hit is the way of a request that has been here before: one look-up of the mapping (the one system call), one of the
view, one of the wrap, and all given back (bench/views.c). Times are of the thread's processor time, which others at
work on the machine disturb less, and still by the processor's caches; instructions are the whole process's in user
mode, by callgrind, with a preloaded library that makes the duplicates which valgrind refuses.

    python bench/views.py [BUILD]

Prints JSON lines.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "inproc"))

from instructions import LINEAR_MEMCPY, self_costs  # noqa: E402

COMMAND = "make bench (bench/views.py)"
HITS = 1000
TURNS = 5
FEW, MANY = 10, 10_000
COUNTED = 2_000  # under valgrind each new region takes long


def timed(program: str, regions: int) -> dict[str, float]:
    return json.loads(subprocess.run([program, str(regions)], check=True, capture_output=True, text=True).stdout)


def instructions(build: Path, regions: int) -> float:
    """Of the whole process, a hit."""
    environment = {
        **os.environ,
        "GLIBC_TUNABLES": LINEAR_MEMCPY,
        "LD_PRELOAD": str(build / "lib" / "libumo_duplicate.so"),
    }
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "-q", f"--callgrind-out-file={out}"]
        program = [str(build / "bench" / "views"), "count", str(regions)]
        subprocess.run([*valgrind, *program], env=environment, check=True, capture_output=True)
        return sum(self_costs(f"{out}.1").values()) / HITS


def row(claim: str, values: list[float], unit: str, opponent: str, against: list[float]) -> None:
    ratios = [theirs / ours if ours else 0 for ours, theirs in zip(values, against, strict=True)]
    fields = {
        "claim": claim,
        "value": round(statistics.median(values), 3),
        "unit": unit,
        "opponent": opponent,
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "command": COMMAND,
    }
    print(json.dumps(fields), flush=True)


def main() -> None:
    build = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "release"
    program = str(build / "bench" / "views")
    few, many = [], []
    for _ in range(TURNS):
        few.append(timed(program, FEW))
        many.append(timed(program, MANY))

    def of(turns: list[dict[str, float]], name: str) -> list[float]:
        return [turn[name] for turn in turns]

    copies = of(few, "copy_us")
    copy = f"memcpy of the region's 64 KB: {statistics.median(copies):.2f} us"
    row(f"view_hit_{FEW}", of(few, "hit_us"), "us", copy, copies)
    row(f"view_hit_{MANY}", of(many, "hit_us"), "us", f"with {FEW} regions, at random", of(few, "hit_us"))
    row(f"view_hot_{MANY}", of(many, "hot_us"), "us", f"with {FEW} regions, the same one again", of(few, "hot_us"))
    row(f"view_new_{MANY}", of(many, "new_us"), "us", copy, of(many, "copy_us"))
    row(f"view_lost_{MANY}", of(many, "lost_us"), "us", f"with {FEW} regions", of(few, "lost_us"))
    # At most once a second, and at most a hundredth of the keeper's time.
    row(f"view_sweep_{MANY}", of(many, "sweep_us"), "us", f"with {FEW} regions", of(few, "sweep_us"))
    counts = [instructions(build, regions) for regions in (FEW, COUNTED)]
    row("view_hit_instructions", [counts[1]], "instructions", f"with {FEW} regions; here {COUNTED}", [counts[0]])
    if counts[1] > 1.05 * counts[0]:
        sys.exit("views.py: a hit takes longer with more regions")


if __name__ == "__main__":
    main()
