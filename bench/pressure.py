"""Whether a process with 100 MB idle in umo's pools survives growing by 150 MB in a cgroup of 200 MB.

The opponent is the same program without umo's watch, in turns with it; the kernel kills it every time, or the figure
would mean nothing. Three ways to grow: one memset, steps of 1 MB without a pause, steps with a millisecond between.

    python bench/pressure.py [--turns N]

Prints one JSON line, whose value is that of the worst way. Needs a memory cgroup of version 1 in which a child can be
made; ends with 1 and the reason where there is none.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = ROOT / "build" / "release" / "bench" / "pressure"
SKIPPED = 77


def measure(turns: int) -> list[dict]:
    """The program's lines. It ends with 1 where not all was survived: the lines say by how much."""
    ran = subprocess.run([str(PROGRAM), "--turns", str(turns)], stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode == SKIPPED:
        raise RuntimeError(ran.stdout.strip())
    if ran.returncode not in (0, 1):
        raise RuntimeError(f"{PROGRAM.name} ended with {ran.returncode}")
    return [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]


def claim(lines: list[dict], turns: int) -> dict:
    with_answer = [line["survived"] for line in lines if line["answer"]]
    killed = [line["killed"] for line in lines if not line["answer"]]
    if not killed or min(killed) < turns:
        raise RuntimeError(f"the control was killed in {min(killed, default=0)} of {turns} runs only: nothing is shown")
    return {
        "claim": "pressure_survival",
        "value": min(with_answer),
        "unit": f"of {turns} runs survived",
        "opponent": f"without the watch: killed in {min(killed)} of {turns}",
        "ratio": min(with_answer) / turns,
        "spread": [min(with_answer), max(with_answer)],
        "command": "python bench/pressure.py",
    }


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=20)
    options = parser.parse_args()
    try:
        print(json.dumps(claim(measure(options.turns), options.turns)))
    except RuntimeError as error:
        print(f"pressure: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
