"""What umo says of itself, held against witnesses that do not trust it: nobody copies what it says nobody copies.

The tracker (umo's counters on /metrics) is compared with the symbol spy byte by byte, with the census in pages over
what a backend that touches nothing dirties, and with the slope of instructions.
"""

from __future__ import annotations

import json
import mmap
import os
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from umo.models import big, onnx_graph
from umo.prove import Census, ProvedServer, SlopeUnavailable, Spy, describe, observe, slope
from umo.prove.slope import find_inproc_infer, find_server_library
from umo.server import default_backend_directory, find_onnxruntime, find_tritonserver

MIB = 1 << 20
SIZE = 16 * MIB
CENSUS_SIZE = 64 * MIB
TRANSPORTS = ("shm", "http", "grpc")
MAX_PAGES = 32
KERNEL = """__kernel void twice(__global const uchar *restrict in, __global uchar *restrict out)
{
    const size_t i = get_global_id(0);
    out[i] = (uchar)(2 * in[i]);
}
"""


def tensor(name: str, dtype: str) -> str:
    return f'[ {{ name: "{name}" data_type: TYPE_{dtype} dims: [ -1 ] }} ]'


def parameter(key: str, value: object) -> str:
    return f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(json.dumps(value))} }} }}\n"


def write(repository: Path, name: str, backend: str, dtype: str, names: tuple[str, str], more: str = "") -> Path:
    version = repository / name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(
        f'name: "{name}"\nbackend: "{backend}"\nmax_batch_size: 0\ninput {tensor(names[0], dtype)}\n'
        f"output {tensor(names[1], dtype)}\ninstance_group [ {{ kind: KIND_CPU count: 1 }} ]\n{more}"
    )
    return version


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    relu = big.relu()
    relu_names = (relu.graph.input[0].name, relu.graph.output[0].name)
    kernel = {
        "file": "model.cl",
        "function": "twice",
        "arguments": [{"input": "IN"}, {"output": "OUT"}],
        "global_size": ["IN[0]"],
        "outputs": {"OUT": ["IN[0]"]},
    }
    write(folder, "null", "null", "UINT8", ("IN", "OUT"))
    for variant in (True, False):
        unified = parameter("unified_memory", {"enable": variant})
        suffix = "on" if variant else "off"
        version = write(folder, f"relu_{suffix}", "umo_onnxruntime", "FP32", relu_names, unified)
        onnx_graph.save(relu, version / "model.onnx")
        version = write(
            folder, f"twice_{suffix}", "umo_kernel", "UINT8", ("IN", "OUT"), unified + parameter("kernel", kernel)
        )
        (version / "model.cl").write_text(KERNEL)
    return folder


@pytest.fixture(scope="module")
def served(repository: Path) -> Iterator[ProvedServer]:
    with ProvedServer(repository, default_backend_directory()) as server:
        yield server


def tracked(served: ProvedServer, model: str, ask) -> dict[str, float]:
    """What umo's counters say of the requests that `ask` sends."""
    before = served.server.metrics()
    ask()
    moved = served.server.metrics().since(before)
    figures: dict[str, float] = {}
    for family in ("umo_copy_bytes_total", "umo_transfer_bytes_total"):
        for sample in moved.select(family, model=model):
            key = sample.labels.get("outcome", "copied")
            figures[key] = figures.get(key, 0) + sample.value
    return figures


def tensors(model: str, size: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """What to ask a model with, and the right answer, computed here in private memory."""
    rng = np.random.default_rng(11)
    if model.startswith("relu"):
        graph = big.relu().graph
        values = rng.standard_normal(size // 4).astype(np.float32)
        return {graph.input[0].name: values}, {graph.output[0].name: np.maximum(values, 0)}
    values = rng.integers(0, 256, size, dtype=np.uint8)
    return {"IN": values}, ({"OUT": values * np.uint8(2)} if model.startswith("twice") else None)


def look(served: ProvedServer, model: str, transport: str, size: int = SIZE):
    """One observation of a model over a transport, and what the tracker counted for the same requests."""
    spec = describe(model, served.http_url)
    inputs, expected = tensors(model, size)
    seen = []

    def ask() -> None:
        seen.extend(
            observe(
                served,
                spec,
                inputs=inputs,
                expected=expected,
                verify=expected is not None,
                transports=(transport,),
                census=transport == "shm" and served.census.why_unavailable() is None,
                requests=3,
                warmup=2,
            )  # fmt: skip
        )

    figures = tracked(served, model, ask)
    return seen[0], figures


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("model", ["relu_on", "twice_on"])
def test_unified_memory_copies_nothing_by_spy_and_by_tracker(served: ProvedServer, model: str, transport: str) -> None:
    one, figures = look(served, model, transport)
    assert one.wrong == ()
    assert one.bytes_in == SIZE
    assert one.copied["backend"] == 0 and one.small["backend"] < 1024
    assert sum(one.device_copied.values()) == 0
    assert figures.get("copied", 0) == 0 and figures.get("performed", 0) == 0
    if model == "twice_on":
        requests = figures["eliminated"] / (2 * SIZE)
        assert requests >= 3 and requests == int(requests)


class Stepped:
    """A server in the process of `inproc_infer`, without a network: what a request dirties is core's, the backend's and
    the engine's alone. Tensors lie in shared memory; rounds run one at a time."""

    ROUNDS = 6

    def __init__(self, repository: Path, model: str, size: int, folder: Path) -> None:
        arrays, _ = tensors(model, size)
        ((name, array),) = arrays.items()
        dtype = "FP32" if array.dtype == np.float32 else "UINT8"
        output = big.relu().graph.output[0].name if model.startswith("relu") else "OUT"
        environment = {
            **os.environ,
            **Spy.environment(folder / f"spy-{model}-{size}"),
            "UMO_ONNXRUNTIME": str(find_onnxruntime()),
        }
        self._process = subprocess.Popen(
            [
                str(find_inproc_infer()), "--lib", str(find_server_library(find_tritonserver())), "--step", "--shm",
                "--repo", str(repository), "--backends", str(default_backend_directory()), "--model", model,
                "--input", f"{name}:{dtype}:{array.size}", "--output", f"{output}:{size}",
                "--requests", str(self.ROUNDS), "--warmup", "3",
            ],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._wait()
        self.census = Census(Spy(folder / f"spy-{model}-{size}").file(self._process.pid))
        self._size, self._model = size, model

    def _wait(self) -> None:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line == "ready\n", line

    def pages(self) -> list[int]:
        """Of each round but the last: pages dirtied besides the output's."""
        assert self._process.stdin is not None
        found = []
        for _ in range(self.ROUNDS - 1):
            self.census.arm()
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            self._wait()
            report = self.census.scan()
            written = 0 if self._model == "null" else self._size // mmap.PAGESIZE
            assert report.by_kind().get("shared", 0) >= written, "the output was not seen"
            found.append(report.dirty_pages + report.vanished_pages - written)
        self._process.stdin.write("\n")
        self._process.stdin.close()
        assert self._process.wait(timeout=60) == 0
        return found


@pytest.mark.parametrize(("model", "limit"), [("relu_on", MAX_PAGES), ("twice_on", 2 * MAX_PAGES)])
def test_a_64_mb_request_dirties_few_pages_besides_its_output(
    served: ProvedServer, repository: Path, tmp_path: Path, model: str, limit: int
) -> None:
    """Besides what core dirties for a backend that touches nothing. PoCL alone dirties some 30 pages a launch (its
    command, its worker's stack, its events), so a kernel has twice the room; what counts is that a tensor of 2 MB takes
    as many pages as one of 64 MB."""
    if (why := served.census.why_unavailable()) is not None:
        pytest.skip(f"no census on this machine: {why}")
    floor = statistics.median(Stepped(repository, "null", CENSUS_SIZE, tmp_path).pages())
    large = statistics.median(Stepped(repository, model, CENSUS_SIZE, tmp_path).pages())
    small = statistics.median(Stepped(repository, model, 2 * MIB, tmp_path).pages())
    assert large - floor <= limit, (large, floor)
    assert abs(large - small) <= MAX_PAGES // 2, (large, small)


@pytest.mark.parametrize("model", ["relu_on", "twice_on"])
def test_behind_the_network_umo_and_the_engine_dirty_few_pages_more(served: ProvedServer, model: str) -> None:
    if (why := served.census.why_unavailable()) is not None:
        pytest.skip(f"no census on this machine: {why}")
    # The server's own pages (stacks, gRPC) vary by some ten from request to request: the least of three is compared.
    floor = min(look(served, "null", "shm", CENSUS_SIZE)[0].pages_outside for _ in range(3))
    pages = min(look(served, model, "shm", CENSUS_SIZE)[0].pages_outside for _ in range(3))
    copied = CENSUS_SIZE // mmap.PAGESIZE
    assert pages - floor < copied // 100, f"{pages} pages, of which {floor} are the server's own"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_conventional_way_copies_what_the_tracker_says(served: ProvedServer, transport: str) -> None:
    one, figures = look(served, "relu_off", transport)
    assert one.wrong == ()
    assert one.copied["backend"] == SIZE, "the conventional way copies the output once"
    requests = figures["copied"] / SIZE
    assert requests >= 3 and requests == int(requests)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_conventional_way_to_a_device_transfers_what_the_tracker_says(served: ProvedServer, transport: str) -> None:
    one, figures = look(served, "twice_off", transport)
    assert one.wrong == ()
    assert sum(one.device_copied.values()) == 2 * SIZE, "one copy in and one out, through the device's own calls"
    requests = figures["performed"] / (2 * SIZE)
    assert requests >= 3 and requests == int(requests)


@pytest.mark.parametrize(("model", "dtype", "item"), [("relu_on", "FP32", 4), ("twice_on", "UINT8", 1)])
def test_instructions_do_not_grow_with_the_tensor(repository: Path, model: str, dtype: str, item: int) -> None:
    name = next(iter(tensors(model, MIB)[0]))
    sizes = [MIB, 4 * MIB, 16 * MIB, 64 * MIB]
    try:
        report = slope(
            model, repository, default_backend_directory(), lambda size: [f"{name}:{dtype}:{size // item}"], sizes=sizes
        )
    except SlopeUnavailable as why:
        pytest.skip(str(why))
    assert report.engine_objects, "the engine did not run"
    assert report.total.is_flat(), report
