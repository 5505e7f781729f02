"""Whose memory is remote after a phase change: with umo, the kernel's balancing, both together, and nobody moving any.

On an emulated machine of two nodes at distances 10 and 31 (tests/numa/machine.py) a thread on node 0 makes 16 MiB and
uses them, then one on node 1 does. Measured are places, which emulation does not change: the share of the pages that
are remote one second after the change, and of the accesses in the second after that. The kernel's balancing is as
Debian has it by default. The ways take turns, on a fresh machine each time, which goes before all else that runs here:
where that is not allowed, measure while nothing else does.

A page of 4 KiB takes 50 us and more to move there, where a real machine takes 1 to 3: the megabytes stand for some
hundreds. Four times as many are a claim of their own, `numa_remote_share_umo_64mib`.

    python bench/numa.py [--turns N]

Prints one JSON line a claim. `numa_modelled_throughput` is a model and no measurement: a local access counts
1, a remote one as its distance says (3.1), and nothing else is slow.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from statistics import median
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(os.environ.get("UMO_BUILD_DIR", ROOT / "build" / "release")) / "bench" / "numa"
WAYS = ("umo", "both", "kernel", "nobody", "large")
CLAIMS = {
    "umo": "numa_remote_share_umo",
    "both": "numa_remote_share_umo_and_balancing",
    "large": "numa_remote_share_umo_64mib",
    "kernel": "numa_remote_share_balancing",
    "nobody": "numa_remote_share_first_touch",
}
COMMAND = "python bench/numa.py"
SKIPPED = 77
LOCAL = 10
SECONDS = 5  # of the second phase


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("numa_machine", ROOT / "tests" / "numa" / "machine.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def arguments(way: str) -> list[str]:
    """Of the program: the way, how many buffers, of how many MiB, and for how long."""
    if way == "large":
        return [str(PROGRAM), "umo", "16", "4", str(SECONDS)]
    return [str(PROGRAM), way, "16", "1", str(SECONDS)]


def measure(turns: int) -> dict[str, list[dict]]:
    """What the program said, by its ways; the order changes with each turn."""
    machine = load()
    rows: dict[str, list[dict]] = {way: [] for way in WAYS}
    for turn in range(turns):
        order = WAYS[turn % len(WAYS) :] + WAYS[: turn % len(WAYS)]
        ran = machine.run([arguments(way) for way in order], timeout_s=120, urgent=True)
        for way, result in zip(order, ran, strict=True):
            if result.status == SKIPPED:
                raise RuntimeError(f"{way}: {result.output.strip()}")
            if result.status != 0:
                raise RuntimeError(f"{way} ended with {result.status}: {result.output.strip()}")
            said = json.loads(result.output.splitlines()[-1])
            if said["remote_before"] > 0.25:  # there would be little to change
                raise RuntimeError(f"{way}: {said['remote_before']:.0%} of the pages were remote before the change")
            rows[way].append(said)
    return rows


def worse(said: dict) -> float:
    return max(said["pages"], said["accesses"])


def throughput(share: float, distance: int) -> float:
    """Of all accesses local, as distances model it."""
    return 1 / (1 - share + share * distance / LOCAL)


def row(claim: str, values: list[float], unit: str, opponent: str, other: float) -> dict:
    return {
        "claim": claim,
        "value": round(median(values), 4),
        "unit": unit,
        "opponent": opponent,
        "ratio": round(median(values) / other, 4),
        "spread": [round(min(values), 4), round(max(values), 4)],
        "command": COMMAND,
    }


def claims(rows: dict[str, list[dict]]) -> list[dict]:
    shares = {way: [worse(one) for one in rows[way]] for way in WAYS}
    rest = median(shares["nobody"])
    unit = "of pages or accesses, the greater, remote after 1 s"
    found = [row(CLAIMS[way], shares[way], unit, "first touch", rest) for way in WAYS]
    # One that never came so far counts as the whole time that was looked at.
    settled = {way: [one["settled_s"] if one["settled_s"] >= 0 else SECONDS for one in rows[way]] for way in WAYS}
    kernel = median(settled["kernel"])
    opponent = f"the kernel's balancing, as it is by default: {kernel:.1f} s"
    found.append(row("numa_settled", settled["umo"], "s until 5 % of the accesses are remote", opponent, kernel))
    modelled = {way: [throughput(one["accesses"], one["distance"]) for one in rows[way]] for way in WAYS}
    best = max(median(modelled["kernel"]), median(modelled["nobody"]))
    opponent = (
        f"modelled as well: balancing {median(modelled['kernel']):.3f}, first touch {median(modelled['nobody']):.3f}"
    )
    unit = "of all accesses local, modelled from the distances"
    found.append(row("numa_modelled_throughput", modelled["umo"], unit, opponent, best))
    return found


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    try:
        rows = measure(options.turns)
    except Exception as error:
        if type(error).__name__ not in ("RuntimeError", "Missing", "TimeUp"):
            raise
        print(f"numa: {error}", file=sys.stderr)
        return 1
    for way in WAYS:
        print(f"{way}: remote share of accesses by tenths of a second {rows[way][-1]['curve']}", file=sys.stderr)
    for claim in claims(rows):
        print(json.dumps(claim))
    return 0


if __name__ == "__main__":
    sys.exit(main())
