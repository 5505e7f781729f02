"""umo.profile: both forms are read and written exactly, whatever is damaged is said in one line, and exports nest."""

from __future__ import annotations

import ctypes
import io
import json
import struct
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from perfetto.protos.perfetto.trace import perfetto_trace_pb2

from umo import paths, profile
from umo.profile import binary, labels, table
from umo.profile.chrome import write_chrome
from umo.profile.convert import convert
from umo.profile.perfetto import write_perfetto
from umo.profile.triton import Traced, read_triton


def some(count: int, seed: int = 1) -> profile.Profile:
    """A recording of anything at all that is allowed."""
    rng = np.random.default_rng(seed)
    events = np.zeros(count, profile.EVENT)
    for name in profile.EVENT.names or ():
        top = int(np.iinfo(profile.EVENT[name]).max)
        events[name] = rng.integers(0, top, count, dtype=profile.EVENT[name], endpoint=True)
        if name in labels.FIELDS:
            events[name] = rng.integers(0, len(labels.words(labels.FIELDS[name])), count)
    events["kind"] = np.maximum(events["kind"], 1)
    for name in ("mode", "mode_before"):
        events[name] = np.where(rng.integers(0, 2, count) == 1, profile.NONE, events[name])
    events["thread"] %= 9
    events["scope"] %= 5
    events["device"] %= 3
    events["queue"] %= 16
    events["time_ns"] = np.sort(events["time_ns"] >> np.uint64(1))
    scopes = {1: "plain", 2: 'say "a,b"', 3: "=formula", 4: "wide \uff1d\u00e9\U0001f600"}
    facts = {"pid": 7, "command": "server --x", "started": 1_800_000_000_000_000_000, "umo": "0.1.0", "clock_ns": 5}
    return profile.Profile(events, scopes, {1: "host", 2: "opencl"}, 12, 3, facts)


def equal(a: profile.Profile, b: profile.Profile) -> None:
    assert np.array_equal(a.events, b.events)
    for number, names in (("scope", "scopes"), ("device", "devices")):
        used = set(a.events[number].tolist())
        ours, theirs = getattr(a, names), getattr(b, names)
        assert {n: s for n, s in theirs.items() if n in used} == {n: s for n, s in ours.items() if n in used}
    assert (b.lost, b.names_lost) == (a.lost, a.names_lost)


@pytest.mark.parametrize("ending", ["csv", "umo"])
@pytest.mark.parametrize("count", [0, 1, 300, 70000])
def test_what_is_written_is_read_back(tmp_path: Path, ending: str, count: int) -> None:
    path = tmp_path / f"x.{ending}"
    made = some(count)
    if count == 0:
        made.devices = made.scopes = {}
    profile.write(path, made)
    assert path.stat().st_mode & 0o777 == 0o600
    equal(made, profile.read(path))
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    if ending == "umo":
        assert profile.read(path).facts == made.facts | {"duration_ns": int(made.events["time_ns"][-1]) if count else 0}


class Library:
    """The recorder of this very process."""

    def __init__(self) -> None:
        self.c = ctypes.CDLL(str(paths.library()))
        for name in ("umo_event_kind_name", "umo_reason_label", "umo_status_name", "umo_pattern_name"):
            getattr(self.c, name).restype = ctypes.c_char_p


def test_labels_are_the_librarys() -> None:
    c = Library().c
    assert tuple(c.umo_event_kind_name(i).decode() for i in range(len(profile.KINDS))) == profile.KINDS
    assert c.umo_event_kind_name(len(profile.KINDS)) == b"unknown"
    assert tuple(c.umo_reason_label(i).decode() for i in range(len(profile.REASONS))) == profile.REASONS
    assert c.umo_reason_label(len(profile.REASONS)) == b"unknown"
    assert tuple(c.umo_status_name(i).decode() for i in range(len(profile.STATUSES))) == profile.STATUSES
    assert tuple(c.umo_pattern_name(i).decode() for i in range(len(profile.PATTERNS))) == profile.PATTERNS
    assert profile.WHYS == ("new", "cheaper", "deferred", "refused")
    assert profile.MODES == ("unified", "managed", "private")
    assert profile.SIDES == ("", "host", "device")
    assert profile.USES == ("", "read", "write", "read_write")
    assert profile.DIRECTIONS == ("", "in", "out")
    with pytest.raises(AttributeError):
        _ = profile.NONSENSE


def test_the_librarys_table_is_read_and_written_alike(tmp_path: Path) -> None:
    """Names that are hostile, sizes that are huge: our table is the library's, byte for byte."""
    c = Library().c
    c.umo_scope_count_copy.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_uint64]
    c.umo_scope_count_transfer.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_bool, ctypes.c_uint64]
    error = ctypes.create_string_buffer(272)
    assert c.umo_profile_start(None, error) == 0
    for number, name in enumerate(
        [b"plain", b'a "quoted", one', b"=1+1", b"  @x", b"caf\xc3\xa9", b"\xff\x1b[31m", b"-"]
    ):
        scope = ctypes.c_void_p()
        assert c.umo_scope_create(None, name, ctypes.c_uint64(0), ctypes.byref(scope), error) == 0
        c.umo_scope_count_copy(scope, number % 2, number % len(profile.REASONS), (1 << 64) - 1 - number)
        c.umo_scope_count_transfer(scope, number % 2, number % 3 == 0, number)
    assert c.umo_profile_enable(False) == 0
    assert c.umo_profile_dump(str(tmp_path / "c.csv").encode(), error) == 0
    read = profile.read(tmp_path / "c.csv")
    assert len(read) == 14
    assert read.lost == 0
    names = list(read.scopes.values())
    assert names == ["plain", 'a "quoted", one', "=1+1", "  @x", "caf\u00e9", "??[31m", "-"]
    profile.write(tmp_path / "python.csv", read)
    assert (tmp_path / "python.csv").read_bytes() == (tmp_path / "c.csv").read_bytes()
    profile.write(tmp_path / "c.umo", read)
    equal(read, profile.read(tmp_path / "c.umo"))


# ---- damage ----

HEAD = table.COLUMNS.encode() + b"\n"
ROW = b'5,alloc,1,1,1,"m",1,"host",1,unified,,,,,0,64,0,0,0,,0,OK\n'
LAST = b"0,lost,0,,,,,,,,,,,,0,0,0,0,0,,0,OK\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "empty"),
        (b"\0\xff\xfe" * 100, "not a profile"),
        (b"hello\nworld\n", "not a profile"),
        (HEAD.replace(b"detail,", b""), "another version"),
        (HEAD[:-1] + b",more\n" + LAST, "another version"),
        (HEAD, "cut short"),
        (HEAD[:-1], "cut short"),
        (HEAD + ROW, "cut short"),
        (HEAD + ROW + LAST[:-1], "cut short"),
        (HEAD + ROW + LAST + ROW, "line 4: something follows"),
        (HEAD + ROW + LAST + b"x", "cut short"),
        (HEAD + ROW.replace(b"alloc", b"allot") + LAST, "line 2: kind is 'allot'"),
        (HEAD + ROW.replace(b"alloc", b"") + LAST, "line 2: kind is ''"),
        (HEAD + ROW + ROW.replace(b",64,", b",6x4,") + LAST, "line 3: size_bytes is not a number"),
        (HEAD + ROW.replace(b",64,", b",-1,") + LAST, "line 2: size_bytes is not a number"),
        (HEAD + ROW.replace(b",64,", b",18446744073709551616,") + LAST, "line 2: size_bytes is too large"),
        (HEAD + ROW.replace(b",64,", b",99999999999999999999,") + LAST, "line 2: size_bytes is too large"),
        (HEAD + ROW.replace(b",64,", b",184467440737095516150,") + LAST, "line 2: size_bytes is too long"),
        (HEAD + ROW.replace(b"alloc,1,1,", b"alloc,1,4294967296,") + LAST, "line 2: thread is too large"),
        (HEAD + ROW.replace(b",OK", b"") + LAST, "line 2: 21 columns"),
        (HEAD + ROW.replace(b",OK", b",OK,OK") + LAST, "line 2: 23 columns"),
        (HEAD + ROW.replace(b'"m"', b'"m') + LAST, "line 2"),
        (HEAD + ROW.replace(b'"m"', b'"\xff"') + LAST, "line 2: scope_name is not UTF-8"),
        (HEAD + ROW.replace(b'"m"', b'x"m"') + LAST, "line 2"),
        (HEAD + ROW.replace(b"unified", b"united") + LAST, "line 2: mode is 'united'"),
        (HEAD + ROW.replace(b"OK", b"FINE") + LAST, "line 2: status is 'FINE'"),
        (HEAD + ROW.replace(b"\n", b"\r\n") + LAST, "line 2: status"),
    ],
)
def test_a_damaged_table_is_said_in_one_line(tmp_path: Path, text: bytes, words: str) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(text)
    with pytest.raises(profile.ProfileError) as caught:
        profile.read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_table_that_was_cut_is_given_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(HEAD + ROW * 3 + ROW[:20])
    read = profile.read(path, partial=True)
    assert len(read) == 3
    assert read.facts["truncated"] is True
    path.write_bytes(HEAD + ROW * 3 + LAST)
    assert "truncated" not in profile.read(path, partial=True).facts


def test_paths_that_are_none(tmp_path: Path) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(profile.ProfileError) as caught:
            profile.read(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="No such file"):
        profile.write(tmp_path / "no" / "x.umo", some(1))
    with pytest.raises(OSError, match="No space left"):
        profile.write(Path("/dev/full"), some(3))


def test_no_cut_and_no_changed_byte_goes_unnoticed(tmp_path: Path) -> None:
    """Many lengths of a small file, and one bit of many of its bytes; others each day."""
    path = tmp_path / "x.umo"
    made = some(40)
    profile.write(path, made)
    whole = path.read_bytes()
    counts = set()
    day = int(time.time() // 86400)
    for length in (0, *range(1 + day % 9, len(whole), 9), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(profile.ProfileError) as caught:
            profile.read(path)
        assert "empty" in str(caught.value) if length == 0 else "cut short" in str(caught.value)
        try:
            read = profile.read(path, partial=True)
        except profile.ProfileError:
            continue
        assert read.facts["truncated"] is True
        counts.add(len(read))
        assert np.array_equal(read.events, made.events[: len(read)])
    assert counts == {0, 40}
    for at in range(day % 7, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(profile.ProfileError) as caught:
            profile.read(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole + b"x")
    with pytest.raises(profile.ProfileError, match="something follows"):
        profile.read(path)


def test_another_version_is_said(tmp_path: Path) -> None:
    path = tmp_path / "x.umo"
    path.write_bytes(binary.MARK + struct.pack("<II", 2, 0) + b"\0" * 8)
    with pytest.raises(profile.ProfileError, match="version 2"):
        profile.read(path)


def test_words_are_the_files_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version that numbers kinds otherwise is read by their names; a kind that only it knows is an error."""
    made = some(50)
    swapped = list(profile.KINDS)
    swapped[1], swapped[2] = swapped[2], swapped[1]
    real = labels.words
    monkeypatch.setattr(labels, "words", lambda name: tuple(swapped) if name == "KINDS" else real(name))
    profile.write(tmp_path / "x.umo", made)
    monkeypatch.undo()
    read = profile.read(tmp_path / "x.umo")
    want = made.events["kind"].copy()
    want[made.events["kind"] == 1], want[made.events["kind"] == 2] = 2, 1
    assert np.array_equal(read.events["kind"], want)
    swapped[made.events["kind"][0]] = "of_tomorrow"
    monkeypatch.setattr(labels, "words", lambda name: tuple(swapped) if name == "KINDS" else real(name))
    profile.write(tmp_path / "x.umo", made)
    monkeypatch.undo()
    with pytest.raises(profile.ProfileError, match="does not know"):
        profile.read(tmp_path / "x.umo")


def test_versions_that_lack_a_kind_read_one_another_where_it_does_not_occur(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As each version that adds kinds meets files of the one before it, and that one its files."""
    real, count = labels.words, len(profile.KINDS)
    made = some(50)
    made.events["kind"] %= count - 1
    old = lambda name: real(name)[: count - 1] if name == "KINDS" else real(name)  # noqa: E731
    for writing, reading in ((old, real), (real, old)):
        monkeypatch.setattr(labels, "words", writing)
        profile.write(tmp_path / "x.umo", made)
        monkeypatch.setattr(labels, "words", reading)
        assert np.array_equal(profile.read(tmp_path / "x.umo").events["kind"], made.events["kind"])
    monkeypatch.setattr(labels, "words", real)
    made.events["kind"][7] = count - 1
    profile.write(tmp_path / "x.umo", made)
    monkeypatch.setattr(labels, "words", old)
    with pytest.raises(profile.ProfileError, match="a kind that this version does not know: use a newer umo"):
        profile.read(tmp_path / "x.umo")


def test_a_block_that_unpacks_to_more_than_it_says_is_damage(tmp_path: Path) -> None:
    import zlib

    path = tmp_path / "x.umo"
    with path.open("wb") as file:
        writer = binary.Writer(file, {})
        writer._block(b"EVTS", 10, 10 * profile.EVENT.itemsize, zlib.compress(b"\0" * (64 << 20)))
        writer.end(0, 0, {})
    with pytest.raises(profile.ProfileError, match="length"):
        profile.read(path)


def forged(path: Path, facts: object = None, words: object = None, names: object = (), end: object = None) -> None:
    """A file whose checksums are right, and nothing else need be."""
    with path.open("wb") as file:
        writer = binary.Writer(file, {})
        file.seek(0)
        file.truncate()
        text = json.dumps(
            {"facts": facts or {}, "words": words or {name: labels.words(name) for name in binary._WORDS}}
        ).encode()
        start = binary.MARK + struct.pack("<II", binary.VERSION, len(text)) + text
        file.write(start + binary._sum(start))
        if names:
            writer.names(names)  # type: ignore[arg-type]
        writer.add(some(3).events)
        if end is None:
            writer.end(0, 0, {})
        else:
            coded = json.dumps(end).encode()
            writer._block(b"END\0", 0, len(coded), coded)


@pytest.mark.parametrize(
    "what",
    [
        {"words": {name: ["x"] * 300 for name in binary._WORDS}},
        *({"facts": {"pid": value}} for value in (None, "7", -1, 1e300, float("nan"), [1], True)),
        *({"facts": {"duration_ns": value}} for value in (1 << 63, 10**30, "long", -5)),
        {"facts": {"started": 10**30}},
        {"facts": {"clock_ns": {"a": 1}}},
        {"facts": {"command": ["server"]}},
        {"names": [("scope", -1, "x")]},
        {"names": [("scope", 1, 7)]},
        *({"end": {"events": 3, "lost": n, "names_lost": 0, "facts": {}}} for n in (-1, 1.5, 1 << 64, float("inf"))),
        {"end": {"events": 3, "lost": 0, "names_lost": 0, "facts": {"capacity": "much"}}},
    ],
)
def test_a_forged_file_is_said_in_one_line(tmp_path: Path, what: dict[str, object]) -> None:
    """Right checksums do not make a file right: what readers count with is what it should be."""
    forged(tmp_path / "x.umo", **what)
    with pytest.raises(profile.ProfileError, match="damaged") as caught:
        profile.read(tmp_path / "x.umo")
    assert "\n" not in str(caught.value)


def test_halves_of_characters_can_be_written_again(tmp_path: Path) -> None:
    forged(tmp_path / "x.umo", facts={"command": "a\ud800b"}, names=[("scope", 1, "c\udfff")])
    read = profile.read(tmp_path / "x.umo")
    assert (read.facts["command"], read.scopes[1]) == ("a?b", "c?")


@pytest.mark.parametrize("ending", ["csv", "umo"])
def test_a_time_that_cannot_be_is_damage(tmp_path: Path, ending: str) -> None:
    made = some(3)
    made.events["time_ns"][2] = 1 << 63
    profile.write(tmp_path / f"x.{ending}", made)
    with pytest.raises(profile.ProfileError, match="time"):
        profile.read(tmp_path / f"x.{ending}")


# ---- exports ----


def test_the_largest_numbers_fit_every_form(tmp_path: Path) -> None:
    made = some(2 * len(profile.KINDS))
    made.events["kind"] = np.arange(len(made)) % len(profile.KINDS)
    for name in ("duration_ns", "buffer", "offset_bytes", "size_bytes", "fence_value"):
        made.events[name] = (1 << 64) - 1
    made.events["time_ns"] = (1 << 63) - 1
    made.facts["clock_ns"] = (1 << 63) - 1
    for form in ("chrome", "perfetto", "csv"):
        assert convert(made, tmp_path / form, form) > 0


def story() -> profile.Profile:
    """Overlapping brackets of one buffer, overlapping requests of one model, memory that comes and goes."""
    rows = [
        ("alloc", 100, 20, {"size_bytes": 4096, "scope": 1, "device": 1, "buffer": 9}),
        ("access_begin", 200, 0, {"buffer": 9, "side": 1, "use": 1, "size_bytes": 10, "thread": 1}),
        ("access_begin", 210, 0, {"buffer": 9, "side": 1, "use": 1, "size_bytes": 20, "thread": 2}),
        ("access_end", 300, 0, {"buffer": 9, "side": 1, "use": 1, "size_bytes": 10, "thread": 1}),
        ("access_end", 320, 0, {"buffer": 9, "side": 1, "use": 1, "size_bytes": 20, "thread": 2}),
        ("access_begin", 330, 0, {"buffer": 9, "side": 2, "use": 2, "size_bytes": 30, "thread": 2}),
        ("batch", 400, 80, {"scope": 1, "detail": 2, "offset_bytes": 1}),
        ("request", 410, 120, {"scope": 1, "fence_value": 71, "offset_bytes": 1}),
        ("request", 412, 121, {"scope": 1, "fence_value": 72, "offset_bytes": 1, "detail": 1, "status": 2}),
        ("free", 500, 0, {"size_bytes": 4096, "scope": 1, "device": 1, "buffer": 9}),
    ]
    events = np.zeros(len(rows), profile.EVENT)
    events["mode"] = events["mode_before"] = profile.NONE
    events["thread"] = 1
    for event, (kind, time_ns, duration_ns, more) in zip(events, rows, strict=True):
        event["kind"], event["time_ns"], event["duration_ns"] = profile.KINDS.index(kind), time_ns, duration_ns
        for name, value in more.items():
            event[name] = value
    return profile.Profile(events, {1: "net"}, {1: "host"}, facts={"pid": 3, "clock_ns": 10_000, "duration_ns": 600})


def server_trace() -> dict[int, Traced]:
    times = {"REQUEST_START": 10_200, "COMPUTE_START": 10_280, "COMPUTE_END": 10_415, "REQUEST_END": 10_430}
    return {71: Traced(71, "net", None, times), 5: Traced(5, "old", None, {"REQUEST_START": 1, "REQUEST_END": 2})}


def nested(spans: dict[object, list[tuple[float, float]]]) -> None:
    """Two spans of one track lie side by side or one in the other."""
    for track, track_spans in spans.items():
        for a in track_spans:
            for b in track_spans:
                crossing = a[0] < b[0] < a[1] < b[1]
                assert not crossing, (track, a, b)


def test_chrome_spans_nest_and_arrows_join(tmp_path: Path) -> None:
    out = io.BytesIO()
    write_chrome(out, story(), server_trace())
    read = json.loads(out.getvalue())
    assert read["otherData"]["lost"] == 0
    rows = read["traceEvents"]
    spans = defaultdict(list)
    for row in rows:
        if row["ph"] == "X":
            spans[(row["pid"], row["tid"])].append((row["ts"], row["ts"] + row["dur"]))
    nested(spans)
    assert [row["args"]["bytes"] for row in rows if row["ph"] == "C"] == [4096, 0]
    reads = [row for row in rows if row["name"] == "host read"]
    assert sorted((row["ts"], row["dur"]) for row in reads) == [(0.2, 0.1), (0.21, 0.11)]
    assert {row["id"] for row in rows if row["ph"] == "s"} == {71}
    assert {row["id"] for row in rows if row["ph"] == "f"} == {71}
    requests = {row["args"]["trace_id"]: row for row in rows if row["name"] == "request" and row["ph"] == "X"}
    assert set(requests) == {71, 72}
    assert requests[72]["args"]["status"] == "NOMEM"
    assert [row["ts"] for row in rows if row["name"] == "net: request"] == [0.2]
    assert "old" not in {row.get("args", {}).get("model") for row in rows}
    assert any(row["name"] == "access_begin" and row["ph"] == "i" for row in rows)


def test_perfetto_spans_nest_and_arrows_join() -> None:
    out = io.BytesIO()
    write_perfetto(out, story(), server_trace())
    packets = perfetto_trace_pb2.Trace.FromString(out.getvalue()).packet
    assert len(packets) > 20
    names: dict[int, str] = {}
    open_spans: dict[int, list[int]] = defaultdict(list)
    spans: dict[object, list[tuple[float, float]]] = defaultdict(list)
    kinds = perfetto_trace_pb2.TrackEvent
    begun = [p for p in packets if p.HasField("track_event")]
    for packet in packets:
        if packet.HasField("track_descriptor"):
            names[packet.track_descriptor.uuid] = packet.track_descriptor.name
    for packet in sorted(begun, key=lambda p: p.timestamp):
        event = packet.track_event
        assert event.track_uuid in names
        if event.type == kinds.TYPE_SLICE_BEGIN:
            open_spans[event.track_uuid].append(packet.timestamp)
        elif event.type == kinds.TYPE_SLICE_END:
            spans[event.track_uuid].append((open_spans[event.track_uuid].pop(), packet.timestamp))
    assert not any(open_spans.values())
    nested(spans)
    assert {f for p in begun for f in p.track_event.flow_ids} == {71}
    assert {f for p in begun for f in p.track_event.terminating_flow_ids} == {71}
    counters = [p.track_event.counter_value for p in begun if p.track_event.type == kinds.TYPE_COUNTER]
    assert counters == [4096, 0]
    assert min(p.timestamp for p in begun) == 10_080


@pytest.mark.parametrize(
    "text", [b"", b"{}", b"[1]", b'[{"id": "x"}]', b'[{"id":1,"timestamps":[{}]}]', b"\xff", b"[{"]
)
def test_a_damaged_trace_of_the_server_is_said_in_one_line(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "trace.json"
    path.write_bytes(text)
    with pytest.raises(profile.ProfileError) as caught:
        read_triton(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(profile.ProfileError):
        read_triton(tmp_path / "none.json")


def test_a_trace_in_parts_and_of_a_server_that_still_runs(tmp_path: Path) -> None:
    row = '{"id":%d,"model_name":"m","timestamps":[{"name":"REQUEST_START","ns":1},{"name":"REQUEST_END","ns":%d}]}'
    (tmp_path / "t.json.0").write_text("[" + row % (1, 5) + "]")
    (tmp_path / "t.json.1").write_text("[" + row % (2, 6) + ",\n")
    read = read_triton(tmp_path / "t.json")
    assert read[2].stages() == [("request", 1, 6)]
    assert set(read) == {1, 2}
