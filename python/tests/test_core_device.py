"""A device with handles in place of addresses (OpenCL): brackets on its side, and DLPack that only it understands."""

from __future__ import annotations

import gc

import numpy as np
import pytest

import umo

OPENCL = 4


@pytest.fixture(scope="module")
def ctx() -> umo.Context:
    opened = umo.Context(shared=False)
    try:
        opened.device("opencl")
    except umo.NotFoundError:
        pytest.skip("no OpenCL device here")
    return opened


@pytest.mark.parametrize("mode", [None, "unified", "managed", "private"])
def test_bytes_go_to_the_device_and_back(ctx: umo.Context, mode: str | None) -> None:
    device = ctx.device("opencl")
    tensor = ctx.empty((4, 16), "int32", device=device, mode=mode)  # type: ignore[arg-type]
    buffer = tensor.buffer
    assert buffer is not None and buffer.device == device
    with tensor.write() as view:
        np.asarray(view)[...] = 7
    with tensor.read(device=True) as view:
        assert view.side == "device" and view.__dlpack_device__() == (OPENCL, 0) and view.handle[0] != 0
        with pytest.raises(BufferError, match="no address"):
            memoryview(view)
        with pytest.raises(BufferError, match="device's side"):
            view.__dlpack__(dl_device=(1, 0))
        with pytest.raises(umo.UnsupportedError, match="OpenCL memory"):
            umo.Tensor.wrap(view.__dlpack__(max_version=(1, 0)))
    del view
    gc.collect()
    assert buffer.valid() == ("host", "device") and np.asarray(tensor).sum() == 7 * 64


def test_its_own_memory_is_recognised(ctx: umo.Context) -> None:
    tensor = ctx.empty((4, 16), "int32", device="opencl")
    capsule = tensor.__dlpack__(max_version=(1, 0), dl_device=(OPENCL, 0))
    with pytest.raises(umo.BusyError), tensor.write():
        pass
    again = ctx.wrap(capsule, device="opencl")
    assert again.buffer is not None and tensor.buffer is not None
    assert again.shape == (4, 16) and again.buffer.address == tensor.buffer.address
    with tensor.write() as view:
        np.asarray(view)[...] = 3
    assert np.asarray(again).sum() == 192
    with pytest.raises(BufferError, match="CPU only"):
        tensor.__dlpack__(dl_device=(OPENCL, 0), copy=True)
    with pytest.raises(BufferError, match="not on"):
        tensor.__dlpack__(dl_device=(OPENCL, 1))


def test_an_array_is_bound_where_it_lies(ctx: umo.Context) -> None:
    values = np.arange(4096, dtype=np.float32)
    tensor = ctx.wrap(values, device="opencl")
    with tensor.update(device=True):
        pass
    assert np.asarray(tensor).ctypes.data == values.ctypes.data and np.asarray(tensor)[4095] == 4095
    block = ctx.pool(device="opencl").empty(100)
    with block.write() as view:
        np.asarray(view)[:] = 1
    assert np.asarray(block).sum() == 100


def test_the_best_device_is_a_gpus_before_the_cpu(ctx: umo.Context) -> None:
    assert ctx.device() == ctx.devices()[0] and ctx.device().driver in ("metal", "opencl")
    assert {device.driver for device in ctx.devices()} >= {"opencl", "host"}
