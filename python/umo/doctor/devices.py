"""Drivers and devices: which are there, what they can do, and whether what they do is right.

Each driver is opened in a process of its own (trial.py): one that breaks or hangs is a finding.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from . import Check, Finding, State
from .system import read, size

AREA = "devices"
DEV, PCI, ICDS = Path("/dev"), Path("/sys/bus/pci/devices"), Path("/etc/OpenCL/vendors")
REMEMBERED_DAYS = 30
PATIENCE_S = 60.0  # a first kernel's compilation takes seconds on a busy machine
VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel", "0x13b5": "Arm", "0x106b": "Apple"}
PACKAGES = {
    "NVIDIA": "NVIDIA's driver, with libnvidia-opencl1 (Debian) or nvidia-opencl-icd; in a container: --gpus all and "
    "NVIDIA_DRIVER_CAPABILITIES=all",
    "AMD": "mesa-opencl-icd with RUSTICL_ENABLE=radeonsi, or ROCm's rocm-opencl-icd; in a container: --device /dev/dri "
    "--device /dev/kfd",
    "Intel": "intel-opencl-icd; in a container: --device /dev/dri",
}
ANY_PACKAGE = "the OpenCL package (ICD) of its maker"
REPORT = "another version of its driver; please report it with the output of `umo doctor --json`"


class Driver:
    """What trial.py said of one driver, as far as it came."""

    def __init__(self, name: str, patience_s: float | None = None) -> None:
        self.name = name
        self.lines: list[dict[str, Any]] = []
        self.broke = ""
        command = [sys.executable, "-m", "umo.doctor.trial", name]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        waited = PATIENCE_S if patience_s is None else patience_s
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            errors="replace",
        ) as process:
            try:
                said, complaint = process.communicate(timeout=waited)
            except subprocess.TimeoutExpired:
                process.kill()
                said, complaint = process.communicate()
                self.broke = f"no answer within {waited:g} s"
        for line in said.splitlines():
            try:
                said_so = json.loads(line)
            except ValueError:  # a driver's own words
                continue
            if isinstance(said_so, dict):  # and a number or null may be such words too
                self.lines.append(said_so)
        if not self.broke and process.returncode < 0:
            self.broke = f"ended by {_signal_name(-process.returncode)}"
        elif not self.broke and process.returncode:
            self.broke = (complaint.strip().splitlines() or ["it ended early"])[-1][:200]

    def first(self, key: str) -> Any:
        return next((line[key] for line in self.lines if key in line), None)

    @property
    def step(self) -> str:
        """What it was about to do."""
        return next((line["step"] for line in reversed(self.lines) if "step" in line), "start")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


def drivers() -> Iterator[Finding]:
    again = "install umo again, or run `make build`"
    yield from _driver(Driver("host"), lambda _: (again, "fault"))
    opencl = Driver("opencl")
    yield from _driver(opencl, _no_opencl)
    if sys.platform == "darwin":
        virtual = "macOS 13 or later has it; a virtual machine may have none"
        yield from _driver(Driver("metal"), lambda _: (virtual, "missing"))
    else:
        yield Finding(AREA, "driver metal", "missing", "Metal is part of macOS", mend="nothing, on this system")
        yield from unseen(opencl)


def _no_opencl(text: str) -> tuple[str, State]:
    """The library's own text names the packages; here only what it cannot know."""
    named = os.environ.get("OCL_ICD_VENDORS")
    if named:
        return (
            f"OCL_ICD_VENDORS={named} is set: unset it, or have it name a folder with the .icd file of a driver",
            "missing",
        )
    broken = [icd for icd, library in _icds() if library.startswith("/") and not Path(library).exists()]
    if broken:
        return f"{broken[0]} names a library that is not there: install that driver again", "missing"
    return text.partition(": ")[2] or "install pocl-opencl-icd (any CPU), or the ICD of your GPU", "missing"


def _folder() -> Path:
    named = Path(os.environ.get("OCL_ICD_VENDORS") or ICDS)
    return named if named.is_dir() else ICDS


def _icds() -> Iterator[tuple[Path, str]]:
    for file in sorted(_folder().glob("*.icd")):
        yield file, (read(file) or "").partition("\n")[0].strip()


def _driver(driver: Driver, remedy: Callable[[str], tuple[str, State]]) -> Iterator[Finding]:
    name, title = driver.name, f"driver {driver.name}"
    if driver.broke and driver.first("count") is None:
        yield _broken(driver, title)
        return
    text, count = driver.first("none"), driver.first("count")
    if not count:
        mend, state = remedy(text or "")
        means = (
            "kernels and device memory are the processor's alone" if name == "opencl" else "nothing works without it"
        )
        yield Finding(AREA, title, state, text or "it has no device", means, mend)
        return
    yield _broken(driver, title) if driver.broke else Finding(AREA, title, "good", f"{count} device{'s' * (count > 1)}")
    for number in range(count):
        said = [line for line in driver.lines if line.get("device") == f"{name}:{number}"]
        facts = next((line for line in said if "facts" in line), None)
        if facts is not None:
            yield _facts(f"{name}:{number}", facts["facts"], facts["modes"])
        yield from _tried(f"{name}:{number}", said)


def _broken(driver: Driver, title: str) -> Finding:
    if driver.name == "opencl":
        libraries = ", ".join(library for _, library in _icds())
        mend = f"remove, or replace by another version, what {_folder()} names ({libraries or 'nothing'})"
    else:
        mend = "install umo again, or run `make build`"
    means = "a server that opens this driver may end in the same way"
    return Finding(AREA, title, "fault", f"{driver.broke}, at: {driver.step}", means, mend)


def _facts(name: str, info: dict[str, Any], modes: list[str]) -> Finding:
    memory = size(info["memory_bytes"]) if info["memory_bytes"] else "memory of unknown size"
    place = "one memory with the host" if info["unified"] else "memory of its own"
    found = f"{info['name'].strip()}, {place}, {memory}, buffers up to {size(info['buffer_max_bytes'])}"
    binds = info["import_read"] and info["import_write"]
    align, length = info["import_align_bytes"], info["import_size_align_bytes"]
    if not binds:
        means = "host memory cannot be bound: every tensor is copied to it and back"
    elif align == 1 and length == 1:
        means = "binds host memory at any address"
    else:
        means = f"binds host memory at multiples of {align:,} bytes, in lengths that are multiples of {length:,}"
    means += f"; storage modes: {', '.join(modes)}"
    if not info["coherent"]:
        means += "; what one side writes is published to the other"
    if not info["kernels"]:
        means += "; runs no kernels"
    return Finding(AREA, f"device {name}", "good", found, means)


def _tried(name: str, said: list[dict[str, Any]]) -> Iterator[Finding]:
    title = f"work of {name}"
    for line in said:
        if "fault" in line:
            means = "answers from this device would be wrong, or none"
            yield Finding(
                AREA, title, "fault", line["fault"], means, f"do not serve with this device, or take {REPORT}"
            )
            return
        if "refused" in line:
            reason = line["reason"]
            means = f"this memory would be copied (reason {reason})"
            yield Finding(
                AREA, f"binding on {name}", "note", line["refused"], means, f"`umo explain {reason}` says how"
            )
    done = {line["done"]: line["bytes"] for line in said if "done" in line}
    words = {
        "moved": "to it and back",
        "computed": "filled and gathered by its kernels",
        "bound": "written by it into this process's memory",
    }
    if done:
        did = ", ".join(f"{size(done[what])} {text}" for what, text in words.items() if what in done)
        yield Finding(AREA, title, "good", did, "every byte compared")


def unseen(listed: Driver) -> Iterator[Finding]:
    """GPUs that the system has, and whether a driver sees them."""
    gpus = sorted(set(_gpus()))
    known = " ".join(str(line["facts"]["name"]) for line in listed.lines if "facts" in line).lower()
    # A device's name seldom has its maker's; whatever is not the processor counts as one of the GPUs.
    others = any(not line["facts"]["host_processor"] for line in listed.lines if "facts" in line)
    for maker, where in gpus:
        if others or maker.lower() in known:
            yield Finding(AREA, f"GPU of {maker}", "good", where, "a driver sees a device beside the processor")
        else:
            yield Finding(
                AREA,
                f"GPU of {maker}",
                "missing",
                f"{where}, and no driver of umo's sees it",
                "models run on the processor",
                f"install {PACKAGES.get(maker, ANY_PACKAGE)}" + _forbidden(),
            )


def _forbidden() -> str:
    nodes = sorted((DEV / "dri").glob("renderD*"))
    shut = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    return f"; {shut[0]} is not yours to open: join its group (render or video)" if shut else ""


def _gpus() -> Iterator[tuple[str, str]]:
    """(maker, where it was seen)."""
    seen = set()
    for device in sorted(PCI.glob("*")):
        # A display controller with a maker that is known: a virtual screen is no GPU.
        vendor = VENDORS.get(read(device / "vendor") or "")
        if (read(device / "class") or "").startswith("0x03") and vendor:
            seen.add(vendor)
            yield vendor, f"PCI {device.name}"
    if "NVIDIA" not in seen and any(re.fullmatch(r"nvidia\d+", node.name) for node in DEV.glob("nvidia*")):
        seen.add("NVIDIA")
        yield "NVIDIA", "/dev/nvidia*"
    if not seen and (DEV / "mali0").exists():
        yield "Arm", "/dev/mali0"
        seen.add("Arm")
    if not seen and any((DEV / "dri").glob("renderD*")):
        yield "an unknown maker", "/dev/dri"


def _cache() -> Path | None:
    """As umo_os_cache_dir(): a relative XDG_CACHE_HOME does not count."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    if named.startswith("/"):
        return Path(named) / "umo"
    home = os.environ.get("HOME", "")
    if not home.startswith("/"):
        return None
    return Path(home) / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "umo"


def calibration() -> Iterator[Finding]:
    name, means = "calibration", "what uses, moves and bindings cost decides where memory is placed"
    wish = os.environ.get("UMO_CALIBRATION")
    if wish == "off":
        mend = "unset it"
        yield Finding(AREA, name, "note", "UMO_CALIBRATION=off", f"{means}; it is assumed, not measured", mend)
        return
    folder = _cache()
    if folder is None:
        mend = "set HOME or XDG_CACHE_HOME"
        yield Finding(
            AREA, name, "note", "no folder to keep it in", f"each process measures anew (80 ms); {means}", mend
        )
        return
    parent = folder
    while not parent.exists() and parent != parent.parent:
        parent = parent.parent
    if not os.access(parent, os.W_OK | os.X_OK) or not parent.is_dir():
        mend = "make it writable, or name another with XDG_CACHE_HOME"
        found = f"{parent} cannot be written"
        yield Finding(AREA, name, "note", found, f"each process measures anew (80 ms); {means}", mend)
        return
    files = list(folder.glob("calibration-*.txt"))
    if not files:
        found = "none yet: the first server that places memory measures each device for 80 ms"
        yield Finding(AREA, name, "good", found, means)
        return
    ages = sorted(time.time() - file.stat().st_mtime for file in files)
    days = (
        f"{ages[0] / 86400:.0f} to {ages[-1] / 86400:.0f} days old"
        if len(ages) > 1
        else f"{ages[0] / 86400:.0f} days old"
    )
    found = f"{len(files)} device{'s' if len(files) > 1 else ''}, {days}, in {folder}"
    yield Finding(AREA, name, "good", found, f"{means}; measured anew after {REMEMBERED_DAYS} days")


CHECKS: list[Check] = [drivers, calibration]
