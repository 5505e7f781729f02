"""What recording an access costs: instructions, counted by callgrind, and times (bench/record.c).

    python bench/record.py                    both, as JSON lines
    python bench/record.py --check PROGRAM    fails where an access costs more than 40 instructions; a test

All instructions of libumo count, those of the windows that end included, over 100,000 accesses of one thread: the host
writes and the device reads, in turns.
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

TIMES = 100_000
LIMIT = 40
CLAIMS = {"buffer": "record_instructions", "address": "record_at_instructions"}


def instructions(program: str, what: str) -> float:
    """libumo's instructions an access."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "-q", f"--callgrind-out-file={out}"]
        subprocess.run(
            [*valgrind, program, "count", what, str(TIMES)],
            env=dict(os.environ, GLIBC_TUNABLES=LINEAR_MEMCPY),
            check=True,
            stdout=subprocess.DEVNULL,
        )
        costs = self_costs(f"{out}.1")
    return sum(cost for path, cost in costs.items() if "libumo.so" in path) / TIMES


def main() -> int:
    check = len(sys.argv) == 3 and sys.argv[1] == "--check"
    program = sys.argv[2] if check else str(ROOT / "build" / "release" / "bench" / "record")
    above = False
    for what, claim in CLAIMS.items():
        count = instructions(program, what)
        above |= not 10 < count <= LIMIT  # fewer than ten: nothing was counted
        row = {
            "claim": claim,
            "value": round(count, 2),
            "unit": "instructions/access",
            "opponent": f"none: at most {LIMIT} asked",
            "ratio": round(count / LIMIT, 3),
            "spread": [0, 0],
            "command": "make bench (bench/record.py)",
        }
        print(json.dumps(row), flush=True)
    if not check:
        sys.stdout.flush()
        subprocess.run([program], check=True)
    return 1 if check and above else 0


if __name__ == "__main__":
    sys.exit(main())
