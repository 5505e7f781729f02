"""Every allocation of libumo and of the extension fails once: MemoryError in words, and nothing stays behind.

The scenes run in a process under python/core/fault, which makes the n-th allocation fail, for n = 0, 1, ... until none
is left. Python's own allocations fail likewise where CPython's test module is there (_testcapi).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from umo import paths

SCENES = {
    "wrap": "np.asarray(umo.Tensor.wrap(values))",
    "interface": "umo.Tensor.wrap(address).shape",
    "dlpack": "np.from_dlpack(umo.Tensor.wrap(values))",
    "old dlpack": "umo.Tensor.wrap(umo.Tensor.wrap(values).__dlpack__())",
    "copy": "umo.Tensor.wrap(umo.Tensor.wrap(values).__dlpack__(copy=True))",
    "no elements": "umo.Tensor.wrap(np.zeros((0, 3))).__dlpack__()",
    "empty": "ctx.empty((3, 4), device='host', pattern='cpu_dominant')",
    "modes": "[ctx.empty(9, device='host', mode=mode) for mode in umo._core.MODES]",
    "bracket": """
with tensor.update() as view:
    np.from_dlpack(view)
with tensor.read(device=True) as view:
    memoryview(view)
""",
    "pool": "pool = ctx.pool(device='host')\nblock = pool.empty(100)\nshown = np.from_dlpack(block)",
    "context": "with umo.Context(shared=False) as other: other.empty(3, device='host'); other.scope('s')",
    "move": "buffer.move('private'); buffer.move('unified')",
    "weights": "np.frombuffer(umo.Weights(ctx, sys.executable), np.uint8)[:4]",
    "recorder": "umo._core.profile_start(memory_bytes=1 << 16)",
}

PROLOGUE = """
import ctypes, gc, json, sys
import numpy as np
import umo

class Address:
    def __init__(self):
        self.values = np.arange(6, dtype=np.int16)
        self.__array_interface__ = self.values.__array_interface__
        self.dtype = self.values.dtype

address = Address()
values = np.arange(12, dtype=np.float32)
ctx = umo.Context(shared=False)
tensor = ctx.empty((3, 4), device="host")
buffer = tensor.buffer
codes = {name: compile(text, name, "exec") for name, text in json.loads(sys.argv[1]).items()}

def step(name):
    exec(codes[name], dict(globals()))

def rest():
    gc.collect()
    return ctx.stats()["live_buffers"]

for name in codes:
    for _ in range(3):
        step(name)
gc.collect()
gc.freeze()  # what is there stays, and need not be looked at again
"""

BY_LIBRARY = (
    PROLOGUE
    + """
fault = ctypes.PyDLL(sys.argv[2])
fault.fault_watch.argtypes = [ctypes.c_size_t, ctypes.c_size_t]
fault.fault_live.restype = fault.fault_arm.restype = ctypes.c_long
fault.fault_disarm.restype = ctypes.c_bool
for name in ("libumo.so", "_core.abi3.so"):
    lines = [line.split() for line in open("/proc/self/maps") if name in line]
    ends = [int(end, 16) for line in lines for end in line[0].split("-")]
    fault.fault_watch(min(ends), max(ends))

for name in codes:
    step(name)
    rest()
    failures = kept = 0
    for n in range(1_000):
        before, live = fault.fault_live(), rest()
        fault.fault_arm(n)
        try:
            step(name)
            raised = False
        except MemoryError:
            raised = True
        failed = fault.fault_disarm()
        failures += raised
        step(name)
        assert rest() == live, (name, n)
        # The first failures may leave a cache that is filled later; what grows again and again is a leak.
        kept += max(0, fault.fault_live() - before)
        assert failed or not raised, (name, n)
        if not failed:
            break
    print(name, n, failures, kept, sep=",", flush=True)
"""
)

BY_PYTHON = (
    PROLOGUE
    + """
import _testcapi
for name in codes:
    failures = quiet = 0
    for n in range(1_000):
        live = rest()
        space = dict(globals())
        try:
            _testcapi.set_nomemory(n, n + 1)
            exec(codes[name], space)
            raised = False
        except MemoryError:
            raised = True
        finally:
            _testcapi.remove_mem_hooks()
        failures += raised
        quiet = 0 if raised else quiet + 1
        del space
        assert rest() == live, (name, n)
        if quiet == 25:
            break  # it asks for less than this
    print(name, n, failures, 0, sep=",", flush=True)
"""
)


def sweep(code: str, *arguments: str, **environment: str) -> dict[str, tuple[int, int, int]]:
    """What each scene came to: allocations tried, exceptions seen, blocks that stayed behind."""
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", code, json.dumps(SCENES), *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    rows = [line.split(",") for line in done.stdout.splitlines()]
    return {name: (int(tried), int(failures), int(kept)) for name, tried, failures, kept in rows}


def test_each_allocation_of_ours_may_fail() -> None:
    build = paths.build()
    fault = build / "python" / "libumo_python_fault.so" if build is not None else None
    if fault is None or not fault.exists():
        pytest.skip("libumo_python_fault.so is built on Linux, without sanitizers, with UMO_BUILD_TESTS")
    results = sweep(BY_LIBRARY, str(fault), LD_PRELOAD=str(fault))
    assert set(results) == set(SCENES)
    for name, (tried, failures, kept) in results.items():
        assert kept <= 2, f"{name}: {kept} blocks stayed behind"
        assert tried < 999 and failures <= tried, name
        if name not in ("empty", "modes", "bracket", "move", "recorder"):  # these reuse what is there, or take pages
            assert failures > 0, name


def test_each_allocation_of_pythons_may_fail() -> None:
    pytest.importorskip("_testcapi", reason="CPython's test module is not installed")
    results = sweep(BY_PYTHON)
    assert set(results) == set(SCENES)
    assert all(tried < 999 and failures > 0 for tried, failures, _ in results.values()), results
