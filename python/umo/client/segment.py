"""A piece of shared memory of this process, and the name that tells whose it is.

The name of its region at a server carries the pid, the start time and the pid namespace: together they name one process
until the next boot, so anybody who can see that process can tell whether the region was left behind. The key, by which
a server opens the memory, is short (some systems take 30 characters) and cannot be guessed: a server that opened it has
looked into the same folder as we, so it is on this machine and may share memory with us.

What differs between systems is in `_System`: everything else in umo.client is the same everywhere.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import functools
import mmap
import os
import re
import secrets
import subprocess
import sys
import time
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

try:
    import _posixshmem  # what multiprocessing.shared_memory stands on; not there on Windows
except ImportError:  # pragma: no cover
    _posixshmem = None  # type: ignore[assignment]

_NAME = re.compile(r"^umo-(\d+)-(\d+)-(\d+)-[0-9a-f]{16}$")
_KEY_PREFIX = "umo."
_LEFT_BEHIND_S = 60.0

HUGE = 2 << 20  # bytes of a large page, where small ones have 4 KiB
_HUGE_PAGES = os.environ.get("UMO_CLIENT_HUGE_PAGES", "1").lower() not in ("0", "off", "false")
_MAP_FIXED = 0x10
_MADV_COLLAPSE = 25
_MAP_FAILED = ctypes.c_void_p(-1).value


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return libc


class _System:
    """What POSIX leaves open, for a system that has neither /proc nor /dev/shm (macOS)."""

    folder: Path | None = None  # where unlinked segments would show, if anywhere

    def started(self, pid: int) -> int | None:
        """When a process started: here in seconds, as in C. None: it is not there, or not to be seen."""
        command = ["ps", "-o", "lstart=", "-p", str(pid)]
        said = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
        try:
            return int(time.mktime(time.strptime(said.stdout.strip(), "%a %b %d %H:%M:%S %Y")))
        except (ValueError, OverflowError):
            return None

    def namespace(self) -> int:
        """Of process ids; 0 where there is one only."""
        return 0

    def commit(self, file: int, offset: int, size: int) -> None:
        """Makes sure that the memory is there. Raises OSError when it is not; here a write would wait instead."""

    def enlarge(self, file: int, offset: int, size: int) -> None:
        """Gives a range of memory that is there larger pages, where the system can. HUGE bytes, or a multiple."""

    def drop(self, memory: mmap.mmap) -> None:
        """Gives the memory back although it is mapped; it reads as zeros from now on."""


class _Linux(_System):
    folder = Path("/dev/shm")

    def started(self, pid: int) -> int | None:
        try:
            return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])
        except (OSError, IndexError, ValueError):
            return None

    def namespace(self) -> int:
        with contextlib.suppress(OSError):
            return os.stat("/proc/self/ns/pid").st_ino
        return 0

    def commit(self, file: int, offset: int, size: int) -> None:
        # A full /dev/shm is an error here, and would be a SIGBUS later.
        os.posix_fallocate(file, offset, size)

    def enlarge(self, file: int, offset: int, size: int) -> None:
        # Works on shared memory whatever the system's settings for huge pages are, but only through a mapping that
        # lies in step with the file: one for the purpose, since those of Python's mmap lie anywhere.
        libc = _libc()
        place = libc.mmap(None, size + HUGE, 0, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        if place == _MAP_FAILED:
            return
        start = place + -place % HUGE
        both = mmap.PROT_READ | mmap.PROT_WRITE
        if libc.mmap(start, size, both, mmap.MAP_SHARED | _MAP_FIXED, file, offset) == start:
            libc.madvise(start, size, _MADV_COLLAPSE)  # Linux 6.1; else small pages stay
        libc.munmap(place, size + HUGE)

    def drop(self, memory: mmap.mmap) -> None:
        with contextlib.suppress(OSError, ValueError):
            memory.madvise(mmap.MADV_REMOVE)


SYSTEM: _System = _Linux() if sys.platform == "linux" else _System()


@dataclass(frozen=True)
class Owner:
    """The process that a region's name names."""

    pid: int
    started: int
    namespace: int

    @classmethod
    def of(cls, name: str) -> Owner | None:
        """None for a name that is not one of ours."""
        found = _NAME.match(name)
        return cls(*(int(part) for part in found.groups())) if found else None

    def is_dead(self) -> bool:
        """Certainly: a process that cannot be seen from here counts as alive."""
        if self.namespace != SYSTEM.namespace():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        started = SYSTEM.started(self.pid)
        return started is not None and started != self.started


@functools.cache
def _ourselves(pid: int) -> str:
    return f"umo-{pid}-{SYSTEM.started(pid) or 0}-{SYSTEM.namespace()}"


def unavailable() -> str:
    """Why this process cannot have segments; empty when it can."""
    if _posixshmem is None:
        return "this Python has no POSIX shared memory"
    return ""


class Segment:
    """Shared memory, all of it reserved and none of it taken until commit().

    `hide()` removes it from the file system: who has it mapped keeps it, nobody else can open it, and nothing is left
    when all of them die. Raises OSError when there is no room for it.
    """

    def __init__(self, size: int) -> None:
        if reason := unavailable():
            raise OSError(errno.ENOSYS, reason)
        self.size = size
        self.name = f"{_ourselves(os.getpid())}-{secrets.token_hex(8)}"
        # The pid is for whoever finds what a process left that died before hide().
        self.key = f"/{_KEY_PREFIX}{os.getpid()}.{secrets.token_hex(8)}"[:30]
        self._file = _posixshmem.shm_open(self.key, os.O_CREAT | os.O_EXCL | os.O_RDWR, mode=0o600)
        self._visible = True
        self._begun: dict[int, int] = {}  # large pages of which a part has memory: its bytes
        _segments.add(self)
        try:
            os.ftruncate(self._file, size)
            self.memory = mmap.mmap(self._file, size)
            self.address = int(np.frombuffer(self.memory, np.uint8).__array_interface__["data"][0])
        except BaseException:
            self.hide()
            self.close_file()
            raise

    def commit(self, offset: int, size: int) -> None:
        """Takes memory for a range that has none yet. Raises OSError when there is none.

        A large page becomes one as soon as all of it is taken: an engine's pass over memory is up to twice as fast.
        """
        SYSTEM.commit(self._file, offset, size)
        if not _HUGE_PAGES:
            return
        end = offset + size
        whole = range(-(-offset // HUGE), end // HUGE)
        if whole:
            SYSTEM.enlarge(self._file, whole.start * HUGE, len(whole) * HUGE)
        for page in {offset // HUGE, (end - 1) // HUGE}.difference(whole):
            here = min(end, (page + 1) * HUGE) - max(offset, page * HUGE)
            self._begun[page] = self._begun.get(page, 0) + here
            if self._begun[page] == HUGE:
                SYSTEM.enlarge(self._file, page * HUGE, HUGE)

    def hide(self) -> None:
        """Removes the name; a second call does nothing."""
        if self._visible:
            self._visible = False
            with contextlib.suppress(OSError):
                _posixshmem.shm_unlink(self.key)

    def drop(self) -> None:
        """Gives the memory back at once, whoever has it mapped."""
        SYSTEM.drop(self.memory)

    def close_file(self) -> None:
        """No more commit(); what is mapped stays."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def disown(self) -> None:
        """After a fork, in the child: the name is the parent's to remove."""
        self._visible = False

    def __del__(self) -> None:
        """Closes the file; the memory stays while somebody has an array in it."""
        if hasattr(self, "_file"):
            self.hide()
            self.close_file()


_segments: weakref.WeakSet[Segment] = weakref.WeakSet()


@atexit.register
def _hide_all() -> None:
    """What no server was told of yet."""
    for one in _segments:
        one.hide()


def disown_all() -> None:
    """In a child, after a fork."""
    for one in _segments:
        one.disown()


def sweep() -> int:
    """Removes the segments of this user's processes that died before they could hide them. Returns how many."""
    removed = 0
    if SYSTEM.folder is None:
        return 0
    for path in SYSTEM.folder.glob(f"{_KEY_PREFIX}*.*"):
        pid = path.name[len(_KEY_PREFIX) :].split(".", 1)[0]
        # They are hidden at once. What is young may be of a process that cannot be seen from here.
        with contextlib.suppress(OSError, ValueError):
            entry = path.stat()
            old = time.time() - entry.st_mtime > _LEFT_BEHIND_S
            if old and entry.st_uid == os.getuid() and SYSTEM.started(int(pid)) is None:
                path.unlink()
                removed += 1
    return removed
