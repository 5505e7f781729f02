"""Says how much of metal_api.h each oracle confirms: PYTHONPATH=tests python -m oracle.report"""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

from oracle import compare, rows
from oracle.compare import METADATA, METAL_CPP, NSOBJECT, PROTOCOLS
from oracle.fetch import CACHE, pins

PATH = CACHE / "report.txt"
BY_PYOBJC = {METADATA, PROTOCOLS}
GROUPS = ("both oracles", "metal-cpp alone", "PyObjC alone", "objc/NSObject.h alone", "no oracle wholly")


def whole(facts: dict[str, set[str]], voices: set[str]) -> bool:
    """Whether some voices confirm all that can be wrong in a call: the selector and every type."""
    types = (fact for fact in facts if fact not in (compare.OWNER, compare.SIDE))
    return all(facts[fact] & voices for fact in types)


def group(facts: dict[str, set[str]]) -> str:
    by_metal_cpp, by_pyobjc = whole(facts, {METAL_CPP}), whole(facts, BY_PYOBJC)
    if by_metal_cpp or by_pyobjc:
        return GROUPS[0] if by_metal_cpp and by_pyobjc else GROUPS[1] if by_metal_cpp else GROUPS[2]
    return GROUPS[3] if whole(facts, {NSOBJECT}) else GROUPS[4]


def section(title: str, found: compare.Findings, names: list[str]) -> list[str]:
    groups = {name: group(found.told[name]) for name in names}
    counts = Counter(groups.values())
    lines = [f"{title}: {len(names)}"]
    for kind in GROUPS:
        if counts[kind]:
            members = [name for name in names if groups[name] == kind]
            named = "" if kind == GROUPS[0] else ": " + ", ".join(members)
            lines.append(f"  by {kind}: {counts[kind]}{named}")
    return lines


def text(ours: rows.Rows, today: compare.Oracles, macos13: compare.Oracles) -> str:
    found, old = compare.compare(ours, today), compare.compare(ours, macos13)
    messages = [message.field for message in ours.messages]
    lines = ["What Apple's declarations say of src/driver/metal/metal_api.h", ""]
    lines += [f"  {pin.name}: {pin.requirement}" for pin in pins().values()]
    sdks = {old.sdk for old in today.protocols.values()}, {old.sdk for old in macos13.protocols.values()}
    lines += [f"  SDKs of PyObjC's protocols: {', '.join(sorted(set.union(*sdks)))}", ""]
    lines += section("messages", found, messages)
    compiled = [name for name in messages if PROTOCOLS in found.told[name][compare.SELECTOR]]
    lines.append(f"  to the letter by Apple's compiler, on arm64 and x86-64 (PyObjC's protocols): {len(compiled)}")
    lines += section("constants", found, list(ours.constants))
    lines += section("classes", found, [f"class {name}" for name in ours.classes])
    lines += section("structs", found, [f"struct {name}" for name in ours.structs])
    lines += section("blocks", found, [f"block {name}" for name in ours.blocks])
    lines += section("functions", found, [f"function {name}" for name in ours.functions])
    uncovered = [f"{name} ({', '.join(facts)})" for name, facts in found.uncovered().items()]
    lines.append(f"contradicted: {len(found.wrong)}")
    lines.append(f"told by nobody: {'; '.join(uncovered) or 'nothing'}")
    newer = compare.newer(ours, old)
    lines.append(f"in macOS 13: all but {len(newer)}, which the driver does without: {', '.join(newer)}")
    lines += ["", "row by row:"]
    for name, facts in found.told.items():
        voices = sorted(set.union(*facts.values()), key=compare.VOICES.index)
        lines.append(f"  {name}: {', '.join(voices) or 'nobody'}")
    return "\n".join(lines) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        ours = rows.read(Path(folder))
    said = text(ours, compare.read_oracles(), compare.read_oracles("13"))
    PATH.write_text(said)
    print(said, end="")


if __name__ == "__main__":
    main()
