"""The oracles are what was pinned, and whole."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from oracle import compare, fetch, metal_cpp, rows
from oracle.fetch import OracleError, OracleOffline, Pin

# What metal-cpp registers and no method of the scan sends: templates and what is protected.
UNSENT = {
    "allObjects",
    "autorelease",
    "copy",
    "dealloc",
    "init",
    "keyEnumerator",
    "lock",
    "methodSignatureForSelector:",
}
UNSENT |= {"nextObject", "objectForKey:", "respondsToSelector:", "retainCount", "unlock"}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pin:
    """A small wheel, and a package index that has it."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("Part/word.txt", "yes")
        archive.writestr("Other/word.txt", "no")
    path = tmp_path / "small.whl"
    path.write_bytes(body.getvalue())
    monkeypatch.setattr(fetch, "download", lambda pin, folder: path)
    monkeypatch.delenv("UMO_OFFLINE", raising=False)
    return Pin("small", "small==1", "3.11", "any", path.name, hashlib.sha256(body.getvalue()).hexdigest(), "Part/")


def test_a_pinned_wheel_is_unpacked_once(wheel: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    assert (fetch.oracle("small", cache, {"small": wheel}) / "word.txt").read_text() == "yes"
    assert not list(cache.rglob("Other"))
    monkeypatch.setattr(fetch, "download", lambda pin, folder: pytest.fail("is kept already"))
    monkeypatch.setenv("UMO_OFFLINE", "1")
    assert (fetch.oracle("small", cache, {"small": wheel}) / "word.txt").read_text() == "yes"


def test_a_wheel_of_another_checksum_is_refused_and_leaves_nothing(wheel: Pin, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(OracleError, match="checksum"):
        fetch.oracle("small", cache, {"small": replace(wheel, sha256="0" * 64)})
    assert not list(cache.iterdir())


def test_offline_the_index_is_not_asked(wheel: Pin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMO_OFFLINE", "1")
    monkeypatch.setattr(fetch, "download", lambda pin, folder: pytest.fail("was asked"))
    with pytest.raises(OracleOffline, match="small==1 is not kept"):
        fetch.oracle("small", tmp_path / "cache", {"small": wheel})


def test_every_oracle_is_pinned_to_one_version_and_checksum() -> None:
    listed = fetch.pins()
    assert len(listed) == 6
    for pin in listed.values():
        assert "==" in pin.requirement and len(pin.sha256) == 64 and pin.parts.endswith("/"), pin


def test_the_oracles_tell_as_much_as_their_wheels_hold(today: compare.Oracles, macos13: compare.Oracles) -> None:
    """A reader that misses a part would make silence out of contradiction. The pins fix the numbers."""
    for said, methods, constants, metadata, compiled in (
        (today, 2082, 913, 931, 661),
        (macos13, 1687, 804, 638, 364),
    ):
        assert sum(map(len, said.metal_cpp.methods.values())) == methods
        assert len(said.metal_cpp.constants) == constants
        assert len(said.metal.methods) == metadata
        assert {cpu: len(kept.methods) for cpu, kept in said.protocols.items()} == {
            "x86_64": compiled,
            "arm64": compiled,
        }
    assert {kept.sdk for kept in today.protocols.values()} == {"26.5"}
    assert {kept.sdk for kept in macos13.protocols.values()} == {"13.0"}


def test_the_scan_of_metal_cpp_misses_no_method(macos13: compare.Oracles) -> None:
    """In the older headers every selector that is registered is sent by a method, but for what is known. (The newer
    ones also register those of Metal 4, which has a namespace of its own.)"""
    sent = {selector for _, _, selector in macos13.metal_cpp.methods}
    assert macos13.metal_cpp.selectors - sent == UNSENT
    assert sent <= macos13.metal_cpp.selectors


def test_the_oracles_do_not_contradict_each_other(today: compare.Oracles) -> None:
    """metal-cpp's every method of a protocol that Apple's compiler put into PyObjC has the compiler's types."""
    compared = 0
    for (owner, on_class, selector), overloads in today.metal_cpp.methods.items():
        encoding = today.protocols["arm64"].methods.get((owner, on_class, selector))
        if encoding is None:
            continue
        theirs = rows.split_encoding(encoding)
        compared += 1
        assert any(same(types, theirs) for types in overloads), (owner, selector, overloads, encoding)
    assert compared > 300


def same(types: tuple[str, ...], theirs: list[str]) -> bool:
    if len(types) != len(theirs):
        return False
    # Structs that no row of umo's has are not told: "?".
    known = [i for i, kind in enumerate(types) if kind.lstrip("r^") != "?"]
    return all(compare.agree(theirs[i], types[i], None) for i in known)


def test_the_program_that_asks_metal_cpp_is_kept(today: compare.Oracles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metal_cpp, "run", lambda *arguments: pytest.fail("was compiled again"))
    assert metal_cpp.read(fetch.oracle("metal-cpp")).constants == today.metal_cpp.constants
