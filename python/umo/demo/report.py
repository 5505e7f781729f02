"""Shows and writes what was measured."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from umo.demo.measure import Cell
from umo.demo.workloads import QUERY, SENTENCES


def _megabytes(count: int) -> str:
    if count == 0:
        return "0"
    return f"{count / 1e6:,.1f} MB" if count >= 100_000 else f"{count / 1e3:,.1f} kB"


def _milliseconds(value: float) -> str:
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def _bytes_pair(off: int, on: int) -> str:
    before, after = _megabytes(off), _megabytes(on)
    if before == after:
        return before
    unit = f" {after[-2:]}"
    return f"{before.removesuffix(unit)} -> {after}"


def _transfers(cell: Cell, outcome: str) -> int:
    return sum(count for key, count in cell.transfers.items() if key.endswith(outcome))


def table(pairs: Sequence[dict[str, Cell]]) -> Table:
    """One line a model and transport; `off -> on` in each column."""
    shown = Table(
        title="One request, unified memory off -> on",
        box=box.SIMPLE_HEAD,
        caption="Bytes: calls of at least 1 kB seen by the symbol spy, in a server of its own. Transfers: umo's own "
        "counters.\nTimes: without the spy, off and on in turns; n = requests a mode. "
        "Answers were compared with the engine alone.",
        caption_justify="left",
    )
    shown.add_column("model")
    shown.add_column("over")
    for name in ("batch", "in", "out"):
        shown.add_column(name, justify="right", no_wrap=True)
    for name in (
        "copied by server",
        "by umo",
        "by engine",
        "transfers\nperformed",
        "transfers\neliminated",
        "copies\navoided",
        "p50 ms",
        "p99 ms",
        "n",
    ):
        shown.add_column(name, justify="right", no_wrap=True)
    last = None
    for cells in pairs:
        off, on = cells["off"], cells["on"]
        if last not in (None, off.model):
            shown.add_section()
        copies = [_bytes_pair(off.copied[who], on.copied[who]) for who in ("server", "umo", "engine")]
        shown.add_row(
            off.model if off.model != last else "",
            off.transport,
            str(off.batch),
            _megabytes(off.input_bytes),
            _megabytes(off.output_bytes),
            *copies,
            _bytes_pair(_transfers(off, "performed"), _transfers(on, "performed")),
            _bytes_pair(_transfers(off, "eliminated"), _transfers(on, "eliminated")),
            _bytes_pair(sum(off.umo_avoided.values()), sum(on.umo_avoided.values())),
            f"{_milliseconds(off.percentile(0.5))} -> {_milliseconds(on.percentile(0.5))}",
            f"{_milliseconds(off.percentile(0.99))} -> {_milliseconds(on.percentile(0.99))}",
            str(len(on.times_ms)),
        )
        last = off.model
    return shown


def nearest(embeddings: np.ndarray, count: int = 3) -> list[tuple[float, str]]:
    """The sentences nearest to the query, which is row 0."""
    likeness = embeddings[1:] @ embeddings[0]
    return [(float(likeness[i]), SENTENCES[i]) for i in np.argsort(-likeness)[:count]]


def show_nearest(console: Console, embeddings: np.ndarray) -> None:
    """Prints the query and what is near it."""
    console.print(f'\n[bold]Nearest to[/bold] "{QUERY}"')
    for likeness, sentence in nearest(embeddings):
        console.print(f"  {likeness:.3f}  {sentence}")


def save_picture(picture: np.ndarray, path: Path) -> Path:
    """Writes a picture, at most about 1000 pixels wide."""
    from PIL import Image

    step = max(1, picture.shape[1] // 1000)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(picture[::step, ::step])).save(path)
    return path


def show_picture(console: Console, picture: np.ndarray, columns: int = 64) -> None:
    """Paints the picture with half blocks; only where a terminal can show colours."""
    if not console.is_terminal or console.color_system not in ("truecolor", "256"):
        return
    from PIL import Image

    rows = columns * picture.shape[0] // picture.shape[1] // 2 * 2
    small = np.asarray(Image.fromarray(picture).resize((columns, rows)))
    for upper, lower in zip(small[0::2], small[1::2], strict=True):
        line = Text("  ")
        for above, below in zip(upper, lower, strict=True):
            line.append("▀", f"rgb({above[0]},{above[1]},{above[2]}) on rgb({below[0]},{below[1]},{below[2]})")
        console.print(line)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def write_json(
    path: Path, pairs: Sequence[dict[str, Cell]], embeddings: np.ndarray | None, quick: bool, seconds: float
) -> Path:
    """The same as the table, and where it was measured."""
    import onnxruntime

    found = nearest(embeddings) if embeddings is not None else []

    content: dict[str, Any] = {
        "machine": {
            "processor": _processor(),
            "cpus": len(os.sched_getaffinity(0)),
            "system": f"{platform.system()} {platform.release()}",
            "architecture": platform.machine(),
        },
        "onnxruntime": onnxruntime.__version__,
        "quick": quick,
        "seconds": round(seconds, 1),
        "rows": [cells[mode].as_json() for cells in pairs for mode in ("off", "on")],
        "query": QUERY,
        "nearest": [{"likeness": round(value, 4), "sentence": sentence} for value, sentence in found],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
