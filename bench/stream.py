"""What a message through a stream costs: instructions, allocations, copied bytes, and time against a queue that copies.

Instructions are libumo's own, of the whole way of one message (both begins, both ends, nothing touched), counted by
callgrind on the host driver, where both sides see one memory. They are counted for messages of 1 KB to 64 MB: what
grows with the size would be a copy.

Times are of two threads, by the clock on the wall and by the processor time of both, which others at work on the
machine disturb less.

    python bench/stream.py [BUILD]

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

SIZES = [1 << 10, 1 << 16, 1 << 20, 1 << 26]
MESSAGES = 500
COMMAND = "make bench (bench/stream.py)"
# Bytes of a message, messages a turn.
TIMED = [(256, 20000), (4 << 10, 20000), (64 << 10, 4000), (1 << 20, 300)]
TURNS = 15


def said(program: list[str]) -> dict:
    return json.loads(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


def instructions(program: list[str]) -> tuple[float, float]:
    """Of libumo.so and of the whole process, a message."""
    environment = {**os.environ, "GLIBC_TUNABLES": LINEAR_MEMCPY}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "-q", f"--callgrind-out-file={out}"]
        subprocess.run([*valgrind, *program], env=environment, check=True, capture_output=True)
        costs = self_costs(f"{out}.1")
    own = sum(cost for path, cost in costs.items() if "libumo.so" in path)
    return own / MESSAGES, sum(costs.values()) / MESSAGES


def row(claim: str, value: float, unit: str, opponent: str, ratio: float, spread: list[float]) -> None:
    fields = {"claim": claim, "value": value, "unit": unit, "opponent": opponent, "ratio": ratio, "spread": spread}
    print(json.dumps({**fields, "command": COMMAND}), flush=True)


def size_name(size: int) -> str:
    return f"{size >> 20}MB" if size >= 1 << 20 else f"{size >> 10}KB" if size >= 1 << 10 else f"{size}B"


def main() -> None:
    build = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "release"
    program = str(build / "bench" / "stream")
    allocations = 0
    copied = 0
    counts = []
    for size in SIZES:
        command = [program, "count", str(size), str(MESSAGES)]
        one = said(command)
        allocations = max(allocations, one["allocations"])
        copied = max(copied, one["copied_bytes"])
        if one["eliminated"] < MESSAGES:
            sys.exit("stream.py: the messages did not cross to the other side")
        counts.append(instructions(command))
    own = [count[0] for count in counts]
    whole = [count[1] for count in counts]
    sizes = f"messages of {size_name(SIZES[0])} to {size_name(SIZES[-1])}"
    row("stream_instructions", round(own[0], 1), "instructions", f"none: libumo's, {sizes}", 1.0, [min(own), max(own)])
    # A byte that is copied takes at least 1/64 instruction, by the widest registers.
    slope = (max(whole) - min(whole)) / (SIZES[-1] - SIZES[0])
    row("stream_copied_bytes", copied, "bytes", f"none: counters; {slope:.2e} instructions a byte, {sizes}", 0, [0, 0])
    row("stream_allocations", allocations, "allocations", f"none: {MESSAGES} messages each, {sizes}", 0, [0, 0])
    if slope > 1e-4 or copied or allocations:
        sys.exit("stream.py: a message copies or allocates")
    for size, messages in TIMED:
        timed = said([program, "time", str(size), str(messages), str(TURNS)])
        for kind, figures in timed.items():
            row(
                f"stream_{kind}_{size_name(size)}",
                figures["ours_us"],
                "us",
                f"ring of prepared slots with one memcpy: {figures['theirs_us']} us",
                figures["ratio"],
                figures["spread"],
            )


if __name__ == "__main__":
    main()
