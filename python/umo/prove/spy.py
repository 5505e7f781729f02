"""The first witness: bytes that pass through the copy functions, by the library that called them.

The spy is a preloaded library (tools/witness). It sees every call of memcpy, memmove, mempcpy, bcopy, memset
and their fortified forms that leaves a library, and the copy calls of OpenCL and CUDA. It is blind to copies by
intrinsics, by `rep movsb`, by a plain loop, by memcpy that the compiler inlined, inside libc and by system
calls: that is why there are two more witnesses, the census of dirtied pages and the slope of instructions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import paths
from .classify import Classifier
from .layout import LayoutError, SpyFile, spy_files

HOST_COPIES = ("memcpy", "memmove", "mempcpy", "__memcpy_chk", "__memmove_chk", "__mempcpy_chk", "bcopy")
HOST_FILLS = ("memset", "__memset_chk")
DEVICE_COPIES = ("device_write", "device_read", "device_copy", "device_any")
COPIES = HOST_COPIES + DEVICE_COPIES

LARGE_BYTES = 4096
"""From this size on a copy counts as one of tensor data; it is a lower end of a size class, so the parting is exact."""


class SpyError(RuntimeError):
    """The spy library is missing, or the process it was preloaded into does not show itself."""


def find_spy_library() -> Path:
    """UMO_SPY_LIBRARY, else umo's own (paths.tool).

    Raises SpyError when there is none.
    """
    named = os.environ.get("UMO_SPY_LIBRARY")
    if named:
        if not Path(named).is_file():
            raise SpyError(f"UMO_SPY_LIBRARY names {named}, which is no file")
        return Path(named).resolve()
    try:
        return paths.tool("libumo_spy.so")
    except FileNotFoundError as error:
        raise SpyError(f"{error}, or set UMO_SPY_LIBRARY to the file") from error


@dataclass(frozen=True)
class Row:
    """What one library did with one function in one size class."""

    process: int
    library: str
    via: str
    kind: str
    at_least_bytes: int
    calls: int
    bytes: int


class Reading:
    """All counters at one moment, or their change: subtract an earlier reading from a later one."""

    def __init__(
        self,
        kinds: list[str],
        floors: list[int],
        cells: dict[tuple[int, str, str], tuple[np.ndarray, np.ndarray]],
        lost_calls: int = 0,
        unhooked: int = 0,
    ) -> None:
        self._kinds = kinds
        self._floors = floors
        self._cells = cells
        self.lost_calls = lost_calls
        """Calls that found no room in the table: when not 0, every figure is a lower bound."""
        self.unhooked = unhooked
        """Entry points of a second driver library, not counted: when not 0, device figures are a lower bound."""

    def __sub__(self, before: Reading) -> Reading:
        cells = {}
        for key, (calls, amount) in self._cells.items():
            old = before._cells.get(key)
            new = (calls, amount) if old is None else (calls - old[0], amount - old[1])
            if new[0].any():
                cells[key] = new
        return Reading(
            self._kinds, self._floors, cells, self.lost_calls - before.lost_calls, self.unhooked - before.unhooked
        )

    def rows(self) -> list[Row]:
        """Every non-zero counter, the most bytes first."""
        rows = []
        for (process, library, via), (calls, amount) in self._cells.items():
            for kind, size in zip(*np.nonzero(calls), strict=True):
                rows.append(
                    Row(
                        process, library, via, self._kinds[kind], self._floors[size],
                        int(calls[kind][size]), int(amount[kind][size]),
                    )
                )  # fmt: skip
        return sorted(rows, key=lambda row: (-row.bytes, row.library, row.kind))

    def bytes(
        self,
        roles: str | Iterable[str] | None = None,
        *,
        kinds: Iterable[str] = COPIES,
        min_size: int = 0,
        below: int | None = None,
        library: str | None = None,
        classifier: Classifier | None = None,
    ) -> int:
        """Bytes moved: by libraries of these roles, in calls of at least `min_size` and less than `below` bytes.

        Both sizes must be lower ends of a size class (0, 64, 256, 1024, 4096, ... times 4). `library` keeps only the
        libraries whose path contains that text.
        """
        for size in (min_size, below):
            if size is not None and size not in self._floors:
                raise ValueError(f"{size} is not the lower end of a size class: one of {self._floors}")
        wanted_kinds = set(kinds)
        wanted_roles = {roles} if isinstance(roles, str) else None if roles is None else set(roles)
        judge = classifier or Classifier()
        return sum(
            row.bytes
            for row in self.rows()
            if row.kind in wanted_kinds
            and row.at_least_bytes >= min_size
            and (below is None or row.at_least_bytes < below)
            and (wanted_roles is None or judge.role(row.library, row.via) in wanted_roles)
            and (library is None or library in row.library or library in row.via)
        )

    def as_json(self, classifier: Classifier | None = None) -> dict[str, Any]:
        """Everything, for a file."""
        judge = classifier or Classifier()
        return {
            "lost_calls": self.lost_calls,
            "unhooked": self.unhooked,
            "rows": [{**vars(row), "role": judge.role(row.library, row.via)} for row in self.rows()],
        }


class Spy:
    """Reads the counters of a process that runs with the spy preloaded, and of its children.

    >>> spy = Spy(path)                      # the path that the process got as UMO_SPY_FILE
    >>> before = spy.read()
    >>> infer()
    >>> delta = spy.settle() - before
    >>> delta.bytes("backend", min_size=LARGE_BYTES)
    """

    def __init__(self, path: str | Path, *, wait_s: float = 10.0) -> None:
        self.path = Path(path)
        self._files: dict[Path, SpyFile] = {}
        deadline = time.monotonic() + wait_s
        while not self._refresh():
            if time.monotonic() > deadline:
                raise SpyError(f"no process counts in {self.path}: was the spy preloaded there?")
            time.sleep(0.01)

    @staticmethod
    def environment(path: str | Path, *, census: bool = True, library: str | Path | None = None) -> dict[str, str]:
        """The variables that make a program run under the spy, counting in `path`."""
        preload = str(library or find_spy_library())
        inherited = os.environ.get("LD_PRELOAD")
        return {
            "LD_PRELOAD": f"{preload}:{inherited}" if inherited else preload,
            "UMO_SPY_FILE": str(path),
            "UMO_SPY_CENSUS": "1" if census else "0",
        }

    def _refresh(self) -> bool:
        for path in spy_files(self.path):
            if path not in self._files:
                try:
                    self._files[path] = SpyFile(path)
                except (LayoutError, OSError):
                    continue  # that process is just coming up
        return bool(self._files)

    def file(self, pid: int) -> SpyFile:
        """The shared file of one process. Raises SpyError when it has none."""
        self._refresh()
        for file in self._files.values():
            if file.pid == pid:
                return file
        raise SpyError(f"process {pid} does not count in {self.path}: was the spy preloaded there?")

    def read(self) -> Reading:
        """All counters now."""
        self._refresh()
        cells: dict[tuple[int, str, str], tuple[np.ndarray, np.ndarray]] = {}
        kinds: list[str] = []
        floors: list[int] = []
        lost = unhooked = 0
        for file in self._files.values():
            kinds, floors = file.kinds, file.class_floors
            lost += file.counter("lost_calls")
            unhooked += file.counter("unhooked")
            for name, via, calls, amount in file.cells():
                key = (file.pid, name, via)
                old = cells.get(key)
                cells[key] = (calls, amount) if old is None else (calls + old[0], amount + old[1])
        return Reading(kinds, floors, cells, lost, unhooked)

    def settle(self, quiet_s: float = 0.03, timeout_s: float = 2.0) -> Reading:
        """Reads when no copy of at least LARGE_BYTES was added for `quiet_s`: a server may finish after it answered."""
        deadline = time.monotonic() + timeout_s
        last = self.read()
        while time.monotonic() < deadline:
            time.sleep(quiet_s)
            now = self.read()
            if not (now - last).bytes(min_size=LARGE_BYTES):
                return now
            last = now
        return last
