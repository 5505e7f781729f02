"""Reads protobuf's text form without knowing the message: a tree that remembers where everything stands.

The server's own parser refuses the mission's `optimization { unified_memory { ... } }`, since its message has no such
field. So that block is cut out here, by its place in the text, and the rest goes to the real parser unchanged:
comments, order and line numbers stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from google.protobuf import text_encoding

from .fields import Duplicates

_DEPTH_MAX = 60
_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\r\n\v\f]|\#[^\n]*)+)
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<number>-?[ \t]*(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fF]?)|-[ \t]*[A-Za-z]+)
      | (?P<string>"(?:[^"\\\n]|\\[^\n])*"|'(?:[^'\\\n]|\\[^\n])*')
      | (?P<mark>[][{}<>:,;/.])""",
    re.VERBOSE,
)


class TextError(ValueError):
    """Not the text form. `line` counts from 1."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


@dataclass
class Node:
    """One field: its name, its value (a scalar, a list of values, or a Block), and its part of the text."""

    name: str
    value: Any
    start: int
    end: int


@dataclass
class Block:
    """The fields between two braces."""

    nodes: list[Node] = field(default_factory=list)
    start: int = 0

    def find(self, name: str) -> list[Node]:
        """All fields of this name."""
        return [node for node in self.nodes if node.name == name]


class Reader:
    """Reads one text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, int, int]] = []
        self._at = 0
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise TextError(self.line(at), f"unexpected {text[at : at + 10]!r}")
            if match.lastgroup != "space":
                self._tokens.append((str(match.lastgroup), match.group(), at, match.end()))
            at = match.end()
        self._tokens.append(("end", "", len(text), len(text)))

    def line(self, offset: int) -> int:
        """The line of an offset, from 1."""
        return self._text.count("\n", 0, offset) + 1

    def _peek(self) -> str:
        kind, token, _, _ = self._tokens[self._at]
        return token if kind == "mark" else kind

    def _fail(self, wanted: str) -> TextError:
        kind, token, start, _ = self._tokens[self._at]
        return TextError(self.line(start), f"{wanted} expected, not {'the end' if kind == 'end' else repr(token[:40])}")

    def _take(self, what: str) -> str:
        if self._peek() != what:
            raise self._fail(what)
        token = self._tokens[self._at][1]
        self._at += 1
        return token

    def document(self) -> Block:
        """The whole text."""
        block = self._fields("end", 0)
        self._take("end")
        return block

    def _fields(self, end: str, depth: int) -> Block:
        if depth > _DEPTH_MAX:
            raise TextError(self.line(self._tokens[self._at][2]), f"more than {_DEPTH_MAX} levels of braces")
        block = Block()
        while self._peek() != end:
            start = self._tokens[self._at][2]
            name = self._name()
            if self._peek() == ":":
                self._at += 1
            elif self._peek() not in ("{", "<", "["):
                raise self._fail("':' or '{'")
            value = self._list(depth) if self._peek() == "[" else self._value(depth)
            stop = self._tokens[self._at - 1][3]
            if self._peek() in (",", ";"):
                stop = self._tokens[self._at][3]
                self._at += 1
            block.nodes.append(Node(name, value, start, stop))
        return block

    def _name(self) -> str:
        if self._peek() == "[":  # an extension, or a type's address: never of interest here
            start = self._at
            while self._peek() not in ("]", "end"):
                self._at += 1
            self._take("]")
            return "".join(token for _, token, _, _ in self._tokens[start : self._at])
        if self._peek() != "word":
            raise self._fail("a field's name")
        return self._take("word")

    def _list(self, depth: int) -> list[Any]:
        self._take("[")
        values: list[Any] = []
        while self._peek() != "]":
            if values:
                self._take(",")
            values.append(self._value(depth))
        self._take("]")
        return values

    def _value(self, depth: int) -> Any:
        mark = self._peek()
        if mark in ("{", "<"):
            end = {"{": "}", "<": ">"}[mark]
            start = self._tokens[self._at][2]
            self._at += 1
            block = self._fields(end, depth + 1)
            block.start = start
            self._take(end)
            return block
        if mark == "string":
            text = b""
            while self._peek() == "string":
                _, token, start, _ = self._tokens[self._at]
                try:
                    text += text_encoding.CUnescape(token[1:-1])
                except (ValueError, UnicodeError) as error:
                    raise TextError(self.line(start), f"a bad escape in {token[:40]}") from error
                self._at += 1
            try:
                return text.decode()
            except UnicodeDecodeError as error:
                raise TextError(self.line(start), "a string that is not UTF-8") from error
        if mark == "word":
            return {"true": True, "True": True, "t": True, "false": False, "False": False, "f": False}.get(
                token := self._take("word"), Word(token)
            )
        if mark == "number":
            return _number(self._take("number"))
        raise self._fail("a value")


class Word(str):
    """An enumerator's name, which is no string."""

    __slots__ = ()


def _number(token: str) -> Any:
    token = re.sub(r"[ \t]", "", token)
    try:
        return int(token, 0)
    except ValueError:
        pass
    if re.fullmatch(r"-?0[0-7]+", token):
        return int(token, 8)
    try:
        return float(token.rstrip("fF"))
    except ValueError:
        return Word(token)


def _word(word: Word) -> str:
    """Enumerators are written in capitals in this form, and small in JSON."""
    return word.lower() if word.isupper() else str(word)


def plain(value: Any, lists: frozenset[str] = frozenset()) -> Any:
    """A tree as JSON would have it. `lists` names the fields that repeat: each block is one entry."""
    if isinstance(value, list):
        return [plain(entry, lists) for entry in value]
    if not isinstance(value, Block):
        return _word(value) if isinstance(value, Word) else value
    pairs: dict[str, Any] = {}
    twice = []
    for node in value.nodes:
        made = plain(node.value, lists)
        if node.name in lists:
            pairs.setdefault(node.name, []).extend(made if isinstance(made, list) else [made])
        elif node.name in pairs:
            twice.append(node.name)
        else:
            pairs[node.name] = made
    return Duplicates(pairs.items(), twice)
