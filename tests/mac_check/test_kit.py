"""The kit: whole, for both architectures, and signed so that Apple silicon runs it."""

from __future__ import annotations

import hashlib
import re
import struct
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LC_RPATH, LC_CODE_SIGNATURE, LC_LOAD_DYLIB = 0x8000001C, 0x1D, 0xC
ARM64, X86_64 = 0x0100000C, 0x01000007


def slices(path: Path) -> dict[int, bytes]:
    """Mach-O images by processor."""
    data = path.read_bytes()
    magic, count = struct.unpack(">II", data[:8])
    assert magic == 0xCAFEBABE, f"{path.name} is for one processor only"
    found = {}
    for i in range(count):
        cpu, _, offset, size, align = struct.unpack(">5I", data[8 + 20 * i : 28 + 20 * i])
        assert offset % (1 << align) == 0
        found[cpu] = data[offset : offset + size]
    return found


def commands(image: bytes) -> Iterator[tuple[int, bytes]]:
    count = struct.unpack("<I", image[16:20])[0]
    at = 32
    for _ in range(count):
        kind, size = struct.unpack("<II", image[at : at + 8])
        yield kind, image[at : at + size]
        at += size


def text_of(command: bytes) -> str:
    """The string that a command about a library or a path ends with."""
    start = struct.unpack("<I", command[8:12])[0]
    return command[start:].split(b"\0")[0].decode()


def signed_right(image: bytes) -> bool:
    """Whether the hashes of all pages are those of the signature."""
    places = [struct.unpack("<II", c[8:16]) for kind, c in commands(image) if kind == LC_CODE_SIGNATURE]
    if len(places) != 1:
        return False
    blob = image[places[0][0] : sum(places[0])]
    magic, _, count = struct.unpack(">III", blob[:12])
    assert magic == 0xFADE0CC0
    for i in range(count):
        kind, offset = struct.unpack(">II", blob[12 + 8 * i : 20 + 8 * i])
        if kind != 0:
            continue
        directory = blob[offset:]
        hashes, _, _, slots, limit = struct.unpack(">5I", directory[16:36])
        size, algorithm, _, page_log = directory[36:40]
        assert (algorithm, size) == (2, 32)
        page = 1 << page_log
        assert slots == (limit + page - 1) // page
        return all(
            directory[hashes + n * size : hashes + (n + 1) * size]
            == hashlib.sha256(image[n * page : min((n + 1) * page, limit)]).digest()
            for n in range(slots)
        )
    return False


def binaries(kit: Path) -> list[Path]:
    return sorted(path for path in (kit / "programs").rglob("*") if path.is_file())


def test_every_program_is_there_for_both_processors(kit):
    names = {path.name for path in binaries(kit)}
    script = (kit / "mac-check").read_text()
    wanted = set(re.findall(r"^step \".*?\" \S+ \S+ (\w+)", script, re.MULTILINE))
    assert len(wanted) == 14
    assert wanted | {"libumo.0.dylib"} == names
    for path in binaries(kit):
        assert set(slices(path)) == {ARM64, X86_64}


def test_apple_silicon_would_run_every_program(kit):
    for path in binaries(kit):
        image = slices(path)[ARM64]
        assert signed_right(image), path.name
        changed = image[:4096] + bytes([image[4096] ^ 1]) + image[4097:]
        assert not signed_right(changed)


def test_a_program_finds_its_library_inside_the_kit_and_all_others_in_the_system(kit):
    for path in binaries(kit):
        for image in slices(path).values():
            listed = list(commands(image))
            own = [text_of(c) for kind, c in listed if kind == LC_LOAD_DYLIB and not text_of(c).startswith("/usr/lib/")]
            roots = [text_of(c) for kind, c in listed if kind == LC_RPATH]
            for name in own:
                assert name.startswith("@rpath/")
                places = [root.replace("@loader_path", str(path.parent)) for root in roots]
                assert any((Path(place) / name.removeprefix("@rpath/")).is_file() for place in places), path.name
            assert all(root.startswith("@loader_path/") for root in roots)


def test_nothing_in_the_kit_names_the_machine_that_made_it(kit, kit_archive):
    for path in kit.rglob("*"):
        assert not path.is_file() or str(ROOT).encode() not in path.read_bytes(), path.name
    with tarfile.open(kit_archive) as tar:
        for member in tar:
            assert (member.uid, member.gid, member.uname, member.gname, member.mtime) == (0, 0, "", "", 0)


def test_the_unpacked_script_explains_itself_where_the_programs_do_not_run(kit, tmp_path):
    done = subprocess.run([kit / "mac-check"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    report = next(tmp_path.glob("umo-mac-check-*.txt")).read_text()
    assert "FAILED: it does not start" in report
    assert "NOT RUN: there is no usable Metal device" in report
    assert re.search(r"^kit +[0-9a-f]{12}", report, re.MULTILINE)
