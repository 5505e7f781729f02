"""Runs every benchmark and writes build/bench.jsonl, one row a claim; `make bench` calls it.

    python bench/run.py [wrap] [kit] [metal] [record] [pattern] [pool] [placement] [profile] [stream] [pressure]
                        [weights] [kernel_stages] [views] [client] [gather] [stitch] [batch] [mix]
                        [overhead] [--turns N]

Without names all of them run. A benchmark that fails is named at the end, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
FIELDS = {"claim", "value", "unit", "opponent", "ratio", "spread", "command"}


def commands(turns: int) -> dict[str, list[str]]:
    return {
        "wrap": [str(ROOT / "build/release/bench/wrap")],
        "kit": [sys.executable, str(ROOT / "bench/kit.py")],
        "metal": [sys.executable, str(ROOT / "bench/metal.py")],
        "record": [sys.executable, str(ROOT / "bench/record.py")],
        "pattern": [str(ROOT / "build/release/bench/pattern")],
        "pool": [sys.executable, str(ROOT / "bench/pool.py")],
        "placement": [str(ROOT / "build/release/bench/placement"), str(ROOT / "bench/placement_traces")],
        "profile": [sys.executable, str(ROOT / "bench/profile.py")],
        "stream": [sys.executable, str(ROOT / "bench/stream.py")],
        "pressure": [sys.executable, str(ROOT / "bench/pressure.py")],
        "weights": [sys.executable, str(ROOT / "bench/weights.py")],
        "kernel_stages": [sys.executable, str(ROOT / "bench/kernel_stages.py")],
        "views": [sys.executable, str(ROOT / "bench/views.py")],
        "client": [sys.executable, str(ROOT / "bench/client.py"), "--turns", str(max(3, turns // 3))],
        "gather": [str(ROOT / "build/release/bench/gather")],
        "stitch": [str(ROOT / "build/release/bench/stitch")],
        "batch": [sys.executable, str(ROOT / "bench/batch.py"), "--turns", str(max(3, turns // 2))],
        "mix": [sys.executable, str(ROOT / "bench/mix.py"), "--turns", str(max(3, turns // 3))],
        "overhead": [sys.executable, str(ROOT / "bench/overhead.py"), "--turns", str(turns)],
    }


def run(name: str, command: list[str]) -> list[dict]:
    """The rows that a benchmark printed. Raises RuntimeError when it failed or printed a row that is not one."""
    ran = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"{name} ended with {ran.returncode}")
    rows = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    for row in rows:
        if missing := FIELDS - set(row):
            raise RuntimeError(f"{name}: row {row.get('claim')} lacks {', '.join(sorted(missing))}")
    if not rows:
        raise RuntimeError(f"{name} made no claim")
    return rows


def show(rows: list[dict]) -> None:
    table = Table("claim", "value", "ratio", "spread", "against")
    for row in rows:
        spread = row["spread"] if isinstance(row["spread"], list) else [row["spread"]]
        table.add_row(
            row["claim"],
            f"{row['value']:,} {row['unit']}",
            f"{row['ratio']:,}",
            " to ".join(f"{x:,}" for x in spread),
            row["opponent"],
        )
    Console(width=150).print(table)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", help="which ones, of those above; all by default")
    parser.add_argument("--turns", type=int, default=15)
    options = parser.parse_args()
    known = commands(options.turns)
    if unknown := set(options.names) - set(known):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows: list[dict] = []
    failed: list[str] = []
    for name in options.names or known:
        print(f"bench: {name} ...", flush=True)
        try:
            rows += run(name, known[name])
        except (RuntimeError, json.JSONDecodeError) as error:
            failed.append(str(error))
    out = ROOT / "build" / "bench.jsonl"
    out.parent.mkdir(exist_ok=True)
    # Those of other benchmarks stay as they were.
    kept = [json.loads(line) for line in out.read_text().splitlines()] if options.names and out.exists() else []
    fresh = {row["claim"]: row for row in rows}
    merged = [fresh.pop(row["claim"], row) for row in kept] + list(fresh.values())
    out.write_text("".join(json.dumps(row) + "\n" for row in merged))
    show(rows)
    print(f"bench: {len(rows)} claims in build/bench.jsonl")
    for text in failed:
        print(f"bench: FAILED {text}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
