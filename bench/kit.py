"""What the kit itself costs a request: instructions and allocations, counted by callgrind on the in-process API.

umo_identity with mode touch_nothing is the backend, so that what is left in its library and in libumo is the kit. Calls
into the server and what they cost are the server's own. Valgrind refuses to duplicate a mapping, so a preloaded library
does it in another way, once a region; both kinds of memory are shown.

    python bench/kit.py

Prints JSON lines.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "inproc"))

from instructions import LINEAR_MEMCPY, self_costs  # noqa: E402

RELEASE = ROOT / "build" / "release"
OURS = ("libumo.so", "libtriton_umo_identity.so")
ALLOCATORS = ("malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "mmap", "strdup")
REQUESTS = 50
CONFIG = """name: "one"
backend: "umo_identity"
max_batch_size: 8
input [ { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "mode" value { string_value: "touch_nothing" } }
"""


def allocations(path: Path) -> int:
    """Calls from our libraries to an allocator, in one callgrind output file."""
    files: dict[str, str] = {}
    functions: dict[str, str] = {}

    def named(table: dict[str, str], text: str) -> str:
        match = re.match(r"\((\d+)\)\s*(.*)", text)
        if match is None:
            return text
        number, name = match.groups()
        if name:
            table[number] = name
        return table.get(number, "")

    ours, callee, calls = False, "", 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, rest = line.rstrip("\n").partition("=")
            if key == "ob":
                ours = any(name in named(files, rest) for name in OURS)
            elif key == "cob":
                named(files, rest)
            elif key == "fn":
                named(functions, rest)
            elif key == "cfn":
                callee = named(functions, rest)
            elif key == "calls" and ours and re.sub(r"'.*|@.*", "", callee) in ALLOCATORS:
                calls += int(rest.split()[0])
    return calls


def measure(*memory: str) -> tuple[float, float]:
    """Instructions and allocations a request of our libraries' own."""
    with tempfile.TemporaryDirectory() as folder:
        version = Path(folder) / "models" / "one" / "1"
        version.mkdir(parents=True)
        (version.parent / "config.pbtxt").write_text(CONFIG)
        out = Path(folder) / "callgrind"
        subprocess.run(
            [
                "valgrind",
                "-q",
                "--tool=callgrind",
                "--instr-atstart=no",
                f"--callgrind-out-file={out}",
                str(RELEASE / "bin" / "inproc_infer"),
                "--repo",
                str(version.parent.parent),
                "--backends",
                str(RELEASE / "backends"),
                "--model",
                "one",
                "--input",
                "INPUT0:FP32:1,262144",
                "--output",
                "OUTPUT0:1048576",
                "--requests",
                str(REQUESTS),
                "--warmup",
                "20",
                *memory,
            ],
            env=dict(
                os.environ,
                GLIBC_TUNABLES=LINEAR_MEMCPY,
                UMO_ROOT=str(ROOT),
                LD_PRELOAD=str(RELEASE / "lib" / "libumo_duplicate.so"),
            ),
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        costs = self_costs(f"{out}.1")
        own = sum(cost for path, cost in costs.items() if any(name in path for name in OURS))
        return own / REQUESTS, allocations(Path(f"{out}.1")) / REQUESTS


def main() -> None:
    for claim, memory in (("kit_instructions", ("--shm",)), ("kit_instructions_anonymous", ())):
        instructions, mallocs = measure(*memory)
        print(
            json.dumps(
                {
                    "claim": claim,
                    "value": round(instructions, 1),
                    "unit": "instructions/request",
                    "opponent": "none: at most 5,000 asked",
                    "ratio": round(instructions / 5000, 4),
                    "spread": [0, 0],
                    "allocations": mallocs,
                    "command": "make bench (bench/kit.py)",
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
