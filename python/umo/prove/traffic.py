"""Requests to any model over HTTP, gRPC and system shared memory, with answers that are compared.

A model is asked for its own inputs; unknown dimensions are filled so that the tensor has the size that was asked for.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
import tritonclient.utils.shared_memory as triton_shm
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, triton_to_np_dtype

from .census import Region

TRANSPORTS = ("shm", "http", "grpc")
_POISON = 0xA5


class TrafficError(RuntimeError):
    """The model cannot be asked as wanted, or it refused; the text says why."""


@dataclass(frozen=True)
class TensorSpec:
    """One input or output as the server describes it; dims with the batch dimension, if there is one."""

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True)
class ModelSpec:
    """What a request to a model looks like."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    max_batch_size: int


def describe(model: str, http_url: str) -> ModelSpec:
    """Asks a server for a model's inputs and outputs. Raises TrafficError."""
    client = triton_http.InferenceServerClient(http_url)
    try:
        metadata = client.get_model_metadata(model)
        config = client.get_model_config(model)
    except InferenceServerException as error:
        raise TrafficError(f"model {model}: {error.message()}") from error
    finally:
        client.close()

    def specs(entries: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(e["name"], e["datatype"], tuple(int(d) for d in e["shape"])) for e in entries)

    if config.get("model_transaction_policy", {}).get("decoupled"):
        raise TrafficError(
            f"model {model} is decoupled: it answers with any number of responses, which is not supported"
        )
    return ModelSpec(model, specs(metadata["inputs"]), specs(metadata["outputs"]), int(config.get("max_batch_size", 0)))


def shape_for(
    spec: TensorSpec, *, batched: bool, batch: int, size_bytes: int, dims: Sequence[int] | None = None
) -> tuple[int, ...]:
    """The shape of one request: `dims` (without the batch) if given, and what is still -1 filled up to `size_bytes`.

    The last unknown dimension takes all of the size, the others become 1.
    """
    inner = list(dims if dims is not None else spec.dims[1:] if batched else spec.dims)
    shape = [batch, *inner] if batched else inner
    if any(dim < -1 for dim in shape):
        raise TrafficError(f"input {spec.name}: {tuple(shape)} is no shape")
    item_bytes = 8 if spec.datatype == "BYTES" else np.dtype(_numpy_type(spec)).itemsize
    unknown = [i for i, dim in enumerate(shape) if dim == -1]
    for i in unknown[:-1]:
        shape[i] = 1
    if unknown:
        known = math.prod(dim for dim in shape if dim != -1)
        shape[unknown[-1]] = max(1, size_bytes // max(1, known * item_bytes))
    return tuple(shape)


def _numpy_type(spec: TensorSpec) -> Any:
    kind = triton_to_np_dtype(spec.datatype)
    if kind is None or spec.datatype == "BF16":
        raise TrafficError(f"{spec.name}: requests of type {spec.datatype} are not supported")
    return kind


def make_inputs(
    spec: ModelSpec, *, batch: int, size_bytes: int, dims: Mapping[str, Sequence[int]], seed: int = 0
) -> dict[str, np.ndarray]:
    """Random inputs: floats in [0, 1), bytes and small integers of either kind, texts of 4 letters."""
    batched = spec.max_batch_size > 0
    if batch > max(1, spec.max_batch_size):
        raise TrafficError(f"model {spec.name} takes batches of at most {spec.max_batch_size}, not {batch}")
    unknown = set(dims) - {tensor.name for tensor in spec.inputs}
    if unknown:
        names = ", ".join(tensor.name for tensor in spec.inputs)
        raise TrafficError(f"model {spec.name} has no input {', '.join(sorted(unknown))}; it has {names}")
    random = np.random.default_rng(seed)
    made = {}
    for tensor in spec.inputs:
        shape = shape_for(
            tensor, batched=batched, batch=batch, size_bytes=size_bytes, dims=dims.get(tensor.name)
        )  # fmt: skip
        kind = np.dtype(_numpy_type(tensor))
        if tensor.datatype == "BYTES":
            letters = random.integers(97, 123, (math.prod(shape), 4), np.uint8)
            made[tensor.name] = np.array([bytes(row) for row in letters], dtype=object).reshape(shape)
        elif kind.kind == "f":
            made[tensor.name] = random.random(shape, np.float32).astype(kind)
        elif kind.kind == "b":
            made[tensor.name] = random.integers(0, 2, shape).astype(kind)
        else:
            made[tensor.name] = random.integers(0, 100, shape, np.uint8).astype(kind)
    return made


def wire_bytes(array: np.ndarray) -> bytes | memoryview:
    """A tensor as it travels."""
    if array.dtype == object:
        return serialize_byte_tensor(array).item() if array.size else b""
    return memoryview(np.ascontiguousarray(array)).cast("B") if array.size else b""


class Channel:
    """One way to ask a model; `infer()` may be repeated."""

    transport: str
    outputs: tuple[Region, ...] = ()
    """Where the answers go, if that is memory that the server shares."""

    def prepare(self) -> None:
        """What a client does before it asks, outside of what is measured."""

    def infer(self) -> None:
        """Asks once. Raises TrafficError."""
        raise NotImplementedError

    def answers(self) -> dict[str, np.ndarray]:
        """The answers to the last infer()."""
        raise NotImplementedError


class WireChannel(Channel):
    """HTTP or gRPC, the tensors in the messages."""

    def __init__(
        self, transport: str, client: Any, module: Any, spec: ModelSpec, inputs: Mapping[str, np.ndarray]
    ) -> None:
        self.transport = transport
        self._client = client
        self._spec = spec
        self._inputs = []
        for tensor in spec.inputs:
            array = inputs[tensor.name]
            entry = module.InferInput(tensor.name, list(array.shape), tensor.datatype)
            entry.set_data_from_numpy(array)
            self._inputs.append(entry)
        self._outputs = [module.InferRequestedOutput(tensor.name) for tensor in spec.outputs]
        self._result: Any = None

    def infer(self) -> None:
        """Asks once."""
        try:
            self._result = self._client.infer(self._spec.name, self._inputs, outputs=self._outputs)
        except InferenceServerException as error:
            raise TrafficError(f"model {self._spec.name} over {self.transport}: {error.message()}") from error

    def answers(self) -> dict[str, np.ndarray]:
        """Copies of the answers."""
        return {tensor.name: np.array(self._result.as_numpy(tensor.name)) for tensor in self._spec.outputs}


class SharedChannel(Channel):
    """System shared memory: one object for all inputs, one for all outputs, each tensor at the start of a page."""

    transport = "shm"

    def __init__(
        self, client: Any, spec: ModelSpec, inputs: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray], name: str
    ) -> None:
        self._client = client
        self._spec = spec
        self._like = {key: (array.dtype, array.shape) for key, array in like.items()}
        self._handles: list[Any] = []
        self._names: list[str] = []
        self._result: Any = None
        try:
            data = {tensor.name: wire_bytes(inputs[tensor.name]) for tensor in spec.inputs}
            self._in, places_in = self._share(f"{name}-in", {key: len(value) for key, value in data.items()})
            for key, (offset, size) in places_in.items():
                if size:
                    self._bytes(self._in, offset, size)[:] = np.frombuffer(data[key], np.uint8)
            sizes = {tensor.name: len(wire_bytes(like[tensor.name])) for tensor in spec.outputs}
            self._out, self._places_out = self._share(f"{name}-out", sizes)
            self.outputs = tuple(
                Region(f"/{name}-out", offset, size) for offset, size in self._places_out.values() if size
            )
            self._inputs = []
            for tensor in spec.inputs:
                entry = triton_grpc.InferInput(tensor.name, list(inputs[tensor.name].shape), tensor.datatype)
                offset, size = places_in[tensor.name]
                entry.set_shared_memory(f"{name}-in", size, offset=offset)
                self._inputs.append(entry)
            self._outputs = []
            for tensor in spec.outputs:
                wanted = triton_grpc.InferRequestedOutput(tensor.name)
                offset, size = self._places_out[tensor.name]
                wanted.set_shared_memory(f"{name}-out", size, offset=offset)
                self._outputs.append(wanted)
        except BaseException:
            self.close()
            raise

    def _share(self, name: str, sizes: Mapping[str, int]) -> tuple[Any, dict[str, tuple[int, int]]]:
        places = {}
        end = 0
        page = os.sysconf("SC_PAGESIZE")
        for key, size in sizes.items():
            places[key] = (end, size)
            end += (size + page - 1) // page * page
        whole = max(end, page)
        handle = triton_shm.create_shared_memory_region(name, f"/{name}", whole)
        self._handles.append(handle)
        self._client.register_system_shared_memory(name, f"/{name}", whole)
        self._names.append(name)
        return handle, places

    @staticmethod
    def _bytes(handle: Any, offset: int, size: int) -> np.ndarray:
        return triton_shm.get_contents_as_numpy(handle, np.uint8, [size], offset)

    def prepare(self) -> None:
        """Poisons the outputs, so that an answer that was not written shows."""
        for offset, size in self._places_out.values():
            if size:
                self._bytes(self._out, offset, size)[:] = _POISON

    def infer(self) -> None:
        """Asks once."""
        try:
            self._result = self._client.infer(self._spec.name, self._inputs, outputs=self._outputs)
        except InferenceServerException as error:
            raise TrafficError(f"model {self._spec.name} over shm: {error.message()}") from error

    def answers(self) -> dict[str, np.ndarray]:
        """Copies of the answers, in the shapes that the server named."""
        found = {}
        for tensor in self._spec.outputs:
            kind, shape = self._like[tensor.name]
            said = self._result.get_output(tensor.name)
            shape = tuple(said.shape) if said is not None else shape
            offset, size = self._places_out[tensor.name]
            if tensor.datatype == "BYTES":
                # The length in front of each text says where the next one starts.
                value = triton_shm.get_contents_as_numpy(self._out, np.object_, list(shape), offset)
            else:
                need = math.prod(shape) * kind.itemsize
                if need > size:
                    raise TrafficError(f"output {tensor.name} grew from one request to the next")
                value = self._bytes(self._out, offset, need).view(kind).reshape(shape)
            found[tensor.name] = np.array(value)
        return found

    def close(self) -> None:
        """Takes the regions back from the server and removes them."""
        for name in self._names:
            with contextlib.suppress(InferenceServerException):
                self._client.unregister_system_shared_memory(name)
        for handle in self._handles:
            with contextlib.suppress(Exception):
                triton_shm.destroy_shared_memory_region(handle)
        self._names, self._handles = [], []


@contextlib.contextmanager
def channels(
    spec: ModelSpec,
    inputs: Mapping[str, np.ndarray],
    *,
    http_url: str,
    grpc_url: str,
    transports: Sequence[str] = TRANSPORTS,
) -> Iterator[tuple[dict[str, np.ndarray], list[Channel]]]:
    """The answers of a first request over gRPC, and a channel for each transport."""
    with contextlib.ExitStack() as stack:
        http = triton_http.InferenceServerClient(http_url, connection_timeout=600.0, network_timeout=600.0)
        stack.callback(http.close)
        grpc = triton_grpc.InferenceServerClient(grpc_url)
        stack.callback(grpc.close)
        first = WireChannel("grpc", grpc, triton_grpc, spec, inputs)
        first.infer()
        reference = first.answers()
        made: list[Channel] = []
        for transport in transports:
            if transport == "http":
                made.append(WireChannel("http", http, triton_http, spec, inputs))
            elif transport == "grpc":
                made.append(first)
            elif transport == "shm":
                shared = SharedChannel(grpc, spec, inputs, reference, f"umo-prove-{os.getpid()}")
                stack.callback(shared.close)
                made.append(shared)
            else:
                raise TrafficError(f"unknown transport {transport!r}: one of {', '.join(TRANSPORTS)}")
        yield reference, made


def differences(
    answers: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], tolerance: float = 0.0
) -> list[str]:
    """What is wrong with the answers, one line an output; empty when nothing is. Without a tolerance, every bit
    counts."""
    wrong = []
    for name, want in expected.items():
        got = answers.get(name)
        if got is None:
            wrong.append(f"{name}: no answer")
        elif got.shape != want.shape or got.dtype != want.dtype:
            wrong.append(f"{name}: {got.dtype}{got.shape} instead of {want.dtype}{want.shape}")
        elif want.dtype == object or not tolerance:
            if got.dtype == object and not np.array_equal(got, want):
                wrong.append(f"{name}: texts differ")
            elif got.dtype != object and got.tobytes() != want.tobytes():
                wrong.append(f"{name}: {int(np.count_nonzero(got != want))} of {got.size} elements differ")
        elif not np.allclose(got, want, rtol=tolerance, atol=tolerance, equal_nan=True):
            wrong.append(f"{name}: differs by up to {np.max(np.abs(got - want))}")
    return wrong
