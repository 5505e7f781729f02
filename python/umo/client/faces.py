"""What the clients of both protocols, and their asyncio twins, do alike, around methods of tritonclient's.

A method that only does something before or after the original's is made of it by a function here, so that it has the
original's signature and words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from umo.client import shared
from umo.client.link import Attempt
from umo.client.ring import Lease
from umo.client.shared import Shared, like

Method = Callable[..., Any]

SHARED_MEMORY = ("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset")
"""A tensor's parameters that say where it lies."""


# --- inputs -----------------------------------------------------------------------------------------------------------


class PlacedInput:
    """Part of an InferInput whose tensor lies in a lane where that can be."""

    _umo_lease: Lease | None = None

    def _umo_set(self, tensor: Any, what: tuple[str, str, Sequence[int]] | None, travel: Method) -> Lease | None:
        """Puts a tensor into a lane, for the input of this name, type and shape; else `travel`, tritonclient's way,
        takes it. When that refuses it, what was there before stays."""
        array = shared.array_from(tensor)
        held, self._umo_lease = [self._umo_lease], None
        lease = shared.lease_for(array, *what, held) if what is not None else None
        if lease is None:
            self._umo_lease = held[0]
            travel(array)
        self._umo_lease = lease
        return lease


def leaves_lane(original: Method) -> Method:
    """An input's set_shared_memory()."""

    @like(original)
    def method(self: PlacedInput, *args: Any, **kwargs: Any) -> PlacedInput:
        self._umo_lease = None
        original(self, *args, **kwargs)
        return self

    return method


def reads_lane(original: Method) -> Method:
    """What gives an input's bytes to the original's client."""

    @like(original)
    def method(self: PlacedInput) -> bytes | None:
        return original(self) if self._umo_lease is None else self._umo_lease.array().tobytes()

    return method


# --- clients ----------------------------------------------------------------------------------------------------------


class Blocking(Shared):
    """Part of a client whose methods block."""

    _umo_gone = False

    def _umo_settle(self) -> None:
        """Waits for requests that still run, where close() does."""

    def _umo_shut(self) -> None:
        if not self._umo_gone and hasattr(self, "_umo_link"):
            self._umo_gone = True
            self._umo_settle()
            if self._umo_is_last():
                self._umo_drive(self._umo_link.real().shut())

    def _umo_prepare(
        self, model: str, inputs: Any, version: str, outputs: Any, sequence: Any, headers: Mapping[str, str] | None
    ) -> Attempt:
        steps = self._umo_link.prepare(self._umo_wire, model, version, inputs, outputs, sequence not in (0, ""))
        return self._umo_drive(steps, headers=None if headers is None else dict(headers))


class Asynchronous(Shared):
    """Part of a client of asyncio."""

    async def _umo_shut_async(self) -> None:
        if self in shared._clients and self._umo_is_last():
            await self._umo_drive_async(self._umo_link.real().shut())

    async def _umo_prepare_async(
        self, model: str, inputs: Any, version: str, outputs: Any, sequence: Any, headers: Mapping[str, str] | None
    ) -> Attempt:
        steps = self._umo_link.prepare(self._umo_wire, model, version, inputs, outputs, sequence not in (0, ""))
        return await self._umo_drive_async(steps, headers=None if headers is None else dict(headers))


def shuts(original: Method) -> Method:
    """close()."""

    @like(original)
    def method(self: Blocking) -> None:
        self._umo_shut()
        original(self)

    return method


def shuts_async(original: Method) -> Method:
    """close() of asyncio's clients."""

    @like(original)
    async def method(self: Asynchronous) -> None:
        await self._umo_shut_async()
        await original(self)

    return method


def unregisters(original: Method) -> Method:
    """unregister_system_shared_memory()."""

    @like(original)
    def method(self: Shared, name: str = "", *args: Any, **kwargs: Any) -> None:
        original(self, name, *args, **kwargs)
        self._umo_unregistered(name)

    return method


def unregisters_async(original: Method) -> Method:
    """The same of asyncio's clients."""

    @like(original)
    async def method(self: Shared, name: str = "", *args: Any, **kwargs: Any) -> None:
        await original(self, name, *args, **kwargs)
        self._umo_unregistered(name)

    return method


def changes_model(original: Method) -> Method:
    """load_model() and unload_model()."""

    @like(original)
    def method(self: Shared, model_name: str, *args: Any, **kwargs: Any) -> None:
        original(self, model_name, *args, **kwargs)
        self._umo_link.real().forget_model(model_name)

    return method


def changes_model_async(original: Method) -> Method:
    """The same of asyncio's clients."""

    @like(original)
    async def method(self: Shared, model_name: str, *args: Any, **kwargs: Any) -> None:
        await original(self, model_name, *args, **kwargs)
        self._umo_link.real().forget_model(model_name)

    return method
