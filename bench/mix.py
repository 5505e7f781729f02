"""A recorded mix of requests, all of it in two ways: what umo moves of the bytes that the conventional way moves.

bench/mix.csv is the record: one request a line, in order: model, transport, rows of the batch, floats a row. Tensors
have 4 KB to 64 MB, batches 1 to 16 rows; of the three models two are on ONNX Runtime and one is on a device (umo_kernel
on OpenCL). It was drawn once by --draw, which says how, and is kept, so that every run asks the same.

Four clients take the requests in order, as clients do: what of them meets in a batch is the server's choice. Each pass
is made with the models as they are and in the conventional way, in turns. A pass that verifies every answer comes
first. Bytes are umo's counters on /metrics: transfers between host and device, and copies within host memory.

    python bench/mix.py [--turns 3] [--quick]
    python bench/mix.py --draw

Prints JSON lines; the claims keep their names.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

from umo.client import LaneSpec, Ring, Slot  # noqa: E402
from umo.models import big, onnx_graph, small  # noqa: E402
from umo.server import Metrics, TritonServer, default_backend_directory  # noqa: E402

RECORD = Path(__file__).with_suffix(".csv")
COMMAND = "make bench (bench/mix.py)"
CLIENTS = 4
SLOTS = CLIENTS
ROWS_MAX = 16
WAYS = ("on", "off")
TRANSPORTS = ("shm", "http", "grpc")
KERNEL = """__kernel void affine(__global const float *restrict in, __global float *restrict out)
{
    size_t i = get_global_id(0);
    out[i] = in[i] * 0.5f - 0.25f;
}
"""


@dataclass(frozen=True)
class Model:
    backend: str
    outputs: dict[str, Callable[[np.ndarray], np.ndarray]]


MODELS = {
    "relu": Model("umo_onnxruntime", {"Y": lambda x: np.maximum(x, 0)}),
    "both": Model("umo_onnxruntime", {"DOUBLE": lambda x: x + x, "NEGATIVE": lambda x: -x}),
    "affine": Model("umo_kernel", {"Y": lambda x: x * np.float32(0.5) - np.float32(0.25)}),
}


@dataclass(frozen=True)
class Request:
    """One line of the record."""

    model: str
    transport: str
    rows: int
    floats: int  # a row

    @property
    def size(self) -> int:
        return 4 * self.rows * self.floats


# --- the record ------------------------------------------------------------------------------------------------------


def draw(seed: int = 6, requests: int = 180) -> list[Request]:
    """Kinds of requests, and requests of these kinds in runs of one to six: a client repeats its shape.

    Each model is asked over shared memory in eight kinds, and over HTTP and gRPC in four each. Their bytes are spread
    evenly in the logarithm, up to 64 MB (in messages up to 16 MB for two of the models); their rows are drawn. A kind
    16 times as big comes half as often.
    """
    rng = np.random.default_rng(seed)
    kinds: list[Request] = []
    for model in MODELS:
        for transport, count in (("shm", 8), ("http", 4), ("grpc", 4)):
            for exponent in np.linspace(12, 26 if transport == "shm" or model == "affine" else 24, count):
                rows = min(int(2 ** rng.integers(0, 5)), 1 << max(0, int(exponent) - 10))
                jitter = rng.integers(0, 64) if 12 < exponent < 26 else 0  # lengths that are no powers of two
                kinds.append(Request(model, transport, rows, int(2**exponent) // 4 // rows + int(jitter)))
    weights = np.array([r.size**-0.25 for r in kinds])
    out = list(kinds)  # each at least once
    while len(out) < requests:
        out += [kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]] * int(rng.integers(1, 7))
    out = out[:requests]
    runs = [list(run) for _, run in itertools.groupby(out)]
    return [request for i in rng.permutation(len(runs)) for request in runs[i]]


def write(path: Path, requests: Iterable[Request]) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["model", "transport", "rows", "floats"])
        out.writerows([r.model, r.transport, r.rows, r.floats] for r in requests)


def read(path: Path) -> list[Request]:
    with path.open() as file:
        return [
            Request(line["model"], line["transport"], int(line["rows"]), int(line["floats"]))
            for line in csv.DictReader(file)
        ]


# --- models ----------------------------------------------------------------------------------------------------------


def write_models(folder: Path) -> None:
    for name, model in MODELS.items():
        for way in WAYS:
            version = folder / f"{name}_{way}" / "1"
            version.mkdir(parents=True)
            text = f'backend: "{model.backend}"\nmax_batch_size: {ROWS_MAX}\n'
            text += "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
            text += "dynamic_batching { max_queue_delay_microseconds: 500 }\n"
            text += 'input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
            for output in model.outputs:
                text += f'output [ {{ name: "{output}" data_type: TYPE_FP32 dims: [ -1 ] }} ]\n'
            parameters: dict[str, Any] = {"unified_memory": {"enable": way == "on"}}
            if name == "affine":
                parameters["kernel"] = {
                    "function": "affine",
                    "arguments": [{"input": "X"}, {"output": "Y"}],
                    "global_size": ["batch*X[0]"],
                    "outputs": {"Y": ["X[0]"]},
                }
                (version / "model.cl").write_text(KERNEL)
            else:
                onnx_graph.save(big.relu_batched() if name == "relu" else small.two_outputs(), version / "model.onnx")
            for key, value in parameters.items():
                said = json.dumps(json.dumps(value))
                text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {said} }} }}\n"
            (version.parent / "config.pbtxt").write_text(text)


# --- clients ---------------------------------------------------------------------------------------------------------


class Shared:
    """What the clients of a process share: the tensors' values, and a ring with a lane for each kind and tensor."""

    def __init__(self, server: TritonServer, record: Sequence[Request]) -> None:
        import tritonclient.grpc as module

        rng = np.random.default_rng(3)
        self.kinds = list(dict.fromkeys(record))
        self.values = {kind: rng.standard_normal((kind.rows, kind.floats), np.float32) for kind in self.kinds}
        self.lane = {kind: str(i) for i, kind in enumerate(self.kinds)}
        specs = [
            LaneSpec(self.lane[kind], tensor, kind.size, SLOTS)
            for kind in self.kinds
            if kind.transport == "shm"
            for tensor in ("X", *MODELS[kind.model].outputs)
        ]
        self.ring = Ring(specs)
        segment = self.ring.segment
        self._client = module.InferenceServerClient(server.grpc_url)
        self._client.register_system_shared_memory(segment.name, segment.key, segment.size)
        segment.hide()

    def take(self, lane: str) -> Slot:
        """The lowest free slot, as umo.client takes it: under load beside one that is being computed."""
        return self.ring.take(lane)

    def close(self) -> None:
        self._client.unregister_system_shared_memory(self.ring.name)
        self._client.close()


class Client:
    """One of those who ask. It belongs to the thread that made it, as tritonclient's HTTP client wants it."""

    def __init__(self, server: TritonServer, shared: Shared) -> None:
        import tritonclient.grpc as grpcclient
        import tritonclient.http as httpclient

        self._shared = shared
        self._modules = {"http": httpclient, "grpc": grpcclient, "shm": grpcclient}
        self._clients = {
            "http": httpclient.InferenceServerClient(server.http_url, network_timeout=120, connection_timeout=120),
            "grpc": grpcclient.InferenceServerClient(server.grpc_url),
        }
        self._clients["shm"] = self._clients["grpc"]

    def ask(self, kind: Request, way: str, verify: bool) -> None:
        """Raises SystemExit for a wrong answer."""
        module, client = self._modules[kind.transport], self._clients[kind.transport]
        outputs = MODELS[kind.model].outputs
        value = self._shared.values[kind]
        given = module.InferInput("X", list(value.shape), "FP32")
        wanted = [module.InferRequestedOutput(name) for name in outputs]
        places: dict[str, np.ndarray] = {}
        if kind.transport == "shm":
            ring, lane = self._shared.ring, self._shared.lane[kind]
            slot = self._shared.take(lane)
            slot.array("X", np.float32, value.shape)[:] = value
            given.set_shared_memory(ring.name, kind.size, slot.offset("X"))
            for output in wanted:
                output.set_shared_memory(ring.name, kind.size, slot.offset(output.name()))
                places[output.name()] = slot.array(output.name(), np.float32, value.shape)
                if verify:
                    places[output.name()].view(np.uint8)[:] = 0xFF
        else:
            given.set_data_from_numpy(value)
        answer = client.infer(f"{kind.model}_{way}", [given], outputs=wanted)
        if verify:
            for name, reference in outputs.items():
                got = places[name] if places else answer.as_numpy(name)
                if not np.array_equal(got, reference(value)):
                    raise SystemExit(f"{kind}, {way}: a wrong answer in {name}")

    def close(self) -> None:
        self._clients["http"].close()
        self._clients["grpc"].close()


class Crew:
    """Clients on threads of their own that take the record's requests in order."""

    def __init__(self, server: TritonServer, shared: Shared) -> None:
        self._server, self._shared = server, shared

    def play(self, record: Sequence[Request], way: str, verify: bool = False) -> float:
        """Asks everything once; returns the seconds from the first request to the last answer."""
        left = iter(record)
        lock, begin = threading.Lock(), threading.Barrier(CLIENTS + 1)
        troubles: list[BaseException] = []

        def work() -> None:
            client = Client(self._server, self._shared)
            begin.wait()
            try:
                while not troubles:
                    with lock:
                        kind = next(left, None)
                    if kind is None:
                        break
                    client.ask(kind, way, verify)
            except BaseException as trouble:
                troubles.append(trouble)
            finally:
                client.close()

        threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        begin.wait()
        start = time.perf_counter()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - start
        if troubles:
            raise troubles[0]
        return seconds


# --- what was moved --------------------------------------------------------------------------------------------------


@dataclass
class Moved:
    """Bytes of one pass. A copy within host memory is on the way to the engine ("in") or back."""

    to_device: float = 0
    to_host: float = 0
    copied_in: float = 0
    copied_out: float = 0

    @classmethod
    def of(cls, moved: Metrics, way: str) -> Moved:
        made = cls()
        for name in MODELS:
            model = f"{name}_{way}"
            for direction, key in (("host_to_device", "to_device"), ("device_to_host", "to_host")):
                value = moved.value("umo_transfer_bytes_total", model=model, direction=direction, outcome="performed")
                setattr(made, key, getattr(made, key) + value)
            for direction, key in (("in", "copied_in"), ("out", "copied_out")):
                value = moved.value("umo_copy_bytes_total", model=model, direction=direction)
                setattr(made, key, getattr(made, key) + value)
        return made

    @property
    def total(self) -> float:
        return self.to_device + self.to_host + self.copied_in + self.copied_out


def gone(on: float, off: float) -> float:
    """The part of what the conventional way moves that umo does not."""
    return 1 - on / off if off > 0 else 0.0


def row(claim: str, value: float, unit: str, opponent: str, ratios: Sequence[float], **more: object) -> None:
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    made = {
        "claim": claim,
        "value": round(value, 4),
        "unit": unit,
        "opponent": opponent,
        "ratio": round(statistics.median(ratios), 4),
        "spread": [round(quartiles[0], 4), round(quartiles[2], 4)],
    }
    print(json.dumps({**made, **more, "command": COMMAND}), flush=True)


def measure(server: TritonServer, record: Sequence[Request], turns: int) -> None:
    shared = Shared(server, record)
    crew = Crew(server, shared)
    over_shm = [r for r in record if r.transport == "shm"]
    for way in WAYS:
        crew.play(record, way, verify=True)

    def play(requests: Sequence[Request], way: str) -> tuple[Moved, float, dict[str, float]]:
        before = server.metrics()
        seconds = crew.play(requests, way)
        moved = server.metrics().since(before)
        why: dict[str, float] = {}
        for sample in moved.select("umo_copy_bytes_total"):
            if sample.labels["model"].endswith(f"_{way}") and sample.value > 0:
                key = f"{sample.labels['direction']}_{sample.labels['reason']}"
                why[key] = why.get(key, 0) + sample.value
        return Moved.of(moved, way), seconds, why

    shm = [{way: play(over_shm, way) for way in WAYS} for _ in range(turns)]
    all_ = [{way: play(record, way) for way in WAYS} for _ in range(turns)]
    shared.close()

    def share(
        turns_: list[dict[str, tuple[Moved, float, dict[str, float]]]], of: Callable[[Moved], float]
    ) -> list[float]:
        return [gone(of(turn["on"][0]), of(turn["off"][0])) for turn in turns_]

    conventional = "what the conventional way moves for the same requests"
    ratios = share(shm, lambda m: m.total)
    row(
        "mix_gone_shm",
        statistics.median(ratios),
        "of all bytes moved",
        f"{conventional}, over shared memory: at least 0.99 asked",
        ratios,
        moved_MB=round(statistics.median(t["on"][0].total for t in shm) / 1e6, 1),
        conventional_MB=round(statistics.median(t["off"][0].total for t in shm) / 1e6, 1),
        worst=round(min(ratios), 4),
        **{key: max(t["on"][2].get(key, 0) for t in shm) for t in shm for key in t["on"][2]},
    )
    for claim, what, asked, of, with_copies in (
        ("mix_gone_to_device", "host to device", 0.95, lambda m: m.to_device, lambda m: m.to_device + m.copied_in),
        ("mix_gone_to_host", "device to host", 0.90, lambda m: m.to_host, lambda m: m.to_host + m.copied_out),
    ):
        ratios = share(all_, of)
        row(
            claim,
            statistics.median(ratios),
            f"of all bytes moved {what}",
            f"{conventional}, all transports: at least {asked} asked",
            ratios,
            with_copies_in_host_memory=round(statistics.median(share(all_, with_copies)), 4),
        )
    saved = [(t["off"][0].total - t["on"][0].total) / t["on"][1] / 1e9 for t in shm]
    row(
        "mix_bandwidth_saved",
        statistics.median(saved),
        "GB/s",
        "bytes that the conventional way moves and umo does not, by the seconds that umo takes, over shared memory",
        [t["off"][1] / t["on"][1] for t in shm],
        all_transports=round(
            statistics.median((t["off"][0].total - t["on"][0].total) / t["on"][1] / 1e9 for t in all_), 3
        ),
        all_transports_time_ratio=round(statistics.median(t["off"][1] / t["on"][1] for t in all_), 3),
        requests=len(record),
        verified=2 * len(record),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one turn: whether it works, not what it says")
    parser.add_argument("--draw", action="store_true", help="write the record anew")
    options = parser.parse_args()
    if options.draw:
        write(RECORD, draw())
        return
    record = read(RECORD)
    with tempfile.TemporaryDirectory(prefix="umo-mix-") as name:
        folder = Path(name)
        write_models(folder)
        with TritonServer(folder, backend_directory=default_backend_directory()) as server:
            measure(server, record, 1 if options.quick else options.turns)


if __name__ == "__main__":
    main()
