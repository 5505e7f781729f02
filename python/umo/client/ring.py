"""A segment laid out in lanes, and its slots: who holds one, or an array in one, keeps it.

A slot goes back when the last holder is gone, in whatever thread and at whatever moment that is - also in the middle of
take(), when the garbage collector runs there. So the way back is a queue that takes no lock of ours, and take() empties
it first.
"""

from __future__ import annotations

import heapq
import math
import queue
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from umo.client.lanes import Lane, LaneSpec, layout
from umo.client.segment import Segment


def _array(memory: np.ndarray, dtype: DTypeLike, shape: Sequence[int] | None) -> np.ndarray:
    kind = np.dtype(dtype)
    if shape is None:
        shape = (memory.size // kind.itemsize,)
    count = math.prod(shape) * kind.itemsize
    if min(shape, default=0) < 0 or count > memory.size:
        raise ValueError(f"{kind} {list(shape)} does not fit {memory.size} bytes")
    return memory[:count].view(kind).reshape(shape)


class Snapshot(bytes):
    """What stands for a lease in a copy or a pickle of its holder, which may be read in another process."""

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self)

    def array(self, dtype: DTypeLike = np.uint8, shape: Sequence[int] | None = None) -> np.ndarray:
        """As that of a lease, and read-only."""
        return _array(np.frombuffer(self, np.uint8), dtype, shape)


class Lease:
    """Bytes of a slot. Arrays made of it hold it, and it holds the slot."""

    __slots__ = ("__array_interface__", "offset", "size", "slot")

    def __init__(self, slot: Slot, offset: int, size: int, writable: bool) -> None:
        self.slot, self.offset, self.size = slot, offset, size
        self.__array_interface__ = {
            "data": (slot.ring.address + offset, not writable),
            "shape": (size,),
            "typestr": "|u1",
            "version": 3,
        }

    def array(self, dtype: DTypeLike = np.uint8, shape: Sequence[int] | None = None) -> np.ndarray:
        """Its first bytes as an array, in place. Raises ValueError when they are too few."""
        return _array(np.asarray(self), dtype, shape)

    def __reduce__(self) -> tuple[type[Snapshot], tuple[bytes]]:
        return Snapshot, (self.array().tobytes(),)

    def part(self, array: np.ndarray) -> Lease:
        """The bytes that an array takes, which was made of this lease and is contiguous."""
        start, read_only = array.__array_interface__["data"]
        offset = start - self.slot.ring.address
        return Lease(self.slot, offset, array.nbytes, not read_only)


def lease_of(array: np.ndarray) -> Lease | None:
    """The lease that an array's memory belongs to; None for any other memory."""
    base: Any = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if type(base) is Lease else None


class Slot:
    """One request's place in every lane of a model. It goes back when nobody holds it or an array in it any more."""

    __slots__ = ("__weakref__", "_claimed", "index", "lost", "model", "ring")

    def __init__(self, ring: Ring, model: str, index: int) -> None:
        self.ring, self.model, self.index = ring, model, index
        self.lost = False
        self._claimed: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing: leaving the block is no reason to believe that all arrays are gone."""

    def offset(self, tensor: str) -> int:
        """Bytes from the segment's start to the tensor: what a request tells the server."""
        return self.ring.lane(self.model, tensor).slot_offset(self.index)

    def lease(self, tensor: str, size: int | None = None, writable: bool = True) -> Lease:
        """The tensor's bytes, or the first of them. Raises ValueError when there are fewer, KeyError."""
        lane = self.ring.lane(self.model, tensor)
        if size is None:
            size = lane.stride
        if not 0 <= size <= lane.stride:
            raise ValueError(f"{size} bytes do not fit the {lane.stride} bytes of {self.model}/{tensor}")
        return Lease(self, lane.slot_offset(self.index), size, writable)

    def array(self, tensor: str, dtype: DTypeLike, shape: Sequence[int]) -> np.ndarray:
        """The tensor's bytes as an array, in place. Raises ValueError when they do not fit the slot."""
        return self.lease(tensor).array(dtype, shape)

    def claim(self, what: str) -> bool:
        """Whether the caller is the first to ask for this part of the slot."""
        with self.ring.lock:
            first = what not in self._claimed
            self._claimed.add(what)
            return first

    def claimed(self, what: str) -> bool:
        """Whether somebody asked for it."""
        return what in self._claimed

    def quarantine(self) -> None:
        """A server may still read and write here: the slot is never given out again."""
        with self.ring.lock:
            self.ring.suspects += not self.lost
            self.lost = True

    def __del__(self) -> None:
        if self.lost:
            self.ring.lost.append(self.index)
        else:
            self.ring._returned[self.model].put(self.index)


class Ring:
    """A segment of this process with lanes. Slots are given out lowest first: what is in flight together is adjacent.

    Memory is taken slot by slot, when one is first given out; `charge` is asked before that with the bytes, and answers
    whether they may be taken. Threads: any.
    """

    def __init__(self, specs: Sequence[LaneSpec], charge: Callable[[int], bool] = lambda _: True) -> None:
        lanes, self.size = layout(specs)
        self._lanes = {(lane.spec.model, lane.spec.tensor): lane for lane in lanes}
        self._of_model: dict[str, list[Lane]] = {}
        for lane in lanes:
            self._of_model.setdefault(lane.spec.model, []).append(lane)
        self._free = {model: list(range(of[0].spec.slots)) for model, of in self._of_model.items()}
        self._taken = dict.fromkeys(self._free, 0)  # slots that have memory: always the lowest
        self._returned: dict[str, queue.SimpleQueue[int]] = {model: queue.SimpleQueue() for model in self._free}
        self._waiting = dict.fromkeys(self._free, 0)
        self._charge = charge
        self.charged = 0
        self.lock = threading.Lock()
        self.slots = sum(of[0].spec.slots for of in self._of_model.values())
        self.suspects = 0  # slots in quarantine
        self.lost: list[int] = []  # those of them that nobody here holds any more
        self.closed = False
        self.segment = Segment(self.size)
        self.address = self.segment.address
        # For whoever keeps several rings for a server:
        self.registered = False
        self.shared = False  # with a child process, which may still look at it
        self.used = 0  # when
        self.retry_at = 0.0

    @property
    def name(self) -> str:
        """Of the region at a server."""
        return self.segment.name

    def lane(self, model: str, tensor: str) -> Lane:
        """Raises KeyError for a tensor that has none."""
        return self._lanes[model, tensor]

    def has(self, model: str, tensor: str) -> bool:
        """Whether the tensor has a lane."""
        return (model, tensor) in self._lanes

    def take(self, model: str, timeout_s: float | None = None) -> Slot:
        """The lowest free slot of a model; waits while all are in use.

        Raises TimeoutError, KeyError, OSError (no memory for one more slot), MemoryError (it may not be taken).
        """
        while True:
            slot = self._take(model, waits=True)
            if slot is not None:
                return slot
            if self.closed:
                raise TimeoutError(f"the ring of {model} was closed")
            try:
                index = self._returned[model].get(timeout=timeout_s)
            except queue.Empty:
                raise TimeoutError(f"all slots of {model} stayed in use for {timeout_s} s") from None
            finally:
                with self.lock:
                    self._waiting[model] -= 1
            self._returned[model].put(index)

    def try_take(self, model: str) -> Slot | None:
        """The same without waiting: None when all are in use, or the ring was closed."""
        return self._take(model, waits=False)

    def _take(self, model: str, waits: bool) -> Slot | None:
        with self.lock:
            free = self._gather(model)
            if self.closed or not free:
                self._waiting[model] += waits and not self.closed
                return None
            index = heapq.heappop(free)
            if index >= self._taken[model]:
                try:
                    self._commit(model, index)
                except BaseException:
                    heapq.heappush(free, index)
                    raise
            # Who waits does so at the queue, which was emptied here.
            for _ in range(min(self._waiting[model], len(free))):
                self._returned[model].put(heapq.heappop(free))
        return Slot(self, model, index)

    def close_if_idle(self) -> bool:
        """Closes the ring for good when no slot is held; those in quarantine do not count."""
        with self.lock:
            held = self.slots - len(self.lost) - sum(len(self._gather(model)) for model in self._free)
            if held > 0:
                return False
            self.closed = True
            return True

    def _gather(self, model: str) -> list[int]:
        free, returned = self._free[model], self._returned[model]
        while True:
            try:
                heapq.heappush(free, returned.get_nowait())
            except queue.Empty:
                return free

    def _commit(self, model: str, index: int) -> None:
        lanes = self._of_model[model]
        size = sum(lane.stride for lane in lanes)
        if not self._charge(size):
            raise MemoryError(f"{size} bytes for one more slot of {model} pass the budget")
        self.charged += size
        try:
            for lane in lanes:
                self.segment.commit(lane.slot_offset(index), lane.stride)
        except BaseException:
            self.charged -= size
            self._charge(-size)
            raise
        self._taken[model] = index + 1
