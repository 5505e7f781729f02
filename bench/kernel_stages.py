"""Three kernels as one model of umo_kernel, against the same three kernels as three models in an ensemble.

The real server, over shared memory, one client. Both ways do the same three launches on the same bytes; what differs
is what stands between two of them: a planned intermediate and one queue, or the ensemble scheduler with a response
and a request. Both are asked in turns; every answer of the timed requests is the reference's, bit for bit.

    python bench/kernel_stages.py [--turns 9]

Prints JSON lines; the claims keep their names. The ratio is the ensemble's time over the one model's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

from umo.demo.transports import Asker  # noqa: E402
from umo.server import TritonServer  # noqa: E402

COMMAND = "make bench (bench/kernel_stages.py)"
SIZES = {"4KB": 1 << 10, "1MB": 1 << 18, "16MB": 1 << 22}  # floats
NAMES = ("twice", "more", "square")
PROGRAM = """
__kernel void twice(__global const float *in, __global float *out) { out[get_global_id(0)] = 2 * in[get_global_id(0)]; }
__kernel void more(__global const float *in, __global float *out) { out[get_global_id(0)] = in[get_global_id(0)] + 1; }
__kernel void square(__global const float *in, __global float *out)
{
    out[get_global_id(0)] = in[get_global_id(0)] * in[get_global_id(0)];
}
"""
TENSORS = (
    'input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
    'output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
)


def kernel(function: str, source: dict[str, str], target: dict[str, str]) -> dict[str, Any]:
    return {"function": function, "arguments": [source, target], "global_size": ["X[0]"], "local_size": [64]}


def write_model(repository: Path, name: str, described: dict[str, Any]) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.cl").write_text(PROGRAM)
    text = f'backend: "umo_kernel"\n{TENSORS}instance_group [ {{ kind: KIND_CPU }} ]\n'
    for key, value in (
        ("kernel", json.dumps({**described, "outputs": {"Y": ["X[0]"]}})),
        ("unified_memory", '{"zero_copy_threshold": 0}'),
    ):
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
    (folder.parent / "config.pbtxt").write_text(text)


def write_repository(repository: Path) -> None:
    places = [{"input": "X"}, *({"intermediate": name} for name in ("A", "B")), {"output": "Y"}]
    stages = []
    for i, name in enumerate(NAMES):
        source = {**places[i], **({"use": "read"} if i > 0 else {})}
        target = {**places[i + 1], **({"use": "write"} if i < 2 else {})}
        stages.append(kernel(name, source, target))
        write_model(repository, name, kernel(name, {"input": "X"}, {"output": "Y"}))
    between = {name: {"dtype": "FP32", "dims": ["X[0]"]} for name in ("A", "B")}
    write_model(repository, "one_model", {"intermediates": between, "kernels": stages})
    steps = ""
    for i, name in enumerate(NAMES):
        given, made = ("X", "a", "b", "Y")[i : i + 2]
        steps += (
            f'step {{ model_name: "{name}" model_version: -1 input_map {{ key: "X" value: "{given}" }}'
            f' output_map {{ key: "Y" value: "{made}" }} }}\n'
        )
    (repository / "ensemble" / "1").mkdir(parents=True)
    text = f'platform: "ensemble"\n{TENSORS}ensemble_scheduling {{ {steps} }}\n'
    (repository / "ensemble" / "config.pbtxt").write_text(text)


def timed(asker: Asker, model: str, expected: np.ndarray, requests: int) -> float:
    """Microseconds of one request, as a median."""
    times = []
    for _ in range(requests):
        asker.poison()
        start = time.perf_counter()
        answer = asker.ask(model)
        times.append(time.perf_counter() - start)
        if not np.array_equal(asker.outputs(answer)["Y"], expected):
            sys.exit(f"kernel_stages.py: a wrong answer of {model}")
    return statistics.median(times) * 1e6


def measure(server: TritonServer, label: str, count: int, turns: int) -> dict[str, Any]:
    x = np.random.default_rng(1).random(count, dtype=np.float32)
    expected = (x * np.float32(2) + np.float32(1)) ** 2
    requests = max(5, min(100, (1 << 22) // count))
    with Asker("shm", server, {"X": x}, {"Y": np.zeros_like(x)}) as asker:
        pairs = [
            [timed(asker, model, expected, requests) for model in ("one_model", "ensemble")] for _ in range(turns + 1)
        ]
    ours, theirs = (statistics.median(pair[i] for pair in pairs[1:]) for i in (0, 1))
    ratios = sorted(pair[1] / pair[0] for pair in pairs[1:])
    return {
        "claim": f"kernel_stages_{label}",
        "value": round(ours, 1),
        "unit": "us",
        "opponent": f"the same kernels as three models in an ensemble: {theirs:.1f} us",
        "ratio": round(statistics.median(ratios), 2),
        "spread": [round(ratios[0], 2), round(ratios[-1], 2)],
        "command": COMMAND,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=9)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as folder:
        write_repository(Path(folder))
        with TritonServer(Path(folder)) as server:
            for label, count in SIZES.items():
                print(json.dumps(measure(server, label, count, turns)), flush=True)


if __name__ == "__main__":
    main()
