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
import contextlib
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

import umo.client.http  # noqa: E402
from umo.client import LaneSpec, Ring  # noqa: E402
from umo.client import segment as segments  # noqa: E402
from umo.demo.transports import Asker  # noqa: E402
from umo.models import big, onnx_graph  # noqa: E402
from umo.server import Metrics, TritonServer, default_backend_directory  # noqa: E402

MIB = 1 << 20
ROWS = 8
COMMAND = "make bench (bench/batch.py)"
ENGINES = {"ort": "umo_onnxruntime", "kernel": "umo_kernel"}
WAYS: dict[str, dict[str, bool]] = {
    "on": {"enable": True},
    "off": {"enable": False},
    "one": {"enable": False, "parallel_copies": False},
}
KERNEL = """__kernel void relu(__global const float *restrict in, __global float *restrict out)
{
    size_t i = get_global_id(0);
    out[i] = fmax(in[i], 0.0f);
}
"""
DESCRIPTION = {
    "function": "relu",
    "arguments": [{"input": "X"}, {"output": "Y"}],
    "global_size": ["batch*X[0]"],
    "outputs": {"Y": ["X[0]"]},
}


# --- models ----------------------------------------------------------------------------------------------------------


def config(backend: str, dims: int, batched: bool, parameters: Mapping[str, object]) -> str:
    text = f'backend: "{backend}"\nmax_batch_size: {ROWS}\ninstance_group [ {{ kind: KIND_CPU count: 1 }} ]\n'
    text += 'input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
    text += f'output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ {dims} ] }} ]\n'
    if batched:
        text += f"dynamic_batching {{ preferred_batch_size: [ {ROWS} ] max_queue_delay_microseconds: 200000 }}\n"
    for key, value in parameters.items():
        said = value if isinstance(value, str) else json.dumps(value)
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(said)} }} }}\n"
    return text


def write_models(folder: Path, sizes: Sequence[int]) -> None:
    """ENGINE_WAY batches, ENGINE_WAY_single does not wait for others; null_BYTES answers with so many bytes."""

    def add(name: str, text: str, file: str = "") -> None:
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)
        if file == "model.onnx":
            onnx_graph.save(big.relu_batched(), folder / name / "1" / file)
        elif file:
            (folder / name / "1" / file).write_text(KERNEL)

    for way, how in WAYS.items():
        unified = {"unified_memory": how}
        for suffix, batched in (("", True), ("_single", False)):
            add(f"ort_{way}{suffix}", config(ENGINES["ort"], -1, batched, unified), "model.onnx")
            kernel = {"kernel": DESCRIPTION}
            add(f"kernel_{way}{suffix}", config(ENGINES["kernel"], -1, batched, unified | kernel), "model.cl")
    for size in sizes:
        add(f"null_{size}", config("null", size // 4, True, {}))


# --- a client with a ring --------------------------------------------------------------------------------------------


@contextlib.contextmanager
def pages(large: bool) -> Iterator[None]:
    """Whether segments made meanwhile are of large pages: UMO_CLIENT_HUGE_PAGES, within one process."""
    before, segments._HUGE_PAGES = segments._HUGE_PAGES, large and segments._HUGE_PAGES
    try:
        yield
    finally:
        segments._HUGE_PAGES = before


class RingClient:
    """Eight requests in flight at a time, whose tensors are neighbouring slots of a ring."""

    def __init__(self, grpc_url: str, size: int, slots: int = ROWS, seed: int = 1, any_order: bool = False) -> None:
        self._any_order, self._drawn = any_order, random.Random(seed)
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        self._channel = grpc.insecure_channel(grpc_url, options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self.size = size
        self._ring = Ring([LaneSpec("m", "X", size, slots), LaneSpec("m", "Y", size, slots)])
        segment = self._ring.segment
        self._stub.SystemSharedMemoryRegister(
            service_pb2.SystemSharedMemoryRegisterRequest(name=segment.name, key=segment.key, byte_size=segment.size)
        )
        segment.hide()
        self._slots = [self._ring.take("m") for _ in range(slots)]
        shape = (size // 4,)
        self._x = [slot.array("X", np.float32, shape) for slot in self._slots]
        self._y = [slot.array("Y", np.float32, shape) for slot in self._slots]
        rng = np.random.default_rng(seed)
        for x, y in zip(self._x, self._y, strict=True):
            x[:] = rng.standard_normal(shape, np.float32)
            y[:] = 0
        self._messages: dict[str, list[service_pb2.ModelInferRequest]] = {}

    def _requests(self, model: str) -> list[service_pb2.ModelInferRequest]:
        if model not in self._messages:
            self._messages[model] = [self._request(model, slot) for slot in self._slots]
        return self._messages[model]

    def _request(self, model: str, slot: object) -> service_pb2.ModelInferRequest:
        asked = service_pb2.ModelInferRequest(model_name=model)
        given = asked.inputs.add(name="X", datatype="FP32", shape=[1, self.size // 4])
        wanted = asked.outputs.add(name="Y")
        for place, tensor in ((given, "X"), (wanted, "Y")):
            place.parameters["shared_memory_region"].string_param = self._ring.segment.name
            place.parameters["shared_memory_byte_size"].int64_param = self.size
            place.parameters["shared_memory_offset"].int64_param = slot.offset(tensor)  # type: ignore[attr-defined]
        return asked

    def ask(self, model: str) -> float:
        """One batch, all requests at a time; its seconds."""
        requests = self._requests(model)
        if self._any_order:
            self._drawn.shuffle(requests)
        start = time.perf_counter()
        for future in [self._stub.ModelInfer.future(request) for request in requests]:
            future.result()
        return time.perf_counter() - start

    def verify(self, model: str) -> None:
        """One batch into poisoned memory. Raises SystemExit for a wrong answer."""
        for y in self._y:
            y.view(np.uint8)[:] = 0xFF
        self.ask(model)
        for i, (x, y) in enumerate(zip(self._x, self._y, strict=True)):
            if not np.array_equal(y, np.maximum(x, 0)):
                raise SystemExit(f"{model}: a wrong answer in slot {i}")

    def close(self) -> None:
        # The server lets go of a region a moment after it answered, and refuses until then.
        deadline = time.monotonic() + 10
        while True:
            try:
                self._stub.SystemSharedMemoryUnregister(
                    service_pb2.SystemSharedMemoryUnregisterRequest(name=self._ring.segment.name)
                )
                break
            except grpc.RpcError as error:
                if "in use" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)
        self._channel.close()


# --- rows ------------------------------------------------------------------------------------------------------------


def row(claim: str, value: float, unit: str, opponent: str, ratios: Sequence[float], **more: object) -> None:
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    print(
        json.dumps(
            {
                "claim": claim,
                "value": round(value, 2),
                "unit": unit,
                "opponent": opponent,
                "ratio": round(statistics.median(ratios), 4),
                "spread": [round(quartiles[0], 4), round(quartiles[2], 4)],
                **more,
                "command": COMMAND,
            }
        ),
        flush=True,
    )


def copied(moved: Metrics, model: str) -> tuple[float, float]:
    """Bytes that umo copied for a model's inputs and outputs."""
    into = moved.value("umo_copy_bytes_total", model=model, direction="in")
    return into, moved.value("umo_copy_bytes_total", model=model, direction="out")


def conventional(moved: Metrics, model: str) -> float:
    """Bytes that the conventional way moves for a model: copies, or for a device transfers."""
    return sum(copied(moved, model)) + moved.value("umo_transfer_bytes_total", model=model, outcome="performed")


def reasons(moved: Metrics, model: str) -> dict[str, float]:
    samples = moved.select("umo_copy_bytes_total", model=model)
    return {f"{s.labels['direction']}_{s.labels['reason']}": s.value for s in samples if s.value > 0}


def batch_size(moved: Metrics, model: str) -> float:
    return moved.value("nv_inference_count", model=model) / max(1, moved.value("nv_inference_exec_count", model=model))


def take_turns(client: RingClient, models: Mapping[str, str], turns: int, count: int) -> list[dict[str, float]]:
    """Each turn's median seconds of a batch, by way."""
    order = list(models.items())
    drawn = random.Random(17)
    for model in [*models.values()] * 3:
        client.ask(model)
    seconds: list[dict[str, float]] = []
    for _ in range(turns):
        for way in WAYS:
            client.verify(models[way])
        times: dict[str, list[float]] = {way: [] for way in models}
        for _ in range(count):
            drawn.shuffle(order)
            for way, model in order:
                times[way].append(client.ask(model))
        seconds.append({way: statistics.median(values) for way, values in times.items()})
    return seconds


def one_ring(
    server: TritonServer, size: int, turns: int, count: int, *, large_pages: bool = True, any_order: bool = False
) -> None:
    """A batch of eight neighbours: nothing is copied, and what that is worth."""
    with pages(large_pages):
        client = RingClient(server.grpc_url, size, any_order=any_order)
    label = ("" if large_pages else "small_pages_") + ("any_order_" if any_order else "")
    what = f"8 requests of {size // MIB} MB in one process's ring"
    what += ("" if large_pages else " of 4 KiB pages") + (", sent in any order" if any_order else "")
    try:
        for engine in ENGINES:
            models = {way: f"{engine}_{way}" for way in WAYS} | {"null": f"null_{size}"}
            before = server.metrics()
            seconds = take_turns(client, models, turns, count)
            moved = server.metrics().since(before)
            middle = {f"{way}_ms": round(statistics.median(s[way] for s in seconds) * 1e3, 3) for way in models}
            throughput = ROWS / statistics.median(s["on"] for s in seconds)
            row(
                f"batch_ring_{label}{size // MIB}MB_{engine}",
                throughput,
                "requests/s",
                f"the conventional way, {what} (more is better)",
                [s["off"] / s["on"] for s in seconds],
                **middle,
                null_ratio=round(statistics.median(s["on"] / s["null"] for s in seconds), 3),
                batch=round(batch_size(moved, models["on"]), 2),
            )
            row(
                f"batch_ring_one_thread_{label}{size // MIB}MB_{engine}",
                throughput,
                "requests/s",
                f"the conventional way with one copying thread, as Triton's helpers, {what} (more is better)",
                [s["one"] / s["on"] for s in seconds],
            )
            rows = moved.value("nv_inference_count", model=models["on"])
            total = 2 * rows * size
            row(
                f"batch_ring_copied_{label}{size // MIB}MB_{engine}",
                sum(copied(moved, models["on"])) / max(1, rows),
                "bytes/request",
                "all tensors' bytes: 0 asked",
                [sum(copied(moved, models["on"])) / total],
                conventional=round(conventional(moved, models["off"]) / total, 4),
                **reasons(moved, models["on"]),
            )
    finally:
        client.close()


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
            one_ring(server, 16 * MIB, turns, 2 if options.quick else 5)
            one_ring(server, 16 * MIB, turns, 2 if options.quick else 5, any_order=True)
            one_ring(server, 16 * MIB, turns, 2 if options.quick else 5, large_pages=False)
            one_ring(server, MIB, turns, 10 if options.quick else 40)
            eight_processes(server, MIB, 2 if options.quick else 5)
            in_the_message(server, MIB, 2 if options.quick else 5)
            perf_analyzer(server, MIB, 1 if options.quick else max(3, turns // 2))


if __name__ == "__main__":
    main()
