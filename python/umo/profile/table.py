"""The table that umo_profile_dump() writes: read, and written, a block of lines at a time with numpy.

Every line has all columns, no cell holds a line's end, and only the two names are quoted: so the places of all commas
of a block are found at once, and a column is an array of numbers or of words before a line is looked at.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import numpy as np

from . import labels
from .model import EVENT, NONE, Profile, ProfileError, in_order

COLUMNS = (
    "time_ns,kind,events,thread,scope,scope_name,device,driver,buffer,mode,mode_before,side,use,"
    "direction,offset_bytes,size_bytes,duration_ns,queue,fence,reason,detail,status"
)
_NAMES = COLUMNS.split(",")
_AT = {name: index for index, name in enumerate(_NAMES)}
_FIELD = {"fence": "fence_value"}
_NUMBERS = [name for name in _NAMES if name not in labels.FIELDS and name not in ("scope_name", "driver", "events")]
_BLOCK_BYTES = 4 << 20
_QUOTE, _COMMA, _END = b'",\n'


class _Line(Exception):
    """What is wrong with one row of a block."""

    def __init__(self, row: int, words: str) -> None:
        super().__init__(words)
        self.row = row


def _first(wrong: np.ndarray) -> int:
    return int(np.argmax(wrong))


class _Block:
    """Whole lines, and where their cells begin and end."""

    def __init__(self, data: bytes) -> None:
        # Room behind the last line, so that a cell can be looked at as if it were longer than it is.
        self.bytes = np.frombuffer(data + b"\0" * 32, np.uint8)
        text = self.bytes[: len(data)]
        outside = (np.cumsum(text == _QUOTE, dtype=np.uint8) & 1) == 0
        ends = np.flatnonzero(((text == _COMMA) | (text == _END)) & outside)
        lines = np.flatnonzero(text[ends] == _END)
        counts = np.diff(lines, prepend=-1)
        if len(lines) == 0:
            raise _Line(0, "a quotation mark is never closed")
        if np.any(counts != len(_NAMES)):
            row = _first(counts != len(_NAMES))
            raise _Line(row, f"{counts[row]} columns instead of {len(_NAMES)}")
        if int(lines[-1]) != len(ends) - 1 or int(ends[-1]) != len(data) - 1:
            raise _Line(len(lines), "a quotation mark is never closed")
        self.ends = ends.reshape(-1, len(_NAMES))
        self.starts = np.concatenate(([0], ends[:-1] + 1)).reshape(-1, len(_NAMES))
        self.rows = len(lines)

    def cells(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        start = np.ascontiguousarray(self.starts[:, _AT[name]])
        return start, self.ends[:, _AT[name]] - start

    def numbers(self, name: str, largest: int) -> np.ndarray:
        start, length = self.cells(name)
        longest = len(str(largest))
        if np.any(length > longest):
            raise _Line(_first(length > longest), f"{name} is too long for a number")
        value = np.zeros(self.rows, np.uint64)
        wrapped = np.zeros(self.rows, bool)
        for place in range(int(length.max(initial=0))):
            digit = self.bytes[start + place] - np.uint8(ord("0"))
            inside = place < length
            if np.any(inside & (digit > 9)):
                raise _Line(_first(inside & (digit > 9)), f"{name} is not a number")
            if place == 19:  # only here can 64 bits be too few
                most = np.uint64((1 << 64) - 1)
                wrapped |= inside & ((value > most // np.uint64(10)) | ((value == most // np.uint64(10)) & (digit > 5)))
            value = np.where(inside, value * np.uint64(10) + digit, value)
        wrapped |= value > np.uint64(largest)
        if np.any(wrapped):
            raise _Line(_first(wrapped), f"{name} is too large")
        return value

    def words(self, name: str, known: _Words) -> np.ndarray:
        start, length = self.cells(name)
        if np.any(length > known.longest):
            raise _Line(_first(length > known.longest), f"{name} is a word that this version does not know")
        index, found = known.find(self.bytes, start, length)
        if not np.all(found):
            row = _first(~found)
            raise _Line(row, f"{name} is {self.text(name, row)!r}, which this version does not know")
        return index

    def text(self, name: str, row: int) -> str:
        start, end = int(self.starts[row, _AT[name]]), int(self.ends[row, _AT[name]])
        try:
            cell = self.bytes[start:end].tobytes().decode()
        except UnicodeDecodeError:
            raise _Line(row, f"{name} is not UTF-8") from None
        if cell.startswith('"'):
            if len(cell) < 2 or not cell.endswith('"') or '"' in cell[1:-1].replace('""', ""):
                raise _Line(row, f"{name} is quoted wrongly")
            cell = cell[1:-1].replace('""', '"')
        elif '"' in cell:
            raise _Line(row, f"{name} is quoted wrongly")
        # The apostrophe that keeps a spreadsheet from running a name is no part of it.
        formula = cell.startswith("'") and cell[1:].lstrip(" ")[:1] in tuple("=+-@?\uff1d\uff0b\uff0d\uff20")
        return cell[1:] if formula else cell


class _Words:
    """Finds words of a small list in all rows at once: by a hash of their bytes, then by the bytes themselves."""

    _FACTOR = np.uint64(0x9E3779B97F4A7C15)

    def __init__(self, field: str, extra: dict[str, int] | None = None) -> None:
        numbered: dict[str, int] = {}
        for number, word in enumerate(labels.words(labels.FIELDS[field])):
            if word and not (field == "reason" and number == 0):
                numbered[word] = number
        if field not in ("kind", "status"):
            numbered[""] = NONE if field.startswith("mode") else 0
        numbered.update(extra or {})
        self.longest = max(len(word) for word in numbered)
        self.table = np.zeros((len(numbered), self.longest), np.uint8)
        for row, word in enumerate(numbered):
            self.table[row, : len(word)] = np.frombuffer(word.encode(), np.uint8)
        lengths = np.array([len(word) for word in numbered])
        hashes = self._hash(self.table.reshape(-1), np.arange(len(numbered)) * self.longest, lengths)
        order = np.argsort(hashes)
        self.hashes, self.lengths, self.table = hashes[order], lengths[order], self.table[order]
        self.numbers = np.array(list(numbered.values()), np.uint32)[order]

    def _hash(self, data: np.ndarray, start: np.ndarray, length: np.ndarray) -> np.ndarray:
        value = length.astype(np.uint64)
        for place in range(int(length.max(initial=0))):
            byte = np.where(place < length, data[np.minimum(start + place, len(data) - 1)], 0)
            value = (value ^ byte) * self._FACTOR
            value ^= value >> np.uint64(29)
        for _ in range(int(length.max(initial=0)), self.longest):
            value = value * self._FACTOR
            value ^= value >> np.uint64(29)
        return value

    def find(self, data: np.ndarray, start: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        place = np.minimum(np.searchsorted(self.hashes, h := self._hash(data, start, length)), len(self.hashes) - 1)
        found = (self.hashes[place] == h) & (self.lengths[place] == length)
        return self.numbers[place], found


_LOST = 0xFFFF


def _names_add(block: _Block, events: np.ndarray, number: str, text: str, names: dict[int, str]) -> None:
    start, length = block.cells(text)
    values, rows = np.unique(np.where(length > 0, events[number], 0), return_index=True)
    for value, row in zip(values.tolist(), rows.tolist(), strict=True):
        if value != 0 and value not in names:
            names[value] = block.text(text, row)


class _Reader:
    def __init__(self) -> None:
        self.words = {field: _Words(field, {"lost": _LOST} if field == "kind" else None) for field in labels.FIELDS}
        self.blocks: list[np.ndarray] = []
        self.profile = Profile(np.empty(0, EVENT))
        self.line = 2
        self.ended = False

    def _lost(self, block: _Block, row: int) -> None:
        if row != block.rows - 1:
            raise _Line(row + 1, "something follows the last row")
        self.profile.lost = int(block.numbers("events", (1 << 64) - 1)[row])
        self.profile.names_lost = int(block.numbers("detail", (1 << 64) - 1)[row])
        self.ended = True

    def add(self, data: bytes) -> None:
        if self.ended:
            raise _Line(0, "something follows the last row")
        block = _Block(data)
        kinds = block.words("kind", self.words["kind"])
        if np.any(kinds == _LOST):
            self._lost(block, _first(kinds == _LOST))
        events = np.empty(block.rows, EVENT)
        events["kind"] = kinds.astype(np.uint8)
        for field, words in self.words.items():
            if field != "kind":
                events[field] = block.words(field, words)
        for name in _NUMBERS:
            field = _FIELD.get(name, name)
            values = block.numbers(name, (1 << 64) - 1)
            # The last row counts names in a cell that is 32 bits wide in the others.
            wrong = values[: block.rows - self.ended] > (1 << (8 * EVENT[field].itemsize)) - 1
            if np.any(wrong):
                raise _Line(_first(wrong), f"{name} is too large")
            if name == "time_ns" and np.any(wrong := values >= np.uint64(1 << 63)):
                raise _Line(_first(wrong), f"{name} is too large")
            events[field] = values.astype(EVENT[field])
        _names_add(block, events, "scope", "scope_name", self.profile.scopes)
        _names_add(block, events, "device", "driver", self.profile.devices)
        self.blocks.append(events[:-1] if self.ended else events)
        self.line += block.rows


def _lines(file: BinaryIO) -> tuple[bytes, bytes]:
    """A block that ends with a line's end, and what was read of the line behind it."""
    data = file.read(_BLOCK_BYTES)
    return (data, b"") if not data else (data[: data.rfind(b"\n") + 1], data[data.rfind(b"\n") + 1 :])


def read_table(path: Path, file: BinaryIO, partial: bool) -> Profile:
    first = file.readline(4096)
    if first.rstrip(b"\r\n") != COLUMNS.encode():
        if first.startswith(b"time_ns,"):
            raise ProfileError(f"{path}: its columns are those of another version of umo")
        raise ProfileError(f"{path}: not a profile: it begins with neither .umo's mark nor the table's columns")
    reader = _Reader()
    rest, cut = b"", not first.endswith(b"\n")
    try:
        while True:
            block, tail = _lines(file)
            if not block and not tail:
                break
            if block:
                reader.add(rest + block)
                rest = tail
            else:
                rest += tail
                if len(rest) > 2 * _BLOCK_BYTES:
                    raise _Line(0, "a line without end")
    except _Line as wrong:
        raise ProfileError(f"{path}: line {reader.line + wrong.row}: {wrong}") from None
    cut = cut or bool(rest) or not reader.ended
    if cut and not partial:
        raise ProfileError(f"{path}: cut short: the last row, which counts what was lost, is missing")
    profile = reader.profile
    profile.events = in_order(np.concatenate(reader.blocks)) if reader.blocks else np.empty(0, EVENT)
    times = profile.events["time_ns"]
    profile.facts = {"duration_ns": int(times[-1]) if len(times) else 0}
    if cut:
        profile.facts["truncated"] = True
    return profile


# ---- writing ----


def _quoted(name: str) -> bytes:
    if not name:
        return b""
    clean = "".join(c if c.isprintable() or c == " " or (c > "\xa0" and c != "\x7f") else "?" for c in name)
    clean = clean.encode("utf-8", "replace").decode()
    start = name.lstrip(" ")[:1]
    mark = "'" if start and start in "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20" else ""
    return ('"' + mark + clean.replace('"', '""') + '"').encode()


def write_table(file: BinaryIO, profile: Profile) -> None:
    file.write((COLUMNS + "\n").encode())
    scopes = {number: _quoted(name).decode() for number, name in profile.scopes.items()}
    devices = {number: _quoted(name).decode() for number, name in profile.devices.items()}
    for start in range(0, len(profile.events), 1 << 16):
        events = profile.events[start : start + (1 << 16)]
        columns: list[list[str]] = []
        for name in _NAMES:
            field = _FIELD.get(name, name)
            if name == "events":
                columns.append(["1"] * len(events))
            elif name == "scope_name":
                columns.append([scopes.get(number, "") for number in events["scope"].tolist()])
            elif name == "driver":
                columns.append([devices.get(number, "") for number in events["device"].tolist()])
            elif name in labels.FIELDS:
                words = list(labels.words(labels.FIELDS[name]))
                words[0] = "" if name == "reason" else words[0]
                words += [""] * (256 - len(words))
                columns.append([words[number] for number in events[name].tolist()])
            elif name in ("thread", "scope", "device", "buffer"):
                columns.append([str(number) if number else "" for number in events[name].tolist()])
            else:
                columns.append([str(number) for number in events[field].tolist()])
        file.write(("\n".join(map(",".join, zip(*columns, strict=True))) + "\n").encode())
    file.write(f"0,lost,{profile.lost},,,,,,,,,,,,0,0,0,0,0,,{profile.names_lost},OK\n".encode())
