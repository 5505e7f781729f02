"""Compiles the small programs of the oracle tests, and reads what they tell."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

CLANG = "clang-14"
CLANGXX = "clang++-14"
# metal-cpp asks for the architecture by Apple's name.
METAL_CPP_OPTIONS = ("-D__arm64__",) if platform.machine() == "aarch64" else ()


class BuildError(Exception):
    """A compiler refused, with its words."""


def run(command: Sequence[str | Path], cwd: Path | None = None) -> str:
    if shutil.which(str(command[0])) is None and not Path(command[0]).is_file():
        raise BuildError(f"there is no {command[0]}: the oracle tests need it (blocks in C++)")
    env = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, cwd=cwd, env=env)
    if done.returncode != 0:
        raise BuildError(f"{command[0]} ended with {done.returncode}:\n{done.stderr[-4000:]}")
    return done.stdout


def told(text: str) -> list[tuple[str, ...]]:
    """The lines of a program that tells: words parted by tabs, the kind first."""
    return [tuple(line.split("\t")) for line in text.splitlines()]
