"""umo.client behind the real server: the same code as with tritonclient, and the same answers, over all four clients.

What is asked of the server besides: that requests of one process's threads are one batch in place, that nothing is left
behind, that a server which was started again and one that shares no memory are served as before.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http

import umo.client.grpc
import umo.client.grpc.aio
import umo.client.http
import umo.client.http.aio
from umo.client import Model, empty, reap
from umo.client import link as links
from umo.client.ring import lease_of
from umo.client.segment import Owner
from umo.server import TritonServer

PYTHON = Path(links.__file__).resolve().parents[2]
FLOATS = 64 << 10
KINDS = {
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
CLIENTS = ["http", "grpc", "http.aio", "grpc.aio"]


def config(kind: str, dims: str = "-1", batch: int = 0, extra: str = "") -> str:
    kind = {"BYTES": "STRING"}.get(kind, kind)
    tensor = f'[ {{ name: "%s" data_type: TYPE_{kind} dims: [{dims}] }} ]'
    return (
        f'backend: "umo_identity"\nmax_batch_size: {batch}\ninput {tensor % "INPUT0"}\noutput {tensor % "OUTPUT0"}\n'
        f"instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n{extra}\n"
    )


def parameter(key: str, value: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'


MODELS = {
    **{f"type_{kind}": config(kind, "-1, -1") for kind in [*KINDS, "BYTES"]},
    "echo": config("FP32"),
    "slow": config("FP32", extra=parameter("delay_us", "300000")),
    "fails": config("FP32", extra=parameter("fail_every", "2")),
    "fixed": config("FP32", str(FLOATS)),
    # A backend that knows nothing of umo, and copies as a conventional one does.
    "conventional": config("FP32").replace("umo_identity", "copying"),
    "batch": config(
        "FP32",
        "-1",
        8,
        "dynamic_batching { max_queue_delay_microseconds: 500000 preferred_batch_size: [ 8 ] }",
    ),
}


def write_models(folder: Path) -> None:
    for name, text in MODELS.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(text)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    write_models(folder)
    return folder


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[TritonServer]:
    with TritonServer(repository) as running:
        yield running
        assert running.running, "the server died under the tests"


@pytest.fixture(scope="module", autouse=True)
def quick_collections() -> Iterator[None]:
    """What was made before these tests need not be looked through after each of them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def nothing_is_left(server: TritonServer) -> Iterator[None]:
    yield
    gc.collect()
    left = regions(server)
    assert left == [], "clients were closed, and regions are still registered"
    assert not list(Path("/dev/shm").glob(f"umo.{os.getpid()}.*"))


def regions(server: TritonServer) -> list[str]:
    client = tritonclient.http.InferenceServerClient(server.http_url)
    try:
        return sorted(region["name"] for region in client.get_system_shared_memory_status())
    finally:
        client.close()


def unregister_all(server: TritonServer) -> None:
    """By somebody else; the server refuses for a moment after an answer."""
    client = tritonclient.http.InferenceServerClient(server.http_url)
    retrying(client.unregister_system_shared_memory)
    client.close()


class Wrapped:
    """One of the four clients, called alike; the asynchronous ones on a loop of their own."""

    def __init__(self, name: str, server: TritonServer, package: str = "umo.client") -> None:
        self.loop = asyncio.new_event_loop() if name.endswith("aio") else None
        self.module = sys.modules[f"{package}.{name}"]
        url = server.http_url if name.startswith("http") else server.grpc_url
        if self.loop is None:
            self.client = self.module.InferenceServerClient(url)
        else:
            self.client = self.run(self._make(url))

    async def _make(self, url: str) -> Any:
        return self.module.InferenceServerClient(url)

    def run(self, what: Any) -> Any:
        return self.loop.run_until_complete(what) if self.loop is not None else what

    def infer(self, *args: Any, **kwargs: Any) -> Any:
        return self.run(self.client.infer(*args, **kwargs))

    def __enter__(self) -> Wrapped:
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self.client.close())
        if self.loop is not None:
            self.loop.close()

    def input(self, data: Any, kind: str = "FP32") -> Any:
        return self.module.InferInput("INPUT0", list(data.shape), kind).set_data_from_numpy(data)

    def ask(self, model: str, data: np.ndarray, kind: str = "FP32", **more: Any) -> np.ndarray:
        return self.infer(model, [self.input(data, kind)], **more).as_numpy("OUTPUT0")

    def lanes(self, model: str, data: np.ndarray) -> None:
        for _ in range(3):
            self.ask(model, data)
        assert lease_of(self.ask(model, data)) is not None, str(self.client.transport)


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, server: TritonServer) -> Iterator[Wrapped]:
    with Wrapped(request.param, server) as made:
        yield made


@pytest.fixture
def http(server: TritonServer) -> Iterator[Wrapped]:
    with Wrapped("http", server) as made:
        yield made


@pytest.fixture
def grpc(server: TritonServer) -> Iterator[Wrapped]:
    with Wrapped("grpc", server) as made:
        yield made


def numbers(seed: int, count: int = FLOATS) -> np.ndarray:
    return np.random.default_rng(seed).random(count, np.float32)


# --- the same answers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*KINDS, "BYTES"])
def test_every_type_comes_back_as_the_original_gives_it(client: Wrapped, server: TritonServer, kind: str) -> None:
    rng = np.random.default_rng(5)
    if kind == "BYTES":
        data = np.array([[b"", b"a" * 40_000], ["grün".encode(), b"\0\xff"]], dtype=object)
    elif kind == "BOOL":
        data = rng.integers(0, 2, (3, 30_000)).astype(np.bool_)
    else:
        data = np.frombuffer(rng.bytes(3 * 30_000 * np.dtype(KINDS[kind]).itemsize), KINDS[kind]).reshape(3, -1)
    name = client.module.__name__.removeprefix("umo.client.")
    with Wrapped(name.removesuffix(".aio"), server, "tritonclient") as original:
        expected = original.ask(f"type_{kind}", data, kind)
    for _ in range(4):
        got = client.ask(f"type_{kind}", data, kind)
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert got.flags.writeable == expected.flags.writeable
        assert got.tobytes() == expected.tobytes() if kind != "BYTES" else got.tolist() == expected.tolist()
    assert (lease_of(got) is not None) == (kind != "BYTES")


@pytest.mark.parametrize("count", [0, 1, 100, FLOATS, 4 << 20])
def test_every_size_comes_back(client: Wrapped, count: int) -> None:
    for seed in range(3):
        data = numbers(seed, count)
        assert (client.ask("echo", data) == data).all()


def test_a_backend_that_is_not_ours(client: Wrapped) -> None:
    for seed in range(5):
        data = numbers(seed)
        got = client.ask("conventional", data)
        assert (got == data).all()
    assert lease_of(got) is not None


def test_the_whole_result_reads_as_the_originals(server: TritonServer) -> None:
    for name in ("http", "grpc"):
        with Wrapped(name, server) as client, Wrapped(name, server, "tritonclient") as original:
            data = numbers(1)
            client.lanes("echo", data)
            said = []
            for one in (original, client):
                result = one.infer("echo", [one.input(data)], request_id="7")
                said.append((str(result.get_output("OUTPUT0")), str(result.get_response())))
            assert said[0] == said[1]


def test_outputs_that_are_named(client: Wrapped) -> None:
    data = numbers(2)
    client.lanes("echo", data)
    output = client.module.InferRequestedOutput("OUTPUT0")
    for _ in range(3):
        assert (client.ask("echo", data, outputs=[output]) == data).all()
    named = client.module.InferRequestedOutput("OUTPUT0", class_count=2)
    best = client.ask("echo", data, outputs=[named])
    assert [int(row.split(b":")[1]) for row in best] == np.argsort(-data)[:2].tolist()
    with pytest.raises(client.module.InferenceServerException, match="NONE"):
        client.ask("echo", data, outputs=[client.module.InferRequestedOutput("NONE")])


def test_json_in_and_out(http: Wrapped) -> None:
    data = numbers(3, 10_000)
    http.lanes("echo", data)
    one = http.module.InferInput("INPUT0", list(data.shape), "FP32").set_data_from_numpy(data, binary_data=False)
    output = http.module.InferRequestedOutput("OUTPUT0", binary_data=False)
    result = http.infer("echo", [one], outputs=[output])
    assert (result.as_numpy("OUTPUT0") == data).all() and len(result.get_output("OUTPUT0")["data"]) == 10_000


def test_compressed_requests(server: TritonServer) -> None:
    data = numbers(4)
    with Wrapped("http", server) as http, Wrapped("grpc", server) as grpc:
        for _ in range(3):
            for how in ("gzip", "deflate"):
                both = {"request_compression_algorithm": how, "response_compression_algorithm": how}
                assert (http.ask("echo", data, **both) == data).all()
                assert (grpc.ask("echo", data, compression_algorithm=how) == data).all()


def test_an_error_of_the_model_is_the_callers_and_the_slot_is_used_again(client: Wrapped) -> None:
    data = numbers(5)
    good = bad = 0
    for _ in range(8):
        try:
            assert (client.ask("fails", data) == data).all()
            good += 1
        except client.module.InferenceServerException as error:
            assert "fail_every" in str(error)
            bad += 1
        gc.collect()
    assert (good, bad) == (4, 4)
    kind = next(one for one in client.client._umo_link.real()._kinds.values() if one.model == "fails")
    assert kind.ring is not None and kind.ring.suspects == 0
    with pytest.raises(client.module.InferenceServerException, match="no_such_model"):
        client.ask("no_such_model", data)


def test_requests_that_are_not_waited_for(server: TritonServer) -> None:
    with Wrapped("grpc", server) as grpc, Wrapped("http", server) as http:
        got: dict[int, np.ndarray] = {}
        done = threading.Semaphore(0)

        def answered(i: int, result: Any, error: Any) -> None:
            got[i] = result.as_numpy("OUTPUT0") if error is None else error
            done.release()

        for seed in range(3):  # cold, then warm
            data = [numbers(seed * 10 + i) for i in range(6)]
            for i, one in enumerate(data):
                tensor = grpc.input(one)
                grpc.client.async_infer("echo", [tensor], lambda result, error, i=i: answered(i, result, error))
                tensor.set_data_from_numpy(np.zeros_like(one))  # what was sent was sent
            for _ in data:
                assert done.acquire(timeout=30)
            assert all((got[i] == one).all() for i, one in enumerate(data))
            waiting = [http.client.async_infer("echo", [http.input(one)]) for one in data]
            for one, handle in zip(data, waiting, strict=True):
                assert (handle.get_result().as_numpy("OUTPUT0") == one).all()
        assert lease_of(got[5]) is not None
        assert lease_of(handle.get_result().as_numpy("OUTPUT0")) is not None


def test_many_coroutines_at_once(server: TritonServer) -> None:
    async def all_of(module: Any, url: str) -> None:
        async with module.InferenceServerClient(url) as client:

            async def one(i: int) -> None:
                data = numbers(i)
                tensor = module.InferInput("INPUT0", [FLOATS], "FP32").set_data_from_numpy(data)
                await asyncio.sleep(0)
                result = await client.infer("echo", [tensor])
                assert (result.as_numpy("OUTPUT0") == data).all()

            for turn in range(4):
                await asyncio.gather(*(one(turn * 100 + i) for i in range(20)))
            assert client.transport.shared_memory

    asyncio.run(all_of(umo.client.http.aio, server.http_url))
    asyncio.run(all_of(umo.client.grpc.aio, server.grpc_url))


def test_a_stream_is_answered(server: TritonServer) -> None:
    with Wrapped("grpc", server) as grpc:
        data = [numbers(i) for i in range(5)]
        grpc.lanes("echo", data[0])
        got: list[Any] = []
        done = threading.Semaphore(0)
        grpc.client.start_stream(lambda result, error: (got.append((result, error)), done.release()))
        for i, one in enumerate(data):
            grpc.client.async_stream_infer("echo", [grpc.input(one)], request_id=str(i))
        for _ in data:
            assert done.acquire(timeout=30)
        grpc.client.stop_stream()
        assert [error for _, error in got] == [None] * 5
        for result, _ in got:
            sent = data[int(result.get_response().id)]
            assert isinstance(result, umo.client.grpc.InferResult) and (result.as_numpy("OUTPUT0") == sent).all()


def test_a_step_of_a_sequence(grpc: Wrapped) -> None:
    data = numbers(6)
    for _ in range(3):
        for model in ("fixed", "echo"):
            how = {"sequence_id": 7, "sequence_start": True, "sequence_end": True}
            got = grpc.ask(model, data, **how)
            assert (got == data).all()
    assert lease_of(grpc.ask("fixed", data, **how)) is not None
    assert lease_of(grpc.ask("echo", data, **how)) is None, "its size is known when it is there"


# --- memory that is shared --------------------------------------------------------------------------------------------


def copied(server: TritonServer, before: Any, model: str) -> float:
    return server.metrics().since(before).value("umo_copy_bytes_total", model=model)


def eight_threads(server: TritonServer, ask: Callable[[Wrapped, int], None]) -> tuple[float, float]:
    """Eight threads, a client each, at once; the rows and the executions of the model."""
    clients = [Wrapped("http" if i % 2 else "grpc", server) for i in range(8)]
    before = server.metrics()
    start = threading.Barrier(8)
    wrong: list[BaseException] = []

    def work(i: int) -> None:
        try:
            start.wait()
            ask(clients[i], i)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    after = server.metrics().since(before)
    for one in clients:
        one.__exit__()
    return (
        after.value("nv_inference_count", model="batch"),
        after.value("nv_inference_exec_count", model="batch"),
    )


def test_eight_threads_of_one_process_are_one_batch_that_is_not_copied(server: TritonServer, http: Wrapped) -> None:
    data = [numbers(i)[None] for i in range(8)]
    http.lanes("batch", data[0])
    results: dict[int, np.ndarray] = {}

    def ask(client: Wrapped, i: int) -> None:
        results[i] = client.infer("batch", [client.input(data[i])]).as_numpy("OUTPUT0")

    for _ in range(3):
        before = server.metrics()
        assert eight_threads(server, ask) == (8, 1), "there was no batch of eight, so nothing was tested"
        assert all((results[i] == data[i]).all() for i in range(8))
        assert copied(server, before, "batch") == 0
        results.clear()


def test_arrays_that_lie_in_lanes_are_one_batch_too(server: TritonServer, http: Wrapped) -> None:
    data = [numbers(i)[None] for i in range(8)]
    http.lanes("batch", data[0])
    arrays = [empty(Model(http.client, "batch"), "INPUT0", (1, FLOATS), np.float32) for _ in data]
    for array, one in zip(arrays, data, strict=True):
        array[...] = one
    before = server.metrics()
    results: dict[int, np.ndarray] = {}

    def ask(client: Wrapped, i: int) -> None:
        results[i] = client.infer("batch", [client.input(arrays[i])]).as_numpy("OUTPUT0")

    assert eight_threads(server, ask) == (8, 1)
    assert all((results[i] == data[i]).all() for i in range(8))
    assert copied(server, before, "batch") == 0


def test_both_protocols_share_one_ring(server: TritonServer) -> None:
    with Wrapped("http", server) as http, Wrapped("grpc", server) as grpc:
        data = numbers(1)
        http.lanes("echo", data)
        grpc.lanes("echo", data)
        assert len(regions(server)) == 1
        assert grpc.client._umo_link.real() is http.client._umo_link.real()


def test_everything_unregistered_by_hand_is_registered_again(client: Wrapped, server: TritonServer) -> None:
    data = numbers(1)
    client.lanes("echo", data)
    unregister_all(server)
    assert (client.infer("echo", iter([client.input(data)])).as_numpy("OUTPUT0") == data).all()
    retrying(lambda: client.run(client.client.unregister_system_shared_memory()))
    client.lanes("echo", data)


def test_requests_that_are_not_waited_for_find_the_regions_gone(server: TritonServer) -> None:
    data = numbers(1)
    with Wrapped("grpc", server) as grpc, Wrapped("http", server) as http:
        for _ in range(2):
            grpc.lanes("echo", data)
            http.lanes("echo", data)
            unregister_all(server)
            handle = http.client.async_infer("echo", [http.input(data)])
            assert (handle.get_result().as_numpy("OUTPUT0") == data).all()
            got: list[Any] = []
            done = threading.Event()
            grpc.lanes("echo", data)
            retrying(http.client.unregister_system_shared_memory)
            grpc.lanes("echo", data)
            unregister_all(server)
            grpc.client.async_infer("echo", [grpc.input(data)], lambda **how: (got.append(how), done.set()))  # noqa: B023
            assert done.wait(30) and got[0]["error"] is None
            assert (got[0]["result"].as_numpy("OUTPUT0") == data).all()


def test_a_request_that_was_given_up_keeps_its_slot_until_the_server_is_done(grpc: Wrapped) -> None:
    data = numbers(1)
    grpc.lanes("slow", data)
    ring = lease_of(grpc.ask("slow", data)).slot.ring
    with pytest.raises(umo.client.grpc.InferenceServerException, match="DEADLINE"):
        grpc.ask("slow", np.ones_like(data), client_timeout=0.05)
    assert ring.suspects == 1
    failed = threading.Event()
    context = grpc.client.async_infer("slow", [grpc.input(data)], lambda result, error: failed.set())
    time.sleep(0.05)
    context.cancel()
    assert failed.wait(10) and ring.suspects == 2
    held = [grpc.ask("echo", data) for _ in range(3)]
    for _ in range(2):
        assert (grpc.ask("slow", data) == data).all()
    assert all((one == data).all() for one in held)


def test_a_coroutine_that_was_cancelled_keeps_its_slot(server: TritonServer) -> None:
    async def cancel(module: Any, url: str) -> None:
        async with module.InferenceServerClient(url) as client:
            data = numbers(1)

            def ask() -> Awaitable[Any]:
                tensor = module.InferInput("INPUT0", [FLOATS], "FP32").set_data_from_numpy(data)
                return client.infer("slow", [tensor])

            for _ in range(3):
                result = await ask()
            ring = lease_of(result.as_numpy("OUTPUT0")).slot.ring
            task = asyncio.ensure_future(ask())
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert ring.suspects == 1
            assert ((await ask()).as_numpy("OUTPUT0") == data).all()

    asyncio.run(cancel(umo.client.http.aio, server.http_url))
    asyncio.run(cancel(umo.client.grpc.aio, server.grpc_url))


def test_a_model_is_loaded_by_the_client_as_by_the_original(repository: Path) -> None:
    short = ["--exit-timeout-secs=1"]
    with TritonServer(repository, explicit=True, extra_args=short) as other, Wrapped("http", other) as http:
        http.client.load_model("echo")
        data = numbers(2)
        http.lanes("echo", data)
        http.client.unload_model("echo")
        with pytest.raises(umo.client.http.InferenceServerException):
            http.ask("echo", data)
        http.client.load_model("echo")
        http.lanes("echo", data)
        plain = tritonclient.http.InferenceServerClient(other.http_url)
        settings = plain.get_model_config("echo")
        settings["output"][0]["name"] = "RENAMED"
        plain.load_model("echo", config=json.dumps(settings))
        plain.close()
        for _ in range(3):
            result = http.infer("echo", [http.input(data)])
            assert (result.as_numpy("RENAMED") == data).all() and result.as_numpy("OUTPUT0") is None


# --- what can happen --------------------------------------------------------------------------------------------------

CHILD = """
import sys, time
sys.path.insert(0, sys.argv[1])
import numpy as np, umo.client.http as h
client = h.InferenceServerClient(sys.argv[2])
data = np.ones(65536, np.float32)
for _ in range(3):
    one = h.InferInput("INPUT0", [65536], "FP32").set_data_from_numpy(data)
    client.infer("echo", [one])
print(client.transport.shared_memory, flush=True)
if sys.argv[3] == "busy":
    one = h.InferInput("INPUT0", [65536], "FP32").set_data_from_numpy(data)
    for _ in range(3):
        client.infer("slow", [one])
        print("one", flush=True)
if sys.argv[3] != "end":
    time.sleep(60)
"""


def child(server: TritonServer, what: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(PYTHON), server.http_url, what]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "True\n"
    return process


@pytest.mark.parametrize("what", ["idle", "busy"])
def test_what_a_killed_client_left_is_unregistered_by_the_next(server: TritonServer, what: str) -> None:
    process = child(server, what)
    if what == "busy":
        for _ in range(2):  # the second is in lanes, and so is the third, which is in flight now
            assert process.stdout is not None and process.stdout.readline() == "one\n"
        time.sleep(0.05)
    left = regions(server)
    assert left and all(Owner.of(name).pid == process.pid for name in left)  # type: ignore[union-attr]
    assert reap(server.http_url) == [], "it lives"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert regions(server) == left
    if what == "busy":
        time.sleep(1.0)  # the server refuses while a request uses it
    with Wrapped("grpc", server) as grpc:
        grpc.lanes("echo", numbers(1))
        assert not set(left) & set(regions(server))


def test_reap_names_what_it_unregistered(server: TritonServer) -> None:
    process = child(server, "idle")
    left = regions(server)
    process.kill()
    process.communicate()
    assert reap(server.grpc_url, "grpc") == left
    assert reap(server.http_url) == []


def test_a_script_that_just_ends_leaves_nothing(server: TritonServer) -> None:
    process = child(server, "end")
    said = process.communicate(timeout=60)
    assert (said[1], process.returncode) == ("", 0)
    assert regions(server) == []


ENDS_BESIDE_A_THREAD = """
import sys, threading
sys.path.insert(0, sys.argv[1])
import numpy as np, umo.client.http as h
client, warm = h.InferenceServerClient(sys.argv[2]), threading.Event()
def work():
    for at in range(1 << 60):
        one = h.InferInput("INPUT0", [65536], "FP32").set_data_from_numpy(np.full(65536, at, np.float32))
        client.infer("echo", [one])
        if at == 5:
            warm.set()
threading.Thread(target=work, daemon=True).start()
warm.wait()
print(client.transport.shared_memory, flush=True)
"""


def test_a_script_ends_beside_a_thread_that_does_not(server: TritonServer) -> None:
    command = [sys.executable, "-c", ENDS_BESIDE_A_THREAD, str(PYTHON), server.http_url]
    # How it ends is not ours: gevent's own thread is torn down in the middle of things, with tritonclient as well.
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert done.stdout == "True\n"
    reap(server.http_url)
    assert regions(server) == []


def test_a_server_that_was_started_again_is_served_as_before(repository: Path) -> None:
    data = numbers(1)
    # It would wait for the clients' connections, as it does for the original's.
    short = ["--exit-timeout-secs=1"]
    with TritonServer(repository, explicit=True, load_models=["echo"], extra_args=short) as first:
        clients = [Wrapped(name, first) for name in CLIENTS]
        ports = (first.http_port, first.grpc_port, first.metrics_port)
        for one in clients:
            one.lanes("echo", data)
        array = empty(clients[0].client, "INPUT0", [FLOATS], np.float32)
        array[:] = data
        inputs = [one.input(data) for one in clients]
        held = clients[0].ask("echo", data)
    with TritonServer(repository, explicit=True, load_models=["echo"], ports=ports, extra_args=short) as second:
        for one, waiting in zip(clients, inputs, strict=True):
            again = retrying(lambda: one.infer("echo", [waiting]))  # noqa: B023
            assert (again.as_numpy("OUTPUT0") == data).all()
            assert (one.ask("echo", array) == data).all()
        for one in clients:
            one.lanes("echo", data)
            assert (one.ask("echo", array) == data).all()
        assert (held == data).all()
        for one in clients:
            one.__exit__()
        assert regions(second) == []


def retrying(ask: Callable[[], Any]) -> Any:
    """What the original's user does too: a connection that broke is made again, a region in use asked for again."""
    for _ in range(20):
        try:
            return ask()
        except Exception as error:
            if "Unable to find" in str(error):
                raise
            time.sleep(0.2)
    return ask()


def test_a_server_that_cannot_open_our_memory_is_served_as_before(
    server: TritonServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a container with a /dev/shm of its own: the server finds no such key."""
    monkeypatch.setattr(links, "_links", {})

    class Elsewhere(links.segment.Segment):
        def __init__(self, size: int) -> None:
            super().__init__(size)
            self.hide()

    monkeypatch.setattr("umo.client.ring.Segment", Elsewhere)
    for name in ("http", "grpc"):
        with Wrapped(name, server) as client:
            array = empty(client.client, "INPUT0", [FLOATS], np.float32)
            array[:] = 3
            for seed in range(4):
                data = numbers(seed)
                got = client.ask("echo", data)
                assert (got == data).all() and lease_of(got) is None
                assert (client.ask("echo", array) == 3).all()
            assert not client.client.transport.shared_memory
            assert "Unable to open shared memory region" in client.client.transport.reason


def test_the_environment_turns_it_off(server: TritonServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMO_CLIENT_SHARED_MEMORY", "off")
    monkeypatch.setattr(links, "_links", {})
    with Wrapped("http", server) as client:
        data = numbers(1)
        for _ in range(3):
            got = client.ask("echo", data)
        assert (got == data).all() and lease_of(got) is None and regions(server) == []


def test_many_threads_of_one_client(grpc: Wrapped) -> None:
    wrong: list[int] = []

    def work(number: int) -> None:
        last: tuple[Any, Any] | None = None
        for turn in range(25):
            data = numbers(number * 1000 + turn, FLOATS + 64 * (turn % 3))
            got = grpc.ask("echo", data)
            if not (got == data).all() or (last is not None and not (last[0] == last[1]).all()):
                wrong.append(number)
            last = (got, data)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_shapes_that_change_all_the_time(client: Wrapped) -> None:
    rng = np.random.default_rng(8)
    for turn in range(40):
        data = numbers(turn, int(rng.integers(1, 300_000)))
        assert (client.ask("echo", data) == data).all()
    for turn in range(12):
        data = numbers(turn, 100_000 * (1 + turn % 3))
        assert (client.ask("echo", data) == data).all()
