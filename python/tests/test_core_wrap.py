"""Arrays into tensors and back: the same memory, whatever the element type, and refusals in words."""

from __future__ import annotations

import array
import ctypes
import hashlib
import io
import mmap
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

import umo

TYPES = [
    "bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
]  # fmt: skip


def address(values: np.ndarray) -> int:
    return int(values.__array_interface__["data"][0])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(6,), (2, 3), (2, 0, 3), (), (1,) * 32])
def test_an_array_comes_back_as_it_was(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(int(np.prod(shape)), dtype=np.float64).reshape(shape).astype(dtype)
    tensor = umo.Tensor.wrap(values)
    assert (tensor.shape, tensor.dtype, tensor.ndim) == (shape, dtype, len(shape))
    assert (tensor.size, tensor.nbytes, tensor.itemsize) == (values.size, values.nbytes, values.itemsize)
    assert tensor.packed and not tensor.readonly
    for back in (np.asarray(tensor), np.from_dlpack(tensor), np.asarray(memoryview(tensor))):
        assert back.dtype == values.dtype and back.shape == shape and back.flags.writeable
        assert back.size == 0 or address(back) == address(values)
        assert np.array_equal(back, values)


@pytest.mark.parametrize("size", [1, 4096, 1 << 20, 1 << 28])
def test_no_size_is_copied(size: int) -> None:
    values = np.empty(size, np.uint8)
    tensor = umo.Tensor.wrap(values)
    assert address(np.asarray(tensor)) == address(np.from_dlpack(tensor)) == address(values)
    values[-1] = 77
    assert np.asarray(tensor)[-1] == 77


def test_bfloat16_goes_round_by_ml_dtypes() -> None:
    values = np.arange(6, dtype=np.float32).astype(ml_dtypes.bfloat16).reshape(2, 3)
    tensor = umo.Tensor.wrap(values)
    assert tensor.dtype == "bfloat16"
    back = np.asarray(tensor)
    assert back.dtype == values.dtype and address(back) == address(values) and np.array_equal(back, values)
    part = np.asarray(umo.Tensor.wrap(values[:, 1:]))
    assert np.array_equal(part, values[:, 1:]) and address(part) == address(values) + 2
    assert np.asarray(tensor, dtype=np.float32).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(BufferError, match="no bfloat16"):
        memoryview(tensor)
    with pytest.raises(AttributeError):
        _ = tensor.__array_interface__
    assert umo.Tensor.wrap(tensor.__dlpack__(max_version=(1, 0))).dtype == "bfloat16"


@pytest.mark.parametrize(
    "cut",
    [
        lambda a: a[::2], lambda a: a.T, lambda a: a[:, 1:4], lambda a: a[1:3, ::3],
        lambda a: np.broadcast_to(a[0], (5, 6)),
    ],
    ids=["steps", "transposed", "columns", "both", "broadcast"],
)  # fmt: skip
def test_strides_come_along(cut: Callable[[np.ndarray], np.ndarray]) -> None:
    values = cut(np.arange(24, dtype=np.int32).reshape(4, 6))
    tensor = umo.Tensor.wrap(values)
    for back in (np.asarray(tensor), np.from_dlpack(tensor)):
        assert address(back) == address(values)
        assert np.array_equal(back, values) and back.strides == values.strides
    assert tensor.strides == values.strides and not tensor.packed
    assert tensor.readonly == (not values.flags.writeable)
    with pytest.raises(BufferError, match="one behind the other"):
        hashlib.sha256(tensor)  # takes packed bytes only


def refused(values: object, error: type[Exception], words: str) -> None:
    with pytest.raises(umo.UmoError, match=words) as raised:
        umo.Tensor.wrap(values)
    assert isinstance(raised.value, error)


def test_what_has_no_type_of_ours_is_refused_in_words() -> None:
    refused(np.zeros(3, ">f4"), TypeError, "other order")
    refused(np.zeros(3, ">i8"), TypeError, "other order")
    refused(np.array(["a", "bc"]), TypeError, "strings")
    refused(np.array([b"a", b"bc"]), TypeError, "strings")
    refused(np.array([object()]), TypeError, "Python objects")
    refused(np.zeros(3, np.complex64), TypeError, "complex")
    refused(np.zeros(3, np.longdouble), TypeError, "long double")
    refused(np.zeros(3, [("a", "f4"), ("b", "i4")]), TypeError, "structures")
    refused(np.zeros(3, "M8[s]"), TypeError, "M8")
    refused(object(), TypeError, "neither by the buffer protocol")
    refused([1, 2, 3], TypeError, "neither by the buffer protocol")
    refused(np.zeros((1,) * 33, np.int8), TypeError, "33 dimensions")
    assert umo.Tensor.wrap(np.zeros(3, ">u1")).dtype == "uint8"


def test_what_lies_badly_is_refused_with_reason_and_remedy() -> None:
    refused(np.arange(5)[::-1], TypeError, "backwards")
    refused(np.zeros((3, 4), np.float32)[:, ::-1], TypeError, "backwards")
    refused(np.zeros(5, [("a", "i1"), ("b", "i4")])["b"], TypeError, "no multiple")
    apart = np.frombuffer(bytearray(33), np.uint8)[1:33].view(np.float32)
    with pytest.raises(umo.RefusedError) as raised:
        umo.Tensor.wrap(apart)
    assert raised.value.reason == "misaligned" and "multiples of 64" in str(raised.value.remedy)
    assert raised.value.status == "REFUSED" and isinstance(raised.value, ValueError)


def test_read_only_stays_read_only() -> None:
    values = np.arange(4.0)
    values.flags.writeable = False
    tensor = umo.Tensor.wrap(values)
    assert tensor.readonly and tensor.buffer is not None and tensor.buffer.readonly
    assert not np.asarray(tensor).flags.writeable and not np.from_dlpack(tensor).flags.writeable
    assert memoryview(tensor).readonly and tensor.__array_interface__["data"][1]
    with pytest.raises(TypeError, match="read-write"):
        io.BytesIO(bytes(32)).readinto(tensor)
    with pytest.raises(BufferError, match="read-only"):
        tensor.__dlpack__()
    with pytest.raises(umo.InvalidError, match="read-only"):
        tensor.write()
    with pytest.raises(umo.InvalidError, match="forbids"):
        umo.Tensor.wrap(values, writable=True)
    shut = umo.Tensor.wrap(np.arange(4.0), writable=False)
    assert shut.readonly and not np.asarray(shut).flags.writeable
    assert umo.Tensor.wrap(b"four").readonly


@pytest.mark.parametrize(
    ("make", "dtype", "shape"),
    [
        (lambda: bytearray(b"12345678"), "uint8", (8,)),
        (lambda: array.array("i", [1, 2, 3]), "int32", (3,)),
        (lambda: array.array("l", [1, 2, 3]), "int64" if ctypes.sizeof(ctypes.c_long) == 8 else "int32", (3,)),
        (lambda: array.array("f", [1, 2, 3]), "float32", (3,)),
        (lambda: (ctypes.c_float * 3 * 2)(), "float32", (2, 3)),
        (lambda: (ctypes.c_long * 4)(), "int64" if ctypes.sizeof(ctypes.c_long) == 8 else "int32", (4,)),
        (lambda: memoryview(bytearray(24)).cast("d", (3, 1)), "float64", (3, 1)),
        (lambda: mmap.mmap(-1, 4096), "uint8", (4096,)),
    ],
    ids=["bytearray", "ints", "longs", "floats", "ctypes", "ctypes longs", "memoryview", "mmap"],
)
def test_any_object_of_the_buffer_protocol_is_taken(make: Callable[[], object], dtype: str, shape: tuple) -> None:
    tensor = umo.Tensor.wrap(make())
    assert (tensor.dtype, tensor.shape) == (dtype, shape)
    np.asarray(tensor)[...] = 1


def test_an_object_that_is_held_cannot_be_resized() -> None:
    data = bytearray(8)
    tensor = umo.Tensor.wrap(data)
    with pytest.raises(BufferError):
        data.extend(b"more")
    del tensor
    data.extend(b"more")


def test_an_array_interface_is_taken_too() -> None:
    class Holder:
        def __init__(self, **fields: object) -> None:
            self.values = np.arange(6, dtype=np.int16).reshape(2, 3)
            self.__array_interface__ = dict(self.values.__array_interface__) | fields
            self.dtype = self.values.dtype

    holder = Holder()
    tensor = umo.Tensor.wrap(holder)
    assert address(np.asarray(tensor)) == address(holder.values) and tensor.shape == (2, 3)
    assert umo.Tensor.wrap(Holder(strides=(6, 2))).packed
    for fields in ({"data": None}, {"shape": "ab"}, {"data": ("x", False)}, {"strides": (2,)}, {"strides": (3, 2)}):
        with pytest.raises((umo.UmoError, TypeError)):
            umo.Tensor.wrap(Holder(**fields))
    with pytest.raises(umo.InvalidError):
        umo.Tensor.wrap(Holder(data=(0, False)))


def test_parts_and_other_shapes_share_the_memory() -> None:
    values = np.arange(24, dtype=np.int64).reshape(4, 6)
    tensor = umo.Tensor.wrap(values)
    assert np.array_equal(np.asarray(tensor[1:3]), values[1:3]) and len(tensor) == 4
    assert address(np.asarray(tensor[1:3])) == address(values) + 48
    assert np.array_equal(np.asarray(tensor.narrow(1, 2, 3)), values[:, 2:5])
    assert np.array_equal(np.asarray(tensor.narrow(1, 2, 3)[-2:]), values[-2:, 2:5])
    assert np.array_equal(np.asarray(tensor.reshape((3, 8))), values.reshape(3, 8))
    assert np.asarray(tensor.reshape(24)).shape == (24,)
    assert tensor[4:].shape == (0, 6) and np.asarray(tensor[4:]).size == 0 and tensor[9:].shape == (0, 6)
    for wrong in (lambda: tensor.narrow(2, 0, 1), lambda: tensor.narrow(0, 3, 2), lambda: tensor.narrow(0, 2**63, 1)):
        with pytest.raises(umo.InvalidError):
            wrong()
    for wrong in ((5, 5), (-1, 24), (-2, -12)):
        with pytest.raises(umo.InvalidError):
            tensor.reshape(wrong)
    with pytest.raises(umo.InvalidError, match="apart"):
        tensor.narrow(1, 0, 2).reshape(8)
    for key in (1, (slice(1), 2), slice(0, 4, 2), slice(None, None, -1)):
        with pytest.raises((TypeError, ValueError)):
            tensor[key]  # type: ignore[index]
    with pytest.raises(TypeError):
        len(umo.Tensor.wrap(np.float32(3)))


def test_a_tensor_of_a_tensor_is_over_the_same_memory() -> None:
    values = np.arange(4.0)
    again = umo.Tensor.wrap(umo.Tensor.wrap(values))
    assert address(np.asarray(again)) == address(values)


def test_views_of_every_layout_are_what_numpy_would_give() -> None:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    for source in (values, values.T, np.asfortranarray(values), values[:, :1], values[:1]):
        view = memoryview(umo.Tensor.wrap(source))
        ours, theirs = view, memoryview(source)
        assert (ours.c_contiguous, ours.f_contiguous, ours.contiguous) == (
            theirs.c_contiguous, theirs.f_contiguous, theirs.contiguous,
        )  # fmt: skip
        assert (ours.format, ours.itemsize, ours.nbytes) == (theirs.format, theirs.itemsize, theirs.nbytes)
        assert ours.tolist() == theirs.tolist() and ours.tobytes("F") == theirs.tobytes("F")


@pytest.mark.parametrize(
    "name",
    ["float32", "FP32", "TYPE_FP32", np.float32, np.dtype("float32"), np.dtype("<f4")],
)
def test_element_types_have_many_names(name: object) -> None:
    with umo.Context(shared=False) as ctx:
        assert ctx.empty(3, name, device="host").dtype == "float32"
        assert ctx.empty(3, ml_dtypes.bfloat16, device="host").dtype == "bfloat16"
        assert (ctx.empty(1, float, device="host").dtype, ctx.empty(1, int, device="host").dtype) == (
            "float64",
            "int64",
        )
        for wrong in ("float33", "BYTES", "", object, np.dtype(">f4"), np.dtype("U3"), 7):
            with pytest.raises(umo.UnsupportedError):
                ctx.empty(3, wrong, device="host")


def test_copies_are_made_only_when_asked_for() -> None:
    values = np.arange(6.0)
    tensor = umo.Tensor.wrap(values)
    assert address(np.array(tensor, copy=True)) != address(values)
    assert address(np.asarray(tensor, copy=False)) == address(values)
    assert np.array_equal(tensor.__array__(np.float32), values.astype(np.float32))
    assert address(tensor.__array__(copy=True)) != address(values) == address(tensor.__array__())
    with pytest.raises(ValueError, match="copy"):
        tensor.__array__(np.float32, copy=False)
