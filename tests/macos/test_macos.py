"""What `make macos` builds is what a Mac loads: read back with lief and LLVM's tools, without running it.

Nothing here runs a program for macOS; tests/macho does. Every rule is also shown a library that breaks it.
"""

import functools
import hashlib
import json
import os
import shutil
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import lief
import pytest

ROOT = Path(__file__).resolve().parents[2]
MACOS = ROOT / "build" / "macos"
LINUX = Path(os.environ.get("UMO_BUILD_DIR", ROOT / "build" / "release"))
ARCHES = ("arm64", "x86_64")
CPUS = {"arm64": lief.MachO.Header.CPU_TYPE.ARM64, "x86_64": lief.MachO.Header.CPU_TYPE.X86_64}
SYSTEM = "/usr/lib/libSystem.B.dylib"
UMO = "@rpath/libumo.0.dylib"
BACKENDS = ("umo_identity", "umo_kernel", "umo_onnxruntime")
MADE_BY_LINKER = {"_mh_dylib_header", "__dso_handle"}
# Programs of Linux's tests that are not built for macOS, and why.
LEFT_OUT = {
    "inproc_test": "needs the server, which exists for Linux only",
    "inproc_infer": "likewise",
    "batches_test": "likewise",
    "host_policy_test": "likewise",
    "abi_test": "likewise",
    "metal_test": "likewise",
    "fake_archive_test": "the fake Metal is a Linux library: programs for macOS meet it through the loader",
    "fake_memory_test": "likewise",
    "fake_misuse_test": "likewise",
    "fake_process_test": "likewise",
    "fake_program_test": "likewise",
    "fake_residency_test": "likewise",
    "fake_runtime_test": "likewise",
    "fake_threads_test": "likewise",
    "fake_work_test": "likewise",
    "driver_metal_system_test": "steers the fake by the calls that libumo links to, which only GNU ld redirects in it",
    "mem_arena_fault_test": "makes the library's allocations fail, which only GNU ld redirects to it",
    "mem_record_fault_test": "makes the library's allocations fail, which only GNU ld redirects to it",
    "mem_ring_fault_test": "makes the library's calls fail, which only GNU ld redirects to it",
    "plan_plan_fault_test": "likewise, with its allocations",
    "weights_fault": "likewise, with the calls on files",
    "kernel_stages_test": "likewise, with the calls to the library",
    "os_linux_watch_test": "looks at Linux's cgroups and stall times",
    "mem_numa_test": "redirects the calls for nodes, which have no effect there",
    "kit_numa": "likewise, and binds threads to processors",
    "context_numa_test": "likewise",
    "os_linux_numa_test": "makes Linux's calls for nodes",
    "os_linux_numa_kernel_test": "likewise, and redirects them",
    "os_linux_numa_topology_test": "reads Linux's files on nodes",
    "pressure": "lives in a cgroup of Linux",
    "example_wrap": "the examples are built and run here",
    "example_allocate": "likewise",
    "example_zero_copy": "likewise",
}

lief.logging.disable()


@pytest.fixture(scope="session", autouse=True)
def built() -> None:
    """Builds what changed; a second or so when nothing did."""
    ran = subprocess.run([ROOT / "scripts" / "macos"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def library(arch: str) -> Path:
    return MACOS / arch / "lib" / "libumo.0.dylib"


def backend(arch: str, name: str) -> Path:
    return MACOS / arch / "backends" / name / f"libtriton_{name}.so"


def libraries(arch: str) -> list[Path]:
    return [library(arch), *(backend(arch, name) for name in BACKENDS)]


@functools.cache
def programs(arch: str) -> dict[str, Path]:
    """Every program that was built: files of the kind MH_EXECUTE."""
    found = {}
    for folder, folders, names in os.walk(MACOS / arch):
        folders[:] = [name for name in folders if name != "CMakeFiles"]  # has what CMake tried out
        for name in names:
            path = Path(folder, name)
            with path.open("rb") as file:
                head = file.read(16)
            if head.startswith(b"\xcf\xfa\xed\xfe") and head[12:] == b"\x02\0\0\0":
                found[name] = path
    return found


def linux_programs() -> set[str]:
    """Those that ctest runs there."""
    ran = subprocess.run(
        ["ctest", "--test-dir", LINUX, "--show-only=json-v1"], capture_output=True, text=True, check=True
    )
    commands = [Path(test["command"][0]) for test in json.loads(ran.stdout)["tests"] if "command" in test]
    return {path.name for path in commands if LINUX in path.parents}


@dataclass(frozen=True)
class Shown:
    """What a file says to the loader, for one architecture."""

    platform: str
    oldest: tuple[int, ...]
    identity: list[str]
    libraries: list[str]
    rpaths: list[str]
    imports: list[tuple[str, str]]  # library, symbol; the library is empty where any loaded one will do


@functools.cache
def read(path: Path, arch: str) -> Shown:
    """Takes everything over at once: what lief hands out must not outlive the file that it came from."""
    file = lief.MachO.parse(str(path))
    assert file is not None, f"{path} is no Mach-O file"
    binary = file.take(CPUS[arch])
    assert binary is not None, f"{path} has no {arch}"
    identities = [c for c in binary.commands if c.command == lief.MachO.LoadCommand.TYPE.ID_DYLIB]
    version = binary.build_version
    imported = []
    for binding in binary.bindings:
        if binding.has_symbol:
            imported.append((binding.library.name if binding.has_library else "", binding.symbol.name))
    own = [str(command.name) for command in identities]
    return Shown(
        platform=version.platform.name if version is not None else "",
        oldest=tuple(version.minos) if version is not None else (),
        identity=own,
        libraries=[str(needed.name) for needed in binary.libraries if needed.name not in own],
        rpaths=[str(entry.path) for entry in binary.rpaths],
        imports=imported,
    )


def exports(path: Path) -> set[str]:
    """Without the underscore that C names get there."""
    ran = subprocess.run(
        ["llvm-nm-14", "--extern-only", "--defined-only", "--just-symbol-name", path],
        capture_output=True,
        text=True,
        check=True,
    )
    names = [line for line in ran.stdout.split() if not line.endswith(":")]
    assert all(name.startswith("_") for name in names)
    return {name[1:] for name in names} - MADE_BY_LINKER


def linux_exports(path: Path) -> set[str]:
    assert path.is_file(), f"{path} is not built: make build"
    ran = subprocess.run(["nm", "-D", "-P", "--defined-only", path], capture_output=True, text=True, check=True)
    return {line.split()[0] for line in ran.stdout.splitlines()}


# --- the rules, as functions that list what breaks them ------------------------------------------------------------


def wrong_system(path: Path, arch: str) -> list[str]:
    shown = read(path, arch)
    found = []
    if shown.platform != "MACOS":
        found.append(f"platform '{shown.platform}'")
    if shown.oldest != (13, 0, 0):
        found.append(f"oldest system {shown.oldest}")
    return found


def wrong_names(path: Path, arch: str, identity: str | None) -> list[str]:
    """Whatever a file names itself or looks for is relative, or a part of the system."""
    shown = read(path, arch)
    found = []
    if shown.identity != ([identity] if identity is not None else []):
        found.append(f"its name is {shown.identity}")
    found += [f"looks in {place}" for place in shown.rpaths if not place.startswith("@loader_path")]
    found += [f"needs {needed}" for needed in shown.libraries if needed not in (SYSTEM, UMO)]
    return found


def traces(path: Path) -> list[str]:
    """Paths of the machine that built it."""
    data = path.read_bytes()
    words = (str(ROOT), str(Path.home()), "ziglang", "umo-wrap-")
    return [word for word in words if word != "/" and word.encode() in data]


def wrong_signature(path: Path) -> list[str]:
    """An arm64 Mac kills a program whose pages do not have the hashes of its signature. Ad hoc, one architecture."""
    data = path.read_bytes()
    commands, at = struct.unpack_from("<I", data, 16)[0], 32
    for _ in range(commands):
        kind, size, offset = struct.unpack_from("<III", data, at)
        if kind == 0x1D:  # LC_CODE_SIGNATURE
            break
        at += size
    else:
        return ["no signature"]
    magic, _, count = struct.unpack_from(">III", data, offset)
    if magic != 0xFADE0CC0:
        return ["its signature is none"]
    slots = [struct.unpack_from(">II", data, offset + 12 + 8 * i) for i in range(count)]
    directory = offset + dict(slots)[0]
    magic, _, _, _, hashes, _, _, pages, limit, hash_bytes, hash_kind, _, page_log = struct.unpack_from(
        ">IIIIIIIIIBBBB", data, directory
    )
    if (magic, hash_bytes, hash_kind) != (0xFADE0C02, 32, 2):
        return ["its hashes are not SHA-256"]
    page = 1 << page_log
    if limit != offset or pages != (limit + page - 1) // page:
        return ["does not cover the file"]
    found = []
    for i in range(pages):
        want = data[directory + hashes + 32 * i : directory + hashes + 32 * (i + 1)]
        if hashlib.sha256(data[i * page : min((i + 1) * page, limit)]).digest() != want:
            found.append(f"page {i} has another hash")
    return found


# --- what was built -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHES)
def test_the_library_imports_only_the_system(arch: str) -> None:
    shown = read(library(arch), arch)
    assert shown.libraries == [SYSTEM]
    assert len(shown.imports) > 40
    assert {place for place, _ in shown.imports} == {SYSTEM}


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_leaves_only_the_servers_calls_open(arch: str, name: str) -> None:
    taken = read(backend(arch, name), arch).imports
    assert {place for place, _ in taken} == {SYSTEM, UMO, ""}
    for place, symbol in taken:
        assert symbol.startswith(("_TRITONSERVER_", "_TRITONBACKEND_")) == (place == "")
        assert symbol.startswith("_umo_") == (place == UMO)


@pytest.mark.parametrize("arch", ARCHES)
def test_everything_is_for_macos_13(arch: str) -> None:
    paths = [*libraries(arch), *programs(arch).values()]
    assert len(paths) > 40
    assert {path.name: wrong_system(path, arch) for path in paths if wrong_system(path, arch)} == {}


@pytest.mark.parametrize("arch", ARCHES)
def test_exports_are_those_of_linux(arch: str) -> None:
    found = exports(library(arch))
    assert len(found) > 50
    assert found == linux_exports(LINUX / "lib" / "libumo.so")
    for name in BACKENDS:
        path = LINUX / "backends" / name / f"libtriton_{name}.so"
        assert exports(backend(arch, name)) == linux_exports(path), name


@pytest.mark.parametrize("arch", ARCHES)
def test_names_and_places_are_relative(arch: str) -> None:
    wrong = {"libumo": wrong_names(library(arch), arch, UMO)}
    for name in BACKENDS:
        wrong[name] = wrong_names(backend(arch, name), arch, f"@rpath/libtriton_{name}.so")
        assert read(backend(arch, name), arch).rpaths == ["@loader_path", "@loader_path/..", "@loader_path/../../lib"]
    for name, path in programs(arch).items():
        wrong[name] = wrong_names(path, arch, None)
    assert {name: found for name, found in wrong.items() if found} == {}


@pytest.mark.parametrize("arch", ARCHES)
def test_no_file_tells_where_it_was_built(arch: str) -> None:
    paths = [*libraries(arch), *programs(arch).values()]
    assert {path.name: traces(path) for path in paths if traces(path)} == {}


def test_what_arm64_runs_is_signed() -> None:
    paths = [*libraries("arm64"), *programs("arm64").values()]
    assert {path.name: wrong_signature(path) for path in paths if wrong_signature(path)} == {}


def test_universal_files_hold_both_builds(tmp_path: Path) -> None:
    for inside in [path.relative_to(MACOS / "arm64") for path in libraries("arm64")]:
        joined = MACOS / "universal" / inside
        shown = subprocess.run(["llvm-lipo-14", joined, "-archs"], capture_output=True, text=True, check=True)
        assert sorted(shown.stdout.split()) == sorted(ARCHES)
        for arch in ARCHES:
            part = tmp_path / "part"
            subprocess.run(["llvm-lipo-14", joined, "-thin", arch, "-output", part], check=True)
            assert part.read_bytes() == (MACOS / arch / inside).read_bytes()
    links = sorted(path.name for path in (MACOS / "universal" / "lib").iterdir() if path.is_symlink())
    assert links == ["libumo.0.dylib", "libumo.dylib"]


@pytest.mark.parametrize("arch", ARCHES)
def test_no_test_program_is_left_out_silently(arch: str) -> None:
    here = linux_programs()
    assert len(here) > 40
    assert here - set(programs(arch)) == here & set(LEFT_OUT)


def test_another_reader_sees_code_of_both_processors() -> None:
    joined = MACOS / "universal" / "lib" / "libumo.0.dylib"
    for arch, word in (("arm64", "ret"), ("x86_64", "retq")):
        shown = subprocess.run(
            ["llvm-objdump-14", "--macho", f"--arch={arch}", "-d", "--no-show-raw-insn", joined],
            capture_output=True,
            text=True,
            check=True,
        )
        text = shown.stdout
        assert "_umo_buffer_alloc:" in text
        assert text.count(f"\t{word}") > 100


# --- the build itself ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arch", ["arm64", pytest.param("x86_64", marks=pytest.mark.slow)])
def test_the_same_sources_give_the_same_bytes_anywhere(arch: str, tmp_path: Path) -> None:
    """Another folder, another name, nothing cached: the library is the same, bit for bit."""
    tree = tmp_path / "somewhere else"
    tree.mkdir()
    for path in ROOT.iterdir():
        if path.name in ("build", ".git", ".venv"):
            continue
        if path.is_dir():
            shutil.copytree(path, tree / path.name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, tree)
    (tree / ".venv").symlink_to(ROOT / ".venv")
    (tree / "build" / "macos").mkdir(parents=True)
    (tree / "build" / "macos" / "sources").symlink_to(MACOS / "sources")
    ran = subprocess.run(
        [tree / "scripts" / "macos", "--arch", arch, "--target", "umo"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    made = tree / "build" / "macos" / arch / "lib" / "libumo.0.dylib"
    assert made.read_bytes() == library(arch).read_bytes()


# --- the rules bite -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that breaks every rule."""
    folder = tmp_path_factory.mktemp("bad")
    source = folder / "bad.c"
    source.write_text(f'const char *umo_bad(void); const char *umo_bad(void) {{ return "{ROOT}/bad.c"; }}\n')
    zig = next((ROOT / ".venv" / "lib").glob("python3*/site-packages/ziglang/zig"))
    cache = str(MACOS / "zig")
    made = folder / "bad.dylib"
    subprocess.run(
        [zig, "cc", "-target", "aarch64-macos.14.0", "-O2", "-g0", "-shared", source, "-o", made]
        + [f"-Wl,-install_name,{made}", f"-Wl,-rpath,{folder}"],
        env=dict(os.environ, ZIG_GLOBAL_CACHE_DIR=cache, ZIG_LOCAL_CACHE_DIR=cache),
        check=True,
    )
    return made


def test_a_wrong_system_is_seen(bad: Path) -> None:
    assert wrong_system(bad, "arm64") == ["oldest system (14, 0, 0)"]


def test_wrong_names_are_seen(bad: Path) -> None:
    found = wrong_names(bad, "arm64", "@rpath/bad.dylib")
    assert any("its name is" in text for text in found)
    assert any("looks in" in text for text in found)


def test_a_path_of_this_machine_is_seen(bad: Path) -> None:
    assert str(ROOT) in traces(bad)


def test_other_exports_are_seen(bad: Path) -> None:
    assert exports(bad) == {"umo_bad"}


def test_a_changed_byte_breaks_the_signature(tmp_path: Path) -> None:
    whole = library("arm64").read_bytes()
    changed = tmp_path / "changed.dylib"
    changed.write_bytes(whole[:20000] + bytes([whole[20000] ^ 1]) + whole[20001:])
    assert wrong_signature(changed) == ["page 1 has another hash"]
    assert wrong_signature(library("x86_64")) == ["no signature"]
