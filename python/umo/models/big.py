"""Large tensors through a small computation: here the copies are what a request costs."""

from __future__ import annotations

import numpy as np
import onnx

from umo.models.onnx_graph import FLOAT, Graph

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
HEIGHT, WIDTH = 1080, 1920


def normalise(height: int = HEIGHT, width: int = WIDTH) -> onnx.ModelProto:
    """IMAGE float32 [batch, height, width, 3] in 0..1 -> TENSOR float32 [batch, 3, height, width], (x - mean) / std."""
    g = Graph("big_normalise")
    g.input("IMAGE", FLOAT, ["batch", height, width, 3])
    planes = g.op("Transpose", "IMAGE", perm=[0, 3, 1, 2])
    centred = g.op("Sub", planes, g.constant(MEAN.reshape(3, 1, 1), "mean"))
    g.op("Div", centred, g.constant(STD.reshape(3, 1, 1), "std"), to="TENSOR")
    g.output("TENSOR", FLOAT, ["batch", 3, height, width])
    return g.model()


def relu() -> onnx.ModelProto:
    """X float32 [n] -> Y float32 [n]; the least an engine can do with a tensor."""
    g = Graph("relu")
    g.input("X", FLOAT, ["n"])
    g.op("Relu", "X", to="Y")
    g.output("Y", FLOAT, ["n"])
    return g.model()


def relu_batched() -> onnx.ModelProto:
    """X float32 [batch, n] -> Y float32 [batch, n]."""
    g = Graph("relu_batched")
    g.input("X", FLOAT, ["batch", "n"])
    g.op("Relu", "X", to="Y")
    g.output("Y", FLOAT, ["batch", "n"])
    return g.model()


def random_images(batch: int, height: int = HEIGHT, width: int = WIDTH, seed: int = 7) -> np.ndarray:
    """float32 [batch, height, width, 3] in 0..1; the same for the same seed."""
    return np.random.default_rng(seed).random((batch, height, width, 3), np.float32)
