"""umo's own test programs, built for macOS by scripts/macos, run as a Mac would run them.

The list is ctest's, of build/macos/arm64. The contract with Metal, for which Linux calls the fake by a name of its own,
is run here through the names that Metal has on a Mac.
"""

from __future__ import annotations

import json
import subprocess

import pytest

from .conftest import ROOT, FakeMetal, Macho

BUILT = ROOT / "build" / "macos" / "arm64"
NOT_BUILT = "build/macos/arm64 is not built (scripts/macos --arch arm64)"
# What takes long under the emulator.
SLOW = {
    "fault.sweep",
    "kit.engines",
    "kit.faults",
    "kit.property",
    "kit.together",
    "contract.host_delayed",
    "contract.host_delayed_test_mode",
}
# Why a program is not run, by its test's name.
NO_OPENCL = "there is no OpenCL for the loaded programs: on a Mac it is a framework of the system"
NO_CXX = "C++'s library is linked into it, and asks the system for locales and for unwinding"
NO_ONNX = "there is no ONNX Runtime for the loaded programs: macOS's needs frameworks of the system"
SKIPPED = {
    "contract.opencl": NO_OPENCL,
    "contract.driver_table_opencl": NO_OPENCL,
    "cxx.mission": NO_CXX,
    "cxx.unified_memory": NO_CXX,
    "cxx.unified_memory_host": NO_CXX,
    "cxx.unified_backend": NO_CXX,
    "kit.instances": "makes hundreds of pools, and the emulator keeps books of every page they reserve",
    "onnxruntime.batch": NO_ONNX,
    "onnxruntime.engine": NO_ONNX,
    "onnxruntime.sharing": NO_ONNX,
}
# What the GPU and the system are like, as in tests/contract/CMakeLists.txt.
MACHINES = {
    "unified": "unified=1",
    "macos13": "residency=0,metal3=0",
    "virtual": "name=Apple Paravirtual device,fresh_garbage=1",
    "discrete": "unified=0",
    "late": "delay_ns=200000,late_ns=300000,fresh_garbage=1",
}
# The machines that every run tries; the others take as long again.
QUICK = {"unified", "discrete"}


def listed() -> list[dict]:
    """ctest's tests that run a program; one that was not built has no command."""
    if not (BUILT / "CTestTestfile.cmake").exists():
        return []
    command = ["ctest", "--test-dir", str(BUILT), "--show-only=json-v1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    tests = json.loads(done.stdout)["tests"]
    return [test for test in tests if not test.get("command") or test["command"][0].startswith(f"{BUILT}/")]


TESTS = {test["name"]: test for test in listed()}


def assert_passes(done: subprocess.CompletedProcess[str]) -> None:
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith(("[ RUN ", "[       OK"))]
    assert done.returncode == 0, "\n".join([f"status {done.returncode}", *said[-30:]])


def test_the_programs_are_built() -> None:
    if not TESTS:
        pytest.skip(NOT_BUILT)
    missing = [name for name, test in TESTS.items() if not test.get("command")]
    assert missing == [], NOT_BUILT


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in TESTS],
)
def test_a_program_for_macos_passes(macho: Macho, fake_metal: FakeMetal, name: str) -> None:
    test = TESTS[name]
    if name in SKIPPED:
        pytest.skip(SKIPPED[name])
    if not test.get("command"):
        pytest.skip(NOT_BUILT)
    environment = fake_metal.system(UMO_METAL_LIBRARY=str(fake_metal.library))
    for row in test["properties"]:
        if row["name"] == "ENVIRONMENT":
            environment.update(line.split("=", 1) for line in row["value"])
    assert_passes(macho.run(*test["command"], seconds=600 if name in SLOW else 120, **environment))


@pytest.mark.skipif(not TESTS, reason=NOT_BUILT)
@pytest.mark.parametrize("mode", ["", "test"])
@pytest.mark.parametrize(
    "machine", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in MACHINES]
)
def test_the_contract_holds_with_the_system_s_metal(
    macho: Macho, fake_metal: FakeMetal, machine: str, mode: str
) -> None:
    delay = "200000" if machine == "late" else "0"
    arguments = ["metal", delay, mode] if mode else ["metal", delay]
    environment = fake_metal.system(FAKE_METAL=MACHINES[machine])
    assert_passes(macho.run(BUILT / "tests" / "contract" / "contract", *arguments, **environment))


@pytest.mark.skipif(not TESTS, reason=NOT_BUILT)
@pytest.mark.parametrize("machine", MACHINES)
def test_the_driver_s_table_holds_with_the_system_s_metal(macho: Macho, fake_metal: FakeMetal, machine: str) -> None:
    environment = fake_metal.system(FAKE_METAL=MACHINES[machine])
    assert_passes(macho.run(BUILT / "tests" / "contract" / "driver_table_test", "metal", **environment))


@pytest.mark.skipif(not TESTS, reason=NOT_BUILT)
def test_a_mac_without_a_gpu_or_without_metal_is_told_so(macho: Macho, fake_metal: FakeMetal) -> None:
    contract = BUILT / "tests" / "contract" / "contract"
    assert_passes(macho.run(contract, "metal", "--absent", **fake_metal.system(FAKE_METAL="devices=0")))
    assert_passes(macho.run(contract, "metal", "--absent"))


@pytest.mark.skipif(not TESTS, reason=NOT_BUILT)
def test_what_a_mac_is_to_be_asked_can_be_asked(macho: Macho, fake_metal: FakeMetal) -> None:
    probe = BUILT / "tools" / "mac-check" / "mac_probe"
    if not probe.exists():
        pytest.skip(NOT_BUILT)
    done = macho.run(probe, "witnesses", **fake_metal.system())
    assert_passes(done)
    assert " 0 of " in f" {done.stdout.splitlines()[-1]}"
