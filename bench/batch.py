"""What batches cost: eight tensors of one process's ring, of eight processes, in HTTP bodies and in gRPC messages.

Each model is there in four ways: as it is ("on"); in the conventional way ("enable": false) with umo's copier, whose
threads copy together where that pays ("off"); in the conventional way with one copying thread, which is what Triton's
helpers do unless a server is started with --buffer-manager-thread-count ("one"); and as a backend that touches nothing,
which is the floor. They take turns batch by batch in an order that is drawn anew each time, so that whatever else the
machine does, and what the one before left in the caches, hits all of them; a ratio is taken within a turn. Every turn
begins with batches whose answers are verified, in memory that was poisoned before. Copies are what umo counts on
/metrics; the witnesses that do not trust it are in tests/e2e/test_witnesses.py.

All ways use the same ring. umo.client makes large pages of it where it can; the rows with "small_pages" are of one
without them, which is what every other client has. One thread sends a batch in the order of its slots, so most batches
arrive in that order and the conventional way needs no gather either; the rows with "any_order" are of a client that
sends as several threads do.

    python bench/batch.py [--turns 7] [--quick]

Prints JSON lines; the claims keep their names. The same file is the client of which eight processes run.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

import umo.client.http  # noqa: E402
from umo.bench.batch import (  # noqa: E402
    ENGINES,
    MIB,
    ROWS,
    RingClient,
    batch_size,
    config,
    copied,
    one_ring,
    reasons,
    row,
)
from umo.bench.batch import write_models as write_ways  # noqa: E402
from umo.demo.transports import Asker  # noqa: E402
from umo.server import TritonServer, default_backend_directory  # noqa: E402

COMMAND = "make bench (bench/batch.py)"
os.environ["UMO_BENCH_COMMAND"] = COMMAND


def write_models(folder: Path, sizes: Sequence[int]) -> None:
    """Those of umo.bench.batch, and null_BYTES, which answers with so many bytes and touches none."""
    write_ways(folder)
    for size in sizes:
        (folder / f"null_{size}" / "1").mkdir(parents=True)
        (folder / f"null_{size}" / "config.pbtxt").write_text(config("null", size // 4, True, {}))


def work(grpc_url: str, model: str, size: int, seed: int) -> None:
    """One of eight processes: asks with one slot of its own ring while the parent says so."""
    client = RingClient(grpc_url, size, slots=1, seed=seed)
    client.verify(model)
    print("ready", flush=True)
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    done = 0
    while not stop.is_set():
        client.verify(model)
        done += 1
    client.close()
    print(done, flush=True)


def eight_processes(server: TritonServer, size: int, seconds: float) -> None:
    """Tensors of eight processes never touch: one gather of the inputs and one scatter of the outputs, and no more."""
    for engine in ENGINES:
        model = f"{engine}_on"
        command = [sys.executable, __file__, "--work", server.grpc_url, model, str(size)]
        clients = [
            subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for i in range(ROWS)
        ]
        for client in clients:
            assert client.stdout is not None
            if client.stdout.readline() != "ready\n":
                raise SystemExit(f"{model}: a client did not get ready")
        before = server.metrics()
        time.sleep(seconds)
        moved = server.metrics().since(before)
        done = 0
        for client in clients:
            done += int(client.communicate(timeout=120)[0] or 0)
            if client.returncode != 0:
                raise SystemExit(f"{model}: a client of eight failed")
        into, out = copied(moved, model)
        total = moved.value("nv_inference_count", model=model) * size
        row(
            f"batch_processes_{size // MIB}MB_{engine}",
            into / max(1.0, total),
            "gathers",
            "the inputs' bytes once: at most 1 asked",
            [into / max(1.0, total)],
            scatters=round(out / max(1.0, total), 4),
            batch=round(batch_size(moved, model), 2),
            verified=done,
            **reasons(moved, model),
        )


class Asks(Protocol):
    """What Asker is, and Body below."""

    def ask(self, model: str) -> Any: ...
    def outputs(self, answer: Any) -> dict[str, np.ndarray]: ...
    def close(self) -> None: ...


class Body:
    """One prepared HTTP request of umo.client, told to put its tensors into the body."""

    def __init__(self, server: TritonServer, x: np.ndarray) -> None:
        os.environ["UMO_CLIENT_SHARED_MEMORY"] = "0"
        self._client = umo.client.http.InferenceServerClient(
            server.http_url, connection_timeout=120, network_timeout=120
        )
        self._given = umo.client.http.InferInput("X", x.shape, "FP32")
        self._given.set_data_from_numpy(x)

    def ask(self, model: str) -> Any:
        return self._client.infer(model, [self._given])

    def outputs(self, answer: Any) -> dict[str, np.ndarray]:
        return {"Y": answer.as_numpy("Y")}

    def close(self) -> None:
        self._client.close()


TRANSPORTS: dict[str, Callable[[TritonServer, np.ndarray], Asks]] = {
    "http": lambda server, x: Asker("HTTP", server, {"X": x}, {"Y": x}),
    "http_umo_client": Body,
    "grpc": lambda server, x: Asker("gRPC", server, {"X": x}, {"Y": x}),
}


class Sender:
    """A client that sends its tensor in the message, on a thread of its own: tritonclient's HTTP client needs that."""

    def __init__(self, transport: str, server: TritonServer, x: np.ndarray) -> None:
        self._x = x
        self._thread = ThreadPoolExecutor(1)
        self._asker = self._thread.submit(TRANSPORTS[transport], server, x).result()

    def start(self, model: str) -> Future[bool]:
        """Asks; the future says whether the answer was right."""
        return self._thread.submit(self._ask, model)

    def _ask(self, model: str) -> bool:
        got = self._asker.outputs(self._asker.ask(model))["Y"]
        return np.array_equal(got, np.maximum(self._x, 0))

    def close(self) -> None:
        self._thread.submit(self._asker.close).result()
        self._thread.shutdown()


def in_the_message(server: TritonServer, size: int, rounds: int) -> None:
    """HTTP and gRPC: a single request is used where it lies, a batch is gathered once.

    A tensor lies at any byte of tritonclient's HTTP body, so a kernel's floats are copied once; in umo.client's it lies
    at a multiple of 16.
    """
    rng = np.random.default_rng(9)
    for transport in TRANSPORTS:
        shape = (1, size // 4)
        senders = [Sender(transport, server, rng.standard_normal(shape, np.float32)) for _ in range(ROWS)]
        try:
            for engine in ENGINES:
                for model, at_a_time in ((f"{engine}_on_single", 1), (f"{engine}_on", ROWS)):
                    before = server.metrics()
                    for _ in range(rounds):
                        for first in range(0, ROWS, at_a_time):
                            asked = [sender.start(model) for sender in senders[first : first + at_a_time]]
                            if not all(answer.result() for answer in asked):
                                raise SystemExit(f"{model} over {transport}: a wrong answer")
                    moved = server.metrics().since(before)
                    into, out = copied(moved, model)
                    total = moved.value("nv_inference_count", model=model) * size
                    row(
                        f"batch_{transport}_{'single' if at_a_time == 1 else 'batch'}_{engine}",
                        into / total,
                        "gathers",
                        f"the inputs' bytes once: {'0' if at_a_time == 1 else 'at most 1'} asked",
                        [into / total],
                        scatters=round(out / total, 4),
                        batch=round(batch_size(moved, model), 2),
                        **reasons(moved, model),
                    )
        finally:
            for sender in senders:
                sender.close()


def perf_analyzer(server: TritonServer, size: int, turns: int) -> None:
    """Eight tensors in one request, by a load generator that is not ours. It verifies nothing; one_ring() did."""
    program = Path(sys.executable).parent / "perf_analyzer"
    if not program.exists():
        raise SystemExit("no perf_analyzer: run scripts/setup")

    def throughput(model: str) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.csv"
            command = [
                str(program), "-m", model, "-u", server.grpc_url, "-i", "grpc", "-b", str(ROWS),
                "--shape", f"X:{size // 4}", "--shared-memory", "system", "--output-shared-memory-size",
                str(ROWS * size), "--concurrency-range", "1", "--measurement-mode", "count_windows",
                "--measurement-request-count", "30", "--stability-percentage", "999", "--max-trials", "3",
                "-f", str(report),
            ]  # fmt: skip
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
            if ran.returncode != 0 or not report.exists():
                raise SystemExit(f"perf_analyzer failed on {model}: {(ran.stdout + ran.stderr)[-800:]}")
            with report.open() as lines:
                said = next(csv.DictReader(lines))
            return float(said["Inferences/Second"]), float(said["p50 latency"])

    for engine in ENGINES:
        seen = [{way: throughput(f"{engine}_{way}_single") for way in ("on", "off")} for _ in range(turns)]
        row(
            f"batch_perf_analyzer_{size // MIB}MB_{engine}",
            statistics.median(turn["on"][0] for turn in seen),
            "tensors/s",
            "the conventional way, perf_analyzer, one request with a batch of 8 in shared memory (more is better)",
            [turn["on"][0] / turn["off"][0] for turn in seen],
            p50_on_us=statistics.median(turn["on"][1] for turn in seen),
            p50_off_us=statistics.median(turn["off"][1] for turn in seen),
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few and short turns: whether it works, not what it says")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        url, model, size, seed = options.work
        work(url, model, int(size), int(seed))
        return
    turns = 2 if options.quick else options.turns
    sizes = (MIB, 16 * MIB)
    with tempfile.TemporaryDirectory(prefix="umo-batch-") as name:
        folder = Path(name)
        write_models(folder, sizes)
        with TritonServer(folder, backend_directory=default_backend_directory()) as server:
            one_ring(server, 16 * MIB, turns, 2 if options.quick else 5, floor=True)
            one_ring(server, 16 * MIB, turns, 2 if options.quick else 5, any_order=True, floor=True)
            one_ring(server, 16 * MIB, turns, 2 if options.quick else 5, large_pages=False, floor=True)
            one_ring(server, MIB, turns, 10 if options.quick else 40, floor=True)
            eight_processes(server, MIB, 2 if options.quick else 5)
            in_the_message(server, MIB, 2 if options.quick else 5)
            perf_analyzer(server, MIB, 1 if options.quick else max(3, turns // 2))


if __name__ == "__main__":
    main()
