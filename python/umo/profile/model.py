"""A recording in memory: its events as one array, and what their numbers stand for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

NONE = 0xFF  # a mode that does not apply

# umo_profile_event of profile.h without its texts, in the same order.
EVENT = np.dtype(
    [
        *((name, "<u8") for name in ("time_ns", "duration_ns", "buffer", "offset_bytes", "size_bytes", "fence_value")),
        *((name, "<u4") for name in ("thread", "scope", "device", "detail")),
        *((name, "u1") for name in ("kind", "side", "use", "mode", "mode_before", "direction", "reason", "status")),
        ("queue", "u1"),
    ]
)


class ProfileError(Exception):
    """What is wrong with a recording, in one line."""


@dataclass
class Profile:
    """What was recorded.

    `events` is sorted by time. `facts` holds what is known of the recording, of: pid, command, started (Unix time in
    ns), duration_ns, umo (the library's version), capacity, memory_bytes, truncated.
    """

    events: np.ndarray
    scopes: dict[int, str] = field(default_factory=dict)
    devices: dict[int, str] = field(default_factory=dict)
    lost: int = 0
    names_lost: int = 0
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.events)


def in_order(events: np.ndarray) -> np.ndarray:
    """Sorted by time; events of one time stay in their order."""
    times = events["time_ns"]
    if len(times) < 2 or bool(np.all(times[1:] >= times[:-1])):
        return events
    return events[np.argsort(times, kind="stable")]
