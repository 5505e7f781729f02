"""What all sources give: one reading of what a server's models have counted.

Figures are keyed by tuples and not by a source's own names, so that the screen need not know where they come from:

    counters   ("copied", reason, direction)    bytes       ("copies", reason, direction)    events
               ("crossed", direction, outcome)  bytes       ("crossings", direction, outcome) events
               ("avoided", direction)           bytes       ("avoids", direction)             events
               ("bound", cache)                 bytes       ("bindings", cache)               events
               ("allocated",), ("allocations",), ("moved",), ("moves",), ("blocks", memory), ("trimmed",), ("refused",),
               ("scratch", where), ("followed",), ("relocated",), ("relocations",)
    gauges     ("live",), ("peak",), ("buffers",), ("pool", state), ("mode", mode), ("pattern", pattern)

    of the process, counters: ("answers", answer), ("evictions",)
                    gauges:   ("level",), ("ready",), ("usage", source), ("limit", source), ("entries", kind),
                              ("views",)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

Figures = dict[tuple[str, ...], float]


class SourceError(Exception):
    """No reading, and why, in one line."""


class ModelKey(NamedTuple):
    name: str
    version: str


@dataclass
class Model:
    """What one model has counted since it was loaded, and holds now."""

    counters: Figures = field(default_factory=dict)
    gauges: Figures = field(default_factory=dict)


@dataclass
class Buffer:
    """What one buffer did; sources that see single buffers have them."""

    model: str
    size_bytes: int = 0
    mode: str = ""
    pattern: str = ""
    counters: Figures = field(default_factory=dict)
    node: str = ""  # to which its pages were moved last, where that was seen


@dataclass
class Reading:
    """All of a server at one time, `time_s` on a clock that only goes forward."""

    time_s: float
    models: dict[ModelKey, Model] = field(default_factory=dict)
    process: Model = field(default_factory=Model)
    buffers: dict[int, Buffer] | None = None
    lost: int = 0  # events that came too fast to be seen


class Source(Protocol):
    """Where readings come from."""

    @property
    def name(self) -> str:
        """What the user asked for."""

    def read(self) -> Reading:
        """Takes a reading. Raises SourceError. Not from two threads at once."""

    def close(self) -> None:
        """Lets go of what it holds."""


PRINTABLE_MOST = 120


def printable(text: str) -> str:
    """A name from elsewhere, without what a terminal would take for a command."""
    cut = text if len(text) <= PRINTABLE_MOST else text[: PRINTABLE_MOST - 1] + "…"
    return "".join(c if c.isprintable() else "?" for c in cut)
