"""TensorFlow tensors and umo's over one memory, through DLPack. Run it: python tensorflow_tensors.py

TensorFlow's tensors cannot be written to, and it ends the process over memory that does not begin at a multiple of 64
bytes. Memory of umo's does; what you lend it of your own has to. The device is named, because TensorFlow and PoCL
(OpenCL on the CPU) each bring an LLVM, and two of them in one process end it; a GPU's driver has none of that.
"""

import numpy as np
import tensorflow as tf

import umo


def address(tensor: tf.Tensor) -> int:
    """Where TensorFlow has the bytes: NumPy's view of an eager tensor is no copy."""
    return np.from_dlpack(umo.Tensor.wrap(tensor)).ctypes.data


# A tensor of TensorFlow's is wrapped where it lies, and may be read.
theirs = tf.reshape(tf.range(4096, dtype=tf.float32), (64, 64))
wrapped = umo.Tensor.wrap(theirs)
assert wrapped.shape == (64, 64)
assert np.array_equal(np.asarray(wrapped), theirs.numpy())
assert np.asarray(wrapped).ctypes.data == address(theirs)

# Memory of umo's under a tensor of TensorFlow's.
with umo.Context() as ctx:
    made = ctx.empty((64, 64), "float32", device="host")
    with made.write() as view:
        np.asarray(view)[...] = 3
    lent = tf.experimental.dlpack.from_dlpack(made.__dlpack__())
    assert address(lent) == np.asarray(made).ctypes.data
assert float(tf.reduce_sum(lent)) == 3 * 64 * 64

print("TensorFlow and umo share their memory: 0 bytes copied between them")
