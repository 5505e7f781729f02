"""Quantities and names as a person reads them.

Names come from models and clients: a character that steers the text around it (writing direction, line ends, terminals)
is shown as its number instead, so that a name cannot look like another one.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

_STEERING = frozenset(("Cc", "Cf", "Cs", "Cn", "Co", "Zl", "Zp"))
_LONGEST_NAME = 160


def shown(name: str) -> str:
    """A name without characters that cannot be seen."""
    if len(name) > _LONGEST_NAME:
        name = name[: _LONGEST_NAME - 1] + "\u2026"
    return "".join(f"\u27e8U+{ord(c):04X}\u27e9" if unicodedata.category(c) in _STEERING else c for c in name)


def _scaled(value: float, step: float, units: Iterable[str]) -> str:
    units = list(units)
    place = 0
    while place + 1 < len(units) and float(f"{value:.3g}") >= step:
        value /= step
        place += 1
    digits = 0 if place == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} {units[place]}"


def amount(size_bytes: float) -> str:
    """Bytes in decimal units: 1.19 GB."""
    return _scaled(size_bytes, 1000, ("B", "kB", "MB", "GB", "TB", "PB", "EB"))


def rate(bytes_per_second: float) -> str:
    """1.19 GB/s."""
    return f"{amount(bytes_per_second)}/s"


def span(time_ns: float) -> str:
    """A time that passed: 12.3 ms, 1 min 32 s, 3 h 5 min."""
    if time_ns < 59.95e9:
        return _scaled(time_ns, 1000, ("ns", "\u00b5s", "ms", "s"))
    minutes, seconds = divmod(round(time_ns / 1e9), 60)
    if minutes < 60:
        return f"{minutes} min {seconds} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def number(value: int) -> str:
    """1,234,567."""
    return f"{value:,}"


def many(value: int, one: str, several: str | None = None) -> str:
    """1 event, 2 events."""
    return f"{value:,} {one if value == 1 else several or one + 's'}"


def percent(part: float, whole: float) -> str:
    """A share that is 0 or 100 % only where it is exactly that."""
    if whole <= 0:
        return "\u2013"
    share = 100 * part / whole
    if 0 < share < 1:
        return "< 1 %"
    if 99 < share < 100:
        return "> 99 %"
    return f"{share:.0f} %"
