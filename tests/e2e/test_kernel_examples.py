"""The kernels of examples/models behind the real server, against NumPy: on OpenCL, and on Metal as the fake has it."""

from __future__ import annotations

import contextlib
import importlib.util
import mmap
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from PIL import Image
from tritonclient.utils import InferenceServerException

from umo.server import TritonServer, default_backend_directory

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "models"
MODELS = ("image_prep", "image_resize", "softmax_topk", "dequantise", "convolution")
KINDS = {"uint8": "UINT8", "int8": "INT8", "float32": "FP32", "int32": "INT32"}
MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
RNG = np.random.default_rng(33)
# The kernel finds the centres of pixels in single precision: up to 1e-5 of a pixel, 0.02 of a level between neighbours.
RESIZED = 3e-4

spec = importlib.util.spec_from_file_location("make_weights", EXAMPLES / "make_weights.py")
assert spec is not None and spec.loader is not None
make_weights = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_weights)


# --- references -------------------------------------------------------------------------------------------------------


def triangle(size: int, out: int) -> np.ndarray:
    """What each of `out` pixels takes of `size`: bilinear resizing with antialiasing along one axis."""
    reach = max(size / out, 1.0)
    centres = (np.arange(out) + 0.5) * size / out
    weights = np.maximum(1 - np.abs(np.arange(size) + 0.5 - centres[:, None]) / reach, 0)
    return weights / weights.sum(1, keepdims=True)


def resized(images: np.ndarray) -> np.ndarray:
    rows = np.einsum("xw,bhwc->bhxc", triangle(images.shape[2], 224), images.astype(np.float64), optimize=True)
    both = np.einsum("yh,bhxc->byxc", triangle(images.shape[1], 224), rows, optimize=True)
    return np.moveaxis((both / 255 - MEAN) / STD, -1, 1)


def topk(logits: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    exponents = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    index = np.argsort(-logits, -1, kind="stable")[:, :k]
    return np.take_along_axis(exponents / exponents.sum(-1, keepdims=True), index, -1), index


def convolved(images: np.ndarray) -> np.ndarray:
    weights, bias = make_weights.filters()
    height, width = images.shape[2:]
    padded = np.pad(images.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    assert windows.shape[2:4] == (height, width)
    sums = np.einsum("bpyxij,pijf->bfyx", windows, weights.astype(np.float64), optimize=True)
    return np.maximum(sums + bias[:, None, None], 0)


def dequantised(values: np.ndarray) -> np.ndarray:
    scale, zero = make_weights.scales()
    return (values.astype(np.float32) - zero[:, None, None]) * scale[:, None, None]


# --- the server -------------------------------------------------------------------------------------------------------


def repository_write(folder: Path, texts: Sequence[str]) -> None:
    """The examples with the given texts of each model, and with their files of numbers."""
    for name in MODELS:
        shutil.copytree(EXAMPLES / name, folder / name)
        for text in (folder / name / "1").glob("model.*"):
            if text.name not in texts:
                text.unlink()
    make_weights.write(folder)
    # Where Metal is preferred this one still runs, on OpenCL: its folder has nothing else.
    shutil.copytree(EXAMPLES / "image_prep", folder / "cl_only")
    (folder / "cl_only" / "1" / "model.metal").unlink()


def metal_environment() -> dict[str, str | None] | None:
    """What makes a server find the fake Metal with the examples' kernels; None where they are not built."""
    libraries = default_backend_directory().parent / "lib"
    fake, kernels = libraries / "libumo_fake_metal.so", libraries / "libumo_msl_kernels.so"
    if not (fake.exists() and kernels.exists()):
        return None
    return {"UMO_METAL_LIBRARY": str(fake), "FAKE_METAL_KERNELS": str(kernels), "UMO_METAL_CACHE": "0"}


@pytest.fixture(scope="module", params=["opencl", "metal"])
def driver(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(driver: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp(driver)


@pytest.fixture(scope="module")
def server(driver: str, folder: Path) -> Iterator[TritonServer]:
    env: dict[str, str | None] | None = None
    if driver == "metal":
        env = metal_environment()
        if env is None:
            pytest.skip("the fake Metal and the kernels' Metal text are not built beside the backends")
        repository_write(folder, ["model.metal"])
    else:
        repository_write(folder, ["model.cl", "model.metal"])
        for name in MODELS:
            (folder / name / "1" / "model.cu").write_text("no program")  # for a driver that is not here
    with TritonServer(folder, allow_failing=True, env=env) as running:
        assert {
            name: running.model_reason(name) for name in (*MODELS, "cl_only") if running.model_state(name) != "READY"
        } == {}
        yield running
        assert running.running, "the server died under the tests"


REFUSED = {
    "cuda_only": ("", "", "'model.cu' is there, but for driver 'cuda', which finds no device here"),
    "cuda_named": ('"device": "cuda:0"', "", "driver 'cuda', which this build of umo does not have, so 'model.cu' is"),
    "cuda_file": ("", '"file": "model.cu", ', "kernel file 'model.cu' is for driver 'cuda', but the model runs on"),
    "metal_named": ('"device": "metal:0"', "", "Metal"),
}


def refused_write(folder: Path) -> None:
    """Models whose program is for a driver that is not here."""
    for name, (device, file, _) in REFUSED.items():
        shutil.copytree(EXAMPLES / "image_prep", folder / name)
        shutil.rmtree(folder / name / "1")
        (folder / name / "1").mkdir()
        (folder / name / "1" / "model.cu").write_text("no program")
        config = folder / name / "config.pbtxt"
        text = config.read_text().replace('{"function"', "{" + file + '"function"')
        config.write_text(text.replace('{"enable": true}', "{" + device + "}"))


# --- asking -----------------------------------------------------------------------------------------------------------


def client_of(server: TritonServer, transport: str) -> tuple[Any, Any]:
    module: Any = httpclient if transport == "http" else grpcclient
    return module, module.InferenceServerClient(server.http_url if transport == "http" else server.grpc_url)


def infer(server: TritonServer, model: str, data: np.ndarray, outputs: Sequence[str], transport: str) -> list[Any]:
    """One request with its data in the body."""
    module, connection = client_of(server, transport)
    names = {"image_prep": "IMAGE", "image_resize": "IMAGE", "softmax_topk": "LOGITS", "dequantise": "QUANTISED"}
    tensor = module.InferInput(names.get(model, "IMAGE"), list(data.shape), KINDS[data.dtype.name])
    tensor.set_data_from_numpy(data)
    with contextlib.closing(connection):
        got = connection.infer(model, [tensor], outputs=[module.InferRequestedOutput(name) for name in outputs])
    return [got.as_numpy(name) for name in outputs]


def infer_shared(
    server: TritonServer,
    model: str,
    given: tuple[str, np.ndarray],
    wanted: dict[str, tuple[Sequence[int], Any]],
    transport: str,
) -> tuple[list[np.ndarray], list[str]]:
    """One request over system shared memory, twice: the second one's answers, and what umo copied or moved for it."""
    name, data = given
    sizes = [int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in wanted.values()]
    places = np.cumsum([0, *(-(-size // mmap.PAGESIZE) * mmap.PAGESIZE for size in (data.nbytes, *sizes))]).tolist()
    key = f"umo-test-{os.getpid()}-{secrets.token_hex(4)}"
    handle = os.open(f"/dev/shm/{key}", os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
    os.ftruncate(handle, places[-1])
    memory = mmap.mmap(handle, places[-1])
    os.close(handle)
    module, connection = client_of(server, transport)
    try:
        connection.register_system_shared_memory(key, f"/{key}", places[-1])
        memory[: data.nbytes] = data.tobytes()
        tensor = module.InferInput(name, list(data.shape), KINDS[data.dtype.name])
        tensor.set_shared_memory(key, data.nbytes, 0)
        outputs = []
        for output, place, size in zip(wanted, places[1:], sizes, strict=False):
            outputs.append(module.InferRequestedOutput(output))
            outputs[-1].set_shared_memory(key, size, place)
        connection.infer(model, [tensor], outputs=outputs)
        memory[places[1] :] = b"\x5c" * (places[-1] - places[1])
        before = server.metrics()
        connection.infer(model, [tensor], outputs=outputs)
        moved = [
            f"{sample.name} {sample.labels} {sample.value}"
            for sample in server.metrics().since(before).samples
            if sample.labels.get("model") == model
            and sample.value
            and (sample.name == "umo_copy_bytes_total" or sample.labels.get("outcome") == "performed")
        ]
        got = []
        for place, size, (shape, kind) in zip(places[1:], sizes, wanted.values(), strict=False):
            got.append(np.frombuffer(memory[place : place + size], kind).reshape(shape))
            assert set(memory[place + size : -(-(place + size) // mmap.PAGESIZE) * mmap.PAGESIZE]) <= {0x5C}
        return got, moved
    finally:
        with contextlib.suppress(InferenceServerException):
            connection.unregister_system_shared_memory(key)
        connection.close()
        os.unlink(f"/dev/shm/{key}")


def close(got: np.ndarray, expected: np.ndarray, atol: float) -> None:
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=atol)


TRANSPORTS = pytest.mark.parametrize("transport", ["http", "grpc"])


# --- tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["image_prep", "cl_only"])
def test_the_driver_is_the_one_that_has_a_text(server, model):
    image = RNG.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    (got,) = infer(server, model, image, ["TENSOR"], "http")
    close(got, np.moveaxis((image / np.float32(255) - MEAN) / STD, -1, 0), 2e-6)


@TRANSPORTS
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 500, 333, 3), (3, 100, 300, 3), (1, 224, 224, 3), (2, 7, 999, 3)])
def test_photographs_of_any_size_become_one_size(server, shape, transport):
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    (got,) = infer(server, "image_resize", images, ["TENSOR"], transport)
    close(got, resized(images), RESIZED)


def test_resizing_is_what_an_image_library_makes(server):
    images = RNG.integers(0, 256, (1, 480, 640, 3), dtype=np.uint8)
    library = np.asarray(Image.fromarray(images[0]).resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    (got,) = infer(server, "image_resize", images, ["TENSOR"], "http")
    levels = (got[0] * STD[:, None, None] + MEAN[:, None, None]) * 255
    # The library rounds to a level after each direction.
    assert np.abs(levels - np.moveaxis(library, -1, 0)).max() < 1.2


@TRANSPORTS
def test_a_photograph_in_shared_memory_is_resized_without_a_copy(server, transport):
    images = RNG.integers(0, 256, (1, 960, 1280, 3), dtype=np.uint8)
    wanted = {"TENSOR": ((1, 3, 224, 224), np.float32)}
    (got,), moved = infer_shared(server, "image_resize", ("IMAGE", images), wanted, transport)
    close(got, resized(images), RESIZED)
    assert moved == []


@TRANSPORTS
@pytest.mark.parametrize("shape", [(1, 5), (1, 1024), (4, 1025), (2, 50257), (7, 3000)])
def test_the_likeliest_are_found_with_their_probabilities(server, shape, transport):
    # Large enough that their exponentials overflow, if they were taken as they are.
    logits = (RNG.standard_normal(shape) * 20 + 500).astype(np.float32)
    probability, index = infer(server, "softmax_topk", logits, ["PROBABILITY", "INDEX"], transport)
    expected, places = topk(logits, 5)
    assert index.dtype == np.int32
    np.testing.assert_array_equal(index, places)
    close(probability, expected, 1e-6)


def test_equal_scores_come_in_their_order_and_masked_ones_last(server):
    logits = np.zeros((3, 4000), np.float32)
    logits[1, :] = -np.inf
    logits[1, [3000, 17, 2500]] = [1, 1, 2]
    logits[2, 3::5] = 1
    probability, index = infer(server, "softmax_topk", logits, ["PROBABILITY", "INDEX"], "http")
    assert index[0].tolist() == [0, 1, 2, 3, 4]
    assert index[1, :3].tolist() == [2500, 17, 3000]
    assert index[2].tolist() == [3, 8, 13, 18, 23]
    close(probability[0], np.full(5, 1 / 4000), 1e-9)
    total = np.e**2 + 2 * np.e
    close(probability[1], np.array([np.e**2, np.e, np.e, 0, 0]) / total, 1e-6)


def test_a_row_with_fewer_scores_than_asked_for_is_filled_up(server):
    logits = np.array([[0.0, 1.0, -1.0]], np.float32)
    probability, index = infer(server, "softmax_topk", logits, ["PROBABILITY", "INDEX"], "http")
    assert index.tolist() == [[1, 0, 2, -1, -1]]
    close(probability[:, :3], topk(logits, 3)[0], 1e-6)
    assert probability[0, 3:].tolist() == [0, 0]


@TRANSPORTS
def test_scores_in_shared_memory_are_read_where_they_lie(server, driver, transport):
    logits = RNG.standard_normal((8, 32000), dtype=np.float32)
    wanted = {"PROBABILITY": ((8, 5), np.float32), "INDEX": ((8, 5), np.int32)}
    (probability, index), moved = infer_shared(server, "softmax_topk", ("LOGITS", logits), wanted, transport)
    expected, places = topk(logits, 5)
    np.testing.assert_array_equal(index, places)
    close(probability, expected, 1e-6)
    # Metal binds whole pages alone, so it writes answers of 160 bytes beside their page; nothing else is copied.
    assert len(moved) == (driver == "metal")
    assert all("partial_page" in row and row.endswith(" 320.0") for row in moved)


@TRANSPORTS
@pytest.mark.parametrize("shape", [(1, 64, 1, 1), (3, 64, 17, 31)])
def test_quantised_values_get_the_scale_of_their_channel(server, shape, transport):
    values = RNG.integers(-128, 128, shape, dtype=np.int8)
    (got,) = infer(server, "dequantise", values, ["VALUE"], transport)
    np.testing.assert_array_equal(got, dequantised(values))


@TRANSPORTS
def test_quantised_values_in_shared_memory_are_not_copied(server, transport):
    values = RNG.integers(-128, 128, (1, 64, 56, 56), dtype=np.int8)
    wanted = {"VALUE": (values.shape, np.float32)}
    (got,), moved = infer_shared(server, "dequantise", ("QUANTISED", values), wanted, transport)
    np.testing.assert_array_equal(got, dequantised(values))
    assert moved == []


@TRANSPORTS
@pytest.mark.parametrize("shape", [(1, 3, 1, 1), (1, 3, 2, 9), (4, 3, 33, 47)])
def test_a_convolution_is_what_its_sums_say(server, shape, transport):
    images = RNG.standard_normal(shape, dtype=np.float32)
    (got,) = infer(server, "convolution", images, ["FEATURES"], transport)
    close(got, convolved(images), 1e-5)


@TRANSPORTS
def test_a_convolution_in_shared_memory_copies_nothing(server, transport):
    images = RNG.standard_normal((2, 3, 120, 160), dtype=np.float32)
    wanted = {"FEATURES": ((2, 16, 120, 160), np.float32)}
    (got,), moved = infer_shared(server, "convolution", ("IMAGE", images), wanted, transport)
    close(got, convolved(images), 1e-5)
    assert moved == []


def test_private_numbers_do_not_need_their_file_any_more(server, folder):
    values = RNG.integers(-128, 128, (1, 64, 20, 20), dtype=np.int8)
    file = folder / "dequantise" / "1" / "scales.bin"
    written = file.read_bytes()
    try:
        os.truncate(file, 0)  # a file that is bound where it lies would fail the request
        (got,) = infer(server, "dequantise", values, ["VALUE"], "http")
    finally:
        file.write_bytes(written)
    np.testing.assert_array_equal(got, dequantised(values))


def test_a_program_for_a_driver_that_is_not_here_is_named(tmp_path):
    refused_write(tmp_path)
    with TritonServer(tmp_path, allow_failing=True) as running:
        for name, (_, _, said) in REFUSED.items():
            assert running.model_state(name) == "UNAVAILABLE"
            assert said in running.model_reason(name), name
