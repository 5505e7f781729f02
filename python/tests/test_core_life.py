"""Lifetimes: who keeps whom, that everything is let go of exactly once, and that threads may do all of it at once."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
import weakref
from collections.abc import Callable

import numpy as np
import pytest

import umo


def test_a_tensor_keeps_its_array_and_lets_it_go() -> None:
    values = np.ones(5, np.float32)
    before = sys.getrefcount(values)
    tensor = umo.Tensor.wrap(values)
    assert sys.getrefcount(values) > before
    gone = weakref.ref(values)
    back = np.asarray(tensor)
    del values, tensor
    gc.collect()
    assert gone() is not None and back.sum() == 5
    del back
    assert gone() is None


def test_consumers_outlive_the_tensor() -> None:
    values = np.ones(5, np.float32)
    gone = weakref.ref(values)
    shown = [np.asarray(umo.Tensor.wrap(values)), np.from_dlpack(umo.Tensor.wrap(values)), umo.Tensor.wrap(values)[1:]]
    del values
    while shown:
        gc.collect()
        assert gone() is not None
        assert np.asarray(shown.pop()).sum() in (4, 5)
    gc.collect()
    assert gone() is None


def test_an_array_outlives_its_context() -> None:
    ctx = umo.Context(shared=False)
    arrays = [
        np.asarray(ctx.empty((64, 64), device="host")),
        np.from_dlpack(ctx.empty((64, 64), device="host")),
        np.asarray(ctx.pool(device="host").empty((64, 64))),
        np.from_dlpack(ctx.pool(device="host").empty((64, 64))),
        np.asarray(ctx.wrap(np.zeros((64, 64), np.float32), device="host")),
    ]
    gone = weakref.ref(ctx)
    ctx.close()
    del ctx
    gc.collect()
    for number, values in enumerate(arrays):
        values[...] = number
    del values
    assert [int(each[3, 3]) for each in arrays] == [0, 1, 2, 3, 4]
    arrays.clear()
    gc.collect()
    assert gone() is None


def test_a_closed_context_makes_nothing_new_and_breaks_nothing_old() -> None:
    with umo.Context(shared=False) as ctx:
        tensor = ctx.empty(4, device="host")
        pool = ctx.pool(device="host")
    assert ctx.closed
    for new in (
        lambda: ctx.empty(4, device="host"), lambda: ctx.empty(0), ctx.stats, lambda: ctx.pool(device="host"),
        lambda: ctx.wrap(np.ones(3)), ctx.devices, ctx.device, ctx.scope, ctx.optimize, ctx.__enter__,
    ):  # fmt: skip
        with pytest.raises(umo.InvalidError, match="closed"):
            new()
    with tensor.write() as view:
        np.asarray(view)[:] = 3
    assert np.asarray(tensor).sum() == 12
    assert np.asarray(pool.empty(3)).shape == (3,)
    ctx.close()


def test_the_processs_context_ends_with_its_last_user() -> None:
    first = umo.Context(budget_bytes=1 << 30)
    assert umo.Context().shared
    with pytest.raises(umo.InvalidError, match="budget_bytes"):
        umo.Context(budget_bytes=1 << 20)
    tensor = first.empty(4, device="host")
    first.close()
    gc.collect()
    with pytest.raises(umo.InvalidError, match="budget_bytes"):
        umo.Context(budget_bytes=1 << 20)
    del tensor
    gc.collect()
    umo.Context(budget_bytes=1 << 20).close()


def test_a_buffer_is_not_released_under_its_views() -> None:
    with umo.Context(shared=False) as ctx:
        tensor = ctx.empty(4, device="host")
        buffer = tensor.buffer
        assert buffer is not None
        view = memoryview(tensor)
        with pytest.raises(umo.BusyError, match="still in use"):
            buffer.release()
        view.release()
        array = np.from_dlpack(tensor)
        array[:] = 7
        buffer.release()
        assert buffer.released and buffer.nbytes == 0
        assert array.sum() == 28, "DLPack's consumer holds the memory itself"
        for use in (lambda: memoryview(tensor), lambda: memoryview(buffer), tensor.__dlpack__, lambda: buffer.mode,
                    lambda: tensor.read().__enter__(), buffer.pin, lambda: buffer.move("unified"), buffer.stats,
                    lambda: tensor.reshape((2, 2)), lambda: buffer.upload(b"1234")):  # fmt: skip
            with pytest.raises((umo.InvalidError, BufferError), match="released"):
                use()
        buffer.release()


def test_an_address_that_was_told_stays_good_as_long_as_the_tensor() -> None:
    with umo.Context(shared=False) as ctx:
        tensor = ctx.empty(4, device="host")
        first, second = tensor.__array_interface__["data"], tensor.__array_interface__["data"]
        assert first == second
        with pytest.raises(umo.BusyError):
            tensor.buffer.release()  # type: ignore[union-attr]
        buffer = tensor.buffer
        assert buffer is not None
        del tensor
        buffer.release()


def test_a_cycle_through_a_tensor_is_collected() -> None:
    class Named(np.ndarray):
        pass

    values = np.ones(1 << 16, np.uint8).view(Named)
    values.tensor = umo.Tensor.wrap(values)  # type: ignore[attr-defined]
    values.part = values.tensor[5:]  # type: ignore[attr-defined]
    gone = weakref.ref(values)
    del values
    for _ in range(3):
        gc.collect()
    assert gone() is None


def leaks(step: Callable[[], object], turns: int) -> int:
    """Bytes that Python holds more after many turns than after few."""
    for _ in range(200):
        step()
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    size = tracemalloc.get_traced_memory()[0]
    for _ in range(turns):
        step()
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    del before
    tracemalloc.stop()
    return after - size


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


STEPS = [
    "asarray", "dlpack", "old dlpack", "unconsumed", "copy", "interface", "parts", "bracket", "empty", "pool",
    "refused", "stats",
]  # fmt: skip


def steps(ctx: umo.Context) -> dict[str, Callable[[], object]]:
    values = np.ones((8, 8), np.float32)
    tensor = ctx.empty((8, 8), device="host")
    pool = ctx.pool(device="host")
    wrong = np.zeros(3, ">f4")

    def refused() -> None:
        try:
            umo.Tensor.wrap(wrong)
        except umo.UnsupportedError:
            return
        raise AssertionError("taken")

    def bracket() -> None:
        with tensor.update() as view:
            memoryview(view)

    return {
        "asarray": lambda: np.asarray(umo.Tensor.wrap(values)),
        "dlpack": lambda: np.from_dlpack(umo.Tensor.wrap(values)),
        "old dlpack": lambda: umo.Tensor.wrap(umo.Tensor.wrap(values).__dlpack__()),
        "unconsumed": lambda: tensor.__dlpack__(max_version=(1, 0)),
        "copy": lambda: tensor.__dlpack__(copy=True),
        "interface": lambda: umo.Tensor.wrap(values).__array_interface__,
        "parts": lambda: tensor[1:3].reshape(16),
        "bracket": bracket,
        "empty": lambda: ctx.empty(16, "int8", device="host"),
        "pool": lambda: pool.empty(16),
        "refused": refused,
        "stats": ctx.stats,
    }


@pytest.mark.parametrize("name", STEPS)
def test_nothing_leaks(name: str) -> None:
    with umo.Context(shared=False) as ctx:
        step = steps(ctx)[name]
        assert leaks(step, 1000) < 4096
        live = ctx.stats()["live_buffers"]
        for _ in range(100):
            step()
        gc.collect()
        # A pool keeps its last block for the next one, until the keeper gives it back: before or after `live`.
        assert ctx.stats()["live_buffers"] <= live + (name == "pool")


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_nothing_leaks_in_a_hundred_thousand_turns(name: str) -> None:
    with umo.Context(shared=False) as ctx:
        step = steps(ctx)[name]
        for _ in range(5000):
            step()
        gc.collect()
        before = resident()
        for _ in range(100_000):
            step()
        gc.collect()
        assert resident() - before < 4 << 20
        assert leaks(step, 100_000) < 4096


def test_threads_share_a_tensor() -> None:
    values = np.arange(1024, dtype=np.float32)
    failures: list[str] = []
    with umo.Context(shared=False) as ctx:
        ours = ctx.wrap(values, device="host")
        pool = ctx.pool(device="host")

        def work() -> None:
            for _ in range(400):
                shown = np.asarray(ours)
                other = np.from_dlpack(ours[1:])
                if shown[5] != 5 or other[4] != 5:
                    failures.append("bytes")
                block = pool.empty(100)
                with block.write() as view:
                    np.asarray(view)[:] = 1
                if np.asarray(block).sum() != 100:
                    failures.append("block")
                umo.Tensor.wrap(np.ones(3)).__dlpack__()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        with ours.write():
            pass


def test_a_release_races_with_everything() -> None:
    with umo.Context(shared=False) as ctx:
        for _ in range(50):
            tensor = ctx.empty(1024, device="host")
            buffer = tensor.buffer
            assert buffer is not None
            start = threading.Barrier(3)

            def use(tensor: umo.Tensor = tensor, start: threading.Barrier = start) -> None:
                start.wait()
                for _ in range(50):
                    try:
                        with tensor.update() as view:
                            memoryview(view)
                        np.from_dlpack(tensor)
                        tensor.buffer.prefetch("device")  # type: ignore[union-attr]
                    except (umo.InvalidError, umo.BusyError):
                        pass

            threads = [threading.Thread(target=use) for _ in range(2)]
            for thread in threads:
                thread.start()
            start.wait()
            while not buffer.released:
                try:
                    buffer.release()
                except umo.BusyError:
                    continue
            for thread in threads:
                thread.join()


def test_what_blocks_gives_the_lock_up() -> None:
    with umo.Context(shared=False) as ctx:
        tensor = ctx.empty(16, device="host", pattern="balanced")
        buffer = tensor.buffer
        assert buffer is not None
        if not buffer.movable:
            pytest.skip("the host device of this build has one mode for this buffer")
        reached = threading.Event()
        done: list[str] = []

        def move() -> None:
            reached.set()
            try:
                buffer.move("managed", timeout=10)
                done.append("moved")
            except umo.UmoError as error:
                done.append(error.status)

        with tensor.update():
            mover = threading.Thread(target=move)
            mover.start()
            assert reached.wait(5)
            mover.join(0.1)
            assert mover.is_alive() and not done, "it waits for the bracket, and this thread runs"
        mover.join(10)
        assert done == ["moved"] and buffer.mode == "managed"
