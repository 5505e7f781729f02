"""Sequences behind the real server: controls, implicit states that stay where they are, and the rows of empty slots.

umo_identity is the engine: the parameter `sources` says which input each output and each state is made of, so a delay
line is `OUTPUT0=PAST,FUTURE=INPUT0`: the client gets what the request before brought.
"""

from __future__ import annotations

import concurrent.futures
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from umo.prove import ProvedServer
from umo.server import Metrics, TritonServer, default_backend_directory

RNG = np.random.default_rng(5)
LENGTH = 1 << 16
DELAY_LINE = "OUTPUT0=PAST,FUTURE=INPUT0"


def state(more: str = "", kind: str = "FP32", dims: str = str(LENGTH), out: str = "FUTURE") -> str:
    return (
        f'state [ {{ input_name: "PAST" output_name: "{out}" data_type: TYPE_{kind} dims: [ {dims} ] {more} '
        f'initial_state {{ name: "zero" data_type: TYPE_{kind} dims: [ {dims.replace("-1", "1")} ] zero_data: true }} '
        "} ]"
    )


def control(name: str, kind: str, values: str) -> str:
    return f'control_input [ {{ name: "{name}" control [ {{ kind: CONTROL_SEQUENCE_{kind} {values} }} ] }} ]'


def config(
    name: str,
    sequence: str,
    *,
    kind: str = "FP32",
    out: str = "FP32",
    dims: str = "-1",
    batch: int = 0,
    **parameters: str,
) -> str:
    text = (
        f'name: "{name}"\nbackend: "umo_identity"\nmax_batch_size: {batch}\n'
        f'input [ {{ name: "INPUT0" data_type: TYPE_{kind} dims: [ {dims} ] }} ]\n'
        f'output [ {{ name: "OUTPUT0" data_type: TYPE_{out} dims: [ {dims} ] }} ]\n'
        f"instance_group [ {{ kind: KIND_CPU count: 1 }} ]\nsequence_batching {{ {sequence} }}\n"
    )
    for key, value in parameters.items():
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
    return text


MODELS = [
    config("oldest", f"oldest {{ max_candidate_sequences: 8 }} {state()}", sources=DELAY_LINE),
    config("direct", f"direct {{ }} {state()}", sources=DELAY_LINE),
    config("off", f"oldest {{ }} {state()}", sources=DELAY_LINE, unified_memory='{"enable": false}'),
    config(
        "one_memory",
        f"oldest {{ }} {state('use_same_buffer_for_input_output: true')}",
        sources="OUTPUT0=PAST,FUTURE=INPUT0",
    ),
    config(
        "kept",
        f"oldest {{ }} {state('use_same_buffer_for_input_output: true')}",
        sources="OUTPUT0=INPUT0,FUTURE=PAST",
    ),
    config("also_output", f"oldest {{ }} {state(out='OUTPUT0')}", sources="OUTPUT0=INPUT0"),
    config(
        "strings",
        f"oldest {{ }} {state(kind='STRING', dims='-1')}",
        kind="STRING",
        out="STRING",
        sources=DELAY_LINE,
    ),
    config(
        "slots",
        f"direct {{ }} {control('READY', 'READY', 'int32_false_true: [ 0, 1 ]')} {state()}",
        batch=4,
        sources=DELAY_LINE,
    ),
    config(
        "string_slots",
        f"direct {{ }} {control('READY', 'READY', 'int32_false_true: [ 0, 1 ]')} {state(kind='STRING', dims='2')}",
        kind="STRING",
        out="STRING",
        dims="2",
        batch=4,
        sources=DELAY_LINE,
    ),
    config(
        "candidates",
        "oldest { max_candidate_sequences: 8 max_queue_delay_microseconds: 100000 preferred_batch_size: [ 4 ] } "
        + state(),
        batch=4,
        sources=DELAY_LINE,
    ),
    config("growable", f"oldest {{ }} {state('use_growable_memory: true use_same_buffer_for_input_output: true')}"),
    *(
        config(
            f"control_{name}",
            f"oldest {{ }} {control('CONTROL', kind, values)}",
            out=dtype,
            dims="1",
            sources="OUTPUT0=CONTROL",
        )
        for name, kind, values, dtype in [
            ("start", "START", "fp32_false_true: [ 0.5, 1.5 ]", "FP32"),
            ("end", "END", "bool_false_true: [ false, true ]", "BOOL"),
            ("ready", "READY", "int32_false_true: [ 7, 8 ]", "INT32"),
            ("number", "CORRID", "data_type: TYPE_UINT64", "UINT64"),
            ("name", "CORRID", "data_type: TYPE_STRING", "STRING"),
        ]
    ),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("models")
    for text in MODELS:
        name = text.split('"')[1]
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(text)
    with TritonServer(repository) as running:
        yield running


@contextmanager
def client_of(server: TritonServer) -> Iterator[grpcclient.InferenceServerClient]:
    client = grpcclient.InferenceServerClient(server.grpc_url)
    try:
        yield client
    finally:
        client.close()


def step(
    client: grpcclient.InferenceServerClient,
    model: str,
    sequence: int | str,
    data: np.ndarray,
    kind: str = "FP32",
    **more: Any,
) -> np.ndarray:
    given = grpcclient.InferInput("INPUT0", list(data.shape), kind)
    given.set_data_from_numpy(data)
    answer = client.infer(model, [given], sequence_id=sequence, **more).as_numpy("OUTPUT0")
    assert answer is not None
    return answer


def counted(server: TritonServer, before: Metrics, model: str, successes: float) -> Metrics:
    """What moved since, once the server has counted its last answers: it answers first."""
    for _ in range(100):
        moved = server.metrics().since(before)
        if moved.value("nv_inference_request_success", model=model) >= successes:
            break
        time.sleep(0.02)
    assert moved.value("nv_inference_request_success", model=model) == successes
    return moved


def copies(moved: Metrics, model: str) -> dict[str, float]:
    return {
        f"{sample.labels['direction']}:{sample.labels['reason']}": sample.value
        for sample in moved.select("umo_copy_bytes_total", model=model)
        if sample.value
    }


@pytest.mark.parametrize(
    ("model", "copied"),
    [
        ("oldest", {}),
        ("direct", {}),
        # The engine reads what it is to overwrite, and does not say that it can bear that.
        ("one_memory", {"out:overlap": 6 * 4 * LENGTH}),
        ("off", {"out:disabled": 2 * 6 * 4 * LENGTH}),
    ],
)
def test_a_state_is_what_the_request_before_brought(server: TritonServer, model: str, copied: dict[str, float]) -> None:
    before = server.metrics()
    with client_of(server) as client:
        for sequence in (11, 12):
            past = np.zeros(LENGTH, np.float32)
            for number in range(3):
                data = RNG.random(LENGTH, np.float32)
                answer = step(client, model, sequence, data, sequence_start=number == 0, sequence_end=number == 2)
                assert np.array_equal(answer, past)
                past = data
    assert copies(server.metrics().since(before), model) == copied


def test_an_engine_that_writes_what_it_has_read_needs_no_second_memory(server: TritonServer) -> None:
    before = server.metrics()
    with client_of(server) as client:
        for number in range(3):
            data = RNG.random(LENGTH, np.float32)
            assert np.array_equal(step(client, "kept", 3, data, sequence_start=number == 0), data)
    assert copies(server.metrics().since(before), "kept") == {}


def test_the_spy_sees_no_copy_of_a_state(tmp_path: Path) -> None:
    """umo's counters are held against a spy on memcpy, with an engine that touches nothing: what is copied is umo's."""
    for name, unified in (("on", "{}"), ("off", '{"enable": false}')):
        version = tmp_path / name / "1"
        version.mkdir(parents=True)
        text = config(name, f"oldest {{ }} {state()}", dims="1", mode="touch_nothing", unified_memory=unified)
        (version.parent / "config.pbtxt").write_text(text)
    with ProvedServer(tmp_path, default_backend_directory()) as served, client_of(served.server) as client:
        for name in ("on", "off"):
            step(client, name, 1, np.zeros(1, np.float32), sequence_start=True)
            before = served.spy.settle()
            for _ in range(10):
                step(client, name, 1, np.zeros(1, np.float32))
            copied = (served.spy.settle() - before).bytes("backend")
            if name == "on":
                assert copied < 4 * LENGTH / 10, copied
            else:
                assert copied >= 10 * 4 * LENGTH, copied


def test_an_output_that_is_a_state_is_copied_to_the_client(server: TritonServer) -> None:
    before = server.metrics()
    with client_of(server) as client:
        for number in range(3):
            data = RNG.random(LENGTH, np.float32)
            assert np.array_equal(step(client, "also_output", 3, data, sequence_start=number == 0), data)
    assert copies(server.metrics().since(before), "also_output") == {"out:state": 3 * 4 * LENGTH}


def test_a_state_of_strings(server: TritonServer) -> None:
    words = [np.array([b"one"], object), np.array([b"two", b"", b"x" * 3000], object), np.array([b"end"], object)]
    with client_of(server) as client:
        answers = [
            list(step(client, "strings", 9, data, "BYTES", sequence_start=number == 0))
            for number, data in enumerate(words)
        ]
    assert answers == [[b""], [b"one"], [b"two", b"", b"x" * 3000]]


@pytest.mark.parametrize("model", ["slots", "candidates"])
def test_sequences_of_a_batch_keep_their_states_apart(server: TritonServer, model: str) -> None:
    """Eight at once on four slots (or candidates): requests of unlike sequences share batches, empty slots between."""
    before = server.metrics()

    def run(sequence: int) -> None:
        rng = np.random.default_rng(sequence)
        with client_of(server) as client:
            past = np.zeros((1, LENGTH), np.float32)
            for number in range(12):
                data = rng.random((1, LENGTH), np.float32)
                answer = step(
                    client, model, 100 + sequence, data, sequence_start=number == 0, sequence_end=number == 11
                )
                assert np.array_equal(answer, past)
                past = data

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(run, sequence) for sequence in range(8)]:
            future.result()
    moved = counted(server, before, model, 8 * 12)
    assert set(copies(moved, model)) <= {"in:scattered", "out:scattered"}


def test_slots_of_strings_between_empty_ones(server: TritonServer) -> None:
    """What the server puts into an empty slot is no strings, but whatever lay in its heap."""
    with client_of(server) as client:

        def ask(sequence: int, word: bytes, **more: Any) -> list[bytes]:
            data = np.array([[word, b"x" * 100]], object)
            return list(step(client, "string_slots", sequence, data, "BYTES", **more)[0])

        for sequence in (1, 2, 3):
            assert ask(sequence, b"first", sequence_start=True) == [b"", b""]
        assert ask(3, b"second") == [b"first", b"x" * 100]  # slots 0 and 1 are empty
        assert ask(2, b"second", sequence_end=True) == [b"first", b"x" * 100]
        assert ask(3, b"third", sequence_end=True) == [b"second", b"x" * 100]


@pytest.mark.parametrize(
    ("model", "answers"),
    [
        ("control_start", [1.5, 0.5, 0.5]),
        ("control_end", [False, False, True]),
        ("control_ready", [8, 8, 8]),
        ("control_number", [4711, 4711, 4711]),
        ("control_name", [b"a client's own name"] * 3),
    ],
)
def test_controls_are_inputs(server: TritonServer, model: str, answers: list[Any]) -> None:
    sequence = "a client's own name" if model == "control_name" else 4711
    with client_of(server) as client:
        got = [
            step(client, model, sequence, np.zeros(1, np.float32), sequence_start=number == 0, sequence_end=number == 2)
            for number in range(3)
        ]
    assert [answer[0] for answer in got] == answers


def test_a_state_that_grows_says_what_it_lacks(server: TritonServer) -> None:
    """A server without CUDA accepts use_growable_memory and delivers no state (seen)."""
    with client_of(server) as client, pytest.raises(InferenceServerException, match="state 'PAST'.*is missing.*CUDA"):
        step(client, "growable", 5, np.zeros(LENGTH, np.float32), sequence_start=True)
