"""The ring's layout and its slots."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from umo.client import LaneSpec, Ring, layout

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


def ring() -> tuple[Ring, list[tuple[str, str, int]]]:
    told: list[tuple[str, str, int]] = []

    def register(name: str, key: str, size: int) -> None:
        assert Path("/dev/shm" + key).stat().st_size == size
        told.append((name, key, size))

    return Ring([LaneSpec("m", "in", 12, 3), LaneSpec("m", "out", 20, 3)], register), told


def test_the_segment_is_registered_and_gone_from_the_file_system() -> None:
    made, told = ring()
    assert told == [(made.name, "/" + made.name, made.size)]
    assert not Path("/dev/shm", made.name).exists()


def test_a_failed_registration_leaves_nothing() -> None:
    names: list[str] = []

    def refuse(name: str, key: str, size: int) -> None:
        names.append(name)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        Ring([LaneSpec("m", "t", 4, 1)], refuse)
    assert not Path("/dev/shm", names[0]).exists()


def test_slots_are_given_out_lowest_first_and_hold_their_own_bytes() -> None:
    made, _ = ring()
    slots = [made.take("m") for _ in range(3)]
    assert [slot.index for slot in slots] == [0, 1, 2]
    for slot in slots:
        slot.array("in", "f4", [3])[...] = slot.index
    whole = np.frombuffer(made.memory, "f4", 9, made.lane("m", "in").offset)
    assert whole.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    slots[1].close()
    slots[1].close()
    assert made.take("m").index == 1
    with pytest.raises(TimeoutError):
        made.take("m", timeout_s=0.01)


def test_a_tensor_that_does_not_fit_is_refused() -> None:
    made, _ = ring()
    with made.take("m") as slot:
        for shape in ([4], [-1], [1 << 40, 1 << 40]):
            with pytest.raises(ValueError):
                slot.array("in", "f4", shape)
        with pytest.raises(KeyError):
            slot.array("none", "f4", [1])


def test_a_waiting_taker_gets_the_slot_that_is_given_back() -> None:
    made, _ = ring()
    slots = [made.take("m") for _ in range(3)]
    got: list[int] = []
    taker = threading.Thread(target=lambda: got.append(made.take("m", timeout_s=10).index))
    taker.start()
    slots[2].close()
    taker.join()
    assert got == [2]
