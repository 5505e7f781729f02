"""Opens every device of one driver and has each do a little work whose bytes are compared.

A driver is other people's code: what it breaks, it breaks in this process, which the doctor only listens to. Each line
on the output is one JSON object; {"step": ...} comes before what may not come back.

    python -m umo.doctor.trial opencl
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
from collections.abc import Iterator
from typing import Any

from .. import paths
from ..words import reasons

SIZE = (1 << 20) + 16  # more than a page and a tail
PIECES = ((5, 1), (4096, 300_001), (400_003, 77), (700_000, 262_144), (1_048_000, 592))  # (offset, bytes), all odd ways
TARGET = 3
PATTERN = bytes(range(0xA0, 0xB0))
FOR_EVER = ctypes.c_uint64(2**64 - 1)
UNIFIED, PRIVATE = 0, 2
DEVICE, HOST, READ, WRITE = 2, 1, 1, 2


class Fault(Exception):
    """The device did not do what it was asked."""


class Error(ctypes.Structure):
    _fields_ = (("status", ctypes.c_int), ("native", ctypes.c_int32), ("text", ctypes.c_char * 256))


class Fence(ctypes.Structure):
    _fields_ = (("device", ctypes.c_void_p), ("queue", ctypes.c_uint32), ("value", ctypes.c_uint64))


class Fences(ctypes.Structure):
    _fields_ = (("count", ctypes.c_size_t), ("fences", Fence * 16))


class Access(ctypes.Structure):
    _fields_ = (
        ("offset", ctypes.c_size_t), ("size", ctypes.c_size_t), ("side", ctypes.c_int), ("use", ctypes.c_int),
        ("queue", ctypes.c_uint32), ("scope", ctypes.c_void_p),
    )  # fmt: skip


class Import(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("size", ctypes.c_size_t), ("writable", ctypes.c_bool), ("pages", ctypes.c_bool),
        ("deleter", ctypes.c_void_p), ("user", ctypes.c_void_p),
    )  # fmt: skip


class Piece(ctypes.Structure):
    _fields_ = (("memory", ctypes.c_void_p), ("offset", ctypes.c_size_t), ("size", ctypes.c_size_t))


class Trial:
    """One opened device."""

    def __init__(self, library: ctypes.CDLL, driver: str, ordinal: int) -> None:
        self.library, self.device, self.scope = library, ctypes.c_void_p(), ctypes.c_void_p()
        self.error = Error()
        self.must(
            "a scope",
            library.umo_scope_create(None, b"doctor", ctypes.c_uint64(0), ctypes.byref(self.scope), self._error()),
        )
        self.must(
            "opening",
            library.umo_device_open(
                driver.encode(), ctypes.c_uint32(ordinal), None, ctypes.byref(self.device), self._error()
            ),
        )

    def _error(self) -> Any:
        self.error = Error()
        return ctypes.byref(self.error)

    def must(self, what: str, status: int) -> None:
        if status != 0:
            said = self.error.text.decode(errors="replace") if self.error.status == status else ""
            raise Fault(f"{what}: {said or self.library.umo_status_name(status).decode()}")

    def buffer(self, mode: int) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        self.must(
            "an allocation",
            self.library.umo_buffer_alloc(
                self.device, self.scope, ctypes.c_size_t(SIZE), mode, ctypes.byref(made), self._error()
            ),
        )
        return made

    def bracket(self, buffer: ctypes.c_void_p, side: int, use: int) -> Access:
        access, waits = Access(0, SIZE, side, use, 0, None), Fences()
        self.must("a bracket", self.library.umo_access_begin(buffer, ctypes.byref(access), ctypes.byref(waits)))
        self.must("waiting", self.library.umo_fence_set_wait(ctypes.byref(waits), FOR_EVER))
        return access

    def end(self, buffer: ctypes.c_void_p, access: Access, done: Fence) -> None:
        self.must("a bracket's end", self.library.umo_access_end(buffer, ctypes.byref(access), done))

    def memory(self, buffer: ctypes.c_void_p) -> tuple[int, int]:
        return self.library.umo_buffer_memory(buffer), self.library.umo_buffer_memory_offset(buffer)

    def upload(self, buffer: ctypes.c_void_p, data: bytes) -> None:
        done = Fence()
        self.must(
            "an upload",
            self.library.umo_buffer_upload(
                buffer, ctypes.c_size_t(0), data, ctypes.c_size_t(len(data)), ctypes.c_uint32(0), ctypes.byref(done)
            ),
        )
        self.must("waiting", self.library.umo_fence_wait(done, FOR_EVER))

    def download(self, buffer: ctypes.c_void_p) -> bytes:
        done, taken = Fence(), ctypes.create_string_buffer(SIZE)
        self.must(
            "a download",
            self.library.umo_buffer_download(
                buffer, ctypes.c_size_t(0), taken, ctypes.c_size_t(SIZE), ctypes.c_uint32(0), ctypes.byref(done)
            ),
        )
        self.must("waiting", self.library.umo_fence_wait(done, FOR_EVER))
        return taken.raw

    def fill(self, buffer: ctypes.c_void_p) -> None:
        access, done = self.bracket(buffer, DEVICE, WRITE), Fence()
        memory, offset = self.memory(buffer)
        self.must(
            "a fill",
            self.library.umo_device_fill(
                self.device, ctypes.c_uint32(0), ctypes.c_void_p(memory), ctypes.c_size_t(offset),
                ctypes.c_size_t(SIZE), PATTERN, ctypes.c_size_t(len(PATTERN)), None, ctypes.c_size_t(0),
                ctypes.byref(done), self._error(),
            ),
        )  # fmt: skip
        self.end(buffer, access, done)

    def gather(self, source: ctypes.c_void_p, target: ctypes.c_void_p) -> None:
        reads, writes, done = self.bracket(source, DEVICE, READ), self.bracket(target, DEVICE, READ | WRITE), Fence()
        memory, base = self.memory(source)
        pieces = (Piece * len(PIECES))(*(Piece(memory, base + offset, size) for offset, size in PIECES))
        memory, base = self.memory(target)
        self.must(
            "a gather",
            self.library.umo_device_gather(
                self.device, ctypes.c_uint32(0), pieces, ctypes.c_size_t(len(PIECES)), ctypes.c_void_p(memory),
                ctypes.c_size_t(base + TARGET), None, ctypes.c_size_t(0), ctypes.byref(done), self._error(),
            ),
        )  # fmt: skip
        self.end(source, reads, done)
        self.end(target, writes, done)

    def close(self) -> None:
        self.library.umo_device_release(self.device)
        self.library.umo_scope_destroy(self.scope)


def _same(what: str, found: bytes, wanted: bytes) -> None:
    if found != wanted:
        at = next(i for i, (one, other) in enumerate(zip(found, wanted, strict=True)) if one != other)
        wrong = sum(one != other for one, other in zip(found, wanted, strict=True))
        raise Fault(f"{what}: {wrong:,} of {len(wanted):,} bytes are wrong, the first at {at:,}")


def work(trial: Trial, info: dict[str, Any], modes: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """What the device is asked to do, one step after the other."""
    mode = UNIFIED if "unified" in modes else PRIVATE
    data = os.urandom(SIZE)
    source, target = trial.buffer(mode), trial.buffer(mode)
    trial.upload(source, data)
    _same("what was sent there and fetched back", trial.download(source), data)
    yield {"done": "moved", "bytes": SIZE}
    if info["kernels"]:
        yield {"step": "run a kernel"}
        trial.fill(target)
        wanted = bytearray(PATTERN * (SIZE // len(PATTERN)))
        _same("a fill", trial.download(target), bytes(wanted))
        trial.gather(source, target)
        gathered = b"".join(data[offset : offset + size] for offset, size in PIECES)
        wanted[TARGET : TARGET + len(gathered)] = gathered
        _same("a gather", trial.download(target), bytes(wanted))
        yield {"done": "computed", "bytes": len(gathered)}
    for buffer in (source, target):
        trial.library.umo_buffer_release(buffer)
    if info["import_write"]:
        yield {"step": "bind memory of this process"}
        yield from _bound(trial, info)


def _bound(trial: Trial, info: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The device writes into memory that it did not allocate: no copy comes between."""
    align = max(mmap.PAGESIZE, info["import_size_align_bytes"])
    with mmap.mmap(-1, (SIZE + align - 1) // align * align) as pages:
        held = (ctypes.c_char * len(pages)).from_buffer(pages)
        asked = Import(ctypes.addressof(held), SIZE, True, True, None, None)
        made, why = ctypes.c_void_p(), ctypes.c_int()
        status = trial.library.umo_buffer_import(
            trial.device, trial.scope, ctypes.byref(asked), ctypes.byref(made), ctypes.byref(why), trial._error()
        )
        if status != 0:
            yield {"refused": trial.error.text.decode(errors="replace"), "reason": reasons()[why.value].label}
            del held
            return
        try:
            if info["kernels"]:
                trial.fill(made)
            else:
                trial.upload(made, PATTERN * (SIZE // len(PATTERN)))
            access = trial.bracket(made, HOST, READ)
            _same("host memory that the device wrote", bytes(pages[:SIZE]), PATTERN * (SIZE // len(PATTERN)))
            trial.end(made, access, Fence())
        finally:
            trial.library.umo_buffer_release(made)
            del held
        yield {"done": "bound", "bytes": SIZE}


def open_library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(paths.library()))
    library.umo_status_name.restype = ctypes.c_char_p
    library.umo_buffer_memory.restype = ctypes.c_void_p
    library.umo_buffer_memory_offset.restype = ctypes.c_size_t
    for name in ("umo_device_release", "umo_scope_destroy", "umo_buffer_release"):
        getattr(library, name).restype = None
    return library


def examine(driver: str) -> Iterator[dict[str, Any]]:
    library, count, error = open_library(), ctypes.c_uint32(), Error()
    yield {"step": "list its devices"}
    status = library.umo_driver_count(driver.encode(), ctypes.byref(count), ctypes.byref(error))
    if status != 0:
        yield {"none": error.text.decode(errors="replace"), "status": library.umo_status_name(status).decode()}
        return
    yield {"count": count.value}
    from umo import Context, UmoError

    for ordinal in range(count.value):
        name = f"{driver}:{ordinal}"
        yield {"step": f"open {name}", "device": name}
        try:
            with Context() as context:
                device = context.device(name)
                info, modes = device.info, device.modes
                facts = {**info, "name": device.name, "family": device.family, "unified": device.unified}
                yield {"device": name, "facts": facts, "modes": modes}
            yield {"step": f"let {name} work"}
            trial = Trial(library, driver, ordinal)
            for step in work(trial, dict(info), modes):
                yield {**step, "device": name}
            trial.close()
        except (Fault, UmoError) as failure:
            yield {"device": name, "fault": str(failure)}


def main() -> None:
    for line in examine(sys.argv[1]):
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
