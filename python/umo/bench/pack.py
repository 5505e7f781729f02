"""Writes reference.json from the rows of `make bench`: what `umo bench` compares with.

    python -m umo.bench.pack build/bench.jsonl

Only the claims that `umo bench` measures are taken over. scripts/readme-tables calls this, so that README, package and
the file cannot differ.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from pathlib import Path

from . import MEASUREMENTS, REFERENCE

KEPT = ("value", "unit", "opponent", "ratio", "spread")


def machine() -> str:
    try:
        names = re.findall(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        names = []
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} processors, {platform.system()} {platform.release()}"


def select(lines: str) -> dict[str, dict[str, object]]:
    """The claims of `umo bench`, by name."""
    starts = tuple(start for measurement in MEASUREMENTS for start in measurement.claims)
    rows = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    return {row["claim"]: {key: row[key] for key in KEPT} for row in rows if row["claim"].startswith(starts)}


def write(source: Path, target: Path = REFERENCE) -> int:
    rows = select(source.read_text())
    body = ",\n".join(f"    {json.dumps(claim)}: {json.dumps(row)}" for claim, row in sorted(rows.items()))
    target.write_text(f'{{\n  "machine": {json.dumps(machine())},\n  "rows": {{\n{body}\n  }}\n}}\n')
    return len(rows)


if __name__ == "__main__":
    print(f"{write(Path(sys.argv[1]))} claims in {REFERENCE}")
