"""The words of events, read out of the C headers that the package carries: nothing here is typed twice.

A tuple's index is the number that an event's field holds; what has no number is "".
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from .. import paths

_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_REASON = re.compile(r'UMO_REASON\((\w+),\s*((?:"(?:[^"\\]|\\.)*"\s*)+),\s*((?:"(?:[^"\\]|\\.)*"\s*)+),\s*([^)]*)\)')
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"')


def _header(name: str) -> str:
    return _COMMENT.sub("", (Path(paths.include()) / "umo" / name).read_text(encoding="utf-8"))


def _enumeration(header: str, enum: str, prefix: str) -> dict[int, str]:
    found = re.search(rf"typedef enum {enum} {{(.*?)}} {enum};", _header(header), re.DOTALL)
    if found is None:
        raise RuntimeError(f"{header} has no {enum}; install umo again")
    names: dict[int, str] = {}
    number = 0
    for entry in filter(None, (part.strip() for part in found[1].split(","))):
        name, _, value = (part.strip() for part in entry.partition("="))
        number = int(value, 0) if value else number
        names[number] = name.removeprefix(prefix)
        number += 1
    return names


def _tuple(names: dict[int, str], offset: int = 0) -> tuple[str, ...]:
    return tuple(names.get(number - offset, "") for number in range(max(names) + offset + 1))


def enumerators(header: str, enum: str, prefix: str, offset: int = 0) -> tuple[str, ...]:
    names = {number: name.lower() for number, name in _enumeration(header, enum, prefix).items()}
    return _tuple(names, offset)


@cache
def reasons() -> tuple[tuple[str, str, str], ...]:
    """Each reason's label, cause and remedy, in the order of its number."""

    def words(literals: str) -> str:
        return "".join(_STRING.findall(literals)).replace('\\"', '"').replace("\\\\", "\\")

    text = _header("reasons.inc")
    return tuple((words(label), words(cause), words(remedy)) for _, label, cause, remedy in _REASON.findall(text))


_MAKERS = {
    "KINDS": lambda: enumerators("profile.h", "umo_event_kind", "UMO_EVENT_"),
    "MODES": lambda: enumerators("driver.h", "umo_storage_mode", "UMO_"),
    "SIDES": lambda: enumerators("driver.h", "umo_side", "UMO_SIDE_"),
    "USES": lambda: enumerators("buffer.h", "umo_use", "UMO_"),
    "DIRECTIONS": lambda: enumerators("trace.h", "umo_direction", "UMO_DIRECTION_", offset=1),
    "STATUSES": lambda: tuple(
        name.removeprefix("UMO_").removeprefix("E_") for name in _tuple(_enumeration("status.h", "umo_status", ""))
    ),
    "PATTERNS": lambda: enumerators("access.h", "umo_pattern", "UMO_PATTERN_"),
    "WHYS": lambda: enumerators("profile.h", "umo_placement_why", "UMO_WHY_"),
    "REASONS": lambda: tuple(label for label, _, _ in reasons()),
}

# The field of an event that each of them names.
FIELDS = {
    "kind": "KINDS",
    "mode": "MODES",
    "mode_before": "MODES",
    "side": "SIDES",
    "use": "USES",
    "direction": "DIRECTIONS",
    "reason": "REASONS",
    "status": "STATUSES",
}


NAMES = tuple(_MAKERS)


@cache
def words(name: str) -> tuple[str, ...]:
    """The tuple called KINDS, MODES, SIDES, USES, DIRECTIONS, REASONS, STATUSES, PATTERNS or WHYS."""
    return _MAKERS[name]()
