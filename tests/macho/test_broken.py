"""Files that an arm64 Mac would not run: status 2 and one line that says why, never a crash."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import RPATH, Macho

SEGMENT, MAIN, BUILD_VERSION, SIGNATURE, DYLD_INFO = 0x19, 0x80000028, 0x32, 0x1D, 0x80000022
Change = Callable[[bytearray], None]


def commands(file: bytes | bytearray) -> list[tuple[int, int, int]]:
    """Number, offset and size of every load command."""
    found = []
    at = 32
    for _ in range(struct.unpack_from("<I", file, 16)[0]):
        number, size = struct.unpack_from("<II", file, at)
        found.append((number, at, size))
        at += size
    return found


def command(file: bytes | bytearray, number: int, nth: int = 0) -> int:
    return [at for n, at, _ in commands(file) if n == number][nth]


def put(form: str, at: int, value: int) -> Change:
    return lambda file: struct.pack_into(form, file, at, value)


def put_in(number: int, offset: int, form: str, value: int, nth: int = 0) -> Change:
    """Changes a field of the nth load command of a kind."""
    return lambda file: struct.pack_into(form, file, command(file, number, nth) + offset, value)


def bind_opcode(file: bytearray) -> None:
    """The first opcode of the binds becomes one that does not exist."""
    file[struct.unpack_from("<I", file, command(file, DYLD_INFO) + 16)[0]] = 0xF0


def rebase_far(file: bytearray) -> None:
    """The first rebase lies far behind the segment's end."""
    at = struct.unpack_from("<I", file, command(file, DYLD_INFO) + 8)[0]
    file[at : at + 8] = bytes([0x11, 0x22, 0xFF, 0xFF, 0xFF, 0x7F, 0x51, 0x00])


def rebase_read_only(file: bytearray) -> None:
    """The first rebase lies in the code, which nobody may write."""
    at = struct.unpack_from("<I", file, command(file, DYLD_INFO) + 8)[0]
    file[at : at + 4] = bytes([0x11, 0x21, 0x00, 0x51])


def rebase_endless(file: bytearray) -> None:
    """A rebase repeats 2**63 times at one place; over the binds, which are never reached."""
    info = command(file, DYLD_INFO)
    at = struct.unpack_from("<I", file, info + 8)[0]
    struct.pack_into("<I", file, info + 12, 24)
    minus_8 = bytes([0xF8] + 8 * [0xFF] + [0x01])
    file[at : at + 23] = bytes([0x11, 0x22, 0x00, 0x80]) + bytes(8 * [0xFF] + [0x7F]) + minus_8


# Segments of a program: __PAGEZERO, __TEXT, __DATA_CONST, __DATA, __LINKEDIT. A segment's command: address at 24,
# memory size 32, file offset 40, file size 48, most protection 56, protection 60, sections 64.
BROKEN: dict[str, tuple[Change, str]] = {
    "magic": (put("<I", 0, 0x464C457F), "not a Mach-O file of 64 bits"),
    "magic_32_bits": (put("<I", 0, 0xFEEDFACE), "not a Mach-O file of 64 bits"),
    "universal": (put(">I", 0, 0xCAFEBABE), "a universal file"),
    "cpu_x86_64": (put("<I", 4, 0x01000007), "for CPU type 0x1000007"),
    "cpu_arm64e": (put("<I", 8, 2), "subtype 2, not plain arm64"),
    "object_file": (put("<I", 12, 1), "file type 1 is neither program nor library"),
    "library_as_program": (put("<I", 12, 6), "a library, not a program"),
    "no_pie": (put("<I", 24, 0), "not position independent"),
    "command_count": (put("<I", 16, 1000), "lies past the end of the commands"),
    "commands_bytes": (put("<I", 20, 0x7FFFFFFF), "the load commands lie past the end of the file"),
    "command_size_zero": (put_in(MAIN, 4, "<I", 0), "has the size 0"),
    "command_size_odd": (put_in(MAIN, 4, "<I", 25), "has the size 25"),
    "required_command": (put_in(BUILD_VERSION, 0, "<I", 0x8000007F), "unknown load command 0x8000007f"),
    "chained_fixups": (put_in(BUILD_VERSION, 0, "<I", 0x80000034), "LC_DYLD_CHAINED_FIXUPS is not supported"),
    "platform_ios": (put_in(BUILD_VERSION, 8, "<I", 2), "built for platform 2, not macOS"),
    "unsigned": (put_in(SIGNATURE, 0, "<I", 0x7F), "not signed"),
    "signature_outside": (put_in(SIGNATURE, 8, "<I", 0x7FFFFFFF), "the signature lies past the end of the file"),
    "no_entry": (put_in(MAIN, 0, "<I", 0x7F), "a program without an entry point"),
    "entry_outside": (put_in(MAIN, 8, "<Q", 1 << 40), "the entry point lies outside the code"),
    "entry_odd": (put_in(MAIN, 8, "<Q", 2), "the entry point lies outside the code"),
    "segment_beyond_file": (put_in(SEGMENT, 40, "<Q", 1 << 30, 3), "a segment lies past the end of the file"),
    "segment_beyond_file_by_size": (put_in(SEGMENT, 48, "<Q", 1 << 62, 4), "larger in the file than in memory"),
    "segment_offset_wraps": (put_in(SEGMENT, 40, "<Q", (1 << 64) - 16384, 3), "lies past the end of the file"),
    "segment_unaligned": (put_in(SEGMENT, 24, "<Q", 0x100001000, 1), "does not begin at a page of 16 KiB"),
    "segment_offset_unaligned": (put_in(SEGMENT, 40, "<Q", 4096, 2), "does not begin at a page of 16 KiB"),
    "segment_overlaps": (put_in(SEGMENT, 24, "<Q", 0x100000000, 2), ""),
    "segment_far_away": (put_in(SEGMENT, 24, "<Q", 1 << 46, 4), "lies too far away"),
    "segment_at_the_end_of_addresses": (put_in(SEGMENT, 24, "<Q", (1 << 64) - 16384, 4), "past the end of all"),
    "segment_writable_code": (put_in(SEGMENT, 60, "<I", 7, 1), "is writable and executable"),
    "segment_more_than_most": (put_in(SEGMENT, 56, "<I", 1, 1), "begins with more than it may have"),
    "segment_sections": (put_in(SEGMENT, 64, "<I", 0x10000000, 1), "its sections do not fit its load command"),
    "section_outside": (put_in(SEGMENT, 72 + 40, "<Q", 1 << 40, 1), "lies outside its segment"),
    "first_segment": (put_in(SEGMENT, 40, "<Q", 16384, 1), ""),
    "page_zero_mapped": (put_in(SEGMENT, 60, "<I", 3, 0), "__PAGEZERO is mapped"),
    "dyld_info_outside": (put_in(DYLD_INFO, 16, "<I", 0x7FFFFFFF), "the binds lies past the end of the file"),
    "bind_opcode": (bind_opcode, "unknown opcode 0xf0"),
    "rebase_outside": (rebase_far, "an offset lies outside segment __DATA_CONST"),
    "rebase_read_only": (rebase_read_only, "segment __TEXT is not writable"),
    "rebase_endless": (rebase_endless, "more pointers than there is room for"),
}


def assert_refused(done: subprocess.CompletedProcess[str], reason: str) -> None:
    assert done.returncode == 2, done
    assert done.stdout == ""
    assert done.stderr.startswith("macho_run: ") and done.stderr.count("\n") == 1
    assert reason in done.stderr


@pytest.fixture(scope="module")
def good(macho: Macho) -> bytes:
    first, _ = macho.libraries()
    return macho.probe("pointers", RPATH, str(first)).read_bytes()


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused(macho: Macho, good: bytes, tmp_path: Path, name: str) -> None:
    change, reason = BROKEN[name]
    file = bytearray(good)
    change(file)
    assert file != good
    program = tmp_path / "program"
    program.write_bytes(file)
    (tmp_path / "libprobe.dylib").write_bytes(macho.libraries()[0].read_bytes())
    assert_refused(macho.run(program), reason)


def test_a_truncated_file_is_refused_wherever_it_ends(macho: Macho, good: bytes, tmp_path: Path) -> None:
    last = commands(good)[-1]
    ends = {0, 3, 31, 32, 36, last[1], last[1] + last[2] - 1, last[1] + last[2], 16383, 16384, len(good) - 1}
    program = tmp_path / "program"
    for end in sorted(ends):
        program.write_bytes(good[:end])
        assert_refused(macho.run(program), "truncated")


def test_a_file_that_is_not_there_or_no_file_is_refused(macho: Macho, tmp_path: Path) -> None:
    assert_refused(macho.run(tmp_path / "nothing"), "No such file or directory")
    assert_refused(macho.run(tmp_path), "not a regular file")


def test_a_missing_library_is_refused(macho: Macho, good: bytes, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(good)
    assert_refused(macho.run(program), "needs @rpath/libprobe.dylib, which is not there")


def test_a_broken_library_is_refused(macho: Macho, good: bytes, tmp_path: Path) -> None:
    first, _ = macho.libraries()
    program = tmp_path / "program"
    program.write_bytes(good)
    (tmp_path / "libprobe.dylib").write_bytes(first.read_bytes()[:20000])
    assert_refused(macho.run(program), "needs @rpath/libprobe.dylib: truncated")


def test_a_symbol_that_its_library_lacks_is_refused(macho: Macho, good: bytes, tmp_path: Path) -> None:
    first, _ = macho.libraries()
    program = tmp_path / "program"
    program.write_bytes(good)
    library = first.read_bytes().replace(b"words\0", b"wordz\0")
    (tmp_path / "libprobe.dylib").write_bytes(library)
    assert_refused(macho.run(program), "nothing provides _library_words")


def test_pages_of_4_kib_are_refused(macho: Macho) -> None:
    command = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", str(macho.loader), str(macho.probe("errors"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert_refused(done, "pages are 4096 bytes here, not 16384")


def test_every_shorter_file_is_refused_under_the_sanitizers(macho: Macho, good: bytes, parser: Path) -> None:
    done = subprocess.run([parser, "truncate", macho.out / "pointers"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout.split()[0]) > 4000


@pytest.mark.parametrize("name", ["pointers", "locals", "libprobe.dylib"])
def test_changed_bytes_never_break_the_reader(macho: Macho, good: bytes, parser: Path, name: str) -> None:
    first, _ = macho.libraries()
    macho.probe("locals", RPATH, str(first))
    command = [parser, "mutate", macho.out / name, "1", "1500"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    refused, accepted = int(done.stdout.split()[0]), int(done.stdout.split()[2])
    assert refused > 100 and accepted > 100
