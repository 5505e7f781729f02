"""The backend kit behind the real server: where tensors lie, what is copied and why, and what a bad configuration says.

umo_identity is the engine of most models: its own copy is not the kit's, and is not counted.
"""

from __future__ import annotations

import concurrent.futures
import json
import mmap
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from umo.models import onnx_graph, small
from umo.server import TritonServer

PAGE = mmap.PAGESIZE


def config(name: str, dtype: str, unified: str | None = None, batch: int = 0, extra: str = "") -> str:
    parameter = (
        ""
        if unified is None
        else f'parameters {{ key: "unified_memory" value {{ string_value: {json.dumps(unified)} }} }}\n'
    )
    return (
        f'name: "{name}"\nbackend: "umo_identity"\nmax_batch_size: {batch}\n'
        f'input [ {{ name: "INPUT0" data_type: TYPE_{dtype} dims: [ -1 ] }} ]\n'
        f'output [ {{ name: "OUTPUT0" data_type: TYPE_{dtype} dims: [ -1 ] }} ]\n'
        f"instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n{parameter}{extra}"
    )


def add(repository: Path, text: str) -> None:
    name = text.split('"')[1]
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(text)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("models")
    batching = "dynamic_batching { max_queue_delay_microseconds: 200000 preferred_batch_size: [ 8 ] }\n"
    add(repository, config("floats", "FP32"))
    add(repository, config("floats_off", "FP32", '{"enable": false}'))
    # Integers steer an engine, and move through umo_identity as bytes: these two are ONNX Runtime's.
    for name, unified in (("ints", None), ("ints_trusted", '{"trusted_clients": true}')):
        text = config(name, "INT64", unified).replace("umo_identity", "umo_onnxruntime")
        text = text.replace("INPUT0", "X").replace("OUTPUT0", "Y").replace("[ -1 ]", "[ -1, -1 ]")
        add(repository, text)
        onnx_graph.save(small.identity("INT64"), repository / name / "1" / "model.onnx")
    add(repository, config("batches", "FP32", None, 8, batching))
    add(repository, config("batches_unsorted", "FP32", '{"batch_optimization": false}', 8, batching))
    with TritonServer(repository) as running:
        yield running


class Region:
    """A shared-memory segment of this client, registered with the server."""

    def __init__(self, client: grpcclient.InferenceServerClient, size: int) -> None:
        self.name = f"umo-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.path = Path("/dev/shm") / self.name
        self.client = client
        with self.path.open("wb") as file:
            file.truncate(size)
        with self.path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), size)
        client.register_system_shared_memory(self.name, f"/{self.name}", size)

    def array(self, dtype: str, count: int, offset: int = 0) -> np.ndarray:
        return np.frombuffer(self.map, dtype, count, offset)

    def unregister(self) -> None:
        """The server answers before it lets go of a request's region, and refuses until then."""
        for _ in range(100):
            try:
                self.client.unregister_system_shared_memory(self.name)
                return
            except InferenceServerException as error:
                if "in use" not in str(error):
                    raise
                time.sleep(0.01)
        raise AssertionError("the region stays in use")

    def close(self) -> None:
        self.unregister()
        self.path.unlink(missing_ok=True)


@contextmanager
def client_of(server: TritonServer) -> Iterator[grpcclient.InferenceServerClient]:
    client = grpcclient.InferenceServerClient(server.grpc_url)
    try:
        yield client
    finally:
        client.close()


def ask(
    client: grpcclient.InferenceServerClient,
    model: str,
    region: Region,
    dtype: str,
    shape: list[int],
    size: int,
    source: int,
    target: int,
    names: tuple[str, str] = ("INPUT0", "OUTPUT0"),
) -> None:
    given = grpcclient.InferInput(names[0], shape, dtype)
    given.set_shared_memory(region.name, size, source)
    wanted = grpcclient.InferRequestedOutput(names[1])
    wanted.set_shared_memory(region.name, size, target)
    client.infer(model, [given], outputs=[wanted])


class Copies:
    """What the tracker counted for a model since the object was made."""

    def __init__(self, server: TritonServer, model: str) -> None:
        self._server, self._model, self._before = server, model, server.metrics()

    def read(self) -> dict[str, float]:
        moved = self._server.metrics().since(self._before)
        return {
            f"{sample.labels['direction']}:{sample.labels['reason']}": sample.value
            for sample in moved.select("umo_copy_bytes_total", model=self._model)
            if sample.value
        }


def test_floats_in_shared_memory_are_not_copied(server: TritonServer) -> None:
    with client_of(server) as client:
        region = Region(client, 64 * PAGE)
        source = region.array("f4", 1000)
        source[...] = np.arange(1000)
        copies = Copies(server, "floats")
        ask(client, "floats", region, "FP32", [1000], 4000, 0, 8 * PAGE)
        assert (region.array("f4", 1000, 8 * PAGE) == source).all()
        assert copies.read() == {}
        region.close()


def test_off_mode_copies_every_output_once(server: TritonServer) -> None:
    with client_of(server) as client:
        region = Region(client, 64 * PAGE)
        region.array("f4", 1000)[...] = np.arange(1000)
        copies = Copies(server, "floats_off")
        ask(client, "floats_off", region, "FP32", [1000], 4000, 0, 8 * PAGE)
        assert (region.array("f4", 1000, 8 * PAGE) == np.arange(1000)).all()
        assert copies.read() == {"out:disabled": 4000}
        region.close()


@pytest.mark.parametrize("offset", [1, 2, 3, 4, 63, PAGE - 1, PAGE + 1])
def test_any_offset_gives_the_right_answer(server: TritonServer, offset: int) -> None:
    with client_of(server) as client:
        region = Region(client, 64 * PAGE)
        values = np.random.default_rng(offset).standard_normal(1000).astype("f4")
        region.array("u1", 4000, offset)[...] = np.frombuffer(values.tobytes(), "u1")
        target = 20 * PAGE + offset
        before = bytes(region.map[target - 64 : target]), bytes(region.map[target + 4000 : target + 4064])
        ask(client, "floats", region, "FP32", [1000], 4000, offset, target)
        assert region.map[target : target + 4000] == values.tobytes()
        assert before == (region.map[target - 64 : target], region.map[target + 4000 : target + 4064])
        region.close()


def test_control_data_is_snapshotted_from_memory_that_a_client_can_write(server: TritonServer) -> None:
    with client_of(server) as client:
        region = Region(client, 64 * PAGE)
        region.array("i8", 1000)[...] = np.arange(1000)
        copies = Copies(server, "ints")
        ask(client, "ints", region, "INT64", [1, 1000], 8000, 0, 8 * PAGE, ("X", "Y"))
        assert (region.array("i8", 1000, 8 * PAGE) == np.arange(1000)).all()
        assert copies.read() == {"in:control_data": 8000}

        trusted = Copies(server, "ints_trusted")
        ask(client, "ints_trusted", region, "INT64", [1, 1000], 8000, 0, 8 * PAGE, ("X", "Y"))
        assert trusted.read() == {}
        region.close()


def test_control_data_over_the_network_is_not_copied(server: TritonServer) -> None:
    copies = Copies(server, "ints")
    values = np.arange(5000).reshape(1, 5000)
    for module, url in ((httpclient, server.http_url), (grpcclient, server.grpc_url)):
        client = module.InferenceServerClient(url)
        given = module.InferInput("X", [1, 5000], "INT64")
        given.set_data_from_numpy(values)
        assert (client.infer("ints", [given]).as_numpy("Y") == values).all()
        client.close()
    assert copies.read() == {}


def test_a_region_at_the_address_of_an_earlier_one_is_not_taken_for_it(server: TritonServer) -> None:
    """The server maps the next region where the last one was; a cache keyed by address answers with old bytes."""
    with client_of(server) as client:
        for turn in range(12):
            region = Region(client, 64 * PAGE)
            region.array("f4", 1000)[...] = turn
            region.array("f4", 1000, 8 * PAGE)[...] = -1
            ask(client, "floats", region, "FP32", [1000], 4000, 0, 8 * PAGE)
            assert (region.array("f4", 1000, 8 * PAGE) == turn).all()
            region.close()


def test_two_names_of_different_sizes_for_one_segment(server: TritonServer) -> None:
    """Re-registered larger: the view of the smaller mapping must not serve the tail."""
    with client_of(server) as client:
        region = Region(client, 4 * PAGE)
        region.array("f4", 8)[...] = 1
        ask(client, "floats", region, "FP32", [8], 32, 0, PAGE)
        region.unregister()
        with region.path.open("r+b") as file:
            file.truncate(16 * PAGE)
            region.map = mmap.mmap(file.fileno(), 16 * PAGE)
        client.register_system_shared_memory(region.name, f"/{region.name}", 16 * PAGE)
        region.array("f4", 8, 12 * PAGE)[...] = 7
        ask(client, "floats", region, "FP32", [8], 32, 12 * PAGE, 14 * PAGE)
        assert (region.array("f4", 8, 14 * PAGE) == 7).all()
        region.close()


def test_an_output_over_its_input_gives_the_conventional_answer(server: TritonServer) -> None:
    with client_of(server) as client:
        region = Region(client, 64 * PAGE)
        values = np.arange(10000, dtype="f4")
        region.array("f4", 10000)[...] = values
        copies = Copies(server, "floats")
        ask(client, "floats", region, "FP32", [10000], 40000, 0, 400)
        assert (region.array("f4", 10000, 400) == values).all()
        assert copies.read() == {"out:overlap": 40000}
        region.close()


def ask_together(server: TritonServer, model: str, region: Region, count: int, order: list[int], target: int) -> None:
    """One request of 1000 floats for each slot, started in an order so close together that they make one batch."""
    clients = [grpcclient.InferenceServerClient(server.grpc_url) for _ in order]
    with concurrent.futures.ThreadPoolExecutor(len(order)) as pool:
        jobs = [
            pool.submit(
                ask, c, model, region, "FP32", [1, count], count * 4, slot * count * 4, target + slot * count * 4
            )
            for c, slot in zip(clients, order, strict=True)
        ]
        for job in jobs:
            job.result()
    for client in clients:
        client.close()


def test_a_batch_in_neighbouring_slots_is_not_copied_whatever_order_it_came_in(server: TritonServer) -> None:
    count, slots = 1000, 8
    with client_of(server) as client:
        region = Region(client, 128 * PAGE)
        rng = np.random.default_rng(1)
        values = rng.standard_normal(count * slots).astype("f4")
        region.array("f4", count * slots)[...] = values
        target = 64 * PAGE
        best = None
        for _ in range(6):
            region.array("f4", count * slots, target)[...] = 0
            copies = Copies(server, "batches")
            ask_together(server, "batches", region, count, list(rng.permutation(slots)), target)
            assert (region.array("f4", count * slots, target) == values).all()
            moved = sum(copies.read().values())
            best = moved if best is None else min(best, moved)
        assert best == 0
        region.close()


def test_a_scattered_batch_is_gathered_once_and_answered_right(server: TritonServer) -> None:
    count, slots = 1000, 8
    with client_of(server) as client:
        region = Region(client, 128 * PAGE)
        values = np.random.default_rng(2).standard_normal(count * slots * 2).astype("f4")
        region.array("f4", count * slots * 2)[...] = values
        target = 64 * PAGE
        order = [0, 2, 5, 7, 9, 11, 14, 15]
        copies = Copies(server, "batches_unsorted")
        ask_together(server, "batches_unsorted", region, count, order, target)
        for slot in order:
            got = region.array("f4", count, target + slot * count * 4)
            assert (got == values[slot * count : (slot + 1) * count]).all()
        moved = copies.read()
        assert set(moved) <= {"in:scattered", "out:scattered"}
        assert all(value <= count * 4 * slots for value in moved.values())
        region.close()


BAD = {
    "broken_json": ('{"enable": tru}', "is not JSON"),
    "no_object": ("[1]", "write an object"),
    "twice": ('{"enable": true, "enable": false}', "duplicate"),
    "unknown_field": ('{"enabel": true}', "no field 'enabel'"),
    "enable_number": ('{"enable": 1}', "unified_memory.enable is an integer"),
    "threshold_text": ('{"zero_copy_threshold": "1 MB"}', "unified_memory.zero_copy_threshold is a string"),
    "threshold_negative": ('{"zero_copy_threshold": -1}', "negative"),
    "threshold_real": ('{"zero_copy_threshold": 1.5}', "number with a fraction"),
    "pattern": ('{"tensor_patterns": [{"name": "INPUT0", "pattern": "gpu"}]}', "'gpu' is no pattern"),
    "pattern_shape": ('{"tensor_patterns": {"INPUT0": "balanced"}}', "write an array"),
    "pattern_entry": ('{"tensor_patterns": [{"name": "INPUT0"}]}', "an entry is"),
    "device": ('{"device": "opencl:x"}', "write a driver and a number"),
    "device_type": ('{"device": 3}', "unified_memory.device is an integer"),
}


def test_a_bad_configuration_is_named_and_the_server_lives(tmp_path: Path) -> None:
    for name, (text, _) in BAD.items():
        add(tmp_path, config(name, "FP32", text))
    add(tmp_path, config("good", "FP32", '{"tensor_patterns": [{"name": "INPUT0", "pattern": "cpu_dominant"}]}'))
    with TritonServer(tmp_path, allow_failing=True) as server:
        for name, (_, message) in BAD.items():
            assert message in server.model_reason(name), (name, server.model_reason(name))
        client = httpclient.InferenceServerClient(server.http_url)
        given = httpclient.InferInput("INPUT0", [3], "FP32")
        given.set_data_from_numpy(np.ones(3, "f4"))
        assert (client.infer("good", [given]).as_numpy("OUTPUT0") == 1).all()
        client.close()


def test_loading_and_unloading_leaves_no_memory_behind(tmp_path: Path) -> None:
    add(tmp_path, config("floats", "FP32"))
    with TritonServer(tmp_path, explicit=True) as server:
        for _ in range(5):
            server.load("floats")
            with client_of(server) as client:
                region = Region(client, 64 * PAGE)
                region.array("f4", 1000)[...] = 5
                ask(client, "floats", region, "FP32", [1000], 4000, 0, 8 * PAGE)
                region.close()
            server.unload("floats")
        mapped = Path(f"/proc/{server.pid}/maps").read_text()
        assert "umo-test-" not in mapped, "a view of an unregistered segment is still mapped"


def test_what_a_configuration_leaves_out_is_completed_and_the_rest_left_alone(tmp_path: Path) -> None:
    half = (
        'name: "half"\nbackend: "umo_onnxruntime"\nmax_batch_size: 3\n'
        'input [ { name: "X" data_type: TYPE_FP32 dims: [ 3, 8, 8 ] format: FORMAT_NCHW } ]\n'
    )
    graph = onnx_graph.Graph("picture")
    graph.input("X", onnx_graph.FLOAT, ["batch", 3, 8, 8])
    graph.op("Relu", "X", to="Y")
    graph.output("Y", onnx_graph.FLOAT, ["batch", 3, 8, 8])
    for text, model in ((half, graph.model()), ('name: "none"\nbackend: "umo_onnxruntime"\n', small.two_outputs())):
        add(tmp_path, text)
        onnx_graph.save(model, tmp_path / text.split('"')[1] / "1" / "model.onnx")
    with TritonServer(tmp_path) as server:
        client = httpclient.InferenceServerClient(server.http_url)
        completed = client.get_model_config("half")
        assert completed["input"][0]["format"] == "FORMAT_NCHW" and completed["max_batch_size"] == 3
        assert [output["name"] for output in completed["output"]] == ["Y"]
        assert "dynamic_batching" not in completed, "the user chose a batch size and no batcher"
        completed = client.get_model_config("none")
        assert completed["max_batch_size"] > 1 and "dynamic_batching" in completed
        assert {output["name"] for output in completed["output"]} == {"DOUBLE", "NEGATIVE"}
        client.close()
