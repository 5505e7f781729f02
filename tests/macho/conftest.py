"""Builds the loader and the probe programs, and runs programs for macOS under it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILD = ROOT / "build" / "macho"
CROSS = "aarch64-linux-gnu-gcc"
CROSS_CXX = "aarch64-linux-gnu-g++"
ARM64 = (
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    f"-DCMAKE_C_COMPILER={CROSS}",
    f"-DCMAKE_ASM_COMPILER={CROSS}",
)
ZIG_FLAGS = ("-target", "aarch64-macos.13.0", "-std=c11", "-O2", "-Wall", "-Wextra", "-Werror")
RPATH = "-Wl,-rpath,@loader_path"


def call(command: list[str], env: dict[str, str] | None = None) -> None:
    """Runs a command of the build; its output is the failure's text."""
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}", pytrace=False)


def cmake(folder: str, *options: str, source: Path = HERE, targets: tuple[str, ...] = ("all",)) -> Path:
    """Builds tests/macho, or another project, with these options in a folder of its own."""
    out = BUILD / folder
    if not (out / "build.ninja").exists():
        call(["cmake", "-S", str(source), "-B", str(out), "-G", "Ninja", *options])
    call(["cmake", "--build", str(out), "-j", "2", "--target", *targets])
    return out


class Macho:
    """The loader, and the folder where the probes lie that it runs."""

    def __init__(self, loader: Path) -> None:
        self.loader = loader
        self.out = BUILD / "probes"
        self.out.mkdir(parents=True, exist_ok=True)

    def zig(self, source: str, name: str, *options: str) -> Path:
        """Compiles one probe for macOS, unless what lies there is newer than all that it is made of."""
        made = self.out / name
        made.parent.mkdir(parents=True, exist_ok=True)
        inputs = [HERE / "probes" / source, HERE / "probes" / "probe.h", HERE / "conftest.py"]
        inputs += [Path(option) for option in options if option.endswith(".dylib") and Path(option).exists()]
        if made.exists() and made.stat().st_mtime >= max(path.stat().st_mtime for path in inputs):
            return made
        cache = str(ROOT / "build" / "zig")
        env = dict(os.environ, ZIG_GLOBAL_CACHE_DIR=cache, ZIG_LOCAL_CACHE_DIR=cache)
        command = [sys.executable, "-m", "ziglang", "cc", *ZIG_FLAGS, str(inputs[0]), "-o", str(made), *options]
        call(command, env)
        return made

    def probe(self, name: str, *options: str) -> Path:
        return self.zig(f"{name}.c", name, *options)

    def libraries(self, folder: str = ".", *options: str) -> tuple[Path, Path]:
        """libprobe, and libprobe_late, which needs it."""
        own = ("-shared", "-install_name", "@rpath/libprobe.dylib", RPATH)
        late = ("-shared", "-install_name", "@rpath/libprobe_late.dylib", RPATH)
        first = self.zig("library.c", f"{folder}/libprobe.dylib", *own, *options)
        return first, self.zig("late.c", f"{folder}/libprobe_late.dylib", *late, str(first))

    def run(
        self, program: Path | str, *arguments: str, seconds: float = 120, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        command = [str(HERE / "run"), str(program), *arguments]
        env = {key: value for key, value in os.environ.items() if not key.startswith(("UMO_", "FAKE_METAL"))}
        return subprocess.run(
            command, env={**env, **environment}, capture_output=True, text=True, timeout=seconds, check=False
        )


@dataclass(frozen=True)
class FakeMetal:
    library: Path
    kernels: Path

    def system(self, **settings: str) -> dict[str, str]:
        """The environment in which the system's own names give this Metal."""
        kernels = {"FAKE_METAL_KERNELS": str(self.kernels), "UMO_METAL_CACHE": "0"}
        return {"UMO_MACHO_METAL": str(self.library), **kernels, **settings}


@pytest.fixture(scope="session")
def macho() -> Macho:
    for tool in (CROSS, CROSS_CXX, "qemu-aarch64"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (scripts/setup does)")
    return Macho(cmake("loader", *ARM64) / "macho_run")


@pytest.fixture(scope="session")
def parser() -> Path:
    """Reads Mach-O files under AddressSanitizer, on the machine's own architecture."""
    return cmake("parse") / "macho_parse"


@pytest.fixture(scope="session")
def fake_metal(macho: Macho) -> FakeMetal:
    """The fake Metal, and the kernels that it runs, as arm64 libraries for Linux."""
    compilers = (*ARM64, f"-DCMAKE_CXX_COMPILER={CROSS_CXX}", "-DUMO_BUILD_TRITON=OFF")
    lib = cmake("arm64", *compilers, source=ROOT, targets=("umo_fake_metal", "umo_msl_kernels")) / "lib"
    return FakeMetal(lib / "libumo_fake_metal.so", lib / "libumo_msl_kernels.so")
