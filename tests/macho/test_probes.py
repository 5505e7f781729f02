"""What programs for macOS may count on under the loader: each probe checks one part of it."""

from __future__ import annotations

import subprocess

import pytest

from .conftest import RPATH, FakeMetal, Macho

PLAIN = ("errors", "jumps", "mach", "memory", "plain", "threads")
LINKED = ("locals", "open", "pointers")

FORMATTED = """\
-1 4000000000 beef 10 q text %
-3 -300 -5 1152921504606846976 77 -9 4 1099511627776
1.500000 1.235e+04 0.0001 0x1p+0
2.250000 0.5
   42|42   |00042|+42|    42|42    |3.14
1 2.000000 3 4.000000 5 6.000000 7 8.000000 9 10.000000 11 12.000000
a b c d e f g h i
first second
0x0 0x1234
18446744073709551615 abc -8
abc|   right|left    |
in a list 7 2.5 -1
list -3
sum 78
fprintf 1
dprintf 2
sprintf 3
snprint 10
asprintf 5 0.5
8: 12 -7000000000 0.5 0.25 1.5 word 200 99
"""

ORDERED = """\
libprobe: constructor
program: constructor 1, library ready 1
program: constructor 2, 2 arguments, the last y
main
libprobe_late: constructor
main ends
libprobe_late: destructor
program: atexit
program: destructor
libprobe: destructor
libprobe: atexit
"""


def assert_passes(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stdout + done.stderr
    assert " checks, 0 failed\n" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize("name", PLAIN)
def test_a_program_meets_what_a_mac_has(macho: Macho, name: str) -> None:
    assert_passes(macho.run(macho.probe(name), PROBE_SET="yes"))


@pytest.mark.parametrize("name", LINKED)
def test_a_program_meets_its_libraries(macho: Macho, name: str) -> None:
    first, _ = macho.libraries()
    assert_passes(macho.run(macho.probe(name, RPATH, str(first))))


def test_variadic_arguments_arrive_as_they_were_given(macho: Macho) -> None:
    done = macho.run(macho.probe("format"))
    assert done.stdout == FORMATTED
    assert (done.returncode, done.stderr) == (0, "")


def test_libraries_come_up_first_and_go_down_last(macho: Macho) -> None:
    first, _ = macho.libraries()
    done = macho.run(macho.probe("order", RPATH, str(first)), "x", "y")
    assert done.stdout == ORDERED
    assert (done.returncode, done.stderr) == (7, "")


def test_volatile_memory_may_be_lost(macho: Macho) -> None:
    assert_passes(macho.run(macho.probe("mach"), UMO_MACHO_PURGE="1"))


def test_a_bind_adds_its_addend(macho: Macho) -> None:
    first, _ = macho.libraries()
    program = macho.probe("pointers", RPATH, str(first))
    file = program.read_bytes()
    # Two binds of one symbol, then padding; zig's linker has left the second one's addend out.
    bound = b"\x40_library_data\0\x51\x12\x80\x10\x90\x90\0\0"
    assert file.count(bound) == 1
    patched = program.with_name("pointers_with_addend")
    patched.write_bytes(file.replace(bound, bound[:-4] + b"\x90\x60\x0c\x90"))
    patched.chmod(0o755)
    assert_passes(macho.run(patched, "patched"))


def test_a_weak_import_may_be_missing(macho: Macho) -> None:
    full, _ = macho.libraries()
    program = macho.zig("weak.c", "weak/program", RPATH, str(full))
    beside = program.parent / "libprobe.dylib"
    beside.write_bytes(full.read_bytes())
    done = macho.run(program)
    assert_passes(done)
    assert "optional there\n" in done.stdout
    less = macho.libraries("less", "-DLESS")[0]
    beside.write_bytes(less.read_bytes())
    done = macho.run(program)
    assert_passes(done)
    assert "optional not there\n" in done.stdout


def test_a_symbol_without_a_bridge_is_refused_by_name_before_anything_runs(macho: Macho) -> None:
    done = macho.run(macho.probe("unbridged"))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.endswith("nothing provides _getlogin, _kqueue\n")


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("mmap", "mmap: no bridge for the flags 0x800"),
        ("open", "open: no bridge for the flags 0x10"),
        ("sysconf", "sysconf: no bridge for 1"),
        ("signal", "no bridge for signal 29"),
        ("dlopen", "dlopen: no bridge for the mode 0x102"),
        ("format", "no bridge for %20p in a format"),
        ("madvise", "madvise: no bridge for 99"),
    ],
)
def test_a_value_without_a_counterpart_ends_the_program(macho: Macho, what: str, reason: str) -> None:
    done = macho.run(macho.probe("refused"), what)
    assert (done.returncode, done.stdout) == (2, "begins\n")
    assert done.stderr == f"macho_run: {reason}\n"


def test_without_a_fake_there_is_no_metal(macho: Macho) -> None:
    done = macho.run(macho.probe("metal"))
    assert done.returncode == 1
    assert "UMO_MACHO_METAL is not set" in done.stdout


def test_the_system_s_metal_is_the_fake(macho: Macho, fake_metal: FakeMetal) -> None:
    assert_passes(macho.run(macho.probe("metal"), **fake_metal.system()))
