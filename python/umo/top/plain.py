"""One table for a pipe or a dull terminal, and JSON for programs."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .columns import PLAIN_BLOCKS, amount, buffers_ordered, fitting, ordered, percent, spark
from .rates import BufferRow, Row, State, chosen
from .source import Figures

BUFFERS_SHOWN = 20
LEVELS = ("none", "low", "medium", "critical")


def level_name(value: float) -> str:
    number = int(value)
    return LEVELS[number] if 0 <= number < len(LEVELS) else str(number)


def limits(gauges: Figures) -> list[tuple[str, float, float]]:
    """Who limits memory: name, used, limit; the nearest to its limit first."""
    found = [
        (key[1], gauges.get(("usage", key[1]), 0.0), value)
        for key, value in gauges.items()
        if key[0] == "limit" and value > 0
    ]
    return sorted(found, key=lambda entry: -entry[1] / entry[2])


def health(state: State, width: int | None = None) -> str:
    """The process in one line, as much of it as fits."""
    gauges = state.process.gauges
    words = []
    if ("ready",) in gauges:
        words.append("ready" if gauges["ready",] >= 1 else "NOT READY: requests are refused")
    if ("level",) in gauges:
        words.append(f"pressure {level_name(gauges['level',])}")
    for name, used, limit in limits(gauges)[:1]:
        words.append(f"memory {amount(used)} of {amount(limit)} ({percent(used / limit)}, {name})")
    if ("entries", "view") in gauges:
        words.append(
            f"cache {amount(gauges['entries', 'view'])} views, {amount(gauges.get(('entries', 'binding'), 0))} bindings"
        )
    while width is not None and len(words) > 1 and len("; ".join(words)) > width:
        words.pop()
    return "; ".join(words)


def sums(state: State) -> str:
    """All models in one line."""
    saved, moving = state.sum("saved"), state.sum("moving")
    share = percent(saved / (saved + moving)) if saved + moving > 0 else "-"
    return f"saved {amount(saved)}/s ({share}), moved {amount(moving)}/s, live {amount(state.sum('live'))}"


def blocks_of(console: Console) -> str | None:
    """What a console can show of a trend; None for the usual."""
    return None if (console.encoding or "").lower().startswith("utf") else PLAIN_BLOCKS


def show(state: State, name: str, console: Console, sort: str, filtered: str, width: int | None) -> None:
    """Prints one table."""
    table = Table(box=None, pad_edge=False, padding=(0, 0), show_edge=False)
    columns = fitting(width)
    for column, wide in columns:
        title = f"  {column.title}" if column.left and column.key != "name" else column.title
        table.add_column(title, justify="left" if column.left else "right", width=wide, no_wrap=True, overflow="crop")
    plain = blocks_of(console)
    for row in ordered(chosen(state.rows.values(), filtered), sort):
        cells = []
        for column, wide in columns:
            space = wide - 2 if column.left else wide
            text = column.text(row, space)
            if column.key == "trend" and plain is not None:
                text = spark(row.trend, space, plain)
            cells.append(Text(text if not column.left or column.key == "name" else f"  {text}"))
        table.add_row(*cells)
    for line in (name, health(state), sums(state)):
        if line:
            console.print(Text(line), soft_wrap=True)
    console.print(table)
    if state.buffers:
        console.print()
        console.print(_buffers(state.buffers, filtered))


def _buffers(rows: list[BufferRow], filtered: str) -> Table:
    """The buffers that move most. Nodes have a column where something was moved to one."""
    table = Table(box=None, pad_edge=False, padding=(0, 0), show_edge=False)
    for title, width in (("buffer", 8), ("size", 8), ("moved/s", 9), ("saved/s", 9), ("placed", 9)):
        table.add_column(title, width=width, no_wrap=True, justify="left" if title == "buffer" else "right")
    nodes = any(row.buffer.node for row in rows)
    if nodes:
        table.add_column("node", width=6, no_wrap=True, justify="right")
    table.add_column("  pattern", width=15, no_wrap=True)
    table.add_column("model", width=16 if nodes else 22, no_wrap=True, overflow="ellipsis")
    for row in buffers_ordered(row for row in rows if filtered.lower() in row.buffer.model.lower())[:BUFFERS_SHOWN]:
        table.add_row(
            str(row.number),
            amount(row.buffer.size_bytes),
            amount(row.moving),
            amount(row.saved),
            row.buffer.mode or "-",
            *([row.buffer.node or "-"] if nodes else []),
            f"  {row.buffer.pattern or '-'}",
            Text(row.buffer.model),
        )
    return table


def _named(figures: Figures) -> dict[str, float]:
    return {"/".join(key): round(value, 3) for key, value in sorted(figures.items())}


def _model(row: Row) -> dict[str, Any]:
    return {
        "model": row.key.name,
        "version": row.key.version,
        "moved_bytes_per_s": round(row.moving, 3),
        "saved_bytes_per_s": round(row.saved, 3),
        "saved_share": None if row.saved_share is None else round(row.saved_share, 6),
        "rates": _named(row.rates),
        "totals": _named(row.totals),
        "gauges": _named(row.gauges),
    }


def as_object(state: State, name: str, sort: str, filtered: str) -> dict[str, Any]:
    """A refresh for a program: all figures, rates a second."""
    made: dict[str, Any] = {"time": round(time.time(), 3), "source": name}
    if state.error is not None:
        return {**made, "error": state.error}
    made["interval_s"] = round(state.seconds, 3)
    made["restarts"] = state.restarts
    made["process"] = {"rates": _named(state.process.rates), "gauges": _named(state.process.gauges)}
    made["models"] = [_model(row) for row in ordered(chosen(state.rows.values(), filtered), sort)]
    if state.buffers is not None:
        made["lost_events"] = state.lost
        made["buffers"] = [
            {
                "buffer": row.number,
                "model": row.buffer.model,
                "size_bytes": row.buffer.size_bytes,
                "mode": row.buffer.mode,
                "node": row.buffer.node,
                "pattern": row.buffer.pattern,
                "rates": _named(row.rates),
                "totals": _named(row.buffer.counters),
            }
            for row in state.buffers
        ]
    return made
