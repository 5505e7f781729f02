"""Tensors of a client that lie where the server's models can use them.

So far: the layout (`lanes`) and the memory (`ring`). The clients that use them in place of tritonclient's come later.
"""

from __future__ import annotations

from umo.client.lanes import Lane, LaneSpec, layout
from umo.client.ring import Ring, Slot

__all__ = ["Lane", "LaneSpec", "Ring", "Slot", "layout"]
