"""umo_identity behind the real server: what comes back is what was sent, whatever its type, shape and way.

Requests go over raw HTTP where a test needs to choose every byte (a body in hundreds of pieces, a size that is a lie),
over gRPC by the usual client, and over system shared memory at any offset.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import math
import mmap
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from umo.server import HOST, TritonServer

RNG = np.random.default_rng(20)

# What a type's elements look like in memory.
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
    "BF16": ml_dtypes.bfloat16,
    "FP32": np.float32,
    "FP64": np.float64,
}
ALL_TYPES = [*NUMPY, "BYTES"]
STRINGS = [b"", b"a", b"\x00\xff" * 3, "grün".encode(), b"x" * 70000, b"tail"]


def config(
    inputs: Sequence[tuple[str, str, str]],
    outputs: Sequence[tuple[str, str, str]],
    *,
    batch: int = 0,
    extra: str = "",
    parameters: dict[str, str] | None = None,
) -> str:
    """The text of a config.pbtxt; a tensor is its name, its type and what stands behind that."""

    def tensors(key: str, rows: Sequence[tuple[str, str, str]]) -> str:
        return "".join(
            f'{key} [ {{ name: "{name}" data_type: TYPE_{"STRING" if kind == "BYTES" else kind} {rest} }} ]\n'
            for name, kind, rest in rows
        )

    text = f'backend: "umo_identity"\nmax_batch_size: {batch}\ninstance_group [ {{ kind: KIND_CPU count: 1 }} ]\n'
    text += tensors("input", inputs) + tensors("output", outputs) + extra + "\n"
    for key, value in (parameters or {}).items():
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
    return text


def one(kind: str, dims: str, **more: Any) -> str:
    return config([("INPUT0", kind, f"dims: [{dims}]")], [("OUTPUT0", kind, f"dims: [{dims}]")], **more)


def write(repository: Path, name: str, text: str) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(text)


BATCHING = "dynamic_batching { max_queue_delay_microseconds: 50000 preferred_batch_size: [ 8 ] }"

MODELS = {
    **{f"type_{kind}": one(kind, "-1, -1") for kind in ALL_TYPES},
    **{f"off_{kind}": one(kind, "-1, -1", parameters={"unified_memory": '{"enable": false}'}) for kind in ALL_TYPES},
    "rank_1": one("FP32", "-1"),
    "rank_8": one("FP32", "-1, -1, -1, -1, -1, -1, -1, -1"),
    "fixed": one("FP32", "2, 3"),
    "scalar": config(
        [("INPUT0", "FP32", "dims: [1] reshape: { shape: [] }")],
        [("OUTPUT0", "FP32", "dims: [1] reshape: { shape: [] }")],
        batch=4,  # the server takes no empty reshape without batching
    ),
    "batch": one("FP32", "-1", batch=8, extra=BATCHING),
    "batch_strings": one("BYTES", "-1", batch=8, extra=BATCHING),
    "fail_every_3": one("FP32", "-1", batch=8, extra=BATCHING, parameters={"fail_every": "3", "delay_us": "20000"}),
    "nothing": one("FP32", "-1", parameters={"mode": "touch_nothing"}),
    "crossed": config(
        [("INPUT_B", "INT8", "dims: [-1]"), ("INPUT_A", "FP64", "dims: [-1]"), ("THIRD", "UINT16", "dims: [-1]")],
        [("OUTPUT_A", "FP64", "dims: [-1]"), ("OUTPUT_B", "INT8", "dims: [-1]"), ("LAST", "UINT16", "dims: [-1]")],
    ),
    "optional": config(
        [("INPUT0", "FP32", "dims: [-1]"), ("INPUT1", "FP32", "dims: [-1] optional: true")],
        [("OUTPUT0", "FP32", "dims: [-1]"), ("OUTPUT1", "FP32", "dims: [-1]")],
    ),
}

# Model, configuration, what the server has to say about it.
BROKEN = {
    "bad_mode": (one("FP32", "-1", parameters={"mode": "fast"}), "parameter mode: 'fast' is neither copy nor"),
    "bad_delay": (one("FP32", "-1", parameters={"delay_us": "soon"}), "parameter delay_us: 'soon' is no integer"),
    "bad_delay_size": (
        one("FP32", "-1", parameters={"delay_us": "99999999999999999999"}),
        "delay_us: '99999999999999999999' is no integer from 0 to 60000000",
    ),
    "bad_fail": (one("FP32", "-1", parameters={"fail_every": "-1"}), "parameter fail_every: '-1' is no integer"),
    "bad_fail_tail": (one("FP32", "-1", parameters={"fail_every": "3x"}), "parameter fail_every: '3x' is no integer"),
    "bad_types": (
        config([("INPUT0", "FP32", "dims: [-1]")], [("OUTPUT0", "FP64", "dims: [-1]")]),
        "output 'OUTPUT0' is FP64, but its input 'INPUT0' is FP32",
    ),
    "bad_pairs": (
        config([("INPUT0", "FP32", "dims: [-1]")], [("OUTPUT0", "FP32", "dims: [-1]"), ("X", "FP32", "dims: [-1]")]),
        "output 'X' has no input",
    ),
    "bad_strings": (one("BYTES", "-1", parameters={"mode": "touch_nothing"}), "output 'OUTPUT0' is BYTES"),
    "bad_json": (one("FP32", "-1", parameters={"unified_memory": '{"enable": tru}'}), "unified_memory"),
    "bad_threshold": (
        one("FP32", "-1", parameters={"unified_memory": '{"zero_copy_threshold": "many"}'}),
        "zero_copy_threshold",
    ),
    "bad_pattern": (
        one(
            "FP32",
            "-1",
            parameters={"unified_memory": '{"tensor_patterns": [{"name": "INPUT0", "pattern": "sideways"}]}'},
        ),
        "sideways",
    ),
    "bad_key": (one("FP32", "-1", parameters={"unified_memory": '{"enabled": true}'}), "enabled"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("models")
    for name, text in MODELS.items():
        write(repository, name, text)
    for name, (text, _) in BROKEN.items():
        write(repository, name, text)
    with TritonServer(repository, allow_failing=True) as running:
        states = {entry["name"]: entry.get("state") for entry in running.index()}
        failed = {name: running.model_reason(name) for name in MODELS if states.get(name) != "READY"}
        assert failed == {}
        yield running
        assert running.running, "the server died under the tests"


@pytest.fixture(autouse=True)
def alive(server: TritonServer) -> Iterator[None]:
    """Whatever a test sends, the next good request is answered."""
    yield
    data = np.arange(5, dtype=np.float32)
    assert echo(server, "rank_1", "FP32", data) == data.tobytes()


# --- a client of our own ---------------------------------------------------------------------------------------------


@dataclass
class Tensor:
    """One input as the protocol has it; nothing is checked, so that a test can lie."""

    name: str
    kind: str
    shape: Sequence[int]
    data: bytes = b""
    parameters: dict[str, Any] = field(default_factory=dict)  # replace the data by a place in shared memory

    def header(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "datatype": self.kind,
            "shape": list(self.shape),
            "parameters": self.parameters or {"binary_data_size": len(self.data)},
        }


@dataclass
class Answer:
    status: int
    error: str = ""
    outputs: dict[str, bytes] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)


def infer(
    server: TritonServer,
    model: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[dict[str, Any]] = (),
    *,
    pieces: Sequence[int] = (),
    padding: int = 0,
    raw_header: bytes | None = None,
) -> Answer:
    """Sends one request over HTTP.

    pieces   sizes of the chunks of a chunked body, repeated to its end; none sends the body at once
    padding  blanks behind the JSON, which shift the tensors against every alignment
    """
    header: dict[str, Any] = {"inputs": [tensor.header() for tensor in inputs]}
    header["parameters"] = {"binary_data_output": True}
    if outputs:
        header["outputs"] = list(outputs)
    text = (raw_header if raw_header is not None else json.dumps(header).encode()) + b" " * padding
    body = text + b"".join(tensor.data for tensor in inputs if not tensor.parameters)
    headers = {"Inference-Header-Content-Length": str(len(text))}
    connection = http.client.HTTPConnection(HOST, server.http_port, timeout=60)
    try:
        path = f"/v2/models/{model}/infer"
        if pieces:
            headers["Transfer-Encoding"] = "chunked"
            connection.request("POST", path, body=cut(body, pieces), headers=headers, encode_chunked=True)
        else:
            connection.request("POST", path, body=body, headers=headers)
        got = connection.getresponse()
        said = got.read()
        length = int(got.headers.get("Inference-Header-Content-Length", len(said)))
    finally:
        connection.close()
    if got.status != 200:
        try:
            return Answer(got.status, json.loads(said)["error"])
        except (ValueError, KeyError):
            return Answer(got.status, said.decode(errors="replace"))
    answer = Answer(200)
    at = length
    for output in json.loads(said[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size", 0)
        answer.outputs[output["name"]] = said[at : at + size]
        answer.shapes[output["name"]] = output["shape"]
        at += size
    assert at == len(said)
    return answer


def cut(body: bytes, pieces: Sequence[int]) -> Iterator[bytes]:
    at = turn = 0
    while at < len(body):
        size = pieces[turn % len(pieces)]
        yield body[at : at + size]
        at += size
        turn += 1


def echo(server: TritonServer, model: str, kind: str, data: np.ndarray, **more: Any) -> bytes:
    answer = infer(server, model, [Tensor("INPUT0", kind, data.shape, data.tobytes())], **more)
    assert answer.status == 200, answer.error
    assert answer.shapes["OUTPUT0"] == list(data.shape)
    return answer.outputs["OUTPUT0"]


def serialized(strings: Sequence[bytes]) -> bytes:
    return b"".join(len(s).to_bytes(4, "little") + s for s in strings)


def values(kind: str, shape: Sequence[int]) -> np.ndarray:
    """Random bits of a type, so that NaNs and denormals travel too."""
    kind_of = np.dtype(NUMPY[kind])
    count = math.prod(shape)
    if kind == "BOOL":
        return RNG.integers(0, 2, shape).astype(np.bool_)
    return np.frombuffer(RNG.bytes(count * kind_of.itemsize), kind_of).reshape(shape)


class Region:
    """A piece of system shared memory, registered with the server."""

    def __init__(self, server: TritonServer, size: int) -> None:
        self.server = server
        self.name = f"umo-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.size = size
        self.path = f"/dev/shm/{self.name}"
        handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        os.ftruncate(handle, size)
        self.memory = mmap.mmap(handle, size)
        os.close(handle)
        self.bytes = np.frombuffer(self.memory, np.uint8)

    def __enter__(self) -> Region:
        said = self._ask("register", {"key": "/" + self.name, "offset": 0, "byte_size": self.size})
        assert said == 200
        return self

    def __exit__(self, *_: object) -> None:
        try:
            assert self._ask("unregister", {}) == 200
        finally:
            del self.bytes
            with contextlib.suppress(BufferError):
                self.memory.close()
            os.unlink(self.path)

    def _ask(self, verb: str, body: dict[str, Any]) -> int:
        return self.server._request(
            "POST", f"/v2/systemsharedmemory/region/{self.name}/{verb}", json.dumps(body).encode()
        )[0]

    def put(self, offset: int, data: bytes) -> None:
        self.bytes[offset : offset + len(data)] = np.frombuffer(data, np.uint8)

    def get(self, offset: int, size: int) -> bytes:
        return self.bytes[offset : offset + size].tobytes()

    def place(self, offset: int, size: int) -> dict[str, Any]:
        return {
            "shared_memory_region": self.name,
            "shared_memory_offset": offset,
            "shared_memory_byte_size": size,
        }


def copied(server: TritonServer, before: Any, model: str, direction: str) -> float:
    return server.metrics().since(before).value("umo_copy_bytes_total", model=model, direction=direction)


# --- what was sent comes back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["type", "off"])
@pytest.mark.parametrize("kind", list(NUMPY))
def test_every_type_comes_back_bit_by_bit(server, kind, way):
    for shape in [(1, 1), (3, 5), (127, 129)]:
        data = values(kind, shape)
        assert echo(server, f"{way}_{kind}", kind, data) == data.tobytes()
        with Region(server, 2 * data.nbytes + 8192) as region:
            region.put(0, data.tobytes())
            answer = infer(
                server,
                f"{way}_{kind}",
                [Tensor("INPUT0", kind, shape, parameters=region.place(0, data.nbytes))],
                [{"name": "OUTPUT0", "parameters": region.place(data.nbytes, data.nbytes)}],
            )
            assert answer.status == 200, answer.error
            assert region.get(data.nbytes, data.nbytes) == data.tobytes()


@pytest.mark.parametrize("way", ["type", "off"])
@pytest.mark.parametrize("kind", list(NUMPY))
def test_every_type_comes_back_over_grpc(server, kind, way):
    data = values(kind, (31, 33))
    with contextlib.closing(grpcclient.InferenceServerClient(server.grpc_url)) as client:
        tensor = grpcclient.InferInput("INPUT0", list(data.shape), kind)
        tensor.set_data_from_numpy(data)
        back = client.infer(f"{way}_{kind}", [tensor]).as_numpy("OUTPUT0")
    assert back.shape == data.shape
    assert back.tobytes() == data.tobytes()


@pytest.mark.parametrize("way", ["type", "off"])
@pytest.mark.parametrize("strings", [STRINGS, [b""] * 6, [b"\xff" * 3] * 6], ids=["mixed", "empty", "alike"])
def test_strings_come_back(server, strings, way):
    model = f"{way}_BYTES"
    data = serialized(strings)
    answer = infer(server, model, [Tensor("INPUT0", "BYTES", (2, 3), data)])
    assert answer.status == 200, answer.error
    assert (answer.outputs["OUTPUT0"], answer.shapes["OUTPUT0"]) == (data, [2, 3])
    with Region(server, 2 * len(data) + 11) as region:
        region.put(3, data)
        answer = infer(
            server,
            model,
            [Tensor("INPUT0", "BYTES", (2, 3), parameters=region.place(3, len(data)))],
            [{"name": "OUTPUT0", "parameters": region.place(len(data) + 7, len(data))}],
        )
        assert answer.status == 200, answer.error
        assert region.get(len(data) + 7, len(data)) == data
    with contextlib.closing(grpcclient.InferenceServerClient(server.grpc_url)) as client:
        tensor = grpcclient.InferInput("INPUT0", [2, 3], "BYTES")
        tensor.set_data_from_numpy(np.array(strings, dtype=np.object_).reshape(2, 3))
        back = client.infer(model, [tensor]).as_numpy("OUTPUT0")
    assert list(back.reshape(-1)) == strings


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        ("rank_1", (1,)),
        ("rank_1", (1000,)),
        ("type_FP32", (7, 9)),
        ("rank_8", (2, 1, 3, 1, 2, 2, 1, 5)),
        ("fixed", (2, 3)),
    ],
)
def test_every_shape_comes_back(server, model, shape):
    data = values("FP32", shape)
    assert echo(server, model, "FP32", data) == data.tobytes()


@pytest.mark.parametrize(
    ("model", "kind", "shape"),
    [
        ("rank_1", "FP32", (0,)),
        ("type_FP32", "FP32", (0, 5)),
        ("type_FP32", "FP32", (5, 0)),
        ("off_INT64", "INT64", (0, 0)),
        ("rank_8", "FP32", (2, 1, 3, 0, 2, 2, 1, 5)),
        ("type_BYTES", "BYTES", (0, 3)),
    ],
)
def test_tensors_without_elements_come_back(server, model, kind, shape):
    answer = infer(server, model, [Tensor("INPUT0", kind, shape, b"")])
    assert answer.status == 200, answer.error
    assert (answer.outputs["OUTPUT0"], answer.shapes["OUTPUT0"]) == (b"", list(shape))


def test_a_scalar_behind_a_reshape_comes_back(server):
    data = values("FP32", (3, 1))
    assert echo(server, "scalar", "FP32", data) == data.tobytes()


def test_outputs_belong_to_inputs_by_name_then_by_place(server):
    a, b, c = values("FP64", (5,)), values("INT8", (7,)), values("UINT16", (3,))
    inputs = [
        Tensor("INPUT_A", "FP64", a.shape, a.tobytes()),
        Tensor("INPUT_B", "INT8", b.shape, b.tobytes()),
        Tensor("THIRD", "UINT16", c.shape, c.tobytes()),
    ]
    answer = infer(server, "crossed", inputs)
    assert answer.outputs == {"OUTPUT_A": a.tobytes(), "OUTPUT_B": b.tobytes(), "LAST": c.tobytes()}
    answer = infer(server, "crossed", inputs, [{"name": "LAST", "parameters": {"binary_data": True}}])
    assert answer.outputs == {"LAST": c.tobytes()}


# --- bodies in pieces, floats at odd addresses -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["type", "off"])
@pytest.mark.parametrize("pieces", [(4093,), (1, 2, 3, 5, 7, 1021), (65537, 13)], ids=["prime", "tiny", "mixed"])
@pytest.mark.parametrize("kind", ["FP32", "FP64", "UINT8"])
def test_a_body_in_hundreds_of_odd_pieces_comes_back(server, kind, pieces, way):
    data = values(kind, (257, 1021))
    assert echo(server, f"{way}_{kind}", kind, data, pieces=pieces) == data.tobytes()


def test_a_body_in_pieces_is_copied_once_and_no_more(server):
    data = values("FP32", (257, 1021))
    before = server.metrics()
    assert echo(server, "type_FP32", "FP32", data, pieces=(4093,)) == data.tobytes()
    assert copied(server, before, "type_FP32", "in") in (0, data.nbytes)


def test_strings_in_pieces_come_back(server):
    data = serialized(STRINGS)
    answer = infer(server, "type_BYTES", [Tensor("INPUT0", "BYTES", (2, 3), data)], pieces=(997, 3, 1))
    assert (answer.status, answer.outputs.get("OUTPUT0")) == (200, data), answer.error


@pytest.mark.parametrize("padding", range(8))
def test_tensors_at_any_place_of_a_body_come_back(server, padding):
    first, second = values("FP64", (13,)), values("UINT16", (11,))
    odd = values("INT8", (7,))
    inputs = [
        Tensor("INPUT_B", "INT8", odd.shape, odd.tobytes()),  # 7 bytes: what follows lies at an odd address
        Tensor("INPUT_A", "FP64", first.shape, first.tobytes()),
        Tensor("THIRD", "UINT16", second.shape, second.tobytes()),
    ]
    answer = infer(server, "crossed", inputs, padding=padding)
    assert answer.outputs == {"OUTPUT_A": first.tobytes(), "OUTPUT_B": odd.tobytes(), "LAST": second.tobytes()}


@pytest.mark.parametrize("offset", [1, 2, 3, mmap.PAGESIZE - 1, mmap.PAGESIZE + 1])
@pytest.mark.parametrize("kind", ["FP32", "FP64", "INT32"])
def test_floats_at_odd_offsets_of_shared_memory_come_back(server, kind, offset):
    data = values(kind, (65, 67))
    target = offset + data.nbytes + 3
    model = f"type_{kind}"
    with Region(server, target + data.nbytes + 64) as region:
        region.bytes[:] = 0x5C
        region.put(offset, data.tobytes())
        before = server.metrics()
        answer = infer(
            server,
            model,
            [Tensor("INPUT0", kind, data.shape, parameters=region.place(offset, data.nbytes))],
            [{"name": "OUTPUT0", "parameters": region.place(target, data.nbytes)}],
        )
        assert answer.status == 200, answer.error
        assert region.get(target, data.nbytes) == data.tobytes()
        # Not a byte beside the output changed, and none was copied on the way.
        assert region.get(0, offset) == b"\x5c" * offset
        assert region.get(offset + data.nbytes, 3) == b"\x5c" * 3
        assert region.get(target + data.nbytes, 64) == b"\x5c" * 64
        assert copied(server, before, model, "in") == 0
        assert copied(server, before, model, "out") == 0


@pytest.mark.parametrize("shift", [0, 4, 400, 4096])
def test_an_output_over_its_own_input_is_right(server, shift):
    """Input and output overlap in the client's memory; the answer is as if they did not."""
    data = values("FP32", (4000,))
    with Region(server, data.nbytes + shift) as region:
        region.put(0, data.tobytes())
        answer = infer(
            server,
            "rank_1",
            [Tensor("INPUT0", "FP32", data.shape, parameters=region.place(0, data.nbytes))],
            [{"name": "OUTPUT0", "parameters": region.place(shift, data.nbytes)}],
        )
        assert answer.status == 200, answer.error
        assert region.get(shift, data.nbytes) == data.tobytes()


def test_big_tensors_come_back(server):
    data = values("FP32", (4096, 4096))  # 64 MiB
    with Region(server, 2 * data.nbytes) as region:
        region.put(0, data.tobytes())
        before = server.metrics()
        answer = infer(
            server,
            "type_FP32",
            [Tensor("INPUT0", "FP32", data.shape, parameters=region.place(0, data.nbytes))],
            [{"name": "OUTPUT0", "parameters": region.place(data.nbytes, data.nbytes)}],
        )
        assert answer.status == 200, answer.error
        assert np.array_equal(region.bytes[data.nbytes :], region.bytes[: data.nbytes])
        assert copied(server, before, "type_FP32", "in") == 0
        assert copied(server, before, "type_FP32", "out") == 0
    small = data[:1024]  # 16 MiB
    assert echo(server, "type_FP32", "FP32", small) == small.tobytes()


def test_touching_nothing_answers_with_the_right_size(server):
    data = values("FP32", (12345,))
    assert len(echo(server, "nothing", "FP32", data)) == data.nbytes


# --- batches and single failures -------------------------------------------------------------------------------------


def together(server: TritonServer, model: str, requests: Sequence[Tensor]) -> list[Answer]:
    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(lambda tensor: infer(server, model, [tensor]), requests))


def batches(server: TritonServer, before: Any, model: str) -> tuple[float, float]:
    now = server.metrics().since(before)
    return now.value("nv_inference_count", model=model), now.value("nv_inference_exec_count", model=model)


def test_requests_of_a_batch_get_their_own_answers(server):
    before = server.metrics()
    sent = [values("FP32", (1 + i % 3, 1000)) for i in range(16)]
    got = together(server, "batch", [Tensor("INPUT0", "FP32", a.shape, a.tobytes()) for a in sent])
    assert [a.outputs.get("OUTPUT0") for a in got] == [a.tobytes() for a in sent]
    rows, executions = batches(server, before, "batch")
    assert rows == sum(len(a) for a in sent)
    assert executions < len(sent), "nothing was batched, so nothing was tested"


def test_requests_of_unequal_shape_share_no_batch_but_are_answered(server):
    sent = [values("FP32", (1, 10 + i % 4)) for i in range(12)]
    got = together(server, "batch", [Tensor("INPUT0", "FP32", a.shape, a.tobytes()) for a in sent])
    assert [a.outputs.get("OUTPUT0") for a in got] == [a.tobytes() for a in sent]


def test_strings_of_a_batch_get_their_own_answers(server):
    sent = [[b"%d-%d" % (i, j) * (i + j) for j in range(2 * (1 + i % 2))] for i in range(10)]
    got = together(
        server,
        "batch_strings",
        [Tensor("INPUT0", "BYTES", (len(s) // 2, 2), serialized(s)) for s in sent],
    )
    assert [a.outputs.get("OUTPUT0") for a in got] == [serialized(s) for s in sent]


def test_one_failing_request_of_a_batch_fails_alone(server):
    before = server.metrics()
    sent = [values("FP32", (1, 500)) for _ in range(24)]
    got = together(server, "fail_every_3", [Tensor("INPUT0", "FP32", a.shape, a.tobytes()) for a in sent])
    failed = [a for a in got if a.status != 200]
    assert len(failed) == 8
    assert all("fail_every" in a.error for a in failed)
    assert all(a.outputs["OUTPUT0"] == s.tobytes() for a, s in zip(got, sent, strict=True) if a.status == 200)
    _, executions = batches(server, before, "fail_every_3")
    assert executions < len(sent), "nothing was batched, so nothing was tested"
    now = server.metrics().since(before)
    assert now.value("nv_inference_request_failure", model="fail_every_3") == 8
    assert now.value("nv_inference_request_success", model="fail_every_3") == 16


def test_batches_over_shared_memory_are_right_and_uncopied_in_neighbouring_slots(server):
    count, floats = 8, 64 * 1024
    sent = values("FP32", (count, floats))
    slot = floats * 4
    with Region(server, 2 * count * slot) as region:
        region.put(0, sent.tobytes())

        def ask(i: int) -> Answer:
            return infer(
                server,
                "batch",
                [Tensor("INPUT0", "FP32", (1, floats), parameters=region.place(i * slot, slot))],
                [{"name": "OUTPUT0", "parameters": region.place((count + i) * slot, slot)}],
            )

        before = server.metrics()
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            got = list(pool.map(ask, [3, 7, 0, 5, 1, 6, 2, 4]))
        assert [a.status for a in got] == [200] * count
        assert region.get(count * slot, count * slot) == sent.tobytes()
        assert batches(server, before, "batch")[1] < count, "nothing was batched, so nothing was tested"
        assert copied(server, before, "batch", "in") == 0
        assert copied(server, before, "batch", "out") == 0


# --- what cannot be answered ------------------------------------------------------------------------------------------

GOOD = np.arange(6, dtype=np.float32)


@pytest.mark.parametrize(
    ("model", "tensors", "said"),
    [
        ("rank_1", [Tensor("INPUT0", "INT32", (6,), GOOD.tobytes())], "INT32"),
        ("rank_1", [Tensor("INPUT0", "FP33", (6,), GOOD.tobytes())], ""),
        ("rank_1", [Tensor("INPUT0", "FP32", (2, 3), GOOD.tobytes())], "shape"),
        ("rank_1", [Tensor("INPUT0", "FP32", (), GOOD.tobytes()[:4])], "shape"),
        ("fixed", [Tensor("INPUT0", "FP32", (3, 2), GOOD.tobytes())], "shape"),
        ("fixed", [Tensor("INPUT0", "FP32", (2, -3), GOOD.tobytes())], ""),
        ("rank_1", [Tensor("INPUT0", "FP32", (-6,), GOOD.tobytes())], ""),
        ("rank_1", [Tensor("INPUT0", "FP32", (-1,), GOOD.tobytes())], ""),
        ("rank_1", [Tensor("INPUT0", "FP32", (5,), GOOD.tobytes())], "byte"),
        ("rank_1", [Tensor("INPUT0", "FP32", (7,), GOOD.tobytes())], "byte"),
        ("rank_1", [Tensor("INPUT0", "FP32", (0,), GOOD.tobytes())], "byte"),
        ("rank_1", [Tensor("INPUT0", "FP32", (6,), b"")], ""),
        ("rank_1", [Tensor("INPUT0", "FP32", (6,), GOOD.tobytes()[:-1])], "byte"),
        ("rank_1", [Tensor("INPUT0", "FP32", (2**62,), GOOD.tobytes())], ""),
        ("rank_1", [Tensor("INPUT0", "FP32", (2**63 - 1,), GOOD.tobytes())], ""),
        ("type_FP32", [Tensor("INPUT0", "FP32", (2**32, 2**32), GOOD.tobytes())], ""),
        ("type_FP32", [Tensor("INPUT0", "FP32", (2**33, 2**31), b"")], ""),
        ("type_FP32", [Tensor("INPUT0", "FP32", (2**40, 0), GOOD.tobytes())], ""),
        ("rank_1", [], "INPUT0"),
        ("rank_1", [Tensor("INPUT1", "FP32", (6,), GOOD.tobytes())], "INPUT"),
        (
            "rank_1",
            [Tensor("INPUT0", "FP32", (6,), GOOD.tobytes()), Tensor("MORE", "FP32", (6,), GOOD.tobytes())],
            "",
        ),
        (
            "rank_1",
            [Tensor("INPUT0", "FP32", (6,), GOOD.tobytes()), Tensor("INPUT0", "FP32", (6,), GOOD.tobytes())],
            "",
        ),
        ("batch", [Tensor("INPUT0", "FP32", (9, 2), GOOD.tobytes() * 3)], "batch"),
        ("batch", [Tensor("INPUT0", "FP32", (6,), GOOD.tobytes())], "shape"),
        ("no_such_model", [Tensor("INPUT0", "FP32", (6,), GOOD.tobytes())], "no_such_model"),
        ("bad_mode", [Tensor("INPUT0", "FP32", (6,), GOOD.tobytes())], "bad_mode"),
        # Strings whose lengths are lies
        ("type_BYTES", [Tensor("INPUT0", "BYTES", (1, 1), b"\x05\x00\x00\x00abc")], ""),
        ("type_BYTES", [Tensor("INPUT0", "BYTES", (1, 2), b"\x03\x00\x00\x00abc")], ""),
        ("type_BYTES", [Tensor("INPUT0", "BYTES", (1, 1), b"\x03\x00\x00\x00abcd")], ""),
        ("type_BYTES", [Tensor("INPUT0", "BYTES", (1, 1), b"\xff\xff\xff\xff")], ""),
        ("type_BYTES", [Tensor("INPUT0", "BYTES", (1, 1), b"\x01\x00")], ""),
        ("batch_strings", [Tensor("INPUT0", "BYTES", (2, 2), b"\x05\x00\x00\x00abc")], ""),
    ],
)
def test_a_request_that_cannot_be_is_refused_in_words(server, model, tensors, said):
    answer = infer(server, model, tensors)
    assert 400 <= answer.status < 600
    assert said.lower() in answer.error.lower()
    assert len(answer.error) > 10
    assert "0x" not in answer.error


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"inputs": 3}', b'{"inputs": [{"name": 7}]}', b"\xff\xfe"])
def test_a_header_that_is_none_is_refused(server, text):
    assert infer(server, "rank_1", [], raw_header=text).status >= 400


def test_an_unknown_output_is_refused(server):
    answer = infer(server, "rank_1", [Tensor("INPUT0", "FP32", (6,), GOOD.tobytes())], [{"name": "NONE"}])
    assert answer.status == 400
    assert "NONE" in answer.error


def test_an_absent_optional_input_is_named(server):
    data = values("FP32", (6,))
    both = [Tensor(f"INPUT{i}", "FP32", (6,), data.tobytes()) for i in range(2)]
    answer = infer(server, "optional", both)
    assert answer.outputs == {"OUTPUT0": data.tobytes(), "OUTPUT1": data.tobytes()}
    answer = infer(server, "optional", both[:1])
    assert answer.status >= 400
    assert "INPUT1" in answer.error
    answer = infer(server, "optional", both[:1], [{"name": "OUTPUT0", "parameters": {"binary_data": True}}])
    assert answer.outputs == {"OUTPUT0": data.tobytes()}


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 20), (0, 28), (4096 - 8, 24), (4096, 24), (2**63 - 8, 24), (2**64 - 24, 24)]
)
def test_a_place_outside_of_shared_memory_is_refused(server, offset, size):
    with Region(server, 4096) as region:
        answer = infer(server, "rank_1", [Tensor("INPUT0", "FP32", (6,), parameters=region.place(offset, size))])
        assert answer.status >= 400


def test_an_output_that_does_not_fit_its_place_is_refused(server):
    with Region(server, 4096) as region:
        answer = infer(
            server,
            "rank_1",
            [Tensor("INPUT0", "FP32", (6,), GOOD.tobytes())],
            [{"name": "OUTPUT0", "parameters": region.place(0, 20)}],
        )
        assert answer.status >= 400
        assert region.get(0, 4096) == b"\0" * 4096


@pytest.mark.parametrize("name", list(BROKEN))
def test_a_configuration_that_cannot_be_is_refused_in_words(server, name):
    assert server.model_state(name) == "UNAVAILABLE"
    assert BROKEN[name][1] in server.model_reason(name)


# --- one library, one budget, one set of counters ---------------------------------------------------------------------

ADD_ONE = """
__kernel void add_one(__global const float *in, __global float *out) {
    size_t i = get_global_id(0);
    out[i] = in[i] + 1.0f;
}
"""


def two_backends(repository: Path) -> None:
    write(repository, "echo", one("FP32", "-1"))
    description = {
        "function": "add_one",
        "arguments": [{"input": "INPUT0"}, {"output": "OUTPUT0"}],
        "global_size": ["INPUT0[0]"],
        "outputs": {"OUTPUT0": ["INPUT0[0]"]},
    }
    text = one("FP32", "-1", parameters={"kernel": json.dumps(description), "unified_memory": '{"enable": false}'})
    write(repository, "add", text.replace("umo_identity", "umo_kernel"))
    (repository / "add" / "1" / "model.cl").write_text(ADD_ONE)


def test_two_backends_are_bound_by_one_budget(tmp_path):
    two_backends(tmp_path)
    budget = {"budget_bytes": str(40 << 20)}
    big = RNG.random(4 << 20, dtype=np.float32)  # 16 MiB
    small = np.arange(1000, dtype=np.float32)
    both = {"umo_identity": budget, "umo_kernel": budget}
    with TritonServer(tmp_path, backend_config=both, explicit=True) as server:
        # Two tensors of 16 MiB on a device, kept for the next request.
        server.load("add")
        server.load("echo")
        answer = infer(server, "add", [Tensor("INPUT0", "FP32", big.shape, big.tobytes())])
        assert answer.outputs.get("OUTPUT0") == (big + np.float32(1)).tobytes(), answer.error
        assert server.metrics().value("umo_live_bytes", model="add") >= 2 * big.nbytes
        # A body in pieces is gathered into memory of umo's: there is room when the other backend's idle memory goes.
        assert echo(server, "echo", "FP32", big, pieces=(65537,)) == big.tobytes()
        # What passes the budget with nothing beside it is refused.
        huge = RNG.random(11 << 20, dtype=np.float32)
        answer = infer(server, "echo", [Tensor("INPUT0", "FP32", huge.shape, huge.tobytes())], pieces=(65537,))
        assert answer.status >= 400, "no budget"
        assert "limit" in answer.error.lower() or "budget" in answer.error.lower()
        assert echo(server, "echo", "FP32", small, pieces=(1001,)) == small.tobytes()
        # Both backends' models are series of the same families.
        models = {s.labels["model"] for s in server.metrics().select("umo_live_bytes")}
        assert {"echo", "add"} <= models


def test_two_backends_cannot_ask_for_two_budgets(tmp_path):
    two_backends(tmp_path)
    with TritonServer(
        tmp_path,
        allow_failing=True,
        backend_config={
            "umo_identity": {"budget_bytes": str(40 << 20)},
            "umo_kernel": {"budget_bytes": str(50 << 20)},
        },
    ) as server:
        states = {name: server.model_state(name) for name in ("echo", "add")}
        assert sorted(states.values()) == ["READY", "UNAVAILABLE"], server.log()[-2000:]
        loser = next(name for name, state in states.items() if state == "UNAVAILABLE")
        assert "budget_bytes" in server.model_reason(loser)
