"""Builds the program that drives the fake Metal through metal-cpp, with the fake itself inside of it."""

from __future__ import annotations

import hashlib
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from oracle.build import CLANG, CLANGXX, METAL_CPP_OPTIONS, run
from oracle.fetch import CACHE, HERE, ROOT

FAKE = ROOT / "tests" / "fake"
NOT_THE_FAKE = re.compile(r"(_test|^world|^misuse_\w+)\.c$")
SANITIZE = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
C_OPTIONS = ("-std=c11", "-D_GNU_SOURCE", "-O1", "-fno-strict-aliasing", *SANITIZE)
# metal-cpp calls methods of objects that are not there: a message to nil.
CXX_OPTIONS = ("-std=c++17", "-fblocks", "-O0", "-w", *SANITIZE, "-fno-sanitize=null")

Change = Callable[[str, str], str]  # name and text of a source: the text that is compiled


def sources() -> list[Path]:
    return sorted(path for path in FAKE.glob("*.c") if not NOT_THE_FAKE.search(path.name))


def kept(name: str, parts: list[bytes]) -> Path:
    digest = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    return CACHE / "drive" / f"{name}-{digest}.o"


def compile_once(name: str, text: str, others: list[bytes], command: list[str | Path]) -> Path:
    """The object file of a text, kept until the text or what it includes changes."""
    target = kept(name, [text.encode(), *others, " ".join(map(str, command)).encode()])
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        source = target.with_suffix(Path(name).suffix)
        source.write_text(text)
        partial = target.with_suffix(".part")
        run([*command, "-c", source, "-o", partial])
        partial.rename(target)
    return target


def build(headers: Path, program: Path, change: Change = lambda name, text: text) -> Path:
    """The program, of the fake as it is or with its sources changed."""
    fakes = [path.read_bytes() for path in sorted(FAKE.glob("*.h"))]
    stubs = [path.read_bytes() for path in sorted((HERE / "stubs").rglob("*.h"))]
    objects = [
        compile_once(path.name, change(path.name, path.read_text()), fakes, [CLANG, *C_OPTIONS, f"-I{FAKE}"])
        for path in sources()
    ]
    text = (HERE / "drive_fake.cc").read_text()
    command = [CLANGXX, *CXX_OPTIONS, *METAL_CPP_OPTIONS, f"-I{HERE / 'stubs'}", f"-I{headers}", f"-I{FAKE}"]
    objects.append(compile_once("drive_fake.cc", text, [*fakes, *stubs], command))
    run([CLANGXX, *SANITIZE, *objects, "-lpthread", "-ldl", "-o", program])
    return program


def drive(program: Path, *words: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Runs one scenario. What it may leave behind, the program counts itself."""
    env = {"PATH": "/usr/bin:/bin", "ASAN_OPTIONS": "detect_leaks=0"}
    command = [str(program), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=env, input=given)
