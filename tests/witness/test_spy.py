"""The symbol spy counts exactly what a program copies, by the library that called, wherever it is called from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from umo.prove import HOST_COPIES, Reading, Spy, SpyError
from umo.prove.layout import LayoutError, SpyFile


def exact(reading: Reading, library: str) -> dict[str, tuple[int, int]]:
    """(calls, bytes) of at least 4 KiB by kind, of one library."""
    out: dict[str, tuple[int, int]] = {}
    for row in reading.rows():
        if Path(row.library).name == library and row.at_least_bytes >= 4096:
            calls, amount = out.get(row.kind, (0, 0))
            out[row.kind] = (calls + row.calls, amount + row.bytes)
    return out


def test_every_copy_function_is_counted_exactly(spied):
    reading, _, _ = spied("each")
    assert exact(reading, "spy_probe") == {
        "memcpy": (1, 100000),
        "memmove": (2, 100000),
        "mempcpy": (1, 40000),
        "bcopy": (1, 30000),
        "memset": (1, 20000),
        "__memcpy_chk": (1, 70000),
        "__memmove_chk": (1, 80000),
        "__memset_chk": (1, 90000),
    }


def test_a_library_is_told_from_the_program(spied):
    reading, _, _ = spied("each")
    assert exact(reading, "libspy_part.so") == {"memcpy": (1, 60000)}


def test_small_copies_have_their_own_size_class(spied):
    reading, _, _ = spied("each")
    small = [r for r in reading.rows() if r.library.endswith("/spy_probe") and r.at_least_bytes == 0]
    assert [(r.kind, r.calls, r.bytes) for r in small] == [("memcpy", 5, 80)]


def test_a_size_that_is_no_class_border_is_refused(spied):
    reading, _, _ = spied("each")
    with pytest.raises(ValueError, match="5000 is not the lower end of a size class"):
        reading.bytes(min_size=5000)


def test_functions_got_by_name_are_counted(spied):
    reading, _, _ = spied("by-name")
    assert exact(reading, "spy_probe") == {
        "memcpy": (1, 300000),
        "memmove": (1, 200000),
    }


def test_threads_lose_no_count(spied):
    reading, _, _ = spied("threads")
    assert exact(reading, "spy_probe") == {"memcpy": (4 * 50000, 4 * 50000 * 5000)}
    small = [r for r in reading.rows() if r.library.endswith("/spy_probe") and r.at_least_bytes == 0]
    assert [(r.calls, r.bytes) for r in small] == [(4 * 500000, 4 * 500000 * 10)]
    assert reading.lost_calls == 0


def test_copies_in_a_signal_handler_are_counted(spied):
    reading, _, done = spied("signals")
    handled = int(done.stdout)
    assert handled >= 20
    assert exact(reading, "spy_probe") == {"memcpy": (handled, handled * 8192)}


def test_a_forked_child_counts_in_a_file_of_its_own(spied):
    reading, spy, done = spied("fork")
    parent, child = map(int, done.stdout.split())
    by_process = {
        process: sum(r.bytes for r in reading.rows() if r.process == process and r.at_least_bytes >= 4096)
        for process in (parent, child)
    }
    assert by_process == {parent: 10000, child: 20000}
    assert spy.file(child).pid == child


def test_a_copy_by_libstdcxx_is_charged_to_who_called_it(spied):
    reading, _, _ = spied("string")
    rows = [r for r in reading.rows() if r.at_least_bytes >= 4096]
    assert [(Path(r.library).name, Path(r.via).name, r.bytes) for r in rows] == [
        ("libstdc++.so.6", "libspy_string.so", 500000)
    ]


def test_a_fortified_copy_that_does_not_fit_still_ends_the_program(spied):
    _, _, done = spied("overflow", status=-6)
    assert "buffer overflow detected" in done.stderr


@pytest.mark.parametrize("how, library", [("dlsym", "libspy_cl_table.so"), ("linked", "libspy_cl_linked.so")])
def test_device_calls_are_counted_however_they_are_bound(spied, how, library):
    reading, _, _ = spied("opencl", how)
    device = {kind: value for kind, value in exact(reading, library).items() if kind.startswith("device_")}
    assert device == {
        "device_write": (3, 500000 + 1000000 + 60000),
        "device_copy": (1, 900000),
        "device_read": (1, 800000),
        "device_fill": (1, 700000),
        "device_map": (1, 600000),
    }
    unmaps = [r for r in reading.rows() if r.kind == "device_unmap" and r.library.endswith(library)]
    assert sum(r.calls for r in unmaps) == 1
    assert reading.unhooked == 0


@pytest.mark.parametrize("how", ["dlsym", "proc"])
def test_cudas_copies_are_counted_however_they_are_bound(spied, how):
    reading, _, _ = spied("cuda", how)
    device = {k: v for k, v in exact(reading, "libspy_cuda.so").items() if k.startswith("device_")}
    assert device == {
        "device_write": (2, 1000000 + 500000),
        "device_copy": (2, 900000 + 400000),
        "device_read": (2, 800000 + 300000),
        "device_any": (4, 700000 + 200000 + 20000 + 60000),
    }
    assert reading.unhooked == 0


def test_a_program_runs_the_same_without_a_file_to_count_in(probe):
    env = {"LD_PRELOAD": Spy.environment("x")["LD_PRELOAD"], "PATH": "/usr/bin:/bin"}
    done = subprocess.run([str(probe), "each"], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_file_that_cannot_be_made_does_no_harm(probe, tmp_path):
    env = {**Spy.environment(tmp_path / "missing" / "spy"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([str(probe), "each"], env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reading_without_a_spied_process_says_so(tmp_path):
    with pytest.raises(SpyError, match="was the spy preloaded there"):
        Spy(tmp_path / "nothing", wait_s=0)


def test_a_foreign_file_is_refused(tmp_path):
    path = tmp_path / "spy"
    path.write_bytes(b"\0" * 8192)
    with pytest.raises(LayoutError, match="not a witness's file"):
        SpyFile(path)
    path.write_bytes(b"short")
    with pytest.raises(LayoutError, match="too short"):
        SpyFile(path)


def test_another_layout_version_is_refused(spied, tmp_path):
    _, spy, _ = spied("each")
    whole = bytearray(spy.path.read_bytes())
    whole[8] = 99
    other = tmp_path / "other"
    other.write_bytes(whole)
    with pytest.raises(LayoutError, match="layout version 99"):
        SpyFile(other)


def test_readings_subtract(spied):
    reading, spy, _ = spied("each")
    nothing = spy.read() - reading
    assert nothing.rows() == []
    assert nothing.bytes(kinds=HOST_COPIES) == 0
