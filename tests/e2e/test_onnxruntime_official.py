"""What the official onnxruntime backend offers, item by item, with umo_onnxruntime in its place on the real server.

The list of items and their tests is in triton/backends/onnxruntime/README.md; those about data, errors, configuration
and the engine's library are in test_onnxruntime.py.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
import tritonclient.utils.shared_memory as shm
from onnx import TensorProto, helper
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from umo.models.onnx_graph import FLOAT, INT64, Graph
from umo.server import ServerError, TritonServer, default_backend_directory, find_tritonserver

STRING = TensorProto.STRING
CACHE = 16 << 20


# --- models ---------------------------------------------------------------------------------------------------------


def segments() -> onnx.ModelProto:
    """X [n] of several requests, ENDS [b] -> TOTAL [b, 1], each request's sum; TWICE [n] = 2 X."""
    g = Graph("segments")
    g.input("X", FLOAT, ["n"])
    g.input("ENDS", FLOAT, ["b"])
    sums = g.op("CumSum", "X", g.constant(0, dtype=np.int64))
    last = g.op("Sub", g.cast("ENDS", INT64), g.constant(1, dtype=np.int64))
    until = g.op("Gather", sums, last)
    before = g.op("Concat", g.constant([0], dtype=np.float32), until, axis=0)
    all_but_last = g.op("Slice", before, g.constant([0], dtype=np.int64), g.constant([-1], dtype=np.int64))
    g.op("Unsqueeze", g.op("Sub", until, all_but_last), g.constant([1], dtype=np.int64), to="TOTAL")
    g.op("Add", "X", "X", to="TWICE")
    g.output("TOTAL", FLOAT, ["b", 1])
    g.output("TWICE", FLOAT, ["n"])
    return g.model()


SEGMENTS = """
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] allow_ragged_batch: true } ]
batch_input [ { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "ENDS" data_type: TYPE_FP32 source_input: "X" } ]
output [ { name: "TOTAL" data_type: TYPE_FP32 dims: [ 1 ] }, { name: "TWICE" data_type: TYPE_FP32 dims: [ -1 ] } ]
batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "TWICE" source_input: "X" } ]
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 300000 }
"""

BATCH_INPUTS = (
    "BATCH_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    "BATCH_ITEM_SHAPE",
    "BATCH_ITEM_SHAPE_FLATTEN",
)


def batch_kinds() -> onnx.ModelProto:
    """One input of every kind that the kit makes, each handed out as [1, k]; the one that is a shape, as its shape."""
    g = Graph("batch_kinds")
    g.input("X", FLOAT, ["n"])
    for kind in BATCH_INPUTS:
        rank = 2 if kind == "BATCH_ITEM_SHAPE" else 1
        g.input(kind, FLOAT, [f"{kind}_{d}" for d in range(rank)])
    row = g.op("Concat", g.op("Shape", BATCH_INPUTS[0]), g.constant([-1], dtype=np.int64), axis=0)
    for kind in BATCH_INPUTS:
        value = g.cast(g.op("Shape", kind), FLOAT) if kind.endswith("AS_SHAPE") else kind
        g.op("Reshape", value, row, to=f"OUT_{kind}")
        g.output(f"OUT_{kind}", FLOAT, ["b", "k"])
    return g.model()


BATCH_KINDS = (
    "max_batch_size: 4\n"
    'input [ { name: "X" data_type: TYPE_FP32 dims: [ -1, -1 ] allow_ragged_batch: true } ]\n'
    + "".join(
        f'batch_input {{ kind: {kind} target_name: "{kind}" data_type: TYPE_FP32 source_input: "X" }}\n'
        f'output {{ name: "OUT_{kind}" data_type: TYPE_FP32 dims: [ -1 ] }}\n'
        for kind in BATCH_INPUTS
    )
)


def accumulator() -> onnx.ModelProto:
    """A running sum, told by START when to begin; SUM is an output and a state, COUNT a state alone.

    X, START, END, READY, CORRID [b, 1] -> SUM, SEEN (how many came before), ENDED, READY_WAS, WHO.
    """
    g = Graph("accumulator")
    g.input("X", FLOAT, ["b", 1])
    for control in ("START", "END", "READY"):
        g.input(control, TensorProto.INT32, ["b", 1])
    g.input("CORRID", TensorProto.UINT64, ["b", 1])
    g.input("SUM_IN", FLOAT, ["b", 1])
    g.input("COUNT_IN", INT64, ["b", 1])
    begins = g.cast("START", TensorProto.BOOL)
    before = g.op("Where", begins, g.constant([[0]], dtype=np.float32), "SUM_IN")
    seen = g.op("Where", begins, g.constant([[0]], dtype=np.int64), "COUNT_IN")
    g.op("Add", before, "X", to="SUM")
    g.op("Add", seen, g.constant([[1]], dtype=np.int64), to="COUNT_OUT")
    g.op("Identity", seen, to="SEEN")
    g.op("Identity", "END", to="ENDED")
    g.op("Identity", "READY", to="READY_WAS")
    g.op("Identity", "CORRID", to="WHO")
    for name, kind in (
        ("SUM", FLOAT),
        ("COUNT_OUT", INT64),
        ("SEEN", INT64),
        ("ENDED", TensorProto.INT32),
        ("READY_WAS", TensorProto.INT32),
        ("WHO", TensorProto.UINT64),
    ):
        g.output(name, kind, ["b", 1])
    return g.model()


def control(name: str, kind: str, values: str) -> str:
    return f'control_input {{ name: "{name}" control [ {{ kind: CONTROL_SEQUENCE_{kind} {values} }} ] }}\n'


FALSE_TRUE = "int32_false_true: [ 0, 1 ]"
ACCUMULATOR = f"""
max_batch_size: 4
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 1 ] }} ]
output [
  {{ name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] }}, {{ name: "SEEN" data_type: TYPE_INT64 dims: [ 1 ] }},
  {{ name: "ENDED" data_type: TYPE_INT32 dims: [ 1 ] }}, {{ name: "READY_WAS" data_type: TYPE_INT32 dims: [ 1 ] }},
  {{ name: "WHO" data_type: TYPE_UINT64 dims: [ 1 ] }} ]
sequence_batching {{
  max_sequence_idle_microseconds: 10000000
  direct {{ }}
  {control("START", "START", FALSE_TRUE)} {control("END", "END", FALSE_TRUE)} {control("READY", "READY", FALSE_TRUE)}
  {control("CORRID", "CORRID", "data_type: TYPE_UINT64")}
  state [
    {{ input_name: "SUM_IN" output_name: "SUM" data_type: TYPE_FP32 dims: [ 1 ] }},
    {{ input_name: "COUNT_IN" output_name: "COUNT_OUT" data_type: TYPE_INT64 dims: [ 1 ] }} ]
}}
"""


def remembering() -> onnx.ModelProto:
    """WORD string [b, 1] -> BEFORE, the sequence's previous word: a state of strings."""
    g = Graph("remembering")
    g.input("WORD", STRING, ["b", 1])
    g.input("LAST_IN", STRING, ["b", 1])
    g.op("Identity", "WORD", to="LAST_OUT")
    g.op("Identity", "LAST_IN", to="BEFORE")
    g.output("LAST_OUT", STRING, ["b", 1])
    g.output("BEFORE", STRING, ["b", 1])
    return g.model()


REMEMBERING = """
max_batch_size: 4
input [ { name: "WORD" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "BEFORE" data_type: TYPE_STRING dims: [ 1 ] } ]
sequence_batching {
  max_sequence_idle_microseconds: 10000000
  oldest { max_candidate_sequences: 4 }
  state [ { input_name: "LAST_IN" output_name: "LAST_OUT" data_type: TYPE_STRING dims: [ 1 ]
            initial_state: { name: "first" data_type: TYPE_STRING dims: [ 1 ] zero_data: true } } ]
}
"""


def shouting() -> onnx.ModelProto:
    """TEXT string [n] of several requests, ENDS [b] -> LAST [b, 1], each request's last one in capitals."""
    g = Graph("shouting")
    g.input("TEXT", STRING, ["n"])
    g.input("ENDS", FLOAT, ["b"])
    upper = g.op("StringNormalizer", "TEXT", case_change_action="UPPER", is_case_sensitive=1, locale="C")
    last = g.op("Sub", g.cast("ENDS", INT64), g.constant(1, dtype=np.int64))
    g.op("Unsqueeze", g.op("Gather", upper, last), g.constant([1], dtype=np.int64), to="LAST")
    g.output("LAST", STRING, ["b", 1])
    return g.model()


def doubling(dims: Sequence[int | str] = ("b", "n")) -> onnx.ModelProto:
    g = Graph("doubling")
    g.input("X", FLOAT, dims)
    g.op("Add", "X", "X", to="Y")
    g.output("Y", FLOAT, dims)
    return g.model()


def powers(count: int) -> onnx.ModelProto:
    """X [n, n] -> Y, multiplied with itself count times: as long as one likes, and interruptible."""
    g = Graph("powers")
    g.input("X", FLOAT, ["n", "n"])
    value = "X"
    for i in range(count):
        value = g.op("MatMul", value, "X", to="Y" if i == count - 1 else None)
    g.output("Y", FLOAT, ["n", "n"])
    return g.model()


def places() -> onnx.ModelProto:
    """X [5] -> WHERE [1, k], where it is not zero."""
    g = Graph("places")
    g.input("X", FLOAT, [5])
    g.op("NonZero", "X", to="WHERE")
    g.output("WHERE", INT64, [1, "k"])
    return g.model()


def custom() -> onnx.ModelProto:
    """X [n] -> Y = 3 X, by an operator of a library."""
    graph = helper.make_graph(
        [helper.make_node("Triple", ["X"], ["Y"], domain="umo.test")],
        "custom",
        [helper.make_tensor_value_info("X", FLOAT, ["n"])],
        [helper.make_tensor_value_info("Y", FLOAT, ["n"])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("umo.test", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def weighted() -> onnx.ModelProto:
    """X [b, 64] -> Y = X W, W of 16 KB."""
    g = Graph("weighted")
    g.input("X", FLOAT, ["b", 64])
    g.op("MatMul", "X", g.constant(np.eye(64, dtype=np.float32) * 5, "W"), to="Y")
    g.output("Y", FLOAT, ["b", 64])
    return g.model()


DOUBLING = """
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""
SQUARE = """
max_batch_size: 0
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1, -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1, -1 ] } ]
"""
LINE = """
max_batch_size: 0
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
"""
STRINGS = """
max_batch_size: 8
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ -1 ] allow_ragged_batch: true } ]
batch_input [ { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "ENDS" data_type: TYPE_FP32 source_input: "TEXT" } ]
output [ { name: "LAST" data_type: TYPE_STRING dims: [ 1 ] } ]
dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 300000 }
"""
STATISTICS = DOUBLING + "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 300000 }\n"
MODELS: dict[str, tuple[onnx.ModelProto, str]] = {
    "segments": (segments(), SEGMENTS),
    "batch_kinds": (batch_kinds(), BATCH_KINDS),
    "accumulator": (accumulator(), ACCUMULATOR),
    "remembering": (remembering(), REMEMBERING),
    "shouting": (shouting(), STRINGS),
    "cached": (doubling(), DOUBLING + "response_cache { enable: true }\n"),
    "counted": (doubling(), STATISTICS),
    "long": (powers(30), SQUARE),
    "custom": (custom(), LINE + 'model_operations { op_library_filename: [ "libumo_test_op.so" ] }\n'),
    "sequential": (doubling(), DOUBLING + 'parameters { key: "execution_mode" value { string_value: "0" } }\n'),
    "parallel": (doubling(), DOUBLING + 'parameters { key: "execution_mode" value { string_value: "1" } }\n'),
    "three": (
        weighted(),
        'parameters { key: "share_session_between_instances" value { string_value: "false" } }\n'
        "instance_group [ { kind: KIND_CPU count: 3 } ]\n",
    ),
}


def add(repository: Path, name: str, model: onnx.ModelProto | None, text: str) -> Path:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    if model is not None:
        onnx.save(model, folder / "model.onnx")
    group = "" if "instance_group" in text else "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    (repository / name / "config.pbtxt").write_text(f'backend: "umo_onnxruntime"\n{group}{text}')
    return repository / name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("official")
    for name, (model, text) in MODELS.items():
        add(repository, name, model, text)
    library = default_backend_directory().parent / "tests" / "libumo_test_op.so"
    (repository / "custom" / library.name).write_bytes(library.read_bytes())
    caches = find_tritonserver().parent.parent / "caches"
    cache = [f"--cache-config=local,size={CACHE}", f"--cache-directory={caches}"]
    with TritonServer(
        repository,
        explicit=True,
        load_models=MODELS,
        extra_args=cache,
        backend_config={"umo_onnxruntime": {"intra_op_thread_count": "1"}},
    ) as running:
        running.repository = repository
        yield running


# --- asking ---------------------------------------------------------------------------------------------------------


def ask(server: TritonServer, model: str, inputs: Mapping[str, np.ndarray], **more: Any) -> dict[str, np.ndarray]:
    with contextlib.closing(httpclient.InferenceServerClient(server.http_url, network_timeout=120)) as client:
        asked = []
        for name, array in inputs.items():
            tensor = httpclient.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            asked.append(tensor)
        answer = client.infer(model, asked, **more)
        said = [e for e in answer.get_response()["outputs"] if "data" in e or e.get("parameters")]
        return {entry["name"]: answer.as_numpy(entry["name"]) for entry in said}


def ask_together(server: TritonServer, model: str, requests: Sequence[Mapping[str, np.ndarray]]) -> list[Any]:
    """Sends all at the same moment; an error is an answer too."""
    gate = threading.Barrier(len(requests))

    def one(inputs: Mapping[str, np.ndarray]) -> Any:
        gate.wait(30)
        try:
            return ask(server, model, inputs)
        except InferenceServerException as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(len(requests)) as pool:
        return list(pool.map(one, requests))


def statistics(server: TritonServer, model: str) -> dict[str, Any]:
    with contextlib.closing(httpclient.InferenceServerClient(server.http_url)) as client:
        return client.get_inference_statistics(model)["model_stats"][0]


def floats(*values: float) -> np.ndarray:
    return np.array([values], np.float32)


def texts(*values: str) -> np.ndarray:
    return np.array([[value.encode() for value in values]], np.object_)


# --- batching -------------------------------------------------------------------------------------------------------


def test_ragged_requests_meet_in_one_batch_and_each_gets_its_own(server: TritonServer) -> None:
    rows = [floats(1, 2, 3), floats(10), floats(4, 4), floats(*range(100))]
    before = statistics(server, "segments")["execution_count"]
    answers = ask_together(server, "segments", [{"X": row} for row in rows])
    assert statistics(server, "segments")["execution_count"] == before + 1, "the four did not meet in one batch"
    for row, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(answer["TOTAL"], [[row.sum()]])
        np.testing.assert_array_equal(answer["TWICE"], 2 * row)


def test_every_kind_of_batch_input_arrives(server: TritonServer) -> None:
    x = np.ones((1, 3, 4), np.float32)
    answer = ask(server, "batch_kinds", {"X": x})
    expected = {
        "BATCH_ELEMENT_COUNT": [12],
        "BATCH_ACCUMULATED_ELEMENT_COUNT": [12],
        "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO": [0, 12],
        "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE": [12],
        "BATCH_ITEM_SHAPE": [3, 4],
        "BATCH_ITEM_SHAPE_FLATTEN": [3, 4],
    }
    for kind, values in expected.items():
        np.testing.assert_array_equal(answer[f"OUT_{kind}"], [values], kind)


def test_ragged_strings_go_back_to_their_requests(server: TritonServer) -> None:
    rows = [texts("one", "two"), texts("three"), texts("", "x" * 3000, "four"), texts("five")]
    answers = ask_together(server, "shouting", [{"TEXT": row} for row in rows])
    for row, answer in zip(rows, answers, strict=True):
        assert not isinstance(answer, Exception), answer
        assert answer["LAST"].item().decode() == row[0, -1].decode().upper()


# --- sequences ------------------------------------------------------------------------------------------------------


def steps(count: int) -> Iterator[tuple[int, dict[str, bool]]]:
    return ((i, {"sequence_start": i == 0, "sequence_end": i == count - 1}) for i in range(count))


def test_controls_and_states_of_a_sequence_reach_the_model(server: TritonServer) -> None:
    total = np.float32(0)
    for i, flags in steps(5):
        total += i + 1
        answer = ask(server, "accumulator", {"X": floats(i + 1)}, sequence_id=77, **flags)
        assert answer["SUM"].item() == total  # an output that is also a state
        assert answer["SEEN"].item() == i
        assert answer["ENDED"].item() == (i == 4)
        assert answer["READY_WAS"].item() == 1
        assert answer["WHO"].item() == 77


def test_sequences_that_run_together_keep_their_states_apart(server: TritonServer) -> None:
    def run(which: int) -> list[float]:
        sums = []
        for i, flags in steps(6):
            x = floats(which * (i + 1))
            sums.append(ask(server, "accumulator", {"X": x}, sequence_id=1000 + which, **flags)["SUM"].item())
        return sums

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(run, range(1, 5)))
    assert found == [[float(w * n) for n in (1, 3, 6, 10, 15, 21)] for w in range(1, 5)]


def test_new_sequence_of_an_old_number_starts_afresh(server: TritonServer) -> None:
    for _ in range(2):
        first = ask(server, "accumulator", {"X": floats(5)}, sequence_id=9, sequence_start=True)
        last = ask(server, "accumulator", {"X": floats(1)}, sequence_id=9, sequence_end=True)
        assert (first["SUM"].item(), last["SUM"].item(), last["SEEN"].item()) == (5, 6, 1)


def test_state_of_strings_is_kept(server: TritonServer) -> None:
    words = ["first", "", "a longer word " * 300, "last"]
    found = []
    for i, flags in steps(len(words)):
        answer = ask(server, "remembering", {"WORD": texts(words[i])}, sequence_id=5, **flags)
        found.append(answer["BEFORE"].item().decode())
    assert found == ["", *words[:-1]]


def test_states_and_controls_are_not_taken_for_inputs_when_a_configuration_is_completed(server: TritonServer) -> None:
    text = ACCUMULATOR.replace(ACCUMULATOR[ACCUMULATOR.index("input [") : ACCUMULATOR.index("sequence_batching")], "")
    add(server.repository, "completed", accumulator(), text)
    server.load("completed")
    with contextlib.closing(httpclient.InferenceServerClient(server.http_url)) as client:
        made = client.get_model_config("completed")
    assert [entry["name"] for entry in made["input"]] == ["X"]
    # A state is the client's to see only where the configuration lists it as an output, too.
    assert {entry["name"] for entry in made["output"]} == {"SEEN", "ENDED", "READY_WAS", "WHO"}
    for i, flags in steps(3):
        assert ask(server, "completed", {"X": floats(3)}, sequence_id=3, **flags)["SEEN"].item() == i


def test_control_that_the_model_lacks_stops_the_load(server: TritonServer) -> None:
    text = DOUBLING + f"sequence_batching {{ direct {{ }} {control('START', 'START', FALSE_TRUE)} }}\n"
    add(server.repository, "no_control", doubling(), text)
    with pytest.raises(ServerError, match="no input 'START'"):
        server.load("no_control")


# --- files ----------------------------------------------------------------------------------------------------------


def test_operators_of_a_library_are_computed(server: TritonServer) -> None:
    x = np.arange(7, dtype=np.float32)
    np.testing.assert_array_equal(ask(server, "custom", {"X": x})["Y"], 3 * x)


def test_folder_with_external_data_and_a_name_of_ones_own_are_served(server: TritonServer) -> None:
    folder = add(server.repository, "outside", None, 'default_model_filename: "net.onnx"\n') / "1" / "net.onnx"
    folder.mkdir()
    onnx.save(weighted(), folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (folder / "weights.bin").stat().st_size >= 64 * 64 * 4
    folder = add(server.repository, "renamed", None, 'default_model_filename: "other.onnx"\n') / "1"
    onnx.save(weighted(), folder / "other.onnx")
    x = np.random.default_rng(2).random((2, 64), np.float32)
    for name in ("outside", "renamed"):
        server.load(name)
        np.testing.assert_allclose(ask(server, name, {"X": x})["Y"], 5 * x, 1e-5)


# --- the server's own features --------------------------------------------------------------------------------------

WARMUP = """
max_batch_size: 0
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ 5 ] }} ]
output [ {{ name: "WHERE" data_type: TYPE_INT64 dims: [ 1, -1 ] }} ]
model_warmup [ {{ name: "w" batch_size: 1 inputs {{ key: "X" value {{ data_type: TYPE_FP32 dims: [ 5 ] {data} }} }} }} ]
"""


def test_warm_up_runs_with_zero_random_and_file_data(server: TritonServer) -> None:
    # The places that are not zero come out, so the bytes that were copied tell which data was there.
    counts = {"zero_data: true": 0, "random_data: true": 5, 'input_data_file: "data"': 3}
    for i, (data, count) in enumerate(counts.items()):
        folder = add(server.repository, f"warm_{i}", places(), WARMUP.format(data=data))
        (folder / "warmup").mkdir()
        np.array([1, 0, 2, 0, 3], np.float32).tofile(folder / "warmup" / "data")
        server.load(f"warm_{i}")
        copied = server.metrics().value("umo_copy_bytes_total", model=f"warm_{i}", reason="unknown_shape")
        assert copied == 8 * count, data


def test_cached_answer_is_the_computed_one(server: TritonServer) -> None:
    x = np.random.default_rng(1).random((2, 5), np.float32)
    size = x.nbytes
    name = f"umo-official-{secrets.token_hex(4)}"
    handle = shm.create_shared_memory_region(name, "/" + name, size)
    with contextlib.closing(httpclient.InferenceServerClient(server.http_url)) as client:
        client.register_system_shared_memory(name, "/" + name, size)
        try:
            placed = httpclient.InferRequestedOutput("Y", binary_data=True)
            placed.set_shared_memory(name, size)
            for asked in (None, [placed], None, [placed]):
                shm.set_shared_memory_region(handle, [np.zeros_like(x)])
                answer = ask(server, "cached", {"X": x}, outputs=asked)
                found = answer.get("Y", shm.get_contents_as_numpy(handle, np.float32, x.shape))
                np.testing.assert_array_equal(found, 2 * x)
        finally:
            client.unregister_system_shared_memory(name)
            shm.destroy_shared_memory_region(handle)
    stats = statistics(server, "cached")
    assert stats["inference_stats"]["cache_hit"]["count"] >= 2
    assert stats["execution_count"] <= 2


def test_requests_and_batches_are_counted(server: TritonServer) -> None:
    answers = ask_together(server, "counted", [{"X": floats(i, i)} for i in range(4)])
    assert [a["Y"].tolist() for a in answers] == [[[2 * i, 2 * i]] for i in range(4)]
    with pytest.raises(InferenceServerException):
        ask(server, "counted", {"X": np.ones((1, 2, 2), np.float32)})
    stats = statistics(server, "counted")
    assert stats["inference_stats"]["success"]["count"] == 4
    assert stats["inference_count"] == 4
    assert stats["execution_count"] == 1
    assert [(b["batch_size"], b["compute_infer"]["count"]) for b in stats["batch_stats"]] == [(4, 1)]


def test_both_execution_modes_compute(server: TritonServer) -> None:
    for name in ("sequential", "parallel"):
        assert ask(server, name, {"X": floats(1, 2)})["Y"].tolist() == [[2, 4]]


def test_instances_without_a_common_session_answer(server: TritonServer) -> None:
    x = np.random.default_rng(3).random((1, 64), np.float32)
    for answer in ask_together(server, "three", [{"X": x}] * 6):
        np.testing.assert_allclose(answer["Y"], 5 * x, 1e-5)
    assert "one session an instance" in server.log()


def test_run_that_its_client_gave_up_makes_way_for_the_next(server: TritonServer) -> None:
    def request(n: int) -> grpcclient.InferInput:
        tensor = grpcclient.InferInput("X", [n, n], "FP32")
        return tensor.set_data_from_numpy(np.zeros((n, n), np.float32))

    with contextlib.closing(grpcclient.InferenceServerClient(server.grpc_url)) as client:
        start = time.monotonic()
        client.infer("long", [request(768)])
        whole = time.monotonic() - start
        done: list[Any] = []
        call = client.async_infer("long", [request(768)], lambda result, error: done.append(error))
        time.sleep(min(0.2, whole / 4))
        start = time.monotonic()
        call.cancel()
        client.infer("long", [request(2)])
        waited = time.monotonic() - start
    assert waited < 0.6 * whole, f"{waited:.2f} s of {whole:.2f} s: the run went on"
