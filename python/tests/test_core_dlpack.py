"""DLPack: both forms, what a consumer may ask for, and capsules that nobody or somebody else consumed."""

from __future__ import annotations

import ctypes
import gc
import weakref

import numpy as np
import pytest

import umo

name_of = ctypes.pythonapi.PyCapsule_GetName
name_of.restype = ctypes.c_char_p
name_of.argtypes = [ctypes.py_object]


@pytest.fixture
def values() -> np.ndarray:
    return np.arange(12, dtype=np.float32).reshape(3, 4)


def test_the_version_asked_for_decides_the_form(values: np.ndarray) -> None:
    tensor = umo.Tensor.wrap(values)
    assert tensor.__dlpack_device__() == (1, 0)
    assert name_of(tensor.__dlpack__()) == name_of(tensor.__dlpack__(max_version=(0, 8))) == b"dltensor"
    for version in ((1, 0), (1, 1), (2, 0)):
        assert name_of(tensor.__dlpack__(max_version=version)) == b"dltensor_versioned"


@pytest.mark.parametrize("form", [{}, {"max_version": (1, 0)}])
def test_a_capsule_is_consumed_once(values: np.ndarray, form: dict) -> None:
    capsule = umo.Tensor.wrap(values).__dlpack__(**form)
    taken = umo.Tensor.wrap(capsule)
    assert np.asarray(taken).ctypes.data == values.ctypes.data
    with pytest.raises(umo.InvalidError, match="consumed already"):
        umo.Tensor.wrap(capsule)
    numpys = values.__dlpack__(**form)
    assert np.asarray(umo.Tensor.wrap(numpys)).ctypes.data == values.ctypes.data
    with pytest.raises(umo.InvalidError, match="consumed already"):
        umo.Tensor.wrap(numpys)


def test_other_capsules_are_refused() -> None:
    import datetime

    datetime.datetime.now()  # loads the capsule that the test borrows
    import _datetime

    with pytest.raises(umo.InvalidError, match="no DLPack tensor"):
        umo.Tensor.wrap(_datetime.datetime_CAPI)


@pytest.mark.parametrize("form", [{}, {"max_version": (1, 0)}])
def test_a_capsule_that_nobody_consumes_lets_go(form: dict) -> None:
    values = np.arange(12.0)
    gone = weakref.ref(values)
    tensor = umo.Tensor.wrap(values)
    buffer = tensor.buffer
    assert buffer is not None
    capsule = tensor.__dlpack__(**form)
    with pytest.raises(umo.BusyError), tensor.write():
        pass
    del capsule
    with tensor.write():
        pass
    del tensor, buffer, values
    gc.collect()
    assert gone() is None


def test_wishes_are_fulfilled_or_refused(values: np.ndarray) -> None:
    tensor = umo.Tensor.wrap(values.T)
    assert np.asarray(umo.Tensor.wrap(tensor.__dlpack__(dl_device=(1, 0)))).ctypes.data == values.ctypes.data
    copied = np.asarray(umo.Tensor.wrap(tensor.__dlpack__(max_version=(1, 0), copy=True)))
    assert copied.ctypes.data != values.ctypes.data and np.array_equal(copied, values.T) and copied.flags.c_contiguous
    assert np.from_dlpack(tensor, copy=True).ctypes.data != values.ctypes.data
    assert np.from_dlpack(tensor, copy=False).ctypes.data == values.ctypes.data
    assert np.from_dlpack(tensor, device="cpu").ctypes.data == values.ctypes.data
    assert tensor.__dlpack__(stream=-1) is not None
    for wrong in ({"dl_device": (2, 0)}, {"dl_device": (8, 1)}, {"stream": 5}, {"stream": 1}):
        with pytest.raises(BufferError):
            tensor.__dlpack__(**wrong)
    for wrong in ({"dl_device": 1}, {"max_version": "1.0"}, {"max_version": (1,)}, {"copies": True}, {"stream": "a"}):
        with pytest.raises(TypeError):
            tensor.__dlpack__(**wrong)
    with pytest.raises(TypeError, match="positional"):
        tensor.__dlpack__(None)  # type: ignore[misc]


def test_a_read_only_tensor_goes_out_only_in_the_form_that_can_say_so(values: np.ndarray) -> None:
    tensor = umo.Tensor.wrap(values, writable=False)
    assert not np.from_dlpack(tensor).flags.writeable
    assert umo.Tensor.wrap(tensor.__dlpack__(max_version=(1, 0))).readonly
    with pytest.raises(BufferError, match="1.0"):
        tensor.__dlpack__()
    assert not umo.Tensor.wrap(tensor.__dlpack__(copy=True)).readonly


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3), ()])
def test_no_elements_and_no_dimensions_go_round(shape: tuple[int, ...]) -> None:
    tensor = umo.Tensor.wrap(np.ones(shape, np.int16))
    back = np.from_dlpack(tensor)
    assert back.shape == shape and back.dtype == np.int16 and back.sum() == (1 if shape == () else 0)
    assert umo.Tensor.wrap(tensor.__dlpack__()).shape == shape
    assert np.from_dlpack(tensor, copy=True).shape == shape


def test_a_producer_of_the_old_protocol_is_taken(values: np.ndarray) -> None:
    class Old:
        def __dlpack__(self, stream: object = None) -> object:
            return values.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    assert np.asarray(umo.Tensor.wrap(Old())).ctypes.data == values.ctypes.data


def test_a_producer_that_fails_is_heard() -> None:
    class Broken:
        def __dlpack__(self, **wishes: object) -> object:
            raise RuntimeError("no tensor today")

    class Odd:
        def __dlpack__(self, **wishes: object) -> object:
            return 7

    with pytest.raises(RuntimeError, match="today"):
        umo.Tensor.wrap(Broken())
    with pytest.raises(TypeError, match="no capsule"):
        umo.Tensor.wrap(Odd())


class Version(ctypes.Structure):
    _fields_ = [("major", ctypes.c_uint32), ("minor", ctypes.c_uint32)]


class Managed(ctypes.Structure):
    """DLManagedTensorVersioned, filled by hand: what a faulty or newer producer may send."""

    _fields_ = [
        ("version", Version),
        ("manager", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


capsule_new = ctypes.pythonapi.PyCapsule_New
capsule_new.restype = ctypes.py_object
capsule_new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
NAME = ctypes.create_string_buffer(b"dltensor_versioned")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"version": Version(2, 0)}, "DLPack 2"),
        ({"device_type": 2}, "CUDA"),
        ({"device_type": 77}, "type 77"),
        ({"ndim": -1}, "-1 dimension"),
        ({"ndim": 33}, "33 dimension"),
        ({"data": None}, "no memory"),
        ({"bits": 4}, "4 bits"),
        ({"lanes": 4}, "4 lane"),
        ({"code": 5, "bits": 64}, "complex"),
        ({"byte_offset": 1}, "multiple"),
        ({"byte_offset": 2**64 - 1}, "wraps around"),
    ],
)
def test_a_bad_structure_is_refused_and_stays_its_producers(fields: dict, words: str) -> None:
    memory = (ctypes.c_float * 4)()
    shape = (ctypes.c_int64 * 33)(4)
    managed = Managed(
        version=Version(1, 0), data=ctypes.addressof(memory), device_type=1, ndim=1, code=2, bits=32, lanes=1,
        shape=ctypes.cast(shape, ctypes.POINTER(ctypes.c_int64)),
    )  # fmt: skip
    for field, value in fields.items():
        setattr(managed, field, value)
    capsule = capsule_new(ctypes.addressof(managed), NAME, None)
    with pytest.raises(umo.UmoError, match=words):
        umo.Tensor.wrap(capsule)
    assert name_of(capsule) == b"dltensor_versioned"
