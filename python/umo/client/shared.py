"""What the four clients have in common: asking what a Link wants to know, and arrays where tensors were."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import time
import weakref
from collections.abc import Callable, Coroutine, Generator, Iterable, Sequence
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, triton_to_np_dtype

from umo.client import link as links
from umo.client.link import Attempt, Control, Link, Refused, Transport, Wire
from umo.client.ring import Lease, lease_of

CONTROL_TIMEOUT_S = 10.0

_clients: weakref.WeakSet[Shared] = weakref.WeakSet()


class Shared:
    """Part of a client that shares memory with its server where it can."""

    _umo_link: Link
    _umo_wire: Wire
    _umo_base: type

    def _umo_start(self, protocol: str, url: str) -> None:
        self._umo_link = links.link_for(protocol, url)
        _clients.add(self)

    @property
    def transport(self) -> Transport:
        """How this client's tensors travel, and why."""
        return self._umo_link.real().transport

    def _umo_is_last(self) -> bool:
        """Takes this client off the list of those that use its link."""
        _clients.discard(self)
        link = self._umo_link.real()
        return not any(client._umo_link.real() is link for client in _clients)

    def _umo_method(self, control: Control) -> Callable[..., Any]:
        return functools.partial(getattr(self._umo_base, control.method), self, *control.arguments)

    def _umo_ask(self, control: Control, how: dict[str, Any]) -> Any:
        if control.method == links.PAUSE:
            return time.sleep(*control.arguments)
        return self._umo_method(control)(**how, **self._umo_extra(control))

    async def _umo_ask_async(self, control: Control, how: dict[str, Any]) -> Any:
        if control.method == links.PAUSE:
            return await asyncio.sleep(*control.arguments)
        return await self._umo_method(control)(**how, **self._umo_extra(control))

    def _umo_error(self, error: BaseException) -> BaseException:
        """What is raised into the one who asked."""
        return Refused(str(error)) if isinstance(error, Exception) and self._umo_wire.answered(error) else error

    def _umo_drive(self, steps: Generator[Control, Any, Any], **how: Any) -> Any:
        """Asks, blocking, all that `steps` wants to know, and returns what it returns."""
        try:
            control = next(steps)
            while True:
                try:
                    answer = self._umo_ask(control, how)
                except BaseException as error:
                    control = steps.throw(self._umo_error(error))
                else:
                    control = steps.send(answer)
        except StopIteration as end:
            return end.value

    async def _umo_drive_async(self, steps: Generator[Control, Any, Any], **how: Any) -> Any:
        """The same without blocking."""
        try:
            control = next(steps)
            while True:
                try:
                    answer = await self._umo_ask_async(control, how)
                except BaseException as error:
                    control = steps.throw(self._umo_error(error))
                else:
                    control = steps.send(answer)
        except StopIteration as end:
            return end.value

    def _umo_extra(self, control: Control) -> dict[str, Any]:
        return {}

    def _umo_unregistered(self, name: str) -> None:
        """A region, or all of them, was unregistered by the user."""
        if not name or name.startswith("umo-"):
            self._umo_link.real().forget_regions()


def sends(
    client: Shared,
    attempt: Attempt,
    inputs: Sequence[Any],
    outputs: Sequence[Any] | None,
    send: Callable[[Any, Any], Any],
    wrap: Callable[[Any, dict[str, Lease]], Any],
) -> Any:
    """Sends a request as it was prepared; once more as the caller gave it, where that helps."""
    try:
        result = send(
            inputs if attempt.inputs is None else attempt.inputs,
            outputs if attempt.outputs is None else attempt.outputs,
        )
    except BaseException as error:
        if not attempt.failed(error):
            raise
        result = send(inputs, outputs)
    return wrap(result, attempt.done(result))


async def sends_async(
    client: Shared,
    attempt: Attempt,
    inputs: Sequence[Any],
    outputs: Sequence[Any] | None,
    send: Callable[[Any, Any], Coroutine[Any, Any, Any]],
    wrap: Callable[[Any, dict[str, Lease]], Any],
) -> Any:
    """The same without blocking."""
    try:
        result = await send(
            inputs if attempt.inputs is None else attempt.inputs,
            outputs if attempt.outputs is None else attempt.outputs,
        )
    except BaseException as error:
        if not attempt.failed(error):
            raise
        result = await send(inputs, outputs)
    return wrap(result, attempt.done(result))


def lists(inputs: Iterable[Any], outputs: Iterable[Any] | None) -> tuple[list[Any], list[Any] | None]:
    """What the caller gave, so that it can be looked at more than once."""
    return list(inputs), None if outputs is None else list(outputs)


def like(original: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Gives a method the signature and the words of tritonclient's."""
    return functools.wraps(original)


# --- arrays -----------------------------------------------------------------------------------------------------------


@functools.cache
def datatype_of(kind: np.dtype) -> str | None:
    """Triton's name of a NumPy type."""
    return np_to_triton_dtype(kind)


@functools.cache
def dtype_of(datatype: str) -> np.dtype:
    """NumPy's type for one of Triton's."""
    return np.dtype(triton_to_np_dtype(datatype))


def array_from(tensor: Any) -> Any:
    """NumPy's view of what a DLPack producer holds; anything else as it is."""
    if not isinstance(tensor, np.ndarray) and hasattr(tensor, "__dlpack__"):
        return np.from_dlpack(tensor)
    return tensor


def lease_for(tensor: Any, name: str, datatype: str, shape: Sequence[int], held: list[Lease | None]) -> Lease | None:
    """Where a tensor lies for the server, copied there if need be; None where it has to travel in the request.

    `held[0]`, the lease of what the input held before, is given up first, so that its slot can be used again.
    """
    if not isinstance(tensor, np.ndarray) or datatype_of(tensor.dtype) != datatype or datatype == "BYTES":
        return None
    dims = tuple(shape)
    if tensor.shape != dims or tensor.nbytes == 0:
        return None
    held[0] = None
    own = lease_of(tensor)
    if own is not None and tensor.flags.c_contiguous:
        return own.part(tensor)
    return links.place(name, datatype, dims, tensor)


def array_of(lease: Lease, datatype: str, shape: Sequence[int]) -> np.ndarray:
    """An output that lies in a lane, read-only as the original's are. The array holds its slot."""
    size = links.byte_size(datatype, shape)
    if size is None or size > lease.size:
        raise InferenceServerException(f"the server answered {datatype} {list(shape)} into {lease.size} bytes")
    kind = dtype_of(datatype)
    if datatype == "BF16" and kind == np.float32:
        # Until 2.69 tritonclient gives bfloat16 as float32.
        return (lease.array(np.uint16, shape).astype(np.uint32) << 16).view(np.float32)
    return lease.array(kind, shape)


@atexit.register
def _at_exit() -> None:
    """Scripts seldom close their clients. What stays is unregistered by the next one's reap()."""
    for client in list(_clients):
        shut = getattr(client, "_umo_end", None) or getattr(client, "_umo_shut", None)
        if shut is not None:
            with contextlib.suppress(Exception):
                shut()
