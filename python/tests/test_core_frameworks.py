"""Tensors to and from JAX, TensorFlow and PyTorch: the same memory by DLPack, in the environment build/venv-heavy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from umo import paths

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "build" / "venv-heavy" / "bin" / "python"

SCRIPTS = {
    "jax": """
import jax, jax.numpy as jnp, numpy as np, umo
values = np.arange(64, dtype=np.float32).reshape(8, 8)
ours = jnp.from_dlpack(umo.Tensor.wrap(values))
assert ours.sum() == values.sum()
theirs = jax.block_until_ready(jnp.arange(32, dtype=jnp.float32) * 2)
tensor = umo.Tensor.wrap(theirs)
assert tensor.readonly and tensor.dtype == "float32", "JAX's arrays are immutable"
assert np.asarray(tensor).ctypes.data == theirs.unsafe_buffer_pointer() and np.asarray(tensor)[5] == 10
half = umo.Tensor.wrap(jax.block_until_ready(jnp.ones((2, 3), jnp.bfloat16)))
assert half.dtype == "bfloat16" and half.shape == (2, 3)
with umo.Context(shared=False) as ctx:
    made = ctx.empty((4, 4), jnp.float32, device="host")
    np.asarray(made)[...] = 3
    assert jnp.from_dlpack(made).sum() == 48
""",
    "tensorflow": """
import numpy as np, tensorflow as tf, umo
theirs = tf.range(32, dtype=tf.float32)
tensor = umo.Tensor.wrap(theirs)
assert tensor.dtype == "float32" and np.asarray(tensor)[5] == 5
assert np.asarray(tensor).ctypes.data == np.asarray(memoryview(theirs)).ctypes.data
with umo.Context(shared=False) as ctx:
    # TensorFlow ends the process over memory that does not begin at a multiple of 64 bytes, as NumPy's may.
    made = ctx.empty(16, tf.float32, device="host")
    np.asarray(made)[...] = np.arange(16)
    ours = tf.experimental.dlpack.from_dlpack(made.__dlpack__())
    assert float(tf.reduce_sum(ours)) == 120
    assert ctx.empty(3, tf.float16, device="host").dtype == "float16"
    assert ctx.empty(3, tf.bfloat16, device="host").dtype == "bfloat16"
""",
    "torch": """
import gc, numpy as np, torch, umo
values = np.arange(64, dtype=np.float32).reshape(8, 8)
ours = torch.from_dlpack(umo.Tensor.wrap(values))
assert ours.data_ptr() == values.ctypes.data
theirs = torch.arange(32, dtype=torch.float32).reshape(4, 8).t()
tensor = umo.Tensor.wrap(theirs)
assert tensor.shape == (8, 4) and np.asarray(tensor).ctypes.data == theirs.data_ptr()
half = umo.Tensor.wrap(torch.ones(4, dtype=torch.bfloat16))
assert half.dtype == "bfloat16" and torch.from_dlpack(half).dtype == torch.bfloat16
with umo.Context(shared=False) as ctx:
    made = ctx.empty((4, 4), torch.float16, device="host")
    shown = torch.from_dlpack(made)
    shown.fill_(2)
    try:
        made.write().__enter__()
        raise AssertionError
    except umo.BusyError:
        pass
    del shown
    gc.collect()
    with made.read() as view:
        assert float(np.asarray(view).sum()) == 32
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(SCRIPTS))
def test_its_tensors_are_ours_and_ours_are_its(name: str) -> None:
    if not PYTHON.exists():
        pytest.skip("no build/venv-heavy: python -m venv build/venv-heavy, then pip install jax tensorflow-cpu torch")
    found = subprocess.run([PYTHON, "-c", f"import {name}"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(f"build/venv-heavy has no {name} that can be loaded")
    done = subprocess.run(
        [PYTHON, "-X", "faulthandler", "-c", SCRIPTS[name]],
        env=os.environ | {"PYTHONPATH": str(ROOT / "python"), "UMO_BUILD": str(paths.build())},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
