"""Compares the rows of metal_api.h with what the oracles say.

Every row is a handful of facts: that there is such a selector, which class or protocol declares it, whether it is of
the class, the type of its result and of each argument. An oracle confirms a fact, contradicts it, or is silent. A fact
that nobody confirms is *uncovered*; uncovered.txt lists those, and the comparison fails where the list is wrong.

What no comparison can see is a row with another message's true selector and types: that addAllocation: is what adds is
told by the tests that drive the fake.
"""

from __future__ import annotations

import functools
import itertools
import re
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from oracle import metal_cpp, nsobject, protocols, pyobjc, rows
from oracle.fetch import HERE, ROOT, oracle

METAL_CPP = "metal-cpp"
METADATA = "pyobjc metadata"
PROTOCOLS = "pyobjc protocols"
NSOBJECT = "objc/NSObject.h"
VOICES = (METAL_CPP, METADATA, PROTOCOLS, NSOBJECT)
SELECTOR, OWNER, SIDE, RESULT = "selector", "owner", "class or instance", "result"
# The rows that take a block, and which of the header's two kinds.
BLOCK_OF = {"command_on_completed": "completed", "new_buffer_no_copy": "deallocator"}
STRUCTS = {"umo_ns_range": "NSRange", "umo_mtl_size": "MTLSize", "umo_mtl_size_and_align": "MTLSizeAndAlign"}
POINTER_BYTES = 8


@dataclass(frozen=True)
class Oracles:
    metal_cpp: metal_cpp.MetalCpp
    metal: pyobjc.PyObjC
    foundation: pyobjc.PyObjC
    protocols: dict[str, protocols.Protocols]
    nsobject: dict[tuple[bool, str], str]
    whole: bool  # what Metal's classes lack here is not there: true of the newest, not of an old system's

    @functools.cached_property
    def constants(self) -> dict[str, dict[str, int]]:
        return {METAL_CPP: self.metal_cpp.constants, METADATA: self.metal.constants}


def read_oracles(version: str = "") -> Oracles:
    """The newest, or with "13" those of macOS 13."""
    metal = oracle(f"pyobjc-{version}.0" if version else "pyobjc")
    foundation = oracle(f"pyobjc-cocoa-{version}.0" if version else "pyobjc-cocoa")
    (library,) = metal.glob("_Metal.*.so")
    with tempfile.TemporaryDirectory() as folder:
        said = nsobject.read(Path(folder))
    return Oracles(
        metal_cpp.read(oracle(f"metal-cpp-{version}.3" if version else "metal-cpp")),
        pyobjc.read(metal),
        pyobjc.read(foundation),
        protocols.read(library),
        said,
        whole=not version,
    )


@dataclass
class Findings:
    # name of a row, constant, class, struct, block or function: each of its facts with the voices that confirm it
    told: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def uncovered(self) -> dict[str, list[str]]:
        gaps = {name: [fact for fact, voices in facts.items() if not voices] for name, facts in self.told.items()}
        return {name: facts for name, facts in gaps.items() if facts}


def argument(place: int) -> str:
    return f"argument {place + 1}"


def facts_of(message: rows.Message) -> list[str]:
    arguments = [argument(i) for i in range(max(0, len(message.types) - 3))]
    return [SELECTOR, OWNER, SIDE, RESULT, *arguments]


@dataclass
class Row:
    """One message being compared."""

    message: rows.Message
    blocks: dict[str, str]
    told: dict[str, set[str]]
    wrong: list[str]

    def says(self, voice: str, facts: Iterable[str]) -> None:
        for fact in facts:
            self.told[fact].add(voice)

    def contradicts(self, voice: str, text: str) -> None:
        self.wrong.append(f"{self.message.field}: {voice} {text}")

    @functools.cached_property
    def types(self) -> list[str]:
        try:
            return rows.split_encoding(self.message.encoding)
        except rows.EncodingError:
            return []

    def compare_types(self, voice: str, facts: dict[str, str]) -> None:
        """Types by fact: each that agrees is confirmed, each other one is wrong."""
        for fact, theirs in facts.items():
            place = 0 if fact == RESULT else int(fact.split()[1]) + 2
            ours = self.types[place] if place < len(self.types) else "nothing"
            if agree(ours, theirs, self.block()):
                self.says(voice, [fact])
            else:
                self.contradicts(voice, f"has {theirs!r} as its {fact}, the row {ours!r}")

    def block(self) -> str | None:
        return self.blocks.get(BLOCK_OF.get(self.message.field, ""))


def agree(ours: str, theirs: str, block: str | None) -> bool:
    """Whether a type of ours is an oracle's. metal-cpp and PyObjC put const before pointers where Apple does not, and
    the other way round: no call depends on it, and Apple's compiler (compare_protocols) is compared to the letter."""
    call = re.fullmatch(r"@\?<(.*)>", theirs)
    if call is not None and block is not None and call[1] != block:
        return False
    ours, theirs = rows.plain(ours).removeprefix("r"), rows.plain(theirs).removeprefix("r")
    return ours == theirs or (theirs == "z" and ours in "cC")


def compare_metal_cpp(row: Row, said: metal_cpp.MetalCpp, whole: bool) -> None:
    message = row.message
    overloads = said.methods.get((message.owner, message.on_class, message.selector))
    if overloads is None:
        if (message.owner, not message.on_class, message.selector) in said.methods:
            row.contradicts(METAL_CPP, "sends it to the other of class and instance")
        elif whole and message.owner.startswith("MTL"):
            row.contradicts(METAL_CPP, f"has no {message.selector} of {message.owner}")
        return
    row.says(METAL_CPP, [SELECTOR, OWNER, SIDE])
    trials = []
    for types in overloads:
        trial = Row(message, row.blocks, {fact: set() for fact in row.told}, [])
        named = {RESULT: types[0], **{argument(i): kind for i, kind in enumerate(types[3:])}}
        if len(types) != len(row.types):
            trial.contradicts(METAL_CPP, f"has {len(types) - 3} arguments")
        trial.compare_types(METAL_CPP, {fact: kind for fact, kind in named.items() if fact in row.told})
        trials.append(trial)
    best = min(trials, key=lambda trial: len(trial.wrong))
    row.says(METAL_CPP, [fact for fact, voices in best.told.items() if voices])
    row.wrong += best.wrong


def of_another(told: pyobjc.Told, message: rows.Message, said: Oracles) -> bool:
    """Whether metadata without an owner is of another protocol, which has the selector with just these types."""
    theirs = [told.result, *(kind for _, kind in sorted(told.arguments.items()))]
    for (owner, _, selector), overloads in said.metal_cpp.methods.items():
        if selector == message.selector and owner != message.owner:
            for types in overloads:
                mine = [types[0], *types[3:]]
                if len(mine) == len(theirs) and all(a and agree(b, a, None) for a, b in zip(theirs, mine, strict=True)):
                    return True
    return False


def compare_metadata(row: Row, said: Oracles) -> None:
    message = row.message
    kept = said.metal if message.owner.startswith("MTL") else said.foundation
    of_owner = kept.methods.get((message.owner, message.selector))
    if of_owner is not None:
        compare_told(row, of_owner, [SELECTOR, OWNER])
        return
    told = kept.methods.get(("NSObject", message.selector)) if message.owner.startswith("MTL") else None
    if told is None:
        return
    trial = Row(message, row.blocks, {fact: set() for fact in row.told}, [])
    if told.count is not None and message.on_class:
        trial.contradicts(METADATA, "has it as a protocol's method, which is of an instance")
    compare_told(trial, told, [SELECTOR])
    if trial.wrong and of_another(told, message, said):
        return
    row.says(METADATA, [fact for fact, voices in trial.told.items() if voices])
    row.wrong += trial.wrong


def compare_told(row: Row, told: pyobjc.Told, known: list[str]) -> None:
    row.says(METADATA, known)
    types = {argument(i): kind for i, kind in told.arguments.items()}
    if told.count is not None and told.count + 3 != len(row.types):
        row.contradicts(METADATA, f"has {told.count} arguments")
    if told.result is not None:
        types[RESULT] = told.result
    row.compare_types(METADATA, {fact: kind for fact, kind in types.items() if fact in row.told})
    for call in told.blocks.values():
        if call != row.block():
            row.contradicts(METADATA, f"calls the block as {call!r}, umo's is {row.block()!r}")


def compare_protocols(row: Row, said: dict[str, protocols.Protocols], whole: bool) -> None:
    """Apple's compiler, on both architectures; a BOOL is the only type that they have apart."""
    message = row.message
    same = set()
    for cpu, kept in said.items():
        if message.owner not in kept.names or (message.owner == "NSObject" and message.on_class):
            continue  # NSObject is also a class, of whose methods the protocol says nothing
        encoding = kept.methods.get((message.owner, message.on_class, message.selector))
        if encoding is None:
            if whole and any(owner == message.owner for owner, _, _ in kept.methods):
                row.contradicts(PROTOCOLS, f"({cpu}) have no {message.selector} in {message.owner}")
            continue
        theirs = rows.split_encoding(encoding)
        ours = ["c" if kind == "B" and cpu == "x86_64" else kind for kind in row.types]
        if ours == theirs:
            same.add(cpu)
        else:
            row.contradicts(PROTOCOLS, f"({cpu}) have {''.join(theirs)!r}, the row {''.join(ours)!r}")
    if same == set(said):
        row.says(PROTOCOLS, row.told)


def compare_nsobject(row: Row, said: dict[tuple[bool, str], str]) -> None:
    message = row.message
    result = said.get((message.on_class, message.selector))
    if message.owner == "NSObject" and result is not None:
        row.says(NSOBJECT, [SELECTOR, OWNER, SIDE])
        row.compare_types(NSOBJECT, {RESULT: result})


def compare_messages(ours: rows.Rows, said: Oracles, found: Findings) -> None:
    keys = [(m.owner, m.on_class, m.selector) for m in ours.messages]
    for message in ours.messages:
        row = Row(message, ours.blocks, {fact: set() for fact in facts_of(message)}, [])
        row.wrong += [f"{message.field}: {text}" for text in rows.contradictions(message)]
        if keys.count((message.owner, message.on_class, message.selector)) > 1:
            row.wrong.append(f"{message.field}: another row has the same selector of the same owner")
        compare_metal_cpp(row, said.metal_cpp, said.whole)
        compare_metadata(row, said)
        compare_protocols(row, said.protocols, said.whole)
        compare_nsobject(row, said.nsobject)
        found.told[message.field] = row.told
        found.wrong += row.wrong


def compare_constants(ours: rows.Rows, said: Oracles, found: Findings) -> None:
    for name, (apples, value) in ours.constants.items():
        voices = {voice: kept[apples] for voice, kept in said.constants.items() if apples in kept}
        found.told[name] = {apples: {voice for voice, theirs in voices.items() if theirs == value}}
        for voice, theirs in voices.items():
            if theirs != value:
                found.wrong.append(f"{name}: {voice} has {theirs} as {apples}, the header {value}")


def compare_classes(ours: rows.Rows, said: Oracles, found: Findings) -> None:
    registered = {owner for kept in (said.metal, said.foundation) for owner, _ in kept.methods}
    for name, apples in ours.classes.items():
        voices = {METAL_CPP} if apples in said.metal_cpp.classes else set()
        found.told[f"class {name}"] = {apples: voices | ({METADATA} if apples in registered else set())}


def compare_structs(ours: rows.Rows, said: Oracles, found: Findings) -> None:
    structs = {**said.foundation.structs, **said.metal.structs}
    for name, layout in ours.structs.items():
        apples = STRUCTS.get(name, "")
        voices = set()
        if layout == said.metal_cpp.structs.get(apples):
            voices.add(METAL_CPP)
        else:
            found.wrong.append(f"{name}: metal-cpp has {said.metal_cpp.structs.get(apples)}, the header {layout}")
        if apples in structs:
            encoding, fields = structs[apples]
            theirs = [*zip(fields, encoding[encoding.index("=") + 1 : -1], strict=True)]
            if theirs == [(words[1], words[3]) for words in layout if words[0] == "field"]:
                voices.add(METADATA)
            else:
                found.wrong.append(f"{name}: pyobjc has {theirs}, the header {layout}")
        found.told[f"struct {name}"] = {apples: voices}


def compare_blocks(ours: rows.Rows, said: Oracles, found: Findings) -> None:
    """The calls themselves are compared with the rows that take the blocks; here, that each is taken by one."""
    for name, call in ours.blocks.items():
        takers = [m for m in ours.messages if BLOCK_OF.get(m.field) == name]
        voices = set()
        for message in takers:
            overloads = said.metal_cpp.methods.get((message.owner, message.on_class, message.selector), [])
            if any(f"@?<{call}>" in types for types in overloads):
                voices.add(METAL_CPP)
            told = said.metal.methods.get(("NSObject", message.selector))
            if told is not None and call in told.blocks.values():
                voices.add(METADATA)
        found.told[f"block {name}"] = {call: voices}


def compare_functions(ours: rows.Rows, said: Oracles, found: Findings) -> None:
    for name, types in ours.functions.items():
        kept = {METAL_CPP: said.metal_cpp.functions, METADATA: said.metal.functions}
        voices = {voice: functions[name] for voice, functions in kept.items() if name in functions}
        found.told[f"function {name}"] = {types: {voice for voice, theirs in voices.items() if theirs == types}}
        for voice, theirs in voices.items():
            if theirs != types:
                found.wrong.append(f"{name}: {voice} has {theirs!r}, the header {types!r}")


def compare(ours: rows.Rows, said: Oracles) -> Findings:
    found = Findings()
    compare_messages(ours, said, found)
    compare_constants(ours, said, found)
    compare_classes(ours, said, found)
    compare_structs(ours, said, found)
    compare_blocks(ours, said, found)
    compare_functions(ours, said, found)
    return found


def listed(path: Path) -> Iterator[list[str]]:
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            yield [word.strip() for word in line.split(" | ")]


def uncovered_listed(path: Path = HERE / "uncovered.txt") -> dict[str, list[str]]:
    return {name: [fact.strip() for fact in facts.split(",")] for name, facts, _ in listed(path)}


def problems(ours: rows.Rows, said: Oracles, known: dict[str, list[str]]) -> list[str]:
    """What is wrong with the header, and where uncovered.txt is not exactly right."""
    found = compare(ours, said)
    uncovered = found.uncovered()
    wrong = list(found.wrong)
    for name in sorted({*uncovered, *known}):
        if uncovered.get(name) != known.get(name):
            wrong.append(f"{name}: no oracle tells {uncovered.get(name)}, uncovered.txt lists {known.get(name)}")
    return wrong


# --- what macOS 13 lacks ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Newer:
    since: str
    older: str  # the name that the same value had before; "-" for none
    file: str
    guard: str  # the words in that file that let the driver cope
    how: str


def newer_listed(path: Path = HERE / "newer.txt") -> dict[str, Newer]:
    return {name: Newer(*words) for name, *words in listed(path)}


def newer(ours: rows.Rows, found: Findings) -> list[str]:
    """Names that macOS 13's oracles do not know: rows whose owner none of them names, and whatever else none tells."""
    names = {message.field for message in ours.messages}
    return [name for name, facts in found.told.items() if not (facts[OWNER] if name in names else any(facts.values()))]


def newer_problems(ours: rows.Rows, old: Oracles, known: dict[str, Newer]) -> list[str]:
    found = compare(ours, old)
    missing = newer(ours, found)
    wrong = [text for text in found.wrong if text.split(":")[0] not in missing]
    wrong += [f"{name}: macOS 13 lacks it, newer.txt does not list it" for name in missing if name not in known]
    wrong += [f"{name}: newer.txt lists it, macOS 13 has it" for name in known if name not in missing]
    for name, entry in known.items():
        if entry.guard not in (ROOT / entry.file).read_text():
            wrong.append(f"{name}: {entry.file} does not have {entry.guard!r}")
        if entry.older != "-":
            values = [kept.get(entry.older) for kept in old.constants.values()]
            if name not in ours.constants or any(value != ours.constants[name][1] for value in values):
                wrong.append(f"{name}: {entry.older} has the values {values} in macOS 13")
    return wrong


# --- the signatures of metal_api.c -----------------------------------------------------------------------------


def signature(call: str) -> str:
    """The signature that clang gives a block on a 64-bit machine: each type with its place in the frame. All types of
    umo's two blocks take eight bytes."""
    result, *arguments = rows.split_encoding(call)
    places = itertools.count(0, POINTER_BYTES)
    return f"{result}{POINTER_BYTES * len(arguments)}" + "".join(f"{kind}{next(places)}" for kind in arguments)


def signatures_written(path: Path = ROOT / "src" / "driver" / "metal" / "metal_api.c") -> dict[str, str]:
    """By block, the signature in the descriptor of the function that makes it."""
    function = re.compile(r"^umo_metal_block umo_metal_(\w+)_block\(.*?^\}", re.DOTALL | re.MULTILINE)
    written = {}
    for found in function.finditer(path.read_text()):
        (text,) = re.findall(r'\.signature = "(.*?)"', found[0])
        written[found[1]] = text
    return written
