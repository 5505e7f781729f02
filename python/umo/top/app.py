"""The screen of `umo top`.

It reads on a thread, one reading at a time, and draws what the Tracker made of it: a server that answers slowly makes
the figures old, never the screen. What is old is grey, and a line says why.
"""

from __future__ import annotations

import contextlib
import time
from typing import ClassVar

from rich.text import Text
from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.coordinate import Coordinate
from textual.css.query import NoMatches
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Input, Static

from .columns import COLUMNS, SORTS, amount, buffers_ordered, fitting, ordered, percent, spark
from .plain import health, limits, sums
from .rates import Reason, Row, State, Tracker, chosen, total
from .source import ModelKey, Reading, Source, SourceError

ROWS_MOST = 200  # more than anybody looks through; a filter finds the others
Advice = dict[str, tuple[str, str]]  # label: what happened, what to do


def advice() -> Advice:
    """The library's own words for each reason; none where it is not there, as beside a remote server."""
    from ..words import reasons

    try:
        return {words.label: (words.cause, words.remedy) for words in reasons()}
    except (OSError, AttributeError):
        return {}


def bar(share: float, width: int = 20) -> str:
    full = min(width, round(max(0.0, share) * width))
    return "█" * full + "░" * (width - full)


class Help(ModalScreen[None]):
    """What the keys do and the columns mean."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter", "app.pop_screen", "close", show=False)
    ]

    def compose(self) -> ComposeResult:
        keys = (
            ("arrows, page", "choose a model"),
            ("enter", "its reasons, each with its advice; escape goes back"),
            ("s, S", "order by the next figure, or the one before"),
            ("r", "turn the order round"),
            ("/", "show only models whose name has a text; escape shows all"),
            ("p, space", "pause: no readings, the figures stay"),
            ("+ -", "read more seldom, or more often"),
            ("q", "end"),
        )
        lines = [f"{key:14} {what}" for key, what in keys]
        lines += ["", "Rates are a second; bytes in units of 1,024 (K M G T). Moved is what umo could not save:"]
        lines += ["copies within host memory and transfers between host and device.", ""]
        lines += [f"{column.title.strip():14} {column.help}" for column in COLUMNS]
        lines += ["", "docs/monitoring.md has more. Any of escape, ?, q closes this."]
        with VerticalScroll(id="help"):
            yield Static("\n".join(lines), markup=False)


class Detail(Screen[None]):
    """One model: what it still moves and why, and where its memory is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,backspace,left", "app.pop_screen", "back"),
        Binding("p,space", "app.pause", "pause"),
        Binding("question_mark", "app.help", "help"),
        Binding("q", "app.quit", "quit"),
    ]
    _TABLE: ClassVar[tuple[tuple[str, int], ...]] = (
        ("reason", 18),
        ("way", 5),
        ("copied/s", 10),
        ("copies/s", 10),
        ("in all", 9),
        ("of its bytes", 14),
    )
    _BUFFERS: ClassVar[tuple[tuple[str, int], ...]] = (
        ("buffer", 10),
        ("size", 8),
        ("moved/s", 9),
        ("saved/s", 9),
        ("placed", 10),
        ("node", 6),
        ("pattern", 14),
    )

    def __init__(self, key: ModelKey, words: Advice) -> None:
        super().__init__()
        self._key = key
        self._words = words
        self._labels: list[str] = []
        self._ready = False

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="summary", markup=False)
        yield DataTable(id="reasons", cursor_type="row", cell_padding=0)
        yield Static(id="advice", markup=False)
        yield DataTable(id="buffers", cursor_type="row", cell_padding=0)
        yield Footer()

    def on_mount(self) -> None:
        for table, columns in (("#reasons", self._TABLE), ("#buffers", self._BUFFERS)):
            for title, width in columns:
                text = Text(title, justify="left" if title in ("reason", "buffer") else "right")
                self.query_one(table, DataTable).add_column(text, width=width)
        self._ready = True
        app = self.app
        assert isinstance(app, Top)
        self.draw(app.state, app.old)

    def draw(self, state: State, old: bool) -> None:
        if not self._ready:  # a reading came before it was made
            return
        row = state.rows.get(self._key)
        self.query_one("#title", Static).update(_title(f" {self._key.name} {self._key.version} ", old or row is None))
        if row is None:
            self.query_one("#summary", Static).update("The server does not have this model any more.")
            return
        self.query_one("#summary", Static).update(Text(_summary(row, self.app.size.width), style="dim" if old else ""))
        self._draw_reasons(row)
        self._draw_buffers(state, row)

    def _draw_reasons(self, row: Row) -> None:
        table = self.query_one("#reasons", DataTable)
        reasons = row.reasons()
        at = self._labels[table.cursor_row] if self._labels and table.cursor_row < len(self._labels) else None
        table.clear()
        self._labels = [f"{reason.label}/{reason.direction}" for reason in reasons]
        for reason in reasons:
            table.add_row(*_reason_cells(reason, row))
        table.display = bool(reasons)
        if at in self._labels:
            table.move_cursor(row=self._labels.index(at))
        self._draw_advice()

    def _draw_advice(self) -> None:
        table = self.query_one("#reasons", DataTable)
        said = self.query_one("#advice", Static)
        if not self._labels:
            said.update("Nothing of this model's tensors has been copied.")
            return
        label = self._labels[min(table.cursor_row, len(self._labels) - 1)].partition("/")[0]
        cause, remedy = self._words.get(label, ("", ""))
        if not cause:
            said.update(f"{label}: docs/reasons.md says what happened and what to do.")
            return
        said.update(f"{label}: {cause}.\nWhat to do: {remedy}.")

    def _draw_buffers(self, state: State, row: Row) -> None:
        table = self.query_one("#buffers", DataTable)
        table.display = state.buffers is not None
        if state.buffers is None:
            return
        table.clear()
        own = [entry for entry in state.buffers if entry.buffer.model == row.name]
        for entry in buffers_ordered(own)[:ROWS_MOST]:
            cells = (
                amount(entry.buffer.size_bytes),
                amount(entry.moving),
                amount(entry.saved),
                entry.buffer.mode or "-",
                entry.buffer.node or "-",
                entry.buffer.pattern or "-",
            )
            table.add_row(str(entry.number), *(Text(cell, justify="right") for cell in cells))

    def on_data_table_row_highlighted(self, event: DataTable.RowHighlighted) -> None:
        if event.data_table.id == "reasons":
            self._draw_advice()


def _reason_cells(reason: Reason, row: Row) -> list[Text]:
    whole = row.moving + row.saved
    share = percent(reason.bytes_s / whole) if whole > 0 else "-"
    rates = ("-", "-") if row.fresh else (amount(reason.bytes_s), amount(reason.events_s))
    cells = (reason.direction, *rates, amount(reason.bytes), share)
    return [Text(reason.label), *(Text(cell, justify="right") for cell in cells)]


def _parts(row: Row, word: str, label: str) -> str:
    parts = sorted(((value, key[1]) for key, value in row.gauges.items() if key[0] == word and value > 0), reverse=True)
    return f"{label}: {', '.join(f'{name} {amount(value)}' for value, name in parts)}" if parts else ""


def _summary(row: Row, width: int) -> str:
    """A model in some lines."""
    rate = (lambda value: "-") if row.fresh else amount
    crossed = [
        f"{way.replace('_', ' ')} {rate(total(row.rates, 'crossed', way, 'performed'))}/s"
        for way in ("host_to_device", "device_to_host")
    ]
    trend_width = max(10, min(60, width - 20))
    lines = [
        f"saved {rate(row.saved)}/s ({percent(row.saved_share)})   moved {rate(row.moving)}/s   "
        f"moves {rate(row.moves)}/s",
        f"moved: trend  {spark(row.trend, trend_width).strip()}",
        f"copied {rate(row.copied)}/s   transferred {', '.join(crossed)}",
        f"holds {amount(row.live)}, at most {amount(total(row.gauges, 'peak'))}; "
        f"buffers: {amount(total(row.gauges, 'buffers'))}",
        f"pools: {amount(row.pool_used)} in use, {amount(row.pool_idle)} kept; blocks reused {percent(row.reused)}",
        f"bound in place: {rate(total(row.rates, 'bindings'))}/s, {percent(row.hits)} from the cache",
        _parts(row, "mode", "placed"),
        _parts(row, "pattern", "patterns"),
    ]
    if row.refused:
        lines.append(f"REFUSED {amount(row.refused)} requests/s: memory is short")
    return "\n".join(line for line in lines if line)


def _title(text: str, old: bool) -> Text:
    return Text(text, style="reverse dim" if old else "reverse bold")


class Models(DataTable[Text]):
    """The table of models: its key for a row is named in the footer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "select_cursor", "reasons")]


class Top(App[None]):
    """Reads a source every `interval_s` and shows what it says."""

    CSS = """
    #title, #message, #health, #sums { height: 1; }
    #message { display: none; text-style: bold; }
    #filter { display: none; border: none; height: 1; }
    #models { height: 1fr; }
    #reasons { height: auto; max-height: 50%; }
    #buffers { height: 1fr; }
    #summary, #advice { height: auto; margin: 1 0; }
    Help { align: center middle; }
    #help { width: 78; max-width: 100%; height: auto; max-height: 100%; border: round; padding: 0 1; }
    DataTable > .datatable--header { text-style: bold underline; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "quit"),
        Binding("p,space", "pause", "pause"),
        Binding("s", "sort(1)", "sort"),
        Binding("S", "sort(-1)", "sort back", show=False),
        Binding("r", "turn", "turn round"),
        Binding("slash", "filter", "filter", key_display="/"),
        Binding("plus,equals_sign", "slower(2)", "slower", show=False),
        Binding("minus", "slower(0.5)", "faster", show=False),
        Binding("question_mark", "help", "help", key_display="?"),
        Binding("escape", "unfilter", "all", show=False),
    ]
    INTERVALS: ClassVar[tuple[float, float]] = (0.1, 600.0)

    def __init__(
        self, source: Source, interval_s: float, sort: str = "moved", only: str = "", first: Reading | None = None
    ) -> None:
        super().__init__()
        self._source = source
        self._interval_s = interval_s
        self._tracker = Tracker()
        if first is not None:
            self._tracker.take(first)
        self._sort = sort
        self._backwards = False
        self._filter = only
        self._paused = False
        self._reading = False
        self._answered = time.monotonic()
        self._keys: list[ModelKey] = []
        self._words: Advice | None = None
        self._shown_width = 0
        self._shown_sort: tuple[str, bool] | None = None

    @property
    def state(self) -> State:
        return self._tracker.state

    @property
    def old(self) -> bool:
        """Whether what is shown is not what the server says now."""
        return self.state.error is not None

    def compose(self) -> ComposeResult:
        yield Static(id="title", markup=False)
        yield Static(id="health", markup=False)
        yield Static(id="sums", markup=False)
        yield Static(id="message", markup=False)
        yield Input(self._filter, id="filter", placeholder="part of a model's name")
        yield Models(id="models", cursor_type="row", cell_padding=0)
        yield Footer()

    def on_mount(self) -> None:
        self.query_one("#models", DataTable).focus()
        self._timer = self.set_interval(self._interval_s, self._tick)
        self._draw()
        if self.state.readings == 0:
            self._tick()

    # ---- reading ----

    def _tick(self) -> None:
        if self._paused or self._reading:
            if self._reading:
                self._draw()  # the line that says how long there was no answer
            return
        self._reading = True
        self._read()

    @work(thread=True, exclusive=True)
    def _read(self) -> None:
        try:
            reading: Reading | SourceError = self._source.read()
        except SourceError as error:
            reading = error
        if self.is_running:
            self.call_from_thread(self._arrived, reading)

    def _arrived(self, reading: Reading | SourceError) -> None:
        self._reading = False
        if isinstance(reading, SourceError):
            self._tracker.fail(str(reading))
        else:
            self._answered = time.monotonic()
            self._tracker.take(reading)
        if not self._paused:
            self._draw()

    # ---- drawing ----

    def _draw(self) -> None:
        with contextlib.suppress(NoMatches):  # a screen that is being made, or taken down
            if self.screen_stack:
                self._draw_all()

    def _draw_all(self) -> None:
        state, width = self.state, self.size.width
        if isinstance(self.screen, Detail):
            self.screen.draw(state, self.old)
        screen = self.screen_stack[0]
        now = time.strftime("%H:%M:%S")
        right = f"every {self._interval_s:g} s  {now} "
        left = f" umo top  {self._source.name}"
        room = width - len(right) - 1
        left = left if len(left) <= room else left[: max(0, room - 1)] + "…"
        screen.query_one("#title", Static).update(_title(left.ljust(room) + " " + right, self.old))
        screen.query_one("#health", Static).update(self._line(self._health()))
        screen.query_one("#sums", Static).update(self._line(self._sums()))
        message = screen.query_one("#message", Static)
        said = self._message()
        message.display = bool(said)
        message.update(Text(said, style="red" if self.old else "yellow"))
        self._draw_models(screen.query_one("#models", DataTable))

    def _line(self, text: str) -> Text:
        return Text(text, style="dim" if self.old else "", no_wrap=True, overflow="ellipsis")

    def _health(self) -> str:
        text = health(self.state, self.size.width)
        nearest = limits(self.state.process.gauges)
        room = self.size.width - len(text) - 2
        if nearest and room >= 10:
            text += "  " + bar(nearest[0][1] / nearest[0][2], min(20, room))
        return text

    def _sums(self) -> str:
        if self.state.readings < 2:
            return "a second reading makes rates"
        text = sums(self.state)
        room = self.size.width - len(text) - 2
        return f"{text}  {spark(self.state.trend, room).strip()}" if room >= 10 else text

    def _message(self) -> str:
        state = self.state
        words = []
        if self._paused:
            words.append("PAUSED, p goes on")
        waited = time.monotonic() - self._answered
        if state.error is not None:
            words.append(f"OLD by {waited:.0f} s: {state.error}")
        elif not state.rows and state.readings > 0:
            where = "no model of umo's backends is loaded there"
            words.append(where if state.buffers is None else "nothing has happened since the start of the recording")
        elif self._filter:
            words.append(f"only models with {self._filter!r}, escape shows all")
        if len(state.rows) > ROWS_MOST and not self._filter:
            words.append(f"the first {ROWS_MOST} of {len(state.rows)} models, / finds the others")
        if state.restarts:
            words.append(f"counters started over {state.restarts} x")
        if state.lost:
            words.append(f"{amount(state.lost)} events came too fast to be seen")
        return "; ".join(words)

    def _draw_models(self, table: DataTable[Text]) -> None:
        width = self.size.width
        columns = fitting(width)
        at = self._chosen()
        if self._shown_width != width or self._shown_sort != (self._sort, self._backwards):
            self._shown_width, self._shown_sort = width, (self._sort, self._backwards)
            table.clear(columns=True)
            for column, wide in columns:
                mark = ("▲" if self._backwards else "▼") if column.key == self._sort else ""
                title = column.title.strip() + mark
                table.add_column(
                    Text(("  " if column.left and column.key != "name" else "") + title)
                    if column.left
                    else Text(title, justify="right"),
                    width=wide,
                    key=column.key,
                )
        rows = ordered(chosen(self.state.rows.values(), self._filter), self._sort, self._backwards)[:ROWS_MOST]
        self._keys = [row.key for row in rows]
        scroll = table.scroll_y
        table.clear()
        style = "dim" if self.old else ""
        for row in rows:
            cells = []
            for column, wide in columns:
                text = column.text(row, wide - 2 if column.left else wide)
                indent = "  " if column.left and column.key != "name" else ""
                cells.append(Text(indent + text, justify="left" if column.left else "right", style=style))
            table.add_row(*cells)
        if at in self._keys:
            table.cursor_coordinate = Coordinate(self._keys.index(at), 0)
        table.scroll_to(y=scroll, animate=False)

    def _chosen(self) -> ModelKey | None:
        row = self.query_one("#models", DataTable).cursor_row if self.is_mounted else 0
        return self._keys[row] if 0 <= row < len(self._keys) else None

    def on_resize(self, event: events.Resize) -> None:
        self.call_after_refresh(self._draw)

    # ---- keys ----

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """What orders and filters the table of models does so where it is seen."""
        return len(self.screen_stack) <= 1 or action not in ("sort", "turn", "filter", "unfilter")

    def action_pause(self) -> None:
        self._paused = not self._paused
        self._draw()

    def action_sort(self, by: int) -> None:
        shown = {column.key for column, _ in fitting(self.size.width)}
        sorts = [key for key in SORTS if key in shown]
        at = sorts.index(self._sort) if self._sort in sorts else 0
        self._sort = sorts[(at + by) % len(sorts)]
        self._draw()

    def action_turn(self) -> None:
        self._backwards = not self._backwards
        self._draw()

    def action_slower(self, factor: float) -> None:
        least, most = self.INTERVALS
        self._interval_s = min(most, max(least, self._interval_s * factor))
        self._timer.stop()
        self._timer = self.set_interval(self._interval_s, self._tick)
        self._draw()

    def action_filter(self) -> None:
        field = self.query_one("#filter", Input)
        field.display = True
        field.focus()

    def action_unfilter(self) -> None:
        field = self.query_one("#filter", Input)
        field.value = ""
        self._end_filter(field)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._filter = event.value.strip()
        self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._end_filter(event.input)

    def _end_filter(self, field: Input) -> None:
        field.display = False
        self.query_one("#models", DataTable).focus()
        self._draw()

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        if event.data_table.id == "models":
            self.action_detail()

    def action_detail(self) -> None:
        key = self._chosen()
        if key is None or len(self.screen_stack) > 1:
            return
        if self._words is None:
            self._words = advice()
        self.push_screen(Detail(key, self._words))

    def action_help(self) -> None:
        if not isinstance(self.screen, Help):
            self.push_screen(Help())
