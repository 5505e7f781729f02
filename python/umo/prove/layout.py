"""Reads the file that the preloaded witness shares: tools/witness/spy_layout.h, version 1.

One place knows the bytes; it checks the magic, the version and the sizes that the file itself states.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

MAGIC = b"UMOSPY1\0"
VERSION = 1
HEADER_BYTES = 4096

CENSUS_ARM, CENSUS_SCAN, CENSUS_DISARM = 1, 2, 3
CENSUS_OFF, CENSUS_STARTING, CENSUS_READY, CENSUS_OK, CENSUS_FAILED, CENSUS_UNAVAILABLE = range(6)

SHARED, FILE, WATCHED, NEW, UNKNOWN, WRITABLE = (1 << bit for bit in range(6))

_HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("version", "u4"),
        ("pid", "u4"),
        ("kind_count", "u4"),
        ("class_count", "u4"),
        ("object_capacity", "u4"),
        ("object_bytes", "u4"),
        ("object_offset", "u8"),
        ("mapping_offset", "u8"),
        ("range_offset", "u8"),
        ("file_bytes", "u8"),
        ("mapping_capacity", "u4"),
        ("mapping_bytes", "u4"),
        ("range_capacity", "u4"),
        ("name_bytes", "u4"),
        ("lost_calls", "u8"),
        ("lost_bytes", "u8"),
        ("unhooked", "u8"),
        ("class_floor", "u8", 16),
        ("kind_names", "S24", 32),
        ("executable", "S256"),
        ("census_command", "u4"),
        ("census_sequence", "u4"),
        ("census_done", "u4"),
        ("census_status", "u4"),
        ("census_native_error", "i4"),
        ("census_mappings", "u4"),
        ("census_ranges", "u4"),
        ("census_ranges_lost", "u4"),
        ("census_mappings_lost", "u4"),
        ("page_bytes", "u4"),
        ("census_faults", "u8"),
        ("census_reason", "S256"),
    ],
    align=True,
)

_MAPPING = np.dtype(
    [
        ("start", "u8"),
        ("end", "u8"),
        ("file_offset", "u8"),
        ("inode", "u8"),
        ("device", "u8"),
        ("flags", "u4"),
        ("native_error", "i4"),
        ("dirty_pages", "u8"),
        ("first_range", "u4"),
        ("range_count", "u4"),
        ("name", "S256"),
    ],
    align=True,
)

_RANGE = np.dtype([("start", "u8"), ("end", "u8")])

_FUTEX_CALL = {"x86_64": 202, "aarch64": 98}
_FUTEX_WAKE = 1


class LayoutError(RuntimeError):
    """The file is not one that this reader knows."""


def text(field: bytes) -> str:
    """A C string out of a field that may hold more behind its end."""
    return field.split(b"\0", 1)[0].decode(errors="replace")


class SpyFile:
    """One process's shared file, mapped for reading and for the census's commands."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            size = os.fstat(file.fileno()).st_size
            if size < HEADER_BYTES:
                raise LayoutError(f"{path}: too short to be a witness's file")
            self._map = mmap.mmap(file.fileno(), size)
        self.header = np.frombuffer(self._map, _HEADER, 1)
        head = self._head()
        if head["magic"] != MAGIC.rstrip(b"\0"):
            raise LayoutError(f"{path}: not a witness's file, or its process has not come up yet")
        if head["version"] != VERSION:
            raise LayoutError(f"{path}: layout version {head['version']}, this reader knows {VERSION}")
        if head["mapping_bytes"] != _MAPPING.itemsize or head["file_bytes"] != size:
            raise LayoutError(f"{path}: the file's own sizes disagree with layout version {VERSION}")
        self.kinds = [text(name) for name in head["kind_names"][: head["kind_count"]]]
        self.class_floors = [int(floor) for floor in head["class_floor"][: head["class_count"]]]
        cells = (int(head["kind_count"]), int(head["class_count"]))
        self._object = np.dtype(
            [
                ("state", "u4"),
                ("is_runtime", "u4"),
                ("keys", "u8", 4),
                ("name", f"S{head['name_bytes']}"),
                ("via", f"S{head['name_bytes']}"),
                ("cells", [("calls", "u8"), ("bytes", "u8")], cells),
            ]
        )
        if head["object_bytes"] != self._object.itemsize:
            raise LayoutError(f"{path}: the file's own sizes disagree with layout version {VERSION}")
        self._objects = np.frombuffer(self._map, self._object, int(head["object_capacity"]), int(head["object_offset"]))

    def _head(self) -> np.void:
        return self.header[0]

    @property
    def pid(self) -> int:
        """The process that writes the file."""
        return int(self._head()["pid"])

    @property
    def executable(self) -> str:
        """The program of that process."""
        return text(self._head()["executable"])

    @property
    def page_bytes(self) -> int:
        """The process's page size."""
        return int(self._head()["page_bytes"])

    def counter(self, name: str) -> int:
        """One of the header's numbers."""
        return int(self._head()[name])

    def cells(self) -> list[tuple[str, str, np.ndarray, np.ndarray]]:
        """(library, on behalf of, calls[kind][class], bytes[kind][class]) of each entry in use; copies, not views."""
        out = []
        for entry in self._objects[self._objects["state"] == 2]:
            name = text(entry["name"]) or self.executable
            via = text(entry["via"])
            # The main program has no name of its own in the loader's list.
            if not via and entry["keys"][2] != 0:
                via = self.executable
            out.append((name, via, entry["cells"]["calls"].copy(), entry["cells"]["bytes"].copy()))
        return out

    def command(self, command: int, timeout_s: float) -> tuple[int, str, int]:
        """Has the helper thread run a census command; returns its status, reason and native error."""
        head = self._head()
        sequence = (int(head["census_sequence"]) + 1) & 0xFFFFFFFF
        self.header["census_command"] = command
        self.header["census_sequence"] = sequence
        self._wake("census_sequence")
        deadline = time.monotonic() + timeout_s
        while int(self._head()["census_done"]) != sequence:
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {self.pid} did not answer the census within {timeout_s:.0f} s")
            time.sleep(0.0005)
        return self.census_state()

    def census_state(self) -> tuple[int, str, int]:
        """(status, reason, native error) of the last census command."""
        head = self._head()
        return (
            int(head["census_status"]),
            text(head["census_reason"]),
            int(head["census_native_error"]),
        )

    def census(self) -> tuple[np.ndarray, np.ndarray]:
        """The mappings and the ranges that the last scan found."""
        head = self._head()
        mappings = np.frombuffer(self._map, _MAPPING, int(head["census_mappings"]), int(head["mapping_offset"]))
        ranges = np.frombuffer(self._map, _RANGE, int(head["census_ranges"]), int(head["range_offset"]))
        return mappings.copy(), ranges.copy()

    def _wake(self, field: str) -> None:
        number = _FUTEX_CALL.get(platform.machine())
        if number is None or sys.platform != "linux":
            raise OSError(
                f"no census on {sys.platform}, {platform.machine()}: needs Linux on x86-64 or arm64; give --no-census"
            )
        address = self.header.ctypes.data + _HEADER.fields[field][1]
        libc = ctypes.CDLL(None, use_errno=True)
        libc.syscall(
            ctypes.c_long(number), ctypes.c_void_p(address), ctypes.c_int(_FUTEX_WAKE), ctypes.c_int(2**31 - 1),
            None, None, ctypes.c_int(0),
        )  # fmt: skip


def spy_files(path: Path) -> list[Path]:
    """The main process's file and those of its children, as far as they exist."""
    found = [path] if path.exists() else []
    return found + sorted(p for p in path.parent.glob(path.name + ".*") if p.suffix[1:].isdigit())
