"""One small ONNX model for each way a tensor can be awkward. For tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto

from umo.models.onnx_graph import FLOAT, INT64, Graph

# What ONNX Runtime and Triton both have, by the server's name without TYPE_.
DTYPES: dict[str, int] = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "STRING": TensorProto.STRING,
}


def identity(dtype: str = "FP32") -> onnx.ModelProto:
    """X [n, m] -> Y [n, m], any type of DTYPES. A view: the engine copies it into the output it was given."""
    g = Graph(f"identity_{dtype.lower()}")
    g.input("X", DTYPES[dtype], ["n", "m"])
    g.op("Identity", "X", to="Y")
    g.output("Y", DTYPES[dtype], ["n", "m"])
    return g.model()


def add(dtype: str = "FP32") -> onnx.ModelProto:
    """A [n], B [n] -> SUM [n]; computed straight into the output."""
    g = Graph(f"add_{dtype.lower()}")
    for name in "AB":
        g.input(name, DTYPES[dtype], ["n"])
    g.op("Add", "A", "B", to="SUM")
    g.output("SUM", DTYPES[dtype], ["n"])
    return g.model()


def two_outputs() -> onnx.ModelProto:
    """X [batch, n] -> DOUBLE [batch, n] and NEGATIVE [batch, n]."""
    g = Graph("two_outputs")
    g.input("X", FLOAT, ["batch", "n"])
    g.op("Add", "X", "X", to="DOUBLE")
    g.op("Neg", "X", to="NEGATIVE")
    g.output("DOUBLE", FLOAT, ["batch", "n"])
    g.output("NEGATIVE", FLOAT, ["batch", "n"])
    return g.model()


def transpose() -> onnx.ModelProto:
    """X [a, b] -> Y [b, a]: the output's shape follows from the names."""
    g = Graph("transpose")
    g.input("X", FLOAT, ["a", "b"])
    g.op("Transpose", "X", perm=[1, 0], to="Y")
    g.output("Y", FLOAT, ["b", "a"])
    return g.model()


def nonzero() -> onnx.ModelProto:
    """X [n] -> WHERE int64 [1, found]: the output's shape follows from the data."""
    g = Graph("nonzero")
    g.input("X", FLOAT, ["n"])
    g.op("NonZero", "X", to="WHERE")
    g.output("WHERE", INT64, [1, "found"])
    return g.model()


def gather() -> onnx.ModelProto:
    """DATA [n], INDEX int64 [m] -> PICKED [m]: an input that steers addresses."""
    g = Graph("gather")
    g.input("DATA", FLOAT, ["n"])
    g.input("INDEX", INT64, ["m"])
    g.op("Gather", "DATA", "INDEX", to="PICKED")
    g.output("PICKED", FLOAT, ["m"])
    return g.model()


def reshape_last() -> onnx.ModelProto:
    """X [a, b] -> FLAT [ab]: ends in a view, which an engine must copy into the output it was given."""
    g = Graph("reshape_last")
    g.input("X", FLOAT, ["a", "b"])
    g.op("Reshape", "X", g.constant([-1], dtype=np.int64), to="FLAT")
    g.output("FLAT", FLOAT, ["ab"])
    return g.model()


def scalar() -> onnx.ModelProto:
    """X [n] -> TOTAL of rank 0."""
    g = Graph("scalar")
    g.input("X", FLOAT, ["n"])
    g.op("ReduceSum", "X", keepdims=0, to="TOTAL")
    g.output("TOTAL", FLOAT, [])
    return g.model()


def optional_scale() -> onnx.ModelProto:
    """X [n], SCALE [1] -> Y [n] = X * SCALE; without SCALE it is 2."""
    g = Graph("optional_scale")
    g.input("X", FLOAT, ["n"])
    g.optional_input("SCALE", np.array([2], np.float32))
    g.op("Mul", "X", "SCALE", to="Y")
    g.output("Y", FLOAT, ["n"])
    return g.model()


def upper() -> onnx.ModelProto:
    """TEXT string [n] -> UPPER string [n]; STRING that an engine really computes with."""
    g = Graph("upper")
    g.input("TEXT", TensorProto.STRING, ["n"])
    g.op("StringNormalizer", "TEXT", to="UPPER", case_change_action="UPPER", is_case_sensitive=1, locale="C")
    g.output("UPPER", TensorProto.STRING, ["n"])
    return g.model()


def matmul(inner: int = 64, outer: int = 64) -> onnx.ModelProto:
    """X [batch, inner] -> Y [batch, outer], with weights."""
    g = Graph("matmul")
    g.input("X", FLOAT, ["batch", inner])
    weights = np.random.default_rng(3).standard_normal((inner, outer), np.float32)
    g.op("MatMul", "X", g.constant(weights, "weights"), to="Y")
    g.output("Y", FLOAT, ["batch", outer])
    return g.model()


ALL: dict[str, Callable[[], onnx.ModelProto]] = {
    **{f"identity_{name.lower()}": (lambda name=name: identity(name)) for name in DTYPES},
    **{f"add_{name.lower()}": (lambda name=name: add(name)) for name in ("INT32", "INT64", "FP16", "FP32", "FP64")},
    "two_outputs": two_outputs,
    "transpose": transpose,
    "nonzero": nonzero,
    "gather": gather,
    "reshape_last": reshape_last,
    "scalar": scalar,
    "optional_scale": optional_scale,
    "upper": upper,
    "matmul": matmul,
}
