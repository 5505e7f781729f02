"""The comparison sees what it is for: every row is made wrong in every simple way, and each must be noticed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from oracle import compare, rows
from oracle.compare import OWNER, PROTOCOLS, RESULT, SELECTOR, SIDE
from oracle.rows import Message, Rows

TYPES = ("v", "B", "c", "C", "s", "S", "i", "I", "q", "Q", "f", "d", "@", "#", ":", "*", "r*", "@?", "^v", "r^v", "^@")
TYPES += ("{_NSRange=QQ}", "{?=QQ}", "{?=QQQ}", "?")


@pytest.fixture(scope="module")
def known() -> dict[str, list[str]]:
    return compare.uncovered_listed()


def noticed(message: Message, ours: Rows, said: compare.Oracles, known: dict[str, list[str]]) -> bool:
    """Whether the comparison of this one row turns red."""
    found = compare.Findings()
    compare.compare_messages(Rows(messages=[message], blocks=ours.blocks), said, found)
    return bool(found.wrong) or found.uncovered().get(message.field) != known.get(message.field)


def unnoticed(mutants: Iterator[Message], ours: Rows, said: compare.Oracles, known: dict[str, list[str]]) -> list[str]:
    tried = 0
    passed = []
    for mutant in mutants:
        tried += 1
        if not noticed(mutant, ours, said, known):
            passed.append(f"{mutant.field}: {mutant.owner} {mutant.selector} {mutant.encoding} {mutant.types}")
    assert tried >= len(ours.messages)
    return passed


def with_type(message: Message, place: int, kind: str, encoded: bool = True, typed: bool = True) -> Message:
    """One type made another: in the encoding, in the call of C, or in both alike."""
    encoding = rows.split_encoding(message.encoding)
    types = list(message.types)
    if encoded:
        encoding[place] = kind
    if typed:
        types[place] = "r^v" if kind == "@?" else kind
    return replace(message, encoding="".join(encoding), types=tuple(types))


def places(message: Message) -> list[int]:
    return [0, *range(3, len(message.types))]


def other_types(message: Message, place: int) -> list[str]:
    given_type = rows.plain(rows.split_encoding(message.encoding)[place])
    return [kind for kind in TYPES if kind not in (given_type, message.types[place])]


def test_every_row_is_fine_as_it_is(ours: Rows, today: compare.Oracles, known: dict[str, list[str]]) -> None:
    assert [m.field for m in ours.messages if noticed(m, ours, today, known)] == []


def test_a_wrong_letter_in_a_selector_is_noticed(
    ours: Rows, today: compare.Oracles, known: dict[str, list[str]]
) -> None:
    def mutants() -> Iterator[Message]:
        for message in ours.messages:
            text = message.selector
            for at, letter in enumerate(text):
                yield replace(message, selector=text[:at] + text[at + 1 :])
                yield replace(message, selector=text[:at] + letter + text[at:])
                if letter.isalpha():
                    yield replace(message, selector=text[:at] + letter.swapcase() + text[at + 1 :])
            yield replace(message, selector=text + ":")
            yield replace(message, selector="")

    assert unnoticed(mutants(), ours, today, known) == []


def test_an_encoding_that_its_call_does_not_have_is_noticed(
    ours: Rows, today: compare.Oracles, known: dict[str, list[str]]
) -> None:
    def mutants() -> Iterator[Message]:
        for message in ours.messages:
            for place in places(message):
                for kind in other_types(message, place):
                    yield with_type(message, place, kind, typed=False)
            yield replace(message, encoding=message.encoding + "Q")
            yield replace(message, encoding=message.encoding.replace("@:", "@", 1))
            yield replace(message, encoding=message.encoding.replace("@:", ":@", 1))

    assert unnoticed(mutants(), ours, today, known) == []


def test_a_call_that_its_encoding_does_not_have_is_noticed(
    ours: Rows, today: compare.Oracles, known: dict[str, list[str]]
) -> None:
    def mutants() -> Iterator[Message]:
        for message in ours.messages:
            for place in places(message):
                for kind in other_types(message, place):
                    # Every object that is not told from another and every block goes as what it is.
                    if not (kind == "@?" and message.types[place] == "r^v"):
                        yield with_type(message, place, kind, encoded=False)
            yield replace(message, types=(*message.types, "Q"))
            yield replace(message, types=message.types[:-1])

    assert unnoticed(mutants(), ours, today, known) == []


def test_a_type_that_is_wrong_in_both_is_noticed_by_an_oracle(
    ours: Rows, today: compare.Oracles, known: dict[str, list[str]]
) -> None:
    """All rows but for what uncovered.txt lists, and for const, which only Apple's compiler tells."""
    found = compare.compare(ours, today)

    def mutants() -> Iterator[Message]:
        for message in ours.messages:
            for place in places(message):
                fact = RESULT if place == 0 else compare.argument(place - 3)
                if fact in known.get(message.field, []):
                    continue
                compiled = PROTOCOLS in found.told[message.field][fact]
                bare = rows.plain(rows.split_encoding(message.encoding)[place]).removeprefix("r")
                for kind in other_types(message, place):
                    if compiled or kind.removeprefix("r") != bare:
                        yield with_type(message, place, kind)

    assert unnoticed(mutants(), ours, today, known) == []


def test_apples_compiler_alone_notices_every_change_of_the_rows_that_it_tells(
    ours: Rows, today: compare.Oracles
) -> None:
    told = [m for m in ours.messages if PROTOCOLS in compare.compare(ours, today).told[m.field][SELECTOR]]
    assert len(told) > 25
    for message in told:
        mutants = [with_type(message, at, kind) for at in places(message) for kind in TYPES if kind != "?"]
        mutants.append(replace(message, on_class=not message.on_class))
        mutants += [replace(message, encoding=message.encoding.replace("v", mark, 1)) for mark in ("Vv", "rv")]
        for mutant in mutants:
            row = compare.Row(mutant, {}, {fact: set() for fact in compare.facts_of(mutant)}, [])
            compare.compare_protocols(row, today.protocols, today.whole)
            fine = (mutant.encoding, mutant.on_class) == (message.encoding, message.on_class)
            assert (PROTOCOLS in row.told[SELECTOR]) == fine, mutant
            # Of NSObject there is a class too, whose methods no protocol tells.
            assert bool(row.wrong) == (not fine and not (mutant.on_class and mutant.owner == "NSObject")), mutant


def test_swapped_arguments_are_noticed(ours: Rows, today: compare.Oracles, known: dict[str, list[str]]) -> None:
    mutants = []
    for message in ours.messages:
        encoding = rows.split_encoding(message.encoding)
        for one in range(3, len(encoding)):
            for two in range(one + 1, len(encoding)):
                if encoding[one] != encoding[two]:
                    types = list(message.types)
                    types[one], types[two] = types[two], types[one]
                    swapped = [*encoding]
                    swapped[one], swapped[two] = encoding[two], encoding[one]
                    mutants.append(replace(message, encoding="".join(swapped), types=tuple(types)))
    assert len(mutants) > 20
    assert [m.field for m in mutants if not noticed(m, ours, today, known)] == []


def test_a_message_to_the_wrong_one_of_class_and_instance_is_noticed(
    ours: Rows, today: compare.Oracles, known: dict[str, list[str]]
) -> None:
    blind = [name for name, facts in known.items() if SIDE in facts]
    mutants = (replace(m, on_class=not m.on_class) for m in ours.messages)
    assert [text.split(":")[0] for text in unnoticed(mutants, ours, today, known)] == blind


def test_a_wrong_owner_is_noticed(ours: Rows, today: compare.Oracles, known: dict[str, list[str]]) -> None:
    """Unless the other class declares the same: newBufferWithLength:options: is a device's and a heap's."""
    owners = sorted({m.owner for m in ours.messages})
    mutants = (replace(m, owner=owner) for m in ours.messages for owner in owners if owner != m.owner)
    also = {(m.field, owner) for m in ours.messages for owner in owners if declares(owner, m, today)}
    passed = {tuple(text.split(" ")[:2]) for text in unnoticed(mutants, ours, today, known)}
    assert {(field.rstrip(":"), owner) for field, owner in passed} <= also


def declares(owner: str, message: Message, said: compare.Oracles) -> bool:
    return (owner, message.on_class, message.selector) in said.metal_cpp.methods


def test_a_row_that_is_there_twice_is_noticed(ours: Rows, today: compare.Oracles) -> None:
    found = compare.Findings()
    twice = [*ours.messages, replace(ours.messages[-1], field="again")]
    compare.compare_messages(Rows(messages=twice, blocks=ours.blocks), today, found)
    assert any("another row" in text for text in found.wrong)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_edit_of_an_encoding_or_a_selector_is_noticed(
    data: st.DataObject, ours: Rows, today: compare.Oracles, known: dict[str, list[str]]
) -> None:
    message = data.draw(st.sampled_from(ours.messages))
    part = data.draw(st.sampled_from(["encoding", "selector"]))
    text = getattr(message, part)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 3)))
    letters = "abcBCQqvV@:?^{}=_r*[]0" if part == "encoding" else "abzAZ:_01"
    edited = text[:start] + data.draw(st.text(letters, max_size=3)) + text[end:]
    assume(edited != text)
    mutant = replace(message, **{part: edited})
    if part == "encoding":
        assume(meaning(edited) != meaning(text))
    else:
        assume((message.owner, message.on_class, edited) not in today.metal_cpp.methods)
    assert noticed(mutant, ours, today, known)


def meaning(encoding: str) -> list[str] | None:
    """What rows.contradictions() compares: a oneway or the offsets of a frame change no call."""
    try:
        return [rows.plain(kind) for kind in rows.split_encoding(encoding)]
    except rows.EncodingError:
        return None


def test_wrong_constants_are_noticed(ours: Rows, today: compare.Oracles, known: dict[str, list[str]]) -> None:
    for name, (apples, value) in ours.constants.items():
        for wrong in ((apples, value + 1), (apples, value ^ 1), (apples, -1 - value), (apples + "s", value)):
            mutant = replace(ours, constants={**ours.constants, name: wrong})
            assert compare.problems(mutant, today, known), (name, wrong)


def test_wrong_classes_are_noticed(ours: Rows, today: compare.Oracles, known: dict[str, list[str]]) -> None:
    for name, apples in ours.classes.items():
        for wrong in (apples[:-1], apples + "s", apples.lower()):
            assert compare.problems(replace(ours, classes={**ours.classes, name: wrong}), today, known), wrong


def test_wrong_structs_are_noticed(ours: Rows, today: compare.Oracles, known: dict[str, list[str]]) -> None:
    for name, layout in ours.structs.items():
        *fields, size = layout
        wrongs = [[*reversed(fields), size], [*fields[:-1], size], [*fields, ("size", "8")]]
        for i, (kind, field, place, encoded) in enumerate(fields):
            for word in ((kind, field + "s", place, encoded), (kind, field, "4", encoded), (kind, field, place, "I")):
                wrongs.append([*fields[:i], word, *fields[i + 1 :], size])
        for wrong in wrongs:
            mutant = replace(ours, structs={**ours.structs, name: wrong})
            assert compare.problems(mutant, today, known), wrong


def test_wrong_blocks_and_functions_are_noticed(
    ours: Rows, today: compare.Oracles, known: dict[str, list[str]]
) -> None:
    for name in ours.blocks:
        for wrong in ("v@?", "v@?^v@", "v@?Q^v", "@@?@", "v@?@@", "v@?#"):
            assert compare.problems(replace(ours, blocks={**ours.blocks, name: wrong}), today, known), (name, wrong)
    for wrong in ("^v", "@ @", "v"):
        assert compare.problems(replace(ours, functions={"MTLCopyAllDevices": wrong}), today, known)
    assert compare.problems(replace(ours, functions={"MTLCopyAllDevice": "@"}), today, known)


def test_the_list_of_what_nobody_tells_must_be_exact(
    ours: Rows, today: compare.Oracles, known: dict[str, list[str]]
) -> None:
    assert compare.problems(ours, today, {}) != []
    assert compare.problems(ours, today, {**known, "retain": [SELECTOR]}) != []
    assert compare.problems(ours, today, {**known, "string_make": [*known["string_make"], OWNER]}) != []
    assert compare.problems(ours, today, {**known, "no_such_row": [SELECTOR]}) != []


def test_the_list_of_what_is_newer_must_be_exact(ours: Rows, macos13: compare.Oracles) -> None:
    listed = compare.newer_listed()
    for name, entry in listed.items():
        rest = {key: value for key, value in listed.items() if key != name}
        assert compare.newer_problems(ours, macos13, rest) != [], name
        assert compare.newer_problems(ours, macos13, {**listed, name: replace(entry, guard="no such words")}) != []
    entry = listed["REFLECT_BINDINGS"]
    wrong = replace(entry, older="MTLPipelineOptionBufferTypeInfo")
    assert compare.newer_problems(ours, macos13, {**listed, "REFLECT_BINDINGS": wrong}) != []
    assert compare.newer_problems(ours, macos13, {**listed, "retain": entry}) != []


# The same through the compiler: what is written in a copy of the real header is what is compared.
HEADER_MUTANTS = {
    "selector": ('"newSharedEvent"', '"newSharedEvents"'),
    "encoding": ('"setSignaledValue:", "v@:Q"', '"setSignaledValue:", "v@:q"'),
    "class": ('"NSObject", "retain"', '"+NSObject", "retain"'),
    "instance": ('"+NSURL"', '"NSURL"'),
    "owner": ('"MTLBuffer", "didModifyRange:"', '"MTLResource", "didModifyRange:"'),
    "argument": ("(umo_id, umo_selector, umo_id, umo_ns_range, uint8_t)", "(umo_id, umo_selector, umo_id, uint8_t)"),
    "swapped": (
        "(umo_id, umo_selector, umo_id, umo_ns_range, uint8_t)",
        "(umo_id, umo_selector, umo_id, uint8_t, umo_ns_range)",
    ),
    "narrow": ("typedef uint64_t umo_uint;", "typedef uint32_t umo_uint;"),
    "sign": ('"code", "q@:", int64_t', '"code", "q@:", uint64_t'),
    "object": ('"contents", "^v@:", void *', '"contents", "^v@:", umo_id'),
    "constant": ("MTLResourceStorageModePrivate, 32)", "MTLResourceStorageModePrivate, 48)"),
    "struct": ("umo_uint location;\n    umo_uint length;", "umo_uint length;\n    umo_uint location;"),
    "field": ("    umo_uint align;", "    uint32_t align;"),
    "bool": ("typedef bool umo_objc_bool;", "typedef int umo_objc_bool;"),
    "block": ("(umo_metal_block *block, umo_id command)", "(umo_metal_block *block, void *command)"),
    "name": ('CLASS(url, "NSURL")', 'CLASS(url, "NSUrl")'),
}


@pytest.mark.parametrize("kind", HEADER_MUTANTS)
def test_a_wrong_header_is_noticed(
    kind: str, tmp_path: Path, today: compare.Oracles, known: dict[str, list[str]]
) -> None:
    right, wrong = HEADER_MUTANTS[kind]
    text = rows.HEADER.read_text()
    assert text.count(right) == 1, f"the header has {right!r} {text.count(right)} times"
    header = tmp_path / "metal_api.h"
    header.write_text(text.replace(right, wrong))
    assert compare.problems(rows.read(tmp_path, header), today, known)
