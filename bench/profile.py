"""What an event of the flight recorder costs: instructions and nanoseconds, off and on.

    python bench/profile.py [BUILD]

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

from instructions import self_costs  # noqa: E402

EVENTS = 20000
TIMED_EVENTS = 200000
TURNS = 15
COMMAND = "make bench (bench/profile.py)"


def instructions(program: str, what: str) -> float:
    """Of the whole process, an event."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", "-q", f"--callgrind-out-file={out}"]
        command = [*valgrind, program, "count", what, str(EVENTS)]
        subprocess.run(command, env=dict(os.environ), check=True, capture_output=True)
        return sum(self_costs(f"{out}.1").values()) / EVENTS


def row(claim: str, value: float, unit: str, opponent: str, ratio: float, spread: list[float]) -> None:
    fields = {"claim": claim, "value": value, "unit": unit, "opponent": opponent, "ratio": ratio, "spread": spread}
    print(json.dumps({**fields, "command": COMMAND}), flush=True)


def main() -> None:
    build = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "release"
    program = str(build / "bench" / "profile")
    bare, off, on = (instructions(program, what) for what in ("bare", "off", "on"))
    row("profile_off_instructions", round(off - bare, 1), "instructions", "the loop without the event", 1.0, [0, 0])
    row("profile_on_instructions", round(on - bare, 1), "instructions", "the loop without the event", 1.0, [0, 0])
    command = [program, "time", str(TIMED_EVENTS), str(TURNS)]
    times = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    for claim, key in (("off", "off_ns"), ("on", "on_ns"), ("on_two_threads", "two_threads_ns")):
        low, middle, high = times[key]
        bare_ns = times["bare_ns"][1]
        words = f"the loop without the event: {bare_ns} ns"
        row(f"profile_{claim}_time", middle, "ns", words, round(middle / bare_ns, 2), [low, high])


if __name__ == "__main__":
    main()
