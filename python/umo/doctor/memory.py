"""What zero copy stands on: shared memory, views of it, the identity of a mapping, reads that cannot fault.

Each is tried on a segment of this process's own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from mmap import MAP_SHARED, PAGESIZE, mmap
from pathlib import Path

from .. import paths
from . import Check, Finding
from .system import kernel_version, size
from .trial import Error

AREA = "zero copy"
SHM = Path("/dev/shm")
SMALL = 256 << 20


def shared_memory() -> Iterator[Finding]:
    if sys.platform == "darwin":
        yield Finding(AREA, "shared memory", "good", "shm_open", "clients' tensors can lie where the server reads them")
        return
    if not SHM.is_dir():
        yield Finding(
            AREA,
            "shared memory",
            "fault",
            "no /dev/shm",
            "no client can share memory with a server here: every tensor is copied by the transport",
            "mount -t tmpfs -o size=50% tmpfs /dev/shm",
        )
        return
    room = os.statvfs(SHM)
    free, total = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    little = free < SMALL
    yield Finding(
        AREA,
        "shared memory",
        "note" if little else "good",
        f"/dev/shm: {size(free)} of {size(total)} free",
        "tensors beyond it go the conventional way" if little else "",
        "--shm-size=2g (Docker), an emptyDir of medium Memory (Kubernetes), or mount -o remount,size=2G /dev/shm"
        if little
        else "",
    )


@contextlib.contextmanager
def _segment() -> Iterator[mmap]:
    with tempfile.TemporaryFile(dir=SHM if SHM.is_dir() else None) as file:
        file.truncate(4 * PAGESIZE)
        with mmap(file.fileno(), 4 * PAGESIZE, MAP_SHARED) as mapped:
            mapped[:4] = b"umo!"
            yield mapped


def views() -> Iterator[Finding]:
    library = ctypes.CDLL(str(paths.library()))
    library.umo_status_name.restype = ctypes.c_char_p
    scope, registry, error = ctypes.c_void_p(), ctypes.c_void_p(), Error()
    own, view, mapping = ctypes.c_void_p(), ctypes.c_void_p(), (ctypes.c_uint64 * 64)()
    library.umo_scope_create(None, b"doctor", ctypes.c_uint64(0), ctypes.byref(scope), ctypes.byref(error))
    library.umo_registry_create(None, scope, ctypes.byref(registry), ctypes.byref(error))
    if error.status:
        yield Finding(
            AREA, "own views", "fault", error.text.decode(errors="replace"), mend="see what the message names"
        )
        return
    with _segment() as segment:
        holder = (ctypes.c_char * (4 * PAGESIZE)).from_buffer(segment)
        address = ctypes.c_void_p(ctypes.addressof(holder))
        yield _identity(library, address, mapping)
        status = library.umo_view_find(
            registry, address, ctypes.c_size_t(4), mapping, ctypes.byref(own), ctypes.byref(view), ctypes.byref(error)
        )
        if status == 0:
            same = ctypes.string_at(own, 4) == b"umo!" and own.value != address.value
            library.umo_view_release(view)
        if status == 0 and same:
            yield Finding(
                AREA,
                "own views",
                "good",
                "memory that a client shares is mapped a second time",
                "tensors are used in it, and a client that cuts its memory short fails alone",
            )
        else:
            why = error.text.decode(errors="replace") if status else "the second mapping holds other bytes"
            yield Finding(
                AREA,
                "own views",
                "fault",
                f"{library.umo_status_name(status).decode()}: {why}",
                "shared memory is copied through system calls",
                "a sandbox (seccomp) that forbids mremap is the usual cause: allow it",
            )
        yield _careful(library, address)
        del holder
    library.umo_registry_destroy(registry)
    library.umo_scope_destroy(scope)


def _identity(library: ctypes.CDLL, address: ctypes.c_void_p, mapping: ctypes.Array[ctypes.c_uint64]) -> Finding:
    name = "identity of mappings"
    if os.environ.get("UMO_PROCMAP_QUERY") == "off":
        return Finding(
            AREA,
            name,
            "note",
            "UMO_PROCMAP_QUERY=off",
            "each batch reads the process's map; small tensors are copied",
            "unset it",
        )
    status = library.umo_mapping_query(address, mapping)
    if status == 0:
        return Finding(AREA, name, "good", "one system call", "even small tensors are used where they lie")
    old = sys.platform == "linux" and kernel_version() < (6, 11)
    said = library.umo_status_name(status).decode()
    return Finding(
        AREA,
        name,
        "note",
        f"{said} (Linux {platform.release()})",
        "each batch reads the process's map once; tensors below a measured size are copied instead",
        "Linux 6.11 or later has the query" if old else "a sandbox that forbids ioctl on /proc/self/maps: allow it",
    )


def _careful(library: ctypes.CDLL, address: ctypes.c_void_p) -> Finding:
    library.umo_memory_read.restype = ctypes.c_size_t
    taken = ctypes.create_string_buffer(4)
    count = library.umo_memory_read(taken, address, ctypes.c_size_t(4))
    if count == 4 and taken.raw == b"umo!":
        return Finding(AREA, "reads that cannot fault", "good", "4 of 4 bytes", "copies survive memory that goes away")
    return Finding(
        AREA,
        "reads that cannot fault",
        "fault",
        f"{count} of 4 bytes",
        "what has to be copied out of a client's memory is refused",
        "allow process_vm_readv, or pipes, in the sandbox",
    )


def faults() -> Iterator[Finding]:
    if os.environ.get("UMO_SIGBUS") == "off":
        yield Finding(
            AREA,
            "truncated memory",
            "note",
            "UMO_SIGBUS=off",
            "a client that cuts its shared memory short while it is used can end the server",
            "unset it, unless another part of the server needs SIGBUS for itself",
        )


CHECKS: list[Check] = [shared_memory, views, faults]
