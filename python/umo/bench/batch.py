"""What a batch of eight tensors in one process's ring is worth, against the conventional way.

Each model is there in three ways: as it is ("on"); in the conventional way ("enable": false) with umo's copier, whose
threads copy together where that pays ("off"); and in the conventional way with one copying thread, which is what
Triton's helpers do unless a server is started with --buffer-manager-thread-count ("one"). They take turns batch by
batch in an order that is drawn anew each time, so that whatever else the machine does, and what the one before left in
the caches, hits all of them; a ratio is taken within a turn. Every turn begins with batches whose answers are
verified, in memory that was poisoned before. Copies are what umo counts on /metrics.

    python -m umo.bench.batch [--turns 7] [--quick]

Prints JSON lines; the claims keep their names. bench/batch.py measures more ways with the same parts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from umo.client import LaneSpec, Ring
from umo.client import segment as segments
from umo.server import Metrics, TritonServer, find_onnxruntime

MIB = 1 << 20
ROWS = 8
COMMAND = "umo bench --only batch"
RELU = Path(__file__).parent / "relu.onnx"  # models.big.relu_batched()
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


def engines() -> dict[str, str]:
    """Those that can run here; the others are named on the error output."""
    there = dict(ENGINES)
    if find_onnxruntime() is None and "UMO_ONNXRUNTIME" not in os.environ:
        print("left out: umo_onnxruntime (no ONNX Runtime; pip install onnxruntime)", file=sys.stderr)
        del there["ort"]
    if not _has_opencl():
        print("left out: umo_kernel (no OpenCL device; `umo doctor` says what to install)", file=sys.stderr)
        del there["kernel"]
    return there


def _has_opencl() -> bool:
    from umo import Context, UmoError

    try:
        with Context() as context:
            context.device("opencl")
    except UmoError:
        return False
    return True


def write_models(folder: Path, there: Iterable[str] = ENGINES) -> None:
    """ENGINE_WAY batches, ENGINE_WAY_single does not wait for others."""

    def add(name: str, text: str, file: str, content: bytes) -> None:
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)
        (folder / name / "1" / file).write_bytes(content)

    for way, how in WAYS.items():
        unified = {"unified_memory": how}
        for suffix, batched in (("", True), ("_single", False)):
            if "ort" in there:
                text = config(ENGINES["ort"], -1, batched, unified)
                add(f"ort_{way}{suffix}", text, "model.onnx", RELU.read_bytes())
            if "kernel" in there:
                text = config(ENGINES["kernel"], -1, batched, unified | {"kernel": DESCRIPTION})
                add(f"kernel_{way}{suffix}", text, "model.cl", KERNEL.encode())


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
    """Prints one claim; the spread is that of the turns' quartiles."""
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
                "command": os.environ.get("UMO_BENCH_COMMAND", COMMAND),
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
    server: TritonServer,
    size: int,
    turns: int,
    count: int,
    *,
    large_pages: bool = True,
    any_order: bool = False,
    there: Iterable[str] = ENGINES,
    floor: bool = False,
) -> None:
    """A batch of eight neighbours: nothing is copied, and what that is worth.

    floor   beside the ways also null_SIZE, a model that touches nothing
    """
    with pages(large_pages):
        client = RingClient(server.grpc_url, size, any_order=any_order)
    label = ("" if large_pages else "small_pages_") + ("any_order_" if any_order else "")
    what = f"8 requests of {size // MIB} MB in one process's ring"
    what += ("" if large_pages else " of 4 KiB pages") + (", sent in any order" if any_order else "")
    try:
        for engine in there:
            models = {way: f"{engine}_{way}" for way in WAYS}
            if floor:
                models["null"] = f"null_{size}"
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
                **({"null_ratio": round(statistics.median(s["on"] / s["null"] for s in seconds), 3)} if floor else {}),
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="few and short turns")
    options = parser.parse_args()
    turns, there = (3 if options.quick else options.turns), engines()
    if not there:
        raise SystemExit("no engine: neither ONNX Runtime nor OpenCL is there; `umo doctor` says what to install")
    with tempfile.TemporaryDirectory(prefix="umo-bench-") as name:
        write_models(Path(name), there)
        with TritonServer(name) as server:
            one_ring(server, 16 * MIB, turns, 2 if options.quick else 5, there=there)
            if not options.quick:
                one_ring(server, MIB, turns, 40, there=there)


if __name__ == "__main__":
    main()
