"""The report in a real Chromium: nothing fetched, nothing on the console, the right figures, and charts that answer."""

from __future__ import annotations

import collections
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parent))

import chromium  # noqa: E402
import recordings  # noqa: E402

from umo import profile  # noqa: E402
from umo.report import Report, pack  # noqa: E402

pytestmark = pytest.mark.skipif(
    chromium.find() is None, reason="no chromium on this machine: scripts/setup installs it"
)
HOSTILE = "</script><img src=http://x.invalid/y onerror=alert(1)>\u2028\u202egnp.exe&\"'{{7*7}}${x}"


@pytest.fixture(scope="module")
def recording() -> profile.Profile:
    return recordings.synthetic(5000, seconds=4)


@pytest.fixture(scope="module")
def page(recording: profile.Profile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    Report(recording, "server.umo").write(path)
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Chromium]:
    with chromium.Chromium() as made:
        yield made


@pytest.fixture
def opened(browser: chromium.Chromium, page: Path) -> chromium.Chromium:
    browser.resize(1280, 900)
    browser.prefer("light")
    browser.open(page)
    return browser


def scroll_to(browser: chromium.Chromium, name: str) -> dict[str, float]:
    """Brings an element into the middle of the window and says where it is."""
    browser.value(f"document.getElementById({name!r}).scrollIntoView({{block: 'center'}})")
    browser.frames()
    return browser.value(f"(({{x, y, width, height}}) => ({{x, y, width, height}}))"
                         f"(document.getElementById({name!r}).getBoundingClientRect())")  # fmt: skip


def look(browser: chromium.Chromium) -> tuple[float, float]:
    browser.frames()
    return tuple(browser.value("[umo.view.from, umo.view.to]"))


# ---- what the page must not do ----


def test_nothing_is_fetched_and_the_console_stays_empty(opened: chromium.Chromium, page: Path) -> None:
    opened.value("window.scrollTo(0, document.documentElement.scrollHeight)")
    opened.frames()
    assert opened.requests == [page.resolve().as_uri()]
    assert opened.console == []


def test_the_page_cannot_fetch_even_if_it_wanted_to(opened: chromium.Chromium) -> None:
    said = opened.value(
        "Promise.all(['http://127.0.0.1:9/x', 'file:///etc/passwd', 'data:,x'].map((url) => fetch(url)"
        ".then(() => 'fetched', (error) => error.name)))"
    )
    assert said == ["TypeError"] * 3
    ran = opened.value(
        "(() => { const made = document.createElement('script'); made.textContent = 'window.ran = 1';"
        "document.body.append(made); return window.ran ?? 'no'; })()"
    )
    assert ran == "no"


def test_hostile_names_do_nothing_and_can_be_read(browser: chromium.Chromium, tmp_path: Path) -> None:
    recording = recordings.synthetic(2000, seconds=1)
    recording.scopes = {scope: f"{HOSTILE}{scope}" for scope in recording.scopes}
    recording.devices = {1: HOSTILE}
    recording.facts["command"] = HOSTILE
    path = tmp_path / "hostile.html"
    Report(recording, HOSTILE).write(path)
    browser.open(path)
    assert browser.requests == [path.resolve().as_uri()] and browser.console == []
    assert browser.value("document.images.length") == 0
    names = browser.value("[...document.querySelectorAll('#models-table th bdi')].map((name) => name.textContent)")
    assert names and all(name.startswith("</script><img src=http://x.invalid/y") for name in names)
    assert all("\u27e8U+202E\u27e9" in name and "\u27e8U+2028\u27e9" in name for name in names)
    labels = browser.value("[...document.querySelectorAll('.labels .group bdi')].map((name) => name.textContent)")
    assert set(labels) <= set(names)


# ---- figures ----


def sums(recording: profile.Profile) -> dict[str, int]:
    made: dict[str, int] = collections.defaultdict(int)
    for event in recording.events:
        made[profile.KINDS[event["kind"]]] += int(event["size_bytes"])
    return made


def test_the_figures_on_the_page_are_the_sums_of_the_events(
    opened: chromium.Chromium, recording: profile.Profile
) -> None:
    found = sums(recording)
    moved = found["transfer_performed"] + found["copy"]
    saved = found["transfer_eliminated"] + found["copy_avoided"]
    value = "Number(document.querySelector('.tile.{} .value').dataset.value)"
    assert opened.value(value.format("moved")) == moved
    assert opened.value(value.format("saved")) == saved
    rows = "[...document.querySelectorAll('#todo-table tbody tr')].map((row) => Number(row.dataset.bytes))"
    assert sum(opened.value(rows)) == moved
    parts = dict(
        opened.value(
            "[...document.querySelectorAll('[data-part]')].map(({ dataset }) => [dataset.part, Number(dataset.value)])"
        )
    )
    assert parts == {
        "transfers eliminated": found["transfer_eliminated"],
        "copies avoided": found["copy_avoided"],
        "copies": found["copy"],
        "transfers performed": found["transfer_performed"],
    }


def test_the_script_reads_every_event(opened: chromium.Chromium, recording: profile.Profile) -> None:
    found = opened.value(
        """(() => {
            const made = {};
            for (let i = 0; i < umo.recording.class.length; i++) {
                const name = umo.recording.kinds[umo.recording.combinations[0][umo.recording.combination[i]]];
                made[name] = (made[name] || 0) + Number(umo.recording.sizes[umo.recording.size[i]]);
            }
            return made;
        })()"""
    )
    expected = sums(recording)
    assert {name: expected[name] for name in found} == found and "access_begin" in found
    assert opened.value("Math.max(...umo.recording.duration)") > 1000


def test_it_can_be_read_without_scripts(browser: chromium.Chromium, page: Path, recording: profile.Profile) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.call("Page.navigate", url=page.resolve().as_uri())
        text, deadline = "", time.monotonic() + 10
        while "Made by" not in text and time.monotonic() < deadline:
            with contextlib.suppress(RuntimeError):  # while the document is exchanged
                root = browser.call("DOM.getDocument")["root"]["nodeId"]
                text = browser.call("DOM.getOuterHTML", nodeId=root)["outerHTML"]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert "What to do about it" in text and "need JavaScript" in text and "image_prep_off" in text


# ---- the timeline ----


def painted(browser: chromium.Chromium, name: str = "field") -> str:
    browser.frames()
    return browser.value(f"document.getElementById({name!r}).toDataURL()")


def test_buttons_keys_wheel_and_drags_move_the_view(opened: chromium.Chromium) -> None:
    whole = look(opened)
    before = painted(opened)
    opened.value("document.querySelector('[data-do=in]').click()")
    zoomed = look(opened)
    assert zoomed[1] - zoomed[0] == pytest.approx((whole[1] - whole[0]) / 2)
    assert painted(opened) != before and " from " in opened.value("document.getElementById('range').textContent")

    box = scroll_to(opened, "field")
    x, y = box["x"] + box["width"] / 4, box["y"] + box["height"] / 2
    under = zoomed[0] + (zoomed[1] - zoomed[0]) / 4
    opened.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100, modifiers=2)
    closer = look(opened)
    assert closer[1] - closer[0] == pytest.approx((zoomed[1] - zoomed[0]) / 2)
    assert closer[0] + (closer[1] - closer[0]) / 4 == pytest.approx(under, rel=0.01)

    opened.mouse("mousePressed", x, y, buttons=1)
    for step in range(1, 6):
        opened.mouse("mouseMoved", x - 20 * step, y, buttons=1)
    opened.mouse("mouseReleased", x - 100, y)
    dragged = look(opened)
    assert dragged[0] - closer[0] == pytest.approx(100 / box["width"] * (closer[1] - closer[0]), rel=0.02)

    opened.value("document.getElementById('lanes').focus()")
    opened.key("ArrowRight")
    assert look(opened)[0] > dragged[0]
    opened.key("+", "+")
    assert look(opened)[1] - look(opened)[0] == pytest.approx((closer[1] - closer[0]) / 2)
    opened.key("0", "0")
    assert look(opened) == whole and painted(opened) == before


def test_the_wheel_alone_scrolls_the_page(opened: chromium.Chromium) -> None:
    box = scroll_to(opened, "overview")
    whole, at = look(opened), opened.value("window.scrollY")
    opened.mouse("mouseWheel", box["x"] + 50, box["y"] + 20, deltaX=0, deltaY=120)
    deadline = time.monotonic() + 5
    while opened.value("window.scrollY") == at and time.monotonic() < deadline:
        opened.frames()
    assert opened.value("window.scrollY") > at and look(opened) == whole


def test_a_part_is_chosen_in_the_strip(opened: chromium.Chromium) -> None:
    box = scroll_to(opened, "overview")
    y = box["y"] + 20
    opened.mouse("mousePressed", box["x"] + 0.25 * box["width"], y, buttons=1)
    opened.mouse("mouseMoved", box["x"] + 0.4 * box["width"], y, buttons=1)
    opened.mouse("mouseMoved", box["x"] + 0.5 * box["width"], y, buttons=1)
    opened.mouse("mouseReleased", box["x"] + 0.5 * box["width"], y)
    duration = opened.value("umo.view.duration")
    assert look(opened) == (pytest.approx(0.25 * duration, rel=0.02), pytest.approx(0.5 * duration, rel=0.02))


def test_an_event_under_the_pointer_is_told_exactly(opened: chromium.Chromium, recording: profile.Profile) -> None:
    moved = recording.events[recording.events["kind"] == profile.KINDS.index("transfer_performed")]
    event = moved[len(moved) // 2]
    at = int(event["time_ns"])
    opened.value(f"umo.view.set({at} - 2000, {at} + 2000)")
    lane = opened.value(
        f"umo.recording.first.findIndex((_, lane) => {{ for (let i = umo.recording.first[lane];"
        f" i < umo.recording.first[lane + 1]; i++) if (umo.recording.start[i] === {at} &&"
        f" umo.recording.buffer[i] === {int(event['buffer'])}) return true; return false; }})"
    )
    top = opened.value(
        f"(() => {{ const item = umo.timeline.items.find((item) => item.lane === {lane});"
        "umo.timeline.scroller.scrollTop = item.top - 40; return item.top + item.height - 5; })()"
    )
    box = scroll_to(opened, "field")
    y = box["y"] + top - opened.value("umo.timeline.scroller.scrollTop")
    opened.mouse("mouseMoved", box["x"] + box["width"] / 2 + 1, y)
    opened.frames()
    tip = opened.value("umo.timeline.tip.hidden ? '' : umo.timeline.tip.textContent")
    assert "transfer performed" in tip and f"{int(event['size_bytes']):,} B" in tip
    assert f"{at / 1e9:.9f}"[-9:-6] in tip and f"#{int(event['buffer'])}" in tip
    opened.mouse("mousePressed", box["x"] + box["width"] / 2 + 1, y, buttons=1)
    opened.mouse("mouseReleased", box["x"] + box["width"] / 2 + 1, y)
    opened.frames()
    assert f"{int(event['size_bytes']):,} B" in opened.value("document.getElementById('details').textContent")


def test_requests_patterns_and_placements_are_told_in_words(opened: chromium.Chromium) -> None:
    def told(kind: str) -> list[str]:
        rows = f"""[...umo.recording.class.keys()].filter((i) => umo.recording.kinds[umo.recording.combinations[0]
            [umo.recording.combination[i]]] === '{kind}')"""
        return opened.value(f"{rows}.map((i) => {{ umo.timeline.select(i);"
                            "return document.getElementById('details').textContent; })")  # fmt: skip

    assert any("Triton trace1" in words for words in told("request"))
    assert all("the engine ran for 4 requests" in words and "run" in words for words in told("batch"))
    assert told("pattern")[0].startswith("pattern: streaming, before unknown")
    decided = told("placement")
    assert "placement: unified (cheaper)" in decided[0] and "uses here900" in decided[0] and "deferred" in decided[1]
    assert "private \u2192 unified" in told("move")[0]
    assert told("numa_move")[0].startswith("pages moved to node 1") and "1,048,576 B" in told("numa_move")[0]


def test_the_timeline_can_be_walked_with_the_keyboard(opened: chromium.Chromium) -> None:
    opened.value("document.getElementById('lanes').focus()")
    opened.key("ArrowDown")
    assert "events" in opened.value("document.getElementById('details').textContent")
    opened.value("umo.view.set(1e9, 1.1e9)")
    seen = []
    for _ in range(3):
        opened.key("Enter")
        seen.append(opened.value("umo.timeline.selected"))
    assert seen == [seen[0], seen[0] + 1, seen[0] + 2] and seen[0] >= 0
    assert opened.value("umo.recording.start[umo.timeline.selected] >= 1e9")
    opened.key("Escape")
    assert opened.value("umo.timeline.selected") == -1


def test_classes_groups_search_and_sorting_choose_what_is_seen(opened: chromium.Chromium) -> None:
    before = painted(opened)
    opened.value("[...document.querySelectorAll('#classes button')].find((b) => b.textContent === 'saved').click()")
    assert painted(opened) != before
    lanes = "umo.timeline.items.filter((item) => item.lane !== undefined).length"
    all_lanes = opened.value(lanes)
    opened.value("document.querySelector('.labels .group').click()")
    assert 0 < opened.value(lanes) < all_lanes
    opened.value("(() => { const f = document.getElementById('search'); f.value = 'SEGMENTER';"
                 "f.dispatchEvent(new Event('input')); })()")  # fmt: skip
    rows = opened.value("[...document.querySelectorAll('.row')].filter((row) => !row.hidden).map((r) => r.textContent)")
    assert rows and all("segmenter" in row for row in rows) and 0 < opened.value(lanes) < all_lanes
    opened.value("(() => { const f = document.getElementById('search'); f.value = '';"
                 "f.dispatchEvent(new Event('input')); })()")  # fmt: skip
    cells = "[...document.querySelectorAll('#models-table tbody tr')].map((row) => Number(row.cells[4].dataset.v))"
    unsorted = opened.value(cells)
    opened.value("document.querySelectorAll('#models-table thead button')[4].click()")
    assert opened.value(cells) == sorted(unsorted, reverse=True)
    opened.value("document.querySelectorAll('#models-table thead button')[4].click()")
    assert opened.value(cells) == sorted(unsorted)
    assert opened.value("document.querySelector('#models-table [aria-sort]').getAttribute('aria-sort')") == "ascending"


def test_a_view_of_many_events_is_painted_from_levels_as_from_events(
    browser: chromium.Chromium, tmp_path: Path
) -> None:
    path = tmp_path / "many.html"
    Report(recordings.synthetic(80_000, seconds=10)).write(path)
    browser.open(path)
    count = """(() => {
        const { painter, width } = umo.timeline;
        const canvas = document.createElement('canvas');
        canvas.width = width; canvas.height = 24;
        const context = canvas.getContext('2d');
        const covered = (draw) => {
            context.clearRect(0, 0, width, 24);
            draw();
            const pixels = context.getImageData(0, 0, Math.floor(width), 24).data;
            let columns = 0;
            for (let x = 0; x < Math.floor(width); x++) {
                let any = 0;
                for (let y = 0; y < 24; y++) any |= pixels[(y * Math.floor(width) + x) * 4 + 3];
                columns += any > 0;
            }
            return columns;
        };
        const lane = umo.recording.lanes.map((l, i) => [l.events, i]).sort((a, b) => b[0] - a[0])[0][1];
        const [from, to] = painter.inView(lane);
        return [covered(() => painter.laneLevels(context, lane, 0, 24, width)),
                covered(() => painter.laneRows(context, lane, from, to, 0, 24, width)), to - from];
    })()"""
    levels, rows, events = browser.value(count)
    assert events > 4000 and levels == pytest.approx(rows, rel=0.2) and rows > 100


# ---- looks ----


def test_light_and_dark_differ_and_can_be_read(opened: chromium.Chromium) -> None:
    contrast = """(() => {
        const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        const rgb = (words) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = words; canvas.fillRect(0, 0, 1, 1);
            return canvas.getImageData(0, 0, 1, 1).data; };
        const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= 0.03928 ? c / 12.92
            : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
        const behind = (node) => { for (; node; node = node.parentElement) { const b = getComputedStyle(node)
            .backgroundColor; if (rgb(b)[3] === 255) return rgb(b); } return rgb('white'); };
        const poor = [];
        const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walk.nextNode()) {
            const node = walk.currentNode.parentElement;
            if (!walk.currentNode.textContent.trim() || !node.checkVisibility()) continue;
            const style = getComputedStyle(node);
            const [a, b] = [light(rgb(style.color)), light(behind(node))].sort((x, y) => y - x);
            const ratio = (a + 0.05) / (b + 0.05);
            if (ratio < 4.5) poor.push(`${node.className || node.tagName} ${style.color} ${ratio.toFixed(2)}`);
        }
        return [...new Set(poor)];
    })()"""
    light = painted(opened)
    assert opened.value(contrast) == []
    opened.prefer("dark")
    dark = painted(opened)
    assert dark != light and opened.value(contrast) == []
    opened.value("document.getElementById('theme').click()")
    assert painted(opened) == light
    opened.value("document.getElementById('theme').click()")
    assert painted(opened) == dark


def test_no_width_makes_the_page_scroll_sideways(opened: chromium.Chromium) -> None:
    for width in (320, 390, 768, 1280, 2200):
        opened.resize(width, 800, mobile=width < 500)
        opened.frames(3)
        assert opened.value("document.documentElement.scrollWidth") <= width
        assert opened.value("umo.timeline.narrow") == (width < 700)


def test_everything_that_can_be_used_has_a_name(opened: chromium.Chromium) -> None:
    opened.call("Accessibility.enable")
    nodes = opened.call("Accessibility.getFullAXTree")["nodes"]
    opened.call("Accessibility.disable")
    roles = ("button", "link", "searchbox", "textbox", "application", "image", "table", "columnheader", "rowheader")
    found = [node for node in nodes if not node.get("ignored") and node.get("role", {}).get("value") in roles]
    nameless = [node["role"]["value"] for node in found if not node.get("name", {}).get("value")]
    assert len(found) > 50 and nameless == []
    levels = opened.value("[...document.querySelectorAll('h1, h2, h3')].map((head) => Number(head.tagName[1]))")
    assert levels[0] == 1 and levels.count(1) == 1 and max(np.diff(levels)) <= 1


def test_it_can_be_printed(opened: chromium.Chromium) -> None:
    printed = opened.call("Page.printToPDF", printBackground=True)["data"]
    assert len(printed) > 50_000 and opened.console == []


@pytest.mark.parametrize("kind", ["copy", "pressure_level", "alloc", "access_begin", "pool_trim"])
def test_a_recording_of_one_event_opens(browser: chromium.Chromium, tmp_path: Path, kind: str) -> None:
    events = np.zeros(1, profile.EVENT)
    events["kind"], events["side"], events["buffer"] = profile.KINDS.index(kind), 1, kind == "access_begin"
    path = tmp_path / "one.html"
    Report(profile.Profile(events)).write(path)
    browser.open(path)
    browser.frames()
    assert browser.console == [] and browser.value("umo.recording.class.length") == 1


def test_a_page_without_room_for_all_events_says_so_and_is_painted(
    browser: chromium.Chromium, recording: profile.Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "MOST_BYTES", 60_000)
    path = tmp_path / "full.html"
    Report(recording).write(path)
    browser.open(path)
    assert "There was no room for all" in browser.value("document.getElementById('since').innerText")
    assert browser.value("umo.recording.class.length") < browser.value("umo.recording.rows")
    filled = "umo.timeline.field.getContext('2d').getImageData(0, 40, 300, 200).data.filter((x) => x).length"
    assert browser.value(filled) > 1000 and browser.console == []


@pytest.mark.slow
def test_a_million_events_open_in_three_seconds_and_fit_in_ten_megabytes(
    browser: chromium.Chromium, tmp_path: Path
) -> None:
    path = tmp_path / "million.html"
    recording = recordings.synthetic(1_000_000)
    assert len(recording) >= 1_000_000
    assert Report(recording).write(path) <= 10_000_000
    times = []
    for _ in range(3):
        browser.open(path)
        times.append(browser.value("performance.getEntriesByName('umo-ready')[0].startTime"))
    assert min(times) < 3000 and browser.value("umo.recording.class.length") > 600_000
