"""Weights in place behind the real server: what instances, models and versions share, and what happens to the files.

Every answer is compared with the engine alone, bit for bit: a weight that is read from the wrong place shows there.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tritonclient.http as httpclient
from onnx import TensorProto, helper, numpy_helper
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from umo.models.onnx_graph import FLOAT, INT64, Graph
from umo.server import ServerError, TritonServer

WIDE = 2048
WEIGHT_BYTES = 2 * WIDE * WIDE * 4
SHARED = "of a session that was there already"


def parameters(values: Mapping[str, str]) -> str:
    return "".join(f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in values.items())


def write_config(folder: Path, instances: int = 1, **values: str) -> None:
    values.setdefault("intra_op_thread_count", "1")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.pbtxt").write_text(
        f'backend: "umo_onnxruntime"\ninstance_group [ {{ kind: KIND_CPU count: {instances} }} ]\n{parameters(values)}'
    )


def put(repository: Path, name: str, model: onnx.ModelProto, instances: int = 1, **values: str) -> Path:
    """Adds a model; returns its file."""
    write_config(repository / name, instances, **values)
    file = repository / name / "1" / "model.onnx"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(model.SerializeToString())
    return file


def link(repository: Path, name: str, file: Path, instances: int = 1, **values: str) -> None:
    """Adds a model of the same file."""
    write_config(repository / name, instances, **values)
    (repository / name / "1").mkdir(parents=True, exist_ok=True)
    os.link(file, repository / name / "1" / "model.onnx")


def wide(seed: int) -> onnx.ModelProto:
    """X [1, 2048] -> Y: a table that is read in place, and a product whose weights the engine packs; 32 MiB in all."""
    rng = np.random.default_rng(seed)
    g = Graph("wide")
    g.input("X", FLOAT, [1, WIDE])
    g.input("ROW", INT64, [1])
    table = g.constant(rng.standard_normal((WIDE, WIDE), np.float32), "table")
    weight = g.constant(rng.standard_normal((WIDE, WIDE), np.float32), "weight")
    g.op("Add", g.op("MatMul", "X", weight), g.op("Gather", table, "ROW"), to="Y")
    g.output("Y", FLOAT, [1, WIDE])
    return g.model()


def product(seed: int) -> onnx.ModelProto:
    """X [n, 64] -> Y, of 16 KiB."""
    g = Graph("product")
    g.input("X", FLOAT, ["n", 64])
    g.op("MatMul", "X", g.constant(np.random.default_rng(seed).standard_normal((64, 64), np.float32), "W"), to="Y")
    g.output("Y", FLOAT, ["n", 64])
    return g.model()


WIDE_INPUTS = {"X": np.random.default_rng(5).standard_normal((1, WIDE), np.float32), "ROW": np.array([77], np.int64)}
INPUTS = {"X": np.random.default_rng(6).standard_normal((2, 64), np.float32)}


def alone(model: onnx.ModelProto | Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"]).run(["Y"], inputs)[0]


def ask(server: TritonServer, name: str, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    with httpclient.InferenceServerClient(server.http_url, network_timeout=60) as client:
        fed = []
        for key, array in inputs.items():
            tensor = httpclient.InferInput(key, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            fed.append(tensor)
        return client.infer(name, fed, outputs=[httpclient.InferRequestedOutput("Y")]).as_numpy("Y")


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.shape == expected.shape
    assert got.tobytes() == expected.tobytes()


# glibc keeps up to 64 MB that are free at the top of a thread's arena, which malloc_trim() does not reach, once it has
# seen a large block given back: how much of them depends on which thread loads what. Mapped blocks just go.
MAPS_LARGE_BLOCKS = {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1048576"}


def pss_bytes(server: TritonServer) -> int:
    """PSS of the server's process: mapped files included, each page once."""
    for line in Path(f"/proc/{server.pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no Pss")


def held_bytes(server: TritonServer) -> int:
    """What is left when what is idle has been given back, which waits for a processor on a busy machine."""
    least, since = pss_bytes(server), time.monotonic()
    while time.monotonic() - since < 1.0:
        now = pss_bytes(server)
        if now < least:
            least, since = now, time.monotonic()
        time.sleep(0.05)
    return least


class Place:
    """A running server and its repository; each test has names of its own, and sees only what the log said since."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.server = TritonServer(repository, explicit=True, env=MAPS_LARGE_BLOCKS)
        self.server.start()
        self.mark()

    def mark(self) -> None:
        self._seen = len(self.server.log())

    def said(self) -> str:
        return self.server.log()[self._seen :]


@pytest.fixture(scope="module")
def common(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    place = Place(tmp_path_factory.mktemp("models"))
    yield place
    end_well(place.server)


@pytest.fixture
def place(common: Place) -> Place:
    common.mark()
    return common


def end_well(server: TritonServer) -> None:
    """With everything still loaded: what is shared is given back in an order that nobody planned."""
    assert server.stop() == 0


# --- what is shared -------------------------------------------------------------------------------------------------


def gather_many(server: TritonServer, names: list[str], expected: np.ndarray) -> None:
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for got in pool.map(lambda i: ask(server, names[i % len(names)], WIDE_INPUTS), range(16)):
            assert_same(got, expected)


@pytest.mark.parametrize("sessions", ["shared", "apart"])
def test_four_instances_hold_the_weights_of_one(place: Place, sessions: str) -> None:
    values = {"share_session": "true" if sessions == "shared" else "false"}
    file = put(place.repository, f"one_{sessions}", wide(4), **values)
    link(place.repository, f"four_{sessions}", file, instances=4, **values)
    expected = alone(file, WIDE_INPUTS)
    held = {}
    for name in (f"one_{sessions}", f"four_{sessions}"):
        before = held_bytes(place.server)
        place.server.load(name)
        gather_many(place.server, [name], expected)
        held[name[:3]] = held_bytes(place.server) - before
        place.server.unload(name)
    # One has at least what is packed of its product, and three more had as much again.
    assert held["one"] > WEIGHT_BYTES * 3 // 8
    assert held["fou"] - held["one"] < WEIGHT_BYTES // 4


@pytest.mark.parametrize("kind", ["linked", "copied"])
def test_four_models_hold_the_weights_of_one(place: Place, kind: str) -> None:
    names = [f"{kind}_{turn}" for turn in range(4)]
    file = put(place.repository, names[0], wide(5 if kind == "linked" else 6))
    for name in names[1:]:
        if kind == "linked":
            link(place.repository, name, file)
        else:
            shutil.copytree(place.repository / names[0], place.repository / name)
    expected = alone(file, WIDE_INPUTS)
    place.server.load(names[0])
    gather_many(place.server, names[:1], expected)
    one = held_bytes(place.server)
    for name in names[1:]:
        place.server.load(name)
    gather_many(place.server, names, expected)
    assert held_bytes(place.server) - one < WEIGHT_BYTES // 4
    assert place.said().count(SHARED) == 3
    # Whoever brought the weights may go.
    place.server.unload(names[0])
    gather_many(place.server, [names[1], names[3]], expected)


def test_models_that_load_at_startup_load_once(tmp_path: Path) -> None:
    file = put(tmp_path, "model_0", wide(2), instances=2)
    for turn in range(1, 6):
        link(tmp_path, f"model_{turn}", file)
    put(tmp_path, "broken", product(1)).write_bytes(b"\x3a\x05broken")
    with TritonServer(tmp_path, allow_failing=True) as server:
        expected = alone(file, WIDE_INPUTS)
        gather_many(server, [f"model_{turn}" for turn in range(6)], expected)
        assert server.log().count(SHARED) == 5
        assert server.model_state("broken") != "READY"
        end_well(server)


def test_versions_of_one_file_share_it(tmp_path: Path) -> None:
    file = put(tmp_path, "model", product(3))
    (tmp_path / "model" / "2").mkdir()
    os.link(file, tmp_path / "model" / "2" / "model.onnx")
    with (tmp_path / "model" / "config.pbtxt").open("a") as config:
        config.write("version_policy: { all { } }\n")
    with TritonServer(tmp_path) as server:
        assert_same(ask(server, "model", INPUTS), alone(file, INPUTS))
        assert server.log().count(SHARED) == 1
        end_well(server)


def test_switched_off_every_model_has_its_own(place: Place) -> None:
    file = put(place.repository, "own_0", product(3), share_weights="false")
    link(place.repository, "own_1", file, share_weights="false")
    for name in ("own_0", "own_1"):
        place.server.load(name)
        assert_same(ask(place.server, name, INPUTS), alone(file, INPUTS))
    assert SHARED not in place.said()
    assert place.said().count("0 weights (0 bytes) in place") == 2


# --- what becomes of the files --------------------------------------------------------------------------------------


def test_replaced_file_is_what_a_reload_loads(place: Place) -> None:
    server = place.server
    file = put(place.repository, "renewed", product(1))
    link(place.repository, "steady", file)
    server.load("renewed")
    server.load("steady")
    old = alone(file, INPUTS)
    for turn in range(2, 5):
        fresh = file.with_name("fresh.onnx")
        fresh.write_bytes(product(turn).SerializeToString())
        fresh.replace(file)
        if turn % 2 == 0:
            server.unload("renewed")
        server.load("renewed")
        assert_same(ask(server, "renewed", INPUTS), alone(file, INPUTS))
        assert_same(ask(server, "steady", INPUTS), old)


def test_file_written_to_in_place_is_told_and_not_served(place: Place) -> None:
    server = place.server
    file = put(place.repository, "written", product(21))
    server.load("written")
    assert_same(ask(server, "written", INPUTS), alone(file, INPUTS))
    time.sleep(0.05)  # the file system's clock ticks
    changed = product(22)
    with file.open("r+b") as opened:
        opened.write(changed.SerializeToString())
    with pytest.raises(InferenceServerException, match=r"was written to while it is in use: load it again"):
        ask(server, "written", INPUTS)
    server.load("written")
    assert_same(ask(server, "written", INPUTS), alone(changed, INPUTS))
    os.truncate(file, 100)
    with pytest.raises(InferenceServerException, match=r"was cut short while it is in use"):
        ask(server, "written", INPUTS)
    file.unlink()
    put(place.repository, "written", changed)
    server.load("written")
    assert_same(ask(server, "written", INPUTS), alone(changed, INPUTS))


def test_model_that_does_not_load_leaves_the_others_alone(place: Place) -> None:
    file = put(place.repository, "good", product(31))
    bad = product(31)
    bad.graph.node[0].op_type = "NoSuchOperator"
    put(place.repository, "bad", bad, instances=3)
    place.server.load("good")
    for _ in range(3):
        with pytest.raises(ServerError, match="NoSuchOperator"):
            place.server.load("bad")
        assert_same(ask(place.server, "good", INPUTS), alone(file, INPUTS))


# --- which weights --------------------------------------------------------------------------------------------------


def typed(kind: type) -> onnx.ModelProto:
    """X [n, 64] times or plus a constant of that type, back to float."""
    g = Graph("typed")
    g.input("X", FLOAT, ["n", 64])
    values = np.random.default_rng(2).integers(0, 2 if kind is np.bool_ else 100, (64, 64)).astype(kind)
    g.op("MatMul", "X", g.cast(g.constant(values, "W"), FLOAT), to="Y")
    g.output("Y", FLOAT, ["n", 64])
    return g.model()


def quantised() -> onnx.ModelProto:
    """A product in 8 bits, as quantisers write it."""
    rng = np.random.default_rng(4)
    g = Graph("quantised")
    g.input("X", FLOAT, ["n", 64])
    g.nodes.append(helper.make_node("DynamicQuantizeLinear", ["X"], ["XQ", "XS", "XZ"]))
    weight = g.constant(rng.integers(-127, 127, (64, 64)).astype(np.int8), "W")
    zero = g.constant(np.int8(0), "WZ")
    whole = g.cast(g.op("MatMulInteger", "XQ", weight, "XZ", zero), FLOAT)
    g.op("Mul", whole, "XS", to="Y")
    g.output("Y", FLOAT, ["n", 64])
    return g.model()


def convolved() -> onnx.ModelProto:
    """Weights that the engine folds, fuses and lays out anew: Conv, a scale, a bias."""
    rng = np.random.default_rng(7)
    g = Graph("convolved")
    g.input("X", FLOAT, ["n", 64])
    image = g.op("Reshape", "X", g.constant(np.array([-1, 16, 2, 2], np.int64), "shape"))
    made = g.op("Conv", image, g.constant(rng.standard_normal((32, 16, 3, 3), np.float32), "K"), pads=[1, 1, 1, 1])
    made = g.op("Mul", made, g.constant(rng.standard_normal((32, 1, 1), np.float32), "scale"))
    made = g.op("Relu", g.op("Add", made, g.constant(rng.standard_normal((32, 1, 1), np.float32), "bias")))
    g.op("Reshape", made, g.constant(np.array([-1, 128], np.int64), "flat"), to="Y")
    g.output("Y", FLOAT, ["n", 128])
    return g.model()


def shadowed() -> onnx.ModelProto:
    """A branch with a constant of its own that has the outer one's name."""
    rng = np.random.default_rng(8)
    outer, inner = rng.standard_normal((64, 64), np.float32), rng.standard_normal((64, 64), np.float32)

    def branch(name: str, weights: list[onnx.TensorProto]) -> onnx.GraphProto:
        node = helper.make_node("MatMul", ["X", "W"], [name])
        return helper.make_graph([node], name, [], [helper.make_tensor_value_info(name, FLOAT, None)], weights)

    own = [numpy_helper.from_array(inner, "W")]
    nodes = [
        helper.make_node("ReduceSum", ["X"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["positive"]),
        helper.make_node("If", ["positive"], ["Z"], then_branch=branch("t", own), else_branch=branch("e", own)),
        helper.make_node("MatMul", ["X", "W"], ["V"]),
        helper.make_node("Add", ["Z", "V"], ["Y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "shadowed",
        [helper.make_tensor_value_info("X", FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("Y", FLOAT, ["n", 64])],
        [numpy_helper.from_array(outer, "W"), numpy_helper.from_array(np.float32(0), "zero")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def listed_as_input(version: int) -> onnx.ModelProto:
    """A constant that the graph lists as an input too: overridable, or how old exporters wrote all of them."""
    model = product(9)
    model.graph.input.append(helper.make_tensor_value_info("W", FLOAT, [64, 64]))
    model.ir_version = version
    return model


def not_raw() -> onnx.ModelProto:
    """Weights in the typed field."""
    model = product(10)
    weight = model.graph.initializer[0]
    values = numpy_helper.to_array(weight)
    weight.ClearField("raw_data")
    weight.float_data.extend(values.ravel().tolist())
    return model


WEIGHTS: dict[str, tuple[Callable[[], onnx.ModelProto], int]] = {
    **{kind.__name__: ((lambda kind=kind: typed(kind)), 1) for kind in (np.float16, np.float64, np.int32, np.int64)},
    **{kind.__name__: ((lambda kind=kind: typed(kind)), 1) for kind in (np.uint8, np.int16, np.bool_)},
    "quantised": (quantised, 1),
    "convolved": (convolved, 1),
    "shadowed": (shadowed, 0),
    "overridable": (lambda: listed_as_input(8), 1),
    "old_form": (lambda: listed_as_input(3), 1),
    "not_raw": (not_raw, 0),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_every_kind_give_the_engines_own_answer(place: Place, name: str) -> None:
    make, in_place = WEIGHTS[name]
    model = make()
    put(place.repository, name, model)
    place.server.load(name)
    assert_same(ask(place.server, name, INPUTS), alone(model, INPUTS))
    assert f"; {in_place} weights (" in place.said()


# --- external data --------------------------------------------------------------------------------------------------


def outside(model: onnx.ModelProto, location: str, offset: int = 0) -> onnx.ModelProto:
    """The same model with its weights in another file."""
    weight = model.graph.initializer[0]
    length = len(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    return model


def test_external_data_is_shared_by_models_that_differ(place: Place) -> None:
    server = place.server
    whole = wide(3)
    raw = whole.graph.initializer[0].raw_data
    expected = alone(whole, WIDE_INPUTS)
    first = put(place.repository, "first", outside(wide(3), "weights/w.bin", 12))
    data = first.parent / "weights" / "w.bin"
    data.parent.mkdir()
    data.write_bytes(b"x" * 12 + raw)
    other = wide(3)
    other.graph.name = "another"
    second = put(place.repository, "second", outside(other, "w.bin", 12))
    os.link(data, second.parent / "w.bin")
    server.load("first")
    assert_same(ask(server, "first", WIDE_INPUTS), expected)
    one = held_bytes(server)
    server.load("second")
    assert_same(ask(server, "second", WIDE_INPUTS), expected)
    # The table is there already; the second's own file holds the product.
    assert held_bytes(server) - one < WEIGHT_BYTES * 5 // 8
    assert SHARED not in place.said()


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("../w.bin", "lies outside of the model's folder"),
        ("/etc/hostname", "lies outside of the model's folder"),
        ("a/../../w.bin", "lies outside of the model's folder"),
        ("none.bin", r"could not load model\.onnx"),
        ("short.bin", r"could not load model\.onnx"),
    ],
)
def test_external_data_that_is_not_the_models_is_refused(place: Place, location: str, words: str) -> None:
    name = "refused_" + re.sub(r"\W", "_", location)
    file = put(place.repository, name, outside(product(1), location))
    (place.repository / name / "w.bin").write_bytes(bytes(1 << 15))
    (file.parent / "short.bin").write_bytes(bytes(100))
    with pytest.raises(ServerError, match=words):
        place.server.load(name)


# --- a kernel's weights ---------------------------------------------------------------------------------------------

KERNEL = """
__kernel void scale(__global const float *x, __global const float *w, __global float *y)
{
    size_t i = get_global_id(0);
    y[i] = x[i] * w[i];
}
"""


def put_kernel(repository: Path, name: str, enable: bool, **weights: Any) -> Path:
    """Adds a kernel X * weights -> Y of 64 floats; returns the folder of its version."""
    kernel = {
        "file": "model.cl",
        "function": "scale",
        "arguments": [{"input": "X"}, {"weights": "w.bin", "dtype": "FP32", "dims": [64], **weights}, {"output": "Y"}],
        "global_size": [64],
    }
    tensor = '{{ name: "{}" data_type: TYPE_FP32 dims: [ 64 ] }}'
    values = {"kernel": json.dumps(kernel), "unified_memory": json.dumps({"enable": enable})}
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version / "model.cl").write_text(KERNEL)
    (repository / name / "config.pbtxt").write_text(
        f'backend: "umo_kernel"\nmax_batch_size: 0\ninput [ {tensor.format("X")} ]\noutput [ {tensor.format("Y")} ]\n'
        + "".join(
            f"parameters {{ key: {json.dumps(k)} value {{ string_value: {json.dumps(v)} }} }}\n"
            for k, v in values.items()
        )
    )
    return version


@pytest.mark.parametrize("enable", [True, False])
def test_kernels_read_their_weights_out_of_one_file(place: Place, enable: bool) -> None:
    weights = np.random.default_rng(3).standard_normal(1000, np.float32)
    x = np.random.default_rng(4).standard_normal(64, np.float32)
    names = [f"scale_{turn}_{enable}".lower() for turn in range(2)]
    first = put_kernel(place.repository, names[0], enable, offset=400)
    (first / "w.bin").write_bytes(weights.tobytes())
    second = put_kernel(place.repository, names[1], enable, offset=0)
    os.link(first / "w.bin", second / "w.bin")
    for name, start in ((names[0], 100), (names[1], 0)):
        place.server.load(name)
        assert_same(ask(place.server, name, {"X": x}), x * weights[start : start + 64])
    place.server.unload(names[0])
    assert_same(ask(place.server, names[1], {"X": x}), x * weights[:64])


def test_kernel_whose_weights_are_too_short_is_refused(place: Place) -> None:
    version = put_kernel(place.repository, "short", True, offset=8)
    (version / "w.bin").write_bytes(bytes(256))
    with pytest.raises(ServerError, match=r"weights 'w.bin': the file has 256 bytes, too few for 256 at offset 8"):
        place.server.load("short")
