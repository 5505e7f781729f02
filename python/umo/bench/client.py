"""What umo.client saves against tritonclient: the same code, with another import.

The opponent is tritonclient itself, in its usual regime: one client, one request at a time, a NumPy array in and a
NumPy array out, each request with an InferInput of its own. `same` is that code with umo.client; `empty` differs in
that the array was made by umo.client.empty(). `bound` is what no client in Python can beat over the same protocol: one
prepared request whose tensors lie in a region registered by hand, nothing copied. The model is umo_identity that
touches nothing, so that the client and its transport are all there is; the rows `_copied` have it copy its input to its
output, as an engine would at least. All take turns, one request at a time; a figure is the median over the turns of a
ratio of medians within a turn. Before a time counts each of them has got the right answer, bit for bit, from the model
that copies.

    python -m umo.bench.client [--turns 5] [--quick]

Prints JSON lines; the claims keep their names.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from umo.client import Model, empty
from umo.server import TritonServer

COMMAND = "umo bench --only client"
# Requests a turn of the quick ones and of tritonclient, whose requests of 64 MB take a second.
SIZES = {"1MB": (1 << 18, 25, 9), "16MB": (4 << 20, 15, 3), "64MB": (16 << 20, 9, 2)}

Ask = Callable[[str], np.ndarray]


def write_models(folder: Path) -> None:
    tensor = '[ { name: "%s" data_type: TYPE_FP32 dims: [ -1 ] } ]'
    for name, mode in (("nothing", "touch_nothing"), ("copies", "copy")):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(
            f'backend: "umo_identity"\nmax_batch_size: 0\ninput {tensor % "IN"}\noutput {tensor % "OUT"}\n'
            "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
            f'parameters {{ key: "mode" value {{ string_value: "{mode}" }} }}\n'
        )


def usual(module: Any, client: Any, data: np.ndarray) -> Ask:
    """The code that the README of tritonclient shows."""

    def ask(model: str) -> np.ndarray:
        tensor = module.InferInput("IN", list(data.shape), "FP32")
        tensor.set_data_from_numpy(data)
        return client.infer(model, [tensor]).as_numpy("OUT")

    return ask


@contextlib.contextmanager
def by_hand(module: Any, client: Any, data: np.ndarray) -> Any:
    """One prepared request over a region of its own."""
    name = f"umo-bench-{os.getpid()}-{data.nbytes}-{module.__name__}"
    path = Path("/dev/shm") / name
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    try:
        os.posix_fallocate(file, 0, 2 * data.nbytes)
        memory = mmap.mmap(file, 2 * data.nbytes)
        client.register_system_shared_memory(name, f"/{name}", 2 * data.nbytes)
    finally:
        os.close(file)
        path.unlink()
    both = np.frombuffer(memory, np.float32).reshape(2, -1)
    both[0] = data
    tensor = module.InferInput("IN", list(data.shape), "FP32")
    tensor.set_shared_memory(name, data.nbytes)
    output = module.InferRequestedOutput("OUT")
    output.set_shared_memory(name, data.nbytes, data.nbytes)

    def ask(model: str) -> np.ndarray:
        client.infer(model, [tensor], outputs=[output])
        return both[1]

    try:
        yield ask
    finally:
        client.unregister_system_shared_memory(name)


def us(ask: Ask, model: str) -> float:
    start = time.perf_counter()
    answer = ask(model)
    spent = time.perf_counter() - start
    del answer
    return spent * 1e6


def row(claim: str, value: float, opponent: str, ratios: list[float], **more: object) -> None:
    """One claim: the ratio is the median over the turns, the spread its quartiles."""
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    figures = {"value": round(value, 1), "unit": "us", "opponent": opponent}
    ratio = {"ratio": round(statistics.median(ratios), 2), "spread": [round(quartiles[0], 2), round(quartiles[2], 2)]}
    print(
        json.dumps(
            {"claim": claim, **figures, **ratio, **more, "command": os.environ.get("UMO_BENCH_COMMAND", COMMAND)}
        ),
        flush=True,
    )


def compare(protocol: str, url: str, size: str, turns: int) -> None:
    floats, quick, slow = SIZES[size]
    theirs, ours = (importlib.import_module(f"{package}.{protocol}") for package in ("tritonclient", "umo.client"))
    data = np.random.default_rng(floats).random(floats, np.float32)
    original, client = theirs.InferenceServerClient(url), ours.InferenceServerClient(url)
    for model in ("copies", "nothing"):
        for _ in range(3):
            usual(ours, client, data)(model)
    if not client.transport.shared_memory:
        raise SystemExit(f"umo.client does not share memory: {client.transport}")
    lane = empty(Model(client, "nothing"), "IN", data.shape, np.float32)
    lane[:] = data
    with by_hand(theirs, original, data) as bound:
        asks = {
            "original": usual(theirs, original, data),
            "same": usual(ours, client, data),
            "empty": usual(ours, client, lane),
            "bound": bound,
        }
        for name, ask in asks.items():
            if not np.array_equal(ask("copies"), data):
                raise SystemExit(f"{protocol} {size} {name}: wrong answer")
        for model, suffix, count in (("nothing", "", turns), ("copies", "_copied", max(1, turns // 2))):
            medians = [one_turn(asks, model, quick, slow) for _ in range(count)]
            whole = {f"{name}_us": round(statistics.median(turn[name] for turn in medians), 1) for name in asks}
            opponent = f"tritonclient.{protocol}, the same code, one request at a time: {whole['original_us']:,.0f} us"
            for name in ("same", "empty"):
                ratios = [turn["original"] / turn[name] for turn in medians]
                row(f"client_{protocol}_{size}_{name}{suffix}", whole[f"{name}_us"], opponent, ratios, **whole)
    original.close()
    client.close()


def one_turn(asks: dict[str, Ask], model: str, quick: int, slow: int) -> dict[str, float]:
    """The median of each; one by one, so that what the machine does besides hits all of them, and each time another one
    first, so that none always finds the caches that the original's copies left."""
    names = list(asks)
    times: dict[str, list[float]] = {name: [] for name in asks}
    for at in range(quick):
        for name in names[at % len(names) :] + names[: at % len(names)]:
            if name != "original" or at < slow:
                times[name].append(us(asks[name], model))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few turns, over gRPC, up to 16 MB")
    options = parser.parse_args()
    turns = 3 if options.quick else options.turns
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        with TritonServer(folder) as server:
            for size in ("1MB", "16MB") if options.quick else SIZES:
                compare("grpc", server.grpc_url, size, turns)
            if not options.quick:
                compare("http", server.http_url, "16MB", turns)


if __name__ == "__main__":
    main()
