"""An arm64 Mac ends a program whose pages do not hash to what its signature says. The loader does not look at hashes,
so what is built for macOS is checked here, after all that may have changed it."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from .conftest import ROOT, Macho

BUILT = ROOT / "build" / "macos"
MAGIC_64, MAGIC_UNIVERSAL = b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"
ARM64 = 0x0100000C
SIGNATURE, SUPER_BLOB, CODE_DIRECTORY = 0x1D, 0xFADE0CC0, 0xFADE0C02
AD_HOC, SHA256 = 0x2, 2


def arm64_part(file: bytes) -> bytes | None:
    """The arm64 program in a file; None where there is none."""
    if file[:4] == MAGIC_UNIVERSAL:
        for i in range(struct.unpack_from(">I", file, 4)[0]):
            cpu, _, offset, size = struct.unpack_from(">IIII", file, 8 + 20 * i)
            if cpu == ARM64:
                return file[offset : offset + size]
        return None
    return file if file[:4] == MAGIC_64 and struct.unpack_from("<I", file, 4)[0] == ARM64 else None


def why_killed(file: bytes) -> str:
    """What is wrong with the signature; empty if nothing is."""
    at = 32
    for _ in range(struct.unpack_from("<I", file, 16)[0]):
        number, size = struct.unpack_from("<II", file, at)
        if number == SIGNATURE:
            break
        at += size
    else:
        return "there is no signature"
    start, size = struct.unpack_from("<II", file, at + 8)
    if start + size != len(file):
        return "the signature is not the file's end"
    magic, _, count = struct.unpack_from(">III", file, start)
    if magic != SUPER_BLOB:
        return "the signature is not one"
    slots = [struct.unpack_from(">II", file, start + 12 + 8 * i) for i in range(count)]
    directory = start + next(offset for kind, offset in slots if kind == 0)
    fields = struct.unpack_from(">9I4B", file, directory)
    magic, _, _, flags, hashes, _, _, pages, limit, hash_size, hash_type, _, page_log2 = fields
    if magic != CODE_DIRECTORY or hash_type != SHA256 or hash_size != 32:
        return "the code directory is not one of SHA-256"
    if not flags & AD_HOC:
        return "it names a signer"
    if limit != start:
        return "it does not cover all in front of it"
    page = 1 << page_log2
    if pages != -(-limit // page):
        return "it covers another number of pages"
    for i in range(pages):
        wanted = file[directory + hashes + 32 * i : directory + hashes + 32 * (i + 1)]
        if hashlib.sha256(file[i * page : min((i + 1) * page, limit)]).digest() != wanted:
            return f"page {i} has other bytes"
    return ""


def built() -> list[Path]:
    folders = [BUILT / "arm64" / name for name in ("lib", "tests", "tools", "backends")] + [BUILT / "universal"]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sorted(path for path in files if path.suffix in ("", ".dylib") and "CMakeFiles" not in path.parts)


def test_a_signature_that_does_not_fit_is_found(macho: Macho) -> None:
    good = macho.probe("errors").read_bytes()
    assert why_killed(good) == ""
    bad = bytearray(good)
    bad[20000] ^= 1
    assert why_killed(bytes(bad)) == "page 1 has other bytes"
    assert why_killed(good[:-16]) == "the signature is not the file's end"


def test_everything_built_for_macos_is_signed_as_it_is() -> None:
    checked = 0
    for path in built():
        part = arm64_part(path.read_bytes())
        if part is not None:
            assert why_killed(part) == "", path.relative_to(ROOT)
            checked += 1
    if checked == 0:
        pytest.skip("build/macos is not built (scripts/macos)")
    assert checked > 3
