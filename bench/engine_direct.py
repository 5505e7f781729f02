"""ONNX Runtime called directly with bound buffers: the opponent of the same model behind a server.

    engine_direct.py MODEL.onnx THREADS shared|private NAME:DTYPE:1,2,3 ...

`shared` binds memory of the kind that a client shares with a server (4 KiB pages), `private` the process's own, which
NumPy asks the system to make of huge pages; the same run is up to a third faster there. Binds inputs and outputs
once, then reads numbers from standard input and answers each N with one line: the microseconds of N runs. Standing
alone, its threads never spin beside the server's.
"""

from __future__ import annotations

import mmap
import sys
import time

import numpy as np
import onnxruntime


def place(array: np.ndarray, kind: str) -> np.ndarray:
    """A copy in memory of a kind."""
    if kind == "private":
        return np.ascontiguousarray(array)
    shared = np.frombuffer(mmap.mmap(-1, array.nbytes), array.dtype).reshape(array.shape)
    shared[...] = array
    return shared


def main() -> None:
    model, threads, kind, *inputs = sys.argv[1:]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    feeds = {}
    for text in inputs:
        name, dtype, dims = text.split(":")
        shape = [int(dim) for dim in dims.split(",")]
        seed = np.random.default_rng(1)
        values = seed.standard_normal(shape) if dtype.startswith("float") else seed.integers(1, 1000, shape)
        feeds[name] = place(values.astype(dtype), kind)
    if "attention_mask" in feeds:
        feeds["attention_mask"][...] = 1
    if "token_type_ids" in feeds:
        feeds["token_type_ids"][...] = 0
    outputs = [place(array, kind) for array in session.run(None, feeds)]
    for name, array in feeds.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for node, array in zip(session.get_outputs(), outputs, strict=True):
        binding.bind_output(node.name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    for line in sys.stdin:
        times = []
        for _ in range(int(line)):
            start = time.perf_counter()
            session.run_with_iobinding(binding)
            times.append((time.perf_counter() - start) * 1e6)
        print(" ".join(f"{t:.1f}" for t in times), flush=True)


if __name__ == "__main__":
    main()
