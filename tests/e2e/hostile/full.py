"""umo.client's ring and the C ring in a /dev/shm that is full; to be run where /dev/shm is a small one of its own.

    python -m hostile.full ring|client ...

Prints one line of JSON.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

SHARED = Path("/dev/shm")
COUNT = 1 << 18  # floats: 1 MiB


class Filler:
    """Takes all that is free, and lets go of it."""

    path = SHARED / "filler"

    def fill(self) -> None:
        with self.path.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def free(self) -> None:
        self.path.unlink()


def used() -> int:
    room = os.statvfs(SHARED)
    return (room.f_blocks - room.f_bfree) * room.f_frsize


class Spec(ctypes.Structure):
    _fields_ = [
        ("model", ctypes.c_char_p),
        ("tensor", ctypes.c_char_p),
        ("tensor_bytes", ctypes.c_size_t),
        ("slots", ctypes.c_uint32),
    ]


def ring_in_c(library: str) -> dict[str, Any]:
    """What umo_ring_take() says while there is room, when there is none, and when there is again."""
    umo = ctypes.CDLL(library)
    umo.umo_ring_destroy.argtypes = [ctypes.c_void_p]
    umo.umo_ring_take.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p]
    umo.umo_status_name.restype = ctypes.c_char_p
    ring, slot, filler = ctypes.c_void_p(), ctypes.c_uint32(), Filler()
    specs = (Spec * 2)(Spec(b"m", b"IN", 1 << 20, 8), Spec(b"m", b"OUT", 1 << 20, 8))
    said = {"create": umo.umo_ring_create(specs, 2, ctypes.byref(ring), None)}

    def take() -> str:
        return umo.umo_status_name(umo.umo_ring_take(ring, 0, 0, ctypes.byref(slot))).decode()

    said["room"] = take()
    filler.fill()
    said["full"] = [take() for _ in range(20)]
    filler.free()
    said["again"] = [take() for _ in range(2)]
    umo.umo_ring_destroy(ring)
    said["left"] = used()
    return said


CONFIG = """backend: "umo_identity"
max_batch_size: 0
input [ { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
"""


def client(protocol: str) -> dict[str, Any]:
    """Requests in a full /dev/shm, more than the budget has room for slots, and after it was emptied."""
    os.environ["UMO_CLIENT_BUDGET_BYTES"] = str(16 << 20)
    import umo.client.grpc
    import umo.client.http
    from umo.server import TritonServer

    folder = Path(tempfile.mkdtemp())
    (folder / "echo" / "1").mkdir(parents=True)
    (folder / "echo" / "config.pbtxt").write_text(CONFIG)
    module = umo.client.http if protocol == "http" else umo.client.grpc
    said: dict[str, Any] = {}
    filler = Filler()
    with TritonServer(folder) as server:
        with module.InferenceServerClient(server.http_url if protocol == "http" else server.grpc_url) as asking:

            def ask(times: int) -> int:
                right = 0
                for turn in range(times):
                    x = np.arange(turn, turn + COUNT, dtype=np.float32)
                    given = module.InferInput("IN", [COUNT], "FP32")
                    given.set_data_from_numpy(x)
                    got = asking.infer("echo", [given]).as_numpy("OUT")
                    right += bool((got == x).all())
                return right

            filler.fill()
            said["full"] = ask(30)
            said["transport_full"] = str(asking.transport)
            filler.free()
            before = server.metrics()
            said["empty"] = ask(10)
            said["in_lanes"] = used()
            said["transport_empty"] = str(asking.transport)
            # The server is still asked for outputs it can write, when there is no room for one slot more.
            filler.fill()
            said["full_again"] = ask(10)
            filler.free()
            moved = server.metrics().since(before)
            said["answered"] = moved.value("nv_inference_request_success", model="echo")
        said["alive"] = server.running
    said["left"] = used()
    return said


if __name__ == "__main__":
    print(json.dumps(ring_in_c(sys.argv[2]) if sys.argv[1] == "ring" else client(sys.argv[2])))
