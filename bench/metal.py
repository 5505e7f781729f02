"""What libumo costs on Metal: messages and instructions of its own, for an import, for one met again, for a request.

Metal is the fake of tests/fake, so both counts are exact and the same on every machine; times would mean nothing, and
none is given. A request through the whole server has the kit's instructions on top (bench/kit.py).

    python bench/metal.py

Prints JSON lines.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "inproc"))

from instructions import LINEAR_MEMCPY, self_costs  # noqa: E402

RELEASE = ROOT / "build" / "release"
TIMES = 200
WHAT = {
    "first": "one import of 1 MB never seen before, and its release",
    "again": "one wrap of 1 MB in a registered region, met again",
    "request": "two tensors met again, brackets, one launch, the wait, the host's look at the output",
}


def measure(what: str) -> tuple[float, float, float]:
    """Messages, imports and instructions of libumo.so, an operation."""
    environment = {
        **os.environ,
        "GLIBC_TUNABLES": LINEAR_MEMCPY,
        "UMO_METAL_LIBRARY": str(RELEASE / "lib" / "libumo_fake_metal.so"),
        "UMO_METAL_CACHE": "0",
    }
    program = [str(RELEASE / "bench" / "metal"), what, str(TIMES)]
    said = json.loads(subprocess.run(program, env=environment, check=True, capture_output=True, text=True).stdout)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "-q", f"--callgrind-out-file={out}"]
        subprocess.run([*valgrind, *program], env=environment, check=True, capture_output=True)
        costs = self_costs(f"{out}.1")
    own = sum(cost for path, cost in costs.items() if "libumo.so" in path)
    return said["messages"], said["imports"], own / TIMES


def main() -> None:
    for what, words in WHAT.items():
        messages, imports, instructions = measure(what)
        for kind, value in (("messages", messages), ("instructions", instructions)):
            row = {
                "claim": f"metal_{what}_{kind}",
                "value": round(value, 1),
                "unit": kind,
                "opponent": f"none: {words}",
                "ratio": round(value, 1),
                "spread": [0, 0],
                "imports": imports,
                "command": "make bench (bench/metal.py)",
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
