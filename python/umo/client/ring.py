"""A segment of shared memory laid out in lanes, and the slots of it that are free."""

from __future__ import annotations

import heapq
import math
import mmap
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import DTypeLike

from umo.client.lanes import Lane, LaneSpec, layout

_SHARED = Path("/dev/shm")


def _started() -> str:
    """When this process started, in clock ticks since boot: with the pid it names one process for all time."""
    return Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]


class Slot:
    """One request's place in every lane of a model. Give it back with close(), or use it as a context."""

    def __init__(self, ring: Ring, model: str, index: int) -> None:
        self.ring, self.model, self.index = ring, model, index
        self._open = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def offset(self, tensor: str) -> int:
        """Bytes from the segment's start to the tensor: what a request tells the server."""
        return self.ring.lane(self.model, tensor).slot_offset(self.index)

    def array(self, tensor: str, dtype: DTypeLike, shape: Sequence[int]) -> np.ndarray:
        """The tensor's bytes as an array, in place. Raises ValueError when they do not fit the slot."""
        lane = self.ring.lane(self.model, tensor)
        kind = np.dtype(dtype)
        count = math.prod(shape)
        if min(shape, default=0) < 0 or count * kind.itemsize > lane.stride:
            raise ValueError(f"{kind} {list(shape)} does not fit the {lane.stride} bytes of {self.model}/{tensor}")
        return np.frombuffer(self.ring.memory, kind, count, self.offset(tensor)).reshape(shape)

    def close(self) -> None:
        """Gives the slot back; a second call does nothing."""
        if self._open:
            self._open = False
            self.ring._give(self.model, self.index)


class Ring:
    """A segment of this process, registered with a server and unlinked right away: nobody else can open it.

    `register` is called once with (region name, key, bytes), as tritonclient's register_system_shared_memory takes
    them. The name carries the pid and the start time, so that what a dead client left can be told from what a live one
    uses. Slots are given out lowest first: requests that are in flight together then lie side by side. Threads: any.
    """

    def __init__(self, specs: Sequence[LaneSpec], register: Callable[[str, str, int], object]) -> None:
        lanes, self.size = layout(specs)
        self._lanes = {(lane.spec.model, lane.spec.tensor): lane for lane in lanes}
        self._free = {lane.spec.model: list(range(lane.spec.slots)) for lane in lanes}
        self._room = threading.Condition()
        self.name = f"umo-{os.getpid()}-{_started()}-{secrets.token_hex(4)}"
        path = _SHARED / self.name
        file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, self.size)  # a full /dev/shm is an error here, not a SIGBUS later
            self.memory = mmap.mmap(file, self.size)
            register(self.name, f"/{self.name}", self.size)
        finally:
            os.close(file)
            path.unlink()

    def lane(self, model: str, tensor: str) -> Lane:
        """Raises KeyError for a tensor that has none."""
        return self._lanes[model, tensor]

    def take(self, model: str, timeout_s: float | None = None) -> Slot:
        """The lowest free slot of a model; waits while all are in use. Raises TimeoutError, KeyError."""
        with self._room:
            free = self._free[model]
            if not self._room.wait_for(lambda: bool(free), timeout_s):
                raise TimeoutError(f"all slots of {model} stayed in use for {timeout_s} s")
            return Slot(self, model, heapq.heappop(free))

    def _give(self, model: str, index: int) -> None:
        with self._room:
            heapq.heappush(self._free[model], index)
            self._room.notify()
