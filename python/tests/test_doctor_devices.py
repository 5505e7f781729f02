"""`umo doctor` and drivers: one that is not there, crashes, hangs or gives wrong bytes is named, with what to do."""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from umo.doctor import devices, pressure, trial
from umo.doctor.devices import Driver

OPENCL = any(devices.ICDS.glob("*.icd"))
needs_opencl = pytest.mark.skipif(not OPENCL, reason="no OpenCL driver is installed")
needs_loader = pytest.mark.skipif(
    not OPENCL or shutil.which("cc") is None, reason="no OpenCL loader, or no compiler to make a driver with"
)


def named(findings, name):
    (found,) = [f for f in findings if f.name == name]
    return found


def opencl():
    return list(devices._driver(Driver("opencl"), devices._no_opencl))


def icd(folder: Path, code: str) -> Path:
    """A folder with one driver, which runs `code` when it is loaded."""
    source = folder / "driver.c"
    source.write_text(
        f"#include <stdlib.h>\n#include <unistd.h>\n__attribute__((constructor)) static void go(void) {{ {code} }}\n"
    )
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "driver.so", source], check=True)
    (folder / "driver.icd").write_text(f"{folder / 'driver.so'}\n")
    return folder


@needs_opencl
def test_each_device_works_and_its_bytes_are_compared():
    findings = list(devices.drivers())
    for name in ("host", "opencl"):
        assert named(findings, f"driver {name}").state == "good"
        work = named(findings, f"work of {name}:0")
        assert work.state == "good" and "by its kernels" in work.found and "this process's memory" in work.found
        assert "storage modes: unified" in named(findings, f"device {name}:0").means
    assert named(findings, "driver metal").state in ("missing", "good")


def test_without_a_platform_the_variable_that_hides_it_is_named(monkeypatch):
    monkeypatch.setenv("OCL_ICD_VENDORS", "/nonexistent")
    found = named(opencl(), "driver opencl")
    assert found.state == "missing" and "OCL_ICD_VENDORS=/nonexistent" in found.mend
    assert "no platform" in found.found or "no OpenCL loader" in found.found


def test_an_icd_whose_library_is_gone_is_named(monkeypatch, tmp_path):
    (tmp_path / "gone.icd").write_text("/nonexistent/libgone.so\n")
    monkeypatch.setattr(devices, "ICDS", tmp_path)
    mend, state = devices._no_opencl("OpenCL has no platform: install something")
    assert state == "missing" and "gone.icd" in mend
    (tmp_path / "gone.icd").unlink()
    assert devices._no_opencl("OpenCL has no platform: install something")[0] == "install something"


@needs_loader
@pytest.mark.parametrize(
    ("code", "text"), [("abort();", "SIGABRT"), ("_exit(3);", "ended early"), ("sleep(60);", "within 2 s")]
)
def test_a_driver_that_breaks_is_a_fault_and_not_the_doctor_s_end(monkeypatch, tmp_path, code, text):
    monkeypatch.setenv("OCL_ICD_VENDORS", str(icd(tmp_path, code)))
    monkeypatch.setattr(devices, "PATIENCE_S", 2 if "sleep" in code else 60)
    found = named(opencl(), "driver opencl")
    assert found.state == "fault" and text in found.found and "list its devices" in found.found
    assert "driver.so" in found.mend


@pytest.mark.parametrize(
    ("says", "broke"),
    [
        (r"printf '7\nnull\n[\"step\"]\n\377\n'", ""),
        (r"kill -36 $$", "ended by signal 36"),
        ("exit 3", "it ended early"),
    ],
)
def test_whatever_a_driver_prints_or_dies_of_is_listened_to(monkeypatch, tmp_path, says, broke):
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\necho \'{{"step": "open"}}\'\n{says}\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    driver = Driver("opencl")
    assert (driver.broke, driver.step, driver.first("count")) == (broke, "open", None)


class Wrong(trial.Trial):
    """A device that loses one bit."""

    def download(self, buffer):
        got = bytearray(super().download(buffer))
        got[4711] ^= 1
        return bytes(got)


def test_one_wrong_bit_is_a_fault():
    library = trial.open_library()
    info = {"kernels": True, "import_write": True, "import_size_align_bytes": 1}
    right = trial.Trial(library, "host", 0)
    assert [step.get("done") for step in trial.work(right, info, ("unified",)) if "done" in step] == [
        "moved",
        "computed",
        "bound",
    ]
    right.close()
    wrong = Wrong(library, "host", 0)
    with pytest.raises(trial.Fault, match="1 of 1,048,592 bytes are wrong, the first at 4,711"):
        list(trial.work(wrong, info, ("unified",)))
    wrong.close()
    (found,) = devices._tried("host:0", [{"fault": "1 of 5 bytes"}])
    assert found.state == "fault" and "do not serve" in found.mend


def test_memory_that_is_not_bound_says_why():
    (note, good) = devices._tried(
        "x:0", [{"refused": "cannot", "reason": "device_refused"}, {"done": "moved", "bytes": 9}]
    )
    assert note.state == "note" and "umo explain device_refused" in note.mend and good.state == "good"


def test_a_device_with_memory_of_its_own_is_described():
    info = {
        "name": "X ", "memory_bytes": 0, "buffer_max_bytes": 1 << 30, "unified": False, "import_read": False,
        "import_write": False, "import_align_bytes": 4096, "import_size_align_bytes": 64, "coherent": False,
        "kernels": False,
    }  # fmt: skip
    found = devices._facts("x:0", info, ["private"])
    assert "memory of its own" in found.found and "unknown size" in found.found and "cannot be bound" in found.means
    found = devices._facts("x:0", {**info, "import_read": True, "import_write": True}, ["private"])
    assert "multiples of 4,096 bytes" in found.means and "published" in found.means and "no kernels" in found.means


def gpu(folder: Path, vendor: str) -> None:
    (folder / "pci" / "0000:01:00.0").mkdir(parents=True)
    (folder / "pci" / "0000:01:00.0" / "vendor").write_text(f"{vendor}\n")
    (folder / "pci" / "0000:01:00.0" / "class").write_text("0x030000\n")


@pytest.mark.parametrize(
    ("vendor", "maker", "package"), [("0x8086", "Intel", "intel-opencl-icd"), ("0x10de", "NVIDIA", "--gpus")]
)
def test_a_gpu_that_no_driver_sees_names_its_package(monkeypatch, tmp_path, vendor, maker, package):
    gpu(tmp_path, vendor)
    (tmp_path / "dev" / "dri").mkdir(parents=True)
    monkeypatch.setattr(devices, "PCI", tmp_path / "pci")
    monkeypatch.setattr(devices, "DEV", tmp_path / "dev")
    listed = Driver("host")  # the processor, which is no GPU
    found = named(list(devices.unseen(listed)), f"GPU of {maker}")
    assert found.state == "missing" and package in found.mend and "0000:01:00.0" in found.found
    next(line for line in listed.lines if "facts" in line)["facts"]["host_processor"] = False
    assert named(list(devices.unseen(listed)), f"GPU of {maker}").state == "good"


def test_device_nodes_alone_show_a_gpu(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "PCI", tmp_path / "none")
    monkeypatch.setattr(devices, "DEV", tmp_path)
    assert list(devices._gpus()) == []
    (tmp_path / "dri").mkdir()
    (tmp_path / "dri" / "renderD128").touch()
    assert list(devices._gpus()) == [("an unknown maker", "/dev/dri")]
    (tmp_path / "nvidia0").touch()
    assert list(devices._gpus()) == [("NVIDIA", "/dev/nvidia*")]


def test_pressure_has_its_sources_and_says_what_is_missing():
    findings = list(pressure.sources())
    assert named(findings, "now").found.split(",")[0] in ("normal", "low", "medium", "critical")
    assert named(findings, "physical").state == "good"
    assert named(findings, "budget").state == "missing" and "Context(budget_bytes=)" in named(findings, "budget").mend


def test_the_structures_are_the_library_s(tmp_path):
    """Sizes and the last field's place, against the compiler's."""
    if shutil.which("cc") is None:
        pytest.skip("no compiler")
    from umo import paths

    checks = {
        "umo_pressure_stats": (pressure.Stats, "sources", "sources"),
        "umo_pressure_source_stats": (pressure.Source, "limit", "limit_bytes"),
        "umo_error": (trial.Error, "text", "text"),
        "umo_fence": (trial.Fence, "value", "value"),
        "umo_fence_set": (trial.Fences, "fences", "fences"),
        "umo_access": (trial.Access, "scope", "scope"),
        "umo_import": (trial.Import, "user", "user"),
        "umo_piece": (trial.Piece, "size", "size_bytes"),
    }
    lines = [
        f'printf("{name} %zu %zu\\n", sizeof({name}), offsetof({name}, {field}));'
        for name, (_, _, field) in checks.items()
    ]
    code = "#include <umo/umo.h>\n#include <stddef.h>\n#include <stdio.h>\nint main(void) {" + "".join(lines) + "}\n"
    (tmp_path / "sizes.c").write_text(code)
    subprocess.run(["cc", "-I", paths.include(), "-o", tmp_path / "sizes", tmp_path / "sizes.c"], check=True)
    said = subprocess.run([tmp_path / "sizes"], capture_output=True, text=True, check=True).stdout.splitlines()
    for line in said:
        name, whole, place = line.split()
        structure, field, _ = checks[name]
        assert (ctypes.sizeof(structure), getattr(structure, field).offset) == (int(whole), int(place)), name


@pytest.mark.parametrize(
    ("environment", "state", "text"),
    [
        ({"UMO_CALIBRATION": "off"}, "note", "UMO_CALIBRATION=off"),
        ({"XDG_CACHE_HOME": "", "HOME": ""}, "note", "no folder"),
        ({"XDG_CACHE_HOME": "/proc/nothing"}, "note", "cannot be written"),
        ({"XDG_CACHE_HOME": "{tmp}"}, "good", "none yet"),
    ],
)
def test_where_costs_are_remembered(monkeypatch, tmp_path, environment, state, text):
    monkeypatch.delenv("UMO_CALIBRATION", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value.replace("{tmp}", str(tmp_path)))
    if "cannot" in text:
        monkeypatch.setattr(os, "access", lambda *_: False)
    (found,) = devices.calibration()
    assert found.state == state and text in found.found
    if text == "none yet":
        (tmp_path / "umo").mkdir()
        file = tmp_path / "umo" / "calibration-1.txt"
        file.touch()
        os.utime(file, (time.time() - 3 * 86400,) * 2)
        (found,) = devices.calibration()
        assert found.found.startswith("1 device, 3 days old")


def test_a_trial_says_each_step_before_it_takes_it():
    done = subprocess.run(
        [sys.executable, "-m", "umo.doctor.trial", "host"], capture_output=True, text=True, timeout=60, check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    steps = [line["step"] for line in lines if "step" in line]
    assert steps[:2] == ["list its devices", "open host:0"] and "run a kernel" in steps
