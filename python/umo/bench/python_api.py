"""What the Python package costs: an array to a tensor and back, and importing it.

    python -m umo.bench.python_api [--turns N] [--quick]

The round trip is umo.Tensor.wrap(array) and numpy.asarray(tensor), or numpy.from_dlpack(tensor), with everything let
go of again, at sizes from 64 bytes to 256 MiB; that the bytes are the same ones is checked by their address before
anything is timed. A turn takes the best of several short series, since a machine that does other work only ever adds to
a time; the claim is the size with the largest median of turns. The opponent is NumPy's own shortest way from an array
to another one over its memory, in the same turns: no library between them can be faster. Imports are timed inside fresh
processes, with every file in the system's cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import umo

COMMAND = "umo bench --only numpy"
SIZES = (64, 1 << 10, 1 << 20, 1 << 28)
SERIES, CALLS = 20, 500
IMPORTS = {
    "python_import_ms": "import umo",
    "python_import_tensor_ms": "import umo; umo.Tensor",
    "numpy": "import numpy",
}


def series_us(trip: Callable[[], object]) -> float:
    """Microseconds of one trip: the best series."""
    best = float("inf")
    for _ in range(SERIES):
        start = time.perf_counter_ns()
        for _ in range(CALLS):
            trip()
        best = min(best, time.perf_counter_ns() - start)
    return best / CALLS / 1000


def address(array: np.ndarray[Any, Any]) -> int:
    return int(array.__array_interface__["data"][0])


def trips(array: np.ndarray[Any, Any]) -> dict[str, Callable[[], np.ndarray[Any, Any]]]:
    wrap = umo.Tensor.wrap
    return {
        "python_roundtrip_us": lambda: np.asarray(wrap(array)),
        "python_roundtrip_dlpack_us": lambda: np.from_dlpack(wrap(array)),
        "asarray": lambda: np.asarray(memoryview(array)),  # type: ignore[arg-type]  # a protocol that 3.11 cannot name
        "from_dlpack": lambda: np.from_dlpack(array),
    }


def roundtrips(turns: int) -> list[dict[str, object]]:
    times: dict[str, dict[int, list[float]]] = {}
    for size in SIZES:
        array = np.zeros(size, np.uint8)
        ways = trips(array)
        for name, trip in ways.items():
            if address(trip()) != address(array):
                raise SystemExit(f"{name}: {size} bytes came back at another address")
        for _ in range(turns):
            for name, trip in ways.items():
                times.setdefault(name, {}).setdefault(size, []).append(series_us(trip))
    return [
        row(times, "python_roundtrip_us", "asarray", "numpy.asarray(memoryview(array))"),
        row(times, "python_roundtrip_dlpack_us", "from_dlpack", "numpy.from_dlpack(array)"),
    ]


def row(times: dict[str, dict[int, list[float]]], claim: str, opponent: str, words: str) -> dict[str, object]:
    size = max(SIZES, key=lambda size: statistics.median(times[claim][size]))
    ratios = [ours / theirs for ours, theirs in zip(times[claim][size], times[opponent][size], strict=True)]
    return {
        "claim": claim,
        "value": round(statistics.median(times[claim][size]), 3),
        "unit": "us",
        "opponent": f"{words}: {statistics.median(times[opponent][size]):.3f} us; worst size: {size:,} bytes",
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(min(ratios), 2), round(max(ratios), 2)],
        "command": os.environ.get("UMO_BENCH_COMMAND", COMMAND),
    }


def import_ms(code: str) -> float:
    timed = f"import time; start = time.perf_counter_ns(); {code}; print(time.perf_counter_ns() - start)"
    return int(subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True).stdout) / 1e6


def imports(turns: int) -> list[dict[str, object]]:
    times: dict[str, list[float]] = {name: [] for name in IMPORTS}
    for code in IMPORTS.values():
        import_ms(code)
    for _ in range(turns):
        for name, code in IMPORTS.items():
            times[name].append(import_ms(code))
    numpys = statistics.median(times.pop("numpy"))
    return [
        {
            "claim": name,
            "value": round(statistics.median(values), 2),
            "unit": "ms",
            "opponent": f"{IMPORTS['numpy']}: {numpys:.1f} ms",
            "ratio": round(statistics.median(values) / numpys, 3),
            "spread": [round(min(values) / numpys, 3), round(max(values) / numpys, 3)],
            "command": os.environ.get("UMO_BENCH_COMMAND", COMMAND),
        }
        for name, values in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--quick", action="store_true", help="few turns")
    options = parser.parse_args()
    turns = 3 if options.quick else options.turns
    for line in roundtrips(turns) + imports(turns):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
