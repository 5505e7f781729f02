"""NumPy arrays and umo's tensors over one memory, both ways. Run it: python numpy_arrays.py"""

import numpy as np

import umo


def address(array: np.ndarray) -> int:
    return array.ctypes.data


# An array becomes a tensor: its own memory, kept alive for as long as the tensor is.
array = np.arange(1_000_000, dtype=np.float32).reshape(1000, 1000)
tensor = umo.Tensor.wrap(array)
assert address(np.asarray(tensor)) == address(array)
assert address(np.from_dlpack(tensor)) == address(array)

# Views come along with their strides; nothing is straightened out behind your back.
view = array[::2, 10:20]
assert address(np.asarray(umo.Tensor.wrap(view))) == address(view)

# Memory of umo's, used in brackets: the device sees what the host wrote, and the counters say what had to move.
with umo.Context() as ctx:
    made = ctx.empty((1000, 1000), "float32")
    with made.write() as whole:
        np.asarray(whole)[...] = array
    with made.read(device=True) as seen:
        assert seen.side == "device"
    with made.read() as back:
        np.testing.assert_array_equal(np.asarray(back), array)
    moved = ctx.stats()["transfers_performed"]["to_device"]["bytes"]
    unified = made.buffer.device.unified

print(f"wrapped {array.nbytes} bytes: 0 copied; {moved} moved to the device ({'one memory' if unified else 'its own'})")
