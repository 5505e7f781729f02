"""The system: processor, pages, memory and limits, pressure, nodes."""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from .. import paths
from . import Check, Finding
from .trial import Error

AREA = "system"
NODES = Path("/sys/devices/system/node")


def read(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


def size(count: float) -> str:
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def kernel_version() -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def machine() -> Iterator[Finding]:
    what = f"{platform.system()} {platform.release()} on {platform.machine()}, {os.cpu_count()} processors"
    if sys.platform in ("linux", "darwin"):
        yield Finding(AREA, "machine", "good", what)
    else:
        yield Finding(
            AREA, "machine", "fault", what, "umo is written for Linux and macOS", "use one of them, or a container"
        )


def pages() -> Iterator[Finding]:
    page = mmap.PAGESIZE
    means = "devices bind whole pages: tensors that begin on a page boundary are never copied for their place"
    yield Finding(AREA, "page size", "good", size(page), means)
    shared = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled")
    chosen = re.search(r"\[(\w+)\]", shared or "")
    if chosen:
        good = chosen[1] not in ("never", "deny")
        yield Finding(
            AREA,
            "huge pages of shared memory",
            "good" if good else "note",
            chosen[1],
            "clients' large tensors take fewer page faults and misses with them; no copy depends on it",
            "" if good else "as root: echo advise > /sys/kernel/mm/transparent_hugepage/shmem_enabled",
        )


def _meminfo() -> dict[str, int]:
    rows = re.findall(r"^(\w+):\s+(\d+) kB", read("/proc/meminfo") or "", re.MULTILINE)
    return {name: int(kilobytes) * 1024 for name, kilobytes in rows}


def _cgroup_limit() -> int | None:
    """The smallest memory.max from this process's group up to the root."""
    for line in (read("/proc/self/cgroup") or "").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            base, file = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            base, file = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        folder, limits = base / path.lstrip("/"), []
        while folder == base or base in folder.parents:
            text = read(folder / file)
            if text and text.isdigit() and int(text) < 1 << 60:
                limits.append(int(text))
            folder = folder.parent
        if limits:
            return min(limits)
    return None


def memory() -> Iterator[Finding]:
    if sys.platform == "darwin":
        total = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE
        yield Finding(AREA, "memory", "good", size(total))
        return
    figures = _meminfo()
    total, free = figures.get("MemTotal", 0), figures.get("MemAvailable", 0)
    scarce = total > 0 and free < total // 10
    yield Finding(
        AREA,
        "memory",
        "note" if scarce else "good",
        f"{size(total)}, {size(free)} of it available",
        "under pressure umo trims its pools and, at last, refuses requests" if scarce else "",
        "end what holds memory, or serve fewer models here" if scarce else "",
    )
    limit = _cgroup_limit()
    if limit is not None:
        yield Finding(AREA, "memory limit", "good", size(limit), "of the container or service; umo watches it")
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    enough = locked == resource.RLIM_INFINITY or locked >= 64 << 20
    yield Finding(
        AREA,
        "page-locked memory",
        "good" if enough else "note",
        "no limit" if locked == resource.RLIM_INFINITY else size(locked),
        "" if enough else "pinned buffers beyond this are refused",
        "" if enough else "ulimit -l unlimited, LimitMEMLOCK= of the service, or --ulimit memlock=-1 of the container",
    )


def numbers(text: str | None) -> list[int]:
    """A list as the kernel writes it: "0-2,5". Empty for what is none."""
    found: list[int] = []
    for part in (text or "").split(","):
        ends = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if ends is None:
            return []
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return found


def _node(number: int) -> str:
    folder = NODES / f"node{number}"
    total = re.search(r"MemTotal:\s+(\d+) kB", read(folder / "meminfo") or "")
    processors = read(folder / "cpulist")
    words = [size(int(total[1]) * 1024) if total and int(total[1]) else "no memory"]
    words.append(f"processors {processors}" if processors else "no processors")
    return f"{number}: {', '.join(words)}"


def _placing(node: int) -> Finding:
    """Whether this process may say where its memory lies, tried on a page of its own."""
    library = ctypes.CDLL(str(paths.library()))
    library.umo_numa_bind.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_int, ctypes.c_void_p]
    page, error = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), Error()
    start = ctypes.c_char.from_buffer(page)
    status = library.umo_numa_bind(ctypes.addressof(start), mmap.PAGESIZE, node, 0, ctypes.byref(error))
    del start
    page.close()
    if status == 0:
        means = "memory is put on the node of the threads that use it, and follows them"
        return Finding(AREA, "NUMA placement", "good", "allowed", means)
    return Finding(
        AREA,
        "NUMA placement",
        "note",
        error.text.decode(errors="replace"),
        "memory stays on the node where it is first touched, and is slower to reach from the others",
        "--cap-add SYS_NICE (Docker), or a seccomp profile that allows mbind and move_pages",
    )


def nodes() -> Iterator[Finding]:
    online = numbers(read(NODES / "online"))
    if not online:
        return
    yield Finding(
        AREA,
        "NUMA nodes",
        "good",
        "; ".join(_node(number) for number in online),
        "" if len(online) > 1 else "all memory is equally near: nothing is to be placed",
    )
    if len(online) == 1:
        return
    rows = [f"{number}: {distances}" for number in online if (distances := read(NODES / f"node{number}" / "distance"))]
    if rows:
        means = "10 is a node's own memory; one at 20 counts as twice as slow"
        yield Finding(AREA, "NUMA distances", "good", "; ".join(rows), means)
    listed = re.search(r"^Mems_allowed_list:\t(.*)$", read("/proc/self/status") or "", re.MULTILINE)
    allowed = [number for number in numbers(listed[1]) if number in online] if listed else online
    if allowed and allowed != online:
        means = "the cpuset of this container or service leaves the others out; a node there cannot be asked for"
        yield Finding(AREA, "NUMA nodes allowed", "good", ", ".join(map(str, allowed)), means)
    if len(allowed) > 1:
        yield _placing(allowed[0])
    balancing = read("/proc/sys/kernel/numa_balancing")
    if balancing is not None:
        means = "the kernel moves pages too, after faults that it makes for it" if balancing != "0" else ""
        yield Finding(AREA, "NUMA balancing", "good", "off" if balancing == "0" else "on", means)


def recording() -> Iterator[Finding]:
    scope = read("/proc/sys/kernel/yama/ptrace_scope")
    if scope == "3":
        yield Finding(
            AREA,
            "looking into processes",
            "missing",
            "yama ptrace_scope is 3",
            "`umo prove` cannot count what another process copies",
            "sysctl kernel.yama.ptrace_scope=1 and a restart (3 cannot be undone while the system runs)",
        )


CHECKS: list[Check] = [machine, pages, memory, nodes, recording]
