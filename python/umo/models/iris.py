"""The model of `umo example`: which iris is it, by four lengths?

Fisher's measurements of 1936 are 50 plants of each of three species. What is kept of them here are each species' means
and the variance within a species; a plant belongs to the species whose mean is the nearest, by the measure of those
variances (a linear discriminant that takes the four lengths as independent). So the model is one small matrix, and
needs no data.

    python -m umo.models.iris      writes python/umo/example/iris/1/model.onnx anew
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from umo.models.onnx_graph import FLOAT, Graph, save

SPECIES = ("setosa", "versicolor", "virginica")
# Sepal length and width, petal length and width, in cm.
MEANS = np.array([[5.006, 3.428, 1.462, 0.246], [5.936, 2.770, 4.260, 1.326], [6.588, 2.974, 5.552, 2.026]])
VARIANCES = np.array([0.2650, 0.1154, 0.1852, 0.0419])


def model() -> onnx.ModelProto:
    """LENGTHS [batch, 4] -> SPECIES [batch, 1] in words, PROBABILITY [batch, 3] in the order of SPECIES."""
    g = Graph("iris")
    g.input("LENGTHS", FLOAT, ["batch", 4])
    weights = g.constant((MEANS / VARIANCES).T.astype(np.float32), "weights")
    offsets = g.constant((-(MEANS**2) / (2 * VARIANCES)).sum(axis=1).astype(np.float32), "offsets")
    names = g.constant(np.array(SPECIES, dtype=object), "names")
    scores = g.op("Gemm", "LENGTHS", weights, offsets)
    g.op("Softmax", scores, to="PROBABILITY", axis=1)
    best = g.op("ArgMax", scores, axis=1, keepdims=1)
    g.op("Gather", names, best, to="SPECIES", axis=0)
    g.output("SPECIES", TensorProto.STRING, ["batch", 1])
    g.output("PROBABILITY", FLOAT, ["batch", 3])
    return g.model()


if __name__ == "__main__":
    save(model(), Path(__file__).resolve().parents[1] / "example" / "iris" / "1" / "model.onnx")
