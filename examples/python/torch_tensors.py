"""PyTorch tensors and umo's over one memory, through DLPack. Run it: python torch_tensors.py"""

import torch

import umo

# A tensor of PyTorch's is wrapped where it lies, also one whose elements do not follow one another.
theirs = torch.arange(12, dtype=torch.float32).reshape(3, 4)
wrapped = umo.Tensor.wrap(theirs)
again = torch.from_dlpack(wrapped)
assert again.data_ptr() == theirs.data_ptr()
assert torch.from_dlpack(umo.Tensor.wrap(theirs.t())).data_ptr() == theirs.data_ptr()

# Writing through one is seen through the other: it is one memory.
again[1, 2] = 42
assert theirs[1, 2] == 42

# bfloat16 has no code in the buffer protocol, and passes through DLPack as it is.
half = torch.ones(8, dtype=torch.bfloat16)
assert torch.from_dlpack(umo.Tensor.wrap(half)).data_ptr() == half.data_ptr()

# Memory of umo's under a tensor of PyTorch's. It stays as long as PyTorch holds it.
with umo.Context() as ctx:
    made = ctx.empty((3, 4), "float32")
    with made.write() as view:
        torch.from_dlpack(view).copy_(theirs)
    result = torch.from_dlpack(made)
assert torch.equal(result, theirs)

print("PyTorch and umo share their memory: 0 bytes copied between them")
