"""Decoupled models behind the real server: any number of responses a request, over a gRPC stream.

umo_identity answers each request `repeat` times from a thread of its own, which goes on when execute has returned.
"""

from __future__ import annotations

import json
import mmap
import os
import queue
import secrets
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from umo.server import Metrics, TritonServer

RNG = np.random.default_rng(3)
WAIT_S = 30.0


def config(
    name: str, *, dtype: str = "FP32", batch: int = 0, decoupled: bool = True, extra: str = "", **parameters: str
) -> str:
    text = (
        f'name: "{name}"\nbackend: "umo_identity"\nmax_batch_size: {batch}\n'
        f'input [ {{ name: "INPUT0" data_type: TYPE_{dtype} dims: [ -1 ] }} ]\n'
        f'output [ {{ name: "OUTPUT0" data_type: TYPE_{dtype} dims: [ -1 ] }} ]\n'
        f"instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n{extra}"
    )
    if decoupled:
        text += "model_transaction_policy { decoupled: true }\n"
    for key, value in parameters.items():
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
    return text


MODELS = [
    config("five", repeat="5"),
    config("one", batch=8),
    config("none", repeat="0"),
    config("strings", dtype="STRING", repeat="3"),
    config("bad_third", repeat="5", error_at="3"),
    config("told", repeat="4", error_at="3"),
    config("thousands", repeat="3000", response_slots="4"),
    config("slow", repeat="100000", response_delay_us="2000"),
    config("paced", repeat="6", response_delay_us="100000"),
    config(
        "batched",
        batch=8,
        repeat="3",
        extra="dynamic_batching { max_queue_delay_microseconds: 300000 preferred_batch_size: [ 4 ] }\n",
    ),
    config("single", decoupled=False, delay_us="400000"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("models")
    names = [text.split('"')[1] for text in MODELS]
    for name, text in zip(names, MODELS, strict=True):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text)
    with TritonServer(repository, explicit=True, load_models=names) as running:
        yield running


class Stream:
    """A gRPC stream whose answers are taken one by one: (request id, array or error, is it the end)."""

    def __init__(self, server: TritonServer) -> None:
        self.client = grpcclient.InferenceServerClient(server.grpc_url)
        self._answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self._answers.put((result, error)))

    def ask(self, model: str, data: np.ndarray, request_id: str = "", dtype: str = "FP32", **more: Any) -> None:
        given = grpcclient.InferInput("INPUT0", list(data.shape), dtype)
        given.set_data_from_numpy(data)
        self.client.async_stream_infer(model, [given], request_id=request_id, enable_empty_final_response=True, **more)

    def take(self, shared: bool = False) -> tuple[str, np.ndarray | Exception | None, bool]:
        """In shared memory there is nothing to take: then the answer is None."""
        result, error = self._answers.get(timeout=WAIT_S)
        if error is not None:
            return "", error, False
        response = result.get_response()
        final = response.parameters["triton_final_response"].bool_param
        return response.id, None if shared else result.as_numpy("OUTPUT0"), final

    def all(self) -> list[np.ndarray | Exception]:
        """Everything until the end of one request, whose end is an empty response."""
        answers: list[np.ndarray | Exception] = []
        while True:
            _, answer, final = self.take()
            if answer is not None:
                answers.append(answer)
            if final:
                return answers


def post(server: TritonServer, path: str) -> None:
    request = urllib.request.Request(f"http://{server.http_url}{path}", data=b"{}", method="POST")
    with urllib.request.urlopen(request, timeout=WAIT_S):
        pass


def counted(server: TritonServer, before: Metrics, model: str, successes: float) -> Metrics:
    """What moved since, once the server has counted its last answers: it answers first."""
    for _ in range(100):
        moved = server.metrics().since(before)
        if moved.value("nv_inference_request_success", model=model) >= successes:
            break
        time.sleep(0.02)
    assert moved.value("nv_inference_request_success", model=model) == successes
    return moved


@contextmanager
def stream_to(server: TritonServer) -> Iterator[Stream]:
    stream = Stream(server)
    try:
        yield stream
    finally:
        stream.client.stop_stream(cancel_requests=True)
        stream.client.close()


def test_every_response_arrives_and_then_the_end(server: TritonServer) -> None:
    data = RNG.random(1000, np.float32)
    with stream_to(server) as stream:
        for model, count in (("five", 5), ("none", 0), ("thousands", 3000)):
            stream.ask(model, data)
            answers = stream.all()
            assert len(answers) == count
            assert all(np.array_equal(answer, data) for answer in answers)


def test_strings_stream_too(server: TritonServer) -> None:
    data = np.array([b"", b"a", b"token \xff", b"x" * 5000], dtype=np.object_)
    with stream_to(server) as stream:
        stream.ask("strings", data, dtype="BYTES")
        answers = stream.all()
    assert [list(answer) for answer in answers] == [list(data)] * 3


def test_an_error_in_the_middle_ends_one_response_and_not_the_request(server: TritonServer) -> None:
    data = RNG.random(10, np.float32)
    with stream_to(server) as stream:
        stream.ask("bad_third", data)
        answers = stream.all()
    assert [isinstance(answer, Exception) for answer in answers] == [False, False, True, False, False]
    assert "because of error_at" in str(answers[2])


def responses(
    server: TritonServer, model: str, ends: int = 0, end: str = "empty_response"
) -> dict[str, dict[str, int]]:
    """How many responses of each number the server was told of, by outcome; once it was told of so many ends."""
    outcomes = ("success", "fail", "empty_response", "cancel")
    for _ in range(100):
        with urllib.request.urlopen(f"http://{server.http_url}/v2/models/{model}/stats", timeout=WAIT_S) as answer:
            rows = json.load(answer)["model_stats"][0].get("response_stats", {})
        told = {number: {what: row[what]["count"] for what in outcomes} for number, row in rows.items()}
        if sum(row[end] for row in told.values()) >= ends:
            return told
        time.sleep(0.02)
    raise AssertionError(told)


def test_the_server_s_statistics_have_each_response(server: TritonServer) -> None:
    data = RNG.random(1 << 20, np.float32)
    full = {"success": 1, "fail": 0, "empty_response": 0, "cancel": 0}
    failed = {"success": 0, "fail": 1, "empty_response": 0, "cancel": 0}
    end = {"success": 0, "fail": 0, "empty_response": 1, "cancel": 0}
    with stream_to(server) as stream:
        stream.ask("told", data)
        assert len(stream.all()) == 4
    assert responses(server, "told", ends=1) == {"0": full, "1": full, "2": failed, "3": full, "4": end}
    with urllib.request.urlopen(f"http://{server.http_url}/v2/models/told/stats", timeout=WAIT_S) as answer:
        first = json.load(answer)["model_stats"][0]["response_stats"]["0"]
    assert first["compute_infer"]["count"] == first["compute_output"]["count"] == 1
    assert 0 < first["compute_infer"]["ns"] < WAIT_S * 1e9 and 0 < first["compute_output"]["ns"] < WAIT_S * 1e9
    assert responses(server, "single") == {}, "a model that is not decoupled has none"


def test_requests_of_one_stream_are_answered_side_by_side(server: TritonServer) -> None:
    """One instance, and still the second request does not wait for the first one's end: execute has returned."""
    first, second = RNG.random(50, np.float32), RNG.random(60, np.float32)
    with stream_to(server) as stream:
        stream.ask("paced", first, "first")
        stream.ask("paced", second, "second")
        order = []
        while len([1 for _, final in order if final]) < 2:
            request, answer, final = stream.take()
            order.append((request, final))
            if answer is not None:
                assert np.array_equal(answer, first if request == "first" else second)
    assert order.index(("second", False)) < order.index(("first", True))
    assert len(order) == 2 * 6 + 2


def test_requests_of_a_batch_have_their_own_ends(server: TritonServer) -> None:
    before = server.metrics()
    with stream_to(server) as stream:
        sent = {str(i): RNG.random((1, 500), np.float32) for i in range(4)}
        for request, data in sent.items():
            stream.ask("batched", data, request)
        answers: dict[str, int] = dict.fromkeys(sent, 0)
        ends = 0
        while ends < 4:
            request, answer, final = stream.take()
            ends += final
            if answer is not None:
                assert np.array_equal(answer, sent[request])
                answers[request] += 1
        assert set(answers.values()) == {3}
    moved = server.metrics().since(before)
    assert moved.value("nv_inference_exec_count", model="batched") == 1
    assert moved.value("umo_copy_bytes_total", model="batched", direction="in", reason="outlives") == 4 * 2000


def test_a_model_without_a_stream_answers_once(server: TritonServer) -> None:
    """A decoupled model that happens to answer once may be asked as any other over gRPC's stream only."""
    data = RNG.random((1, 5), np.float32)
    with stream_to(server) as stream:
        stream.ask("one", data)
        assert [np.array_equal(answer, data) for answer in stream.all()] == [True]
        given = grpcclient.InferInput("INPUT0", [1, 5], "FP32")
        given.set_data_from_numpy(data)
        with pytest.raises(InferenceServerException, match="decoupled"):
            stream.client.infer("one", [given])


def test_shared_memory_is_written_in_place_response_by_response(server: TritonServer) -> None:
    """All responses of a request have one place. A client that is quick enough sees each of them; nothing tells the
    server that it was."""
    count = 1 << 18
    size = 4 * count
    data = RNG.random(count, np.float32)
    name = f"umo-test-{os.getpid()}-{secrets.token_hex(4)}"
    path = Path("/dev/shm") / name
    path.write_bytes(bytes(2 * size))
    with path.open("r+b") as file:
        region = mmap.mmap(file.fileno(), 2 * size)
    seen = np.frombuffer(region, np.float32)
    seen[:count] = data
    before = server.metrics()
    with stream_to(server) as stream:
        stream.client.register_system_shared_memory(name, f"/{name}", 2 * size)
        given = grpcclient.InferInput("INPUT0", [count], "FP32")
        given.set_shared_memory(name, size, 0)
        wanted = grpcclient.InferRequestedOutput("OUTPUT0")
        wanted.set_shared_memory(name, size, size)
        stream.client.async_stream_infer("paced", [given], outputs=[wanted], enable_empty_final_response=True)
        responses = 0
        while True:
            _, answer, final = stream.take(shared=True)
            assert answer is None
            if final:
                break
            responses += 1
            assert np.array_equal(seen[count:], data)
            seen[count:] = 0  # the next one comes in 100 ms
        assert responses == 6
        for _ in range(100):
            try:
                stream.client.unregister_system_shared_memory(name)
                break
            except InferenceServerException as error:
                assert "in use" in str(error)
                time.sleep(0.01)
    path.unlink()
    moved = server.metrics().since(before)
    assert not [s for s in moved.select("umo_copy_bytes_total", model="paced") if s.value]
    assert moved.value("umo_copy_avoided_bytes_total", model="paced", direction="out") == 6 * size


def test_a_stream_that_is_cancelled_ends(server: TritonServer) -> None:
    """100,000 responses at 2 ms would take minutes; the model can be unloaded as soon as its client has gone."""
    stream = Stream(server)
    stream.ask("slow", RNG.random(10, np.float32))
    for _ in range(5):
        stream.take()
    stream.client.stop_stream(cancel_requests=True)
    stream.client.close()
    told = responses(server, "slow", ends=1, end="cancel")
    assert [row for row in told.values() if row["cancel"]] == [told[str(len(told) - 1)]], "the last one alone"
    assert sum(row["success"] for row in told.values()) == len(told) - 1 >= 5
    started = time.monotonic()
    server.unload("slow")
    assert time.monotonic() - started < 10
    server.load("slow")


def test_a_model_that_is_unloaded_sends_its_last_responses(server: TritonServer) -> None:
    """Release 24.10 itself keeps a decoupled model until the streams that asked for it are closed."""
    data = RNG.random(10, np.float32)
    with stream_to(server) as stream:
        stream.ask("paced", data)
        stream.take()
        post(server, "/v2/repository/models/paced/unload")
        answers = stream.all()
        assert len(answers) == 5
        assert all(np.array_equal(answer, data) for answer in answers)
        assert server.model_state("paced") == "UNLOADING"
    server.unload("paced")
    server.load("paced")
    with stream_to(server) as stream:
        stream.ask("paced", data)
        assert len(stream.all()) == 6


def test_a_request_that_is_cancelled_in_the_queue_or_in_the_middle_stops(server: TritonServer) -> None:
    """One instance that takes 400 ms a request: the second is cancelled while it runs, the third before it does."""
    before = server.metrics()
    answers: queue.Queue[tuple[str, Any]] = queue.Queue()
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        given = grpcclient.InferInput("INPUT0", [3], "FP32")
        given.set_data_from_numpy(np.zeros(3, np.float32))
        calls = {}
        started = time.monotonic()
        for name in ("first", "second", "third"):
            calls[name] = client.async_infer(
                "single", [given], lambda result, error, name=name: answers.put((name, error))
            )
            time.sleep(0.05)
        time.sleep(0.4)  # the second is under way
        calls["third"].cancel()
        calls["second"].cancel()
        outcome = dict(answers.get(timeout=WAIT_S) for _ in calls)
        assert outcome["first"] is None
        assert "cancel" in str(outcome["second"]).lower()
        assert "cancel" in str(outcome["third"]).lower()
        client.infer("single", [given])
        assert time.monotonic() - started < 1.3  # four times 400 ms would be 1.6 s
    counted(server, before, "single", 2)
