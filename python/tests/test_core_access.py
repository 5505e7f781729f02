"""Brackets: what a with block opens, ends and leaves behind, on both sides."""

from __future__ import annotations

import gc
import io

import ml_dtypes
import numpy as np
import pytest

import umo


@pytest.fixture
def ctx() -> umo.Context:
    return umo.Context(shared=False)


def test_a_write_is_read(ctx: umo.Context) -> None:
    for mode in ("unified", "managed", "private"):
        tensor = ctx.empty((2, 3), "int32", device="host", mode=mode)
        with tensor.write() as view:
            assert view.open and view.side == "host" and not view.readonly and view.tensor is tensor
            assert (view.shape, view.dtype) == ((2, 3), "int32")
            np.asarray(view)[...] = [[1, 2, 3], [4, 5, 6]]
        assert not view.open and tensor.buffer is not None and tensor.buffer.valid() == ("host",)
        with tensor.read(device=True) as view:
            assert view.side == "device" and view.readonly and view.__dlpack_device__() == (1, 0)
            assert np.asarray(view).tolist() == np.from_dlpack(view).tolist() == [[1, 2, 3], [4, 5, 6]]
        assert tensor.buffer.valid() == ("host", "device")
        with tensor.update(device=True) as view:
            np.asarray(view)[0, 0] = 9
        assert tensor.buffer.valid() == ("device",)
        with tensor.read() as view:
            assert np.asarray(view).tolist() == [[9, 2, 3], [4, 5, 6]]


def test_a_read_cannot_be_written_to(ctx: umo.Context) -> None:
    tensor = ctx.empty(4, device="host")
    with tensor.read() as view:
        assert memoryview(view).readonly and not np.asarray(view).flags.writeable
        assert not np.from_dlpack(view).flags.writeable
        with pytest.raises(BufferError, match="1.0"):
            view.__dlpack__()
        with pytest.raises(TypeError, match="read-write"):
            io.BytesIO(bytes(16)).readinto(view)


def test_conflicts_are_busy_at_once(ctx: umo.Context) -> None:
    tensor = ctx.empty(4, device="host")
    with tensor.read(), tensor.read(), tensor[1:].read():
        with pytest.raises(umo.BusyError, match="another bracket") as raised, tensor.write():
            pass
        assert raised.value.status == "BUSY" and isinstance(raised.value, BufferError)
        with pytest.raises(umo.BusyError):
            memoryview(tensor)
        with pytest.raises(umo.BusyError):
            np.asarray(tensor)
    with tensor[:2].write(), tensor[2:].write():
        pass
    shown = np.asarray(tensor)
    with pytest.raises(umo.BusyError), tensor.update():
        pass
    with tensor.read() as view:
        shown[0] = 5
        assert np.asarray(view)[0] == 5
    del shown
    with tensor.update():
        pass


def test_an_array_that_outlives_its_block_keeps_the_bracket(ctx: umo.Context) -> None:
    tensor = ctx.empty(4, device="host")
    for show in (np.asarray, memoryview, np.from_dlpack, lambda view: view.handle and view):
        with tensor.write() as view:
            kept = show(view)
        assert view.open
        with pytest.raises(umo.BusyError), tensor.read():
            pass
        with pytest.raises(umo.BusyError):
            tensor.buffer.release()  # type: ignore[union-attr]
        del kept, view
        gc.collect()
        with tensor.read():
            pass


def test_a_block_that_fails_leaves_nothing_valid(ctx: umo.Context) -> None:
    tensor = ctx.empty(4, device="host")
    buffer = tensor.buffer
    assert buffer is not None
    with tensor.write():
        pass
    assert buffer.valid() == ("host",)
    with pytest.raises(KeyError), tensor.read():
        raise KeyError
    assert buffer.valid() == ("host",)
    with pytest.raises(KeyError), tensor.write():
        raise KeyError
    assert buffer.valid() == ()


def test_a_bracket_is_good_for_one_block(ctx: umo.Context) -> None:
    tensor = ctx.empty(4, device="host")
    bracket = tensor.read()
    with pytest.raises(umo.InvalidError, match="not open yet"):
        memoryview(bracket)
    with pytest.raises(umo.InvalidError, match="not open"):
        bracket.__exit__(None, None, None)
    with bracket, pytest.raises(umo.InvalidError, match="one with block"):
        bracket.__enter__()
    for use in (lambda: memoryview(bracket), lambda: bracket.handle, bracket.__dlpack__, bracket.__enter__):
        with pytest.raises(umo.InvalidError):
            use()


def test_a_bracket_that_nobody_ends_is_aborted(ctx: umo.Context) -> None:
    tensor = ctx.empty(4, device="host")
    with tensor.write():
        pass
    bracket = tensor.write()
    bracket.__enter__()
    del bracket
    assert tensor.buffer is not None and tensor.buffer.valid() == ()
    with tensor.write():
        pass


def test_bad_arguments_are_told(ctx: umo.Context) -> None:
    tensor = ctx.empty(4, device="host")
    with pytest.raises(umo.InvalidError), tensor.read(device=True, queue=999):
        pass
    for wrong in ({"timeout": -1}, {"timeout": float("nan")}, {"queue": -1}, {"queue": 2**40}):
        with pytest.raises(umo.InvalidError):
            tensor.read(**wrong)
    with pytest.raises(TypeError, match="unexpected keyword argument 'side'"):
        tensor.read(side="host")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="positional"):
        tensor.read(True)  # type: ignore[misc]


def test_nothing_is_a_bracket_too(ctx: umo.Context) -> None:
    tensor = ctx.empty((0, 3), device="host")
    with tensor.write() as view, tensor.write() as other:
        assert np.asarray(view).shape == np.from_dlpack(other).shape == (0, 3)


def test_bfloat16_in_a_block(ctx: umo.Context) -> None:
    tensor = ctx.empty((2, 4), "bfloat16", device="host")
    with tensor.write() as view:
        np.asarray(view)[...] = ml_dtypes.bfloat16(1.5)
    with tensor.narrow(1, 1, 2).read() as view:
        shown = np.asarray(view)
        assert shown.dtype == ml_dtypes.bfloat16 and shown.tolist() == [[1.5, 1.5], [1.5, 1.5]]
        assert not shown.flags.writeable
