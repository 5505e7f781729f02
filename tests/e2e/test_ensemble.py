"""Ensembles: what one model of ours hands to the next is the server's memory, and nobody of us copies it.

The server allocates an intermediate, and copies the last output once into the client's memory or message; a backend
cannot avoid that. All else is used where it lies: the first output is computed into the intermediate itself.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from umo.demo.transports import TRANSPORTS, Asker
from umo.models import big, onnx_graph
from umo.server import TritonServer

KERNEL = """__kernel void halve(__global const float *in, __global float *out)
{
    size_t i = get_global_id(0);
    out[i] = in[i] * 0.5f;
}
"""
STEPS = {"identity": lambda x: x, "halve": lambda x: x * np.float32(0.5), "relu": lambda x: np.maximum(x, 0)}
CHAINS = list(itertools.permutations(STEPS))
RNG = np.random.default_rng(33)


def tensors(names: tuple[str, str]) -> str:
    return "".join(
        f'{key} [ {{ name: "{name}" data_type: TYPE_FP32 dims: [ -1 ] }} ]\n'
        for key, name in zip(("input", "output"), names, strict=True)
    )


def parameter(key: str, value: object) -> str:
    return f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(json.dumps(value))} }} }}\n"


def write_models(folder: Path) -> None:
    relu = big.relu()
    names = {
        "identity": ("IN", "OUT"),
        "halve": ("IN", "OUT"),
        "relu": (relu.graph.input[0].name, relu.graph.output[0].name),
    }
    backends = {"identity": "umo_identity", "halve": "umo_kernel", "relu": "umo_onnxruntime"}
    for name, backend in backends.items():
        version = folder / name / "1"
        version.mkdir(parents=True)
        text = f'backend: "{backend}"\nmax_batch_size: 0\ninstance_group [ {{ kind: KIND_CPU count: 1 }} ]\n'
        text += tensors(names[name]) + parameter("unified_memory", {"zero_copy_threshold": 0})
        if name == "halve":
            arguments = [{"input": "IN"}, {"output": "OUT"}]
            described = {"function": "halve", "arguments": arguments, "global_size": ["IN[0]"]}
            text += parameter("kernel", described | {"outputs": {"OUT": ["IN[0]"]}})
            (version / "model.cl").write_text(KERNEL)
        elif name == "relu":
            onnx_graph.save(relu, version / "model.onnx")
        (version.parent / "config.pbtxt").write_text(text)
    for chain in CHAINS:
        steps = []
        for i, name in enumerate(chain):
            given = "X" if i == 0 else f"between_{i}"
            made = "Y" if i == len(chain) - 1 else f"between_{i + 1}"
            steps.append(
                f'{{ model_name: "{name}" model_version: -1 '
                f'input_map {{ key: "{names[name][0]}" value: "{given}" }} '
                f'output_map {{ key: "{names[name][1]}" value: "{made}" }} }}'
            )
        version = folder / "_".join(chain) / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(
            f'platform: "ensemble"\nmax_batch_size: 0\n{tensors(("X", "Y"))}'
            f"ensemble_scheduling {{ step [ {', '.join(steps)} ] }}\n"
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    with TritonServer(folder) as running:
        yield running


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("count", [1000, 1 << 20])
@pytest.mark.parametrize("chain", CHAINS, ids="_".join)
def test_an_intermediate_is_never_copied(
    server: TritonServer, chain: tuple[str, ...], count: int, transport: str
) -> None:
    x = RNG.standard_normal(count).astype(np.float32)
    want = x
    for name in chain:
        want = STEPS[name](want)
    with Asker(transport, server, {"X": x}, {"Y": np.empty_like(x)}) as asker:
        before = server.metrics()
        asker.poison()
        got = asker.outputs(asker.ask("_".join(chain)))["Y"]
        assert np.array_equal(got, want)
    moved = server.metrics().since(before)
    copies = {
        (c.labels["model"], c.labels["direction"], c.labels["reason"]): c.value
        for c in moved.select("umo_copy_bytes_total")
        if c.value > 0
    }
    # An HTTP body lies where the header ends, which suits no device: that is the first input, not an intermediate.
    if transport == "HTTP" and chain[0] == "halve":
        copies.pop(("halve", "in", "misaligned"), None)
    assert copies == {}
    assert moved.value("umo_transfer_bytes_total", outcome="performed") == 0
    assert moved.value("umo_transfer_bytes_total", outcome="eliminated", model="halve") == 2 * x.nbytes
