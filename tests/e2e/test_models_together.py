"""Three models of two backends, two instances each, in one server: one context, one budget, one registration cache.

The witnesses are the server's process (its mappings of a client's file, counted in /proc) and umo's counters; every
answer is compared.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from umo.server import TritonServer

MIB = 1 << 20
BUDGET = 24 * MIB
COUNT = 1 << 19  # floats: 2 MiB, which a device takes in place
BATCHING = "dynamic_batching { max_queue_delay_microseconds: 500 }\n"
ADD_ONE = """__kernel void add(__global const float *in, __global float *out)
{
    out[get_global_id(0)] = in[get_global_id(0)] + 1;
}
"""
KERNEL = {
    "function": "add",
    "arguments": [{"input": "INPUT0"}, {"output": "OUTPUT0"}],
    "global_size": ["INPUT0[0]"],
    "outputs": {"OUTPUT0": ["INPUT0[0]"]},
}


def add(repository: Path, name: str, backend: str, *, batch: int = 0, extra: str = "", **parameters: str) -> None:
    text = (
        f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: {batch}\n'
        'input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        'output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]\n'
        f"instance_group [ {{ kind: KIND_CPU count: 2 }} ]\n{extra}"
    )
    for key, value in parameters.items():
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(text)
    (version / "model.cl").write_text(ADD_ONE)


MODELS = ("plain", "plain_off", "batching", "kernel", "kernel_off")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("models")
    add(repository, "plain", "umo_identity")
    add(repository, "batching", "umo_identity", batch=4, extra=BATCHING)
    add(repository, "kernel", "umo_kernel", kernel=json.dumps(KERNEL))
    # The conventional way takes memory of umo's own for every tensor, which the budget bounds.
    add(repository, "plain_off", "umo_identity", unified_memory='{"enable": false}')
    add(repository, "kernel_off", "umo_kernel", kernel=json.dumps(KERNEL), unified_memory='{"enable": false}')
    budget = {"budget_bytes": str(BUDGET)}
    with TritonServer(
        repository,
        explicit=True,
        load_models=MODELS,
        backend_config={"umo_identity": budget, "umo_kernel": budget},
    ) as running:
        yield running


def right(model: str, data: np.ndarray) -> np.ndarray:
    return data + np.float32(1) if model.startswith("kernel") else data


def shape_of(model: str, count: int) -> list[int]:
    return [1, count] if model == "batching" else [count]


class Region:
    """One client's segment: the input, and an output for each of its users."""

    def __init__(self, server: TritonServer, outputs: int) -> None:
        self.server = server
        self.size = 4 * COUNT
        self.name = f"umo-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.path = Path("/dev/shm") / self.name
        total = self.size * (1 + outputs)
        with self.path.open("wb") as file:
            file.truncate(total)
        with self.path.open("r+b") as file:
            self.map = mmap.mmap(file.fileno(), total)
        self.inode = self.path.stat().st_ino
        self.floats = np.frombuffer(self.map, np.float32)
        with grpcclient.InferenceServerClient(server.grpc_url) as client:
            client.register_system_shared_memory(self.name, f"/{self.name}", total)

    def ask(self, client: grpcclient.InferenceServerClient, model: str, output: int) -> None:
        given = grpcclient.InferInput("INPUT0", shape_of(model, COUNT), "FP32")
        given.set_shared_memory(self.name, self.size, 0)
        wanted = grpcclient.InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory(self.name, self.size, self.size * (1 + output))
        client.infer(model, [given], outputs=[wanted])

    def answer(self, output: int) -> np.ndarray:
        return self.floats[COUNT * (1 + output) : COUNT * (2 + output)]

    def mappings(self) -> int:
        """How often the server has the file mapped: once itself, and once for each view of ours."""
        lines = Path(f"/proc/{self.server.pid}/maps").read_text().splitlines()
        return sum(line.split()[4] == str(self.inode) for line in lines)

    def close(self) -> None:
        with grpcclient.InferenceServerClient(self.server.grpc_url) as client:
            for _ in range(200):
                try:
                    client.unregister_system_shared_memory(self.name)
                    break
                except InferenceServerException as error:
                    assert "in use" in str(error)
                    time.sleep(0.01)
        self.path.unlink()


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextlib.contextmanager
def threads(*functions: Callable[[], None]) -> Iterator[list[BaseException]]:
    """Runs them beside the body, and fails with what they raised."""
    raised: list[BaseException] = []

    def guarded(function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException as error:
            raised.append(error)

    running = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in running:
        thread.start()
    try:
        yield raised
    finally:
        for thread in running:
            thread.join()
    if raised:
        raise raised[0]


def live(server: TritonServer) -> dict[str, float]:
    return {s.labels["model"]: s.value for s in server.metrics().select("umo_live_bytes")}


def umo_threads(server: TritonServer) -> list[str]:
    names = []
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            names.append((task / "comm").read_text().strip())
    return [name for name in names if name.startswith("umo")]


def test_models_that_share_a_region_share_its_view(server: TritonServer) -> None:
    users = [(model, number) for number, model in enumerate(("plain", "batching", "kernel") * 2)]
    region = Region(server, len(users))
    region.floats[:COUNT] = np.random.default_rng(1).random(COUNT, np.float32)
    before = server.metrics()

    def use(model: str, output: int) -> Callable[[], None]:
        def run() -> None:
            with grpcclient.InferenceServerClient(server.grpc_url) as client:
                for _ in range(20):
                    region.answer(output)[:] = 0
                    region.ask(client, model, output)
                    assert np.array_equal(region.answer(output), right(model, region.floats[:COUNT]))

        return run

    with threads(*(use(model, output) for model, output in users)):
        pass
    assert region.mappings() == 2
    moved = server.metrics().since(before)
    for model in ("plain", "kernel"):
        copied = {s.labels["reason"]: s.value for s in moved.select("umo_copy_bytes_total", model=model) if s.value}
        assert copied == {}, model
    region.close()
    # What was viewed goes with the client, though its models stay.
    assert wait_until(lambda: region.mappings() == 0)


def test_a_model_that_rests_gives_its_memory_to_one_that_needs_it(server: TritonServer) -> None:
    """An instance keeps what it needed for its next request. Together these would keep more than the budget."""
    rng = np.random.default_rng(2)
    most: dict[str, float] = {}
    with httpclient.InferenceServerClient(server.http_url, network_timeout=60, connection_timeout=60) as client:
        for turn in range(3):
            for model, count in (
                ("kernel_off", 5 * MIB // 4),
                ("plain_off", 9 * MIB // 4),
                ("plain_off", 3 * MIB // 2),
            ):
                data = rng.random(count, np.float32)
                given = httpclient.InferInput("INPUT0", [count], "FP32")
                given.set_data_from_numpy(data)
                answer = client.infer(model, [given]).as_numpy("OUTPUT0")
                assert answer is not None
                assert np.array_equal(answer, right(model, data)), (model, turn)
                for name in MODELS:  # a model's gauge is of its last request
                    small = httpclient.InferInput("INPUT0", shape_of(name, 1), "FP32")
                    small.set_data_from_numpy(np.zeros(shape_of(name, 1), np.float32))
                    client.infer(name, [small])
                held = live(server)
                assert sum(held.values()) <= BUDGET
                most = {name: max(value, most.get(name, 0)) for name, value in held.items()}
    assert sum(most.values()) > BUDGET, most


def test_models_come_and_go_under_traffic(server: TritonServer) -> None:
    """Traffic on a model that is reloaded may be refused, never be wrong; traffic on the others never notices."""
    region = Region(server, 3)
    region.floats[:COUNT] = np.random.default_rng(3).random(COUNT, np.float32)
    stop = threading.Event()
    answered = [0, 0, 0]

    def use(model: str, output: int, may_fail: bool) -> Callable[[], None]:
        def run() -> None:
            with grpcclient.InferenceServerClient(server.grpc_url) as client:
                while not stop.is_set():
                    region.answer(output)[:] = 0
                    try:
                        region.ask(client, model, output)
                    except InferenceServerException as error:
                        if not may_fail:
                            raise
                        assert "is not ready" in str(error) or "unknown model" in str(error), error
                        time.sleep(0.01)
                        continue
                    assert np.array_equal(region.answer(output), right(model, region.floats[:COUNT]))
                    answered[output] += 1

        return run

    def reload() -> None:
        try:
            for _ in range(3):
                for model in ("batching", "kernel_off", "batching"):
                    server.unload(model)
                    time.sleep(0.05)
                    server.load(model)
                    time.sleep(0.1)
                # Loading what is loaded: the new one starts before the old one ends.
                server.load("batching")
        finally:
            stop.set()

    with threads(use("plain", 0, False), use("kernel", 1, False), use("batching", 2, True), reload):
        pass
    assert all(count > 10 for count in answered), answered
    assert region.mappings() == 2
    for model in ("plain", "kernel"):
        server.unload(model)
        assert model not in live(server)  # its series go with it
        server.load(model)
    region.close()
    assert wait_until(lambda: region.mappings() == 0)


def test_the_last_model_takes_everything_with_it(server: TritonServer) -> None:
    """No model, no context: nothing of umo's is left, no view, no thread, and the next model starts anew."""
    region = Region(server, 1)
    region.floats[:COUNT] = 1
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        region.ask(client, "kernel", 0)
        assert region.mappings() == 2
        assert umo_threads(server)
        for model in MODELS:
            server.unload(model)
        assert wait_until(lambda: region.mappings() == 1)
        assert not umo_threads(server)
        for model in MODELS:
            server.load(model)
        region.ask(client, "kernel", 0)
        assert np.array_equal(region.answer(0), np.full(COUNT, 2, np.float32))
    region.close()
