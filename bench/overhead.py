"""What a request costs over shared memory, against the floor that no server can beat.

The floor is the round trip of a backend that touches nothing plus the engine called directly on bound memory. Server,
floor and engine take turns within one script, so that whatever else the machine does hits all of them; every figure
is the median over the turns of a ratio within a turn. Answers are verified before a time counts.

    python bench/overhead.py [--turns 15]

Prints JSON lines; the claims keep their names.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

from umo.demo.transports import Asker  # noqa: E402
from umo.models import big, minilm, onnx_graph, photo  # noqa: E402
from umo.prove.slope import find_server_library  # noqa: E402
from umo.server import TritonServer, find_onnxruntime, find_tritonserver  # noqa: E402

BUILD = ROOT / "build"
HEIGHT, WIDTH = 3000, 4000
FLOATS = 4 << 20
TOKENS = 32
COMMAND = "make bench (bench/overhead.py)"
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)


class Direct:
    """A program that runs the engine alone when told to."""

    def __init__(self, *command: str) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, count: int) -> list[float]:
        """Microseconds of each of `count` runs."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the engine alone has ended")
        return [float(word) for word in line.split()]

    def close(self) -> None:
        """Ends the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def null_config(inputs: str, outputs: str) -> str:
    return f'backend: "null"\nmax_batch_size: 0\ninput [ {inputs} ]\noutput [ {outputs} ]\n'


def ort_config(inputs: str, outputs: str, enable: bool, batch: int = 0, threads: int = 1) -> str:
    flag = "true" if enable else "false"
    return (
        f'backend: "umo_onnxruntime"\nmax_batch_size: {batch}\ninput [ {inputs} ]\noutput [ {outputs} ]\n'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
        f'parameters {{ key: "unified_memory" value {{ string_value: \'{{"enable": {flag}}}\' }} }}\n'
        f'parameters {{ key: "intra_op_thread_count" value {{ string_value: "{threads}" }} }}\n'
    )


def io(name: str, dtype: str, dims: str) -> str:
    return f'{{ name: "{name}" data_type: TYPE_{dtype} dims: [ {dims} ] }}'


def write_models(folder: Path) -> None:
    """The repository: image_prep on and off, relu on and off, MiniLM, and the backend that touches nothing for each."""
    from umo.models.repository import write_repository

    write_repository(folder, models=("image_prep",))
    image_io = (io("IMAGE", "UINT8", "-1, -1, 3"), io("TENSOR", "FP32", f"3, {HEIGHT}, {WIDTH}"))
    models: dict[str, str] = {"image_null": null_config(*image_io)}
    relu_in, relu_out = RELU_IO
    models["relu_null"] = null_config(io(relu_in, "FP32", "-1"), io(relu_out, "FP32", str(FLOATS)))
    for variant, enable in (("on", True), ("off", False)):
        models[f"relu_{variant}"] = ort_config(io(relu_in, "FP32", "-1"), io(relu_out, "FP32", "-1"), enable)
    tokens = ", ".join(io(name, "INT64", "-1") for name in MINILM_INPUTS)
    models["minilm"] = ort_config(tokens, io("sentence_embedding", "FP32", "384"), True, batch=64)
    for name, text in models.items():
        version = folder / name / "1"
        version.mkdir(parents=True, exist_ok=True)
        (folder / name / "config.pbtxt").write_text(f'name: "{name}"\n{text}')
    for name in ("relu_on", "relu_off"):
        onnx_graph.save(big.relu(), folder / name / "1" / "model.onnx")
    minilm.write(folder / "minilm" / "1" / "model.onnx")


def io_names(model: object) -> tuple[str, str]:
    graph = model.graph  # type: ignore[attr-defined]
    return graph.input[0].name, graph.output[0].name


RELU_IO = io_names(big.relu())
MINILM_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def p50_us(asker: Asker, model: str, count: int) -> float:
    times = []
    for _ in range(count):
        start = time.perf_counter()
        asker.ask(model)
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def row(claim: str, value: float, unit: str, opponent: str, ratios: list[float], **more: object) -> None:
    """One claim: the ratio is the median over the turns, the spread its quartiles."""
    quartiles = statistics.quantiles(ratios, n=4)
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


def overhead(
    claim: str,
    server: TritonServer,
    direct: Direct,
    names: dict[str, str],
    inputs: dict,
    outputs: dict,
    expected: dict,
    turns: int,
    count: int,
    opponent: str,
    tolerance: float,
    private: Direct | None = None,
) -> None:
    """p50 of `on` against the null backend's round trip plus the engine alone, in turns.

    `private` is the engine alone on memory that no client could share; its time is shown beside the others.
    """
    with Asker("shm", server, inputs, outputs) as asker:
        for model in (names["on"], names["off"]):
            asker.poison()
            got = asker.outputs(asker.ask(model))
            for name, want in expected.items():
                difference = float(np.max(np.abs(got[name] - want)))
                if difference > tolerance:
                    raise SystemExit(f"{model}: wrong answer, off by {difference}")
        for model in names.values():
            p50_us(asker, model, 3)
        engines = {"engine": direct} | ({"engine_private": private} if private is not None else {})
        for engine in engines.values():
            engine.run(3)
        streaks = {kind: p50_us(asker, model, count) for kind, model in names.items()}
        streaks["engine"] = statistics.median(direct.run(count))
        turns_us: list[dict[str, float]] = []
        for _ in range(turns):
            # One by one, not in streaks: whoever runs alone in a loop finds the caches full of its own tensors, and a
            # tensor as large as the last cache makes that a third of the time.
            times: dict[str, list[float]] = {kind: [] for kind in (*names, *engines)}
            for _ in range(count):
                for kind, model in names.items():
                    times[kind].append(p50_us(asker, model, 1))
                for kind, engine in engines.items():
                    times[kind] += engine.run(1)
            turns_us.append({kind: statistics.median(values) for kind, values in times.items()})
    medians = {f"{kind}_us": round(statistics.median(turn[kind] for turn in turns_us), 1) for kind in turns_us[0]}
    streak = {f"{kind}_streak_us": round(value, 1) for kind, value in streaks.items()}
    for kind, name in (("on", claim), ("off", f"{claim}_conventional")):
        ratios = [turn[kind] / (turn["null"] + turn["engine"]) for turn in turns_us]
        row(
            name,
            medians[f"{kind}_us"],
            "us",
            opponent,
            ratios,
            **medians,
            **streak,
            streak_ratio=round(streaks[kind] / (streaks["null"] + streaks["engine"]), 4),
        )
    copies_us = copy_us([*inputs.values(), *outputs.values()])
    saved = [(turn["off"] - turn["on"]) / copies_us for turn in turns_us]
    row(
        f"{claim}_saved",
        medians["off_us"] - medians["on_us"],
        "us",
        f"the copies of all its tensors into prepared memory: {copies_us:.0f} us",
        saved,
    )


def in_process(model: str, null: str, io: tuple[str, str], direct: Direct, folder: Path, turns: int) -> None:
    """The same without a network: the server's C API in one process, whose round trip of nothing is some 5 us."""

    def p50(name: str) -> float:
        command = [
            str(BUILD / "release/bin/inproc_infer"), "--lib", str(find_server_library(find_tritonserver())),
            "--repo", str(folder), "--backends", str(BUILD / "release/backends"), "--model", name, "--shm",
            "--input", f"{io[0]}:FP32:{FLOATS}", "--output", f"{io[1]}:{FLOATS * 4}",
            "--requests", "101", "--warmup", "10",
        ]  # fmt: skip
        environment = {**os.environ, "UMO_ONNXRUNTIME": str(find_onnxruntime())}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return json.loads(ran.stdout.splitlines()[0])["ns"]["p50"] / 1000

    figures = [(p50(model), p50(null), statistics.median(direct.run(101))) for _ in range(turns)]
    row(
        "ort_overhead_inprocess_16MB",
        statistics.median(on for on, _, _ in figures),
        "us",
        "in one process: a backend that touches nothing + ONNX Runtime with bound buffers in shared memory, 1 thread",
        [on / (floor + engine) for on, floor, engine in figures],
        null_us=round(statistics.median(floor for _, floor, _ in figures), 1),
        engine_us=round(statistics.median(engine for _, _, engine in figures), 1),
    )


def copy_us(arrays: list) -> float:
    """Microseconds that it takes to copy the arrays into memory that was touched before."""
    sources = [np.ones(array.nbytes, np.uint8) for array in arrays]
    targets = [np.ones(array.nbytes, np.uint8) for array in arrays]
    times = []
    for _ in range(9):
        start = time.perf_counter()
        for target, source in zip(targets, sources, strict=True):
            np.copyto(target, source)
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times)


def throughput(server: TritonServer, batch: int, seconds: float, workers: int, inputs: dict, outputs: dict) -> float:
    """Sentences a second with `workers` clients, each with lanes of its own."""
    done = [0] * workers
    askers = [Asker("shm", server, inputs, outputs) for _ in range(workers)]
    stop = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < stop:
            askers[index].ask("minilm")
            done[index] += batch

    try:
        for asker in askers:
            asker.ask("minilm")
        start = time.perf_counter()
        threads = [threading.Thread(target=work, args=(i,)) for i in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return sum(done) / (time.perf_counter() - start)
    finally:
        for asker in askers:
            asker.close()


def minilm_turns(server: TritonServer, model: Path, turns: int) -> None:
    """Sentences a second through the server against the engine alone in a loop, for two batch sizes."""
    for batch in (1, 8):
        rng = np.random.default_rng(3)
        inputs = {
            "input_ids": rng.integers(1000, 20000, (batch, TOKENS), dtype=np.int64),
            "attention_mask": np.ones((batch, TOKENS), np.int64),
            "token_type_ids": np.zeros((batch, TOKENS), np.int64),
        }
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        alone = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        expected = alone.run(None, inputs)[0]
        outputs = {"sentence_embedding": np.empty((batch, 384), np.float32)}
        with Asker("shm", server, inputs, outputs) as asker:
            asker.poison()
            got = asker.outputs(asker.ask("minilm"))["sentence_embedding"]
            if float(np.max(np.abs(got - expected))) > 1e-5:
                raise SystemExit("minilm: wrong answer")
        dims = f"int64:{batch},{TOKENS}"
        direct = Direct(
            sys.executable,
            str(ROOT / "bench" / "engine_direct.py"),
            str(model),
            "1",
            "private",
            *(f"{name}:{dims}" for name in MINILM_INPUTS),
        )
        direct.run(5)
        ratios, rates, engine = [], [], []
        for _ in range(turns):
            rate = throughput(server, batch, 2.0, 2, inputs, outputs)
            runs = max(10, int(2e6 / max(1.0, statistics.median(direct.run(3)))))
            start = time.perf_counter()
            direct.run(runs)
            alone_rate = runs * batch / (time.perf_counter() - start)
            rates.append(rate)
            engine.append(alone_rate)
            ratios.append(rate / alone_rate)
        direct.close()
        name = "ort_minilm_vs_engine" if batch == 1 else f"ort_minilm_vs_engine_batch{batch}"
        row(
            name,
            statistics.median(rates),
            "sentences/s",
            f"ONNX Runtime called directly in a loop, 1 thread, batch {batch}, {TOKENS} tokens",
            ratios,
            engine_rate=round(statistics.median(engine), 1),
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=15)
    turns = parser.parse_args().turns
    folder = BUILD / "bench-models"
    write_models(folder)
    release = BUILD / "release"
    with TritonServer(folder, backend_directory=release / "backends") as server:
        image = photo.photo(WIDTH, HEIGHT)
        want = np.transpose((image.astype(np.float32) / 255 - MEAN) / STD, (2, 0, 1))
        kernel = Direct(
            str(release / "bench" / "kernel_direct"),
            str(ROOT / "examples/models/image_prep/1/model.cl"),
            str(HEIGHT),
            str(WIDTH),
        )
        overhead(
            "request_overhead_shm",
            server,
            kernel,
            {"on": "image_prep_on", "off": "image_prep_off", "null": "image_null"},
            {"IMAGE": image},
            {"TENSOR": np.empty((3, HEIGHT, WIDTH), np.float32)},
            {"TENSOR": want},
            turns,
            7,
            "round trip of a backend that touches nothing + the kernel called directly",
            1e-4,
        )
        kernel.close()
        values = np.random.default_rng(5).standard_normal(FLOATS).astype(np.float32)
        relu_in, relu_out = RELU_IO
        model = folder / "relu_on" / "1" / "model.onnx"
        engine = Direct(
            sys.executable,
            str(ROOT / "bench" / "engine_direct.py"),
            str(model),
            "1",
            "shared",
            f"{relu_in}:float32:{FLOATS}",
        )
        private = Direct(
            sys.executable,
            str(ROOT / "bench" / "engine_direct.py"),
            str(model),
            "1",
            "private",
            f"{relu_in}:float32:{FLOATS}",
        )
        overhead(
            "ort_overhead_shm_16MB",
            server,
            engine,
            {"on": "relu_on", "off": "relu_off", "null": "relu_null"},
            {relu_in: values},
            {relu_out: np.empty_like(values)},
            {relu_out: np.maximum(values, 0)},
            turns,
            41,
            "round trip of a backend that touches nothing + ONNX Runtime with bound buffers in shared memory, 1 thread",
            0.0,
            private,
        )
        in_process("relu_on", "relu_null", RELU_IO, engine, folder, max(3, turns // 2))
        engine.close()
        private.close()
        minilm_turns(server, folder / "minilm" / "1" / "model.onnx", max(3, turns // 3))


if __name__ == "__main__":
    main()
