"""metal_api.h says what Apple's declarations say."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest
from oracle import compare, report, rows
from oracle.build import run
from oracle.fetch import CACHE, ROOT

# A result of up to two words comes back in registers; a larger one, or a float on x86-64, would need another entry
# than objc_msgSend.
STRUCT_RESULTS = {"{?=QQ}"}


def test_every_row_agrees_with_itself(ours: rows.Rows) -> None:
    wrong = {m.field: rows.contradictions(m) for m in ours.messages}
    assert {name: text for name, text in wrong.items() if text} == {}


def test_the_header_was_read_whole(ours: rows.Rows) -> None:
    text = rows.HEADER.read_text()
    assert len(ours.messages) == len(re.findall(r"^    MSG\(\w", text, re.MULTILINE)) > 50
    assert len(ours.constants) == len(re.findall(r"^    CONSTANT\(\w", text, re.MULTILINE)) > 20
    assert len(ours.classes) == len(re.findall(r"^    CLASS\(\w", text, re.MULTILINE)) > 5
    assert len(ours.structs) == len(re.findall(r"^typedef struct umo_(?:ns|mtl)_\w+ \{", text, re.MULTILINE)) == 3
    assert set(ours.blocks) == set(re.findall(r"^umo_metal_block umo_metal_(\w+)_block\(", text, re.MULTILINE))


def test_apple_declares_what_the_header_says(ours: rows.Rows, today: compare.Oracles) -> None:
    """No row is contradicted, and uncovered.txt is exactly what no oracle tells."""
    assert compare.problems(ours, today, compare.uncovered_listed()) == []


def test_macos_13_has_all_but_what_is_listed(ours: rows.Rows, macos13: compare.Oracles) -> None:
    assert compare.newer_problems(ours, macos13, compare.newer_listed()) == []


def test_every_class_method_has_its_class(ours: rows.Rows) -> None:
    """A class method is sent to a class of the table; what NSObject's class has, every class has."""
    owners = {m.owner for m in ours.messages if m.on_class} - {"NSObject"}
    assert owners <= set(ours.classes.values())


def test_every_message_goes_through_objc_msgsend(ours: rows.Rows) -> None:
    results = {m.types[0] for m in ours.messages}
    assert {kind for kind in results if kind[0] in "{[("} <= STRUCT_RESULTS
    assert not results & {"f", "d", "D"}


def test_the_signatures_of_blocks_are_what_clang_writes(ours: rows.Rows) -> None:
    written = compare.signatures_written()
    assert written == {name: compare.signature(call) for name, call in ours.blocks.items()}


@pytest.mark.parametrize(("target", "kind"), [("aarch64-macos.13.0", "bool"), ("x86_64-macos.13.0", "signed char")])
def test_a_bool_is_what_it_is_on_each_processor(
    target: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Apple's compiler writes B for a BOOL on arm64 and c on x86-64 (compare_protocols), and the header knows it."""
    source = tmp_path / "bool.c"
    source.write_text(
        f'#include "{rows.HEADER}"\n'
        f'_Static_assert(_Generic((umo_objc_bool)0, {kind}: 1, default: 0), "{kind}");\n'
        '_Static_assert(sizeof(void *) == sizeof(umo_uint), "NSUInteger");\n'
    )
    for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"):
        monkeypatch.setenv(name, os.environ.get(name, str(CACHE / "zig")))
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", target, "-std=c11", f"-I{ROOT / 'include'}"]
    run([*zig, f"-I{ROOT / 'src'}", "-S", "-o", tmp_path / "bool.s", source])


def test_a_report_says_who_confirms_what(
    ours: rows.Rows, today: compare.Oracles, macos13: compare.Oracles, tmp_path: Path
) -> None:
    said = report.text(ours, today, macos13)
    assert f"messages: {len(ours.messages)}\n" in said
    assert "contradicted: 0\n" in said
    by_group = re.findall(r"^  by [^:]+: (\d+)", said.split("messages:")[1].split("constants:")[0], re.MULTILINE)
    assert sum(map(int, by_group)) == len(ours.messages)
    report.PATH.write_text(said)
