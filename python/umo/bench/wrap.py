"""An array used where it lies, against copying it into memory that is prepared.

`python_wrap_SIZE` is Context.wrap(array): the array's own memory, bound for the default device and let go of again, as
a backend does with a request's tensor. The opponent is numpy.copyto into an array that was written before, which is the
least that a copy can cost. Both run in turns; a figure is the median over the turns of the ratio within a turn, its
spread their quartiles. Before a time counts the wrapped tensor has shown the bytes that were written to the array
after it was wrapped.

    python -m umo.bench.wrap [--turns 15] [--quick]

Prints JSON lines; the claims keep their names.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable

import numpy as np

import umo

COMMAND = "umo bench --only wrap"
SIZES = {"1MB": 1 << 20, "16MB": 16 << 20, "256MB": 256 << 20}
CALLS = 64


def us(work: Callable[[], object], calls: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(calls):
        work()
    return (time.perf_counter_ns() - start) / calls / 1000


def verify(context: umo.Context, array: np.ndarray) -> None:
    tensor = context.wrap(array)
    array[-1] ^= 0x5A
    with tensor.read() as view:
        seen = np.asarray(view)
        if seen[-1] != array[-1] or seen.__array_interface__["data"][0] != array.__array_interface__["data"][0]:
            raise SystemExit("the array is not used where it lies")


def measure(context: umo.Context, name: str, turns: int) -> None:
    array, target = np.ones(SIZES[name], np.uint8), np.zeros(SIZES[name], np.uint8)
    verify(context, array)
    context.wrap(array)
    pairs = []
    for _ in range(turns):
        copied = us(lambda: np.copyto(target, array), 1 if SIZES[name] > 1 << 20 else 8)
        pairs.append((us(lambda: context.wrap(array), CALLS), copied))
    ratios = [copied / wrapped for wrapped, copied in pairs]
    quartiles = statistics.quantiles(ratios, n=4)
    middle = statistics.median(copied for _, copied in pairs)
    print(
        json.dumps(
            {
                "claim": f"python_wrap_{name}",
                "value": round(statistics.median(wrapped for wrapped, _ in pairs), 3),
                "unit": "us",
                "opponent": f"numpy.copyto into prepared memory: {middle:,.1f} us",
                "ratio": round(statistics.median(ratios), 1),
                "spread": [round(quartiles[0], 1), round(quartiles[2], 1)],
                "device": context.device().driver,
                "command": os.environ.get("UMO_BENCH_COMMAND", COMMAND),
            }
        ),
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--quick", action="store_true", help="few turns, up to 16 MB")
    options = parser.parse_args()
    with umo.Context() as context:
        for name in ("1MB", "16MB") if options.quick else SIZES:
            measure(context, name, 5 if options.quick else options.turns)


if __name__ == "__main__":
    main()
