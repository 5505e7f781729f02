"""Makes a model to serve: y = max(x, 0), for any number of floats: python make_relu.py FILE (needs the package onnx)"""

import sys
from pathlib import Path

from onnx import TensorProto, checker, helper, save

# One name for the length of both: so the output's shape is known before anything is computed.
x = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["batch", "length"])
y = helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["batch", "length"])
graph = helper.make_graph([helper.make_node("Relu", ["X"], ["Y"])], "relu", [x], [y])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
checker.check_model(model)

path = Path(sys.argv[1])
path.parent.mkdir(parents=True, exist_ok=True)
save(model, path)
print(f"written: {path}")
