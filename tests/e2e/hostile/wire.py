"""The server's two protocols by hand, and segments of shared memory that nobody protects.

A usual client library refuses what a hostile client wants to send, so every number of a request is the caller's here.
Segments are read and written by pread and pwrite: whoever truncates its own segment must not die of its own mapping.
"""

from __future__ import annotations

import http.client
import json
import os
import queue
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

HOST = "127.0.0.1"
SHARED = Path("/dev/shm")
PREFIX = "umo-hostile"


def become() -> None:
    """Takes on the uid that this process is meant to have, for good."""
    uid = os.environ.get("UMO_HOSTILE_UID")
    if uid is not None:
        # gRPC and NumPy read parts of themselves at first use, and the new uid may not be able to.
        grpc.insecure_channel("127.0.0.1:1").close()
        np.random.default_rng()
        np.testing.assert_array_equal([0], [0])
        os.setgroups([])
        os.setresgid(int(uid), int(uid), int(uid))
        os.setresuid(int(uid), int(uid), int(uid))


@dataclass(frozen=True)
class Place:
    """A range of a registered region; nothing is checked."""

    region: str
    offset: int
    size: int

    def parameters(self) -> dict[str, Any]:
        named = {"shared_memory_region": self.region, "shared_memory_byte_size": self.size}
        return {**named, "shared_memory_offset": self.offset} if self.offset != 0 else named


@dataclass(frozen=True)
class Tensor:
    """One input or requested output: its bytes travel in the request, or lie in a place."""

    name: str
    kind: str
    shape: Sequence[int]
    data: bytes = b""
    place: Place | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass
class Answer:
    """What the server said. `error` is empty when it answered; `outputs` are those that came with the answer."""

    error: str = ""
    outputs: dict[str, bytes] = field(default_factory=dict, repr=False)


class Http:
    """A connection that stays open; not for use by two threads."""

    def __init__(self, port: int, timeout_s: float = 60) -> None:
        self._connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._connection.close()

    def request(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes, int]:
        """Status, body, and how much of it is JSON. Raises OSError when the server does not answer."""
        try:
            self._connection.request("POST", path, body, headers or {})
            answer = self._connection.getresponse()
            said = answer.read()
        except http.client.HTTPException as trouble:
            self._connection.close()
            raise OSError(f"no HTTP answer: {trouble!r}") from trouble
        except OSError:
            self._connection.close()
            raise
        return answer.status, said, int(answer.headers.get("Inference-Header-Content-Length", len(said)))

    def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> Answer:
        header: dict[str, Any] = {"inputs": [], "parameters": {"binary_data_output": True, **(parameters or {})}}
        for tensor in inputs:
            where = tensor.place.parameters() if tensor.place else {"binary_data_size": len(tensor.data)}
            described = {"name": tensor.name, "datatype": tensor.kind, "shape": list(tensor.shape)}
            header["inputs"].append({**described, "parameters": where | tensor.parameters})
        if outputs:
            header["outputs"] = [
                {
                    "name": o.name,
                    "parameters": (o.place.parameters() if o.place else {"binary_data": True}) | o.parameters,
                }
                for o in outputs
            ]
        text = json.dumps(header).encode()
        body = text + b"".join(t.data for t in inputs if t.place is None)
        headers = {"Inference-Header-Content-Length": str(len(text))}
        status, said, length = self.request(f"/v2/models/{model}/infer", body, headers)
        if status != 200:
            return Answer(error=said.decode(errors="replace") or f"status {status}")
        answer = Answer()
        at = length
        for output in json.loads(said[:length]).get("outputs", []):
            size = output.get("parameters", {}).get("binary_data_size", 0)
            answer.outputs[output["name"]] = said[at : at + size]
            at += size
        return answer

    def register(self, name: str, key: str, size: int, offset: int = 0) -> str:
        """What the server says against it; empty when it agreed."""
        body = json.dumps({"key": key, "offset": offset, "byte_size": size}).encode()
        status, said, _ = self.request(f"/v2/systemsharedmemory/region/{name}/register", body)
        return "" if status == 200 else said.decode(errors="replace") or f"status {status}"

    def unregister(self, name: str, patience_s: float = 10) -> str:
        """The server answers a request before it lets go of its region, and refuses until then."""
        end = time.monotonic() + patience_s
        while True:
            status, said, _ = self.request(f"/v2/systemsharedmemory/region/{name}/unregister", b"{}")
            if status == 200:
                return ""
            if b"in use" not in said or time.monotonic() > end:
                return said.decode(errors="replace") or f"status {status}"
            time.sleep(0.002)


def _parameter(value: Any) -> service_pb2.InferParameter:
    if isinstance(value, bool):
        return service_pb2.InferParameter(bool_param=value)
    if isinstance(value, int):
        # The protocol's offsets and sizes are int64; what does not fit goes as the other integer that there is.
        fits = -(2**63) <= value < 2**63
        return service_pb2.InferParameter(**{"int64_param" if fits else "uint64_param": value})
    return service_pb2.InferParameter(string_param=value)


class Grpc:
    """The same over gRPC, from the protocol's own messages. Threads: any."""

    def __init__(self, port: int, timeout_s: float = 60) -> None:
        self._channel = grpc.insecure_channel(
            f"{HOST}:{port}",
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.max_receive_message_length", -1),
                ("grpc.use_local_subchannel_pool", 1),
            ],
        )
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._timeout_s = timeout_s

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self._channel.close()

    def infer(
        self,
        model: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> Answer:
        """Raises OSError when the server is gone."""
        try:
            said = self._stub.ModelInfer(_message(model, inputs, outputs, parameters), timeout=self._timeout_s)
        except grpc.RpcError as trouble:
            return _refusal(trouble)
        return _answer(said)

    def stream(self, timeout_s: float | None = None) -> Stream:
        """A stream of its own on this connection."""
        return Stream(self._stub, self._timeout_s if timeout_s is None else timeout_s)


def _message(
    model: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor], parameters: Mapping[str, Any] | None
) -> service_pb2.ModelInferRequest:
    asked = service_pb2.ModelInferRequest(model_name=model)
    for key, value in (parameters or {}).items():
        asked.parameters[key].CopyFrom(_parameter(value))
    for tensor in inputs:
        one = asked.inputs.add(name=tensor.name, datatype=tensor.kind, shape=list(tensor.shape))
        if tensor.place is None:
            asked.raw_input_contents.append(tensor.data)
        for key, value in ((tensor.place.parameters() if tensor.place else {}) | tensor.parameters).items():
            one.parameters[key].CopyFrom(_parameter(value))
    for tensor in outputs:
        wanted = asked.outputs.add(name=tensor.name)
        for key, value in ((tensor.place.parameters() if tensor.place else {}) | tensor.parameters).items():
            wanted.parameters[key].CopyFrom(_parameter(value))
    return asked


def _refusal(trouble: grpc.RpcError) -> Answer:
    if trouble.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        raise OSError(f"no gRPC answer: {trouble.details()}") from trouble
    return Answer(error=trouble.details() or str(trouble.code()))


def _answer(said: service_pb2.ModelInferResponse) -> Answer:
    # An output in shared memory has no entry in raw_output_contents, or an empty one, by version.
    raw = iter(said.raw_output_contents)
    return Answer(
        outputs={o.name: b"" if "shared_memory_region" in o.parameters else next(raw, b"") for o in said.outputs}
    )


class Stream:
    """Requests and their responses, any number each, over one call. Who asks and who takes may be two threads."""

    def __init__(self, stub: service_pb2_grpc.GRPCInferenceServiceStub, timeout_s: float) -> None:
        self._asked: queue.SimpleQueue[service_pb2.ModelInferRequest | None] = queue.SimpleQueue()
        self._call = stub.ModelStreamInfer(iter(self._asked.get, None), timeout=timeout_s)

    def ask(
        self,
        model: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor] = (),
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._asked.put(
            _message(model, inputs, outputs, {"triton_enable_empty_final_response": True, **(parameters or {})})
        )

    def take(self) -> tuple[Answer, bool]:
        """One response, and whether it is its request's last. Raises OSError when the server is gone."""
        try:
            said = next(self._call)
        except StopIteration:
            return Answer(error="the stream has ended"), True
        except grpc.RpcError as trouble:
            return _refusal(trouble), True
        # A request that the server itself refuses has no responses, and so no last one.
        parameters = said.infer_response.parameters
        final = "triton_final_response" not in parameters or parameters["triton_final_response"].bool_param
        return Answer(error=said.error_message) if said.error_message else _answer(said.infer_response), final

    def close(self) -> None:
        """No more requests; what is under way goes on."""
        self._asked.put(None)

    def cancel(self) -> None:
        """Drops the call with all that is under way."""
        self._call.cancel()
        self._asked.put(None)


class Segment:
    """A file in shared memory that only its owner and the server may open."""

    def __init__(self, size: int, name: str = "") -> None:
        self.name = name or f"{PREFIX}-{os.getpid()}-{secrets.token_hex(6)}"
        self.path = SHARED / self.name
        self.size = size
        self.file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.ftruncate(self.file, size)

    @property
    def key(self) -> str:
        return "/" + self.name

    def put(self, offset: int, data: bytes) -> None:
        """Makes a file that is too short longer, as any write does."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self.file, view, offset)
            offset, view = offset + written, view[written:]

    def get(self, offset: int, size: int) -> bytes:
        """Less than asked where the file ends."""
        parts = []
        while size > 0 and (part := os.pread(self.file, size, offset)):
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)

    def truncate(self, size: int) -> None:
        os.ftruncate(self.file, size)

    def unlink(self) -> None:
        self.path.unlink(missing_ok=True)

    def replace(self) -> None:
        """Another file of the same name and size takes its place; the old one lives on where it is mapped."""
        self.unlink()
        fresh = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        os.ftruncate(fresh, self.size)
        os.dup2(fresh, self.file, inheritable=False)  # other threads are reading and writing it
        os.close(fresh)

    def close(self) -> None:
        self.unlink()
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
