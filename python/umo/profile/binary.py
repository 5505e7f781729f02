"""The .umo form of a recording: compact, written while it is recorded, and checked when it is read.

    header   MARK, version (u32), length (u32), that many bytes of JSON: the facts, and the words that numbers stand for
    blocks   tag (4 bytes), count (u32), raw length (u32), coded length (u32), the coded bytes
             EVTS  events: each field of all of them, byte plane by byte plane, deflated; times as differences
             NAME  JSON, [what, number, name] each, before the first event that needs them
             END   JSON: what was lost, and facts that are known at the end only; the last one

Header and blocks are each followed by their XXH3 (64 bits). Numbers are little-endian. A file that does not end with
END was cut short; its whole blocks are good. Words are in the file, so that a later version that numbers them otherwise
reads it rightly.
"""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xxhash

from . import labels
from .model import EVENT, NONE, Profile, ProfileError, in_order

MARK = b"UMOPROF\n"
VERSION = 1
BLOCK_EVENTS = 1 << 16
_HEADER = struct.Struct("<II")
_BLOCK = struct.Struct("<4sIII")
_SUM = struct.Struct("<Q")
_JSON_MAX = 1 << 24
_WORDS = tuple(sorted(set(labels.FIELDS.values())))


def _sum(*parts: bytes) -> bytes:
    state = xxhash.xxh3_64()
    for part in parts:
        state.update(part)
    return _SUM.pack(state.intdigest())


def _encode(events: np.ndarray) -> bytes:
    planes = []
    for name in EVENT.names or ():
        column = np.ascontiguousarray(events[name])
        if name == "time_ns":
            column = np.diff(column, prepend=np.uint64(0))
        planes.append(np.ascontiguousarray(column.view(np.uint8).reshape(len(events), -1).T).tobytes())
    return zlib.compress(b"".join(planes), 1)


def _decode(raw: bytes, count: int) -> np.ndarray:
    events = np.empty(count, EVENT)
    at = 0
    for name in EVENT.names or ():
        kind = EVENT[name]
        size = kind.itemsize * count
        planes = np.frombuffer(raw, np.uint8, size, at).reshape(kind.itemsize, count)
        column = np.ascontiguousarray(planes.T).view(kind).reshape(count)
        events[name] = np.cumsum(column, dtype=np.uint64) if name == "time_ns" else column
        at += size
    return events


class Writer:
    """Writes a recording piece by piece."""

    def __init__(self, file: BinaryIO, facts: dict[str, Any]) -> None:
        self._file = file
        self.events = 0
        text = json.dumps({"facts": facts, "words": {name: labels.words(name) for name in _WORDS}}).encode()
        start = MARK + _HEADER.pack(VERSION, len(text)) + text
        file.write(start + _sum(start))

    def _block(self, tag: bytes, count: int, raw: int, coded: bytes) -> None:
        head = _BLOCK.pack(tag, count, raw, len(coded))
        self._file.write(head)
        self._file.write(coded)
        self._file.write(_sum(head, coded))

    def names(self, names: list[tuple[str, int, str]]) -> None:
        """("scope" or "device", its number, its name)."""
        text = json.dumps(names).encode()
        self._block(b"NAME", len(names), len(text), text)

    def add(self, events: np.ndarray) -> None:
        for start in range(0, len(events), BLOCK_EVENTS):
            part = events[start : start + BLOCK_EVENTS]
            self._block(b"EVTS", len(part), len(part) * EVENT.itemsize, _encode(part))
            self.events += len(part)

    def end(self, lost: int, names_lost: int, facts: dict[str, Any]) -> None:
        text = json.dumps({"events": self.events, "lost": lost, "names_lost": names_lost, "facts": facts}).encode()
        self._block(b"END\0", 0, len(text), text)
        self._file.flush()


def write_binary(file: BinaryIO, profile: Profile) -> None:
    facts = {key: value for key, value in profile.facts.items() if key != "truncated"}
    writer = Writer(file, facts)
    names = [("scope", number, name) for number, name in profile.scopes.items()]
    names += [("device", number, name) for number, name in profile.devices.items()]
    writer.names(names)
    writer.add(profile.events)
    writer.end(profile.lost, profile.names_lost, {})


# ---- reading ----


class _Cut(Exception):
    """The file ends in the middle."""


class _Damaged(Exception):
    """What was written is not what is there."""


def _take(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) < size:
        raise _Cut
    return data


def _checked(file: BinaryIO, *parts: bytes) -> None:
    if _take(file, _SUM.size) != _sum(*parts):
        raise _Damaged("a checksum is wrong")


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise _Damaged("what should be JSON is not") from None


# What readers count with; the others are shown as text.
_NUMBERS = ("pid", "started", "duration_ns", "clock_ns", "capacity", "memory_bytes", "gaps")
_TEXTS = ("command", "umo")
_MOST = 1 << 63


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise _Damaged("a number is none")
    return value


def _text(value: Any) -> str:
    """JSON can spell halves of characters, which nothing can be written in."""
    if not isinstance(value, str):
        raise _Damaged("a text is none")
    return value.encode("utf-8", "replace").decode()


def _facts(facts: dict[str, Any]) -> dict[str, Any]:
    made = dict(facts)
    for name in _NUMBERS:
        if name in made and _number(made[name]) >= _MOST:
            raise _Damaged(f"its {name} cannot be")
    return made | {name: _text(made[name]) for name in _TEXTS if name in made}


class _Words:
    """Turns a file's numbers into this version's."""

    def __init__(self, words: dict[str, list[str]]) -> None:
        self.maps: dict[str, np.ndarray] = {}
        for name in _WORDS:
            theirs, ours = tuple(words[name]), labels.words(name)
            if theirs == ours[: len(theirs)]:
                continue
            if len(theirs) > NONE:
                raise _Damaged("it has more words than there are numbers")
            table = np.full(256, NONE, np.uint8)
            for number, word in enumerate(theirs):
                table[number] = ours.index(word) if word in ours else NONE
            self.maps[name] = table
        self.most = {name: len(words[name]) for name in _WORDS}

    def apply(self, events: np.ndarray) -> None:
        for field, name in labels.FIELDS.items():
            numbers = events[field]
            known = numbers < self.most[name]
            if field.startswith("mode"):
                known |= numbers == NONE
            if not np.all(known):
                raise _Damaged(f"an event's {field} is {int(numbers[np.argmin(known)])}, which no word stands for")
            if name in self.maps:
                mapped = np.where(numbers == NONE, NONE, self.maps[name][numbers])
                if np.any((mapped == NONE) & (numbers != NONE)):
                    raise _Damaged(f"it holds a {field} that this version does not know: use a newer umo")
                events[field] = mapped


class _Reader:
    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.profile = Profile(np.empty(0, EVENT))
        self.blocks: list[np.ndarray] = []
        start = _take(file, len(MARK) + _HEADER.size)
        version, length = _HEADER.unpack_from(start, len(MARK))
        if version != VERSION:
            raise _Damaged(f"it is of version {version}, and this umo reads version {VERSION}")
        if length > _JSON_MAX:
            raise _Damaged("its header is too long")
        text = _take(file, length)
        _checked(file, start, text)
        header = _json(text)
        self.words = _Words(header["words"])
        self.profile.facts = _facts(header["facts"])

    def block(self) -> bool:
        head = _take(self.file, _BLOCK.size)
        tag, count, raw, coded = _BLOCK.unpack(head)
        if max(raw, coded) > max(_JSON_MAX, BLOCK_EVENTS * EVENT.itemsize) or count > _JSON_MAX:
            raise _Damaged("a block is too long")
        data = _take(self.file, coded)
        _checked(self.file, head, data)
        if tag == b"EVTS":
            self._events(data, count, raw)
        elif tag == b"NAME":
            for what, number, name in _json(data):
                (self.profile.scopes if what == "scope" else self.profile.devices)[_number(number)] = _text(name)
        elif tag == b"END\0":
            end = _json(data)
            if end["events"] != sum(map(len, self.blocks)):
                raise _Damaged("blocks are missing")
            self.profile.lost, self.profile.names_lost = _number(end["lost"]), _number(end["names_lost"])
            self.profile.facts.update(_facts(end["facts"]))
            if self.file.read(1):
                raise _Damaged("something follows its end")
            return False
        else:
            raise _Damaged("a block of an unknown kind")
        return True

    def _events(self, data: bytes, count: int, raw: int) -> None:
        if raw != count * EVENT.itemsize:
            raise _Damaged("a block's length is wrong")
        try:
            inflater = zlib.decompressobj()
            plain = inflater.decompress(data, raw + 1)
        except zlib.error:
            raise _Damaged("a block cannot be inflated") from None
        if len(plain) != raw:
            raise _Damaged("a block's length is wrong")
        events = _decode(plain, count)
        if np.any(events["time_ns"] >= np.uint64(_MOST)):
            raise _Damaged("an event's time cannot be")
        self.words.apply(events)
        self.blocks.append(events)


def read_binary(path: Path, file: BinaryIO, partial: bool) -> Profile:
    reader = None
    cut = None
    try:
        reader = _Reader(file)
        while reader.block():
            pass
    except _Cut:
        cut = "cut short: what it holds is whole up to there; read it with partial=True"
    except _Damaged as wrong:
        cut = f"damaged: {wrong}" if "version" not in str(wrong) else str(wrong)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        cut = "damaged: a field is missing or of the wrong kind"
    if cut is not None and (not partial or reader is None):
        raise ProfileError(
            f"{path}: {cut if reader is not None or 'cut short' not in cut else 'cut short in its header'}"
        )
    assert reader is not None
    profile = reader.profile
    profile.events = in_order(np.concatenate(reader.blocks)) if reader.blocks else np.empty(0, EVENT)
    if cut is not None:
        profile.facts["truncated"] = True
    if "duration_ns" not in profile.facts:
        profile.facts["duration_ns"] = int(profile.events["time_ns"][-1]) if len(profile.events) else 0
    return profile
