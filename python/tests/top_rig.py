"""What the tests of umo top share: a source that says what a test wants, and what a screen shows as text."""

from __future__ import annotations

import html
import re

from textual.app import App

from umo.top.source import Buffer, Model, ModelKey, Reading, SourceError

MIB = float(1 << 20)
GIB = float(1 << 30)


class Script:
    """A source that gives prepared readings, one after the other, the last again and again."""

    name = "http://server:8002/metrics"

    def __init__(self, *readings: Reading | SourceError) -> None:
        self.readings = list(readings)
        self.reads = 0
        self.closed = False

    def read(self) -> Reading:
        given = self.readings[min(self.reads, len(self.readings) - 1)]
        self.reads += 1
        if isinstance(given, SourceError):
            raise given
        return given

    def close(self) -> None:
        self.closed = True


def model(seconds: float, copied: float = 0, saved: float = 0, reason: str = "scattered", live: float = MIB) -> Model:
    """A model that has worked for so long at these rates."""
    return Model(
        counters={
            ("copied", reason, "in"): copied * seconds,
            ("copies", reason, "in"): 10 * seconds if copied else 0,
            ("avoided", "in"): saved * seconds,
            ("avoids", "in"): 5 * seconds,
            ("crossed", "host_to_device", "performed"): 0,
            ("crossed", "host_to_device", "eliminated"): 0,
            ("blocks", "new"): 1,
            ("blocks", "kept"): 9 * seconds + 1,
            ("bindings", "hit"): 3 * seconds,
            ("bindings", "miss"): 1 * seconds,
            ("refused",): 0,
        },
        gauges={
            ("live",): live,
            ("peak",): 2 * live,
            ("buffers",): 3,
            ("pool", "used"): live / 2,
            ("pool", "idle"): live / 4,
            ("mode", "unified"): live,
            ("mode", "private"): 0,
            ("pattern", "streaming"): live / 2,
            ("pattern", "unknown"): live / 4,
        },
    )


def process(level: float = 0, ready: float = 1) -> Model:
    return Model(
        counters={("answers", "trim"): 0, ("evictions",): 0},
        gauges={
            ("level",): level,
            ("ready",): ready,
            ("usage", "cgroup"): 3 * GIB,
            ("limit", "cgroup"): 4 * GIB,
            ("usage", "physical"): 3 * GIB,
            ("limit", "physical"): 64 * GIB,
            ("entries", "view"): 12,
            ("entries", "binding"): 40,
        },
    )


def reading(seconds: float, buffers: dict[int, Buffer] | None = None, **models: Model) -> Reading:
    return Reading(
        seconds, {ModelKey(name, "1"): made for name, made in models.items()}, process=process(), buffers=buffers
    )


def three(seconds: float) -> Reading:
    """Three models: one that copies much, one that copies nothing, one that rests."""
    return reading(
        seconds,
        bert=model(seconds, copied=30 * MIB, saved=10 * MIB, reason="control_data", live=512 * MIB),
        resnet=model(seconds, saved=800 * MIB, live=GIB),
        idle=model(0),
    )


def text_of(app: App[None]) -> list[str]:
    """The screen's lines, read from its own picture."""
    svg = app.export_screenshot()
    cells: dict[float, dict[float, str]] = {}
    advance = 0.0
    for attributes, content in re.findall(r"<text ([^>]*)>(.*?)</text>", svg, re.S):
        x, y = re.search(r'\bx="([\d.]+)"', attributes), re.search(r'\by="([\d.]+)"', attributes)
        length = re.search(r'textLength="([\d.]+)"', attributes)
        if x is None or y is None or length is None:
            continue  # the picture's title
        said = html.unescape(content).replace("\xa0", " ")
        advance = advance or float(length[1]) / len(said)
        cells.setdefault(float(y[1]), {})[float(x[1])] = said
    lines = []
    for y in sorted(cells):
        line = ""
        for x in sorted(cells[y]):
            line = line.ljust(round(x / advance)) + cells[y][x]
        lines.append(line.rstrip())
    return lines


def cell_width(app: App[None]) -> int:
    return max(len(line) for line in text_of(app))
