"""The layout of a client's ring: one lane for each (model, tensor), stride exactly the tensor's bytes.

A server's batch is in place only when its requests' tensors touch each other. So slot i of a lane ends where slot i + 1
begins, with no padding for alignment, and slot i of every lane of a model belongs to one request: one order of the
requests puts all their tensors in order at once. Lanes begin on a page, so that no page holds bytes of two lanes.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass

LARGEST_SEGMENT_BYTES = 1 << 46


@dataclass(frozen=True)
class LaneSpec:
    """What a lane is for: a tensor of a model, its bytes in one request (1 or more), how many requests at a time."""

    model: str
    tensor: str
    tensor_bytes: int
    slots: int


@dataclass(frozen=True)
class Lane:
    """A lane in its segment. All figures are bytes but `slots`."""

    spec: LaneSpec
    offset: int

    @property
    def stride(self) -> int:
        """From one slot to the next: exactly the tensor's bytes."""
        return self.spec.tensor_bytes

    @property
    def size(self) -> int:
        """Of all slots."""
        return self.spec.tensor_bytes * self.spec.slots

    def slot_offset(self, slot: int) -> int:
        """Where a slot begins in the segment. Raises IndexError for a slot that is not there."""
        if not 0 <= slot < self.spec.slots:
            raise IndexError(f"lane {self.spec.model}/{self.spec.tensor} has {self.spec.slots} slots, no number {slot}")
        return self.offset + slot * self.stride


def layout(specs: Sequence[LaneSpec], page_bytes: int = mmap.PAGESIZE) -> tuple[list[Lane], int]:
    """Places lanes one behind the other, each on a page of its own; returns them and the segment's bytes.

    Raises ValueError for a lane without bytes or slots, two lanes for one tensor, lanes of one model with different
    numbers of slots, or a segment that no system can map.
    """
    seen: set[tuple[str, str]] = set()
    slots: dict[str, int] = {}
    lanes: list[Lane] = []
    offset = 0
    for spec in specs:
        what = f"lane {spec.model}/{spec.tensor}"
        if spec.tensor_bytes < 1 or spec.slots < 1:
            raise ValueError(f"{what}: {spec.tensor_bytes} bytes and {spec.slots} slots; both are at least 1")
        if (spec.model, spec.tensor) in seen:
            raise ValueError(f"{what} is asked for twice")
        if slots.setdefault(spec.model, spec.slots) != spec.slots:
            raise ValueError(f"{what}: {spec.slots} slots, but another lane of the model has {slots[spec.model]}")
        seen.add((spec.model, spec.tensor))
        lanes.append(Lane(spec, offset))
        offset += -(-spec.tensor_bytes * spec.slots // page_bytes) * page_bytes
        if offset > LARGEST_SEGMENT_BYTES:
            raise ValueError(f"{what}: the segment would have {offset} bytes; at most {LARGEST_SEGMENT_BYTES}")
    return lanes, offset
