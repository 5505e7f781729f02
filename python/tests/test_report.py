"""What a report says is what the recording holds: every figure is worked out here a second time, event by event."""

from __future__ import annotations

import base64
import collections
import hashlib
import html.parser
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

sys.path.append(str(Path(__file__).resolve().parent))

import recordings  # noqa: E402

from umo import profile, words  # noqa: E402
from umo.cli import app  # noqa: E402
from umo.report import Report, kinds, lanes, memory, pack, spans  # noqa: E402
from umo.report.words import amount, percent, shown, span  # noqa: E402

PROGRAM = shlex.join((sys.executable, "-m", "umo"))
HOSTILE = "</script><img src=x onerror=alert(1)>\u2028\u202egnp.exe&\"'\x1b[2J"


def of(*rows: dict[str, object], scopes: dict[int, str] | None = None, lost: int = 0) -> profile.Profile:
    """A recording of these events; labels stand for numbers."""
    events = np.zeros(len(rows), profile.EVENT)
    events["mode"] = events["mode_before"] = profile.NONE
    for event, row in zip(events, rows, strict=True):
        for name, value in row.items():
            table = {"kind": profile.KINDS, "reason": profile.REASONS, "mode": profile.MODES}.get(name)
            event[name] = table.index(value) if table else value
    return profile.Profile(profile.in_order(events), scopes or {1: "a"}, {1: "host"}, lost)


def listed(recording: profile.Profile) -> list[dict[str, object]]:
    """The events as plain dictionaries, with labels."""
    made = []
    for event in recording.events:
        row = {name: event[name].item() for name in profile.EVENT.names}
        row["kind"] = profile.KINDS[row["kind"]]
        row["direction"] = profile.DIRECTIONS[row["direction"]]
        made.append(row)
    return made


@pytest.fixture(scope="module")
def recording() -> profile.Profile:
    return recordings.synthetic(2500, seconds=5)


@pytest.fixture(scope="module")
def said(recording: profile.Profile) -> dict:
    return Report(recording).summary()


# ---- sums ----


def test_totals_are_the_sums_of_the_events(recording: profile.Profile, said: dict) -> None:
    sums: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0])
    for event in listed(recording):
        sums[event["kind"], event["direction"]][0] += 1
        sums[event["kind"], event["direction"]][1] += event["size_bytes"]
    for kind in ("transfer_performed", "transfer_eliminated", "copy", "copy_avoided"):
        for way in ("in", "out"):
            found = said["totals"][kind][way]
            assert [found["events"], found["bytes"]] == sums[kind, way]
    moved = sum(sums[kind, way][1] for kind in ("transfer_performed", "copy") for way in ("in", "out"))
    saved = sum(sums[kind, way][1] for kind in ("transfer_eliminated", "copy_avoided") for way in ("in", "out"))
    assert said["totals"]["moved"]["bytes"] == moved > 0
    assert said["totals"]["saved"]["bytes"] == saved > 0
    assert said["totals"]["events"] == len(recording)


def test_rows_of_what_still_moves_add_up_and_carry_the_librarys_words(recording: profile.Profile, said: dict) -> None:
    sums: dict[tuple, list[int]] = collections.defaultdict(lambda: [0, 0])
    for event in listed(recording):
        if event["kind"] in ("transfer_performed", "copy"):
            key = (event["scope"], event["kind"].split("_")[0], event["direction"], event["reason"])
            sums[key][0] += 1
            sums[key][1] += event["size_bytes"]
    found: dict[tuple, list[int]] = collections.defaultdict(lambda: [0, 0])
    by_label = {reason.label: (number, reason) for number, reason in enumerate(words.reasons())}
    for row in said["still_moves"]:
        number, reason = by_label[row["reason"]]
        assert (row["cause"], row["remedy"]) == (reason.cause, reason.remedy)
        key = (row["scope"], row["what"], row["direction"], 0 if row["inferred"] else number)
        found[key][0] += row["events"]
        found[key][1] += row["bytes"]
    assert found == sums
    sizes = [row["bytes"] for row in said["still_moves"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sum(row["share"] for row in said["still_moves"]) == pytest.approx(1)


def test_models_and_buffers_add_up(recording: profile.Profile, said: dict) -> None:
    moved: dict[int, int] = collections.defaultdict(int)
    used: dict[int, int] = collections.defaultdict(int)
    for event in listed(recording):
        if event["kind"] in ("transfer_performed", "copy"):
            moved[event["scope"]] += event["size_bytes"]
        if event["kind"] == "access_begin":
            used[event["scope"]] += 1
    for model in said["models"]:
        assert sum(tally["bytes"] for tally in model["moved"].values()) == moved[model["scope"]]
        assert model["uses"]["host"] + model["uses"]["device"] == used[model["scope"]]
    assert sum(row["uses"] for row in said["buffers"]) == sum(used.values())
    named = {event["buffer"] for event in listed(recording)} - {0}
    assert sum(row["buffers"] for row in said["buffers"]) == len(named)


def test_the_peak_is_the_highest_that_alloc_less_free_ever_was(recording: profile.Profile, said: dict) -> None:
    level = peak = when = 0
    for event in listed(recording):
        level += {"alloc": 1, "free": -1}.get(event["kind"], 0) * event["size_bytes"]
        if level > peak:
            peak, when = level, event["time_ns"]
    assert (said["memory"]["peak_bytes"], said["memory"]["peak_ns"]) == (peak, when)


def test_requests_and_changes_are_told(recording: profile.Profile, said: dict) -> None:
    times = collections.defaultdict(list)
    for event in listed(recording):
        if event["kind"] == "request":
            times[event["scope"]].append(event["duration_ns"])
    assert said["totals"]["requests"] == sum(map(len, times.values())) > 0
    for model in said["models"]:
        ordered = sorted(times[model["scope"]])
        assert model["requests"] == len(ordered)
        if ordered:
            assert model["median_ns"] == ordered[(len(ordered) + 1) // 2 - 1]
            assert sum(time <= model["p99_ns"] for time in ordered) >= 0.99 * len(ordered)
    plain = read(Report(recording).html()).text
    assert "pattern: unknown \u2192 streaming" in plain and "moved: private \u2192 unified" in plain
    assert "what it saves will pay for the move: its uses cost 900\u00a0\u00b5s here, 150\u00a0\u00b5s there" in plain
    assert "pages moved to node 1" in plain and "1.05\u00a0MB in 120\u00a0\u00b5s" in plain
    assert [row["pattern"] for row in said["buffers"] if row["buffer"] == 7] == ["cpu_dominant"]


def test_pages_that_went_to_another_node_are_a_change_and_no_transfer() -> None:
    row = {"kind": "numa_move", "mode": "unified", "buffer": 3, "scope": 1, "detail": 1, "duration_ns": 12_000_000}
    busy = {"size_bytes": 2 << 20, "duration_ns": 1_000_000, "status": profile.STATUSES.index("BUSY")}
    report = Report(of({**row, "size_bytes": 64 << 20, "time_ns": 20_000_000}, {**row, **busy, "time_ns": 40_000_000}))
    plain = read(report.html()).text.replace("\u00a0", " ")
    assert "pages moved to node 1" in plain and f"{amount(64 << 20)} in {span(12_000_000)}" in plain
    assert "pages did not all move to node 1" in plain
    assert f"BUSY: {amount(2 << 20)} in {span(1_000_000)}" in plain
    assert "numa_move did not succeed 1 time: BUSY" in plain
    said = report.summary()
    assert (said["totals"]["moved"]["bytes"], said["totals"]["saved"]["bytes"]) == (0, 0)
    assert [buffer["moves"] for buffer in said["buffers"]] == [0]  # the storage mode is as it was
    head = unpacked(report.html())[0]
    assert head["rows"] == 2 and sorted(head["classes"][line % len(head["classes"])] for line in head["lines"]) == [
        "change",
        "failed",
    ]


def test_a_recorder_without_requests_and_placement_is_read_as_well(
    recording: profile.Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = profile.KINDS[: profile.KINDS.index("pattern")]
    events = recording.events[recording.events["kind"] < len(old)]
    monkeypatch.setattr(profile, "KINDS", old, raising=False)
    report = Report(profile.Profile(events, recording.scopes))
    assert report.summary()["totals"]["requests"] is None
    assert "no events of requests" in report.html() and "Requests" not in read(report.html()).text


def test_bytes_above_32_bits_are_summed_exactly() -> None:
    size = (1 << 52) + 1
    rows = [{"kind": "copy", "direction": 1, "size_bytes": size, "scope": 1, "reason": "disabled"}] * 3
    assert Report(of(*rows)).summary()["totals"]["moved"]["bytes"] == 3 * size


def test_centuries_between_two_events_cost_nothing() -> None:
    """A time that is nonsense is no reason to ask for memory by its length."""
    copy = {"kind": "copy_avoided", "direction": 1, "size_bytes": 7, "scope": 1}
    report = Report(of({**copy, "time_ns": 1}, {**copy, "time_ns": 5}, {**copy, "time_ns": (1 << 63) - 1}))
    assert report.summary()["totals"]["busiest_second_saved_bytes"] == 14
    assert "<h1" in report.html()


def test_measurements_of_the_library_are_in_no_total() -> None:
    rows = [
        {"kind": "transfer_eliminated", "direction": 1, "size_bytes": 100, "scope": 1},
        {"kind": "transfer_eliminated", "direction": 1, "size_bytes": 7000, "scope": 2},
        {"kind": "transfer_performed", "direction": 1, "size_bytes": 500, "scope": 2},
    ]
    report = Report(of(*rows, scopes={1: "a", 2: "zero-copy"}))
    totals = report.summary()["totals"]
    assert (totals["saved"]["bytes"], totals["moved"]["bytes"], totals["measured"]["bytes"]) == (100, 0, 7500)
    assert "in none of the figures above" in report.html()


def test_a_recording_that_lost_events_says_what_it_cannot_know() -> None:
    rows = [{"kind": "free", "size_bytes": 700, "scope": 1, "time_ns": 5_000_000_000}]
    report = Report(of(*rows, lost=99))
    page = report.html()
    assert (
        "99 events were overwritten" in page and "sums are lower bounds" in page and "What this report cannot" in page
    )
    assert report.summary()["memory"]["peak_bytes"] == 0 and report.summary()["totals"]["lost"] == 99
    assert "the sums are exact" in Report(of(*rows)).html()


def test_memory_that_was_there_before_is_the_least_that_it_can_have_been() -> None:
    rows = [
        {"kind": "alloc", "size_bytes": 100, "scope": 1, "time_ns": 1},
        {"kind": "free", "size_bytes": 700, "scope": 1, "time_ns": 2},
        {"kind": "alloc", "size_bytes": 900, "scope": 1, "time_ns": 3},
    ]
    levels = memory.over_time(kinds.Columns(of(*rows).events), 3)
    assert levels.levels.sum(axis=0).tolist() == [700, 0, 900] and levels.base_bytes == 600


# ---- spans and lanes ----


def plainly_paired(recording: profile.Profile) -> tuple[set[tuple[int, int]], set[int]]:
    waiting: dict[tuple, collections.deque] = collections.defaultdict(collections.deque)
    pairs, lone = set(), set()
    for place, event in enumerate(listed(recording)):
        key = tuple(event[name] for name in ("buffer", "offset_bytes", "size_bytes", "side", "use"))
        if event["kind"] == "access_begin" and event["status"] == 0:
            waiting[key].append(place)
        elif event["kind"] in ("access_end", "access_abort"):
            if waiting[key]:
                pairs.add((waiting[key].popleft(), place))
            else:
                lone.add(place)
    return pairs, lone


@pytest.mark.parametrize("seed", range(6))
def test_brackets_are_paired_as_a_plain_walk_pairs_them(seed: int) -> None:
    rng = np.random.default_rng(seed)
    events = np.zeros(400, profile.EVENT)
    names = rng.choice(["access_begin", "access_end", "access_abort", "copy"], 400, p=[0.45, 0.35, 0.1, 0.1])
    events["kind"] = [profile.KINDS.index(name) for name in names]
    events["buffer"], events["side"], events["use"] = rng.integers(1, 6, (3, 400)) % [[6], [3], [2]]
    events["offset_bytes"] = rng.integers(0, 2, 400)
    events["status"] = rng.random(400) < 0.1
    events["time_ns"] = np.sort(rng.integers(0, 10_000, 400))
    found = profile.Profile(events)
    pairs = spans.pair(kinds.Columns(events))
    expected, lone = plainly_paired(found)
    assert set(zip(pairs.begins.tolist(), pairs.ends.tolist(), strict=True)) == expected
    assert set(pairs.lone_ends.tolist()) == lone and lone
    begun = {i for i, e in enumerate(listed(found)) if e["kind"] == "access_begin" and e["status"] == 0}
    assert set(pairs.open_begins.tolist()) == begun - {begin for begin, _ in expected}


def test_buffers_that_are_made_anew_for_each_request_share_a_lane(recording: profile.Profile) -> None:
    found = lanes.assign(kinds.Columns(recording.events), {})
    assert len(found.lanes) < 60
    shared = [lane for lane in found.lanes if recording.scopes[lane.scope] == "image_prep" and lane.buffers > 1]
    assert sorted(lane.role for lane in shared) == ["in", "out"]
    assert np.bincount(found.of_event, minlength=len(found.lanes)).tolist() == [lane.events for lane in found.lanes]


def test_a_hundred_thousand_sizes_make_few_lanes() -> None:
    rng = np.random.default_rng(3)
    events = np.zeros(100_000, profile.EVENT)
    events["kind"] = profile.KINDS.index("access_begin")
    events["buffer"] = np.arange(1, 100_001)
    events["size_bytes"] = rng.integers(1, 1 << 40, 100_000)
    events["scope"] = rng.integers(1, 1000, 100_000)
    events["side"] = 2
    found = lanes.assign(kinds.Columns(events), {})
    assert len(found.lanes) <= lanes.MOST_LANES + 1000
    assert sum(lane.events for lane in found.lanes) == 100_000


# ---- the packed data ----


def unpacked(page: str) -> tuple[dict, dict[str, np.ndarray]]:
    """What the script of the page would read."""
    import zlib

    text = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', page)[1]
    raw = zlib.decompress(base64.b64decode(text))
    length = int.from_bytes(raw[:4], "little")
    head = json.loads(raw[4 : 4 + length])
    columns = {}
    for name, column in head["columns"].items():
        at, count = 4 + length + column["at"], column["count"]
        planes = np.frombuffer(raw, np.uint8, count * column["planes"], at).reshape(column["planes"], count)
        values = sum(plane.astype(np.int64) << (8 * i) for i, plane in enumerate(planes))
        columns[name] = (values >> 1) ^ -(values & 1) if column["signed"] else values
    return head, columns


def summed(column: np.ndarray, first: list[int]) -> np.ndarray:
    parts = [np.cumsum(column[low:high]) for low, high in zip(first[:-1], first[1:], strict=True)]
    return np.concatenate(parts) if parts else column


def test_every_event_is_in_the_page_with_its_exact_values(recording: profile.Profile) -> None:
    head, columns = unpacked(Report(recording).html())
    start, buffer = summed(columns["start"], head["first"]), summed(columns["buffer"], head["first"])
    fields = dict(zip(head["repeated"], np.array(head["combinations"])[:, columns["combination"]], strict=True))
    sizes = np.array([int(size) for size in head["sizes"]])[columns["size"]]
    found = collections.Counter(
        zip(fields["kind"].tolist(), start.tolist(), columns["duration"].tolist(), buffer.tolist(), sizes.tolist(),
            fields["scope"].tolist(), fields["thread"].tolist(), fields["reason"].tolist(), strict=True)
    )  # fmt: skip
    pairs, _ = plainly_paired(recording)
    ends = dict(pairs)
    expected: collections.Counter = collections.Counter()
    for place, event in enumerate(listed(recording)):
        if place in ends.values():
            continue
        kind = profile.KINDS.index(event["kind"])
        duration = event["duration_ns"]
        begin = event["time_ns"] - duration
        if place in ends:
            begin, duration = event["time_ns"], int(recording.events["time_ns"][ends[place]]) - event["time_ns"]
        fixed = (event["buffer"], event["size_bytes"], event["scope"], event["thread"], event["reason"])
        expected[kind, begin, duration, *fixed] += 1
    assert found == expected and head["rows"] == sum(expected.values())


def test_levels_say_how_busy_each_part_of_the_time_was() -> None:
    rng = np.random.default_rng(5)
    start = np.sort(rng.integers(0, 900_000, 300))
    rows = pack.Rows(*(np.zeros(300, np.int64) for _ in range(7)))
    rows.start, rows.duration = start, rng.integers(0, 3000, 300)
    rows.kind_class = rng.integers(1, 3, 300)
    lines, found = pack.levels(rows, 1, 1_000_000)
    width = 1_000_001 / pack.BINS
    for place, line in enumerate(lines):
        busy = np.zeros(pack.BINS)
        for begin, duration in zip(start[rows.kind_class == line], rows.duration[rows.kind_class == line], strict=True):
            low, high = begin / width, (begin + duration) / width
            for number in range(int(low), min(int(high) + 1, pack.BINS)):
                busy[number] += max(0.0, min(high, number + 1) - max(low, number))
        wanted = 40 + 215 * np.minimum(busy, 1)
        different = np.abs(np.where(found[place] > 0, found[place], 40) - wanted) > 1.5
        touched = np.isin(np.arange(pack.BINS), (start[rows.duration == 0] / width).astype(int))
        assert not np.any(different & ~touched)


def test_a_page_with_room_for_no_event_still_has_its_sums(
    recording: profile.Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pack, "MOST_BYTES", 1000)
    head, columns = unpacked(Report(recording).html())
    assert len(columns["duration"]) == 0 and head["since_ns"] > 0 and sum(head["overview"]["moved"]) > 0


def test_what_does_not_fit_keeps_its_last_events_and_all_its_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    recording = recordings.synthetic(20_000, seconds=5)
    whole, _ = unpacked(Report(recording).html())
    monkeypatch.setattr(pack, "MOST_BYTES", 150_000)
    page = Report(recording).html()
    head, columns = unpacked(page)
    assert len(page) < 300_000 and head["since_ns"] > 0 and len(columns["duration"]) < head["rows"] == whole["rows"]
    assert summed(columns["start"], head["first"]).min() >= head["since_ns"]
    assert head["overview"] == whole["overview"] and head["lines"] == whole["lines"]


# ---- the page ----


class _Reader(html.parser.HTMLParser):
    """Elements, attributes and text; and whether what was opened was closed."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.seen: collections.Counter = collections.Counter()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.seen[tag] += 1
        self.attributes += [(key, value or "") for key, value in attributes]
        if tag not in ("meta", "link", "input", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += data


def read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    return reader


def test_the_page_is_well_formed_and_names_nothing_to_fetch(recording: profile.Profile) -> None:
    reader = read(Report(recording).html())
    assert not reader.wrong and not reader.open
    links = [value for key, value in reader.attributes if key in ("src", "href", "action", "data", "srcset", "poster")]
    assert links and all(link.startswith("#") or link == "data:," for link in links)
    ids = [value for key, value in reader.attributes if key == "id"]
    assert len(ids) == len(set(ids))
    assert not [key for key, _ in reader.attributes if key.startswith("on") or key == "style"]


def test_only_the_pages_own_script_and_style_may_run(recording: profile.Profile) -> None:
    page = Report(recording).html()
    policy = re.search(r'Policy" content="([^"]*)"', page)[1]
    policy = policy.replace("&#x27;", "'")
    assert policy.startswith("default-src 'none';") and "unsafe" not in policy and "http" not in policy
    for element in ("<style>(.*?)</style>", '<script type="module">(.*?)</script>'):
        digest = hashlib.sha256(re.search(element, page, re.DOTALL)[1].encode()).digest()
        assert f"'sha256-{base64.b64encode(digest).decode()}'" in policy


def test_hostile_names_stay_text() -> None:
    rows = [
        {"kind": "transfer_performed", "direction": 1, "size_bytes": 10, "scope": 1, "buffer": 1, "device": 1},
        {"kind": "alloc", "size_bytes": 10, "scope": 1, "status": 2},
    ]  # fmt: skip
    recording = of(*rows, scopes={1: HOSTILE})
    recording.devices, recording.facts = {1: HOSTILE}, {"command": HOSTILE, "umo": HOSTILE, "pid": 1}
    page = Report(recording, HOSTILE).html()
    plain = read(page)
    harmless = read(Report(of(*rows), "a").html())
    assert plain.seen == harmless.seen + collections.Counter(p=1) and not plain.wrong and "img" not in plain.seen
    assert shown(HOSTILE) in plain.text
    assert not set("\u2028\u2029\u202e\x1b") & set(page)


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0 B"), (999, "999 B"), (999_999, "1.00 MB"), (1_234_567_890, "1.23 GB"), (2**64, "18.4 EB")],
)
def test_amounts(value: int, said: str) -> None:
    assert amount(value) == said


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0 ns"), (1500, "1.50 \u00b5s"), (92e9, "1 min 32 s"), (59.97e9, "1 min 0 s"), (3.7e12, "1 h 1 min")],
)
def test_times(value: float, said: str) -> None:
    assert span(value) == said


def test_a_share_is_0_or_100_only_where_it_is() -> None:
    assert [percent(x, 1000) for x in (0, 1, 500, 999, 1000)] == ["0 %", "< 1 %", "50 %", "> 99 %", "100 %"]


def test_an_event_of_a_kind_that_is_not_known_here_is_shown_as_other_memory() -> None:
    events = of({"kind": "alloc", "size_bytes": 1}).events
    events["kind"] = 200
    assert unpacked(Report(profile.Profile(events)).html())[0]["rows"] == 1


# ---- the command ----


def umo(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command, in this process: what it says and its exit status. An exception that it lets through is raised."""
    ran = CliRunner().invoke(app, ["report", *map(str, arguments)])
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return subprocess.CompletedProcess(arguments, ran.exit_code, ran.stdout, ran.stderr)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from umo.profile import table as form

    path = tmp_path_factory.mktemp("report") / "small.csv"
    with path.open("wb") as file:
        form.write_table(file, recordings.synthetic(500, seconds=1))
    return path


def test_the_command_writes_the_page_beside_the_recording(table: Path) -> None:
    ran = umo(table)
    page = table.with_suffix(".html")
    assert ran.returncode == 0 and ran.stderr == "" and page.read_text().startswith("<!doctype html>")
    assert str(page) in ran.stdout and not list(table.parent.glob(".*"))


def test_a_screen_of_another_encoding_is_no_trouble(tmp_path: Path) -> None:
    from umo.profile import table as form

    path = tmp_path / "names.csv"
    rows = [{"kind": "copy", "direction": 1, "size_bytes": 10, "scope": 1, "reason": "disabled"}]
    with path.open("wb") as file:
        form.write_table(file, of(*rows, scopes={1: "\u6a21\u578b\u202e"}))
    command = [sys.executable, "-m", "umo", "report", str(path)]
    for encoding in ("ascii", "utf-8"):
        env = dict(os.environ, PYTHONIOENCODING=encoding)
        ran = subprocess.run(command, capture_output=True, env=env, check=False, timeout=60)
        assert ran.returncode == 0 and ran.stderr == b"" and "\u202e".encode() not in ran.stdout


def test_json_holds_the_figures_and_writes_a_page_only_where_told(table: Path, tmp_path: Path) -> None:
    table.with_suffix(".html").unlink(missing_ok=True)
    said = json.loads(umo(table, "--json").stdout)
    assert said["report"] is None and not table.with_suffix(".html").exists()
    assert said["totals"]["moved"]["bytes"] == sum(row["bytes"] for row in said["still_moves"])
    said = json.loads(umo(table, "--json", "-o", tmp_path / "x.html").stdout)
    assert said["report_bytes"] == (tmp_path / "x.html").stat().st_size


def test_the_page_goes_to_the_screen(table: Path) -> None:
    assert umo(table, "-o", "-").stdout.endswith("</html>\n")


def test_a_reader_that_goes_away_is_no_trouble(table: Path) -> None:
    command = f"{PROGRAM} report {table} -o - | head -c 100 >/dev/null; exit ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in ran.stderr


def spoiled(table: Path, folder: Path, how: str) -> Path:
    data = table.read_bytes()
    path = folder / f"{how}.csv"
    changed = {
        "missing": None,
        "empty": b"",
        "cut": data[: len(data) // 2],
        "version": data.replace(b"time_ns,kind,", b"time_ns,sort,", 1),
        "foreign": b"%PDF-1.4\n" * 100,
        "binary": os.urandom(5000),
        "nothing": data[: data.index(b"\n") + 1] + data[data.rindex(b"\n", 0, -1) + 1 :],
    }[how]
    if changed is not None:
        path.write_bytes(changed)
    return path


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("missing", "No such file"), ("empty", "empty"), ("cut", "cut short"), ("version", "another version"),
        ("foreign", "not a profile"), ("binary", "not a profile"), ("nothing", "no event"),
    ],
)  # fmt: skip
def test_bad_recordings_are_told_in_one_line(table: Path, tmp_path: Path, how: str, words: str) -> None:
    ran = umo(spoiled(table, tmp_path, how))
    assert ran.returncode == 2 and ran.stdout == "" and not list(tmp_path.glob("*.html"))
    assert ran.stderr.startswith("umo: ") and ran.stderr.count("\n") == 1 and words in ran.stderr


def test_what_is_whole_of_a_cut_recording_can_be_shown(table: Path, tmp_path: Path) -> None:
    path = spoiled(table, tmp_path, "cut")
    assert umo(path, "--partial").returncode == 0
    assert "The file is cut short" in path.with_suffix(".html").read_text()


def test_a_page_that_cannot_be_written_is_told_and_leaves_nothing(table: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "no" / "x.html", tmp_path, Path("/proc/x.html")):
        ran = umo(table, "-o", target)
        assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and ran.stderr.startswith("umo: ")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_page(table: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.html"
    target.write_text("old")
    command = f"ulimit -f 8; exec {PROGRAM} report {table} -o {target}"
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 2 and "File too large" in ran.stderr and ran.stderr.count("\n") == 1
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_the_recording_is_never_overwritten(table: Path) -> None:
    before = table.read_bytes()
    ran = umo(table, "-o", table)
    assert ran.returncode == 2 and "recording itself" in ran.stderr and table.read_bytes() == before
