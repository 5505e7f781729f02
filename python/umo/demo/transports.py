"""The three ways to ask the server, behind one face: prepare once, then ask as often as wanted."""

from __future__ import annotations

import mmap
import os
import secrets
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np

TRANSPORTS = ("shm", "HTTP", "gRPC")


class Addresses(Protocol):
    """Where a server listens."""

    @property
    def http_url(self) -> str: ...

    @property
    def grpc_url(self) -> str: ...


def _triton_type(array: np.ndarray) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return np_to_triton_dtype(array.dtype)


class Asker:
    """One prepared request over one transport. Everything that a client does once is done here, outside any timing."""

    def __init__(
        self, transport: str, server: Addresses, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
    ) -> None:
        if transport not in TRANSPORTS:
            raise ValueError(f"unknown transport {transport!r}: one of {', '.join(TRANSPORTS)}")
        self.transport = transport
        self._regions: list[tuple[str, Any]] = []
        self._views: dict[str, np.ndarray] = {}
        self._names = list(outputs)
        if transport == "HTTP":
            import tritonclient.http as module

            self._client: Any = module.InferenceServerClient(
                server.http_url, connection_timeout=120, network_timeout=120
            )
        else:
            import tritonclient.grpc as module

            self._client = module.InferenceServerClient(server.grpc_url)
        self._inputs = [module.InferInput(name, a.shape, _triton_type(a)) for name, a in inputs.items()]
        self._outputs = [module.InferRequestedOutput(name) for name in outputs]
        try:
            if transport == "shm":
                self._share(inputs, outputs)
            else:
                for given, array in zip(self._inputs, inputs.values(), strict=True):
                    given.set_data_from_numpy(array)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception:
            # What went wrong first says more than what went wrong while leaving.
            if error is None:
                raise

    def _share(self, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Puts the inputs into one region and room for the outputs into another, each tensor on a page."""
        for wanted, arrays in ((self._inputs, inputs), (self._outputs, outputs)):
            offsets, size = [], 0
            for array in arrays.values():
                offsets.append(size)
                size += -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
            name, region = self._create(size)
            for tensor, (key, array), offset in zip(wanted, arrays.items(), offsets, strict=True):
                tensor.set_shared_memory(name, array.nbytes, offset)
                view = self._view(region, array, offset)
                if arrays is inputs:
                    view[...] = array
                else:
                    view.view(np.uint8)[...] = 0xFF  # every page is there before the first request
                    self._views[key] = view

    def _create(self, size: int) -> tuple[str, Any]:
        from tritonclient.utils import shared_memory

        free = os.statvfs("/dev/shm").f_bavail * os.statvfs("/dev/shm").f_frsize
        if free < size:
            # Without this check the first write to a missing page would end the program with SIGBUS.
            raise MemoryError(
                f"/dev/shm has {free >> 20} MB free, {size >> 20} MB are needed: "
                "enlarge it (mount -o remount,size=1G /dev/shm), or use --quick"
            )
        name = f"umo-demo-{os.getpid()}-{secrets.token_hex(4)}"
        region = shared_memory.create_shared_memory_region(name, f"/{name}", size)
        self._regions.append((name, region))
        self._client.register_system_shared_memory(name, f"/{name}", size)
        return name, region

    @staticmethod
    def _view(region: Any, like: np.ndarray, offset: int) -> np.ndarray:
        from tritonclient.utils import shared_memory

        return shared_memory.get_contents_as_numpy(region, like.dtype, like.shape, offset)

    def poison(self) -> None:
        """Overwrites the last answer, where it lies in memory of ours, so that it cannot pass for the next one."""
        for view in self._views.values():
            view.view(np.uint8)[...] = 0xFF

    def ask(self, model: str) -> Any:
        """One request; returns what outputs() takes."""
        return self._client.infer(model, self._inputs, outputs=self._outputs)

    def outputs(self, answer: Any) -> dict[str, np.ndarray]:
        """The answer as arrays; over shared memory they are views that the next answer changes."""
        if self._views:
            return dict(self._views)
        return {name: answer.as_numpy(name) for name in self._names}

    def close(self) -> None:
        """Gives back the regions and the connection."""
        from tritonclient.utils import shared_memory

        self._views.clear()
        trouble: BaseException | None = None
        for name, region in self._regions:
            try:
                self._unregister(name)
            except Exception as error:
                trouble = error
            shared_memory.destroy_shared_memory_region(region)
        self._regions.clear()
        self._client.close()
        if trouble is not None:
            raise trouble

    def _unregister(self, name: str) -> None:
        """The server may let go of a region a moment after it answered, and refuses until then (2.51)."""
        from tritonclient.utils import InferenceServerException

        deadline = time.monotonic() + 5
        while True:
            try:
                self._client.unregister_system_shared_memory(name)
                return
            except InferenceServerException as error:
                if "in use" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)
