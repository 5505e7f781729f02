"""A drop-in for tritonclient.grpc: the same names, the same calls; see umo.client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tritonclient.grpc as base
from tritonclient.grpc import *  # noqa: F403
from tritonclient.grpc._client import CallContext
from tritonclient.utils import InferenceServerException

from umo.client import faces, shared
from umo.client.link import Control, Source
from umo.client.ring import Lease
from umo.client.shared import like

__all__ = list(base.__all__)

# Said by gRPC itself when a stream ends before there is an answer.
_BROKEN = ("RST_STREAM", "Stream removed", "GOAWAY", "Socket closed")


def __getattr__(name: str) -> Any:
    return getattr(base, name)


class InferInput(faces.PlacedInput, base.InferInput):
    """tritonclient's; large tensors are copied to where the server can see them instead of into bytes.

    set_data_from_numpy() also takes arrays of umo.client.empty(), which are not copied at all, and DLPack producers.
    """

    set_shared_memory = faces.leaves_lane(base.InferInput.set_shared_memory)
    _get_content = faces.reads_lane(base.InferInput._get_content)

    @like(base.InferInput.set_data_from_numpy)
    def set_data_from_numpy(self, input_tensor: Any) -> InferInput:
        what = (self._input.name, self._input.datatype, self._input.shape)
        if self._umo_set(input_tensor, what, super().set_data_from_numpy) is not None:
            for key in faces.SHARED_MEMORY:
                self._input.parameters.pop(key, None)
            self._raw_content = None
        return self


class InferRequestedOutput(base.InferRequestedOutput):
    """tritonclient's."""


class InferResult(base.InferResult):
    """tritonclient's; as_numpy() gives arrays where the server wrote them, which stay as long as they are held."""

    def __init__(self, result: Any, places: dict[str, Lease] | None = None) -> None:
        super().__init__(result)
        self._umo_places = {}
        for at, output in enumerate(result.outputs if places else ()):
            raw = result.raw_output_contents
            if places and output.name in places and not (at < len(raw) and raw[at]):
                self._umo_places[output.name] = places[output.name]
                for key in faces.SHARED_MEMORY:
                    output.parameters.pop(key, None)

    @like(base.InferResult.as_numpy)
    def as_numpy(self, name: str) -> Any:
        lease = self._umo_places.get(name)
        if lease is None:
            return super().as_numpy(name)
        output = super().get_output(name)
        return shared.array_of(lease, output.datatype, tuple(output.shape))

    @like(base.InferResult.get_response)
    def get_response(self, as_json: bool = False) -> Any:
        raw = self._result.raw_output_contents
        for at, output in enumerate(self._result.outputs if self._umo_places else ()):
            lease = self._umo_places.get(output.name)
            if lease is not None:
                while len(raw) <= at:
                    raw.append(b"")
                raw[at] = shared.array_of(lease, output.datatype, tuple(output.shape)).tobytes()
        return super().get_response(as_json)


class _Wire:
    def source(self, tensor: Any) -> Source:
        message = tensor._input
        data = getattr(tensor, "_umo_lease", None)
        if data is None:
            data = tensor._raw_content
        return Source(message.name, message.datatype, tuple(message.shape), data)

    def placed_input(self, source: Source, lease: Lease) -> Any:
        made = base.InferInput(source.name, source.shape, source.datatype)
        made.set_shared_memory(lease.slot.ring.name, lease.size, lease.offset)
        return made

    def requested(self, output: Any) -> tuple[str, bool]:
        parameters = output._output.parameters
        return output.name(), "classification" not in parameters and "shared_memory_region" not in parameters

    def output(self, name: str, lease: Lease | None) -> Any:
        made = base.InferRequestedOutput(name)
        if lease is not None:
            made.set_shared_memory(lease.slot.ring.name, lease.size, lease.offset)
        return made

    def outputs(self, result: Any) -> list[tuple[str, str, tuple[int, ...]]]:
        return [(output.name, output.datatype, tuple(output.shape)) for output in result._result.outputs]

    def answered(self, error: BaseException) -> bool:
        if not isinstance(error, InferenceServerException):
            return False
        status = error.status()
        if status is None:
            return True  # refused here, before anything was sent
        said = str(error.message())
        if status in ("StatusCode.CANCELLED", "StatusCode.DEADLINE_EXCEEDED"):
            return False
        if status == "StatusCode.UNAVAILABLE":
            # A connection that broke, or a proxy that stopped waiting for a server that goes on.
            return "maximum queue size" in said
        return not any(words in said for words in _BROKEN)


WIRE = _Wire()


def extra(control: Control) -> dict[str, Any]:
    """What gRPC's methods want besides."""
    how: dict[str, Any] = {"client_timeout": shared.CONTROL_TIMEOUT_S}
    return how | {"as_json": True} if control.method == "get_model_config" else how


class InferenceServerClient(faces.Blocking, base.InferenceServerClient):
    """tritonclient's; tensors stay in memory that is shared with the server where that is possible (`transport`)."""

    _umo_wire = WIRE
    _umo_base = base.InferenceServerClient
    close = faces.shuts(base.InferenceServerClient.close)
    unregister_system_shared_memory = faces.unregisters(base.InferenceServerClient.unregister_system_shared_memory)
    load_model = faces.changes_model(base.InferenceServerClient.load_model)
    unload_model = faces.changes_model(base.InferenceServerClient.unload_model)

    @like(base.InferenceServerClient.__init__)
    def __init__(self, url: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(url, *args, **kwargs)
        self._umo_start("grpc", url)

    def __del__(self) -> None:
        # Not from here: a garbage collection is no place to ask a server for something.
        self._umo_gone = True
        super().__del__()

    def _umo_extra(self, control: Control) -> dict[str, Any]:
        return extra(control)

    @like(base.InferenceServerClient.infer)
    def infer(
        self,
        model_name: str,
        inputs: Sequence[Any],
        model_version: str = "",
        outputs: Sequence[Any] | None = None,
        request_id: str = "",
        sequence_id: int | str = 0,
        sequence_start: bool = False,
        sequence_end: bool = False,
        priority: int = 0,
        timeout: int | None = None,
        client_timeout: float | None = None,
        headers: dict[str, str] | None = None,
        compression_algorithm: str | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> InferResult:
        inputs, outputs = shared.lists(inputs, outputs)
        attempt = self._umo_prepare(model_name, inputs, model_version, outputs, sequence_id, headers)

        def send(its_inputs: Any, its_outputs: Any) -> Any:
            return base.InferenceServerClient.infer(
                self,
                model_name,
                its_inputs,
                model_version,
                its_outputs,
                request_id,
                sequence_id,
                sequence_start,
                sequence_end,
                priority,
                timeout,
                client_timeout,
                headers,
                compression_algorithm,
                parameters,
            )

        return shared.sends(self, attempt, inputs, outputs, send, wrap)

    @like(base.InferenceServerClient.async_infer)
    def async_infer(
        self,
        model_name: str,
        inputs: Sequence[Any],
        callback: Any,
        model_version: str = "",
        outputs: Sequence[Any] | None = None,
        request_id: str = "",
        sequence_id: int | str = 0,
        *args: Any,
        **kwargs: Any,
    ) -> CallContext:
        headers = kwargs.get("headers", args[5] if len(args) > 5 else None)
        inputs, outputs = shared.lists(inputs, outputs)
        attempt = self._umo_prepare(model_name, inputs, model_version, outputs, sequence_id, headers)

        def send(its_inputs: Any, its_outputs: Any, then: Any) -> CallContext:
            return base.InferenceServerClient.async_infer(
                self,
                model_name,
                its_inputs,
                then,
                model_version,
                its_outputs,
                request_id,
                sequence_id,
                *args,
                **kwargs,
            )

        def answered(result: Any, error: Any) -> None:
            if error is not None and attempt.failed(error):
                send(inputs, outputs, again)
            elif error is not None:
                callback(result=None, error=error)
            else:
                callback(result=wrap(result, attempt.done(result)), error=None)

        def again(result: Any, error: Any) -> None:
            made = wrap(result, attempt.done(result)) if error is None else None
            callback(result=made, error=error)

        return send(
            inputs if attempt.inputs is None else attempt.inputs,
            outputs if attempt.outputs is None else attempt.outputs,
            answered,
        )

    @like(base.InferenceServerClient.start_stream)
    def start_stream(self, callback: Any, *args: Any, **kwargs: Any) -> None:
        # In a stream a request may have any number of answers, and none says that the server is done with its inputs.
        def answered(result: Any, error: Any) -> None:
            callback(result=None if result is None else wrap(result, {}), error=error)

        super().start_stream(answered, *args, **kwargs)


def wrap(result: Any, places: dict[str, Lease]) -> InferResult:
    """Ours, of what tritonclient made."""
    return InferResult(result._result, places)
