"""This machine's figures beside those of the README.

Each measurement is a program of its own that prints one JSON object a claim (`python -m umo.bench.client`), so that one
that breaks is not the end of the others; `make bench` runs the same ones. What they are compared with is
reference.json, which scripts/readme-tables writes from the rows that the README's tables are made of.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REFERENCE = Path(__file__).parent / "reference.json"
PATIENCE_S = 900.0
MUCH = 1.5  # a ratio that differs by less is the same on a machine that does other things besides
NOISY = 0.5  # a spread of half the figure
BUSY = 0.5  # runnable threads a processor, before a measurement begins


@dataclass(frozen=True)
class Measurement:
    name: str
    module: str
    about: str
    claims: tuple[str, ...]  # how their names begin


MEASUREMENTS = (
    Measurement("wrap", "umo.bench.wrap", "an array used where it lies, against a copy of it", ("python_wrap_",)),
    Measurement(
        "numpy",
        "umo.bench.python_api",
        "NumPy to tensor and back, against NumPy alone; importing umo, against importing NumPy (less is better)",
        ("python_roundtrip_", "python_import_"),
    ),
    Measurement(
        "client",
        "umo.bench.client",
        "tritonclient's own code with another import, against tritonclient, over a real server",
        ("client_",),
    ),
    Measurement(
        "batch",
        "umo.bench.batch",
        "a batch of eight tensors in one ring, against the conventional way, over a real server",
        ("batch_ring_",),
    ),
    Measurement(
        "recorder",
        "umo.bench.recorded",
        "a server's throughput while it is recorded, against off",
        ("recorded_onnxruntime_",),
    ),
)


def less_is_better(claim: str) -> bool:
    return claim.startswith(("python_roundtrip_", "python_import_", "batch_ring_copied_"))


def load() -> float:
    """Runnable threads a processor."""
    return os.getloadavg()[0] / (os.cpu_count() or 1)


def reference() -> dict[str, Any]:
    """{"machine": words, "rows": {claim: row}}; without rows where the package has none."""
    try:
        return json.loads(REFERENCE.read_text())
    except (OSError, ValueError):
        return {"machine": "", "rows": {}}


@dataclass
class Run:
    """One measurement's run. `rows` yields while it goes on; afterwards the rest is known."""

    measurement: Measurement
    quick: bool = False
    load: float = 0.0
    notes: list[str] = field(default_factory=list)
    trouble: str = ""

    def rows(self) -> Iterator[dict[str, Any]]:
        self.load = load()
        command = [sys.executable, "-m", self.measurement.module, *(["--quick"] if self.quick else [])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with (
            tempfile.TemporaryFile("w+") as complaints,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaints, text=True, env=environment
            ) as process,
        ):
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    if line.startswith("{"):
                        yield json.loads(line)
                process.wait(PATIENCE_S)
            finally:
                if process.poll() is None:
                    process.kill()
            complaints.seek(0)
            said = [line.strip() for line in complaints.read().splitlines() if line.strip()]
        self.notes = [line for line in said if line.startswith("left out:")]
        if process.returncode:
            others = [line for line in said if line not in self.notes]
            self.trouble = (others or [f"it ended with {process.returncode}"])[-1][:300]


@dataclass(frozen=True)
class Verdict:
    """One figure beside the README's."""

    there: float | None  # its ratio there
    factor: float | None  # how much better it is here; 1 is the same
    noisy: bool
    words: str


def judge(row: dict[str, Any], known: dict[str, Any] | None, busy: float) -> Verdict:
    low, high = row["spread"]
    ratio = row["ratio"]
    noisy = ratio > 0 and (high - low) / ratio > NOISY
    if known is None:
        return Verdict(None, None, noisy, "no figure to compare with")
    there = known["ratio"]
    if ratio == there == 0:
        return Verdict(there, 1.0, noisy, "as there")
    if not ratio or not there:
        return Verdict(there, None, noisy, "one of the two is 0: look into it" if ratio else "nothing, as asked")
    factor = there / ratio if less_is_better(row["claim"]) else ratio / there
    overlap = low <= known["spread"][1] and known["spread"][0] <= high
    if 1 / MUCH <= factor <= MUCH or overlap:
        return Verdict(there, factor, noisy, "as there")
    return Verdict(there, factor, noisy, f"{'better' if factor > 1 else 'less'}: {_why(row, known, factor, busy)}")


def _why(row: dict[str, Any], known: dict[str, Any], factor: float, busy: float) -> str:
    if busy > BUSY:
        return f"the machine did other work ({busy:.1f} runnable threads a processor); try again when it is at rest"
    own = _times(row, known)
    if own is None:
        return "another processor, memory or number of cores; `umo doctor` says whether something is missing"
    mine, theirs = own
    if 1 / MUCH <= mine <= MUCH:
        return f"umo takes what it takes there, and what it is compared with {_times_as(theirs)}"
    if 1 / MUCH <= theirs <= MUCH or factor < 1:
        hint = "; `umo doctor` says whether something is missing" if mine > 1 else ""
        return f"umo {_times_as(mine)}, what it is compared with {_times_as(theirs)}{hint}"
    return f"both differ: umo {_times_as(mine)}, what it is compared with {_times_as(theirs)}"


def _times_as(factor: float) -> str:
    if 1 / MUCH <= factor <= MUCH:
        return "takes as long as there"
    return f"takes {factor:.1f} x as long here" if factor > 1 else f"is {1 / factor:.1f} x as fast here"


def _times(row: dict[str, Any], known: dict[str, Any]) -> tuple[float, float] | None:
    """How long umo and its opponent take here, in terms of there."""
    if row.get("unit") not in ("us", "ms", "s") or row["unit"] != known.get("unit") or not known["value"]:
        return None
    mine = row["value"] / known["value"]
    if less_is_better(row["claim"]):
        return mine, mine * known["ratio"] / row["ratio"]
    return mine, mine * row["ratio"] / known["ratio"]
