"""The recorder of another process, over the C API of recorder.h.

with Recorder(pid) as recorder:
    recorder.start()
    while ...:
        events = recorder.take()
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from .. import paths
from . import labels
from .model import EVENT, NONE

ROOM = 1 << 16
_NAMED = 1 << 12


class _Error(ctypes.Structure):
    _fields_ = [("status", ctypes.c_int), ("native", ctypes.c_int32), ("text", ctypes.c_char * 256)]


class _Stats(ctypes.Structure):
    _fields_ = [
        ("recording", ctypes.c_bool),
        ("ended", ctypes.c_bool),
        *((name, ctypes.c_uint64) for name in ("start_ns", "drained", "lost", "gaps", "names_lost")),
        *((name, ctypes.c_uint64) for name in ("capacity", "memory_bytes")),
    ]


# umo_profile_event: the fields of EVENT one after the other, then its two texts.
_C_EVENT = np.dtype(
    {
        "names": [*(EVENT.names or ()), "scope_name", "driver"],
        "formats": [*(EVENT[name] for name in EVENT.names or ()), "<u8", "<u8"],
        "offsets": [*((EVENT.fields or {})[name][1] for name in EVENT.names or ()), 80, 88],
        "itemsize": 96,
    }
)

OK, INVAL, NOMEM, UNSUPPORTED, NOT_FOUND, SYSTEM, REFUSED = 0, 1, 2, 4, 5, 8, 9


class RecorderError(Exception):
    """Why a process cannot be recorded, in one line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status

    @property
    def remedy(self) -> str:
        """What to do: the library's words, but for a process that is not there."""
        if self.status == NOT_FOUND:
            return "`pgrep -l tritonserver` lists the servers that run"
        from ..words import results

        return results()[self.status].remedy


@dataclass(frozen=True)
class Figures:
    recording: bool = False
    ended: bool = False
    start_ns: int = 0
    drained: int = 0
    lost: int = 0
    gaps: int = 0
    names_lost: int = 0
    capacity: int = 0
    memory_bytes: int = 0


def _load() -> ctypes.CDLL:
    library = ctypes.CDLL(str(paths.library()))
    if not hasattr(library, "umo_recorder_wait"):
        raise FileNotFoundError(f"the library is older than this package: {paths.library()}; build or install it again")
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.umo_recorder_open.argtypes = [ctypes.c_int64, ctypes.POINTER(pointer), ctypes.POINTER(_Error)]
    library.umo_recorder_start.argtypes = [pointer, size, ctypes.POINTER(_Error)]
    taken = ctypes.POINTER(size), ctypes.POINTER(_Stats)
    library.umo_recorder_wait.argtypes = [pointer, pointer, size, ctypes.c_uint64, *taken]
    library.umo_recorder_stop.argtypes = [pointer]
    library.umo_recorder_stop.restype = None
    library.umo_recorder_close.argtypes = [pointer]
    library.umo_recorder_close.restype = None
    library.umo_recorder_version.argtypes = [pointer]
    library.umo_recorder_version.restype = ctypes.c_char_p
    return library


def _clean(name: bytes) -> str:
    """What steers a terminal, and what is no UTF-8, as question marks: names may be anything."""
    return "".join(c if c.isprintable() else "?" for c in name.decode("utf-8", "replace").replace("\ufffd", "?"))


def _known(events: np.ndarray) -> np.ndarray:
    """Which events a file can hold: the process may be of a newer version, or hostile."""
    known = events["time_ns"] < np.uint64(1 << 63)
    for field, name in labels.FIELDS.items():
        numbers = events[field]
        fine = numbers < len(labels.words(name))
        known &= fine | (numbers == NONE) if field.startswith("mode") else fine
    return known


class Recorder:
    """Raises RecorderError where the process cannot be looked at, FileNotFoundError where libumo is missing."""

    def __init__(self, pid: int) -> None:
        self._library = _load()
        self._handle = ctypes.c_void_p()
        self._room = np.empty(ROOM, _C_EVENT)  # touched as far as it is needed only
        self._stats = _Stats()
        self.figures = Figures()
        self.taken = 0  # by the last take(), those that cannot be kept among them; ROOM: there is more
        self._unknown = 0
        self.scopes: dict[int, str] = {}
        self.devices: dict[int, str] = {}
        # Numbers that have their name already, or need none: nearly all that ever come.
        self._seen = {what: np.arange(_NAMED) == 0 for what in ("scope", "device")}
        error = _Error()
        if not -(1 << 63) <= pid < 1 << 63:
            pid = 0
        status = self._library.umo_recorder_open(pid, ctypes.byref(self._handle), ctypes.byref(error))
        if status != OK:
            raise RecorderError(status, error.text.decode("utf-8", "replace"))
        self.version = self._library.umo_recorder_version(self._handle).decode("ascii", "replace")

    def start(self, memory_bytes: int = 0) -> None:
        error = _Error()
        status = self._library.umo_recorder_start(self._handle, memory_bytes, ctypes.byref(error))
        if status != OK:
            raise RecorderError(status, error.text.decode("utf-8", "replace"))

    def _names(self, events: np.ndarray, number: str, text: str, names: dict[int, str]) -> list[tuple[str, int, str]]:
        new: list[tuple[str, int, str]] = []
        numbers = events[number]
        seen = self._seen[number]
        few = numbers < len(seen)
        if few.all() and seen[numbers].all():
            return new
        values, rows = np.unique(numbers, return_index=True)
        for value, row in zip(values.tolist(), rows.tolist(), strict=True):
            if value != 0 and value not in names:
                name = ctypes.string_at(int(events[text][row]))
                if name:
                    names[value] = _clean(name)
                    new.append((number, value, names[value]))
                    if value < len(seen):
                        seen[value] = True
        return new

    def _figure(self) -> None:
        figures = {name: getattr(self._stats, name) for name, _ in _Stats._fields_}
        figures["lost"] += self._unknown
        self.figures = Figures(**figures)

    def take(self, wait_s: float = 0.0) -> tuple[np.ndarray, list[tuple[str, int, str]]]:
        """The next events, at most some tens of thousands, and the names that came with them.

        With wait_s (at most an hour), those of so long from now on, or until the process ends or there are too many.
        """
        count = ctypes.c_size_t()
        status = self._library.umo_recorder_wait(
            self._handle,
            self._room.ctypes.data,
            ROOM,
            int(max(0.0, min(wait_s, 3600.0)) * 1e9),
            ctypes.byref(count),
            ctypes.byref(self._stats),
        )
        if status != OK:
            words = "the process has no memory or no file left to record in"
            raise RecorderError(status, f"{words}; ask for less with --memory, or raise its limit of open files")
        self._figure()
        self.taken = count.value
        if count.value == 0:
            return np.empty(0, EVENT), []
        raw = self._room[: count.value]
        rows = raw.view(np.uint8).reshape(count.value, _C_EVENT.itemsize)[:, : EVENT.itemsize]
        events = rows.copy().view(EVENT).reshape(count.value)
        names = self._names(raw, "scope", "scope_name", self.scopes)
        known = _known(events)
        if not known.all():  # lost to those who read the file
            self._unknown += len(events) - int(known.sum())
            self._figure()
            events = events[known]
        return events, names + self._names(raw, "device", "driver", self.devices)

    def stop(self) -> None:
        self._library.umo_recorder_stop(self._handle)

    def close(self) -> None:
        self._library.umo_recorder_close(self._handle)
        self._handle = ctypes.c_void_p()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
