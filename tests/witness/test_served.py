"""The witnesses on the real server: each sees what it is for, and is blind where its description says so."""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from umo.prove import (
    LARGE_BYTES,
    Classifier,
    ProvedServer,
    describe,
    failures,
    make_inputs,
    observe,
    page_failures,
)
from umo.prove.traffic import TensorSpec, TrafficError, differences, shape_for

MIB = 1 << 20
SIZE = 8 * MIB
PAGE = os.sysconf("SC_PAGESIZE")


@pytest.fixture(scope="module")
def served(repository: Path, backends: Path) -> Iterator[ProvedServer]:
    with ProvedServer(repository, backends) as server:
        yield server


def seen(served: ProvedServer, model: str, **options):
    spec = describe(model, served.http_url)
    census = served.census.why_unavailable() is None
    return {o.transport: o for o in observe(served, spec, size_bytes=SIZE, census=census, **options)}


def test_the_spy_counts_a_copying_backends_bytes_exactly(served):
    found = seen(served, "copying")
    for transport, one in found.items():
        assert (one.bytes_in, one.bytes_out) == (SIZE, SIZE)
        assert one.wrong == ()
        assert one.copied["backend"] == 2 * SIZE, transport
        assert failures(one) == [f"{transport}, batch 1: the backend copied {2 * SIZE} bytes a request"]
    # Over shared memory nobody else copies; a message is copied by the server itself.
    assert found["shm"].copied["server"] == 0
    assert 0.9 * SIZE < found["http"].copied["server"] < 1.1 * SIZE
    assert 1.9 * SIZE < found["grpc"].copied["server"] < 2.1 * SIZE


def test_batches_are_counted_too(served):
    one = seen(served, "copying_batched", batch=4, transports=("shm",))["shm"]
    assert one.bytes_in == SIZE
    assert one.copied["backend"] == 2 * SIZE
    assert one.wrong == ()


def test_tensors_of_every_kind_are_asked_and_compared(served):
    spec = describe("mixed", served.http_url)
    data = make_inputs(spec, batch=1, size_bytes=MIB, dims={})
    right = {"OA": data["A"], "OB": data["B"], "OC": data["C"], "OD": data["D"]}
    found = observe(served, spec, inputs=data, expected=right, census=False, requests=1)
    assert [one.transport for one in found] == ["shm", "http", "grpc"]
    for one in found:
        assert one.wrong == ()
        assert one.bytes_in == one.bytes_out
        assert one.copied["backend"] + one.small["backend"] >= 2 * one.bytes_in


def test_a_backend_that_touches_nothing_passes_the_spy_and_the_census(served):
    found = seen(served, "null", verify=False)
    for transport, one in found.items():
        assert one.copied["backend"] == 0, transport
        assert one.small["backend"] < LARGE_BYTES
        assert failures(one) == []
    one = found["shm"]
    if one.census is None:
        pytest.skip("no census on this machine")
    assert one.pages_outside is not None
    assert one.pages_outside < 256
    assert page_failures(one) == []


def test_hidden_copies_pass_the_spy_but_not_the_census(served):
    one = seen(served, "sneaky", transports=("shm",))["shm"]
    assert one.wrong == ()
    assert one.copied["backend"] == 0
    assert failures(one) == []
    if one.census is None:
        pytest.skip("no census on this machine")
    # the copied input, in a block of the backend's own
    assert one.pages_outside is not None
    assert SIZE // PAGE <= one.pages_outside < SIZE // PAGE + 256
    assert len(page_failures(one)) == 1


def test_what_the_server_dirties_by_itself_is_taken_off(served):
    if served.census.why_unavailable() is not None:
        pytest.skip("no census on this machine")
    floor = describe("null", served.http_url)
    options = {"floor": floor, "requests": 8, "transports": ("shm",), "verify": False}
    nothing = seen(served, "null", **options)["shm"]
    assert nothing.pages_floor and nothing.pages_over_floor is not None
    assert nothing.pages_over_floor < 48
    hidden = seen(served, "sneaky", **options)["shm"]
    assert hidden.pages_over_floor in range(SIZE // PAGE - 48, SIZE // PAGE + 48)
    assert page_failures(nothing, max_pages=48) == []
    assert "on top of the server's own" in page_failures(hidden, max_pages=48)[0]


def test_the_census_sees_the_outputs_where_they_belong(served):
    one = seen(served, "copying", transports=("shm",), requests=1)["shm"]
    if one.census is None:
        pytest.skip("no census on this machine")
    assert one.pages_by_kind["shared"] == SIZE // PAGE


def test_an_answer_that_is_not_written_shows(served):
    spec = describe("null", served.http_url)
    data = make_inputs(spec, batch=1, size_bytes=MIB, dims={})
    right = {"OUT": data["IN"]}
    (one,) = observe(
        served,
        spec,
        inputs=data,
        expected=right,
        transports=("shm",),
        requests=1,
        census=False,
    )
    assert one.compared and len(one.wrong) == 1
    assert "elements differ" in one.wrong[0]


def test_a_role_of_ones_own_decides_before_the_defaults(served):
    mine = Classifier([("engine", r"libtriton_copying\.so$")])
    one = seen(served, "copying", transports=("shm",), classifier=mine, requests=1)["shm"]
    assert (one.copied["backend"], one.copied["engine"]) == (0, 2 * SIZE)


def test_an_unknown_model_is_refused_in_the_servers_words(served):
    with pytest.raises(TrafficError, match="model nowhere"):
        describe("nowhere", served.http_url)


@pytest.fixture(scope="module")
def python_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProvedServer]:
    """The Python backend of the server's own package, with its stub put where the backend looks for it."""
    package = Path(sysconfig.get_path("purelib")) / "pytriton" / "tritonserver"
    stub = package / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    if not (stub / "triton_python_backend_stub").is_file():
        pytest.skip("the server's package has no Python backend stub for this Python")
    backends = tmp_path_factory.mktemp("backends")
    (backends / "python").mkdir()
    # The stub looks for modules beside itself only, and the backend's own module needs numpy.
    wanted = [*(package / "backends" / "python").iterdir(), stub / "triton_python_backend_stub"]
    wanted += Path(sysconfig.get_path("purelib")).glob("numpy*")
    for source in wanted:
        (backends / "python" / source.name).symlink_to(source)
    models = tmp_path_factory.mktemp("python-models")
    (models / "echo" / "1").mkdir(parents=True)
    (models / "echo" / "config.pbtxt").write_text(
        'backend: "python"\n'
        'input [{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }]\n'
        'output [{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }]\n'
    )
    (models / "echo" / "1" / "model.py").write_text(
        "import triton_python_backend_utils as tools\n"
        "class TritonPythonModel:\n"
        "    def execute(self, requests):\n"
        # By DLPack: as_numpy() of this stub, which was built for NumPy 1, gives empty tensors with NumPy 2.
        "        held = [tools.get_input_tensor_by_name(r, 'IN').to_dlpack() for r in requests]\n"
        "        return [tools.InferenceResponse([tools.Tensor.from_dlpack('OUT', h)]) for h in held]\n"
    )
    with ProvedServer(models, backends) as server:
        yield server


def test_another_backend_with_processes_of_its_own_is_seen_whole(python_server):
    spec = describe("echo", python_server.http_url)
    census = python_server.census.why_unavailable() is None
    (one,) = observe(python_server, spec, size_bytes=SIZE, transports=("shm",), census=census)
    assert one.wrong == ()
    processes = {row.process for row in one.reading.rows()}
    assert python_server.server.pid in processes
    # The server's side copies the input into a region of its own and the output out of it, the stub copies once.
    assert one.copied["backend"] == 3 * SIZE
    assert failures(one)


def test_open_dimensions_take_the_size():
    spec = TensorSpec("IN", "FP32", (-1, 3, -1, -1))
    assert shape_for(spec, batched=True, batch=2, size_bytes=24 * 100) == (2, 3, 1, 100)
    assert shape_for(spec, batched=True, batch=2, size_bytes=1 << 20, dims=[3, 8, 8]) == (2, 3, 8, 8)
    assert shape_for(TensorSpec("IN", "UINT8", ()), batched=False, batch=1, size_bytes=100) == ()
    with pytest.raises(TrafficError, match="is no shape"):
        shape_for(spec, batched=True, batch=1, size_bytes=1, dims=[-2])


def test_differences_are_bitwise_unless_told_otherwise():
    right = {"A": np.array([1, 2], np.float32)}
    near = {"A": np.array([1, 2.0001], np.float32)}
    assert differences(right, right) == []
    assert differences(near, right) == ["A: 1 of 2 elements differ"]
    assert differences(near, right, tolerance=1e-3) == []
    assert differences({}, right) == ["A: no answer"]
    assert differences({"A": np.array([1, 2], np.float64)}, right)[0].startswith("A: float64(2,)")
    texts = {"B": np.array([b"x"], object)}
    assert differences({"B": np.array([b"y"], object)}, texts) == ["B: texts differ"]


def test_libraries_are_told_apart_by_name():
    role = Classifier().role
    assert role("/opt/tritonserver/bin/tritonserver") == "server"
    assert role("/x/libtritonserver-717102f0.so") == "server"
    assert role("/opt/backends/identity/libtriton_identity.so") == "backend"
    assert role("/x/libumo.so.0") == "backend"
    assert role("/x/backends/onnxruntime/libonnxruntime.so.1") == "engine"
    assert role("/usr/lib/x86_64-linux-gnu/libpocl.so.2.9.0") == "engine"
    assert role("/root/.cache/pocl/kcache/AB/kernel.so") == "engine"
    assert role("/lib/x86_64-linux-gnu/libstdc++.so.6") == "runtime"
    assert role("/lib/x86_64-linux-gnu/libstdc++.so.6", "/x/libtriton_a.so") == "backend"
    assert role("/x/libcurl-75a2bf80.so.4.7.0") == "other"
    assert role("/x/libcudart-09529672.so.12.6.77") == "engine"
    with pytest.raises(ValueError, match="unknown role"):
        Classifier([("nobody", "x")])
    with pytest.raises(ValueError, match="bad pattern"):
        Classifier([("engine", "(")])
