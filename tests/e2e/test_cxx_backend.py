"""The mission's C++ backend (examples/unified_backend) behind the real server: it answers, and in place."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
from tritonclient.utils import InferenceServerException

from umo.prove import ProvedServer, describe, observe
from umo.server import TritonServer, default_backend_directory

MIB = 1 << 20

CONFIG = """backend: "umo_example"
max_batch_size: {batch}
instance_group [ {{ kind: KIND_CPU count: 2 }} ]
input [ {{ name: "input" data_type: TYPE_FP32 dims: [-1] }} ]
output [ {{ name: "output" data_type: TYPE_FP32 dims: [-1] }} ]
{more}
"""
OFF = 'parameters { key: "unified_memory" value { string_value: "{\\"enable\\": false}" } }'
BAD = 'parameters { key: "unified_memory" value { string_value: "{\\"enable\\": 7}" } }'


def write(repository: Path, models: list[tuple[str, int, str]]) -> Path:
    for name, batch, more in models:
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(CONFIG.format(batch=batch, more=more))
    return repository


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    models = [
        ("double", 0, ""),
        ("batched", 8, "dynamic_batching { max_queue_delay_microseconds: 2000 }"),
        ("off", 0, OFF),
        ("bad", 0, BAD),
    ]
    repository = write(tmp_path_factory.mktemp("models"), models)
    with TritonServer(repository, allow_failing=True) as running:
        yield running
        assert running.running, "the server died under the tests"


def ask(server: TritonServer, model: str, data: np.ndarray) -> np.ndarray:
    with grpcclient.InferenceServerClient(server.grpc_url) as client:
        tensor = grpcclient.InferInput("input", list(data.shape), "FP32")
        tensor.set_data_from_numpy(data)
        return client.infer(model, [tensor]).as_numpy("output")


@pytest.mark.parametrize("model", ["double", "off"])
@pytest.mark.parametrize("count", [0, 1, 1000, 300_000])
def test_every_size_is_answered(server: TritonServer, model: str, count: int) -> None:
    data = np.random.default_rng(count).standard_normal(count).astype(np.float32)
    if count == 0:
        with pytest.raises(InferenceServerException, match="at least one byte"):
            ask(server, model, data)
        return
    np.testing.assert_array_equal(ask(server, model, data), 2 * data)


def test_a_batch_of_requests_is_answered_one_by_one(server: TritonServer) -> None:
    rows = [np.full((1, 4096), i, np.float32) for i in range(32)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda row: ask(server, "batched", row), rows))
    for row, answer in zip(rows, answers, strict=True):
        np.testing.assert_array_equal(answer, 2 * row)


def test_a_bad_configuration_is_named_at_load(server: TritonServer) -> None:
    assert "unified_memory.enable is an integer; write true or false" in server.model_reason("bad")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProvedServer]:
    repository = write(tmp_path_factory.mktemp("proved"), [("double", 0, ""), ("off", 0, OFF)])
    with ProvedServer(repository, default_backend_directory()) as running:
        yield running


def look(served: ProvedServer, model: str, size: int):
    """What the witnesses see of a request of `size` bytes over system shared memory."""
    data = np.random.default_rng(size).standard_normal(size // 4).astype(np.float32)
    (one,) = observe(
        served,
        describe(model, served.http_url),
        inputs={"input": data},
        expected={"output": 2 * data},
        transports=("shm",),
        census=served.census.why_unavailable() is None,
    )
    assert one.wrong == ()
    assert one.bytes_in == one.bytes_out == size
    return one


def test_a_request_in_shared_memory_is_answered_without_a_copy(served: ProvedServer) -> None:
    """By the spy: no bytes through a copying call, the device's included, and as few at 16 MiB as at 2 MiB."""
    small, large = look(served, "double", 2 * MIB), look(served, "double", 16 * MIB)
    for one in (small, large):
        assert one.copied["backend"] == 0
        assert one.copied["server"] < MIB // 4
        assert sum(one.device_copied.values()) == 0
    assert abs(large.small["backend"] - small.small["backend"]) < 1024


def test_the_witnesses_see_the_copy_of_a_model_that_has_it_off(served: ProvedServer) -> None:
    one = look(served, "off", 4 * MIB)
    copied = one.copied["backend"] + sum(one.device_copied.values())
    assert 4 * MIB <= copied <= 8 * MIB


def test_the_pages_that_a_request_dirties_do_not_grow_with_it(served: ProvedServer) -> None:
    """Besides its output's own, which the witness knows. A copy of 64 MiB would be 16384 of them."""
    if (why := served.census.why_unavailable()) is not None:
        pytest.skip(f"no census on this machine: {why}")
    small = min(look(served, "double", 2 * MIB).pages_outside for _ in range(3))
    large = min(look(served, "double", 64 * MIB).pages_outside for _ in range(3))
    assert large - small < 256, (small, large)
