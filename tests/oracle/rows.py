"""The rows of metal_api.h, as the compiler understands them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from oracle.build import CLANGXX, run, told
from oracle.fetch import CACHE, HERE, ROOT

HEADER = ROOT / "src" / "driver" / "metal" / "metal_api.h"
SOURCES = ("read_rows.cc", "encode.hpp")
# Two pointers that C cannot tell apart from others become types of their own in the copy that is compiled.
OWN_TYPES = (
    ("typedef void *umo_id;", "typedef struct oracle_object *umo_id;"),
    ("typedef const void *umo_selector;", "typedef const struct oracle_selector *umo_selector;"),
)
QUALIFIERS = "rnNoORV"  # const, in, in and out, out, bycopy, byref, oneway
CLOSING = {"{": "}", "[": "]", "(": ")"}


class EncodingError(ValueError):
    """A type encoding that cannot be read."""


@dataclass(frozen=True)
class Message:
    field: str
    owner: str  # without the "+"
    on_class: bool
    selector: str
    encoding: str
    types: tuple[str, ...]  # of the C call: result, receiver, selector, arguments; in encodings
    words: str  # result and parameters as written


@dataclass
class Rows:
    messages: list[Message] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)
    constants: dict[str, tuple[str, int]] = field(default_factory=dict)  # name: Apple's name, value
    structs: dict[str, list[tuple[str, ...]]] = field(default_factory=dict)
    blocks: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)  # C functions: result and parameters


def end_of_type(text: str, start: int) -> int:
    """Where the type that begins at start ends."""
    at = start
    while at < len(text) and text[at] in QUALIFIERS:
        at += 1
    if at == len(text):
        raise EncodingError(f"{text!r} ends inside a type")
    letter = text[at]
    if letter == "^":
        return end_of_type(text, at + 1)
    if letter == "@":
        if text.startswith("@?", at):
            at += 1
            letter = "?"
        if text.startswith('"', at + 1):
            return text.index('"', at + 2) + 1
        if letter == "?" and text.startswith("<", at + 1):
            return end_of_nest(text, at + 1, "<", ">")
        return at + 1
    if letter in CLOSING:
        return end_of_nest(text, at, letter, CLOSING[letter])
    if letter in "vBcCsSiIlLqQfdD#:*?":
        return at + 1
    raise EncodingError(f"{text!r} has no type at {at}")


def end_of_nest(text: str, start: int, opening: str, closing: str) -> int:
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == opening) - (text[at] == closing)
        if depth == 0:
            return at + 1
    raise EncodingError(f"{text!r} does not close its {opening}")


def split_encoding(text: str) -> list[str]:
    """The types of a method's encoding: result, receiver, selector, arguments. Offsets of the frame are passed over."""
    types = []
    at = 0
    while at < len(text):
        end = end_of_type(text, at)
        types.append(text[at:end])
        at = end
        while at < len(text) and (text[at].isdigit() or text[at] == "-"):
            at += 1
    return types


def plain(encoded: str) -> str:
    """An encoding without what no call depends on: oneway, names of classes, the call of a block, and const before an
    object or a pointer to one (metal-cpp puts it there, Objective-C does not)."""
    encoded = re.sub(r'@"[^"]*"', "@", encoded)
    encoded = re.sub(r"@\?<.*>", "@?", encoded)
    encoded = encoded.lstrip("VnNoOR")
    return re.sub(r"^r(?=\^*@)", "", encoded)


def own_copy(header: Path, folder: Path) -> Path:
    text = header.read_text()
    for given, wanted in OWN_TYPES:
        if text.count(given) != 1:
            raise EncodingError(f"{header.name} does not have the one line {given!r}")
        text = text.replace(given, wanted)
    copy = folder / "rows.h"
    copy.write_text(text)
    return copy


def ask(folder: Path, header: Path) -> str:
    """What the program tells of a header; kept until the header or the program changes."""
    copy = own_copy(header, folder)
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in (copy, *(HERE / name for name in SOURCES))))
    digest.update((ROOT / "include" / "umo" / "status.h").read_bytes())
    kept = CACHE / "rows" / f"{digest.hexdigest()[:16]}.txt"
    if kept.is_file():
        return kept.read_text()
    program = folder / "read_rows"
    command = [CLANGXX, "-std=c++17", "-fblocks", "-O0", f"-I{HERE}", f"-I{ROOT / 'include'}"]
    command += [f'-DUMO_ORACLE_HEADER="{copy}"', HERE / "read_rows.cc", "-o", program]
    run(command)
    text = run([program])
    kept.parent.mkdir(parents=True, exist_ok=True)
    partial = kept.with_suffix(".part")
    partial.write_text(text)
    partial.rename(kept)
    return text


def read(folder: Path, header: Path = HEADER) -> Rows:
    """Compiles a header's rows in a folder of the caller's and reads them back."""
    rows = Rows()
    for kind, *words in told(ask(folder, header)):
        if kind == "message":
            rows.messages.append(make_message(words))
        elif kind == "class":
            rows.classes[words[0]] = words[1]
        elif kind == "constant":
            rows.constants[words[0]] = (words[1], int(words[2]))
        elif kind == "block":
            rows.blocks[words[0]] = words[1]
        elif kind == "function":
            rows.functions[words[0]] = words[1]
        else:
            rows.structs.setdefault(words[0], []).append((kind, *words[1:]))
    return rows


def make_message(words: Sequence[str]) -> Message:
    name, owner, selector, encoding, types, result, parameters = words
    return Message(
        field=name,
        owner=owner.lstrip("+"),
        on_class=owner.startswith("+"),
        selector=selector,
        encoding=encoding,
        types=tuple(types.split(" ")),
        words=f"{result} {parameters}",
    )


def contradictions(message: Message) -> list[str]:
    """What is wrong with a row, whatever Apple says: its encoding, its C types and its selector must agree."""
    try:
        encoded = split_encoding(message.encoding)
    except EncodingError as error:
        return [str(error)]
    wrong = []
    if encoded[1:3] != ["@", ":"]:
        wrong.append(f"{message.encoding!r} does not begin its arguments with @:")
    if message.selector.count(":") != len(encoded) - 3:
        wrong.append(f"{message.selector!r} and {message.encoding!r} have different numbers of arguments")
    if len(encoded) != len(message.types):
        return [*wrong, f"{message.encoding!r} and {message.words!r} have different numbers of types"]
    for at, (said, typed) in enumerate(zip(encoded, message.types, strict=True)):
        said = plain(said)
        if said != typed and not (said == "@?" and typed == "r^v"):  # a block goes as a const void *
            place = "result" if at == 0 else f"argument {at}"
            wrong.append(f"the {place} is {said!r} in {message.encoding!r} and {typed!r} in {message.words!r}")
    return wrong
