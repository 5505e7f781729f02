"""What the hot path executes: instructions a pair of calls, where they lie, and those among them that wait for others.

callgrind writes the address of every instruction that ran; the library's disassembly says which of them lock the bus,
fence, or call the system. So an atomic read-modify-write counts too, also one without a function of its own, and
nothing depends on time.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

# An exchange with memory locks without saying so.
WAITS = re.compile(r"^(lock\b|syscall|sysenter|mfence|sfence|lfence|xchg\b.*\()")
LINE = re.compile(r"^\s*([0-9a-f]+):\s+(.*)$")


@dataclass
class Run:
    """One measured loop."""

    instructions: float  # a pair
    objects: dict[str, float] = field(default_factory=dict)  # of which in each library
    waits: dict[str, float] = field(default_factory=dict)  # "libumo.so.0: lock xadd ...", times a pair


def executed(path: Path) -> dict[str, dict[int, int]]:
    """{object: {address: times}} of one output file of callgrind --dump-instr=yes."""
    names: dict[str, str] = {}
    counts: dict[str, dict[int, int]] = {}
    here: dict[int, int] = {}
    address = 0
    callee = False
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith(("ob=", "cob=")):
            number, name = re.match(r"c?ob=\((\d+)\)\s*(.*)", line).groups()
            if name:
                names[number] = name
            if line.startswith("ob="):
                here = counts.setdefault(names[number], {})
        elif line.startswith("calls="):
            callee = True  # the next line is what the callee cost, counted where it was spent
        elif match := re.match(r"(0x[0-9a-f]+|\+\d+|-\d+|\*)\s+\S+(?:\s+(\d+))?$", line):
            where = match[1]
            address = address if where == "*" else int(where, 16) if where[0] == "0" else address + int(where)
            if not callee:
                here[address] = here.get(address, 0) + int(match[2] or 0)
            callee = False
    return {name: found for name, found in counts.items() if found}


def waiting(library: str, counts: dict[int, int], often: int) -> dict[str, int]:
    """Which of the executed instructions lock, fence or call the system, and how often each did.

    An address that ran often must be an instruction of the disassembly; what ran rarely may lie in code that objdump
    does not read from its start.
    """
    text = subprocess.run(["objdump", "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True)
    lines = [match for line in text.stdout.splitlines() if (match := LINE.match(line))]
    instructions = {int(match[1], 16): " ".join(match[2].split()) for match in lines}
    found: dict[str, int] = {}
    for address, times in counts.items():
        what = instructions.get(address)
        # Code may jump behind the prefix where one thread is alone.
        if what is None and times >= often and not instructions.get(address - 1, "").startswith("lock"):
            raise RuntimeError(f"{library}: no instruction at {address:#x}")
        if what is not None and WAITS.match(what):
            where = f"{Path(library).name}: {what}"
            found[where] = found.get(where, 0) + times
    return found


def measure(program: Path, whom: str, size: int, pairs: int) -> Run:
    """Runs `pool_hot count` under callgrind."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "callgrind"
        command = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--dump-instr=yes"]
        command += [f"--callgrind-out-file={out}", str(program), "count", whom, str(size), str(pairs)]
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
        part = Path(f"{out}.1")
        if ran.returncode != 0 or not part.exists():
            raise RuntimeError(f"pool_hot under callgrind ended with {ran.returncode}: {ran.stderr.strip()}")
        counts = executed(part)
    total = sum(sum(found.values()) for found in counts.values())
    result = Run(total / pairs)
    for library, found in counts.items():
        result.objects[Path(library).name] = sum(found.values()) / pairs
        for what, times in waiting(library, found, pairs // 100).items():
            result.waits[what] = result.waits.get(what, 0) + times / pairs
    return result
