"""The ring's layout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from umo.client import LaneSpec, layout

SPECS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.integers(1, 1 << 20)), min_size=1, unique_by=lambda item: item[0]
)


@given(SPECS, st.integers(1, 64), st.sampled_from([4096, 16384, 65536]))
def test_lanes_do_not_share_a_page_and_slots_touch(tensors: list[tuple[str, int]], slots: int, page: int) -> None:
    lanes, size = layout([LaneSpec("m", name, count, slots) for name, count in tensors], page)
    end = 0
    for lane in lanes:
        assert lane.offset % page == 0 and lane.offset >= end
        for slot in range(1, slots):
            assert lane.slot_offset(slot) == lane.slot_offset(slot - 1) + lane.spec.tensor_bytes
        end = lane.offset + lane.size
    assert end <= size < end + page


@pytest.mark.parametrize(
    ("specs", "words"),
    [
        ([LaneSpec("m", "t", 0, 1)], "at least 1"),
        ([LaneSpec("m", "t", 4, 0)], "at least 1"),
        ([LaneSpec("m", "t", -4, 2)], "at least 1"),
        ([LaneSpec("m", "t", 4, 2), LaneSpec("m", "t", 8, 2)], "twice"),
        ([LaneSpec("m", "t", 4, 2), LaneSpec("m", "u", 4, 3)], "another lane"),
        ([LaneSpec("m", "t", 1 << 40, 1 << 40)], "at most"),
    ],
)
def test_a_layout_that_cannot_be_is_named(specs: list[LaneSpec], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        layout(specs)
