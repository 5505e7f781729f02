"""How much shared memory this process takes for its clients, and which rings have to go when that is not enough."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
from collections.abc import Callable

from umo.client.lanes import LaneSpec
from umo.client.ring import Ring, Slot
from umo.client.segment import SYSTEM

MOST_SLOTS = 64
ENOUGH_SLOTS = 8
FEWEST_SLOTS = 2
MOST_RINGS = 128
"""Each is an open file here and a region at a server."""


def _default_limit() -> int:
    """A quarter of the machine's memory, and at most half of what is free where segments lie."""
    named = os.environ.get("UMO_CLIENT_BUDGET_BYTES", "")
    if named.isdigit():
        return int(named)
    limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4
    if SYSTEM.folder is not None:
        with contextlib.suppress(OSError):
            room = os.statvfs(SYSTEM.folder)
            limit = min(limit, room.f_bavail * room.f_frsize // 2)
    return limit


class Budget:
    """The bytes of all rings of a process. A ring that nobody holds a slot of goes when another needs its bytes, the
    one that was used longest ago first. Threads: any."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = _default_limit() if limit is None else limit
        self.used = 0
        self._lock = threading.Lock()
        self._rings: dict[Ring, Callable[[Ring], None]] = {}
        self._clock = itertools.count(1)

    def charge(self, size: int) -> bool:
        """Takes bytes if they are there."""
        with self._lock:
            if self.used + size > self.limit:
                return False
            self.used += size
            return True

    def make(self, specs: list[tuple[str, int]], model: str, gone: Callable[[Ring], None]) -> Ring | None:
        """A ring with a lane for each (tensor, bytes); `gone` is called when it had to go.

        None when the budget has no room for FEWEST_SLOTS. Raises OSError.
        """
        slot_bytes = sum(size for _, size in specs)
        # Addresses of a slot that is never used cost nothing here, but a server counts what it maps.
        slots = min(MOST_SLOTS, max(ENOUGH_SLOTS, self.limit // 4 // slot_bytes), self.limit // slot_bytes)
        if slots < FEWEST_SLOTS:
            return None
        if len(self._rings) >= MOST_RINGS:
            self._evict(lambda: len(self._rings) < MOST_RINGS)
            if len(self._rings) >= MOST_RINGS:
                return None
        ring = Ring([LaneSpec(model, tensor, size, slots) for tensor, size in specs], self.charge)
        with self._lock:
            self._rings[ring] = gone
        return ring

    def take(self, ring: Ring, model: str) -> Slot | None:
        """A slot of a ring, for which others may have to go. None when all are in use or there is no memory."""
        ring.used = next(self._clock)
        slot_bytes = ring.size // ring.slots
        for last in (False, True):
            try:
                return ring.try_take(model)
            except (MemoryError, OSError):
                if last or not self._evict(lambda: self.used + slot_bytes <= self.limit, ring):
                    return None
        return None

    def release(self, ring: Ring) -> None:
        """Forgets a ring that was closed, and gives its memory back."""
        with self._lock:
            if self._rings.pop(ring, None) is None:
                return
            self.used -= ring.charged
        # Who still looks at it, a child or a server with a request that timed out, may go on; its pages go with them.
        if not ring.shared and not ring.suspects:
            ring.segment.drop()
        ring.segment.close_file()

    def _evict(self, enough: Callable[[], bool], wanting: Ring | None = None) -> bool:
        """Lets idle rings go, but for the one that wants, until it is enough. Whether any went."""
        with self._lock:
            oldest = sorted((ring for ring in self._rings if ring is not wanting), key=lambda ring: ring.used)
        went = False
        for ring in oldest:
            # What may still be in flight keeps its bytes until the server has let the region go.
            if (wanting is not None and ring.charged == 0) or ring.suspects or not ring.close_if_idle():
                continue
            gone = self._rings.get(ring)
            self.release(ring)
            if gone is not None:
                gone(ring)
            went = True
            if enough():
                break
        return went
