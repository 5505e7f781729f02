"""JAX arrays and umo's tensors over one memory, through DLPack. Run it: python jax_arrays.py"""

import jax.numpy as jnp
import numpy as np

import umo

# An array of JAX's is wrapped where it lies. JAX's arrays never change, so umo's tensor may only be read.
theirs = jnp.arange(4096, dtype=jnp.float32).reshape(64, 64)
wrapped = umo.Tensor.wrap(theirs)
assert np.asarray(wrapped).ctypes.data == theirs.unsafe_buffer_pointer()
assert wrapped.readonly

# Memory of umo's under an array of JAX's. JAX copies what does not begin at a multiple of 64 bytes; umo's does.
with umo.Context() as ctx:
    made = ctx.empty((64, 64), "float32")
    with made.write() as view:
        np.asarray(view)[...] = 3
    lent = jnp.from_dlpack(made)
    assert lent.unsafe_buffer_pointer() == np.asarray(made).ctypes.data
assert float(lent.sum()) == 3 * 64 * 64

print("JAX and umo share their memory: 0 bytes copied between them")
