"""Requests of unequal lengths in one batch, on the real server: each client gets its own part back, and the numbers
that the kit makes of the batch (batch_input) fit together over all of it.

umo_identity answers OUTPUTx with INPUTx, so that a batch input comes back as an output, a number a request. A model of
ONNX Runtime uses the others as models do: it sums each request between the offsets that it is given.
"""

from __future__ import annotations

import concurrent.futures
import mmap
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from onnx import TensorProto
from tritonclient.utils import InferenceServerException

from umo.models import onnx_graph
from umo.server import TritonServer

LENGTHS = [7, 1, 4096, 300, 0, 19, 1000, 2]
# What comes back a number a request, its kind and its type.
NUMBERS = {
    "COUNT": ("BATCH_ELEMENT_COUNT", "INT32"),
    "COUNT_FLOAT": ("BATCH_ELEMENT_COUNT", "FP32"),
    "SUM": ("BATCH_ACCUMULATED_ELEMENT_COUNT", "INT32"),
    "ITEM": ("BATCH_ITEM_SHAPE_FLATTEN", "INT32"),
}


def config(name: str, *, ragged: bool = True, unified: str = "{}", batching: bool = True) -> str:
    scatter = (
        'batch_output [ { target_name: "OUTPUT0" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "INPUT0" } ]\n'
    )
    text = (
        f'name: "{name}"\nbackend: "umo_identity"\nmax_batch_size: 16\n'
        f'input [ {{ name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: {str(ragged).lower()} }} ]\n'
        'output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
        f'parameters {{ key: "unified_memory" value {{ string_value: "{unified}" }} }}\n'
    )
    if batching:
        text += "dynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: [ 8 ] }\n"
    if ragged:
        text += scatter
    for key, (kind, dtype) in NUMBERS.items():
        text += (
            f'batch_input [ {{ kind: {kind} target_name: "INPUT_{key}" data_type: TYPE_{dtype} '
            'source_input: "INPUT0" } ]\n'
            f'output [ {{ name: "OUTPUT_{key}" data_type: TYPE_{dtype} dims: [ 1 ] reshape: {{ shape: [] }} }} ]\n'
        )
    # Not one number a request: nothing is answered with them.
    for kind in ("BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO", "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE", "BATCH_ITEM_SHAPE"):
        text += (
            f'batch_input [ {{ kind: {kind} target_name: "X_{kind}" data_type: TYPE_INT32 source_input: "INPUT0" }} ]\n'
        )
    return text


SUMS = """name: "sums"
backend: "umo_onnxruntime"
max_batch_size: 16
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [] } } ]
output [ { name: "MOST" data_type: TYPE_INT64 dims: [ 1 ] reshape: { shape: [] } } ]
batch_input [ { kind: BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO target_name: "OFFSETS" data_type: TYPE_INT32
                source_input: "X" } ]
batch_input [ { kind: BATCH_MAX_ELEMENT_COUNT_AS_SHAPE target_name: "LONGEST" data_type: TYPE_FP32
                source_input: "X" } ]
batch_output [ { target_name: "Y" kind: BATCH_SCATTER_WITH_INPUT_SHAPE source_input: "X" } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
dynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: [ 8 ] }
"""


def sums_model() -> onnx_graph.Graph:
    """Y = 2 X; SUM of X between two offsets, one a request; MOST, the length of the longest request, for each."""
    g = onnx_graph.Graph("sums")
    g.input("X", onnx_graph.FLOAT, ["n"])
    g.input("OFFSETS", TensorProto.INT32, ["offsets"])
    g.input("LONGEST", onnx_graph.FLOAT, ["longest"])
    g.op("Add", "X", "X", to="Y")
    zero = g.constant(np.zeros(1, "f4"))
    sums = g.op("Concat", zero, g.op("CumSum", "X", g.constant(np.array(0, "i8"))), axis=0)
    at = g.op("Gather", sums, "OFFSETS", axis=0)
    first, second, last, end = (g.constant(np.array([n], "i8")) for n in (0, 1, -1, 1 << 30))
    ends, starts = g.op("Slice", at, second, end), g.op("Slice", at, first, last)
    g.op("Sub", ends, starts, to="SUM")
    g.op("Expand", g.op("Shape", "LONGEST"), g.op("Shape", "SUM"), to="MOST")
    g.output("Y", onnx_graph.FLOAT, ["n"])
    g.output("SUM", onnx_graph.FLOAT, ["requests"])
    g.output("MOST", onnx_graph.INT64, ["requests"])
    return g


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository: Path = tmp_path_factory.mktemp("models")
    for name, text in {
        "ragged": config("ragged"),
        "ragged_off": config("ragged_off", unified='{\\"enable\\": false}'),
        "equal": config("equal", ragged=False),
        "bad_source": config("bad_source").replace(
            'source_input: "INPUT0" } ]\noutput', 'source_input: "NO" } ]\noutput', 1
        ),
        "bad_type": config("bad_type").replace("TYPE_INT32 source", "TYPE_INT64 source", 1),
    }.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text)
    (repository / "sums" / "1").mkdir(parents=True)
    (repository / "sums" / "config.pbtxt").write_text(SUMS)
    onnx_graph.save(sums_model().model(), repository / "sums" / "1" / "model.onnx")
    with TritonServer(repository, allow_failing=True) as running:
        states = {entry["name"]: entry.get("state") for entry in running.index()}
        assert {name for name, state in states.items() if state == "READY"} == {
            "ragged",
            "ragged_off",
            "equal",
            "sums",
        }, running.log()[-3000:]
        yield running
        assert running.running, "the server died under the tests"


@contextmanager
def client_of(server: TritonServer) -> Iterator[grpcclient.InferenceServerClient]:
    client = grpcclient.InferenceServerClient(server.grpc_url)
    try:
        yield client
    finally:
        client.close()


@dataclass
class Region:
    name: str
    map: mmap.mmap

    def array(self, count: int, offset: int) -> np.ndarray:
        return np.frombuffer(self.map, "f4", count, offset)


@contextmanager
def region_of(server: TritonServer, size: int) -> Iterator[Region]:
    """A segment that the server knows; unlinked at once, as umo.client does it."""
    name = f"umo-test-{os.getpid()}-{secrets.token_hex(4)}"
    path = Path("/dev/shm") / name
    path.touch()
    os.truncate(path, size)
    try:
        with path.open("r+b") as file, client_of(server) as client:
            client.register_system_shared_memory(name, f"/{name}", size)
            yield Region(name, mmap.mmap(file.fileno(), size))
    finally:
        path.unlink()


def copied(server: TritonServer, model: str) -> float:
    return sum(s.value for s in server.metrics().select("umo_copy_bytes_total", model=model))


@dataclass
class Answer:
    data: np.ndarray
    numbers: dict[str, float]


def ask(
    server: TritonServer, model: str, values: np.ndarray, region: Region | None = None, at: int = 0, to: int = 0
) -> Answer:
    """One request of one row; its bytes go by gRPC, or lie in a region already."""
    with client_of(server) as client:
        given = grpcclient.InferInput("INPUT0", [1, len(values)], "FP32")
        wanted = [grpcclient.InferRequestedOutput("OUTPUT0")]
        if region is None:
            given.set_data_from_numpy(values.reshape(1, -1))
        else:
            given.set_shared_memory(region.name, values.nbytes, at)
            wanted[0].set_shared_memory(region.name, values.nbytes, to)
        wanted += [grpcclient.InferRequestedOutput(f"OUTPUT_{key}") for key in NUMBERS]
        result = client.infer(model, [given], outputs=wanted)
        data = result.as_numpy("OUTPUT0") if region is None else region.array(len(values), to).copy()
        numbers = {key: float(result.as_numpy(f"OUTPUT_{key}").ravel()[0]) for key in NUMBERS}
        return Answer(data.ravel(), numbers)


def executions(server: TritonServer, model: str) -> int:
    with client_of(server) as client:
        return int(client.get_inference_statistics(model).model_stats[0].execution_count)


def numbers_fit(answers: list[Answer]) -> None:
    """Sums of a batch are a chain: each is a neighbour's sum and its own count. Several batches are several chains."""
    sums = {0.0} | {a.numbers["SUM"] for a in answers}
    for answer in answers:
        count = len(answer.data)
        assert answer.numbers["COUNT"] == answer.numbers["COUNT_FLOAT"] == answer.numbers["ITEM"] == count
        assert answer.numbers["SUM"] - count in sums


def ask_together(server: TritonServer, model: str, values: list[np.ndarray], **more: object) -> list[Answer]:
    places = more.get("places") or [(0, 0)] * len(values)
    region = more.get("region")
    with concurrent.futures.ThreadPoolExecutor(len(values)) as pool:
        jobs = [
            pool.submit(ask, server, model, v, region, at, to)  # type: ignore[arg-type]
            for v, (at, to) in zip(values, places, strict=True)  # type: ignore[call-overload]
        ]
        return [job.result() for job in jobs]


@pytest.mark.parametrize("model", ["ragged", "ragged_off"])
def test_unequal_requests_share_a_batch_and_get_their_own_parts(server: TritonServer, model: str) -> None:
    rng = np.random.default_rng(3)
    best = len(LENGTHS)
    for _ in range(6):
        values = [rng.standard_normal(length).astype("f4") for length in LENGTHS]
        before = executions(server, model)
        answers = ask_together(server, model, values)
        best = min(best, executions(server, model) - before)
        for answer, sent in zip(answers, values, strict=True):
            assert (answer.data == sent).all() and answer.data.shape == sent.shape
        numbers_fit(answers)
        if best == 1:
            break
    assert best < len(LENGTHS), "no batch of unequal requests was ever formed"


def test_a_single_request_is_a_batch_like_any_other(server: TritonServer) -> None:
    values = np.arange(33, dtype="f4")
    answer = ask(server, "ragged", values)
    assert (answer.data == values).all()
    assert answer.numbers == {"COUNT": 33, "COUNT_FLOAT": 33, "SUM": 33, "ITEM": 33}


def test_a_ragged_batch_in_neighbouring_slots_is_not_copied(server: TritonServer) -> None:
    rng = np.random.default_rng(4)
    sizes = np.array(LENGTHS) * 4
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    with region_of(server, 1 << 20) as region:
        target = 1 << 19
        best = None
        for _ in range(6):
            values = [rng.standard_normal(length).astype("f4") for length in LENGTHS]
            order = list(rng.permutation(len(LENGTHS)))
            for i, v in enumerate(values):
                region.array(len(v), int(starts[i]))[...] = v
            before = copied(server, "ragged")
            places = [(int(starts[i]), target + int(starts[i])) for i in order]
            answers = ask_together(server, "ragged", [values[i] for i in order], region=region, places=places)
            for answer, i in zip(answers, order, strict=True):
                assert (answer.data == values[i]).all()
            numbers_fit(answers)
            # The numbers' own answers go over gRPC, apart from each other: 4 bytes each.
            moved = copied(server, "ragged") - before - 4 * len(NUMBERS) * len(LENGTHS)
            best = moved if best is None else min(best, moved)
            if best <= 0:
                break
            time.sleep(0.05)
        assert best is not None and best <= 0


def sums_of(server: TritonServer, values: np.ndarray) -> tuple[float, int]:
    with client_of(server) as client:
        given = grpcclient.InferInput("X", [1, len(values)], "FP32")
        given.set_data_from_numpy(values.reshape(1, -1))
        result = client.infer("sums", [given])
        assert (result.as_numpy("Y").ravel() == 2 * values).all()
        return float(result.as_numpy("SUM").ravel()[0]), int(result.as_numpy("MOST").ravel()[0])


def test_an_engine_finds_each_request_by_its_offsets(server: TritonServer) -> None:
    rng = np.random.default_rng(5)
    lengths = set()
    for _ in range(4):
        values = [rng.integers(0, 100, length).astype("f4") for length in LENGTHS]
        with concurrent.futures.ThreadPoolExecutor(len(values)) as pool:
            answers = list(pool.map(lambda v: sums_of(server, v), values))
        for (total, most), sent in zip(answers, values, strict=True):
            assert total == sent.sum()
            assert most >= len(sent) and most in LENGTHS
            lengths.add(most - len(sent))
    assert lengths != {0}, "no request was ever in a batch with a longer one"


def test_without_the_permission_unequal_requests_run_apart(server: TritonServer) -> None:
    values = [np.arange(n, dtype="f4") for n in (3, 5, 3)]
    answers = ask_together(server, "equal", values)
    for answer, sent in zip(answers, values, strict=True):
        assert (answer.data == sent).all()


def test_clients_cannot_send_what_the_kit_makes(server: TritonServer) -> None:
    with client_of(server) as client:
        given = grpcclient.InferInput("INPUT0", [1, 2], "FP32")
        given.set_data_from_numpy(np.zeros((1, 2), "f4"))
        forged = grpcclient.InferInput("INPUT_COUNT", [1], "INT32")
        forged.set_data_from_numpy(np.array([99], "i4"))
        with pytest.raises(InferenceServerException, match="INPUT_COUNT|expected 1 inputs"):
            client.infer("ragged", [given, forged])


@pytest.mark.parametrize(("model", "words"), [("bad_source", "NO"), ("bad_type", "TYPE_INT32 or TYPE_FP32")])
def test_a_bad_batch_input_is_named_at_load(server: TritonServer, model: str, words: str) -> None:
    assert words in server.model_reason(model)
