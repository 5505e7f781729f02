#!/usr/bin/python3
"""A machine of several NUMA nodes, emulated: runs commands of this one in it and gives their output and exit status.

    tests/numa/machine.py [--kind KIND] [--timeout SECONDS] [--append WORDS] [--urgent] -- COMMAND [ARGUMENT...]

  two   two processors, two nodes, distances 10 and 31
  hmat  the same, firmware's figures of latency and bandwidth, and a third node of memory alone, next to node 1
  bare  two processors, two nodes, and all memory on node 0

The kernel is Debian's for clouds, out of its package and never installed (kept under build/numa); user space is busybox
and the programs with the libraries that they need, each at the path that it has here. QEMU emulates the processors
(TCG), so nothing of this machine is needed: no KVM, no root, no second node. What is measured there are places and
counts, never speed.

Exit status: the command's; 124 when time was up; 125 when there was no machine, with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "build" / "numa"
KERNEL_PACKAGE = "linux-image-cloud-amd64"  # depends on the one that has the kernel
QEMU = "qemu-system-x86_64"
BUSYBOX = "/bin/busybox"
TIMEOUT_S = 60.0
NODE_MIB = 384
TIME_UP = 124
NO_MACHINE = 125

# Latencies in ns and bandwidths in MB/s, from a node with processors to one with memory.
HMAT_FIGURES = {
    (0, 0): (10, 20480),
    (0, 1): (30, 5120),
    (0, 2): (200, 1024),
    (1, 0): (30, 5120),
    (1, 1): (10, 20480),
    (1, 2): (120, 2048),
}


class Missing(Exception):
    """There can be no such machine here; the text says why."""


class TimeUp(Exception):
    """The commands did not end in time; the text is what was said until then."""


@dataclass(frozen=True)
class Ran:
    """What one command said (both outputs, in their order) and its exit status."""

    output: str
    status: int


# --- what it consists of ------------------------------------------------------------------------------------------


def _said(command: Sequence[str], **more: object) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **more)  # type: ignore[call-overload]
    if ran.returncode != 0:
        reason = (ran.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise Missing(f"`{shlex.join(command)}` failed: {reason}")
    return str(ran.stdout)


def kernel() -> Path:
    """Debian's kernel, fetched once."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = sorted(CACHE.glob("boot/vmlinuz-*"))
        if found:
            return found[-1]
        for tool in ("apt-get", "dpkg-deb"):
            if shutil.which(tool) is None:
                raise Missing(f"there is no {tool} to fetch the machine's kernel with")
        named = re.search(r"Depends: (linux-image-\S+)", _said(["apt-cache", "depends", KERNEL_PACKAGE]))
        if named is None:
            raise Missing(f"apt knows no kernel under {KERNEL_PACKAGE}: apt-get update?")
        with tempfile.TemporaryDirectory(dir=CACHE) as folder:
            _said(["apt-get", "download", named[1]], cwd=folder)
            (package,) = Path(folder).glob("*.deb")
            _said(["sh", "-c", 'dpkg-deb --fsys-tarfile "$1" | tar -x ./boot', "sh", str(package)], cwd=folder)
            Path(folder, "boot").rename(CACHE / "boot")
        return sorted(CACHE.glob("boot/vmlinuz-*"))[-1]


def kernel_option(name: str) -> str:
    """ "y", "m" or a value of the kernel's configuration; empty where it is not set."""
    config = kernel().with_name(kernel().name.replace("vmlinuz", "config")).read_text()
    found = re.search(rf"^CONFIG_{name}=(.*)$", config, re.MULTILINE)
    return found[1].strip('"') if found else ""


def _libraries(program: Path) -> Iterable[Path]:
    """What the loader loads for a program; nothing for a script or one that is linked statically."""
    ran = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
    for line in ran.stdout.splitlines():
        if "not found" in line:
            raise Missing(f"{program.name} needs {line.split()[0]}, which is not here")
        found = re.search(r"(/\S+) \(0x", line)
        if found:
            yield Path(found[1])


class Archive:
    """A cpio archive as the kernel unpacks it (the form "newc")."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.names: set[str] = set()

    def _entry(self, name: str, mode: int, content: bytes) -> None:
        if name in self.names:
            return
        self.names.add(name)
        path = name.encode() + b"\0"
        fields = (len(self.names), mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(path), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + path
        self.parts += [head, bytes(-len(head) % 4), content, bytes(-len(content) % 4)]

    def folder(self, path: Path) -> None:
        for parent in [*reversed(path.parents), path]:
            if parent.name:
                self._entry(str(parent).lstrip("/"), stat.S_IFDIR | 0o755, b"")

    def file(self, path: Path, content: bytes, mode: int = 0o755) -> None:
        self.folder(path.parent)
        self._entry(str(path).lstrip("/"), stat.S_IFREG | mode, content)

    def close(self) -> bytes:
        self._entry("TRAILER!!!", 0, b"")
        return b"".join(self.parts)


INIT = f"""#!{BUSYBOX} sh
{BUSYBOX} mkdir -p /proc /sys /dev /tmp /bin /sbin /usr/bin /usr/sbin
{BUSYBOX} --install -s
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm
mount -t tmpfs tmpfs /dev/shm
export HOME=/tmp PATH=/bin:/sbin:/usr/bin:/usr/sbin
exec >/dev/ttyS1 2>&1 </dev/null
stty -F /dev/ttyS1 raw
cd /tmp
for command in /commands/*; do
    echo "@@begin $command"
    sh $command
    echo "@@end $command $?"
done
echo "@@done"
poweroff -f
"""


def initramfs(commands: Sequence[Sequence[str]], files: Sequence[Path]) -> bytes:
    """Holds the commands' programs, their libraries and further files, at the paths that they have here."""
    archive = Archive()
    archive.file(Path("/init"), INIT.encode())
    archive.file(Path(BUSYBOX), Path(BUSYBOX).read_bytes())
    for number, command in enumerate(commands):
        archive.file(Path(f"/commands/{number:03}"), (shlex.join(command) + "\n").encode())
    programs = [Path(word) for command in commands for word in command if word.startswith("/")]
    for path in [*programs, *files]:
        if path.is_file():
            archive.file(path, path.read_bytes(), path.stat().st_mode & 0o777)
            for library in _libraries(path):
                archive.file(library, library.resolve().read_bytes())
    return archive.close()


def _memory(node: int, mib: int, more: str = "") -> list[str]:
    backend = f"memory-backend-ram,id=m{node},size={mib}M"
    return ["-object", backend, "-numa", f"node,nodeid={node},memdev=m{node}{more}"]


def hardware(kind: str) -> list[str]:
    """What QEMU is told of processors, memory and nodes."""
    distance = ["-numa", "dist,src=0,dst=1,val=31"]
    if kind == "two":
        nodes = _memory(0, NODE_MIB, ",cpus=0") + _memory(1, NODE_MIB, ",cpus=1") + distance
        return ["-machine", "pc", "-m", f"{2 * NODE_MIB}M", *nodes]
    if kind == "bare":  # the last machine type that may have a node without memory
        nodes = ["-numa", f"node,nodeid=0,cpus=0,mem={2 * NODE_MIB}M", "-numa", "node,nodeid=1,cpus=1,mem=0"]
        return ["-machine", "pc-i440fx-5.0", "-m", f"{2 * NODE_MIB}M", *nodes, *distance]
    nodes = _memory(0, NODE_MIB, ",cpus=0,initiator=0") + _memory(1, NODE_MIB, ",cpus=1,initiator=1")
    nodes += _memory(2, NODE_MIB, ",initiator=1")
    nodes += [*distance, "-numa", "dist,src=0,dst=2,val=41", "-numa", "dist,src=1,dst=2,val=21"]
    for (initiator, target), (latency, bandwidth) in HMAT_FIGURES.items():
        pair = f"hmat-lb,initiator={initiator},target={target},hierarchy=memory"
        nodes += ["-numa", f"{pair},data-type=access-latency,latency={latency}"]
        nodes += ["-numa", f"{pair},data-type=access-bandwidth,bandwidth={bandwidth}M"]
    return ["-machine", "q35,hmat=on", "-m", f"{3 * NODE_MIB}M", *nodes]


# --- running it ---------------------------------------------------------------------------------------------------


def check() -> None:
    """Missing, with the reason, where there can be no such machine."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise Missing(f"the emulated machine's programs are for Linux on x86_64, this is {platform.machine()}")
    if shutil.which(QEMU) is None:
        raise Missing(f"there is no {QEMU}: scripts/setup installs Debian's qemu-system-x86")
    if not os.access(BUSYBOX, os.X_OK):
        raise Missing(f"there is no {BUSYBOX}: scripts/setup installs Debian's busybox-static")
    kernel()


def _results(output: str, count: int) -> list[Ran]:
    parts = re.findall(r"^@@begin \S+\n(.*?)^@@end \S+ (\d+)$", output, re.MULTILINE | re.DOTALL)
    if len(parts) != count or "@@done" not in output:
        raise TimeUp(output)
    return [Ran(text, int(status)) for text, status in parts]


def _go_first() -> None:
    """Before everybody else on this machine, where that is allowed: an emulated processor that waits its turn is late
    to answer the other one's interrupts, and what takes a microsecond there takes milliseconds."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))


def run(
    commands: Sequence[Sequence[str]],
    kind: str = "two",
    files: Sequence[Path] = (),
    append: str = "",
    timeout_s: float = TIMEOUT_S,
    urgent: bool = False,
) -> list[Ran]:
    """Starts one machine, runs the commands in it one after the other, and ends it.

    A word of a command that is the path of a file here is there too, at that path. What is urgent goes before other
    work of this machine: for what has to happen within some time. Raises Missing, or TimeUp when the machine did not
    come to its end.
    """
    check()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "initramfs").write_bytes(initramfs(commands, files))
        words = f"console=ttyS0 loglevel=4 panic=-1 {append}".strip()
        command = [QEMU, *hardware(kind), "-accel", "tcg", "-cpu", "qemu64", "-smp", "2,sockets=2"]
        command += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
        command += ["-kernel", str(kernel()), "-initrd", str(folder / "initramfs"), "-append", words]
        command += ["-serial", f"file:{folder}/console", "-serial", f"file:{folder}/output"]
        said = ""
        try:
            ran = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                check=False,
                preexec_fn=_go_first if urgent else None,
            )
            said = ran.stderr.strip()
        except subprocess.TimeoutExpired:
            said = f"not at its end after {timeout_s:.0f} s"
        output = (folder / "output").read_text(errors="replace") if (folder / "output").exists() else ""
        console = (folder / "console").read_text(errors="replace") if (folder / "console").exists() else ""
        try:
            return _results(output.replace("\r", ""), len(commands))
        except TimeUp as problem:
            tail = "\n".join(console.splitlines()[-20:])
            raise TimeUp(f"{said}\n{problem}\nthe console:\n{tail}") from None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=("two", "hmat", "bare"), default="two")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS")
    parser.add_argument("--append", default="", metavar="WORDS", help="for the kernel's command line")
    parser.add_argument("--urgent", action="store_true", help="before other work of this machine")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    start = time.monotonic()
    command = list(options.command)
    if "/" in command[0]:
        command[0] = str(Path(command[0]).resolve())
    try:
        (ran,) = run([command], options.kind, append=options.append, timeout_s=options.timeout, urgent=options.urgent)
    except Missing as reason:
        print(f"machine: {reason}", file=sys.stderr)
        return NO_MACHINE
    except TimeUp as said:
        print(f"machine: {said}", file=sys.stderr)
        return TIME_UP
    print(ran.output, end="")
    print(f"machine: {time.monotonic() - start:.1f} s in all", file=sys.stderr)
    return ran.status


if __name__ == "__main__":
    sys.exit(main())
