"""What PyObjC says: the metadata of its Metal and Foundation bindings, which is made from Apple's headers.

The metadata is a Python module that registers facts with `objc`; it is run against an `objc` that keeps them. It tells
only what a bridge needs beyond the runtime's own words, so what it does not mention it does not deny. Methods of
protocols are registered with NSObject, that is: without their owner.
"""

from __future__ import annotations

import re
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MODIFIERS = "nNoOR"  # in, in and out, out, bycopy, byref
# PyObjC's own letters: BOOL, and characters that are text. (It has one more, z: a number of one byte, of any sign.)
LETTERS = {"Z": "B", "t": "c", "^t": "*"}
# Structs whose typedef has the name and whose tag has none; in the metadata they go by the name.
UNNAMED = ("MTLSize", "MTLSizeAndAlign", "MTLOrigin", "MTLRegion")


@dataclass(frozen=True)
class Told:
    """What is told of one selector; None and absence are silence."""

    result: str | None
    arguments: dict[int, str]  # from 0
    blocks: dict[int, str]  # of the arguments that are blocks: the types of the call
    count: int | None  # of the arguments; told for methods of protocols


@dataclass
class PyObjC:
    methods: dict[tuple[str, str], Told] = field(default_factory=dict)  # (owner, selector)
    constants: dict[str, int] = field(default_factory=dict)
    structs: dict[str, tuple[str, tuple[str, ...]]] = field(default_factory=dict)  # name: encoding, fields
    functions: dict[str, str] = field(default_factory=dict)


def plain(encoded: bytes | str) -> str:
    """A type in the letters of Objective-C, without the modifiers of a parameter."""
    text = (encoded.decode() if isinstance(encoded, bytes) else encoded).lstrip(MODIFIERS)
    for name in UNNAMED:
        text = re.sub(rf"{{_?{name}=", "{?=", text)
    return LETTERS.get(text, text)


def told(metadata: dict[str, Any]) -> Told:
    arguments, blocks = {}, {}
    for place, argument in metadata.get("arguments", {}).items():
        if "type" in argument:
            arguments[place - 2] = plain(argument["type"])
        if call := argument.get("callable"):
            inner = [plain(word["type"]) for _, word in sorted(call["arguments"].items())]
            blocks[place - 2] = plain(call["retval"]["type"]) + "@?" + "".join(inner[1:])
    result = metadata.get("retval", {}).get("type")
    count = len(arguments) if "required" in metadata else None  # a protocol's method is told whole
    return Told(plain(result) if result else None, arguments, blocks, count)


class Listener(types.ModuleType):
    """The module `objc` as the metadata sees it."""

    arch = "arm64"

    def __init__(self, said: PyObjC) -> None:
        super().__init__("objc")
        self.said = said

    def registerMetaDataForSelector(self, owner: bytes, selector: bytes, metadata: dict[str, Any]) -> None:
        self.said.methods[owner.decode(), selector.decode()] = told(metadata)

    def createStructType(self, name: str, encoding: bytes, fields: list[str], *_: Any) -> str:
        name = name.rpartition(".")[2]
        self.said.structs[name] = (plain(encoding), tuple(fields or ()))
        return name

    def __getattr__(self, _: str) -> Any:
        return lambda *_arguments, **_named: None  # nothing else tells of types


def run(path: Path, said: PyObjC) -> dict[str, Any]:
    before = sys.modules.get("objc")
    sys.modules["objc"] = Listener(said)
    module: dict[str, Any] = {}
    try:
        exec(compile(path.read_text(), path.name, "exec"), module)
    finally:
        if before is None:
            del sys.modules["objc"]
        else:
            sys.modules["objc"] = before
    return module


def read(folder: Path) -> PyObjC:
    """One framework's metadata. An alias is a constant's other name."""
    said = PyObjC()
    module = run(folder / "_metadata.py", said)
    for name, value in re.findall(r"\$(\w+)@(-?\d+)(?=\$)", module["enums"]):
        said.constants[name] = int(value)
    for alias, name in module["aliases"].items():
        if name in said.constants:
            said.constants[alias] = said.constants[name]
    for name, function in module["functions"].items():
        said.functions[name] = plain(function[0])
    return said
