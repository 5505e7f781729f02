"""The ring in C and the one in Python: the same layout, names that both can read, memory that both can open."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from umo.client import LaneSpec, layout
from umo.client import segment as segments
from umo.client.segment import Owner

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(os.environ.get("UMO_LIBRARY", ROOT / "build" / "release" / "lib" / "libumo.so"))


class Spec(ctypes.Structure):
    _fields_ = [
        ("model", ctypes.c_char_p),
        ("tensor", ctypes.c_char_p),
        ("tensor_bytes", ctypes.c_size_t),
        ("slots", ctypes.c_uint32),
    ]


class Lane(ctypes.Structure):
    _fields_ = [
        ("offset_bytes", ctypes.c_size_t),
        ("stride_bytes", ctypes.c_size_t),
        ("slots", ctypes.c_uint32),
        ("model", ctypes.c_uint32),
    ]


class Info(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("key", ctypes.c_char_p),
        ("base", ctypes.c_void_p),
        ("size_bytes", ctypes.c_size_t),
    ]


@pytest.fixture(scope="module")
def library() -> Iterator[ctypes.CDLL]:
    if not LIBRARY.exists():
        pytest.skip("libumo is not built")
    yield ctypes.CDLL(str(LIBRARY))


def specs_in_c(specs: list[LaneSpec]) -> ctypes.Array[Spec]:
    return (Spec * len(specs))(*(Spec(s.model.encode(), s.tensor.encode(), s.tensor_bytes, s.slots) for s in specs))


SPECS = st.lists(
    st.builds(
        LaneSpec,
        st.sampled_from("abc"),
        st.sampled_from("xyz"),
        st.one_of(st.integers(0, 1 << 20), st.integers(1 << 40, 1 << 48)),
        st.one_of(st.just(4), st.integers(0, 5), st.integers(0, 1 << 20)),
    ),
    min_size=1,
    max_size=6,
)


@settings(deadline=None, max_examples=300)
@given(SPECS, st.sampled_from([4096, 16384, 65536]))
@example([LaneSpec("a", "x", 1 << 46, 1), LaneSpec("b", "x", 1, 1)], 4096)
@example([LaneSpec("a", "x", 1 << 46, 1)], 4096)
@example([LaneSpec("a", "x", 4096, 2), LaneSpec("b", "y", 4097, 3), LaneSpec("a", "y", 1, 2)], 4096)
def test_both_layouts_are_one(library: ctypes.CDLL, specs: list[LaneSpec], page: int) -> None:
    lanes = (Lane * len(specs))()
    size = ctypes.c_size_t(0)
    status = library.umo_ring_layout(
        specs_in_c(specs), len(specs), ctypes.c_size_t(page), lanes, ctypes.byref(size), None
    )
    try:
        expected, expected_size = layout(specs, page)
    except ValueError:
        assert status == 1, "C takes what Python refuses"
        return
    assert status == 0 and size.value == expected_size
    models = list(dict.fromkeys(spec.model for spec in specs))
    for lane, one in zip(lanes, expected, strict=True):
        assert (lane.offset_bytes, lane.stride_bytes, lane.slots) == (one.offset, one.stride, one.spec.slots)
        assert models[lane.model] == one.spec.model


@pytest.mark.skipif(segments.SYSTEM.folder is None, reason="this system does not show its shared memory")
def test_a_ring_made_in_c_is_known_here(library: ctypes.CDLL) -> None:
    specs = [LaneSpec("m", "in", 5000, 3), LaneSpec("m", "out", 70, 3)]
    expected, _ = layout(specs)
    ring = ctypes.c_void_p()
    assert library.umo_ring_create(specs_in_c(specs), 2, ctypes.byref(ring), None) == 0
    info = Info()
    library.umo_ring_describe(ring, ctypes.byref(info))
    owner = Owner.of(info.name.decode())
    assert owner is not None and owner.pid == os.getpid() and not owner.is_dead()
    assert owner.started == segments.SYSTEM.started(os.getpid())
    assert owner.namespace == segments.SYSTEM.namespace()
    path = Path("/dev/shm" + info.key.decode())
    assert path.name.startswith(segments._KEY_PREFIX) and path.stat().st_size == info.size_bytes
    slot = ctypes.c_uint32(9)
    assert library.umo_ring_take(ring, 0, ctypes.c_uint64(0), ctypes.byref(slot)) == 0 and slot.value == 0
    seen = np.memmap(path, np.uint8)
    ctypes.memset(info.base + expected[1].slot_offset(0), 7, 70)
    assert seen[expected[1].offset : expected[1].offset + 71].tolist() == [7] * 70 + [0]
    library.umo_ring_hide(ring)
    assert not path.exists()
    library.umo_ring_destroy(ring)
