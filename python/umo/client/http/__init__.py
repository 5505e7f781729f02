"""A drop-in for tritonclient.http: the same names, the same calls; see umo.client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import gevent
import tritonclient.http as base
from tritonclient.http import *  # noqa: F403
from tritonclient.utils import InferenceServerException

from umo.client import faces, shared
from umo.client.http.body import aligns
from umo.client.link import Attempt, Source
from umo.client.ring import Lease
from umo.client.shared import like

__all__ = list(base.__all__)

# Said by a proxy that stopped waiting, for a server that goes on.
_UNSURE = ("408", "499", "502", "503", "504")

_infer = aligns(base.InferenceServerClient.infer)
_async_infer = aligns(base.InferenceServerClient.async_infer)


def __getattr__(name: str) -> Any:
    return getattr(base, name)


class InferInput(faces.PlacedInput, base.InferInput):
    """tritonclient's; large tensors are copied to where the server can see them instead of into bytes.

    set_data_from_numpy() also takes arrays of umo.client.empty(), which are not copied at all, and DLPack producers.
    """

    set_shared_memory = faces.leaves_lane(base.InferInput.set_shared_memory)
    _get_binary_data = faces.reads_lane(base.InferInput._get_binary_data)

    @like(base.InferInput.set_data_from_numpy)
    def set_data_from_numpy(self, input_tensor: Any, binary_data: bool = True) -> InferInput:
        travel = super().set_data_from_numpy
        what = (self._name, self._datatype, self._shape) if binary_data else None
        lease = self._umo_set(input_tensor, what, lambda array: travel(array, binary_data))
        if lease is not None:
            for key in faces.SHARED_MEMORY:
                self._parameters.pop(key, None)
            self._data = self._raw_data = None
            self._parameters["binary_data_size"] = lease.size
        return self


class InferRequestedOutput(base.InferRequestedOutput):
    """tritonclient's."""


class InferResult(base.InferResult):
    """tritonclient's; as_numpy() gives arrays where the server wrote them, which stay as long as they are held."""

    _umo_places: dict[str, Lease] = {}

    @like(base.InferResult.as_numpy)
    def as_numpy(self, name: str) -> Any:
        lease = self._umo_places.get(name)
        if lease is None:
            return super().as_numpy(name)
        output = self.get_output(name)
        return shared.array_of(lease, output["datatype"], output["shape"])


class InferAsyncRequest(base.InferAsyncRequest):
    """tritonclient's; the request keeps its slot until it has ended, whether anybody asks for the result or not."""

    def __init__(self, original: base.InferAsyncRequest, attempt: Attempt, again: Any) -> None:
        super().__init__(original._greenlet, original._verbose)
        self._umo_attempt, self._umo_again = attempt, again
        self._umo_result: InferResult | None = None
        original._greenlet.link_exception(lambda greenlet: attempt.failed(greenlet.exception))
        original._greenlet.link_value(lambda _: attempt)

    @like(base.InferAsyncRequest.get_result)
    def get_result(self, block: bool = True, timeout: Any = None) -> InferResult:
        if self._umo_result is None:
            try:
                result = super().get_result(block, timeout)
            except InferenceServerException as error:
                if error.status() is None or not self._umo_attempt.failed(error):
                    raise
                result = self._umo_again()
            self._umo_result = wrap(result, self._umo_attempt.done(result))
        return self._umo_result


class _Wire:
    def source(self, tensor: Any) -> Source:
        data = getattr(tensor, "_umo_lease", None)
        if data is None:
            data = tensor._raw_data
        return Source(tensor._name, tensor._datatype, tuple(tensor._shape), data)

    def placed_input(self, source: Source, lease: Lease) -> Any:
        made = base.InferInput(source.name, list(source.shape), source.datatype)
        made.set_shared_memory(lease.slot.ring.name, lease.size, lease.offset)
        return made

    def requested(self, output: Any) -> tuple[str, bool]:
        parameters = output._parameters
        own = "classification" in parameters or "shared_memory_region" in parameters
        return output.name(), bool(parameters.get("binary_data")) and not own

    def output(self, name: str, lease: Lease | None) -> Any:
        made = base.InferRequestedOutput(name)
        if lease is not None:
            made.set_shared_memory(lease.slot.ring.name, lease.size, lease.offset)
        return made

    def outputs(self, result: Any) -> list[tuple[str, str, tuple[int, ...]]]:
        rows = result.get_response().get("outputs") or ()
        return [(row["name"], row["datatype"], tuple(row["shape"])) for row in rows]

    def answered(self, error: BaseException) -> bool:
        if not isinstance(error, InferenceServerException):
            return False
        status = error.status()
        if status is None or status not in _UNSURE:
            return True  # None: refused here, before anything was sent
        return "maximum queue size" in str(error.message())


WIRE = _Wire()


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
        self._umo_made = (url, args, kwargs)
        self._umo_start("http", url)

    def __del__(self) -> None:
        # Not from here: a garbage collection is no place to ask a server for something.
        self._umo_gone = True
        if hasattr(self, "_closed"):
            super().__del__()

    def _umo_settle(self) -> None:
        self._pool.join()

    def _umo_end(self) -> None:
        """Shuts at the interpreter's exit. A thread that is still there may hold this client's connections, and would
        be waited for without end; so another client asks."""
        if not self._umo_gone and hasattr(self, "_umo_link"):
            self._umo_gone = True
            link = self._umo_link.real()
            if self._umo_is_last() and link.connected:
                url, args, kwargs = self._umo_made
                other = InferenceServerClient(url, *args, **kwargs)
                other._umo_gone = True
                other._umo_drive(link.shut())
                other.close()

    def _umo_reopen(self) -> None:
        """Goes on in a child process: the connections are the parent's, and so is what runs over them."""
        url, args, kwargs = self._umo_made
        other = base.InferenceServerClient(url, *args, **kwargs)
        self._client_stub, self._pool = other._client_stub, other._pool
        other._closed = True  # it owns nothing any more

    @like(base.InferenceServerClient.infer)
    def infer(
        self,
        model_name: str,
        inputs: Sequence[Any],
        model_version: str = "",
        outputs: Sequence[Any] | None = None,
        request_id: str = "",
        sequence_id: int | str = 0,
        *args: Any,
        **kwargs: Any,
    ) -> InferResult:
        headers = kwargs.get("headers", args[4] if len(args) > 4 else None)
        inputs, outputs = shared.lists(inputs, outputs)
        attempt = self._umo_prepare(model_name, inputs, model_version, outputs, sequence_id, headers)

        def send(its_inputs: Any, its_outputs: Any) -> Any:
            return _infer(
                self, model_name, its_inputs, model_version, its_outputs, request_id, sequence_id, *args, **kwargs
            )

        return shared.sends(self, attempt, inputs, outputs, send, wrap)

    @like(base.InferenceServerClient.async_infer)
    def async_infer(
        self,
        model_name: str,
        inputs: Sequence[Any],
        model_version: str = "",
        outputs: Sequence[Any] | None = None,
        request_id: str = "",
        sequence_id: int | str = 0,
        *args: Any,
        **kwargs: Any,
    ) -> InferAsyncRequest:
        headers = kwargs.get("headers", args[4] if len(args) > 4 else None)
        inputs, outputs = shared.lists(inputs, outputs)
        attempt = self._umo_prepare(model_name, inputs, model_version, outputs, sequence_id, headers)
        original = _async_infer(
            self,
            model_name,
            inputs if attempt.inputs is None else attempt.inputs,
            model_version,
            outputs if attempt.outputs is None else attempt.outputs,
            request_id,
            sequence_id,
            *args,
            **kwargs,
        )

        def again() -> Any:
            return _infer(self, model_name, inputs, model_version, outputs, request_id, sequence_id, *args, **kwargs)

        return InferAsyncRequest(original, attempt, again)


def wrap(result: Any, places: dict[str, Lease]) -> InferResult:
    """Ours, of what tritonclient made."""
    made = InferResult.__new__(InferResult)
    made.__dict__.update(result.__dict__)
    made._umo_places = {}
    for output in (made._result.get("outputs") or ()) if places else ():
        lease = places.get(output["name"])
        if lease is not None and "data" not in output and "binary_data_size" not in output.get("parameters", {}):
            made._umo_places[output["name"]] = lease
            output["parameters"] = {"binary_data_size": shared.links.byte_size(output["datatype"], output["shape"])}
    return made


def _in_child() -> None:
    """gevent's loop does not outlive a fork, and nothing tells who is about to wait in it for ever."""
    clients = [client for client in list(shared._clients) if isinstance(client, InferenceServerClient)]
    if clients:
        gevent.reinit()
    for client in clients:
        client._umo_reopen()


os.register_at_fork(after_in_child=_in_child)
