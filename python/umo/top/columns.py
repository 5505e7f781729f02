"""What is shown of a model, in which words, and how much of it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .rates import BufferRow, Row

BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN_BLOCKS = "_.:-=+*#"  # where a terminal has no others


def amount(value: float | None) -> str:
    """At most six characters, in units of 1,024."""
    if value is None:
        return "-"
    units = iter("KMGTPE")
    unit = ""
    while value >= 999.5:
        value, unit = value / 1024, next(units, "Z")
        if unit == "Z":
            return "many"
    if value < 9.95 and (unit or value % 1):
        return f"{value:.1f}{unit}"
    return f"{value:.0f}{unit}"


def percent(share: float | None) -> str:
    if share is None:
        return "-"
    if 0.995 <= share < 1:  # not all, and this is what an operator wants to see
        return f"{int(share * 1000) / 10:.1f}%"
    return f"{share * 100:.0f}%"


def spark(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """The last values as a line of blocks, the newest on the right."""
    shown = list(values)[-width:]
    most = max(shown, default=0.0)
    if most <= 0:
        return (blocks[0] * len(shown)).rjust(width)
    top = len(blocks) - 1
    return "".join(blocks[min(top, round(value / most * top))] for value in shown).rjust(width)


@dataclass(frozen=True)
class Column:
    """One figure of a row."""

    key: str
    title: str
    width: int
    help: str
    text: Callable[[Row, int], str]
    order: Callable[[Row], Any]  # greater is shown first
    left: bool = False


def _rate(name: str) -> Callable[[Row, int], str]:
    return lambda row, width: "-" if row.fresh else amount(getattr(row, name))


def _gauge(name: str) -> Callable[[Row, int], str]:
    return lambda row, width: amount(getattr(row, name))


def _share(name: str) -> Callable[[Row, int], str]:
    return lambda row, width: percent(getattr(row, name))


def _word(name: str) -> Callable[[Row, int], str]:
    return lambda row, width: getattr(row, name) or "-"


def _by(name: str) -> Callable[[Row], Any]:
    return lambda row: -1.0 if getattr(row, name) is None else getattr(row, name)


def _name(row: Row, width: int) -> str:
    text = row.name if row.key.version in ("1", "?") else f"{row.name} {row.key.version}"
    return text if len(text) <= width else text[: width - 1] + "…"


def _trend(row: Row, width: int) -> str:
    return spark(row.trend, width)


NAME = Column("name", "model", 20, "model, and its version where that is not 1", _name, lambda row: row.name, left=True)
# The most wanted first: what does not fit is left out from the end.
COLUMNS = (
    NAME,
    Column("moved", "moved/s", 9, "bytes that were copied or transferred", _rate("moving"), _by("moving")),
    Column("saved", "saved/s", 9, "bytes that the conventional way moves", _rate("saved"), _by("saved")),
    Column("share", "saved", 7, "saved, of all that would have moved", _share("saved_share"), _by("saved_share")),
    Column("trend", "moved: trend", 14, "moved/s, the newest on the right", _trend, _by("moving"), left=True),
    Column("live", "live", 8, "bytes that the model holds", _gauge("live"), _by("live")),
    Column("events", "moves/s", 9, "copies and transfers, how often", _rate("moves"), _by("moves")),
    Column("copied", "copied/s", 9, "bytes copied within host memory", _rate("copied"), _by("copied")),
    Column("crossed", "transf/s", 9, "bytes moved between host and device", _rate("crossed"), _by("crossed")),
    Column("used", "pool", 8, "bytes of the pools in use", _gauge("pool_used"), _by("pool_used")),
    Column("idle", "idle", 8, "bytes that the pools keep for reuse", _gauge("pool_idle"), _by("pool_idle")),
    Column("reused", "reused", 7, "blocks that needed no new memory", _share("reused"), _by("reused")),
    Column("hits", "hits", 6, "bindings found in the cache", _share("hits"), _by("hits")),
    Column("pattern", "pattern", 14, "how most of its recorded bytes are used", _word("pattern"), _by("pattern"), True),
    Column("mode", "placed", 9, "where most of its recorded bytes live", _word("mode"), _by("mode"), True),
    Column("refused", "refused/s", 10, "requests refused, memory was short", _rate("refused"), _by("refused")),
)
BY_KEY = {column.key: column for column in COLUMNS}
SORTS = ("moved", "saved", "share", "live", "events", "copied", "crossed", "idle", "refused", "name")


def fitting(width: int | None) -> list[tuple[Column, int]]:
    """The columns that fit, each with its width; what is left goes to the name. None: there is no end."""
    if width is None:
        return [(column, column.width) for column in COLUMNS]
    shown: list[tuple[Column, int]] = []
    left = width
    for column in COLUMNS:
        if column.width > left and shown:
            break
        shown.append((column, column.width))
        left -= column.width
    name, own = shown[0]
    return [(name, max(8, min(own + left, 40))), *shown[1:]]


def ordered(rows: Iterable[Row], key: str, backwards: bool = False) -> list[Row]:
    """The greatest first; names from A on. Equals stay by name."""
    column = BY_KEY[key]
    by_name = sorted(rows, key=lambda row: (row.name, row.key.version))
    return sorted(by_name, key=column.order, reverse=(key != "name") != backwards)


def buffers_ordered(rows: Iterable[BufferRow]) -> list[BufferRow]:
    return sorted(rows, key=lambda row: (-row.moving, -row.saved, -row.buffer.size_bytes, row.number))
