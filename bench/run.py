"""Runs every benchmark and writes build/bench.jsonl, one row a claim; `make bench` calls it.

    python bench/run.py [wrap] [kit] [metal] [record] [pattern] [pool] [placement] [profile] [plan] [recorded]
                        [stream] [pressure] [weights] [kernel_stages] [views] [client] [gather] [stitch] [batch] [mix]
                        [python_api] [report] [numa] [overhead] [--turns N]

Without names all of them run. A benchmark that fails is named at the end, and the exit status is 1. What pages of docs/
show as tables of their own is printed as the lines of those tables.
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
        "recorded": [sys.executable, str(ROOT / "bench/recorded.py"), "--turns", str(max(5, turns // 2))],
        "plan": [sys.executable, str(ROOT / "bench/plan.py"), "--turns", str(max(3, turns // 3))],
        "numa": [sys.executable, str(ROOT / "bench/numa.py"), "--turns", str(max(3, turns // 3))],
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
        "python_api": [sys.executable, str(ROOT / "bench/python_api.py"), "--turns", str(max(5, turns))],
        "report": [sys.executable, str(ROOT / "bench/report.py"), "--turns", str(max(3, turns // 3))],
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


def line(label: str, cells: list[str]) -> str:
    return f"| {label} | {' | '.join(cells)} |"


def gather_table(by: dict[str, dict]) -> list[str]:
    """That of docs/batching.md."""

    def cell(way: str, kib: int) -> str:
        row = by[f"gather_{way}_8x{kib}k"]
        if way == "memcpy":
            return f"{row['value']:.1f}"
        return f"{row['value']:.1f} ({row['ratio']:.2f} x, {row['spread'][0]:.2f} to {row['spread'][1]:.2f})"

    ways = {"memcpy by one thread": "memcpy", "the copier": "copier", "stores past the caches": "stream"}
    return [line(label, [cell(way, kib) for kib in (256, 1024, 16384)]) for label, way in ways.items()]


def stitch_table(by: dict[str, dict]) -> list[str]:
    """That of docs/decisions/0007-stitching.md."""
    ways = {
        "mapped for each batch": ("fresh", "4k"),
        "kept, when it is met again": ("kept", "4k"),
        "mapped, huge pages": ("fresh", "huge"),
        "kept, huge pages": ("kept", "huge"),
    }
    table = []
    for label, (way, pages) in ways.items():
        claims = [f"stitch_{way}_{pages}_{kib}k" for kib in (16, 64, 256, 1024, 2048, 16384)]
        cells = [f"{by[claim]['ratio']:.2f}" if claim in by else "-" for claim in claims]
        mix = by.get(f"stitch_mix_{pages}") if way == "fresh" else None
        table.append(line(label, [*cells, f"{mix['ratio']:.2f}" if mix else ""]))
    return table


PASTED = {"gather": gather_table, "stitch": stitch_table}


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
            fresh_rows = run(name, known[name])
            rows += fresh_rows
            if name in PASTED:
                print("\n".join(PASTED[name]({row["claim"]: row for row in fresh_rows})), flush=True)
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
