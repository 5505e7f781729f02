"""umo_kernel behind the real server: a kernel's answers against NumPy, and every way to describe one wrongly."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import json
import mmap
import os
import secrets
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

import umo.client.http
import umo.client.http.aio
from umo.server import ServerError, TritonServer

RNG = np.random.default_rng(21)

PROGRAM = """
__kernel void prep(__global const uchar *image, __global float *tensor, int height, int width, float mean, float scale)
{
    size_t x = get_global_id(0), y = get_global_id(1), b = get_global_id(2);
    if (x >= width || y >= height) {
        return;
    }
    for (size_t c = 0; c < 3; c++) {
        float value = image[((b * height + y) * width + x) * 3 + c] / 255.0f;
        tensor[((b * 3 + c) * height + y) * width + x] = (value - mean) * scale;
    }
}

__kernel void scalars(char a, uchar b, short c, ushort d, int e, uint f, long g, ulong h, float i, double j,
                      __global long *whole, __global double *real)
{
    whole[0] = a; whole[1] = b; whole[2] = c; whole[3] = d; whole[4] = e; whole[5] = f; whole[6] = g; whole[7] = h;
    real[0] = i; real[1] = j;
}

__kernel void sums(__global const float *in, __global float *out, __local float *part, uint count)
{
    size_t i = get_local_id(0), at = get_global_id(0);
    part[i] = at < count ? in[at] : 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    for (size_t step = get_local_size(0) / 2; step > 0; step /= 2) {
        if (i < step) {
            part[i] += part[i + step];
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }
    if (i == 0) {
        out[get_group_id(0)] = part[0];
    }
}

__kernel void pick(__global const float *from, __global const int *where, __global float *to)
{
    to[get_global_id(0)] = from[where[get_global_id(0)]];
}

__kernel void join(__global const float *a, __global const float *b, __global float *out, uint na, uint nb)
{
    size_t i = get_global_id(0);
    out[i] = i < na ? a[i] : b[i - na];
}

#ifndef FACTOR
#define FACTOR 1
#endif
__kernel void both(__global const float *in, __global float *twice, __global float *factor)
{
    size_t i = get_global_id(0);
    twice[i] = 2 * in[i];
    factor[i] = FACTOR * in[i];
}
"""

PREP_ARGUMENTS: list[dict[str, Any]] = [
    {"input": "IMAGE"},
    {"output": "TENSOR"},
    {"shape": "IMAGE", "dim": 0, "type": "int32"},
    {"size": "IMAGE[1]", "type": "int"},
    {"value": 0.45, "type": "float32"},
    {"value": 4, "type": "float"},
]
PREP: dict[str, Any] = {
    "function": "prep",
    "arguments": PREP_ARGUMENTS,
    "global_size": ["IMAGE[1]", "IMAGE[0]", "batch"],
    "outputs": {"TENSOR": [3, "IMAGE[0]", "IMAGE[1]"]},
}
IMAGE = ("IMAGE", "UINT8", "dims: [-1, -1, 3]")
TENSOR = ("TENSOR", "FP32", "dims: [3, -1, -1]")
BATCHING = "dynamic_batching { max_queue_delay_microseconds: 50000 preferred_batch_size: [ 4 ] }"
IN_PLACE = '{"zero_copy_threshold": 0}'
OFF = '{"enable": false}'


def prepared(image: np.ndarray) -> np.ndarray:
    """What `prep` computes, for one image or several."""
    out = (image.astype(np.float32) / np.float32(255) - np.float32(0.45)) * np.float32(4)
    return np.moveaxis(out, -1, -3)


def config(
    inputs: Sequence[tuple[str, str, str]],
    outputs: Sequence[tuple[str, str, str]],
    kernel: Any,
    *,
    unified: str = "",
    batch: int = 0,
    instances: int = 1,
    extra: str = "",
) -> str:
    """The text of a config.pbtxt; a tensor is its name, its type and what stands behind that."""
    text = f'backend: "umo_kernel"\nmax_batch_size: {batch}\n'
    text += f"instance_group [ {{ kind: KIND_CPU count: {instances} }} ]\n{extra}\n"
    for key, rows in (("input", inputs), ("output", outputs)):
        for name, kind, rest in rows:
            text += f'{key} [ {{ name: "{name}" data_type: TYPE_{kind} {rest} }} ]\n'
    parameters = {"unified_memory": unified} if unified else {}
    if kernel is not None:
        parameters["kernel"] = kernel if isinstance(kernel, str) else json.dumps(kernel)
    for key, value in parameters.items():
        text += f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
    return text


def write(
    repository: Path, name: str, text: str, program: str | bytes | None = PROGRAM, file: str = "model.cl"
) -> None:
    (repository / name / "1").mkdir(parents=True)
    (repository / name / "config.pbtxt").write_text(text)
    if program is not None:
        (repository / name / "1" / file).write_bytes(program.encode() if isinstance(program, str) else program)


def floats(name: str, dims: str = "-1", rest: str = "") -> tuple[str, str, str]:
    return (name, "FP32", f"dims: [{dims}] {rest}")


BOTH: dict[str, Any] = {
    "function": "both",
    "arguments": [{"input": "IN"}, {"output": "TWICE"}, {"output": "FACTOR"}],
    "global_size": ["IN[0]"],
    "outputs": {"TWICE": ["IN[0]"], "FACTOR": ["IN[0]"]},
}
PICK: dict[str, Any] = {
    "function": "pick",
    "arguments": [{"input": "FROM"}, {"input": "WHERE", "index": True}, {"output": "TO"}],
    "global_size": ["WHERE[0]"],
    "outputs": {"TO": ["WHERE[0]"]},
}
SCALARS: dict[str, Any] = {
    "function": "scalars",
    "arguments": [
        {"value": -128, "type": "int8"},
        {"value": 255, "type": "uint8"},
        {"value": -32768, "type": "int16"},
        {"size": "65535", "type": "uint16"},
        {"size": "0-N[0]", "type": "int32"},
        {"value": 4294967295, "type": "uint32"},
        {"size": "N[0]*1000000000000", "type": "int64"},
        {"value": 9223372036854775807, "type": "ulong"},
        {"value": 1.5e30, "type": "float32"},
        {"value": -1.5e300, "type": "double"},
        {"output": "WHOLE"},
        {"output": "REAL"},
        {"input": "N"},
    ][:-1],
    "global_size": [1],
}


def models(repository: Path) -> None:
    for name, unified in (("prep", ""), ("prep_in_place", IN_PLACE), ("prep_off", OFF)):
        write(repository, name, config([IMAGE], [TENSOR], PREP, unified=unified))
    for name, unified in (("prep_in_place_many", IN_PLACE), ("prep_off_many", OFF)):
        write(repository, name, config([IMAGE], [TENSOR], PREP, unified=unified, instances=4))
    rounded = {
        **PREP,
        "global_size": ["ceil(IMAGE[1],16)*16", "ceil(TENSOR[1],4)*4", 1],
        "local_size": [16, 4, 1],
        "file": "other.cl",
    }
    write(repository, "prep_rounded", config([IMAGE], [TENSOR], rounded), file="other.cl")
    for name, unified in (("prep_batch", IN_PLACE), ("prep_batch_off", OFF)):
        text = config([IMAGE], [TENSOR], PREP, unified=unified, batch=4, instances=3, extra=BATCHING)
        write(repository, name, text)
    # Tensors of fixed size need no "outputs".
    sums = {
        "function": "sums",
        "arguments": [
            {"input": "IN"},
            {"output": "OUT"},
            {"local_bytes": "4*64"},
            {"size": "IN[0]", "type": "uint"},
        ],
        "global_size": [256],
        "local_size": [64],
    }
    write(repository, "sums", config([floats("IN", "200")], [floats("OUT", "4")], sums))
    pick_inputs = [floats("FROM"), ("WHERE", "INT32", "dims: [-1]")]
    write(repository, "pick", config(pick_inputs, [floats("TO")], PICK, unified=IN_PLACE))
    trusted = '{"zero_copy_threshold": 0, "trusted_clients": true}'
    write(repository, "pick_trusted", config(pick_inputs, [floats("TO")], PICK, unified=trusted))
    both = {**BOTH, "options": "-DFACTOR=5 -cl-fast-relaxed-math"}
    write(repository, "both", config([floats("IN")], [floats("TWICE"), floats("FACTOR")], both, unified=IN_PLACE))
    join = {
        "function": "join",
        "arguments": [
            {"input": "in.a-1"},
            {"input": "B"},
            {"output": "OUT"},
            {"shape": "in.a-1", "dim": 0, "type": "uint"},
            {"size": "B[0]", "type": "uint"},
        ],
        "global_size": ["OUT[0]"],
        "outputs": {"OUT": ["'in.a-1'[0]+B[0]"]},
    }
    inputs = [floats("in.a-1"), floats("B", rest="optional: true")]
    write(repository, "join", config(inputs, [floats("OUT")], join, unified=IN_PLACE))
    write(
        repository,
        "scalars",
        config(
            [("N", "UINT8", "dims: [7]")],
            [("WHOLE", "INT64", "dims: [8]"), ("REAL", "FP64", "dims: [2]")],
            {**SCALARS, "arguments": [*SCALARS["arguments"], {"input": "N"}]},
        ),
        PROGRAM.replace("__global double *real)", "__global double *real, __global const uchar *n)"),
    )
    # Requests that cannot be, though the description can: sizes that depend on the shape at hand.
    shrink = {**BOTH, "outputs": {"TWICE": ["IN[0]-5"], "FACTOR": ["IN[0]-5"]}, "global_size": ["IN[0]-5"]}
    write(repository, "shrink", config([floats("IN")], [floats("TWICE"), floats("FACTOR")], shrink))
    idle = {**BOTH, "global_size": ["IN[0]/16"]}
    write(repository, "idle", config([floats("IN")], [floats("TWICE"), floats("FACTOR")], idle))
    tiles = {**BOTH, "local_size": [16]}
    write(repository, "tiles", config([floats("IN")], [floats("TWICE"), floats("FACTOR")], tiles))


def change(**changed: Any) -> dict[str, Any]:
    """PREP with other values; None removes a key."""
    return {key: value for key, value in {**PREP, **changed}.items() if value is not None}


def arguments(at: int, *replaced: dict[str, Any]) -> dict[str, Any]:
    """PREP with other arguments from `at` on."""
    return change(arguments=[*PREP_ARGUMENTS[:at], *replaced])


# Name: the kernel parameter and what the server has to say about it.
BAD_PARAMETERS: dict[str, tuple[Any, str]] = {
    "absent": (None, "parameter kernel is missing"),
    "broken": ('{"function": "prep",', "parameter kernel: broken JSON at line 1"),
    "no_object": ("[]", "parameter kernel: an object is expected, not an array"),
    "unknown_key": (change(functions="prep"), "unknown key 'functions'; allowed: file, function, options"),
    "unknown_argument_key": (
        arguments(5, {"value": 4.0, "typ": "float32"}),
        "arguments[5]: unknown key 'typ'; allowed: value, type",
    ),
    "no_function": (change(function=None), '"function" is missing'),
    "no_arguments": (change(arguments=None), '"arguments" is missing'),
    "no_global_size": (change(global_size=None), '"global_size" is missing'),
    "no_outputs": (change(outputs=None), "output 'TENSOR' has variable dimensions"),
    "outputs_rank": (change(outputs={"TENSOR": [3]}), "outputs.TENSOR: 1 sizes, but the model's configuration has 3"),
    "outputs_fixed": (
        change(outputs={"TENSOR": [4, "IMAGE[0]", "IMAGE[1]"]}),
        'outputs.TENSOR[0]: "4" is 4, but the model\'s configuration says 3',
    ),
    "unknown_input": (arguments(0, {"input": "PHOTO"}), "arguments[0].input: the model has no input 'PHOTO'"),
    "unknown_output": (
        arguments(1, {"output": "IMAGE"}),
        "arguments[1].output: the model has no output 'IMAGE'",
    ),
    "unbound_input": (change(arguments=PREP_ARGUMENTS[1:]), "no argument binds the model's input 'IMAGE'"),
    "unbound_output": (
        change(arguments=[PREP_ARGUMENTS[0], *PREP_ARGUMENTS[2:]]),
        "no argument binds the model's output 'TENSOR'",
    ),
    "formula": (
        change(global_size=["IMAGE[1]*", "IMAGE[0]", 1]),
        'global_size[0]: a value expected at character 10, not the end, in "IMAGE[1]*"',
    ),
    "formula_tensor": (change(global_size=["WIDTH[0]"]), "global_size[0]: unknown tensor 'WIDTH' at character 1"),
    "formula_dim": (change(global_size=["IMAGE[3]"]), "'IMAGE' has 3 dimension(s), no number 3"),
    "unknown_type": (arguments(5, {"value": 4, "type": "float16"}), "arguments[5].type: unknown type 'float16'"),
    "value_range": (arguments(5, {"value": 300, "type": "uint8"}), "arguments[5].value: 300 does not fit uint8"),
    # Only the compiled kernel knows these.
    "unknown_function": (change(function="prepare"), "model.cl: the program has no kernel 'prepare'"),
    "too_few": (
        change(arguments=PREP_ARGUMENTS[:5]),
        "model.cl, kernel 'prep': kernel 'prep' takes 6 argument(s), not 5",
    ),
    "too_many": (
        change(arguments=[*PREP_ARGUMENTS, {"value": 1, "type": "int32"}]),
        "takes 6 argument(s), not 7",
    ),
    "memory_for_value": (arguments(5, {"local_bytes": 4}), "argument 5 is a value, not work-group memory"),
    "value_for_memory": (
        change(arguments=[{"value": 1, "type": "uint64"}, PREP_ARGUMENTS[1], *PREP_ARGUMENTS[2:5], {"input": "IMAGE"}]),
        "kernel 'prep': argument 0 is memory, not a value",
    ),
    "value_size": (
        change(arguments=[*PREP_ARGUMENTS[:2], {"size": "IMAGE[0]", "type": "int64"}, *PREP_ARGUMENTS[3:]]),
        "kernel 'prep': argument 2",
    ),
    "options": (change(options="-cl-no-such-option"), "model.cl"),
    "folder_in_name": (change(file="../1/model.cl"), "file: '../1/model.cl' is no plain name"),
    "missing_file": (change(file="absent.cl"), "kernel file 'absent.cl' in folder 1 of the model: No such file"),
}

# Name: the program and what the server has to say about it.
BAD_PROGRAMS: dict[str, tuple[str | bytes | None, str]] = {
    "program_missing": (None, "kernel file 'model.cl' in folder 1 of the model: No such file or directory"),
    "program_empty": (b"", "kernel file 'model.cl' is empty"),
    "program_zero_byte": (PROGRAM.encode() + b"\0", "kernel file 'model.cl' is no text: it has a zero byte"),
    "program_garbage": (RNG.bytes(4096).replace(b"\0", b"\1"), "model.cl: the program does not build"),
    "program_words": ("this is no program", "model.cl: the program does not build"),
    "program_mistake": (
        PROGRAM.replace("return;", "nonsense;"),
        "use of undeclared identifier 'nonsense'",
    ),
    "program_cut": (PROGRAM[:300], "model.cl: the program does not build"),
}

BAD_MODELS: dict[str, tuple[str, str]] = {
    "strings_in": (
        config([("IMAGE", "STRING", "dims: [-1, -1, 3]")], [TENSOR], PREP),
        "input 'IMAGE' is of type BYTES",
    ),
    "strings_out": (
        config([IMAGE], [("TENSOR", "STRING", "dims: [3, -1, -1]")], PREP),
        "output 'TENSOR' is of type BYTES",
    ),
    "device_number": (config([IMAGE], [TENSOR], PREP, unified='{"device": "opencl:7"}'), "no number 7"),
    "device_host": (config([IMAGE], [TENSOR], PREP, unified='{"device": "host:0"}'), "host"),
    "device_unknown": (config([IMAGE], [TENSOR], PREP, unified='{"device": "abacus:0"}'), "abacus"),
    "group_size": (
        config(
            [floats("IN", "100000")],
            [floats("TWICE", "100000"), floats("FACTOR", "100000")],
            {**BOTH, "local_size": [100000]},
        ),
        "CL_INVALID_WORK_GROUP_SIZE",
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    repository = tmp_path_factory.mktemp("models")
    models(repository)
    good = {path.name for path in repository.iterdir()}
    for name, (kernel, _) in BAD_PARAMETERS.items():
        write(repository, name, config([IMAGE], [TENSOR], kernel))
    for name, (program, _) in BAD_PROGRAMS.items():
        write(repository, name, config([IMAGE], [TENSOR], PREP), program)
    for name, (text, _) in BAD_MODELS.items():
        write(repository, name, text)
    (repository / "program_folder" / "1" / "model.cl").mkdir(parents=True)
    (repository / "program_folder" / "config.pbtxt").write_text(config([IMAGE], [TENSOR], PREP))
    with TritonServer(repository, allow_failing=True) as running:
        failed = {name: running.model_reason(name) for name in good if running.model_state(name) != "READY"}
        assert failed == {}
        yield running
        assert running.running, "the server died under the tests"


# --- asking ----------------------------------------------------------------------------------------------------------

KINDS = {"uint8": "UINT8", "float32": "FP32", "int32": "INT32"}


def infer(
    server: TritonServer,
    model: str,
    inputs: dict[str, np.ndarray],
    outputs: Sequence[str] = (),
    transport: str = "http",
) -> dict[str, np.ndarray]:
    """One request over HTTP or gRPC, its data in the body."""
    module: Any = httpclient if transport == "http" else grpcclient
    url = server.http_url if transport == "http" else server.grpc_url
    tensors = []
    for name, data in inputs.items():
        tensor = module.InferInput(name, list(data.shape), KINDS[data.dtype.name])
        tensor.set_data_from_numpy(data)
        tensors.append(tensor)
    wanted = [module.InferRequestedOutput(name) for name in outputs] or None
    with contextlib.closing(module.InferenceServerClient(url)) as client:
        got = client.infer(model, tensors, outputs=wanted)
        told = got.get_response()
        names = [o["name"] for o in told["outputs"]] if transport == "http" else [o.name for o in told.outputs]
        return {name: got.as_numpy(name) for name in names}


class Region:
    """A piece of system shared memory, registered with the server over HTTP."""

    def __init__(self, server: TritonServer, size: int) -> None:
        self.server = server
        self.name = f"umo-test-{os.getpid()}-{secrets.token_hex(4)}"
        self.size = size
        handle = os.open(f"/dev/shm/{self.name}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        os.ftruncate(handle, size)
        self.memory = mmap.mmap(handle, size)
        os.close(handle)
        self.bytes = np.frombuffer(self.memory, np.uint8)

    def __enter__(self) -> Region:
        with contextlib.closing(httpclient.InferenceServerClient(self.server.http_url)) as client:
            client.register_system_shared_memory(self.name, "/" + self.name, self.size)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with contextlib.closing(httpclient.InferenceServerClient(self.server.http_url)) as client:
                client.unregister_system_shared_memory(self.name)
        finally:
            del self.bytes
            with contextlib.suppress(BufferError):
                self.memory.close()
            os.unlink(f"/dev/shm/{self.name}")

    def infer(
        self,
        model: str,
        inputs: dict[str, tuple[np.ndarray, int]],
        outputs: dict[str, tuple[Sequence[int], int]],
        transport: str = "http",
    ) -> dict[str, np.ndarray]:
        """Puts each input at its offset, asks for float outputs at theirs, and gives copies of those."""
        module: Any = httpclient if transport == "http" else grpcclient
        tensors, wanted = [], []
        for name, (data, offset) in inputs.items():
            self.bytes[offset : offset + data.nbytes] = np.frombuffer(data.tobytes(), np.uint8)
            tensor = module.InferInput(name, list(data.shape), KINDS[data.dtype.name])
            tensor.set_shared_memory(self.name, data.nbytes, offset)
            tensors.append(tensor)
        for name, (shape, offset) in outputs.items():
            output = module.InferRequestedOutput(name)
            output.set_shared_memory(self.name, 4 * int(np.prod(shape)), offset)
            wanted.append(output)
        url = self.server.http_url if transport == "http" else self.server.grpc_url
        with contextlib.closing(module.InferenceServerClient(url)) as client:
            client.infer(model, tensors, outputs=wanted)
        out = {}
        for name, (shape, offset) in outputs.items():
            size = 4 * int(np.prod(shape))
            out[name] = np.frombuffer(self.bytes[offset : offset + size].tobytes(), np.float32).reshape(shape)
        return out


def photo(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def close(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_allclose(a, b, rtol=0, atol=2e-6)


def moved(server: TritonServer, before: Any, model: str) -> dict[str, float]:
    """Bytes that umo moved for a model since then, by kind and direction or reason."""
    out: dict[str, float] = {}
    for sample in server.metrics().since(before).samples:
        if sample.labels.get("model") != model or not sample.value:
            continue
        if sample.name == "umo_copy_bytes_total":
            key = f"copy {sample.labels['direction']} {sample.labels['reason']}"
        elif sample.name == "umo_transfer_bytes_total":
            key = f"{sample.labels['outcome']} {sample.labels['direction']}"
        else:
            continue
        out[key] = out.get(key, 0) + sample.value
    return out


# --- right answers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["http", "grpc"])
@pytest.mark.parametrize("model", ["prep", "prep_in_place", "prep_off", "prep_rounded"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 11, 3), (480, 641, 3)])
def test_an_image_is_prepared(server, model, shape, transport):
    image = photo(*shape)
    close(infer(server, model, {"IMAGE": image}, transport=transport)["TENSOR"], prepared(image))


@pytest.mark.parametrize("transport", ["http", "grpc"])
@pytest.mark.parametrize("model", ["prep_in_place", "prep_off"])
def test_an_image_in_shared_memory_is_prepared(server, model, transport):
    image = photo(480, 640, 3)
    target = -(-image.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    with Region(server, target + 4 * image.size) as region:
        for _ in range(3):  # from the second turn on with the wraps of the first
            before = server.metrics()
            got = region.infer(model, {"IMAGE": (image, 0)}, {"TENSOR": ((3, 480, 640), target)}, transport)
            close(got["TENSOR"], prepared(image))
            done = moved(server, before, model)
            word = "eliminated" if model == "prep_in_place" else "performed"
            assert done == {f"{word} host_to_device": image.nbytes, f"{word} device_to_host": 4 * image.size}
            image = photo(480, 640, 3)  # other bytes in the same place


def test_bytes_at_any_offset_stay_where_they_are(server):
    """A kernel over bytes needs no alignment; its float output does."""
    image = photo(65, 67, 3)
    size = 4 * image.size
    with Region(server, 1 << 20) as region:
        for offset in (1, 2, 3, 4097):
            region.bytes[:] = 0x5C
            before = server.metrics()
            got = region.infer("prep_in_place", {"IMAGE": (image, offset)}, {"TENSOR": ((3, 65, 67), 65536)})
            close(got["TENSOR"], prepared(image))
            assert not [key for key in moved(server, before, "prep_in_place") if key.startswith(("copy", "perf"))]
            assert set(region.bytes[65536 + size :]) == {0x5C}
            assert set(region.bytes[:offset]) == {0x5C}


@pytest.mark.parametrize("offset", [1, 2, 3])
def test_floats_at_odd_offsets_are_copied_once_and_right(server, offset):
    data = RNG.random(10000, dtype=np.float32)
    size = data.nbytes
    with Region(server, 1 << 20) as region:
        before = server.metrics()
        got = region.infer(
            "both", {"IN": (data, offset)}, {"TWICE": ((10000,), 131072), "FACTOR": ((10000,), 262144 + offset)}
        )
        np.testing.assert_array_equal(got["TWICE"], 2 * data)
        np.testing.assert_array_equal(got["FACTOR"], 5 * data)
        done = moved(server, before, "both")
        assert done["copy in misaligned"] == size
        assert done["copy out misaligned"] == size


@pytest.mark.parametrize("call", ["infer", "async_infer", "aio"])
def test_floats_in_an_http_body_of_umo_client_stay_where_they_are(server, call, monkeypatch):
    """Whatever the length of the request's JSON is; tritonclient's bodies hit upon every fourth address only."""
    monkeypatch.setenv("UMO_CLIENT_SHARED_MEMORY", "0")
    data = RNG.random(10000, dtype=np.float32)

    def given(module: Any) -> list[Any]:
        tensor = module.InferInput("IN", data.shape, "FP32")
        tensor.set_data_from_numpy(data)
        return [tensor]

    async def ask_all() -> list[Any]:
        client = umo.client.http.aio.InferenceServerClient(server.http_url)
        try:
            return [await client.infer("both", given(umo.client.http.aio), request_id="r" * i) for i in range(1, 9)]
        finally:
            await client.close()

    def ask(module: Any) -> list[Any]:
        with module.InferenceServerClient(server.http_url) as client:
            if call == "infer":
                return [client.infer("both", given(module), request_id="r" * i) for i in range(1, 9)]
            return [client.async_infer("both", given(module), request_id="r" * i).get_result() for i in range(1, 9)]

    before = server.metrics()
    for got in asyncio.run(ask_all()) if call == "aio" else ask(umo.client.http):
        np.testing.assert_array_equal(got.as_numpy("FACTOR"), 5 * data)
    assert not [key for key in moved(server, before, "both") if key.startswith(("copy", "performed"))]
    if call != "aio":
        before = server.metrics()
        ask(httpclient)
        assert moved(server, before, "both")["copy in misaligned"] == 6 * data.nbytes


def test_options_reach_the_compiler_and_unwanted_outputs_are_left_out(server):
    data = RNG.random(1000, dtype=np.float32)
    got = infer(server, "both", {"IN": data})
    np.testing.assert_array_equal(got["FACTOR"], 5 * data)
    np.testing.assert_array_equal(got["TWICE"], 2 * data)
    got = infer(server, "both", {"IN": data}, ["FACTOR"])
    assert list(got) == ["FACTOR"]
    np.testing.assert_array_equal(got["FACTOR"], 5 * data)


def test_scalars_of_every_type_arrive(server):
    got = infer(server, "scalars", {"N": np.zeros(7, np.uint8)})
    assert got["WHOLE"].tolist() == [-128, 255, -32768, 65535, -7, 4294967295, 7 * 10**12, 2**63 - 1]
    assert got["REAL"].tolist() == [float(np.float32(1.5e30)), -1.5e300]


def test_work_groups_share_their_memory(server):
    data = RNG.integers(0, 100, 200).astype(np.float32)
    padded = np.concatenate([data, np.zeros(56, np.float32)])
    np.testing.assert_array_equal(infer(server, "sums", {"IN": data})["OUT"], padded.reshape(4, 64).sum(1))


@pytest.mark.parametrize(("model", "snapshot"), [("pick", True), ("pick_trusted", False)])
def test_an_index_is_taken_out_of_a_clients_reach(server, model, snapshot):
    data = RNG.random(5000, dtype=np.float32)
    where = RNG.integers(0, 5000, 3000, dtype=np.int32)
    with Region(server, 1 << 17) as region:
        before = server.metrics()
        got = region.infer(model, {"FROM": (data, 0), "WHERE": (where, 32768)}, {"TO": ((3000,), 65536)})
        np.testing.assert_array_equal(got["TO"], data[where])
        copies = {key: value for key, value in moved(server, before, model).items() if key.startswith("copy")}
        assert copies == ({"copy in control_data": where.nbytes} if snapshot else {})


@pytest.mark.parametrize("shape", [(0, 5, 3), (5, 0, 3), (0, 0, 3)])
@pytest.mark.parametrize("model", ["prep", "prep_off"])
def test_an_empty_image_gives_an_empty_tensor(server, model, shape):
    got = infer(server, model, {"IMAGE": photo(*shape)})["TENSOR"]
    assert got.shape == (3, shape[0], shape[1])


@pytest.mark.parametrize(("a", "b"), [(5, 7), (0, 7), (5, 0), (1000, 1)])
def test_an_empty_input_beside_a_full_one_is_no_obstacle(server, a, b):
    first, second = RNG.random(a, dtype=np.float32), RNG.random(b, dtype=np.float32)
    got = infer(server, "join", {"in.a-1": first, "B": second})["OUT"]
    np.testing.assert_array_equal(got, np.concatenate([first, second]))


# --- batches and instances --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["prep_batch", "prep_batch_off"])
def test_rows_of_one_request_are_prepared(server, model):
    images = photo(3, 33, 35, 3)
    close(infer(server, model, {"IMAGE": images})["TENSOR"], prepared(images))


@pytest.mark.parametrize("model", ["prep_batch", "prep_batch_off"])
def test_many_clients_on_several_instances_get_their_own_answers(server, model):
    before = server.metrics()
    sent = [photo(1 + i % 2, 40 + i % 3, 50, 3) for i in range(48)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        got = list(
            pool.map(
                lambda image, transport: infer(server, model, {"IMAGE": image}, transport=transport),
                sent,
                ["http", "grpc"] * 24,
            )
        )
    for image, answer in zip(sent, got, strict=True):
        close(answer["TENSOR"], prepared(image))
    now = server.metrics().since(before)
    executions = now.value("nv_inference_exec_count", model=model)
    assert executions < len(sent), "nothing was batched, so nothing was tested"


def test_neighbouring_slots_form_a_batch_without_a_copy(server):
    count, height, width = 4, 64, 64
    images = photo(count, height, width, 3)
    slot_in, slot_out = height * width * 3, height * width * 12
    start = -(-count * slot_in // mmap.PAGESIZE) * mmap.PAGESIZE
    with Region(server, start + count * slot_out) as region:
        before = server.metrics()

        def ask(i: int) -> np.ndarray:
            return region.infer(
                "prep_batch",
                {"IMAGE": (images[i : i + 1], i * slot_in)},
                {"TENSOR": ((1, 3, height, width), start + i * slot_out)},
            )["TENSOR"]

        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            got = list(pool.map(ask, [2, 0, 3, 1]))
        close(np.concatenate([got[1], got[3], got[0], got[2]]), prepared(images))
        done = moved(server, before, "prep_batch")
        assert not [key for key in done if key.startswith(("copy", "performed"))], done
        executions = server.metrics().since(before).value("nv_inference_exec_count", model="prep_batch")
        assert executions < count, "nothing was batched, so nothing was tested"


@pytest.mark.parametrize("model", ["prep_batch", "prep_batch_off"])
def test_clients_that_read_one_input_at_once_are_all_answered(server, model):
    image = photo(1, 64, 64, 3)
    slot = 64 * 64 * 12
    with Region(server, 16384 + 8 * slot) as region:

        def ask(i: int) -> np.ndarray:
            place = 16384 + (i % 8) * slot
            return region.infer(model, {"IMAGE": (image, 0)}, {"TENSOR": ((1, 3, 64, 64), place)})["TENSOR"]

        for turn in range(4):
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                for got in pool.map(ask, range(8 * turn, 8 * turn + 8)):
                    close(got, prepared(image))


@pytest.mark.parametrize(
    "model",
    [
        "prep_in_place_many",
        "prep_off_many",
    ],
)
def test_clients_that_share_one_output_are_all_answered(server, model):
    """As load generators do: nobody wants the answer, but everybody wants one."""
    image = photo(480, 640, 3)
    target = image.nbytes
    with Region(server, target + 4 * image.size) as region:

        def ask(_: int) -> None:
            region.infer(model, {"IMAGE": (image, 0)}, {"TENSOR": ((3, 480, 640), target)})

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(64)))
        got = np.frombuffer(region.bytes[target:].tobytes(), np.float32).reshape(3, 480, 640)
        close(got, prepared(image))


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "inputs", "said"),
    [
        ("shrink", {"IN": np.zeros(3, np.float32)}, 'dimension 0 of output 0: "IN[0]-5" is -2, a size is 0 or more'),
        ("idle", {"IN": np.zeros(3, np.float32)}, 'global_size[0]: "IN[0]/16" is 0, but there are outputs to write'),
        ("tiles", {"IN": np.zeros(17, np.float32)}, "CL_INVALID_WORK_GROUP_SIZE"),
        ("join", {"in.a-1": np.zeros(3, np.float32)}, "input 'B' is absent; the kernel cannot run without it"),
        ("prep", {"IMAGE": np.zeros((4, 4, 4), np.uint8)}, "shape"),
        ("prep", {"IMAGE": np.zeros((4, 4, 3), np.float32)}, "UINT8"),
    ],
)
def test_a_request_that_cannot_be_is_refused_in_words(server, model, inputs, said):
    with pytest.raises(InferenceServerException) as caught:
        infer(server, model, inputs)
    assert said in str(caught.value)
    # And the model goes on.
    if model in ("shrink", "idle", "tiles"):
        data = RNG.random(160, dtype=np.float32)
        if model != "idle":  # its kernel covers a sixteenth of its output
            got = infer(server, model, {"IN": data})["TWICE"]
            np.testing.assert_array_equal(got, 2 * data[: len(got)])
    image = photo(5, 6, 3)
    close(infer(server, "prep", {"IMAGE": image})["TENSOR"], prepared(image))


@pytest.mark.parametrize("name", [*BAD_PARAMETERS, *BAD_PROGRAMS, *BAD_MODELS])
def test_a_model_that_cannot_be_is_refused_in_words(server, name):
    said = {**BAD_PARAMETERS, **BAD_PROGRAMS, **BAD_MODELS}[name][1]
    assert server.model_state(name) == "UNAVAILABLE"
    reason = server.model_reason(name)
    assert said in reason
    assert "0x" not in reason
    assert "/tmp" not in reason


def test_a_folder_is_no_program(server):
    assert server.model_state("program_folder") == "UNAVAILABLE"
    assert "model.cl" in server.model_reason("program_folder")


def test_without_an_opencl_platform_other_models_live(tmp_path):
    write(tmp_path, "prep", config([IMAGE], [TENSOR], PREP))
    identity = config([floats("IN")], [floats("OUT")], None).replace("umo_kernel", "umo_identity")
    write(tmp_path, "echo", identity, None)
    (tmp_path / "none").mkdir()
    vendors = {"OCL_ICD_VENDORS": str(tmp_path / "none"), "OPENCL_VENDOR_PATH": str(tmp_path / "none")}
    repository = tmp_path / "models"
    repository.mkdir()
    for name in ("prep", "echo"):
        (tmp_path / name).rename(repository / name)
    with TritonServer(repository, allow_failing=True, env=vendors) as server:
        assert server.model_state("prep") == "UNAVAILABLE"
        reason = server.model_reason("prep")
        assert "platform" in reason.lower()
        assert "install" in reason.lower()
        data = RNG.random(100, dtype=np.float32)
        np.testing.assert_array_equal(infer(server, "echo", {"IN": data})["OUT"], data)


def test_the_model_of_the_documentation_runs(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "umo_kernel.md").read_text()
    program = page.split("```c\n")[1].split("```")[0]
    text = "backend: " + page.split("```\nbackend: ")[1].split("```")[0]
    write(tmp_path, "image_prep", text, program)
    images = photo(2, 30, 40, 3)
    with TritonServer(tmp_path) as server:
        close(infer(server, "image_prep", {"IMAGE": images})["TENSOR"], prepared(images) / 4)


def test_a_model_is_replaced_while_the_server_runs(tmp_path):
    write(tmp_path, "both", config([floats("IN")], [floats("TWICE"), floats("FACTOR")], BOTH, unified=IN_PLACE))
    data = RNG.random(1000, dtype=np.float32)
    program = tmp_path / "both" / "1" / "model.cl"
    # After a failed reload this server counts a model too many at its end and waits for it: not for long here.
    with TritonServer(tmp_path, explicit=True, extra_args=("--exit-timeout-secs=1",)) as server:
        for factor in range(2, 6):
            program.write_text(PROGRAM.replace("#define FACTOR 1", f"#define FACTOR {factor}"))
            server.load("both")
            np.testing.assert_array_equal(infer(server, "both", {"IN": data})["FACTOR"], np.float32(factor) * data)
        program.write_text("broken")
        with pytest.raises(ServerError, match="does not build"):
            server.load("both")
        # The one that worked goes on.
        np.testing.assert_array_equal(infer(server, "both", {"IN": data})["FACTOR"], np.float32(5) * data)
        server.unload("both")
        program.write_text(PROGRAM)
        server.load("both")
        np.testing.assert_array_equal(infer(server, "both", {"IN": data})["FACTOR"], data)
