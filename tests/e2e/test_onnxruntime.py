"""umo_onnxruntime behind the real server: every answer is compared with the engine alone on private memory."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes.util
import http.client
import json
import math
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import tritonclient.utils.shared_memory as shm
from onnx import TensorProto
from tritonclient.utils import InferenceServerException

from umo.models import small
from umo.models.onnx_graph import FLOAT, Graph
from umo.server import Metrics, ServerError, TritonServer

BACKEND = "umo_onnxruntime"
LIBRARY = Path(onnxruntime.__file__).parent / "capi"
TRANSPORTS = ("http", "grpc", "shm")
NUMPY = {
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "UINT16": np.uint16,
    "UINT32": np.uint32,
    "UINT64": np.uint64,
    "INT8": np.int8,
    "INT16": np.int16,
    "INT32": np.int32,
    "INT64": np.int64,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    "BF16": ml_dtypes.bfloat16,
    "STRING": np.object_,
}
WIRE = {np.dtype(kind): "BYTES" if name == "STRING" else name for name, kind in NUMPY.items()}


# --- models ---------------------------------------------------------------------------------------------------------


def config(
    inputs: Sequence[tuple[str, str, Sequence[int]]] = (),
    outputs: Sequence[tuple[str, str, Sequence[int]]] = (),
    optional: Sequence[str] = (),
    parameters: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A configuration as the server's JSON."""
    made: dict[str, Any] = {"backend": BACKEND, **more}
    for key, tensors in (("input", inputs), ("output", outputs)):
        listed = [{"name": n, "data_type": f"TYPE_{t}", "dims": list(d)} for n, t, d in tensors]
        made.setdefault(key, listed)
    for tensor in made["input"]:
        if tensor["name"] in optional:
            tensor["optional"] = True
    made["parameters"] = {k: {"string_value": v} for k, v in (parameters or {}).items()}
    made.setdefault("instance_group", [{"kind": "KIND_CPU", "count": 1}])
    return {key: value for key, value in made.items() if value not in ([], {})}


def pbtxt(value: Any, indent: str = "") -> str:
    """The JSON form as protobuf text."""
    lines = []
    for key, entry in value.items():
        if key == "parameters":
            for name, text in entry.items():
                lines.append(
                    f"{indent}parameters {{ key: {json.dumps(name)} value {{ string_value: "
                    f"{json.dumps(text['string_value'])} }} }}"
                )
        elif isinstance(entry, dict):
            lines.append(f"{indent}{key} {{\n{pbtxt(entry, indent + '  ')}\n{indent}}}")
        elif isinstance(entry, list) and entry and isinstance(entry[0], dict):
            lines += [f"{indent}{key} {{\n{pbtxt(one, indent + '  ')}\n{indent}}}" for one in entry]
        elif isinstance(entry, str) and (entry.startswith(("TYPE_", "KIND_"))):
            lines.append(f"{indent}{key}: {entry}")
        else:
            lines.append(f"{indent}{key}: {json.dumps(entry)}")
    return "\n".join(lines)


def add(repository: Path, name: str, model: onnx.ModelProto | bytes | None, settings: Mapping[str, Any]) -> None:
    """Puts a model into a repository; None leaves the file out."""
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    if isinstance(model, bytes):
        (folder / "model.onnx").write_bytes(model)
    elif model is not None:
        onnx.save(model, folder / "model.onnx")
    (repository / name / "config.pbtxt").write_text(pbtxt(dict(settings)))


def relu(dims: Sequence[int | str]) -> onnx.ModelProto:
    g = Graph("relu")
    g.input("X", FLOAT, dims)
    g.op("Relu", "X", to="Y")
    g.output("Y", FLOAT, dims)
    return g.model()


def gather_rows() -> onnx.ModelProto:
    """INDEX int64 [batch, m] -> PICKED [batch, m] out of a table of 100: a bad index fails in the engine."""
    g = Graph("gather_rows")
    g.input("INDEX", TensorProto.INT64, ["batch", "m"])
    table = g.constant(np.arange(100, dtype=np.float32) * 0.5, "table")
    g.op("Gather", table, "INDEX", to="PICKED")
    g.output("PICKED", FLOAT, ["batch", "m"])
    return g.model()


def top_half(n: int) -> onnx.ModelProto:
    """X [n] -> TOP [n / 2], sorted: the engine's steps depend on the values."""
    g = Graph("top_half")
    g.input("X", FLOAT, [n])
    g.nodes.append(onnx.helper.make_node("TopK", ["X", g.constant([n // 2], dtype=np.int64)], ["TOP", "WHERE"], axis=0))
    g.output("TOP", FLOAT, [n // 2])
    return g.model()


def liar() -> onnx.ModelProto:
    """X [n] -> Y, declared as [n] but twice as long."""
    g = Graph("liar")
    g.input("X", FLOAT, ["n"])
    g.op("Concat", "X", "X", axis=0, to="Y")
    g.output("Y", FLOAT, ["n"])
    return g.model()


def broadcasting() -> onnx.ModelProto:
    """A [n], B [n] -> SUM [n], where either may be of length 1: the name does not tell the output's length."""
    return small.add()


def strings_batched() -> onnx.ModelProto:
    """TEXT string [batch, n] -> SAME string [batch, n]."""
    g = Graph("strings_batched")
    g.input("TEXT", TensorProto.STRING, ["batch", "n"])
    g.op("Identity", "TEXT", to="SAME")
    g.output("SAME", TensorProto.STRING, ["batch", "n"])
    return g.model()


def unbatched(name: str, dtype: str = "FP32", rank: int = 1) -> tuple[str, str, list[int]]:
    return (name, dtype, [-1] * rank)


ENABLED = {"unified_memory": '{"enable": true}'}
GOOD: dict[str, tuple[onnx.ModelProto, dict[str, Any]]] = {
    **{
        f"identity_{name.lower()}": (
            small.identity(name),
            config([unbatched("X", dtype=name, rank=2)], [unbatched("Y", dtype=name, rank=2)], max_batch_size=0),
        )
        for name in NUMPY
    },
    "relu": (relu(["n"]), config([unbatched("X")], [unbatched("Y")], parameters=ENABLED)),
    "relu_off": (
        relu(["n"]),
        config([unbatched("X")], [unbatched("Y")], parameters={"unified_memory": '{"enable": false}'}),
    ),
    "relu_fixed": (relu([2, 1024]), config([("X", "FP32", [2, 1024])], [("Y", "FP32", [2, 1024])])),
    "transpose": (small.transpose(), config([unbatched("X", rank=2)], [unbatched("Y", rank=2)])),
    "nonzero": (small.nonzero(), config([unbatched("X")], [("WHERE", "INT64", [1, -1])])),
    "reshape_last": (small.reshape_last(), config([unbatched("X", rank=2)], [unbatched("FLAT")])),
    "two_outputs": (
        small.two_outputs(),
        config([unbatched("X", rank=2)], [unbatched("DOUBLE", rank=2), unbatched("NEGATIVE", rank=2)]),
    ),
    "one_of_two": (small.two_outputs(), config([unbatched("X", rank=2)], [unbatched("NEGATIVE", rank=2)])),
    "optional_scale": (
        small.optional_scale(),
        config([unbatched("X"), ("SCALE", "FP32", [1])], [unbatched("Y")], optional=["SCALE"]),
    ),
    "scalar": (small.scalar(), config([unbatched("X")], [("TOTAL", "FP32", [1])])),
    "rows_of_one": (
        relu(["batch"]),
        config(
            max_batch_size=4,
            input=[{"name": "X", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}],
            output=[{"name": "Y", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}],
        ),
    ),
    "upper": (small.upper(), config([unbatched("TEXT", dtype="STRING")], [unbatched("UPPER", dtype="STRING")])),
    "gather": (
        small.gather(),
        config([unbatched("DATA"), unbatched("INDEX", dtype="INT64")], [unbatched("PICKED")]),
    ),
    "top_half": (top_half(20000), config([("X", "FP32", [20000])], [("TOP", "FP32", [10000])])),
    "liar": (liar(), config([unbatched("X")], [unbatched("Y")])),
    "liar_believed_not": (
        liar(),
        config([unbatched("X")], [unbatched("Y")], parameters={"symbolic_shapes": "false"}),
    ),
    "broadcasting": (broadcasting(), config([unbatched("A"), unbatched("B")], [unbatched("SUM")])),
    "batched": (
        small.matmul(),
        config(
            [("X", "FP32", [64])],
            [("Y", "FP32", [64])],
            max_batch_size=8,
            dynamic_batching={"max_queue_delay_microseconds": 50000},
        ),
    ),
    "gather_rows": (
        gather_rows(),
        config(
            [("INDEX", "INT64", [-1])],
            [("PICKED", "FP32", [-1])],
            max_batch_size=4,
            dynamic_batching={"preferred_batch_size": [4], "max_queue_delay_microseconds": 300000},
        ),
    ),
    "strings_batched": (
        strings_batched(),
        config(
            [("TEXT", "STRING", [-1])],
            [("SAME", "STRING", [-1])],
            max_batch_size=4,
            dynamic_batching={"max_queue_delay_microseconds": 50000},
        ),
    ),
    "shared_by_three": (
        small.matmul(),
        config(
            [("X", "FP32", [64])],
            [("Y", "FP32", [64])],
            max_batch_size=4,
            instance_group=[{"kind": "KIND_CPU", "count": 3}],
        ),
    ),
    "three_sessions": (
        small.matmul(),
        config(
            [("X", "FP32", [64])],
            [("Y", "FP32", [64])],
            max_batch_size=4,
            instance_group=[{"kind": "KIND_CPU", "count": 3}],
            parameters={"share_session": "false"},
        ),
    ),
    "all_options": (
        small.matmul(),
        config(
            [("X", "FP32", [64])],
            [("Y", "FP32", [64])],
            max_batch_size=4,
            optimization={"graph": {"level": 1}},
            parameters={
                "intra_op_thread_count": "1",
                "inter_op_thread_count": "1",
                "execution_mode": "1",
                "enable_mem_arena": "1",
                "enable_mem_pattern": "0",
                "memory.enable_memory_arena_shrinkage": "cpu:0",
                "session_config.session.intra_op.allow_spinning": "0",
            },
        ),
    ),
}


# --- asking ---------------------------------------------------------------------------------------------------------


class Region:
    """A system shared-memory region, registered with the server while it lives."""

    def __init__(self, client: Any, size_bytes: int) -> None:
        self.name = f"umo-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.size_bytes = max(size_bytes, 1)
        self._client = client
        self._handle = shm.create_shared_memory_region(self.name, "/" + self.name, self.size_bytes)
        client.register_system_shared_memory(self.name, "/" + self.name, self.size_bytes)

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._client.unregister_system_shared_memory(self.name)
        finally:
            shm.destroy_shared_memory_region(self._handle)

    def write(self, array: np.ndarray, offset: int = 0) -> None:
        shm.set_shared_memory_region(self._handle, [array], offset)

    def read(self, kind: Any, shape: Sequence[int], offset: int = 0) -> np.ndarray:
        return shm.get_contents_as_numpy(self._handle, kind, shape, offset).copy()


def wire_bytes(array: np.ndarray) -> np.ndarray:
    """The bytes that go into shared memory."""
    if array.dtype != np.object_:
        return np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
    parts = []
    for element in array.ravel():
        data = element if isinstance(element, bytes) else element.encode()
        parts.append(len(data).to_bytes(4, "little") + data)
    return np.frombuffer(b"".join(parts), np.uint8)


def from_wire(data: bytes, kind: Any, shape: Sequence[int]) -> np.ndarray:
    """Reads a tensor from the start of data."""
    count = math.prod(shape)
    if kind != np.object_:
        return np.frombuffer(data, kind, count).reshape(shape) if count else np.empty(shape, kind)
    elements, at = [], 0
    for _ in range(count):
        length = int.from_bytes(data[at : at + 4], "little")
        elements.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    made = np.empty(len(elements), np.object_)
    made[:] = elements
    return made.reshape(shape)


def http_ask(
    server: TritonServer, model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    """The protocol by hand, so that every byte of it is known: also what client libraries cannot send."""
    header: dict[str, Any] = {
        "inputs": [],
        "outputs": [{"name": n, "parameters": {"binary_data": True}} for n in outputs],
    }
    body = b""
    for name, array in inputs.items():
        data = wire_bytes(array).tobytes()
        header["inputs"].append(
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": WIRE[array.dtype],
                "parameters": {"binary_data_size": len(data)},
            }
        )
        body += data
    head = json.dumps(header).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    try:
        connection.request(
            "POST",
            f"/v2/models/{model}/infer",
            head + body,
            {"Inference-Header-Content-Length": str(len(head)), "Content-Type": "application/octet-stream"},
        )
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise InferenceServerException(json.loads(said)["error"], str(answer.status))
    # Without a byte of binary data the answer is JSON alone.
    length = int(answer.headers.get("Inference-Header-Content-Length", len(said)))
    results, at = {}, length
    kinds = {wire: kind for kind, wire in WIRE.items()}
    for entry in json.loads(said[:length])["outputs"]:
        size = entry.get("parameters", {}).get("binary_data_size", 0)
        results[entry["name"]] = from_wire(said[at : at + size], kinds[entry["datatype"]], entry["shape"])
        at += size
    return results


def grpc_ask(
    server: TritonServer, model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    kinds = {wire: kind for kind, wire in WIRE.items()}
    with contextlib.closing(grpcclient.InferenceServerClient(server.grpc_url)) as client:
        asked = []
        for name, array in inputs.items():
            tensor = grpcclient.InferInput(name, list(array.shape), WIRE[array.dtype])
            tensor._raw_content = wire_bytes(array).tobytes()
            asked.append(tensor)
        answer = client.infer(model, asked, outputs=[grpcclient.InferRequestedOutput(n) for n in outputs])
        said = answer.get_response()
        return {
            entry.name: from_wire(said.raw_output_contents[i], kinds[entry.datatype], list(entry.shape))
            for i, entry in enumerate(said.outputs)
        }


def shm_ask(
    server: TritonServer,
    model: str,
    inputs: Mapping[str, np.ndarray],
    outputs: Sequence[str],
    output_bytes: int = 1 << 20,
) -> dict[str, np.ndarray]:
    """All inputs in one region at offsets of 64 bytes, each output in a slot of another one."""
    kinds = {wire: kind for kind, wire in WIRE.items()}
    placed, size = {}, 0
    for name, array in inputs.items():
        data = wire_bytes(array)
        placed[name] = (size, data)
        size += -(-max(len(data), 1) // 64) * 64
    with contextlib.ExitStack() as stack:
        client = httpclient.InferenceServerClient(server.http_url)
        stack.callback(client.close)
        source = stack.enter_context(Region(client, size))
        target = stack.enter_context(Region(client, output_bytes * len(outputs)))
        asked, wanted = [], []
        for name, (offset, data) in placed.items():
            if len(data):
                source.write(data, offset)
            tensor = httpclient.InferInput(name, list(inputs[name].shape), WIRE[inputs[name].dtype])
            tensor.set_shared_memory(source.name, len(data), offset)
            asked.append(tensor)
        for i, name in enumerate(outputs):
            output = httpclient.InferRequestedOutput(name, binary_data=True)
            output.set_shared_memory(target.name, output_bytes, i * output_bytes)
            wanted.append(output)
        answer = client.infer(model, asked, outputs=wanted)
        results = {}
        for i, name in enumerate(outputs):
            entry = answer.get_output(name)
            kind, shape = kinds[entry["datatype"]], entry["shape"]
            data = target.read(np.uint8, [output_bytes], i * output_bytes).tobytes()
            results[name] = from_wire(data, kind, shape)
        return results


ASK = {"http": http_ask, "grpc": grpc_ask, "shm": shm_ask}


def alone(model: onnx.ModelProto, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, np.ndarray]:
    """The engine's own answer, on private memory."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    fed = {}
    for name, array in inputs.items():
        if array.dtype == np.object_:
            array = np.array([e.decode() if isinstance(e, bytes) else e for e in array.ravel()], np.object_).reshape(
                array.shape
            )
        fed[name] = array.copy()
    results = dict(zip(outputs, session.run(list(outputs), fed), strict=True))
    for name, array in results.items():
        if array.dtype.kind in "OU":
            encoded = np.empty(array.size, np.object_)
            encoded[:] = [str(e).encode() for e in array.ravel()]
            results[name] = encoded.reshape(array.shape)
    return results


def check(answer: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
    assert sorted(answer) == sorted(expected)
    for name, array in expected.items():
        assert answer[name].dtype == array.dtype, name
        assert list(answer[name].shape) == list(array.shape), name
        assert wire_bytes(answer[name]).tobytes() == wire_bytes(array).tobytes(), name


def ask_and_check(
    server: TritonServer, transport: str, name: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]
) -> dict[str, np.ndarray]:
    answer = ASK[transport](server, name, inputs, outputs)
    check(answer, alone(GOOD[name][0], inputs, outputs))
    return answer


def strings(*elements: str | bytes) -> np.ndarray:
    made = np.empty(len(elements), np.object_)
    made[:] = [e if isinstance(e, bytes) else e.encode() for e in elements]
    return made


rng = np.random.default_rng(11)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("models")
    for name, (model, settings) in GOOD.items():
        add(repository, name, model, settings)
    with TritonServer(repository, backend_config={BACKEND: {"onnxruntime_library": str(LIBRARY)}}) as running:
        yield running


# --- data -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("dtype", NUMPY)
def test_every_dtype_goes_through(server: TritonServer, transport: str, dtype: str) -> None:
    if dtype == "STRING":
        value = strings("", "a", "\x00inside\x00", "\u00fc\u4e2d", "x" * 5000, "end").reshape(2, 3)
    elif dtype == "BOOL":
        value = rng.integers(0, 2, (3, 5)).astype(np.bool_)
    else:
        value = rng.integers(0, 100, (3, 5)).astype(NUMPY[dtype])
    answer = ASK[transport](server, f"identity_{dtype.lower()}", {"X": value}, ["Y"])
    check(answer, {"Y": value})


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_shapes_that_vary_by_request(server: TritonServer, transport: str) -> None:
    for shape in ((1, 1), (2, 7), (64, 33), (5, 1)):
        ask_and_check(server, transport, "transpose", {"X": rng.random(shape, np.float32)}, ["Y"])
    ask_and_check(server, transport, "relu_fixed", {"X": rng.standard_normal((2, 1024), np.float32)}, ["Y"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_output_shape_that_follows_from_the_data(server: TritonServer, transport: str) -> None:
    for value in ([0, 1, 0, 3], [0, 0, 0], [1]):
        ask_and_check(server, transport, "nonzero", {"X": np.array(value, np.float32)}, ["WHERE"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_output_shape_that_no_name_tells(server: TritonServer, transport: str) -> None:
    ask_and_check(server, transport, "reshape_last", {"X": rng.random((6, 7), np.float32)}, ["FLAT"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_configured_reshape_stands_between_client_and_engine(server: TritonServer, transport: str) -> None:
    x = np.array([1, 2, 3.5], np.float32)
    check(ASK[transport](server, "scalar", {"X": x}, ["TOTAL"]), {"TOTAL": np.array([6.5], np.float32)})
    x = np.array([[-1], [2], [3]], np.float32)
    check(ASK[transport](server, "rows_of_one", {"X": x}, ["Y"]), {"Y": np.maximum(x, 0)})


def test_name_of_a_dimension_is_not_trusted_where_inputs_contradict_it(server: TritonServer) -> None:
    inputs = {"A": np.ones(1, np.float32), "B": rng.random(9, np.float32)}
    check(http_ask(server, "broadcasting", inputs, ["SUM"]), {"SUM": inputs["A"] + inputs["B"]})
    inputs = {"A": inputs["B"], "B": inputs["A"]}
    check(http_ask(server, "broadcasting", inputs, ["SUM"]), {"SUM": inputs["A"] + inputs["B"]})


# The server itself refuses a range of no bytes in shared memory.
@pytest.mark.parametrize("transport", ["http", "grpc"])
def test_empty_tensors(server: TritonServer, transport: str) -> None:
    ask_and_check(server, transport, "transpose", {"X": np.zeros((0, 4), np.float32)}, ["Y"])
    ask_and_check(server, transport, "identity_string", {"X": strings().reshape(0, 3)}, ["Y"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_strings_are_computed(server: TritonServer, transport: str) -> None:
    ask_and_check(server, transport, "upper", {"TEXT": strings("abc", "Grün", "", "x" * 70000)}, ["UPPER"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_absent_optional_input_leaves_the_models_own_value(server: TritonServer, transport: str) -> None:
    x = rng.random(17, np.float32)
    ask_and_check(server, transport, "optional_scale", {"X": x}, ["Y"])
    ask_and_check(server, transport, "optional_scale", {"X": x, "SCALE": np.array([5], np.float32)}, ["Y"])
    ask_and_check(server, transport, "optional_scale", {"X": x}, ["Y"])


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_only_what_is_asked_for_comes_back(server: TritonServer, transport: str) -> None:
    x = {"X": rng.random((3, 4), np.float32)}
    for outputs in (["NEGATIVE"], ["DOUBLE"], ["DOUBLE", "NEGATIVE"]):
        ask_and_check(server, transport, "two_outputs", x, outputs)
    ask_and_check(server, transport, "one_of_two", x, ["NEGATIVE"])


def test_misaligned_floats_over_http(server: TritonServer) -> None:
    # The tensor follows the JSON header in the body, so its address moves with the header's length.
    x = rng.standard_normal(1003).astype(np.float32)
    expected = alone(GOOD["relu"][0], {"X": x}, ["Y"])
    for pad in range(4):
        header = {
            "id": "i" * (pad + 1),
            "inputs": [
                {"name": "X", "shape": [1003], "datatype": "FP32", "parameters": {"binary_data_size": x.nbytes}}
            ],
            "parameters": {"binary_data_output": True},
        }
        head = json.dumps(header).encode()
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
        connection.request(
            "POST", "/v2/models/relu/infer", head + x.tobytes(), {"Inference-Header-Content-Length": str(len(head))}
        )
        answer = connection.getresponse()
        said = answer.read()
        connection.close()
        assert answer.status == 200, said
        data = said[int(answer.headers["Inference-Header-Content-Length"]) :]
        check({"Y": np.frombuffer(data, np.float32)}, expected)


def counted(server: TritonServer, before: Metrics, name: str, expected: float, **labels: str) -> Metrics:
    """What was counted since; the counters follow a moment after the answer."""
    deadline = time.monotonic() + 5
    while True:
        moved = server.metrics().since(before)
        if moved.value(name, **labels) >= expected or time.monotonic() > deadline:
            assert moved.value(name, **labels) == expected
            return moved
        time.sleep(0.02)


def test_nothing_is_copied_over_shared_memory(server: TritonServer) -> None:
    x = rng.standard_normal(1 << 18).astype(np.float32)
    before = server.metrics()
    check(shm_ask(server, "relu", {"X": x}, ["Y"], x.nbytes), alone(GOOD["relu"][0], {"X": x}, ["Y"]))
    # The conventional way copies nothing on the way in either, for a single request.
    moved = counted(server, before, "umo_copy_avoided_bytes_total", x.nbytes, model="relu", direction="out")
    assert moved.value("umo_copy_bytes_total", model="relu") == 0


def test_switched_off_copies_the_output(server: TritonServer) -> None:
    x = rng.standard_normal(1 << 12).astype(np.float32)
    before = server.metrics()
    check(shm_ask(server, "relu_off", {"X": x}, ["Y"], x.nbytes), alone(GOOD["relu"][0], {"X": x}, ["Y"]))
    counted(server, before, "umo_copy_bytes_total", x.nbytes, model="relu_off", reason="disabled")


def test_copies_are_named(server: TritonServer) -> None:
    x = np.array([0, 1, 2, 0], np.float32)
    before = server.metrics()
    shm_ask(server, "nonzero", {"X": x}, ["WHERE"])
    shm_ask(server, "upper", {"TEXT": strings("abc")}, ["UPPER"])
    counted(server, before, "umo_copy_bytes_total", 2 * 8, model="nonzero", reason="unknown_shape")
    counted(server, before, "umo_copy_bytes_total", 4 + 3, model="upper", reason="engine_strings")


def test_client_that_rewrites_what_is_being_sorted_harms_nobody(server: TritonServer) -> None:
    # On the client's own memory the engine leaves its arrays within seconds.
    n, answers = 20000, 0
    x = rng.random(n, np.float32)
    before = server.metrics()
    with (
        contextlib.closing(grpcclient.InferenceServerClient(server.grpc_url)) as client,
        Region(client, 4 * n) as source,
    ):
        source.write(x)
        tensor = grpcclient.InferInput("X", [n], "FP32")
        tensor.set_shared_memory(source.name, 4 * n)
        writer = subprocess.Popen([sys.executable, "-c", _REWRITE, "/dev/shm/" + source.name])
        try:
            end = time.monotonic() + 4
            while time.monotonic() < end:
                client.infer("top_half", [tensor])
                answers += 1
        finally:
            writer.kill()
            writer.wait()
    copied = {"model": "top_half", "direction": "in", "reason": "control_data"}
    counted(server, before, "umo_copy_bytes_total", 4 * n * answers, **copied)
    ask_and_check(server, "http", "top_half", {"X": x}, ["TOP"])


_REWRITE = """
import mmap, sys
import numpy as np
with open(sys.argv[1], "r+b") as file:
    data = np.frombuffer(mmap.mmap(file.fileno(), 0), np.float32)
generator = np.random.default_rng(1)
patterns = [generator.random(data.size, np.float32), -generator.random(data.size, np.float32),
            np.zeros(data.size, np.float32), np.full(data.size, np.nan, np.float32)]
while True:
    for pattern in patterns:
        data[:] = pattern
"""


# --- several at once ------------------------------------------------------------------------------------------------


def batch_statistics(server: TritonServer, model: str) -> dict[int, int]:
    with contextlib.closing(httpclient.InferenceServerClient(server.http_url)) as client:
        stats = client.get_inference_statistics(model)["model_stats"][0]["batch_stats"]
    return {entry["batch_size"]: entry["compute_infer"]["count"] for entry in stats}


def test_batches_of_neighbouring_slots_answer_as_single_requests(server: TritonServer) -> None:
    clients, rounds, row = 8, 12, 64 * 4
    session = onnxruntime.InferenceSession(GOOD["batched"][0].SerializeToString())
    with contextlib.ExitStack() as stack:
        owner = httpclient.InferenceServerClient(server.http_url)
        stack.callback(owner.close)
        source = stack.enter_context(Region(owner, clients * row))
        target = stack.enter_context(Region(owner, clients * row))
        gate = threading.Barrier(clients)

        def client(slot: int) -> None:
            own = np.random.default_rng(slot)
            with contextlib.closing(grpcclient.InferenceServerClient(server.grpc_url)) as ours:
                tensor = grpcclient.InferInput("X", [1, 64], "FP32")
                tensor.set_shared_memory(source.name, row, slot * row)
                output = grpcclient.InferRequestedOutput("Y")
                output.set_shared_memory(target.name, row, slot * row)
                for _ in range(rounds):
                    x = own.standard_normal((1, 64)).astype(np.float32)
                    source.write(x, slot * row)
                    gate.wait(30)
                    ours.infer("batched", [tensor], outputs=[output])
                    # The engine may sum a batch in another order than a single row.
                    np.testing.assert_allclose(
                        target.read(np.float32, [1, 64], slot * row), session.run(None, {"X": x})[0], 1e-4, 1e-4
                    )

        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            list(pool.map(client, range(clients)))
    sizes = batch_statistics(server, "batched")
    assert max(sizes) >= 4, sizes


def test_one_bad_row_fails_its_own_request_alone(server: TritonServer) -> None:
    good = np.array([[1, 2, 99]], np.int64)
    bad = np.array([[1, 2, 100]], np.int64)
    gate = threading.Barrier(4)

    def ask(index: np.ndarray) -> np.ndarray | str:
        gate.wait(30)
        try:
            return grpc_ask(server, "gather_rows", {"INDEX": index}, ["PICKED"])["PICKED"]
        except InferenceServerException as error:
            return error.message()

    before = batch_statistics(server, "gather_rows").get(4, 0)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(ask, [good, bad, good, good]))
    assert batch_statistics(server, "gather_rows").get(4, 0) == before + 1, "the four did not meet in one batch"
    assert "out of data bounds" in answers[1]
    for answer in (answers[0], answers[2], answers[3]):
        np.testing.assert_array_equal(answer, good * np.float32(0.5))


def test_strings_of_a_batch_go_back_to_their_requests(server: TritonServer) -> None:
    gate = threading.Barrier(4)

    def ask(i: int) -> None:
        value = strings(f"client {i}", "", "x" * (100 * i)).reshape(1, 3)
        gate.wait(30)
        check(grpc_ask(server, "strings_batched", {"TEXT": value}, ["SAME"]), {"SAME": value})

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))


@pytest.mark.parametrize("name", ["shared_by_three", "three_sessions", "all_options"])
def test_instances_answer_at_the_same_time(server: TritonServer, name: str) -> None:
    model = GOOD[name][0]
    session = onnxruntime.InferenceSession(model.SerializeToString())

    def ask(seed: int) -> None:
        own = np.random.default_rng(seed)
        for _ in range(10):
            x = own.standard_normal((2, 64)).astype(np.float32)
            answer = http_ask(server, name, {"X": x}, ["Y"])["Y"]
            np.testing.assert_allclose(answer, session.run(None, {"X": x})[0], 1e-4, 1e-4)

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(ask, range(6)))


# --- bad requests ---------------------------------------------------------------------------------------------------


def refused(server: TritonServer, model: str, inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> str:
    with pytest.raises(InferenceServerException) as caught:
        http_ask(server, model, inputs, outputs)
    return caught.value.message()


def still_serves(server: TritonServer) -> None:
    x = np.array([-1, 2], np.float32)
    check(http_ask(server, "relu", {"X": x}, ["Y"]), {"Y": np.maximum(x, 0)})


def test_engine_errors_reach_the_client(server: TritonServer) -> None:
    inputs = {"DATA": np.ones(4, np.float32), "INDEX": np.array([0, 9], np.int64)}
    text = refused(server, "gather", inputs, ["PICKED"])
    assert "ONNX Runtime could not run the model" in text
    assert "out of data bounds" in text
    inputs = {"A": np.ones(3, np.float32), "B": np.ones(4, np.float32)}
    assert "ONNX Runtime could not run the model" in refused(server, "broadcasting", inputs, ["SUM"])
    still_serves(server)


def test_wrong_shape_is_refused(server: TritonServer) -> None:
    assert "X" in refused(server, "relu_fixed", {"X": np.ones((2, 1000), np.float32)}, ["Y"])
    assert "X" in refused(server, "relu_fixed", {"X": np.ones((2048,), np.float32)}, ["Y"])
    still_serves(server)


def test_model_that_lies_about_a_shape_fails_the_request(server: TritonServer) -> None:
    x = np.ones(3, np.float32)
    assert "ONNX Runtime could not run the model" in refused(server, "liar", {"X": x}, ["Y"])
    check(http_ask(server, "liar_believed_not", {"X": x}, ["Y"]), {"Y": np.ones(6, np.float32)})
    still_serves(server)


def test_bool_that_is_none_is_refused(server: TritonServer) -> None:
    value = np.array([[0, 1, 2]], np.uint8).view(np.bool_)
    assert "byte other than 0 and 1" in refused(server, "identity_bool", {"X": value}, ["Y"])
    still_serves(server)


# --- completing and checking the configuration ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """A server that loads what a test puts into its repository."""
    repository = tmp_path_factory.mktemp("loaded")
    with TritonServer(
        repository, explicit=True, backend_config={BACKEND: {"onnxruntime_library": str(LIBRARY)}}
    ) as running:
        running.repository = repository
        yield running


def load(loader: TritonServer, model: onnx.ModelProto | bytes | None, settings: Mapping[str, Any]) -> str:
    name = f"m{secrets.token_hex(4)}"
    add(loader.repository, name, model, settings)
    loader.load(name)
    return name


def finished_config(server: TritonServer, name: str) -> dict[str, Any]:
    with contextlib.closing(httpclient.InferenceServerClient(server.http_url)) as client:
        return client.get_model_config(name)


def test_configuration_is_completed_from_a_model_that_batches(loader: TritonServer) -> None:
    name = load(loader, small.two_outputs(), {"backend": BACKEND})
    made = finished_config(loader, name)
    assert made["max_batch_size"] == 4
    assert [(t["name"], t["data_type"], t["dims"]) for t in made["input"]] == [("X", "TYPE_FP32", [-1])]
    assert [(t["name"], t["dims"]) for t in made["output"]] == [("DOUBLE", [-1]), ("NEGATIVE", [-1])]
    x = rng.random((3, 5), np.float32)
    check(http_ask(loader, name, {"X": x}, ["DOUBLE"]), {"DOUBLE": x + x})


def test_configuration_is_completed_from_a_model_that_does_not_batch(loader: TritonServer) -> None:
    name = load(loader, small.nonzero(), {"backend": BACKEND})
    made = finished_config(loader, name)
    assert made["max_batch_size"] == 0
    assert [(t["name"], t["data_type"], t["dims"]) for t in made["output"]] == [("WHERE", "TYPE_INT64", [1, -1])]
    x = np.array([0, 3, 4], np.float32)
    check(http_ask(loader, name, {"X": x}, ["WHERE"]), {"WHERE": np.array([[1, 2]], np.int64)})


def test_half_a_configuration_is_completed(loader: TritonServer) -> None:
    name = load(loader, small.matmul(), config([("X", "FP32", [64])], max_batch_size=3))
    made = finished_config(loader, name)
    assert made["max_batch_size"] == 3
    assert [(t["name"], t["dims"]) for t in made["output"]] == [("Y", [64])]


def test_scalars_are_completed_as_one_element(loader: TritonServer) -> None:
    # Scalars of a model that does not batch ...
    g = Graph("plus_scalar")
    g.input("X", FLOAT, [2, "n"])
    g.input("PLUS", FLOAT, [])
    g.op("Add", "X", "PLUS", to="Y")
    g.op("ReduceSum", "Y", keepdims=0, to="TOTAL")
    g.output("Y", FLOAT, [2, "n"])
    g.output("TOTAL", FLOAT, [])
    name = load(loader, g.model(), {"backend": BACKEND})
    made = finished_config(loader, name)
    assert made["max_batch_size"] == 0
    assert [(t["name"], t["dims"]) for t in made["input"]] == [("X", [2, -1]), ("PLUS", [1])]
    x = np.ones((2, 2), np.float32)
    check(
        http_ask(loader, name, {"X": x, "PLUS": np.array([2], np.float32)}, ["Y", "TOTAL"]),
        {"Y": x + 2, "TOTAL": np.array([12], np.float32)},
    )
    # ... and one a row of a model that does.
    name = load(loader, relu(["batch"]), {"backend": BACKEND})
    made = finished_config(loader, name)
    assert (made["max_batch_size"], made["input"][0]["dims"], made["output"][0]["dims"]) == (4, [1], [1])
    x = np.array([[-1], [2], [3]], np.float32)
    check(http_ask(loader, name, {"X": x}, ["Y"]), {"Y": np.maximum(x, 0)})


FLAT = [unbatched("X")]
REFUSED: dict[str, tuple[onnx.ModelProto | bytes | None, dict[str, Any], str]] = {
    "no_file": (None, config(FLAT, [unbatched("Y")]), r"no model file 1/model\.onnx.*default_model_filename"),
    "empty_file": (b"", config(FLAT, [unbatched("Y")]), r"could not load model\.onnx"),
    "corrupt_file": (b"\x00not a model" * 50, config(FLAT, [unbatched("Y")]), r"could not load model\.onnx"),
    "cut_file": (relu(["n"]).SerializeToString()[:-20], config(FLAT, [unbatched("Y")]), r"could not load model\.onnx"),
    "unknown_input": (
        relu(["n"]),
        config([unbatched("Z")], [unbatched("Y")]),
        r"needs input 'X'|no input 'Z'; its inputs are 'X'",
    ),
    "unknown_output": (relu(["n"]), config(FLAT, [unbatched("Z")]), r"no output 'Z'; its outputs are 'Y'"),
    "surplus_input": (
        relu(["n"]),
        config([*FLAT, unbatched("Z")], [unbatched("Y")]),
        r"no input 'Z'; its inputs are 'X'",
    ),
    "wrong_dtype": (
        relu(["n"]),
        config([unbatched("X", dtype="FP16")], [unbatched("Y")]),
        r"input 'X' is FP16 in the configuration and FP32 in the model",
    ),
    "wrong_shape": (
        relu([2, 8]),
        config([("X", "FP32", [2, 9])], [("Y", "FP32", [2, 8])]),
        r"input 'X' has shape \[2,9\] in the configuration and \[2,8\] in the model",
    ),
    "wrong_rank": (
        relu([2, "n"]),
        config([("X", "FP32", [2, -1])], [("Y", "FP32", [-1])]),
        r"output 'Y' has shape \[-1\] in the configuration and \[2,-1\] in the model",
    ),
    "batch_of_a_fixed_dimension": (
        relu([2, 8]),
        config([("X", "FP32", [8])], [("Y", "FP32", [8])], max_batch_size=4),
        r"first dimension of input 'X' is 2 in the model: set max_batch_size to 0",
    ),
    "optional_but_needed": (
        relu(["n"]),
        config(FLAT, [unbatched("Y")], optional=["X"]),
        r"input 'X' is optional in the configuration, but the model needs it",
    ),
    "accelerator": (
        relu(["n"]),
        config(
            FLAT,
            [unbatched("Y")],
            optimization={"execution_accelerators": {"cpu_execution_accelerator": [{"name": "openvino"}]}},
        ),
        r"execution accelerator 'openvino' is not supported",
    ),
    "graph_level": (
        relu(["n"]),
        config(FLAT, [unbatched("Y")], optimization={"graph": {"level": 3}}),
        r"optimization\.graph\.level must be",
    ),
    **{
        f"parameter_{key}_{value}": (
            relu(["n"]),
            config(FLAT, [unbatched("Y")], parameters={key: value}),
            rf"parameter {key} is '{value}'",
        )
        for key, value in (
            ("intra_op_thread_count", "many"),
            ("intra_op_thread_count", "-1"),
            ("inter_op_thread_count", "1x"),
            ("execution_mode", "2"),
            ("enable_mem_arena", "yes"),
            ("enable_mem_pattern", ""),
            ("share_session", "maybe"),
            ("symbolic_shapes", "2"),
            ("memory.enable_memory_arena_shrinkage", "gpu:0"),
        )
    },
    "shrinkage_without_arena": (
        relu(["n"]),
        config(
            FLAT,
            [unbatched("Y")],
            parameters={"enable_mem_arena": "0", "memory.enable_memory_arena_shrinkage": "cpu:0"},
        ),
        r"memory\.enable_memory_arena_shrinkage needs the arena",
    ),
    "op_library": (
        relu(["n"]),
        config(FLAT, [unbatched("Y")], model_operations={"op_library_filename": ["no_such_ops.so"]}),
        r"could not load op library no_such_ops\.so",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_model_is_refused_in_words(loader: TritonServer, case: str) -> None:
    model, settings, words = REFUSED[case]
    with pytest.raises(ServerError, match=words):
        load(loader, model, {"max_batch_size": 0, **settings})
    # The server lives and loads the next one.
    name = load(loader, relu(["n"]), config(FLAT, [unbatched("Y")], max_batch_size=0))
    x = np.array([-1, 2], np.float32)
    check(http_ask(loader, name, {"X": x}, ["Y"]), {"Y": np.maximum(x, 0)})
    loader.unload(name)


def test_loading_and_unloading_leaves_no_memory(loader: TritonServer) -> None:
    def resident() -> int:
        return int(Path(f"/proc/{loader.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def once() -> None:
        name = load(loader, small.matmul(512, 512), {"backend": BACKEND})
        http_ask(loader, name, {"X": np.ones((1, 512), np.float32)}, ["Y"])
        loader.unload(name)

    for _ in range(5):
        once()
    before = resident()
    for _ in range(15):
        once()
    # The weights alone are 1 MiB a load.
    assert resident() - before < 8 << 20


# --- finding ONNX Runtime -------------------------------------------------------------------------------------------


@pytest.fixture
def one_model(tmp_path: Path) -> Path:
    add(tmp_path, "relu", relu(["n"]), config(FLAT, [unbatched("Y")]))
    return tmp_path


def test_library_is_found_by_file_and_by_variable(one_model: Path) -> None:
    file = next(LIBRARY.glob("libonnxruntime.so*"))
    with TritonServer(one_model, backend_config={BACKEND: {"onnxruntime_library": str(file)}}) as server:
        still_serves(server)
        assert f"ONNX Runtime {onnxruntime.__version__}" in server.log()
    with TritonServer(one_model, env={"UMO_ONNXRUNTIME": str(LIBRARY)}) as server:
        still_serves(server)


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("/nowhere/libonnxruntime.so", r"onnxruntime_library: cannot load ONNX Runtime: .*/nowhere"),
        ("/proc", r"onnxruntime_library names a folder without libonnxruntime\.so"),
        ("libc.so.6", r"is not ONNX Runtime"),
    ],
)
def test_wrong_library_is_refused_in_words(one_model: Path, named: str, words: str) -> None:
    with TritonServer(
        one_model, allow_failing=True, backend_config={BACKEND: {"onnxruntime_library": named}}
    ) as server:
        assert re.search(words, server.model_reason("relu"))
        assert server.running


def test_missing_library_is_refused_with_the_remedy(one_model: Path) -> None:
    if ctypes.util.find_library("onnxruntime"):
        pytest.skip("this system has a libonnxruntime.so of its own")
    with TritonServer(one_model, allow_failing=True, env={"UMO_ONNXRUNTIME": None}) as server:
        assert "set UMO_ONNXRUNTIME" in server.model_reason("relu")
        assert server.running


def test_global_thread_pool_serves_all_models(one_model: Path) -> None:
    add(one_model, "second", relu(["n"]), config(FLAT, [unbatched("Y")], parameters={"intra_op_thread_count": "2"}))
    options = {"onnxruntime_library": str(LIBRARY), "enable-global-threadpool": "1", "intra_op_thread_count": "2"}
    with TritonServer(one_model, backend_config={BACKEND: options}) as server:
        still_serves(server)
        x = np.array([-3, 3], np.float32)
        check(http_ask(server, "second", {"X": x}, ["Y"]), {"Y": np.maximum(x, 0)})
        assert "global thread pool" in server.log()


def test_batch_default_comes_from_the_command_line(one_model: Path) -> None:
    add(one_model, "batches", small.matmul(), {"backend": BACKEND})
    with TritonServer(
        one_model,
        backend_config={BACKEND: {"onnxruntime_library": str(LIBRARY)}, "": {"default-max-batch-size": "7"}},
    ) as server:
        assert finished_config(server, "batches")["max_batch_size"] == 7
