"""Clients that need no thought: tritonclient's, whose tensors stay where they are.

    import umo.client.http as httpclient        # for tritonclient.http
    import umo.client.grpc as grpcclient        # for tritonclient.grpc
    import umo.client.http.aio, umo.client.grpc.aio

Nothing else changes. When the server is on this machine and opens memory of this process, tensors lie in lanes of a
segment that both see: an input is copied once, into its lane, and an output is an array where the server wrote it.
When not, they travel as tritonclient sends them; `client.transport` says which, and why. `empty()` gives arrays that
lie in a lane already, so that an input is not copied at all. See docs/client.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from umo.client.lanes import Lane, LaneSpec, layout
from umo.client.ring import Lease, Ring, Slot

if TYPE_CHECKING:
    from umo.client.link import Transport

__all__ = ["Lane", "LaneSpec", "Lease", "Model", "Ring", "Slot", "Transport", "empty", "layout", "reap"]


def __getattr__(name: str) -> Any:
    if name == "Transport":
        from umo.client.link import Transport

        return Transport
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class Model:
    """A model of a client's server, for empty()."""

    client: Any
    name: str
    version: str = ""


def empty(client_or_model: Any, name: str, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
    """An uninitialised array for an input, in memory that the server sees: set_data_from_numpy() does not copy it.

    It is the same memory at every request: write to it before one, and not while one runs. Arrays of one input that are
    made one after the other lie side by side, so that the requests of several threads are one batch in place. Where no
    memory can be shared it is an ordinary array. Raises TypeError for objects, whose bytes are elsewhere.
    """
    from umo.client import link as links
    from umo.client.shared import datatype_of

    kind = np.dtype(dtype)
    if kind.hasobject:
        raise TypeError("an array of objects has no bytes of its own to share")
    model = client_or_model if isinstance(client_or_model, Model) else None
    client = model.client if model is not None else client_or_model
    link = client._umo_link.real()
    dims = tuple(int(dim) for dim in shape)
    ordinary = np.empty(dims, kind)
    if link.off or ordinary.nbytes == 0:
        return ordinary
    found = links.hinted(name, datatype_of(kind) or "", dims, link, model.name if model is not None else None)
    slot = found if found is not None else link.single(f"<{name}", ordinary.nbytes)
    if slot is None:
        return ordinary
    return slot.lease(f"<{name}", ordinary.nbytes).array(kind, dims)


def reap(url: str, protocol: str = "http") -> list[str]:
    """Unregisters the regions that dead clients left at a server, and removes the segments they left here.

    A client does this by itself when it first shares memory. Returns the regions' names. Raises what tritonclient does
    when the server cannot be asked.
    """
    from umo.client import segment
    from umo.client.link import region_names

    if protocol == "grpc":
        import tritonclient.grpc as base
    else:
        import tritonclient.http as base  # type: ignore[no-redef]
    segment.sweep()
    client = base.InferenceServerClient(url)
    try:
        gone = []
        for name in sorted(region_names(client.get_system_shared_memory_status())):
            owner = segment.Owner.of(name)
            if owner is not None and owner.is_dead():
                client.unregister_system_shared_memory(name)
                gone.append(name)
        return gone
    finally:
        client.close()
