"""The system: processor, pages, memory and limits, pressure, nodes."""

from __future__ import annotations

import mmap
import os
import platform
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

from . import Check, Finding

AREA = "system"


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


def nodes() -> Iterator[Finding]:
    online = read("/sys/devices/system/node/online")
    if online is None:
        return
    many = online != "0"
    yield Finding(
        AREA,
        "NUMA nodes",
        "good",
        online,
        "memory lies on the node of the thread that first touches it; `numactl` decides for the server" if many else "",
    )


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
