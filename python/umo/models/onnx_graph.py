"""A little sugar over onnx.helper: nodes and constants in the order they are written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Old enough for every ONNX Runtime of recent years, new enough for LayerNormalization.
OPSET = 17
IR_VERSION = 8

FLOAT = TensorProto.FLOAT
INT64 = TensorProto.INT64

Dims = Sequence[int | str]


class Graph:
    """Collects a graph; every method that makes a value returns its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._count = 0

    def input(self, name: str, dtype: int, dims: Dims) -> str:
        """Declares an input; a string among the dimensions is a symbol."""
        self.inputs.append(helper.make_tensor_value_info(name, dtype, dims))
        return name

    def optional_input(self, name: str, default: np.ndarray) -> str:
        """Declares an input that has a default: an initializer that a caller may override."""
        self.inputs.append(
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(default.dtype), default.shape)
        )
        return self.constant(default, name)

    def constant(self, value: Any, name: str | None = None, dtype: Any = None) -> str:
        """Adds an initializer."""
        if name is None:
            self._count += 1
            name = f"c{self._count}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, to: str | None = None, **attributes: Any) -> str:
        """Adds a node with one output, named `to` or by number."""
        if to is None:
            self._count += 1
            to = f"v{self._count}"
        self.nodes.append(helper.make_node(kind, list(inputs), [to], name=f"{kind}_{to}", **attributes))
        return to

    def cast(self, value: str, dtype: int) -> str:
        """Adds a Cast; its attribute has the name that op() uses for the output."""
        self._count += 1
        name = f"v{self._count}"
        self.nodes.append(helper.make_node("Cast", [value], [name], name=f"Cast_{name}", to=dtype))
        return name

    def output(self, name: str, dtype: int, dims: Dims) -> str:
        """Declares an output; a node must have made it."""
        self.outputs.append(helper.make_tensor_value_info(name, dtype, dims))
        return name

    def model(self, opset: int = OPSET) -> onnx.ModelProto:
        """The finished, checked model."""
        graph = helper.make_graph(self.nodes, self.name, self.inputs, self.outputs, self.constants)
        model = helper.make_model(
            graph, producer_name="umo", opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(model)
        return model


def save(model: onnx.ModelProto, path: Path) -> Path:
    """Writes a model so that nobody ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_bytes(model.SerializeToString())
    part.replace(path)
    return path
