"""Recordings of the flight recorder (docs/profiling.md): read, written, and turned into other tools' traces.

    profile = umo.profile.read("server.umo")
    copies = profile.events[profile.events["kind"] == umo.profile.KINDS.index("copy")]

KINDS, MODES, SIDES, USES, DIRECTIONS, REASONS and STATUSES are tuples of labels whose index is the number in an event;
PATTERNS and WHYS are those of the detail of patterns and placements.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import labels
from .binary import MARK, read_binary, write_binary
from .files import Replacing
from .model import EVENT, NONE, Profile, ProfileError, in_order
from .table import COLUMNS, read_table, write_table

if TYPE_CHECKING:
    KINDS: tuple[str, ...]
    MODES: tuple[str, ...]
    SIDES: tuple[str, ...]
    USES: tuple[str, ...]
    DIRECTIONS: tuple[str, ...]
    REASONS: tuple[str, ...]
    STATUSES: tuple[str, ...]
    PATTERNS: tuple[str, ...]
    WHYS: tuple[str, ...]

__all__ = [
    "COLUMNS",
    "DIRECTIONS",
    "EVENT",
    "KINDS",
    "MODES",
    "NONE",
    "PATTERNS",
    "REASONS",
    "SIDES",
    "STATUSES",
    "USES",
    "WHYS",
    "Profile",
    "ProfileError",
    "dump",
    "enable",
    "in_order",
    "read",
    "start",
    "stats",
    "write",
]


def __getattr__(name: str) -> tuple[str, ...]:
    if name in labels.NAMES:
        return labels.words(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def read(path: str | os.PathLike[str], partial: bool = False) -> Profile:
    """Reads a table or a .umo file; which of them it is, the first bytes say.

    `partial`: what is whole of a file that was cut short is given, and facts["truncated"] is set.

    Raises ProfileError, one line in words, for whatever is wrong with the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            first = file.peek(16)[:16]
            if not first:
                raise ProfileError(f"{path}: empty")
            if first.startswith(MARK):
                return read_binary(path, file, partial)
            if MARK.startswith(first):
                raise ProfileError(f"{path}: cut short in its header")
            return read_table(path, file, partial)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror or error}") from None


def write(path: str | os.PathLike[str], profile: Profile) -> None:
    """Writes a table when the name ends in .csv, else the .umo form. The file appears whole or not at all.

    Raises OSError.
    """
    path = Path(path)
    with Replacing(path) as target:
        (write_table if path.suffix == ".csv" else write_binary)(target.file, profile)
        target.commit()


def start(*, memory_bytes: int = 0, shards: int = 0) -> None:
    """Forgets what this process recorded and records from now on, in 4 MiB unless `memory_bytes` says otherwise."""
    from umo import _core

    _core.profile_start(memory_bytes=memory_bytes, shards=shards)


def enable(on: bool) -> None:
    """Pauses or resumes recording; what was recorded stays."""
    from umo import _core

    _core.profile_enable(on)


def dump(path: str | os.PathLike[str]) -> None:
    """Writes what this process recorded as a table (docs/profiling.md). The file appears whole or not at all."""
    from umo import _core

    _core.profile_dump(path)


def stats() -> dict[str, object]:
    """How many events are held, how many were lost, and whether recording is on."""
    from umo import _core

    return dict(_core.profile_stats())
