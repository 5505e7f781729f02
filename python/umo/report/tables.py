"""The tables of the page. A cell's exact value is its data-v, by which the script sorts."""

from __future__ import annotations

from .. import profile as recording
from . import findings as looks
from . import kinds
from .content import MOST_BUFFERS, MOST_CHANGES, Content, amount, span
from .html import Html, join, tag
from .kinds import Columns
from .sums import MEASUREMENTS, BufferRow, Model, Row, bytes_of
from .words import many, number, percent, shown


def _table(name: str, heads: list[tuple[str, bool]], rows: list[Html], caption: str) -> Html:
    """Columns can be sorted; those of numbers stand to the right."""
    columns = [
        tag("th", tag("button", label, type="button"), scope="col", class_="number" if numeric else None)
        for label, numeric in heads
    ]
    parts = (tag("caption", caption, class_="hidden"), tag("thead", tag("tr", *columns)), tag("tbody", *rows))
    return tag("div", tag("table", *parts, id=f"{name}-table"), class_=f"scroll {name}")


def _size(value: int, kind: str | None = None) -> Html:
    classes = " ".join(filter(None, ("number", kind, None if value else "none")))
    return tag("td", amount(value) if value else "0", data_v=value, title=f"{value:,} bytes", class_=classes)


def _count(value: int) -> Html:
    return tag("td", number(value), data_v=value, class_="number" if value else "number none")


def _time(value: int) -> Html:
    return tag("td", span(value) if value else "\u2013", data_v=value, class_="number" if value else "number none")


def _rest(count: int, more: str = "") -> Html:
    return tag("p", f"{many(count, 'smaller row')}{more} {'is' if count == 1 else 'are'} left out.", class_="note")


# ---- what still moves ----


def _what(content: Content, row: Row) -> Html:
    """Which tensor: the buffers, or the size where a copy has none."""
    lanes = [content.lanes.lanes[lane] for lane in row.lanes]
    low, high = row.size_bytes
    each = amount(low) if low == high else f"{amount(low)} to {amount(high)}"
    times = many(row.events, row.what, "copies" if row.what == "copy" else None)
    what = tag("span", f"{times} {row.direction}, {each} each")
    if not lanes[0].buffers:
        return what
    count = sum(lane.buffers for lane in lanes)
    which = f"buffer #{lanes[0].buffer}" if count == 1 else many(count, "buffer")
    device = content.device(lanes[0].device)
    said = ", ".join(filter(None, (lanes[0].modes, f"on {device}" if device else "", which)))
    return join(what, tag("small", said))


def _advice(content: Content, row: Row) -> Html:
    bar = tag("svg", tag("rect", width=f"{100 * row.share:.3f}%", height="100%"), class_="share", aria_hidden="true")
    share = tag("span", percent(row.bytes, content.totals.moved.bytes), class_="of")
    hint = "the event names no reason; its buffer's storage mode does" if row.inferred else None
    return tag(
        "tr",
        tag("td", tag("b", amount(row.bytes)), share, bar, data_v=row.bytes, class_="size"),
        tag("th", content.scope(row.scope), scope="row"),
        tag("td", _what(content, row), data_v=row.events),
        tag("td", row.cause, " ", tag("code", row.reason, title=hint), data_v=row.reason, data_label="Why"),
        tag("td", row.remedy, class_="do", data_label="What to do"),
        class_="row",
        data_bytes=row.bytes,
        data_events=row.events,
    )


def todo(content: Content, most: int) -> Html:
    """What still moves, why, and what to do, the most bytes first."""
    rows = content.summary.rows
    if not rows:
        return tag("p", "No bytes moved: there is nothing to do.", class_="empty")
    heads = [(name, False) for name in ("Still moves", "Model", "What", "Why", "What to do")]
    table = _table("todo", heads, [_advice(content, row) for row in rows[:most]], "What still moves")
    rest = rows[most:]
    return join(table, _rest(len(rest), f" with {amount(sum(row.bytes for row in rest))}") if rest else None)


# ---- models and buffers ----


def _model(content: Content, model: Model) -> Html:
    moved, saved = bytes_of(model.moved), bytes_of(model.saved)
    measures = content.profile.scopes.get(model.scope) in MEASUREMENTS
    share = saved / (moved + saved) if moved + saved else -1
    asked = [_count(model.requests), _time(model.median_ns), _time(model.p99_ns)]
    return tag(
        "tr",
        tag("th", content.scope(model.scope), tag("small", " measures the machine") if measures else None, scope="row"),
        asked if content.totals.requests is not None else None,
        _count(model.uses["host"]),
        _count(model.uses["device"]),
        _size(model.moved["in"].bytes, "moved"),
        _size(model.moved["out"].bytes, "moved"),
        _size(model.saved["in"].bytes, "saved"),
        _size(model.saved["out"].bytes, "saved"),
        tag("td", percent(saved, moved + saved), data_v=share, class_="number"),
        _size(content.memory.peaks.get(model.scope, 0)),
        _size(content.memory.ends.get(model.scope, 0)),
        class_="row",
        data_scope=model.scope,
    )


def models(content: Content) -> Html:
    """Each scope; requests only where the recording has any."""
    asked = [("Requests", True), ("Median", True), ("99 %", True)] if content.totals.requests is not None else []
    names = ("Host uses", "Device uses", "Moved in", "Moved out", "Saved in", "Saved out", "Saved", "Peak memory")
    heads = [("Model", False), *asked, *((name, True) for name in names), ("At the end", True)]
    rows = [_model(content, model) for model in content.summary.models]
    return _table("models", heads, rows, "Each model, and each other scope")


def _buffer(content: Content, row: BufferRow) -> Html:
    lane = content.lanes.lanes[row.lane]
    which = f"#{lane.buffer}" if lane.buffer else many(lane.buffers, "buffer")
    return tag(
        "tr",
        tag("th", content.scope(lane.scope), scope="row"),
        tag("td", which, data_v=lane.buffer or lane.buffers),
        tag("td", lane.role),
        tag("td", ", ".join(filter(None, (lane.modes, content.device(lane.device))))),
        _size(lane.size_bytes[1]),
        _count(row.uses),
        _size(row.used_bytes),
        _size(row.moved.bytes, "moved"),
        _size(row.saved.bytes, "saved"),
        _count(row.moves),
        tag("td", row.pattern.replace("_", " ")),
        class_="row",
    )


def buffers(content: Content) -> Html:
    """Each buffer, those that are alike in one row."""
    rows = sorted(content.summary.buffers, key=lambda b: (-b.moved.bytes, -b.saved.bytes, -b.used_bytes, b.lane))
    if not rows:
        return tag("p", "No event has a buffer.", class_="empty")
    heads = [(name, False) for name in ("Model", "Buffer", "Way", "Memory")]
    heads += [(name, True) for name in ("Size", "Uses", "Used", "Moved", "Saved", "Moves")]
    heads.append(("Pattern", False))
    table = _table("buffers", heads, [_buffer(content, row) for row in rows[:MOST_BUFFERS]], "Each buffer")
    return join(table, _rest(len(rows) - MOST_BUFFERS) if len(rows) > MOST_BUFFERS else None)


_WHY = {
    "new": "the mode that is best for its pattern",
    "cheaper": "what it saves will pay for the move",
    "deferred": "it would be cheaper, but moves have had their share of the time",
    "refused": "it would be cheaper, but could not be moved",
}


def _moved(event: Columns) -> str:
    return f"{amount(int(event['size_bytes']))} in {span(int(event['duration_ns']))}"


def _change(event: Columns) -> tuple[str, str]:
    """What changed, and why."""
    kind, detail = kinds.word(recording.KINDS, event["kind"]), int(event["detail"])
    if kind == "numa_move":
        if event["status"] == 0:
            return f"pages moved to node {detail}", _moved(event)
        status = kinds.word(recording.STATUSES, event["status"])
        return f"pages did not all move to node {detail}", f"{status}: {_moved(event)}"
    mode, before = (kinds.word(recording.MODES, event[name]) for name in ("mode", "mode_before"))
    low, high = detail & 0xFF, detail >> 8 & 0xFF
    if kind == "pattern":
        new, old = (kinds.word(kinds.patterns(), number).replace("_", " ") for number in (low, high))
        return f"pattern: {old} \u2192 {new}", "its recent uses are of another kind"
    if kind == "placement":
        why = kinds.word(kinds.whys(), low)
        said = _WHY.get(why, why)
        if why != "new":
            said += f": its uses cost {span(int(event['offset_bytes']))} here, {span(int(event['fence_value']))} there"
        return f"placement: {mode}", said
    return f"moved: {before} \u2192 {mode}", _moved(event)


def changes(content: Content) -> Html | None:
    """Patterns and placements that changed, and moves to other nodes, in the order of time."""
    found = content.events[kinds.mask(content.events, "pattern", "placement", "move", "numa_move")]
    if len(found) == 0:
        return None
    rows = []
    for event in found[-MOST_CHANGES:]:
        what, why = _change(event)
        rows.append(
            tag(
                "tr",
                _time(int(event["time_ns"])),
                tag("th", content.scope(int(event["scope"])), scope="row"),
                tag("td", f"#{int(event['buffer'])}", data_v=int(event["buffer"])),
                tag("td", what),
                tag("td", why),
                class_="row",
            )
        )
    heads = [("When", True), *((name, False) for name in ("Model", "Buffer", "What", "Why"))]
    table = _table("changes", heads, rows, "Changes of pattern and placement")
    more = len(found) - len(rows)
    note = (
        tag("p", f"{many(more, 'earlier change')} {'is' if more == 1 else 'are'} left out.", class_="note")
        if more
        else None
    )
    return join(tag("h3", "Changes of pattern and placement"), table, note)


# ---- other costs ----


def findings(content: Content) -> Html:
    """What was refused, made anew, or moved back and forth."""
    found = looks.find(content.events)
    if not found:
        return tag("p", "Nothing was refused, made anew or moved back and forth.", class_="empty")
    items = []
    for one in found:
        title = one.title if one.scope is None else join(content.scope(one.scope), ": ", one.title)
        remedy = tag("p", one.remedy, class_="do") if one.remedy else None
        items.append(tag("li", tag("h3", title), tag("p", one.text), remedy, class_="row"))
    return tag("ul", *items, class_="findings")


def times(content: Content) -> Html:
    """The operations that took time."""
    found = looks.time_rows(content.events)
    if not found:
        return tag("p", "No event has a duration.", class_="empty")
    rows = [
        tag(
            "tr",
            tag("th", shown(row.kind), scope="row"),
            tag("td", content.scope(row.scope)),
            _count(row.events),
            _time(row.total_ns),
            _time(row.longest_ns),
            class_="row",
        )
        for row in found
    ]
    heads = [("What", False), ("Model", False), ("Times", True), ("Together", True), ("Longest", True)]
    return _table("times", heads, rows, "What took time, the longest first")
