"""Cases that the onnx package lacks: operators whose kernels work in blocks, at sizes around the blocks' edges.

The reference is the engine alone on private memory. What is looked for is a kernel that reads past its input's end.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
from cases import BUILD, TYPES, Case, alone
from onnx import helper

SIZES = (1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 65)
CONTRIB = "com.microsoft"
ELEMENTS = {np.dtype(kind): element for element, (_, _, kind) in TYPES.items()}
FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
rng = np.random.default_rng(5)


def _floats(*shape: int, kind: Any = np.float32) -> np.ndarray:
    return rng.standard_normal(shape).astype(kind)


def _positive(*shape: int, kind: Any = np.float32) -> np.ndarray:
    return np.abs(_floats(*shape, kind=kind))


def _bytes(*shape: int, kind: Any = np.uint8) -> np.ndarray:
    return rng.integers(0, 100, shape).astype(kind)


def _model(
    op: str,
    domain: str,
    names: list[str],
    inputs: Sequence[np.ndarray],
    results: list[str],
    outputs: list[Any],
    **more: Any,
) -> bytes:
    """One node; outputs are pairs of type and shape, where None is unknown."""
    graph = helper.make_graph(
        [helper.make_node(op, names, results, domain=domain, **more)],
        "awkward",
        [helper.make_tensor_value_info(n, ELEMENTS[x.dtype], x.shape) for n, x in zip(names, inputs, strict=True)],
        [
            helper.make_tensor_value_info(n, ELEMENTS[np.dtype(kind)], shape)
            for n, (kind, shape) in zip(results, outputs, strict=True)
        ],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(domain or CONTRIB, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def case(
    name: str, op: str, inputs: Sequence[np.ndarray], outputs: Sequence[Any], domain: str = "", **attributes: Any
) -> Case | None:
    """An operator on inputs, with the engine's own answer; None where the engine does not run it."""
    names = [f"X{i}" for i in range(len(inputs))]
    results = [f"Y{i}" for i in range(len(outputs))]
    fed = [(n, ELEMENTS[x.dtype], x) for n, x in zip(names, inputs, strict=True)]
    model = _model(op, domain, names, inputs, results, [(kind, None) for kind in outputs], **attributes)
    expected = [(n, np.empty(0, kind)) for n, kind in zip(results, outputs, strict=True)]
    made = Case(name, "awkward", model, fed, expected, 1e-3, 1e-3)
    answer = alone(made)
    if isinstance(answer, str):
        return None
    made.outputs = list(zip(results, answer, strict=True))
    # With the shapes that came out the outputs are written in place.
    made.model = _model(op, domain, names, inputs, results, [(a.dtype, a.shape) for a in answer], **attributes)
    return made


def reads_on() -> Case:
    """A custom operator that looks at 16 bytes behind its input."""
    x = np.arange(5, dtype=np.float32)
    model = _model("ReadsOn", "umo.test", ["X0"], [x], ["Y0"], [(np.float32, x.shape)])
    made = Case("reads_on", "awkward", model, [("X0", ELEMENTS[x.dtype], x)], [("Y0", x)], 0, 0)
    made.settings = {"model_operations": {"op_library_filename": [str(BUILD / "tests" / "libumo_test_op.so")]}}
    return made


def _float_kernels(n: int, kind: Any) -> Iterator[Case | None]:
    k = f"{n}_{np.dtype(kind).name}"

    def x(*shape: int) -> np.ndarray:
        return _floats(*shape, kind=kind)

    for m in (1, 3, 17):
        yield case(f"matmul_{m}_{k}", "MatMul", [x(m, n), x(n, m)], [kind])
        yield case(f"matmul_row_{m}_{k}", "MatMul", [x(1, m), x(m, n)], [kind])
    yield case(f"gemm_{k}", "Gemm", [x(n, 5), x(7, 5), x(7)], [kind], transB=1)
    yield case(f"gemm_transposed_{k}", "Gemm", [x(5, n), x(n, 5)], [kind], transA=1, transB=1)
    yield case(f"softmax_{k}", "Softmax", [x(3, n)], [kind])
    yield case(f"layernorm_{k}", "LayerNormalization", [x(3, n), x(n), x(n)], [kind])
    yield case(f"transpose_{k}", "Transpose", [x(n, 7)], [kind])
    for op in ("Erf", "Exp", "Tanh", "Sigmoid", "Relu", "LeakyRelu", "Sqrt", "Log", "Gelu", "Mish", "HardSwish", "Sin"):
        yield case(f"{op}_{k}", op, [_positive(n, kind=kind)], [kind])
    for op in ("Add", "Mul", "Div", "Pow", "Max", "Mean"):
        yield case(f"{op}_{k}", op, [_positive(n, kind=kind), _positive(n, kind=kind)], [kind])
    for op in ("ReduceSum", "ReduceMax", "ReduceMean", "ReduceL2", "ArgMax"):
        yield case(f"{op}_{k}", op, [x(5, n)], [np.int64 if op == "ArgMax" else kind], keepdims=1)
    for target in (*FLOATS, np.int8, np.uint8, np.int32):
        to = ELEMENTS[np.dtype(target)]
        yield case(f"cast_{k}_{to}", "Cast", [_positive(n, kind=kind)], [target], to=to)


def _scaled(kind: Any) -> list[np.ndarray]:
    """Scale and zero point."""
    return [np.array(0.1, np.float32), np.array(3, kind)]


def _quantized_kernels(n: int, kind: Any) -> Iterator[Case | None]:
    k, q = f"{n}_{np.dtype(kind).name}", _scaled(kind)

    def x(*shape: int) -> np.ndarray:
        return _bytes(*shape, kind=kind)

    for m in (1, 3, 17):
        yield case(f"matmulinteger_{m}_{k}", "MatMulInteger", [_bytes(m, n), x(n, m)], [np.int32])
        yield case(f"matmulinteger_row_{m}_{k}", "MatMulInteger", [_bytes(1, m), x(m, n)], [np.int32])
    yield case(f"qlinearmatmul_{k}", "QLinearMatMul", [x(3, n), *q, x(n, 5), *q, *q], [kind])
    yield case(f"quantize_{k}", "QuantizeLinear", [_floats(n), *q], [kind])
    yield case(f"dequantize_{k}", "DequantizeLinear", [x(n), *q], [np.float32])
    yield case(f"qadd_{k}", "QLinearAdd", [x(n), *q, x(n), *q, *q], [kind], CONTRIB)
    yield case(f"qsigmoid_{k}", "QLinearSigmoid", [x(n), *q, *q], [kind], CONTRIB)
    yield case(f"qpool_{k}", "QLinearGlobalAveragePool", [x(1, 3, n, 2), *q, *q], [kind], CONTRIB)


def _others(n: int) -> Iterator[Case | None]:
    yield case(f"dynamicquantize_{n}", "DynamicQuantizeLinear", [_floats(n)], [np.uint8, np.float32, np.uint8])
    yield case(f"gather_{n}", "Gather", [_floats(n, 3), np.arange(n, dtype=np.int64)], [np.float32])
    yield case(f"topk_{n}", "TopK", [_floats(n), np.array([1], np.int64)], [np.float32, np.int64])
    yield case(f"biasgelu_{n}", "BiasGelu", [_floats(3, n), _floats(n)], [np.float32], CONTRIB)
    yield case(f"fusedmatmul_{n}", "FusedMatMul", [_floats(3, n), _floats(5, n)], [np.float32], CONTRIB, transB=1)
    skip = [_floats(1, 3, n), _floats(1, 3, n), _floats(n), _floats(n)]
    yield case(f"skiplayernorm_{n}", "SkipLayerNormalization", skip, [np.float32], CONTRIB)


def _convolutions() -> Iterator[Case | None]:
    q, every = _scaled(np.uint8), itertools.product((1, 3, 4, 16, 17), (1, 3, 16), (5, 8, 13), (1, 3), (False, True))
    for channels, wanted, size, kernel, deep in every:
        group = channels if deep else 1
        filters = wanted * group
        k = f"{channels}_{filters}_{size}_{kernel}_{group}"
        x, w = _floats(1, channels, size, size), _floats(filters, channels // group, kernel, kernel)
        yield case(f"conv_{k}", "Conv", [x, w, _floats(filters)], [np.float32], group=group)
        back = _floats(channels, filters // group, kernel, kernel)
        yield case(f"convtranspose_{k}", "ConvTranspose", [x, back], [np.float32], group=group)
        xi, wi = _bytes(1, channels, size, size), _bytes(filters, channels // group, kernel, kernel)
        yield case(f"convinteger_{k}", "ConvInteger", [xi, wi], [np.int32], group=group)
        yield case(f"qlinearconv_{k}", "QLinearConv", [xi, *q, wi, *q, *q], [np.uint8], group=group)
        for op in ("MaxPool", "AveragePool", "LpPool"):
            yield case(f"{op}_{channels}_{size}_{kernel}", op, [x], [np.float32], kernel_shape=[kernel, kernel])


def _nibbles() -> Iterator[Case | None]:
    """Weights of four bits, as language models have them."""
    for n, k, block, level in itertools.product((1, 5, 8, 17), (16, 32, 48, 64, 96), (16, 32), (0, 1, 4)):
        blocks = -(-k // block)
        inputs = [_floats(3, k), _bytes(n, blocks, block // 2), _positive(n * blocks)]
        settings = {"K": k, "N": n, "bits": 4, "block_size": block, "accuracy_level": level}
        yield case(f"matmulnbits_{n}_{k}_{block}_{level}", "MatMulNBits", inputs, [np.float32], CONTRIB, **settings)


def _all() -> Iterator[Case | None]:
    for n in SIZES:
        for kind in FLOATS:
            yield from _float_kernels(n, kind)
        for kind in (np.uint8, np.int8):
            yield from _quantized_kernels(n, kind)
        yield from _others(n)
    yield from _convolutions()
    yield from _nibbles()


def collect() -> list[Case]:
    """All that the engine runs."""
    return list({made.name: made for made in _all() if made is not None}.values())
