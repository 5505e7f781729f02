"""Models of several kernels behind the real server: order, memory between them, files, optional and ragged inputs."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as httpclient

from umo.server import TritonServer

RNG = np.random.default_rng(44)
KINDS = {"uint8": "UINT8", "float32": "FP32", "int32": "INT32"}

PROGRAM = """
__kernel void times(__global const float *in, __global float *out)
{
    out[get_global_id(0)] = FACTOR * in[get_global_id(0)];
}
__kernel void square(__global const float *in, __global float *out)
{
    out[get_global_id(0)] = in[get_global_id(0)] * in[get_global_id(0)];
}
"""
OTHER = """
__kernel void add(__global const float *in, __global float *out, float what)
{
    out[get_global_id(0)] = in[get_global_id(0)] + what;
}
__kernel void count(__global const uchar *values, __global int *counts)
{
    atomic_inc(&counts[values[get_global_id(0)]]);
}
__kernel void hand_over(__global const int *counts, __global int *out)
{
    out[get_global_id(0)] = counts[get_global_id(0)];
}
__kernel void biased(__global const float *x, __global const float *bias, uchar there, __global float *y)
{
    y[get_global_id(0)] = x[get_global_id(0)] + (there ? bias[get_global_id(0)] : 100.0f);
}
__kernel void fill(__global float *y) { y[get_global_id(0)] = get_global_id(0); }
__kernel void twice(__global float *y) { y[get_global_id(0)] *= 2; }
__kernel void sums(__global const float *x, __global const float *ends, __global float *y)
{
    int r = get_global_id(0), first = r > 0 ? (int)ends[r - 1] : 0;
    float sum = 0;
    for (int i = first; i < (int)ends[r]; i++) {
        sum += x[i];
    }
    y[r] = sum;
}
"""
FILES = {"model.cl": PROGRAM, "other.cl": OTHER}

FLOATS = '{{ name: "{}" data_type: TYPE_FP32 dims: [ -1 ] {} }}'
BATCHING = "dynamic_batching { max_queue_delay_microseconds: 50000 preferred_batch_size: [ 8 ] }"


def kernel(function: str, arguments: Sequence[Any], size: Any, **more: Any) -> dict[str, Any]:
    return {"function": function, "arguments": list(arguments), "global_size": [size], **more}


def use(name: str, what: str) -> dict[str, str]:
    return {"intermediate": name, "use": what}


def between(**dims: Any) -> dict[str, Any]:
    return {name: {"dtype": "FP32", "dims": list(value)} for name, value in dims.items()}


ALL = "batch*X[0]"
X, Y = {"input": "X"}, {"output": "Y"}
CHAIN: dict[str, Any] = {
    "options": "-DFACTOR=3",
    "intermediates": between(A=["batch", "X[0]"], B=["batch", "A[1]"], C=["batch", "X[0]"]),
    "kernels": [
        kernel("times", [X, use("A", "write")], ALL),
        kernel(
            "add",
            [use("A", "read"), use("B", "write"), {"parameter": "what", "type": "float32"}],
            ALL,
            file="other.cl",
        ),
        kernel("times", [use("B", "read"), use("C", "write")], ALL, options="-DFACTOR=5"),
        kernel("square", [use("C", "read"), Y], ALL),
    ],
    "outputs": {"Y": ["X[0]"]},
}
HISTOGRAM: dict[str, Any] = {
    "file": "other.cl",
    "intermediates": {"COUNTS": {"dtype": "INT32", "dims": [256], "clear": True}},
    "kernels": [
        kernel("count", [{"input": "VALUES"}, use("COUNTS", "update")], "VALUES[0]"),
        kernel("hand_over", [use("COUNTS", "read"), {"output": "OUT"}], 256),
    ],
}
BIASED: dict[str, Any] = {
    "file": "other.cl",
    **kernel("biased", [X, {"input": "BIAS"}, {"present": "BIAS", "type": "uint8"}, Y], "X[0]"),
    "outputs": {"Y": ["X[0]"]},
}
IN_PLACE: dict[str, Any] = {
    "file": "other.cl",
    "kernels": [
        kernel("add", [X, Y, {"value": 1, "type": "float"}], ALL),
        kernel("twice", [{"output": "Y", "use": "update"}], ALL),
    ],
    "outputs": {"Y": ["X[0]"]},
}
RAGGED: dict[str, Any] = {
    "file": "other.cl",
    **kernel("sums", [X, {"input": "ENDS", "index": True}, Y], "ENDS[0]"),
}


def write(
    repository: Path, name: str, described: dict[str, Any], inputs: str, outputs: str, extra: str = "", batch: int = 0
) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    for file, text in FILES.items():
        (folder / file).write_text(text)
    text = f'backend: "umo_kernel"\nmax_batch_size: {batch}\ninput [ {inputs} ]\noutput [ {outputs} ]\n{extra}\n'
    for key, value in (("kernel", json.dumps(described)), ("what", "1.5")):
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
    (folder.parent / "config.pbtxt").write_text(text)


def changed(stage: int, **values: Any) -> dict[str, Any]:
    """CHAIN with other values in one kernel."""
    kernels = [{**one, **values} if i == stage else one for i, one in enumerate(CHAIN["kernels"])]
    return {**CHAIN, "kernels": kernels}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown_function": (changed(1, function="subtract"), "other.cl: the program has no kernel 'subtract'"),
    "too_few": (
        changed(1, arguments=CHAIN["kernels"][1]["arguments"][:2]),
        "other.cl, kernels[1] 'add': kernel 'add' takes 3 argument(s), not 2",
    ),
    "wrong_kind": (
        changed(2, arguments=[use("B", "read"), {"value": 1, "type": "int64"}], file="model.cl"),
        "kernels[2]: the kernel writes nothing",
    ),
    "unwritten": (
        {**CHAIN, "kernels": [CHAIN["kernels"][i] for i in (1, 0, 2, 3)]},
        "kernels[0].arguments[0]: reads intermediate 'A', which no kernel before has written",
    ),
    "no_text": (changed(3, file="absent.cl"), "kernel file 'absent.cl' in folder 1 of the model: No such file"),
    "no_build": (changed(0, options="-DFACTOR=nonsense"), "model.cl: the program does not build"),
    "formula": (
        {**CHAIN, "intermediates": between(A=["batch", "Q[0]"], B=[1], C=[1])},
        "intermediates.A.dims[1]: unknown tensor 'Q' at character 1",
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("stages")
    x, y = FLOATS.format("X", ""), FLOATS.format("Y", "")
    instances = "instance_group [ { kind: KIND_CPU count: 2 } ]"
    write(repository, "chain", CHAIN, x, y, f"{BATCHING} {instances}", batch=8)
    write(
        repository,
        "histogram",
        HISTOGRAM,
        '{ name: "VALUES" data_type: TYPE_UINT8 dims: [ -1 ] }',
        '{ name: "OUT" data_type: TYPE_INT32 dims: [ 256 ] }',
        instances,
    )
    write(repository, "biased", BIASED, f"{x}, {FLOATS.format('BIAS', 'optional: true')}", y)
    write(repository, "in_place", IN_PLACE, x, y, batch=8)
    ends = """batch_input [ { kind: BATCH_ACCUMULATED_ELEMENT_COUNT target_name: "ENDS"
        data_type: TYPE_FP32 source_input: "X" } ]"""
    one = '{ name: "Y" data_type: TYPE_FP32 dims: [ 1 ] }'
    write(
        repository, "ragged", RAGGED, FLOATS.format("X", "allow_ragged_batch: true"), one, f"{ends} {BATCHING}", batch=8
    )
    good = [path.name for path in repository.iterdir()]
    for name, (described, _) in REFUSED.items():
        write(repository, name, described, x, y, batch=8)
    with TritonServer(repository, allow_failing=True) as running:
        assert {name: running.model_reason(name) for name in good if running.model_state(name) != "READY"} == {}
        yield running
        assert running.running, "the server died under the tests"


def infer(server: TritonServer, model: str, output: str = "Y", **inputs: np.ndarray) -> np.ndarray:
    tensors = []
    for name, data in inputs.items():
        tensors.append(httpclient.InferInput(name, list(data.shape), KINDS[data.dtype.name]))
        tensors[-1].set_data_from_numpy(data)
    with contextlib.closing(httpclient.InferenceServerClient(server.http_url)) as client:
        return client.infer(model, tensors).as_numpy(output)


def chained(x: np.ndarray) -> np.ndarray:
    return ((x * np.float32(3) + np.float32(1.5)) * np.float32(5)) ** 2


def test_kernels_of_two_files_hand_on_what_they_made(server):
    for shape in ((1, 1), (3, 1000), (8, 4097)):
        x = RNG.random(shape, dtype=np.float32)
        np.testing.assert_allclose(infer(server, "chain", X=x), chained(x), rtol=1e-6)


def test_batches_that_run_side_by_side_have_their_own_memory(server):
    before = server.metrics()
    sent = [RNG.random((1, 512 * (1 + i % 2)), dtype=np.float32) for i in range(32)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda x: infer(server, "chain", X=x), sent))
    for x, y in zip(sent, got, strict=True):
        np.testing.assert_allclose(y, chained(x), rtol=1e-6)
    executions = server.metrics().since(before).value("nv_inference_exec_count", model="chain")
    assert executions < len(sent), "nothing was batched, so nothing was tested"


def test_what_is_cleared_holds_nothing_of_earlier_requests(server):
    for size in (100000, 10, 0, 5000):
        values = RNG.integers(0, 256, size, dtype=np.uint8)
        got = infer(server, "histogram", "OUT", VALUES=values)
        np.testing.assert_array_equal(got, np.bincount(values, minlength=256))


def test_an_optional_input_may_be_absent(server):
    x, bias = RNG.random(500, dtype=np.float32), RNG.random(500, dtype=np.float32)
    np.testing.assert_array_equal(infer(server, "biased", X=x, BIAS=bias), x + bias)
    np.testing.assert_array_equal(infer(server, "biased", X=x), x + np.float32(100))


def test_a_kernel_goes_on_with_what_one_before_it_wrote_to_an_output(server):
    x = RNG.random((3, 999), dtype=np.float32)
    np.testing.assert_array_equal(infer(server, "in_place", X=x), (x + np.float32(1)) * np.float32(2))


def test_ragged_requests_are_one_launch(server):
    before = server.metrics()
    sent = [np.ones((1, 1 + 3 * i), np.float32) * (i + 1) for i in range(16)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        got = list(pool.map(lambda x: infer(server, "ragged", X=x), sent))
    for x, y in zip(sent, got, strict=True):
        np.testing.assert_array_equal(y, x.sum(1, keepdims=True))
    executions = server.metrics().since(before).value("nv_inference_exec_count", model="ragged")
    assert executions < len(sent), "nothing was batched, so nothing was tested"


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_model_that_cannot_be_is_refused_in_words(server, name):
    assert server.model_state(name) == "UNAVAILABLE"
    assert REFUSED[name][1] in server.model_reason(name)
