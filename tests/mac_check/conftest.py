"""What the tests of mac-check share: the build they run against, and runs of the script."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("UMO_BUILD_DIR", ROOT / "build" / "release")).resolve()
SCRIPT = ROOT / "tools" / "mac-check" / "mac-check"
PROBE = BUILD / "tools" / "mac-check" / "mac_probe"
PROGRAMS = (
    "os_pages_test",
    "os_system_test",
    "mem_region_test",
    "mem_view_test",
    "mem_pin_test",
    "mem_migrate_test",
    "mem_pool_raw_test",
    "access_pressure_test",
    "trace_profile_test",
    "context_optimizer_test",
    "mac_probe",
    "contract",
    "driver_table_test",
    "wrap",
)


@dataclass(frozen=True)
class Ran:
    """A run of the script: its exit status, what it said, and the report."""

    rc: int
    said: str
    report: str

    def section(self, name: str) -> str:
        """A section's text by the first words of its heading."""
        found = re.search(rf"^== {re.escape(name)}[^\n]*\n(.*?)(?=^== |\Z)", self.report, re.MULTILINE | re.DOTALL)
        assert found is not None, f"the report has no section '{name}'"
        return found[1]

    def verdicts(self) -> dict[str, str]:
        """The verdict of each step."""
        rows = re.findall(r"^(\S.*?) {2,}(\S.*?) +\d+ s$", self.section("summary"), re.MULTILINE)
        return dict(rows)


def environment(**more: str) -> dict[str, str]:
    """This process's, without what would steer umo or the fake."""
    kept = {name: value for name, value in os.environ.items() if not re.match(r"(UMO|FAKE|MTL)_", name)}
    return kept | more


def fake_environment(build: Path, kernels: Path | None = None, **more: str) -> dict[str, str]:
    """In which mac_probe finds the fake; kernels take the places of the right ones."""
    right = str(build / "lib" / "libumo_msl_kernels.so")
    return environment(
        UMO_METAL_LIBRARY=str(build / "lib" / "libumo_fake_metal.so"),
        FAKE_METAL_KERNELS=f"{kernels}:{right}" if kernels else right,
        UMO_METAL_CACHE="0",
        **more,
    )


def compiled(source: Path, made: Path, *more: str | Path) -> Path:
    """A shared library made of one file."""
    flags = ["-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared"]
    subprocess.run(["cc", *flags, source, "-o", made, *more], check=True, timeout=60)
    return made


def against_the_fake(build: Path) -> list[str | Path]:
    """What links a library with the fake, whether it is seen to need it or not."""
    return ["-Wl,--no-as-needed", build / "lib" / "libumo_fake_metal.so", f"-Wl,-rpath,{build / 'lib'}"]


@pytest.fixture(scope="session")
def build() -> Path:
    """The build that the tests run against."""
    assert PROBE.is_file(), f"{PROBE} is not built"
    return BUILD


@pytest.fixture(scope="session")
def alive() -> Callable[[int], bool]:
    """Whether a process runs; one that has ended and is not waited for does not."""

    def ask(process: int) -> bool:
        try:
            return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False

    return ask


@pytest.fixture(scope="session")
def eventually() -> Callable[[Callable[[], bool]], None]:
    """Waits until something is so."""

    def wait(what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not what():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    return wait


@pytest.fixture(scope="session")
def script() -> Path:
    return SCRIPT


@pytest.fixture(scope="session")
def clean_environment() -> Callable[..., dict[str, str]]:
    return environment


@pytest.fixture
def mac_check(tmp_path: Path) -> Callable[..., Ran]:
    """Runs the script in a folder of its own."""

    def run(*arguments: str | Path, shell: tuple[str, ...] = ("/bin/sh",), **more: str) -> Ran:
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        out = folder / "report.txt"
        command = [*shell, SCRIPT, "--out", out, *arguments]
        done = subprocess.run(
            list(map(str, command)),
            cwd=folder,
            env=environment(**more),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=200,
        )
        return Ran(done.returncode, done.stdout + done.stderr, out.read_text() if out.exists() else "")

    return run


@pytest.fixture
def programs(tmp_path: Path) -> Callable[..., Path]:
    """A folder of programs that all end well, but for those whose script is given."""

    def make(**scripts: str) -> Path:
        folder = tmp_path / "programs"
        folder.mkdir(exist_ok=True)
        for name in PROGRAMS:
            path = folder / name
            path.write_text(f"#!/bin/sh\n{scripts.get(name, 'exit 0')}\n")
            path.chmod(0o755)
        return folder

    return make


@pytest.fixture(scope="session")
def probe(build: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs mac_probe against the fake, perhaps with other kernels, as another machine or with another Metal."""

    def run(
        *arguments: str, kernels: Path | None = None, metal: Path | None = None, fake: str = "", **more: str
    ) -> subprocess.CompletedProcess[str]:
        env = fake_environment(build, kernels, FAKE_METAL=fake, **more)
        if metal is not None:
            env["UMO_METAL_LIBRARY"] = str(metal)
        return subprocess.run([str(PROBE), *arguments], env=env, capture_output=True, text=True, timeout=100)

    return run


@pytest.fixture(scope="session")
def wrong_kernels(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kernels of a GPU on which claims do not hold."""
    made = tmp_path_factory.mktemp("kernels") / "libwrong_kernels.so"
    source = Path(__file__).with_name("wrong_kernels.c")
    return compiled(source, made, f"-I{ROOT / 'tests' / 'fake'}", *against_the_fake(build))


@pytest.fixture(scope="session")
def wrong_metal(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Metal that goes wrong as the environment variable WRONG_METAL says."""
    made = tmp_path_factory.mktemp("metal") / "libwrong_metal.so"
    return compiled(Path(__file__).with_name("wrong_metal.c"), made, *against_the_fake(build))


@pytest.fixture(scope="session")
def judge(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """tools/mac-check/judge.c."""
    made = tmp_path_factory.mktemp("judge") / "libjudge.so"
    return ctypes.CDLL(str(compiled(SCRIPT.with_name("judge.c"), made)))


@pytest.fixture(scope="session")
def kit_archive() -> Path:
    """The kit, made of what scripts/macos has built."""
    for arch in ("arm64", "x86_64"):
        if not (ROOT / "build" / "macos" / arch / "tools" / "mac-check" / "mac_probe").is_file():
            pytest.skip(f"mac_probe is not built for macOS on {arch} (scripts/macos does)")
    subprocess.run([SCRIPT.with_name("make-kit"), "--no-build"], check=True, timeout=300)
    return ROOT / "build" / "macos" / "umo-mac-check.tar.gz"


@pytest.fixture(scope="session")
def kit(kit_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked kit."""
    folder = tmp_path_factory.mktemp("kit")
    subprocess.run(["tar", "xzf", kit_archive, "-C", folder], check=True, timeout=60)
    return folder / "umo-mac-check"
