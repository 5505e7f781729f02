"""Tensors between NumPy and libumo by DLPack, through ctypes: the same memory on both sides, and one deleter call."""

from __future__ import annotations

import ctypes
import gc
import os
import weakref
from collections.abc import Iterator
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_bool,
    c_char,
    c_char_p,
    c_int,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
# UMO_LIBRARY: another build's.
LIBRARY = Path(os.environ.get("UMO_LIBRARY", ROOT / "build" / "release" / "lib" / "libumo.so"))
RANK_MAX = 32
OK, INVAL, UNSUPPORTED, BUSY = 0, 1, 4, 6
HOST, WRITE = 1, 2
FP32, FP16, BOOL, INT64 = 11, 10, 1, 9


class Error(Structure):
    _fields_ = [("status", c_int), ("native", c_int32), ("text", c_char * 256)]


class Shape(Structure):
    _fields_ = [("rank", c_uint32), ("dims", c_int64 * RANK_MAX)]


class Tensor(Structure):
    _fields_ = [
        ("buffer", c_void_p),
        ("data", c_void_p),
        ("offset_bytes", c_size_t),
        ("size_bytes", c_size_t),
        ("dtype", c_int),
        ("shape", Shape),
        ("strides", c_int64 * RANK_MAX),
    ]


class DlTensor(Structure):
    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class Versioned(Structure):
    pass


DELETER = ctypes.CFUNCTYPE(None, POINTER(Versioned))
Versioned._fields_ = [
    ("major", c_uint32),
    ("minor", c_uint32),
    ("manager", c_void_p),
    ("deleter", DELETER),
    ("flags", c_uint64),
    ("tensor", DlTensor),
]


class Export(Structure):
    _fields_ = [("side", c_int), ("read_only", c_bool)]


class Import(Structure):
    _fields_ = [("device", c_void_p), ("scope", c_void_p), ("writable", c_bool)]


class Facts(Structure):
    _fields_ = [("read_only", c_bool), ("copied", c_bool)]


class Fence(Structure):
    _fields_ = [("device", c_void_p), ("queue", c_uint32), ("value", c_uint64)]


class Access(Structure):
    _fields_ = [
        ("offset_bytes", c_size_t),
        ("size_bytes", c_size_t),
        ("side", c_int),
        ("use", c_int),
        ("queue", c_uint32),
        ("scope", c_void_p),
    ]


# Names of capsules, alive as long as a capsule may be.
NAME = c_char_p(b"dltensor_versioned")
USED = c_char_p(b"used_dltensor_versioned")
OLD = c_char_p(b"dltensor")
OLD_USED = c_char_p(b"used_dltensor")

python = ctypes.pythonapi
python.PyCapsule_New.restype = ctypes.py_object
python.PyCapsule_New.argtypes = [c_void_p, c_char_p, c_void_p]
python.PyCapsule_GetPointer.restype = c_void_p
python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, c_char_p]
python.PyCapsule_SetName.argtypes = [ctypes.py_object, c_char_p]
python.PyCapsule_IsValid.argtypes = [ctypes.py_object, c_char_p]


class Umo:
    """libumo with one host device and one scope. PyDLL keeps the interpreter's lock, which NumPy's deleter needs."""

    def __init__(self) -> None:
        self.lib = ctypes.PyDLL(str(LIBRARY))
        self.lib.umo_buffer_host.restype = c_void_p
        self.lib.umo_buffer_host.argtypes = [c_void_p]
        self.lib.umo_buffer_release.argtypes = [c_void_p]
        self.lib.umo_device_release.argtypes = [c_void_p]
        self.lib.umo_scope_destroy.argtypes = [c_void_p]
        self.lib.umo_buffer_alloc.argtypes = [c_void_p, c_void_p, c_size_t, c_int, c_void_p, c_void_p]
        self.lib.umo_access_begin.argtypes = [c_void_p, c_void_p, c_void_p]
        self.lib.umo_access_end.argtypes = [c_void_p, c_void_p, Fence]
        self.device = c_void_p()
        self.scope = c_void_p()
        assert self.lib.umo_device_open(b"host", 0, None, byref(self.device), None) == OK
        assert self.lib.umo_scope_create(None, b"python", c_uint64(0), byref(self.scope), None) == OK

    def close(self) -> None:
        self.lib.umo_device_release(self.device)
        self.lib.umo_scope_destroy(self.scope)

    def tensor(self, dtype: int, shape: tuple[int, ...], item: int) -> Tensor:
        buffer = c_void_p()
        size = item * int(np.prod(shape))
        assert self.lib.umo_buffer_alloc(self.device, self.scope, max(size, 1), 0, byref(buffer), None) == OK
        tensor = Tensor()
        dims = Shape(len(shape), (c_int64 * RANK_MAX)(*shape))
        assert (
            self.lib.umo_tensor_init_buffer(
                byref(tensor), buffer, c_size_t(0), c_size_t(size), dtype, byref(dims), None
            )
            == OK
        )
        return tensor

    def take(self, array: np.ndarray, writable: bool = False) -> tuple[int, Tensor, Facts, Error]:
        """Imports an array, as any consumer of a capsule does."""
        capsule = array.__dlpack__(max_version=(1, 0))
        pointer = python.PyCapsule_GetPointer(capsule, NAME)
        options = Import(self.device, self.scope, writable)
        tensor, facts, error = Tensor(), Facts(), Error()
        status = self.lib.umo_tensor_from_dlpack(
            c_void_p(pointer), byref(options), byref(tensor), byref(facts), None, byref(error)
        )
        if status == OK:
            python.PyCapsule_SetName(capsule, USED)
        return status, tensor, facts, error


class Shared:
    """What NumPy asks for a tensor of ours."""

    def __init__(self, umo: Umo, tensor: Tensor, read_only: bool = False) -> None:
        self.umo, self.tensor, self.read_only = umo, tensor, read_only

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, *, stream: object = None, max_version: object = None, dl_device: object = None,
                   copy: object = None) -> object:  # fmt: skip
        out = POINTER(Versioned)()
        options = Export(0, self.read_only)
        status = self.umo.lib.umo_tensor_to_dlpack(byref(self.tensor), byref(options), byref(out), None)
        if status != OK:
            raise BufferError(f"status {status}")
        return python.PyCapsule_New(ctypes.cast(out, c_void_p), NAME, None)


@pytest.fixture
def umo() -> Iterator[Umo]:
    if not LIBRARY.exists():
        pytest.skip("libumo is not built")
    opened = Umo()
    yield opened
    opened.close()


def bracket(umo: Umo, tensor: Tensor) -> int:
    """The status of a bracket that writes on the host."""
    access = Access(0, tensor.size_bytes, HOST, WRITE, 0, None)
    waits = ctypes.create_string_buffer(1024)
    status = umo.lib.umo_access_begin(tensor.buffer, byref(access), waits)
    if status == OK:
        assert umo.lib.umo_access_end(tensor.buffer, byref(access), Fence()) == OK
    return status


@pytest.mark.parametrize(("dtype", "name"), [(FP32, "float32"), (FP16, "float16"), (BOOL, "bool"), (INT64, "int64")])
def test_numpy_sees_our_memory_and_holds_it(umo: Umo, dtype: int, name: str) -> None:
    tensor = umo.tensor(dtype, (3, 5), np.dtype(name).itemsize)
    array = np.from_dlpack(Shared(umo, tensor))
    assert array.dtype == name and array.shape == (3, 5)
    assert array.ctypes.data == umo.lib.umo_buffer_host(tensor.buffer)
    array[1, 2] = 1
    assert bracket(umo, tensor) == BUSY
    umo.lib.umo_buffer_release(tensor.buffer)
    part = array[1:]
    del array
    gc.collect()
    assert part[0, 2] == 1


def test_the_buffer_is_free_again_when_numpy_lets_go(umo: Umo) -> None:
    tensor = umo.tensor(FP32, (4,), 4)
    array = np.from_dlpack(Shared(umo, tensor))
    array[:] = 7
    assert bracket(umo, tensor) == BUSY
    del array
    gc.collect()
    assert bracket(umo, tensor) == OK
    umo.lib.umo_buffer_release(tensor.buffer)


def test_a_read_only_export_is_a_read_only_array(umo: Umo) -> None:
    tensor = umo.tensor(FP32, (4,), 4)
    array = np.from_dlpack(Shared(umo, tensor, read_only=True))
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    del array
    gc.collect()
    umo.lib.umo_buffer_release(tensor.buffer)


@pytest.mark.parametrize("shape", [(2, 3), (7,), (), (3, 0, 2)])
def test_an_array_is_taken_where_it_lies_and_let_go_once(umo: Umo, shape: tuple[int, ...]) -> None:
    array = np.ones(shape, np.float32)
    address = array.ctypes.data
    gone = weakref.ref(array)
    status, tensor, facts, _ = umo.take(array, writable=True)
    assert status == OK and not facts.read_only
    assert tuple(tensor.shape.dims[: tensor.shape.rank]) == shape
    del array
    gc.collect()
    if tensor.buffer is None:
        assert 0 in shape and gone() is None
        return
    assert gone() is not None and tensor.data == address
    umo.lib.umo_buffer_release(tensor.buffer)
    gc.collect()
    assert gone() is None


def test_strides_come_along_and_backwards_is_refused(umo: Umo) -> None:
    array = np.arange(24, dtype=np.int64).reshape(4, 6)
    status, tensor, _, _ = umo.take(array.T[1:5])
    assert status == OK and list(tensor.strides[:2]) == [1, 6] and tensor.size_bytes == 8 * (3 * 6 + 3 + 1)
    umo.lib.umo_buffer_release(tensor.buffer)
    status, _, _, error = umo.take(array[::-1])
    assert status == UNSUPPORTED and b"backwards" in error.text
    status, _, _, error = umo.take(np.zeros(3, np.complex64))
    assert status == UNSUPPORTED and b"complex" in error.text


def test_a_read_only_array_cannot_be_taken_to_be_written(umo: Umo) -> None:
    array = np.ones(4, np.float32)
    array.flags.writeable = False
    status, _, _, error = umo.take(array, writable=True)
    assert status == INVAL and b"forbids" in error.text
    status, tensor, facts, _ = umo.take(array)
    assert status == OK and facts.read_only
    umo.lib.umo_buffer_release(tensor.buffer)


def test_the_older_form_is_taken_too(umo: Umo) -> None:
    array = np.arange(6, dtype=np.float32)
    capsule = array.__dlpack__()
    pointer = python.PyCapsule_GetPointer(capsule, OLD)
    options = Import(umo.device, umo.scope, True)
    tensor = Tensor()
    taken = umo.lib.umo_tensor_from_dlpack_unversioned(c_void_p(pointer), byref(options), byref(tensor), None, None)
    assert taken == OK
    python.PyCapsule_SetName(capsule, OLD_USED)
    assert tensor.data == array.ctypes.data
    gone = weakref.ref(array)
    del array, capsule
    gc.collect()
    assert gone() is not None
    umo.lib.umo_buffer_release(tensor.buffer)
    gc.collect()
    assert gone() is None


def test_a_tensor_goes_round(umo: Umo) -> None:
    tensor = umo.tensor(FP32, (2, 2), 4)
    array = np.from_dlpack(Shared(umo, tensor))
    array[:] = [[1, 2], [3, 4]]
    status, back, _, _ = umo.take(array)
    assert status == OK and back.data == umo.lib.umo_buffer_host(tensor.buffer)
    again = np.from_dlpack(Shared(umo, back, read_only=True))
    assert again.tolist() == [[1, 2], [3, 4]]
    umo.lib.umo_buffer_release(tensor.buffer)
    umo.lib.umo_buffer_release(back.buffer)
    del array
    gc.collect()
    assert again.tolist() == [[1, 2], [3, 4]]
