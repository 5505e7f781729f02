"""The page: everything that can be read without a script is made here and in tables.py, as plain HTML.

Figures, advice and tables are in the page itself, so that they are there in print, in a text browser and for whoever
has the page read aloud. The script adds the timeline, sorting and searching.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import string
from importlib import resources

from . import kinds, tables
from .content import MOST_ROWS, Content, amount, rate, span
from .html import Html, join, tag, text
from .sums import MEASUREMENTS, Tally, bytes_of
from .words import many, number, percent, shown

SCRIPTS = (
    "data.js", "format.js", "view.js", "paint.js", "describe.js", "timeline.js", "overview.js", "memory.js",
    "tables.js", "main.js",
)  # fmt: skip


def _name(content: Content) -> str:
    """The program's name; where that is not known, the recording's."""
    command = str(content.profile.facts.get("command") or "").split()
    return shown(command[0].rpartition("/")[2] or command[0] if command else content.source)


def _origin(content: Content) -> Html:
    """Of which process, when, by which umo."""
    facts = content.profile.facts
    said: list[str] = []
    if facts.get("pid"):
        said.append(f"process {facts['pid']}")
    if isinstance(facts.get("started"), int):
        when = datetime.datetime.fromtimestamp(facts["started"] / 1e9, datetime.UTC)
        said.append(f"{when:%Y-%m-%d %H:%M:%S} UTC")
    if facts.get("umo"):
        said.append(f"umo {shown(str(facts['umo']))}")
    if facts.get("command"):
        said.append(f"from {shown(content.source)}")
    return tag("p", " \u00b7 ".join(said), class_="origin") if said else Html("")


def _headline(content: Content) -> Html:
    moved, saved = content.totals.moved.bytes, content.totals.saved.bytes
    if moved + saved == 0:
        return tag("h1", "Nothing was transferred or copied in this recording.")
    if moved == 0:
        return tag("h1", tag("em", f"All {amount(saved)}"), " stayed where they were. Nothing was moved.")
    if saved == 0:
        return tag("h1", tag("strong", f"All {amount(moved)}"), " were moved. Nothing was saved.")
    stayed = join(tag("em", percent(saved, saved + moved)), " of the bytes stayed where they were. ")
    return tag("h1", stayed, tag("strong", amount(moved)), " still move.")


def _lead(content: Content) -> Html:
    """What to begin with, in one sentence."""
    rows = content.summary.rows
    if not rows:
        return tag("p", "There is nothing to mend.", class_="lead")
    row = rows[0]
    share = percent(row.bytes, content.totals.moved.bytes)
    begin = (
        "All of what still moves is one thing: in "
        if len(rows) == 1
        else f"{share} of what still moves is one thing: in "
    )
    link = tag("a", "What to do about it", href="#todo")
    return tag("p", begin, content.scope(row.scope), f", {row.cause}. ", link, class_="lead")


def _tile(label: str, value: object, note: str, exact: int, kind: str | None = None) -> Html:
    return tag(
        "div",
        tag("dt", label),
        tag("dd", value, class_="value", data_value=exact),
        tag("dd", note, class_="note"),
        class_=f"tile {kind}" if kind else "tile",
    )


def _tiles(content: Content) -> Html:
    t, memory = content.totals, content.memory
    seconds = max(t.covered_ns, 1) / 1e9

    def often(tally: Tally) -> str:
        return f"{many(tally.events, 'time')}, {rate(tally.bytes / seconds)}"

    if t.requests is None:
        asked = _tile("Uses of memory", number(t.uses), f"{many(t.events, 'event')}; no requests in it", t.uses)
    else:
        uses = f"{many(t.events, 'event')}, {many(t.uses, 'use')} of memory"
        asked = _tile("Requests", number(t.requests), uses, t.requests)
    busiest = t.busiest_second_saved_bytes
    best = f", {rate(busiest)} in the busiest second" if busiest else ""
    seen = f"the events reach back {span(t.covered_ns)}" if t.lost else "from start to end"
    idle = f"of it, pools kept at most {amount(memory.idle_peak_bytes)} idle"
    missing = f"{percent(t.lost, t.lost + t.events)} of all: sums are lower bounds" if t.lost else "the sums are exact"
    return tag(
        "dl",
        _tile("Recorded", span(t.duration_ns), seen, t.duration_ns),
        asked,
        _tile("Still moved", amount(t.moved.bytes), often(t.moved), t.moved.bytes, "moved"),
        _tile("Saved", amount(t.saved.bytes), often(t.saved) + best, t.saved.bytes, "saved"),
        _tile("Peak memory", amount(memory.peak_bytes), idle, memory.peak_bytes),
        _tile("Events lost", number(t.lost), missing, t.lost, "warn" if t.lost else None),
        class_="tiles",
    )


def _balance(content: Content) -> Html:
    """One bar: what was saved and what moved, by kind and direction."""
    t = content.totals
    whole = t.moved.bytes + t.saved.bytes
    if whole == 0:
        return Html("")
    parts = [
        ("saved", "transfers eliminated", t.transfer_eliminated),
        ("saved two", "copies avoided", t.copy_avoided),
        ("moved two", "copies", t.copy),
        ("moved", "transfers performed", t.transfer_performed),
    ]
    bars, legend, at = [], [], 0.0
    for kind, label, found in parts:
        size = bytes_of(found)
        share = 100 * size / whole
        bars.append(tag("rect", x=f"{at:.3f}%", y="0", width=f"{share:.3f}%", height="100%", class_=kind))
        at += share
        ways = ", ".join(f"{amount(found[way].bytes)} {way}" for way in found if found[way].bytes)
        said = join(tag("b", amount(size)), f" {label}", tag("small", f" ({ways})") if ways else None)
        legend.append(tag("li", tag("i", class_=f"key {kind}"), said, data_value=size, data_part=label))
    picture = tag("svg", *bars, class_="balance", role="img", aria_label=f"{percent(t.saved.bytes, whole)} saved")
    return tag("div", picture, tag("ul", *legend, class_="legend"), class_="balances")


def _honest(content: Content) -> Html:
    """What the recording does not say."""
    t, said = content.totals, []
    if t.truncated:
        said.append("The file is cut short: only what was whole in it is shown.")
    if t.lost:
        said += [
            f"{many(t.lost, 'event')} were overwritten or dropped before they could be written. All sums, counts and "
            "shares are of the events that are left; the counters in /metrics are complete.",
            "Memory is drawn from the least that must have been there when the events that are left begin.",
            "A bracket whose begin or end is missing is drawn from where it is known, and says so. A larger recorder "
            "loses less (umo_profile_options.memory_bytes).",
        ]
    if t.names_lost:
        said.append(f"{many(t.names_lost, 'event')} have a scope or device whose name was not kept.")
    if t.measured.events:
        said.append(
            f"{amount(t.measured.bytes)} that umo moved or saved while it measured this machine "
            f"({' and '.join(MEASUREMENTS)}) are in the timeline and the tables, but in none of the figures above."
        )
    if t.requests is None:
        said.append("The recording has no events of requests, so nothing can be said of a request.")
    said.append(
        "What an engine copies inside itself, what the server copies before umo is asked, and the time that a device "
        "spends computing are not recorded by umo; umo prove counts such copies."
    )
    warned = bool(t.lost or t.truncated)
    return tag(
        "details",
        tag("summary", "What this report cannot know" if warned else "Complete; and what it does not show"),
        tag("ul", *(tag("li", sentence) for sentence in said)),
        class_="honest warn" if warned else "honest",
        open=warned,
    )


def head(content: Content) -> dict[str, object]:
    """What the script needs beside the events: names and sums, which it shows as text."""
    profile = content.profile
    return {
        "sums": {
            model.scope: {"moved": bytes_of(model.moved), "saved": bytes_of(model.saved)}
            for model in content.summary.models
        },
        "scopes": {str(scope): shown(name) for scope, name in profile.scopes.items()},
        "devices": {str(device): shown(name) for device, name in profile.devices.items()},
        "lanes": [
            {
                "scope": lane.scope,
                "what": lane.what,
                "label": lane.label,
                "memory": ", ".join(filter(None, (lane.modes, shown(profile.devices.get(lane.device, ""))))),
                "events": lane.events,
            }
            for lane in content.lanes.lanes
        ],
        "pressure_levels": kinds.pressure_levels(),
        "pressure_answers": kinds.pressure_answers(),
        "patterns": kinds.patterns(),
        "whys": kinds.whys(),
        "measurements": MEASUREMENTS,
    }


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode() + "'"


def render(content: Content, data: str) -> str:
    """The whole file. `data` is what pack() made."""
    style = _file("page.css")
    script = "\n".join(_file(name) for name in SCRIPTS)
    # Nothing may be fetched, and no other script or style than these two runs, whatever a name holds.
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )
    parts = {
        "policy": text(policy),
        "title": text(_name(content)),
        "command": text(shown(str(content.profile.facts.get("command") or ""))),
        "style": style,
        "script": script,
        "origin": _origin(content),
        "headline": _headline(content),
        "lead": _lead(content),
        "tiles": _tiles(content),
        "balance": _balance(content),
        "honest": _honest(content),
        "todo": tables.todo(content, MOST_ROWS),
        "models": tables.models(content),
        "buffers": tables.buffers(content),
        "changes": tables.changes(content),
        "findings": tables.findings(content),
        "times": tables.times(content),
        "data": data,
    }
    return string.Template(_file("page.html")).substitute(parts)
