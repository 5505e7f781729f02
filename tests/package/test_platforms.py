"""All four wheels from one command, and that the command gives the same bytes again. Minutes."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from package_rig import ROOT, find_wheel, make_wheel

pytestmark = pytest.mark.slow

PLATFORMS = {
    "linux-x86_64": "manylinux_2_28_x86_64",
    "linux-aarch64": "manylinux_2_28_aarch64",
    "macos-arm64": "macosx_13_0_arm64",
    "macos-x86_64": "macosx_13_0_x86_64",
}


@pytest.fixture(scope="module")
def wheels() -> dict[str, Path]:
    make_wheel("--no-check")
    return {name: find_wheel(tag) for name, tag in PLATFORMS.items()}


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_wheel_is_what_it_should_be(platform: str, wheels: dict[str, Path]) -> None:
    ran = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check-wheel", wheels[platform]],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def python_files(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as opened:
        return {
            name: hashlib.sha256(opened.read(name)).hexdigest()
            for name in opened.namelist()
            if not re.search(r"\.(so(\.\d+)*|dylib)$|\.dist-info/(RECORD|WHEEL)$|targets-release\.cmake$|\.pc$", name)
        }


def test_what_is_no_library_is_the_same_for_all(wheels: dict[str, Path]) -> None:
    first, *others = (python_files(wheel) for wheel in wheels.values())
    for other in others:
        different = {name for name in first.keys() | other.keys() if first.get(name) != other.get(name)}
        # CMake writes its own opinion of the pointer's size and the policy version into these, the same everywhere.
        assert not different


@pytest.fixture(scope="module")
def aarch64(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aarch64")
    with zipfile.ZipFile(wheels["linux-aarch64"]) as opened:
        opened.extractall(folder)
    return folder / "umo"


def test_the_library_runs_on_aarch64(aarch64: Path, tmp_path: Path) -> None:
    """A program that is linked to the wheel's library, under qemu, with another glibc than the one it was built for."""
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    qemu = shutil.which("qemu-aarch64")
    if compiler is None or qemu is None:
        pytest.skip("no compiler or no emulator for aarch64: gcc-aarch64-linux-gnu, qemu-user")
    program = tmp_path / "use"
    source = ROOT / "tests" / "package" / "outside" / "use.c"
    library = aarch64 / "lib" / "libumo.so.0"
    subprocess.run([compiler, "-std=c11", "-o", program, source, f"-I{aarch64 / 'include'}", library], check=True)
    ran = subprocess.run(
        [qemu, "-L", "/usr/aarch64-linux-gnu", "-E", f"LD_LIBRARY_PATH={library.parent}", program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", ran.stdout)


def wanted_symbols(library: Path) -> set[str]:
    """What a library takes from umo, Python or the server; libc's differ by architecture."""
    said = subprocess.run(["nm", "-D", "--undefined-only", "-P", library], capture_output=True, text=True, check=True)
    names = {line.split()[0].partition("@")[0] for line in said.stdout.splitlines()}
    return {name for name in names if re.match(r"_?(Py|umo_|TRITON)", name)}


@pytest.mark.parametrize(
    "name",
    ["_core.abi3.so", *(f"backends/umo_{b}/libtriton_umo_{b}.so" for b in ("identity", "kernel", "onnxruntime"))],
)
def test_libraries_of_aarch64_want_what_those_of_x86_64_want(
    name: str, aarch64: Path, wheels: dict[str, Path], tmp_path: Path
) -> None:
    """There is no Python and no server for aarch64 here that would load them."""
    with zipfile.ZipFile(wheels["linux-x86_64"]) as opened:
        other = Path(opened.extract(f"umo/{name}", tmp_path))
    wanted = wanted_symbols(other)
    assert wanted and wanted_symbols(aarch64 / name) == wanted


def test_another_folder_gives_the_same_bytes(wheels: dict[str, Path], tmp_path: Path) -> None:
    """The same sources elsewhere, built from nothing: nothing of the folder, the time or the order is in the wheel."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    tree = tmp_path / "another tree"
    for name in filter(None, listed.decode().split("\0")):
        if not (ROOT / name).exists():
            continue
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name, follow_symlinks=False)
    (tree / ".venv").symlink_to(ROOT / ".venv")
    shutil.copytree(ROOT / "build" / "macos" / "sources", tree / "build" / "macos" / "sources")
    epoch = subprocess.run(
        ["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    command = [tree / "scripts" / "wheel", "--platform", "linux-x86_64", "--platform", "macos-arm64", "--no-check"]
    ran = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "SOURCE_DATE_EPOCH": epoch}, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for platform in ("linux-x86_64", "macos-arm64"):
        again = tree / "build" / "wheel" / "dist" / wheels[platform].name
        assert (
            hashlib.sha256(again.read_bytes()).hexdigest() == hashlib.sha256(wheels[platform].read_bytes()).hexdigest()
        )
