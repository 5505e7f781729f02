"""Rings, their slots and who holds them; segments, and whose they are."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from umo.client import LaneSpec, Ring
from umo.client import segment as segments
from umo.client.budget import Budget
from umo.client.ring import lease_of
from umo.client.segment import Owner, Segment

LINUX = pytest.mark.skipif(segments.SYSTEM.folder is None, reason="this system does not show its shared memory")


def ring(slots: int = 3) -> Ring:
    return Ring([LaneSpec("m", "in", 12, slots), LaneSpec("m", "out", 20, slots)])


def memory_in_step(one: Segment, size: int) -> int:
    """The bytes that a mapping which lies in step with the segment shows as large pages."""
    libc = segments._libc()
    place = libc.mmap(None, size + segments.HUGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    start = place + -place % segments.HUGE
    assert libc.mmap(start, size, mmap.PROT_READ, mmap.MAP_SHARED | segments._MAP_FIXED, one._file, 0) == start
    try:
        for at in range(0, size, 4096):
            ctypes.c_char.from_address(start + at).value  # noqa: B018
        own = Path("/proc/self/smaps").read_text().split(f"{start:x}-", 1)[1]
        return int(re.search(r"ShmemPmdMapped:\s+(\d+) kB", own)[1]) << 10  # type: ignore[index]
    finally:
        libc.munmap(place, size + segments.HUGE)


def shown() -> set[str]:
    assert segments.SYSTEM.folder is not None
    return {path.name for path in segments.SYSTEM.folder.glob(f"umo.{os.getpid()}.*")}


@LINUX
def test_a_segment_is_seen_until_it_is_hidden_and_stays_mapped_after() -> None:
    one = Segment(8192)
    assert one.key[1:] in shown() and len(one.key) <= 30
    one.hide()
    one.hide()
    assert one.key[1:] not in shown()
    one.memory[5000] = 7
    assert one.memory[5000] == 7


@LINUX
def test_a_forgotten_segment_leaves_no_file_and_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        Segment(4096)
    gc.collect()
    assert shown() == set()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_large_page_is_asked_for_as_soon_as_all_of_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(segments.SYSTEM, "enlarge", lambda _, offset, size: asked.append((offset, size)))
    huge = segments.HUGE
    one = Segment(8 * huge)
    one.commit(0, huge // 2)
    assert asked == []
    one.commit(huge // 2, huge // 2)
    assert asked == [(0, huge)]
    one.commit(huge, 3 * huge)
    assert asked[1:] == [(huge, 3 * huge)]
    one.commit(4 * huge, huge + 4096)
    assert asked[2:] == [(4 * huge, huge)]
    one.commit(5 * huge + 4096, 2 * huge - 4096)
    assert sorted(asked[3:]) == [(5 * huge, huge), (6 * huge, huge)]


def test_large_pages_can_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "_HUGE_PAGES", False)
    monkeypatch.setattr(segments.SYSTEM, "enlarge", lambda *_: pytest.fail("asked for"))
    Segment(4 * segments.HUGE).commit(0, 4 * segments.HUGE)


@LINUX
def test_what_a_slot_holds_survives_that_its_neighbours_page_is_enlarged() -> None:
    """Twelve slots of 1 MiB: every second one completes a large page in which the one before lies already."""
    made = Ring([LaneSpec("m", "in", 1 << 20, 12)])
    slots = []
    for i in range(12):
        slots.append(made.take("m"))
        slots[-1].array("in", np.uint8, (1 << 20,))[:] = i
    for i, slot in enumerate(slots):
        assert np.all(slot.array("in", np.uint8, (1 << 20,)) == i)


@LINUX
def test_a_taken_segment_is_of_large_pages() -> None:
    if tuple(int(part) for part in os.uname().release.split(".")[:2]) < (6, 1):
        pytest.skip("this kernel has no MADV_COLLAPSE")
    one = Segment(4 * segments.HUGE)
    one.commit(0, 4 * segments.HUGE)
    shown = memory_in_step(one, 4 * segments.HUGE)
    if shown == 0:
        pytest.skip("this kernel gives shared memory no large pages")
    assert shown == 4 * segments.HUGE


@LINUX
def test_memory_that_is_not_there_is_an_error_and_no_signal() -> None:
    room = os.statvfs("/dev/shm")
    one = Segment(2 * room.f_blocks * room.f_frsize)
    with pytest.raises(OSError):
        one.commit(0, one.size)
    one.drop()


def test_a_name_tells_whose_it_is() -> None:
    one = Segment(4096)
    owner = Owner.of(one.name)
    assert owner is not None and owner.pid == os.getpid() and not owner.is_dead()
    for other in ("umo-1-2-3", "triton", "umo-1-2-3-0123456789abcdeg", "x" + one.name, one.name + "x"):
        assert Owner.of(other) is None


def test_the_dead_are_told_from_the_living() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", "import os; print('ready', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout is not None and child.stdout.readline()
    started = segments.SYSTEM.started(child.pid)
    assert started is not None
    owner = Owner(child.pid, started, segments.SYSTEM.namespace())
    assert not owner.is_dead()
    assert Owner(child.pid, started + 1, owner.namespace).is_dead(), "the pid was given out again"
    child.communicate(b"\n")
    assert owner.is_dead()
    assert not Owner(owner.pid, owner.started, owner.namespace + 1).is_dead(), "not ours to see"
    assert not Owner(1, segments.SYSTEM.started(1) or 0, owner.namespace).is_dead()


@LINUX
def test_what_a_killed_process_left_is_swept_once_it_is_old() -> None:
    code = (
        "import os, signal; from umo.client.segment import Segment; one = Segment(4096);"
        "print(one.key, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    paths = os.pathsep.join([str(Path(segments.__file__).parents[2])])
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    left = Path("/dev/shm" + said.stdout.strip())
    mine = Segment(4096)
    try:
        assert left.exists(), said.stderr
        segments.sweep()
        assert left.exists(), "it may be of a process in another namespace that is about to hide it"
        for path in (left, Path("/dev/shm" + mine.key)):
            os.utime(path, (time.time() - 3600, time.time() - 3600))
        assert segments.sweep() >= 1
        assert not left.exists()
        assert Path("/dev/shm" + mine.key).exists()
    finally:
        left.unlink(missing_ok=True)


def test_slots_are_given_out_lowest_first_and_hold_their_own_bytes() -> None:
    made = ring()
    slots = [made.take("m") for _ in range(3)]
    assert [slot.index for slot in slots] == [0, 1, 2]
    for slot in slots:
        slot.array("in", "f4", [3])[...] = slot.index
    whole = np.frombuffer(made.segment.memory, "f4", 9, made.lane("m", "in").offset)
    assert whole.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    slots[1] = None  # type: ignore[call-overload]
    assert made.take("m").index == 1
    with pytest.raises(TimeoutError):
        [made.take("m", timeout_s=0.01) for _ in range(3)]


def test_an_array_holds_its_slot_and_so_does_every_view_of_it() -> None:
    made = ring()
    slot = made.take("m")
    array = slot.array("in", "f4", [3])
    view = array[1:].view(np.uint8).reshape(2, 4)
    del slot, array
    assert made.take("m").index == 1, "slot 0 is held by a view"
    lease = lease_of(view)
    assert lease is not None
    part = lease.part(view)
    assert (part.offset, part.size) == (made.lane("m", "in").offset + 4, 8)
    del lease, part, view
    assert made.take("m").index == 0


def test_a_slot_in_quarantine_is_not_given_out_again() -> None:
    made = ring()
    slot = made.take("m")
    slot.quarantine()
    slot.quarantine()
    del slot
    assert (made.suspects, made.lost) == (1, [0])
    assert [made.take("m").index for _ in range(2)] == [1, 1]
    held = made.take("m")
    assert not made.close_if_idle()
    del held
    assert made.close_if_idle(), "what never comes back does not keep a ring"
    assert made.try_take("m") is None


def test_parts_of_a_slot_are_claimed_once() -> None:
    slot = ring().take("m")
    assert slot.claim("in") and slot.claim("out") and not slot.claim("in")
    assert slot.claimed("out") and not slot.claimed("more")


def test_a_tensor_that_does_not_fit_is_refused() -> None:
    slot = ring().take("m")
    for shape in ([4], [-1], [1 << 40, 1 << 40], [-2, -3]):
        with pytest.raises(ValueError):
            slot.array("in", "f4", shape)
    with pytest.raises(ValueError):
        slot.lease("in", 13)
    with pytest.raises(KeyError):
        slot.array("none", "f4", [1])


def test_a_waiting_taker_gets_the_slot_that_is_given_back() -> None:
    made = ring()
    slots = [made.take("m") for _ in range(3)]
    got: list[int] = []
    taker = threading.Thread(target=lambda: got.append(made.take("m", timeout_s=10).index))
    taker.start()
    slots.pop()
    taker.join()
    assert got == [2]


def test_threads_never_share_a_slot() -> None:
    made = ring(4)
    wrong: list[int] = []

    def work(number: int) -> None:
        for turn in range(300):
            array = made.take("m").array("in", "i4", [3])
            array[...] = number * 1000 + turn
            time.sleep(0)
            if not (array == number * 1000 + turn).all():
                wrong.append(number)
            del array  # who holds one while it waits for another may wait for ever

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert made.close_if_idle()


def test_a_slot_may_be_given_back_in_the_middle_of_a_take() -> None:
    """The garbage collector runs where it likes: here in take(), whose lock the way back must not want."""
    made = ring(40)

    class Loop:
        def __init__(self) -> None:
            self.slot, self.own = made.take("m"), self

    def charge(_: int) -> bool:
        gc.collect()
        return True

    gc.collect()
    gc.freeze()  # only what is made here is to be looked through
    for _ in range(5):
        Loop()
    made._charge = charge
    done = threading.Event()

    def take() -> None:
        held = [made.take("m") for _ in range(20)]
        assert len({slot.index for slot in held}) == 20
        done.set()

    threading.Thread(target=take, daemon=True).start()
    try:
        assert done.wait(20), "a take waits for itself"
    finally:
        gc.unfreeze()


class Slots(RuleBasedStateMachine):
    """Takes, returns and quarantines at random, against a set of numbers."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.ring = ring(5)
        self.free = set(range(5))
        self.lost: set[int] = set()

    @rule(target=held)
    def take(self) -> list:
        slot = self.ring.try_take("m")
        if slot is None:
            assert self.free == set()
            return [None]
        assert slot.index == min(self.free)
        self.free.remove(slot.index)
        slot.array("in", "i4", [3])[...] = slot.index
        return [slot]

    @rule(target=held, one=held)
    def share(self, one: list) -> list:
        return one

    @rule(one=consumes(held))
    def give(self, one: list) -> None:
        slot = one[0]
        one[0] = None
        if slot is None:
            return
        index = slot.index
        assert (slot.array("in", "i4", [3]) == index).all()
        (self.lost if slot.lost else self.free).add(index)

    @rule(one=held, chance=st.integers(0, 9))
    def quarantine(self, one: list, chance: int) -> None:
        if one[0] is not None and chance == 0:
            one[0].quarantine()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        assert set(self.ring.lost) == self.lost and len(self.ring.lost) == len(self.lost)
        assert not self.free & self.lost


TestSlots = Slots.TestCase
TestSlots.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


def test_memory_is_charged_slot_by_slot_and_once() -> None:
    budget = Budget(1 << 20)
    made = budget.make([("in", 4096), ("out", 8192)], "m", lambda _: None)
    assert made is not None and budget.used == 0
    first = budget.take(made, "m")
    second = budget.take(made, "m")
    assert budget.used == 2 * 12288
    del first, second
    again = [budget.take(made, "m") for _ in range(2)]
    assert [slot.index for slot in again if slot] == [0, 1] and budget.used == 2 * 12288
    assert not made.close_if_idle()
    del again
    assert made.close_if_idle()
    budget.release(made)
    budget.release(made)
    assert budget.used == 0


def test_the_ring_that_was_used_longest_ago_goes_first_and_never_one_in_use() -> None:
    budget = Budget(100 << 10)
    gone: list[Ring] = []
    rings = [budget.make([("in", 24 << 10)], "m", gone.append) for _ in range(4)]
    assert all(rings)
    slots = [budget.take(one, "m") for one in rings]  # type: ignore[arg-type]
    assert all(slots) and budget.used == 96 << 10
    wanting = budget.make([("in", 24 << 10)], "m", gone.append)
    assert wanting is not None
    assert budget.take(wanting, "m") is None, "all are held"
    slots[2] = slots[1] = None
    taken = budget.take(wanting, "m")
    assert taken is not None and gone == [rings[1]] and rings[1].closed  # type: ignore[union-attr]
    assert not rings[2].closed  # type: ignore[union-attr]
    taken.quarantine()
    del taken
    more = budget.make([("in", 48 << 10)], "m", gone.append)
    assert more is not None and budget.take(more, "m") is None, "what a server may still write to does not go"
    assert gone == [rings[1], rings[2]]


def test_rings_are_so_many_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umo.client.budget.MOST_RINGS", 3)
    budget = Budget(1 << 20)
    gone: list[Ring] = []
    rings = [budget.make([("in", 8)], "m", gone.append) for _ in range(3)]
    slots = [budget.take(one, "m") for one in rings]  # type: ignore[arg-type]
    assert budget.make([("in", 8)], "m", gone.append) is None, "all are in use"
    slots[1] = None
    assert budget.make([("in", 8)], "m", gone.append) is not None
    assert gone == [rings[1]] and budget.used == 2 * 8


@LINUX
def test_a_ring_that_went_has_no_file_open_and_no_memory() -> None:
    budget = Budget(64 << 20)
    made = budget.make([("in", 16 << 20)], "m", lambda _: None)
    assert made is not None
    slot = budget.take(made, "m")
    assert slot is not None
    slot.array("in", np.uint8, [16 << 20])[:] = 1
    used = os.fstat(made.segment._file).st_blocks
    file = os.dup(made.segment._file)
    del slot
    assert made.close_if_idle()
    budget.release(made)
    assert used * 512 >= 16 << 20 and os.fstat(file).st_blocks == 0
    os.close(file)
    assert made.segment._file == -1


def test_a_ring_of_less_than_two_slots_is_not_made() -> None:
    assert Budget(100).make([("in", 51)], "m", lambda _: None) is None
    assert Budget(100).make([("in", 50)], "m", lambda _: None) is not None
