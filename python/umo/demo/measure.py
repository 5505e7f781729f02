"""Two passes over the same requests: one for time, one, in a server of its own, for bytes.

The byte counters hook the copy functions, so nothing that they see may be timed. In the timed pass off and on take
turns, request by request, so that whatever else the machine does hits both alike.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

from umo.demo.transports import Asker
from umo.demo.workloads import Workload
from umo.prove import ProvedServer
from umo.server import Metrics, TritonServer

MODES = ("off", "on")

# Smaller calls are names, shapes and headers; every tensor of the demonstration is larger.
LEAST_COPY_BYTES = 1024
# An engine's threads spin for a while after a request, and would slow down the other mode's engine by half.
PAUSE_S = 0.03

# Timed requests a mode, not counting the last one, which is also verified: where they take a second each, fewer.
LEAST_REQUESTS = 2
LEAST_SLOW_REQUESTS = 1
SLOW_AFTER_S = 3.0


class WrongAnswer(RuntimeError):
    """A model's answer is not that of the engine alone."""


@dataclass
class Cell:
    """One model over one transport in one mode. Bytes are those of one request."""

    model: str
    transport: str
    unified: str
    batch: int
    input_bytes: int
    output_bytes: int
    times_ms: list[float] = field(default_factory=list)
    max_abs_difference: float = 0.0
    verified_answers: int = 0
    copied: dict[str, int] = field(default_factory=dict)
    transfers: dict[str, int] = field(default_factory=dict)
    umo_copies: dict[str, int] = field(default_factory=dict)
    umo_avoided: dict[str, int] = field(default_factory=dict)

    def percentile(self, share: float) -> float:
        """The smallest time that at least this share of the requests stayed within (nearest rank)."""
        times = sorted(self.times_ms)
        return times[max(0, math.ceil(share * len(times)) - 1)]

    def as_json(self) -> dict[str, Any]:
        """For demo.json."""
        return {
            "model": self.model,
            "transport": self.transport,
            "unified_memory": self.unified,
            "batch": self.batch,
            "input_bytes": self.input_bytes,
            "output_bytes": self.output_bytes,
            "copied_bytes": self.copied,
            "transfer_bytes": self.transfers,
            "umo_copy_bytes_by_reason": self.umo_copies,
            "umo_copy_avoided_bytes": self.umo_avoided,
            "p50_ms": round(self.percentile(0.5), 3),
            "p99_ms": round(self.percentile(0.99), 3),
            "requests": len(self.times_ms),
            "verified_answers": self.verified_answers,
            "max_abs_difference": self.max_abs_difference,
        }


def new_cells(workload: Workload, transport: str) -> dict[str, Cell]:
    """An empty cell for each mode."""
    return {
        mode: Cell(workload.model, transport, mode, workload.batch, workload.input_bytes, workload.output_bytes)
        for mode in MODES
    }


def _timed(asker: Asker, workload: Workload, cell: Cell, verify: bool = False) -> None:
    time.sleep(PAUSE_S)
    before = time.perf_counter()
    answer = asker.ask(f"{workload.model}_{cell.unified}")
    cell.times_ms.append((time.perf_counter() - before) * 1e3)
    if verify:
        _check(asker, answer, workload, cell)


def _verified(asker: Asker, workload: Workload, cell: Cell) -> None:
    asker.poison()
    _check(asker, asker.ask(f"{workload.model}_{cell.unified}"), workload, cell)


def _check(asker: Asker, answer: Any, workload: Workload, cell: Cell) -> None:
    difference = workload.difference(asker.outputs(answer))
    if not difference <= workload.tolerance:
        raise WrongAnswer(
            f"{workload.model}_{cell.unified} over {cell.transport} differs from the engine alone by {difference:g} "
            f"(allowed: {workload.tolerance:g})"
        )
    cell.max_abs_difference = max(cell.max_abs_difference, difference)
    cell.verified_answers += 1


def time_requests(
    server: TritonServer, workload: Workload, transport: str, cells: dict[str, Cell], budget_s: float, most: int
) -> None:
    """Fills in the times: both modes in turns until budget_s has passed, within the limits above and `most`."""
    with Asker(transport, server, workload.inputs, workload.expected) as asker:
        for cell in cells.values():
            _verified(asker, workload, cell)  # also the warm-up
        order = list(cells.values())
        start = time.monotonic()
        for count in range(most):
            passed_s = time.monotonic() - start
            least = LEAST_SLOW_REQUESTS if passed_s > SLOW_AFTER_S else LEAST_REQUESTS
            if count >= least and passed_s > budget_s:
                break
            for cell in order:
                _timed(asker, workload, cell)
            order.reverse()
        # Whatever wore off or leaked in the meantime: the last answers must be as right as the first.
        for cell in order:
            asker.poison()
            _timed(asker, workload, cell, verify=True)


def _by(metrics: Metrics, name: str, model: str, *labels: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for sample in metrics.select(name, model=model):
        key = " ".join(sample.labels.get(label, "") for label in labels)
        found[key] = found.get(key, 0) + int(sample.value)
    return {key: value for key, value in sorted(found.items()) if value}


def count_bytes(proved: ProvedServer, workload: Workload, transport: str, cells: dict[str, Cell]) -> None:
    """Fills in the bytes of one warm, verified request a mode."""
    with Asker(transport, proved, workload.inputs, workload.expected) as asker:
        for cell in cells.values():
            model = f"{workload.model}_{cell.unified}"
            if transport == "shm":
                asker.ask(model)  # maps the regions; over the network nothing is kept, and shm came first
            # A backend finishes its counting after it answered, and the server copies bytes to answer /metrics: all of
            # that must lie before the window.
            proved.spy.settle()
            metrics_before = proved.server.metrics()
            spy_before = proved.spy.settle()
            _verified(asker, workload, cell)
            seen = proved.spy.settle() - spy_before
            metrics = proved.server.metrics().since(metrics_before)
            cell.copied = {
                name: seen.bytes(role, min_size=LEAST_COPY_BYTES)
                for name, role in (("server", "server"), ("umo", "backend"), ("engine", "engine"))
            }
            cell.copied["others"] = seen.bytes(("runtime", "other"), min_size=LEAST_COPY_BYTES)
            cell.transfers = _by(metrics, "umo_transfer_bytes_total", model, "direction", "outcome")
            cell.umo_copies = _by(metrics, "umo_copy_bytes_total", model, "direction", "reason")
            cell.umo_avoided = _by(metrics, "umo_copy_avoided_bytes_total", model, "direction")
