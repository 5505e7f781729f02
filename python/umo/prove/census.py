"""The second witness: the pages that a process wrote between two moments, whoever wrote them and by whatever
instruction.

Memory that was freed and unmapped in between leaves nothing to list, but its page faults are counted: see
CensusReport.vanished_pages.

A page counts when it was written at all; so the figure is in whole pages, and a write of the value that was
there already counts. Not seen: writes by another process (the client, a Python stub), writes by a device. Linux
6.7 or later.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import layout
from .layout import SpyFile


class CensusUnavailable(RuntimeError):
    """This kernel or this container does not allow the census; the text says why."""


class CensusError(RuntimeError):
    """A census that should have worked did not; the text says why."""


@dataclass(frozen=True)
class Region:
    """A part of a POSIX shared-memory object, by its key ("/name"), or of a file, by its path."""

    key: str
    offset_bytes: int
    size_bytes: int

    def path(self) -> Path:
        """Where the object shows in the file system."""
        own = Path("/dev/shm") / self.key.lstrip("/")
        return own if own.exists() else Path(self.key)

    def identity(self) -> tuple[int, int]:
        """(device, inode) as /proc/self/maps names them. Raises CensusError when the object is gone."""
        try:
            found = os.stat(self.path())
        except OSError as error:
            raise CensusError(f"no shared-memory object or file {self.key}: {error.strerror}") from error
        return (os.major(found.st_dev) << 32 | os.minor(found.st_dev), found.st_ino)


@dataclass(frozen=True)
class Dirty:
    """One mapping with written pages."""

    start: int
    end: int
    name: str
    kind: str
    """shared, stack, heap, anonymous, data (a library's or program's variables) or file"""
    is_new: bool
    """made since arm(): its pages that are there are counted, written or (in shared memory) only read"""
    device: int
    inode: int
    file_offset: int
    dirty_pages: int
    ranges: tuple[tuple[int, int], ...]


class CensusReport:
    """What was written between arm() and scan()."""

    def __init__(
        self,
        mappings: list[Dirty],
        unknown: list[tuple[str, int, int]],
        page_bytes: int,
        complete: bool,
        faults: int = 0,
    ) -> None:
        self.mappings = mappings
        """Every mapping with written pages."""
        self.unknown = unknown
        """(name, bytes, errno) of mappings that the kernel would not watch: nothing is known about them."""
        self.page_bytes = page_bytes
        self.complete = complete
        """False when there were more ranges or mappings than the shared file has room for."""
        self.faults = faults
        """Page faults of the process since arm()."""

    @property
    def dirty_pages(self) -> int:
        """All written pages that are still there; a page of a shared object that is mapped twice counts once."""
        return self._outside(())

    @property
    def vanished_pages(self) -> int:
        """Pages that were touched for the first time since arm() and are not among the written ones.

        Above all memory that was allocated, filled and freed again, as a staging buffer is: it leaves page
        faults behind, but no page to list. Pages that were only read for the first time count here too, so it
        is an upper bound.
        """
        return max(0, self.faults - sum(mapping.dirty_pages for mapping in self.mappings))

    def by_kind(self) -> dict[str, int]:
        """Written pages by kind of mapping."""
        kinds: dict[str, int] = {}
        for mapping in self.mappings:
            kinds[mapping.kind] = kinds.get(mapping.kind, 0) + mapping.dirty_pages
        return kinds

    def outside(self, outputs: Iterable[Region]) -> int:
        """Written pages that hold no byte of `outputs`, those that vanished included."""
        return self._outside(outputs) + self.vanished_pages

    def _outside(self, outputs: Iterable[Region]) -> int:
        page = self.page_bytes
        allowed: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for region in outputs:
            if region.size_bytes > 0:
                first = region.offset_bytes // page
                last = (region.offset_bytes + region.size_bytes + page - 1) // page
                allowed.setdefault(region.identity(), []).append((first, last))
        count = 0
        shared: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for mapping in self.mappings:
            if mapping.kind != "shared":
                count += mapping.dirty_pages
                continue
            pages = shared.setdefault((mapping.device, mapping.inode), [])
            for start, end in mapping.ranges:
                first = (start - mapping.start + mapping.file_offset) // page
                pages.append((first, first + (end - start) // page))
        for identity, ranges in shared.items():
            count += _length(_minus(_union(ranges), _union(allowed.get(identity, []))))
        return count

    def as_json(self) -> dict[str, Any]:
        """Everything but addresses, for a file."""
        return {
            "page_bytes": self.page_bytes,
            "complete": self.complete,
            "dirty_pages": self.dirty_pages,
            "vanished_pages": self.vanished_pages,
            "faults": self.faults,
            "by_kind": self.by_kind(),
            "mappings": [
                {"name": m.name, "kind": m.kind, "is_new": m.is_new, "dirty_pages": m.dirty_pages}
                for m in self.mappings
            ],
            "unknown": [{"name": name, "bytes": size, "errno": error} for name, size, error in self.unknown],
        }


def _union(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((start, end))
    return out


def _minus(ranges: list[tuple[int, int]], holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out = []
    for start, end in ranges:
        for low, high in holes:
            if high <= start or low >= end:
                continue
            if low > start:
                out.append((start, low))
            start = max(start, high)
        if start < end:
            out.append((start, end))
    return out


def _length(ranges: Iterable[tuple[int, int]]) -> int:
    return sum(end - start for start, end in ranges)


def _stack_pointers(pid: int) -> list[int]:
    """Where the threads of a process stand, as far as they sleep; a mapping that holds one is a stack."""
    found = []
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return found
    for task in tasks:
        try:
            words = (task / "syscall").read_text().split()
        except OSError:
            continue
        if len(words) >= 2 and words[-2].startswith("0x"):
            found.append(int(words[-2], 16))
    return found


class Census:
    """Counts the pages that one process dirties; the process must run with the spy preloaded and UMO_SPY_CENSUS=1.

    >>> census.arm()
    >>> infer()
    >>> census.scan().outside([Region("/out", 0, size)])

    While it is armed, the first write to each page costs the process a page fault.
    """

    def __init__(self, file: SpyFile, *, timeout_s: float = 60.0) -> None:
        self._file = file
        self._timeout_s = timeout_s

    def why_unavailable(self) -> str | None:
        """The reason why there is no census here, or None when there is one. May arm and disarm to find out."""
        try:
            self.arm()
            self.disarm()
        except CensusUnavailable as error:
            return str(error)
        return None

    def arm(self) -> None:
        """Starts to watch every page of the process, anew.

        Raises CensusUnavailable or CensusError.
        """
        self._command(layout.CENSUS_ARM)

    def scan(self) -> CensusReport:
        """What was written since arm(). May be called again; the watch goes on.

        Raises CensusUnavailable or CensusError.
        """
        self._command(layout.CENSUS_SCAN)
        raw, ranges = self._file.census()
        stacks = _stack_pointers(self._file.pid)
        mappings = []
        unknown = []
        for record in raw:
            flags = int(record["flags"])
            name = layout.text(record["name"])
            start, end = int(record["start"]), int(record["end"])
            if flags & layout.UNKNOWN:
                unknown.append((name or "anonymous", end - start, int(record["native_error"])))
                continue
            first = int(record["first_range"])
            mine = ranges[first : first + int(record["range_count"])]
            mappings.append(
                Dirty(
                    start=start,
                    end=end,
                    name=name or "anonymous",
                    kind=_kind(flags, name, start, end, stacks),
                    is_new=bool(flags & layout.NEW),
                    device=int(record["device"]),
                    inode=int(record["inode"]),
                    file_offset=int(record["file_offset"]),
                    dirty_pages=int(record["dirty_pages"]),
                    ranges=tuple((int(r["start"]), int(r["end"])) for r in mine),
                )
            )
        lost = self._file.counter("census_ranges_lost") + self._file.counter("census_mappings_lost")
        return CensusReport(mappings, unknown, self._file.page_bytes, lost == 0, self._file.counter("census_faults"))

    def disarm(self) -> None:
        """Stops watching."""
        self._command(layout.CENSUS_DISARM)

    def _command(self, command: int) -> None:
        deadline = time.monotonic() + self._timeout_s
        while (state := self._file.census_state()[0]) == layout.CENSUS_STARTING and time.monotonic() < deadline:
            time.sleep(0.001)
        if state == layout.CENSUS_OFF:
            raise CensusUnavailable("the process was not started with UMO_SPY_CENSUS=1")
        status, reason, error = self._file.command(command, self._timeout_s)
        detail = f"{reason}: {os.strerror(error)}" if error else reason
        if status == layout.CENSUS_UNAVAILABLE:
            raise CensusUnavailable(detail)
        if status != layout.CENSUS_OK:
            raise CensusError(detail)


def _kind(flags: int, name: str, start: int, end: int, stacks: list[int]) -> str:
    if flags & layout.SHARED:
        return "shared"
    if name == "[heap]":
        return "heap"
    if name.startswith("[stack") or any(start <= pointer < end for pointer in stacks):
        return "stack"
    if flags & layout.FILE:
        return "data" if ".so" in name or os.access(name, os.X_OK) else "file"
    return "anonymous"
