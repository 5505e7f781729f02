"""What an independent look at umo._core found: objects that change under a call, threads in one call, words of NumPy's.

Each of these once ended in a crash, a leak, memory of somebody else or a message that says something else.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import umo
from umo import _core


@pytest.fixture
def ctx() -> umo.Context:
    return umo.Context(shared=False)


@pytest.fixture
def hurry() -> Iterator[None]:
    """Has threads take turns at every opportunity."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def at_once(*works: Callable[[], object]) -> list[BaseException]:
    """Runs all of them at the same time; what they raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(len(works))

    def run(work: Callable[[], object]) -> None:
        start.wait()
        try:
            work()
        except Exception as error:  # noqa: BLE001  it is the result
            raised.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


# ---- objects that change under a call ----


def test_a_block_that_ends_while_its_view_goes_out_shows_nothing(ctx: umo.Context) -> None:
    tensor = ctx.empty(4, device="host")
    view = tensor.read()

    class Ends:
        def __bool__(self) -> bool:
            view.__exit__(None, None, None)
            return False

    view.__enter__()
    with pytest.raises(umo.InvalidError, match="ended"):
        view.__dlpack__(max_version=(1, 0), copy=Ends())  # type: ignore[arg-type]


def test_an_interface_that_changes_while_it_is_read_is_taken_as_it_was() -> None:
    values = np.arange(1000, dtype=np.float32).astype(ml_dtypes.bfloat16)
    fields = dict(values.__array_interface__) | {"shape": (1000, 1)[:1]}

    class Changes:
        __array_interface__ = fields

        @property
        def dtype(self) -> np.dtype:
            fields.clear()
            gc.collect()
            return values.dtype

    assert umo.Tensor.wrap(Changes()).shape == (1000,)  # type: ignore[arg-type]

    class Index:
        def __index__(self) -> int:
            fields.clear()
            return 3

    plain = np.arange(3, dtype=np.int64)
    fields |= dict(plain.__array_interface__) | {"shape": (Index(),)}
    assert np.asarray(umo.Tensor.wrap(Changes())).tolist() == [0, 1, 2]  # type: ignore[arg-type]


def test_an_interface_is_believed_and_not_the_dtype_beside_it() -> None:
    values = np.arange(16, dtype=np.uint8)

    class Shows:
        def __init__(self, **fields: object) -> None:
            self.__array_interface__ = dict(values.__array_interface__) | fields

    tensor = umo.Tensor.wrap(Shows())
    assert (tensor.dtype, tensor.nbytes) == ("uint8", 16)  # needs no dtype, as Pillow's images have none
    lies = Shows()
    lies.dtype = np.dtype("float64")  # type: ignore[attr-defined]
    assert umo.Tensor.wrap(lies).nbytes == 16
    unnamed = Shows(typestr="<V2", shape=(8,))
    for dtype in (np.dtype("float64"), "int8", None):
        unnamed.dtype = dtype  # type: ignore[attr-defined]
        with pytest.raises(umo.UnsupportedError, match="<V2"):
            umo.Tensor.wrap(unnamed)
    for typestr in (">f8", "<f4\0", "", "V", "<V99999999999999999999", "\ud800", b"<f4", None):
        with pytest.raises(umo.UmoError):
            umo.Tensor.wrap(Shows(typestr=typestr))


# ---- who keeps whom ----


def test_a_cycle_through_a_view_is_collected() -> None:
    class Array(np.ndarray):
        view: object

    array = np.zeros(4, np.float32).view(Array)
    gone = weakref.ref(array)
    array.view = umo.Tensor.wrap(array).read().__enter__()
    del array
    gc.collect()
    assert gone() is None


@pytest.mark.usefixtures("hurry")
def test_an_address_asked_for_by_many_is_one_export(ctx: umo.Context) -> None:
    for _ in range(60):
        tensor = ctx.empty(4, device="host", mode="unified")
        buffer = tensor.buffer
        assert buffer is not None
        assert not at_once(*[lambda tensor=tensor: tensor.__array_interface__] * 4)  # type: ignore[misc]
        del tensor
        buffer.release()


@pytest.mark.usefixtures("hurry")
def test_a_block_is_not_left_before_it_is_entered(ctx: umo.Context) -> None:
    tensor = ctx.empty(1 << 16, device="host", mode="private")

    def leave(view: umo.View) -> None:
        while True:
            try:
                view.__exit__(None, None, None)
                return
            except umo.InvalidError as error:
                assert "not open" in str(error), error

    for _ in range(100):
        with tensor.write():
            pass
        view = tensor.read(device=True)
        assert not at_once(view.__enter__, lambda view=view: leave(view))  # type: ignore[misc]


class Managed(ctypes.Structure):
    """DLManagedTensorVersioned without elements, whose deleter runs at once."""

    _fields_ = [
        ("version", ctypes.c_uint32 * 2), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64), ("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64),
    ]  # fmt: skip


def test_a_capsule_is_consumed_before_its_deleter_can_run() -> None:
    deleted: list[str] = []

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def delete(_: int) -> None:
        deleted.append("deleted")
        if len(deleted) < 3:
            try:
                umo.Tensor.wrap(capsule)
            except umo.InvalidError as error:
                deleted.append(str(error))

    shape, name = (ctypes.c_int64 * 1)(0), ctypes.create_string_buffer(b"dltensor_versioned")
    managed = Managed(
        version=(1, 0), deleter=ctypes.cast(delete, ctypes.c_void_p), device=(1, 0), ndim=1, code=2, bits=32, lanes=1,
        shape=shape,
    )  # fmt: skip
    make = ctypes.pythonapi.PyCapsule_New
    make.restype, make.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    capsule = make(ctypes.addressof(managed), name, None)
    assert umo.Tensor.wrap(capsule).shape == (0,)
    assert len(deleted) == 2 and "consumed" in deleted[1]


# ---- what is told ----


def test_an_array_of_what_cannot_be_shown_says_why(ctx: umo.Context) -> None:
    for dtype in ("float32", "bfloat16"):
        tensor = ctx.empty(4, dtype, device="host")
        with pytest.raises(umo.InvalidError, match="not open yet"):
            np.asarray(tensor.read())
        with tensor.read() as view:
            pass
        with pytest.raises(umo.InvalidError, match="has ended"):
            np.asarray(view)
        with tensor.write(), pytest.raises(umo.BusyError):
            np.asarray(tensor)
        assert tensor.buffer is not None
        tensor.buffer.release()
        with pytest.raises(umo.InvalidError, match="released"):
            np.asarray(tensor)


def test_names_are_whole(ctx: umo.Context) -> None:
    for make in (umo.Context, lambda **words: umo.Scope(ctx, **words), lambda **words: umo.Pool(ctx, **words)):
        with pytest.raises(TypeError, match="keywords must be strings"):
            make(**{1: 2})
    with pytest.raises(umo.UnsupportedError):
        ctx.empty(3, "FP32\0", device="host")
    with pytest.raises(umo.InvalidError, match="zero byte"):
        ctx.scope("a\0b")


def test_a_limit_is_never_silently_none(ctx: umo.Context) -> None:
    with pytest.raises(umo.InvalidError, match="needs a name"):
        ctx.scope(limit_bytes=4096)
    assert ctx.scope().limit_bytes == 0


def test_who_interrupts_is_heard(ctx: umo.Context) -> None:
    class Interrupts:
        @property
        def name(self) -> str:
            raise KeyboardInterrupt

        __array_interface__ = name

    with pytest.raises(KeyboardInterrupt):
        ctx.empty(3, Interrupts(), device="host")
    with pytest.raises(KeyboardInterrupt):
        umo.Tensor.wrap(Interrupts())  # type: ignore[arg-type]


def test_numbers_too_long_to_print_are_refused_in_words(ctx: umo.Context) -> None:
    with pytest.raises(umo.InvalidError, match="size_bytes: .* out of range"):
        ctx.buffer(10**6000)
    with pytest.raises(umo.InvalidError, match="shape: .* out of range"):
        ctx.empty((10**6000,))


def test_read_only_memory_says_so(ctx: umo.Context) -> None:
    values = np.zeros(4, np.float32)
    values.flags.writeable = False
    buffer = umo.Tensor.wrap(values).buffer
    assert buffer is not None
    with pytest.raises(umo.InvalidError, match="read-only"):
        buffer.upload(bytes(16))
    with pytest.raises(umo.UnsupportedError, match="pool"):
        ctx.pool(device="host").take(64).optimize()


def test_there_is_one_cpu() -> None:
    tensor = umo.Tensor.wrap(np.zeros(3, np.float32))
    for device in ((1, 5), (1, -1), (2, 0)):
        with pytest.raises(BufferError, match="not on"):
            tensor.__dlpack__(dl_device=device)


class PyBuffer(ctypes.Structure):
    _fields_ = [
        ("buf", ctypes.c_void_p), ("obj", ctypes.c_void_p), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    ]  # fmt: skip


def test_no_dimensions_are_no_pointers() -> None:
    """As the buffer protocol has it for scalars."""
    tensor, view = umo.Tensor.wrap(np.array(3, np.float32)), PyBuffer()
    assert ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(tensor), ctypes.byref(view), 0x1C) == 0
    assert (view.ndim, view.len, view.shape, view.strides) == (0, 4, None, None)
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(view))


def test_no_elements_have_no_size_however_long_the_rest_is(ctx: umo.Context) -> None:
    tensor = ctx.empty((2**62, 4, 0), "float64")
    assert (tensor.size, tensor.nbytes, memoryview(tensor).nbytes) == (0, 0, 0)
    assert tensor[2**61 :].shape == (2**61, 4, 0) if sys.maxsize > 2**61 else True
    assert tensor.reshape((0, 2**62)).shape == (0, 2**62)


def test_nothing_of_ours_is_pickled_or_copied_by_accident(ctx: umo.Context) -> None:
    tensor = ctx.empty(3, device="host")
    for thing in (ctx, tensor, tensor.buffer, tensor.read(), ctx.device("host"), ctx.scope(), ctx.pool(device="host")):
        for take in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                take(thing)
        with pytest.raises(TypeError):
            type("Sub", (type(thing),), {})
    with pytest.raises(umo.NotFoundError) as raised:
        umo.Weights(ctx, "/nonexistent")
    again = pickle.loads(pickle.dumps(raised.value))
    assert type(again) is umo.NotFoundError and str(again) == str(raised.value) and again.native == raised.value.native


INTERPRETERS = """
import _xxsubinterpreters as interpreters
import umo
other = interpreters.create()
for code in ("import umo; umo.Tensor", "import umo; umo.Tensor.wrap(bytearray(8))", "import umo; umo.Context()"):
    try:
        interpreters.run_string(other, code)
    except interpreters.RunFailedError as error:
        assert "main interpreter only" in str(error), error
    else:
        assert code.endswith("Tensor") and loaded, code
    loaded = umo.Tensor.wrap(bytearray(8)).nbytes == 8
interpreters.destroy(other)
"""


def test_other_interpreters_are_refused_where_they_would_wait_for_ever() -> None:
    pytest.importorskip("_xxsubinterpreters", reason="this version of Python has other names for it")
    done = subprocess.run([sys.executable, "-c", INTERPRETERS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---- wrong arguments of every kind ----


class Odd:
    def __index__(self) -> int:
        raise ZeroDivisionError

    __bool__ = __float__ = __index__


ANY = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=4), st.binary(max_size=9),
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)), st.lists(st.integers(-1, 4), max_size=4),
    st.sampled_from([Odd(), np.int8(3), np.float32(2), np.arange(4), "host", "device", "unified", "float32", "<f4",
                     10**400, slice(1, 2), object, Ellipsis, memoryview(b"abcd"), 64]),
)  # fmt: skip
NAMES = st.sampled_from(
    ["device", "mode", "pattern", "scope", "queue", "timeout", "side", "offset_bytes", "size_bytes", "dtype", "copy",
     "stream", "max_version", "dl_device", "writable", "owner", "keep_bytes", "threshold", "shape", "x"]
)  # fmt: skip
EXPECTED = (umo.UmoError, TypeError, ValueError, ZeroDivisionError, OverflowError, BufferError, MemoryError)


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_no_argument_does_harm(data: st.DataObject) -> None:
    ctx = umo.Context(shared=False, budget_bytes=1 << 26)
    tensor = ctx.empty((4, 4), device="host")
    pool = ctx.pool(device="host")
    things = (ctx, tensor, tensor.buffer, tensor.read(), pool, ctx.scope(), _core.Tensor, umo.Scope, umo.Pool)
    for thing in things:
        names = [
            name for name in dir(thing) if callable(getattr(type(thing), name, None)) and not name.startswith("__")
        ]
        name = data.draw(st.sampled_from([*names, "__dlpack__", "__array__", "__getitem__", "__call__"]))
        call = getattr(thing, name, None)
        if call is None:
            continue
        args, words = data.draw(st.lists(ANY, max_size=3)), data.draw(st.dictionaries(NAMES, ANY, max_size=2))
        try:
            call(*args, **words)
        except EXPECTED as error:
            assert str(error) or isinstance(error, ZeroDivisionError), (thing, name, args, words)
