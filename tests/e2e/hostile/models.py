"""The models that are attacked: one a backend for floats, in batches, and those whose inputs steer.

Each float model is there twice, as it is and in the conventional way (NAME_off), which is what an answer is compared
with where inputs and outputs overlap.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from umo.models.onnx_graph import FLOAT, Graph

ROWS = 8  # the largest batch
TABLE = 1000  # what indices point into
TOP = 4096


@dataclass(frozen=True)
class Model:
    """IN float32 [1, n] -> OUT float32 [1, n]."""

    name: str
    reference: Callable[[np.ndarray], np.ndarray]


FLOATS = (
    Model("identity", lambda x: x),
    Model("kernel", lambda x: -x),
    Model("relu", lambda x: np.maximum(x, 0)),
)
BY_NAME = {m.name: m for m in FLOATS}

# Every element of OUT depends on the same element of IN alone, and so does its sign bit: NaNs come through as they are.
NEGATE = """__kernel void negate(__global const float *in, __global float *out)
{
    size_t i = get_global_id(0);
    out[i] = -in[i];
}
"""

# Reads every index twice, as engines do: first to check it, then to use it.
PICK = """__kernel void pick(__global const float *from, __global const volatile int *where, __global float *to,
                   int count)
{
    size_t i = get_global_id(0);
    to[i] = where[i] >= 0 && where[i] < count ? from[where[i]] : 0.0f;
}
"""


def _tensor(name: str, kind: str, dims: str) -> str:
    return f'{{ name: "{name}" data_type: TYPE_{kind} dims: [ {dims} ] }}'


def _config(
    backend: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    batch: int = ROWS,
    parameters: dict[str, object] | None = None,
) -> str:
    text = f'backend: "{backend}"\nmax_batch_size: {batch}\ninput [ {", ".join(inputs)} ]\n'
    text += f"output [ {', '.join(outputs)} ]\ninstance_group [ {{ kind: KIND_CPU count: 2 }} ]\n"
    if batch > 0:
        text += "dynamic_batching { max_queue_delay_microseconds: 500 }\n"
    for key, value in (parameters or {}).items():
        said = value if isinstance(value, str) else json.dumps(value)
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(said)} }} }}\n"
    return text


def _floats() -> tuple[list[str], list[str]]:
    return [_tensor("IN", "FP32", "-1")], [_tensor("OUT", "FP32", "-1")]


def _relu() -> onnx.ModelProto:
    g = Graph("relu")
    g.input("IN", FLOAT, ["batch", "n"])
    g.op("Relu", "IN", to="OUT")
    g.output("OUT", FLOAT, ["batch", "n"])
    return g.model()


def _gather() -> onnx.ModelProto:
    g = Graph("gather")
    g.input("INDEX", TensorProto.INT64, ["batch", "m"])
    table = g.constant(np.arange(TABLE, dtype=np.float32), "table")
    g.op("Gather", table, "INDEX", to="OUT")
    g.output("OUT", FLOAT, ["batch", "m"])
    return g.model()


def _top() -> onnx.ModelProto:
    g = Graph("top")
    g.input("IN", FLOAT, [TOP])
    count = g.constant([TOP // 2], dtype=np.int64)
    g.nodes.append(onnx.helper.make_node("TopK", ["IN", count], ["OUT", "WHERE"], axis=0))
    g.output("OUT", FLOAT, [TOP // 2])
    return g.model()


def _strings() -> onnx.ModelProto:
    g = Graph("strings")
    g.input("TEXT", TensorProto.STRING, ["n"])
    g.op("Identity", "TEXT", to="SAME")
    g.output("SAME", TensorProto.STRING, ["n"])
    return g.model()


def write(repository: Path) -> None:
    """Fills a model repository."""

    def add(name: str, text: str, file: str = "", data: bytes = b"") -> None:
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text)
        if file:
            (folder / file).write_bytes(data)

    negate = {
        "function": "negate",
        "arguments": [{"input": "IN"}, {"output": "OUT"}],
        "global_size": ["batch*IN[0]"],
        "outputs": {"OUT": ["IN[0]"]},
    }
    for suffix, unified in (("", {"zero_copy_threshold": 0}), ("_off", {"enable": False})):
        add(f"identity{suffix}", _config("umo_identity", *_floats(), parameters={"unified_memory": unified}))
        add(
            f"kernel{suffix}",
            _config("umo_kernel", *_floats(), parameters={"unified_memory": unified, "kernel": negate}),
            "model.cl",
            NEGATE.encode(),
        )
        relu = _relu().SerializeToString()
        add(
            f"relu{suffix}",
            _config("umo_onnxruntime", *_floats(), parameters={"unified_memory": unified}),
            "model.onnx",
            relu,
        )
    pick = {
        "function": "pick",
        "arguments": [
            {"input": "FROM"},
            {"input": "WHERE", "index": True},
            {"output": "OUT"},
            {"size": "FROM[0]", "type": "int32"},
        ],
        "global_size": ["WHERE[0]"],
        "outputs": {"OUT": ["WHERE[0]"]},
    }
    add(
        "pick",
        _config(
            "umo_kernel",
            [_tensor("FROM", "FP32", "-1"), _tensor("WHERE", "INT32", "-1")],
            [_tensor("OUT", "FP32", "-1")],
            0,
            {"unified_memory": {"zero_copy_threshold": 0}, "kernel": pick},
        ),
        "model.cl",
        PICK.encode(),
    )
    out = [_tensor("OUT", "FP32", "-1")]
    add(
        "gather",
        _config("umo_onnxruntime", [_tensor("INDEX", "INT64", "-1")], out),
        "model.onnx",
        _gather().SerializeToString(),
    )
    add(
        "top",
        _config("umo_onnxruntime", [_tensor("IN", "FP32", str(TOP))], [_tensor("OUT", "FP32", str(TOP // 2))], 0),
        "model.onnx",
        _top().SerializeToString(),
    )
    add(
        "strings",
        _config("umo_onnxruntime", [_tensor("TEXT", "STRING", "-1")], [_tensor("SAME", "STRING", "-1")], 0),
        "model.onnx",
        _strings().SerializeToString(),
    )
    add(
        "strings_identity",
        _config("umo_identity", [_tensor("TEXT", "STRING", "-1")], [_tensor("SAME", "STRING", "-1")], 0),
    )
