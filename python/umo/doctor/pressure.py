"""What tells umo early that memory runs short."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator

from .. import paths
from . import Check, Finding
from .system import size
from .trial import Error

AREA = "memory pressure"
ANSWERS, SOURCES, GAUGES = 4, 9, 4
# What a source is for, and how to get one that is not there. Neither is a fault: one source is enough.
ABOUT = {
    "cgroup": ("usage against the limit of the container or service", "give the service a limit: MemoryMax=, --memory"),
    "physical": ("usage against the machine's memory", "mount /proc"),
    "budget": ("usage against umo's own budget", "Context(budget_bytes=), where umo is to have only a part of it"),
    "device": ("the working set of a device against its own budget", "nothing: few drivers tell it"),
    "threshold": ("cgroup v1 wakes umo when a mark is passed", "nothing on cgroup v2, which has `events`"),
    "events": ("cgroup v2 wakes umo at its limit", "a cgroup v2 with memory.events (systemd, cgroup_no_v1=memory)"),
    "reclaim": ("cgroup v1 tells when it has to reclaim", "nothing on cgroup v2, which has `stall`"),
    "stall": ("time lost waiting for memory (PSI)", "boot Linux 4.20 or later with psi=1; a container needs /proc"),
    "system": ("the system's own message", "nothing: only macOS has it"),
}  # fmt: skip


class Answer(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("count", "bytes", "suppressed", "last_ns"))


class Source(ctypes.Structure):
    _fields_ = (
        ("active", ctypes.c_bool), ("native", ctypes.c_int32), ("why", ctypes.c_char_p), ("events", ctypes.c_uint64),
        ("suppressed", ctypes.c_uint64), ("usage", ctypes.c_uint64), ("limit", ctypes.c_uint64),
    )  # fmt: skip


class Stats(ctypes.Structure):
    _fields_ = (
        ("level", ctypes.c_int), ("decisive", ctypes.c_int), ("usage", ctypes.c_uint64), ("limit", ctypes.c_uint64),
        ("budget_percent", ctypes.c_uint32), ("refusing", ctypes.c_bool), ("refused", ctypes.c_uint64),
        ("samples", ctypes.c_uint64), ("stages", ctypes.c_uint64), ("sampled_ns", ctypes.c_uint64),
        ("answer_max_ns", ctypes.c_uint64), ("answers", Answer * ANSWERS), ("sources", Source * SOURCES),
    )  # fmt: skip


def _stats(library: ctypes.CDLL) -> Stats | str:
    """The figures of a watch that lives for this moment, or why there is none."""
    scope, watch, error, stats = ctypes.c_void_p(), ctypes.c_void_p(), Error(), Stats()
    library.umo_pressure_poke.restype = ctypes.c_int
    status = library.umo_scope_create(None, b"doctor", ctypes.c_uint64(0), ctypes.byref(scope), ctypes.byref(error))
    if status == 0:
        status = library.umo_pressure_create(None, scope, ctypes.byref(watch), ctypes.byref(error))
    if status == 0:
        library.umo_pressure_poke(watch)
        library.umo_pressure_read(watch, ctypes.byref(stats))
        library.umo_pressure_destroy(watch)
    library.umo_scope_destroy(scope)
    return stats if status == 0 else error.text.decode(errors="replace")


def sources() -> Iterator[Finding]:
    library = ctypes.CDLL(str(paths.library()))
    for name in ("umo_pressure_source_name", "umo_pressure_level_name"):
        getattr(library, name).restype = ctypes.c_char_p
    stats = _stats(library)
    if isinstance(stats, str):
        means = "umo sees a shortage of memory only when an allocation fails"
        yield Finding(AREA, "watch", "fault", stats, means, "see what the message names: threads and files are limited")
        return
    level = library.umo_pressure_level_name(stats.level).decode()
    decisive = library.umo_pressure_source_name(stats.decisive).decode()
    used = f"{size(stats.usage)} of {size(stats.limit)}" if stats.limit else "no limit"
    yield Finding(
        AREA,
        "now",
        "good" if stats.level == 0 else "note",
        f"{level}, by {decisive}: {used}",
        "" if stats.level == 0 else "umo trims its pools and at last refuses requests",
        "" if stats.level == 0 else "end what holds memory, serve fewer models, or raise the limit",
    )
    for number in range(SOURCES):
        source, name = stats.sources[number], library.umo_pressure_source_name(number).decode()
        means, mend = ABOUT.get(name, ("", "see docs/pressure.md"))
        if source.active:
            limit = f": {size(source.usage)} of {size(source.limit)}" if source.limit else ""
            yield Finding(AREA, name, "good", f"active{limit}", means)
            continue
        why = (source.why or b"not there").decode()
        if source.native:
            why += f" ({os.strerror(source.native)})"
        if mend.startswith("nothing") or (number >= GAUGES and sys.platform == "darwin"):
            continue  # another system's way to say the same
        yield Finding(AREA, name, "missing", why, means, mend)


CHECKS: list[Check] = [sources]
