"""`umo plan` and umo.planning: what they read, find, draw and say. The planner's own tests stand in src/plan."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umo import planning
from umo.planning import Buffer, PlanError

ROOT = Path(__file__).resolve().parents[2]
INPUT = "id,lower,upper,size\nb1,0,3,4\nb2,3,9,4\nb3,0,9,4\nb4,9,21,4\nb5,0,21,4\n"  # MiniMalloc's small example


def umo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "COLUMNS": "80"}
    command = [sys.executable, "-m", "umo", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "input.csv").write_text(INPUT)
    return tmp_path


def naive_peak(buffers: list[Buffer], offsets: list[int]) -> int:
    for i, a in enumerate(buffers):
        assert offsets[i] >= 0 and offsets[i] % a.alignment == 0
        for j, b in enumerate(buffers[:i]):
            apart = a.upper <= b.lower or b.upper <= a.lower
            assert apart or offsets[i] + a.size <= offsets[j] or offsets[j] + b.size <= offsets[i]
    return max((o + b.size for b, o in zip(buffers, offsets, strict=True)), default=0)


rows = st.tuples(
    st.integers(-30, 30), st.integers(1, 20), st.integers(1, 1 << 40), st.sampled_from([1, 1, 3, 64, 4096])
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(rows, max_size=25), st.integers(0, 1000))
def test_every_plan_is_valid_and_between_its_bound_and_the_sum(made: list[tuple], seed: int) -> None:
    buffers = [Buffer(str(k), low, low + length, size, align) for k, (low, length, size, align) in enumerate(made)]
    plan = planning.solve(buffers, seconds=0, nodes=300, seed=seed)
    assert plan.offsets is not None
    assert plan.peak == naive_peak(buffers, plan.offsets) == planning.check(buffers, plan.offsets)
    assert plan.live <= plan.bound <= plan.peak <= sum(b.size + b.alignment for b in buffers)
    if plan.optimal:
        assert plan.peak == plan.bound


def test_the_plan_is_printed_written_and_drawn(folder: Path) -> None:
    ran = umo("plan", "input.csv", "-o", "out.csv", "--svg", "p.svg", "--png", "p.png", cwd=folder)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "bound    12 bytes\npeak     12 bytes\ngap      0.00%\nproof    optimal" in ran.stdout
    written = list(csv.DictReader((folder / "out.csv").open()))
    assert [row["id"] for row in written] == ["b1", "b2", "b3", "b4", "b5"]
    buffers, offsets = planning.read(folder / "out.csv")
    assert offsets is not None and naive_peak(buffers, offsets) == 12
    assert umo("plan", "out.csv", "--check", cwd=folder).stdout == "valid    peak 12 bytes\n"
    drawn = ElementTree.parse(folder / "p.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert len(drawn.findall(f"{space}rect")) == 1 + 5
    assert "b4: 4 bytes at" in "".join(drawn.itertext())
    assert (folder / "p.png").read_bytes().startswith(b"\x89PNG")


def test_json_has_the_figures(folder: Path) -> None:
    figures = json.loads(umo("plan", "input.csv", "--json", cwd=folder).stdout)
    assert figures["peak"] == figures["bound"] == figures["live"] == 12
    assert (figures["proof"], figures["optimal"], figures["gap"], figures["buffers"]) == ("at_bound", True, 0, 5)


def test_names_with_markup_are_text_in_the_drawing(folder: Path) -> None:
    (folder / "m.csv").write_text('id,lower,upper,size\n"<script>&""x",0,1,5\n')
    assert umo("plan", "m.csv", "--svg", "m.svg", cwd=folder).returncode == 0
    assert '<script>&"x: 5 bytes' in "".join(ElementTree.parse(folder / "m.svg").getroot().itertext())


@pytest.mark.parametrize(
    ("text", "arguments", "status", "words"),
    [
        (INPUT, ["--capacity", "11"], 1, "the capacity, 11 bytes, is below the lower bound, 12"),
        ("", [], 1, "bad.csv is empty"),
        ("id,lower,upper\n", [], 1, "line 1: the header lacks the column size"),
        (INPUT + "b1,0,1,1\n", [], 1, "line 7: the id b1 is that of line 2 too"),
        (INPUT + "b6,5,5,1\n", [], 1, "line 7: the lifetime of b6 ends at 5, not after its begin, 5"),
        (INPUT + "b6,0,1,0\n", [], 1, "line 7: size is not within 1 to 2^63 - 1: 0"),
        (INPUT + "b6,0,1,9223372036854775808\n", [], 1, "line 7: size is not within"),
        (INPUT + "b6,0,1,x\n", [], 1, "line 7: size is no whole number: x"),
        (INPUT, ["--check"], 1, "bad.csv has no column offset"),
        ("id,lower,upper,size\na,0,2,9223372036854775807\nb,1,3,1\n", [], 1, "2^63 bytes or more"),
        ("id,lower,upper,size,offset\na,0,2,5,0\nb,1,3,1,4\n", ["--check"], 1, "bad.csv: buffers a and b are in use"),
        ("id,lower,upper,size,alignment,offset\n7,0,2,5,4,2\n", ["--check"], 1, "bad.csv: buffer 7: offset 2 is no"),
        ("id,lower,upper,size\na,0,2,9223372036854775807\nb,1,3,1\n", [], 1, "umo: bad.csv: the buffers in use"),
        (INPUT, ["--capacity", str(2**63)], 2, "2^63 - 1 at most"),
        (INPUT, ["--seed", str(2**64)], 2, "2^64 - 1 at most"),
        (INPUT, ["--time", "nan"], 2, "'--time'"),
        (INPUT, ["--shape", "x=1x2"], 2, "name the model with --onnx"),
        (INPUT, ["--check", "-o", "o.csv"], 2, "--check makes no plan and has no use for --output;"),
        (INPUT, ["--check", "--svg", "o.svg", "--capacity", "9"], 2, "no use for --svg, --capacity;"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    folder: Path, text: str, arguments: list[str], status: int, words: str
) -> None:
    (folder / "bad.csv").write_text(text)
    ran = umo("plan", "bad.csv", *arguments, cwd=folder)
    assert ran.returncode == status
    assert words in ran.stderr
    assert re.fullmatch(r"umo: .+; .+\n", ran.stderr), ran.stderr


def test_a_file_that_is_not_there(folder: Path) -> None:
    ran = umo("plan", "none.csv", cwd=folder)
    assert (ran.returncode, ran.stderr) == (2, "umo: none.csv: no such file; check the path\n")


def hard() -> list[Buffer]:
    """Full at all times, so that no second is enough."""
    import random

    chance = random.Random(3)
    buffers = [
        (low := chance.randrange(150), low + 1 + chance.randrange(60), 1 + chance.randrange(997)) for _ in range(300)
    ]
    live = [sum(size for low, high, size in buffers if low <= t < high) for t in range(210)]
    buffers += [(t, t + 1, max(live) - now) for t, now in enumerate(live) if now < max(live)]
    return [Buffer(str(k), *row) for k, row in enumerate(buffers)]


def test_ctrl_c_keeps_the_best_plan(folder: Path) -> None:
    planning.write(folder / "hard.csv", hard())
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    command = [sys.executable, "-m", "umo", "plan", "hard.csv", "--time", "60", "-o", "out.csv"]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "proof    none" in said
    buffers, offsets = planning.read(folder / "out.csv")
    assert offsets is not None and planning.check(buffers, offsets) > 0


def test_ctrl_c_is_no_capacity_that_was_not_reached(folder: Path) -> None:
    buffers = hard()
    planning.write(folder / "hard.csv", buffers)
    live = planning.solve(buffers, seconds=0, nodes=1).live
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
    command = [
        sys.executable,
        "-m",
        "umo",
        "plan",
        "hard.csv",
        "--time",
        "60",
        "-o",
        "out.csv",
        "--capacity",
        str(live),
    ]
    process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, "proof    none" in said) == (130, True)
    found, offsets = planning.read(folder / "out.csv")
    assert offsets is not None and planning.check(found, offsets) > live


def test_what_progress_raises_ends_the_search_and_is_raised() -> None:
    asked = []

    def progress(*now: object) -> bool:
        asked.append(now)
        raise KeyError("mine")

    begin = time.monotonic()
    with pytest.raises(KeyError, match="mine"):
        planning.solve(hard(), seconds=30, progress=progress)
    assert len(asked) == 1 and time.monotonic() - begin < 15


def test_progress_is_told_and_can_end_it() -> None:
    seen: list[tuple[int | None, int, float]] = []

    def progress(best: int | None, bound: int, seconds: float) -> bool:
        seen.append((best, bound, seconds))
        return len(seen) < 400

    plan = planning.solve(hard(), seconds=30, progress=progress)
    assert plan.interrupted and len(seen) == 400
    peaks = [best for best, _, _ in seen if best is not None]
    assert peaks == sorted(peaks, reverse=True) and plan.peak is not None and plan.peak <= peaks[-1]


def test_the_same_nodes_give_the_same_plan() -> None:
    first = planning.solve(hard(), seconds=0, nodes=5000, seed=7)
    second = planning.solve(hard(), seconds=0, nodes=5000, seed=7)
    assert first.offsets == second.offsets and first.nodes == second.nodes
    unreached = planning.solve(hard(), capacity=first.live, seconds=0, nodes=5000)
    assert "no plan of" in unreached.complaint and unreached.offsets is not None


def test_numbers_beyond_63_bits_are_refused_in_python_too() -> None:
    for wrong in (Buffer("a", 0, 1, 2**63), Buffer("a", 0, 2**63, 1), Buffer("a", 0, 1, 0), Buffer("a", 1, 1, 1)):
        with pytest.raises(PlanError):
            planning.solve([wrong])


@pytest.mark.parametrize(
    "wrong",
    [
        *({name: value} for name in ("capacity", "nodes", "seed") for value in (-1, 2**64)),
        {"capacity": 2**63},
        *({"seconds": value} for value in (-1, -1e-12, float("nan"), float("inf"), -float("inf"), 1e11)),
    ],
)
def test_limits_that_the_library_could_not_be_told_are_refused(wrong: dict) -> None:
    with pytest.raises(PlanError):
        planning.solve([Buffer("a", 0, 1, 1)], **wrong)


def test_the_greatest_limits_are_limits() -> None:
    one = [Buffer("a", 0, 1, 1)]
    assert planning.solve(one, seconds=1e10, nodes=2**64 - 1, seed=2**64 - 1, capacity=2**63 - 1).peak == 1


def test_the_shortest_time_is_a_limit() -> None:
    begin = time.monotonic()
    assert planning.solve(hard(), seconds=1e-12, nodes=10**9).seconds < 15  # 0 would be none
    assert time.monotonic() - begin < 15


@pytest.mark.parametrize("offsets", [[], [0], [0, 4, 8], [0, -1], [0, 2**63], [-(2**64), 4]])
def test_offsets_that_are_none_are_refused(tmp_path: Path, offsets: list[int]) -> None:
    buffers = [Buffer("a", 0, 1, 4), Buffer("b", 0, 1, 4)]
    for use in (lambda: planning.check(buffers, offsets), lambda: planning.write(tmp_path / "w.csv", buffers, offsets)):
        with pytest.raises(PlanError, match=r"each needs one|not within 0 to 2\^63 - 1"):
            use()
    assert not (tmp_path / "w.csv").exists()


def test_ids_of_any_bytes_stay_what_they_are_and_are_shown_as_text(folder: Path) -> None:
    text = b"id,lower,upper,size\n\xff,0,2,4\n\xfe,0,2,4\n\x1b[31m\xc3\xa9,0,2,4\n"
    (folder / "in.csv").write_bytes(text)
    assert umo("plan", "in.csv", "-o", "out.csv", "--svg", "p.svg", cwd=folder).returncode == 0
    ids = [line.partition(b",")[0] for line in (folder / "out.csv").read_bytes().splitlines()[1:]]
    assert ids == [b"\xff", b"\xfe", b"\x1b[31m\xc3\xa9"]
    assert "?[31mé: 4 bytes" in "".join(ElementTree.parse(folder / "p.svg").getroot().itertext())
    (folder / "bad.csv").write_bytes(b"id,lower,upper,size,offset\n\xff,0,2,4,0\n\x1b[31m,0,2,4,0\n")
    said = umo("plan", "bad.csv", "--check", cwd=folder).stderr
    assert said.startswith("umo: bad.csv: buffers ? and ?[31m are in use at once")


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (["a", "a"], "the id a is that of two buffers"),
        (["\udcc3\udca9", "é"], "the id é is that of two buffers"),  # the same bytes
        (["a", ""], "buffer 1 is empty"),
        (["a\0b"], "buffer 0 has a zero byte"),
        (["\ud800"], "half of a surrogate pair"),
    ],
)
def test_no_file_is_written_that_could_not_be_read(tmp_path: Path, ids: list[str], words: str) -> None:
    with pytest.raises(PlanError, match=words):
        planning.write(tmp_path / "w.csv", [Buffer(name, 0, 1, 4) for name in ids])
    with pytest.raises(PlanError, match="ends at 1, not after its begin, 1"):
        planning.write(tmp_path / "w.csv", [Buffer("a", 1, 1, 4)])
    assert list(tmp_path.iterdir()) == []


def test_paths_are_bytes_too(tmp_path: Path) -> None:
    one = [Buffer("a", 0, 1, 4)]
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.csv"))
    planning.write(path, one)
    assert planning.read(path) == (one, None)
    for use in (lambda: planning.read(f"{path}\0x"), lambda: planning.write(f"{path}\0x", one)):
        with pytest.raises(ValueError, match="a zero byte"):
            use()


def test_a_check_is_told_in_json(folder: Path) -> None:
    umo("plan", "input.csv", "-o", "out.csv", cwd=folder)
    ran = umo("plan", "out.csv", "--check", "--json", cwd=folder)
    assert (json.loads(ran.stdout), ran.returncode) == ({"buffers": 5, "valid": True, "peak": 12}, 0)
    (folder / "out.csv").write_text("id,lower,upper,size,offset\na,0,2,5,0\nb,1,3,1,4\n")
    ran = umo("plan", "out.csv", "--check", "--json", cwd=folder)
    assert (json.loads(ran.stdout), ran.returncode) == ({"buffers": 2, "valid": False, "peak": None}, 1)
    assert "buffers a and b" in ran.stderr


@pytest.mark.parametrize("option", ["-o", "--svg", "--png"])
def test_what_cannot_be_written_is_known_before_the_search(folder: Path, option: str) -> None:
    (folder / "file").write_text("mine")
    planning.write(folder / "hard.csv", hard())
    for place, words in (
        ("none/x", "No such file or directory; check the path"),
        ("file/x", "Not a directory; check the path: a part of it is a file"),
        (".", "Is a directory; name a file, not a folder"),
    ):
        ran = umo("plan", "hard.csv", "--time", "1000", option, place, cwd=folder)  # more than umo() waits
        assert (ran.returncode, ran.stdout, ran.stderr) == (3, "", f"umo: {place}: {words}\n")
    before = sorted(folder.iterdir())
    # An option that is wrong is told behind it, and what is there stays as it is.
    ran = umo("plan", "hard.csv", "--time", "1000", option, "file", "--svg", "none/x", cwd=folder)
    assert ran.returncode == 3 and (folder / "file").read_text() == "mine"
    assert sorted(folder.iterdir()) == before


@pytest.mark.skipif(not os.access("/dev/full", os.W_OK), reason="a device that is always full")
@pytest.mark.parametrize("option", ["-o", "--svg"])
def test_a_full_disk_takes_no_plan_but_its_figures_are_told(folder: Path, option: str) -> None:
    ran = umo("plan", "input.csv", option, "/dev/full", cwd=folder)
    assert ran.returncode == 3 and "peak     12 bytes" in ran.stdout
    assert ran.stderr.startswith("umo: /dev/full: No space left on device; ") and ran.stderr.count("\n") == 1


def test_more_time_is_no_advice_where_no_plan_can_be(folder: Path) -> None:
    ran = umo("plan", "input.csv", "--capacity", "11", cwd=folder)
    assert ran.returncode == 1 and ran.stderr.endswith("; allow more bytes\n")
    buffers = hard()
    planning.write(folder / "hard.csv", buffers)
    live = planning.solve(buffers, seconds=0, nodes=1).live
    ran = umo("plan", "hard.csv", "--capacity", str(live), "--time", "0.1", cwd=folder)
    assert ran.returncode == 1 and ran.stderr.endswith("; allow more bytes or more --time\n")


def write_model(path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="reads ONNX models")
    node, info, kind = onnx.helper.make_node, onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Neg", ["w"], ["constant"]),  # of weights alone
        node("Add", ["a", "constant"], ["b"]),
        node("Concat", ["a", "b"], ["c"], axis=1),
        node("ReduceSum", ["c"], ["y"]),
    ]
    weight = onnx.helper.make_tensor("w", kind, [1, 1], [1.0])
    graph = onnx.helper.make_graph(nodes, "g", [info("x", kind, ["n", 100])], [info("y", kind, None)], [weight])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(path))


def test_a_models_tensors_are_planned_from_its_graph(folder: Path) -> None:
    write_model(folder / "m.onnx")
    graph = planning.from_onnx(folder / "m.onnx", {"x": [3, 100]})
    assert graph.unknown == []
    assert graph.buffers == [
        Buffer("a", 0, 4, 1200, 64),
        Buffer("b", 2, 4, 1200, 64),
        Buffer("c", 3, 5, 2400, 64),
    ]
    ran = umo("plan", "--onnx", "m.onnx", "--shape", "x=3x100", "--json", cwd=folder)
    figures = json.loads(ran.stdout)
    assert (figures["peak"], figures["optimal"], figures["first_fit"]) == (4832, True, 4832)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--onnx", "m.onnx", "--shape", "z=1x2"], 1, "has no input z; it has x"),
        (["--onnx", "m.onnx", "--shape", "x=1"], 1, "input x has 2 dimensions, not 1"),
        (["--onnx", "m.onnx", "--shape", "x=0x1"], 2, "write name=1x3x224x224"),
        (["--onnx", "input.csv"], 1, "is no ONNX model"),
        (["--onnx", "none.onnx"], 2, "no such file"),
        (["input.csv", "--onnx", "m.onnx"], 2, "name a CSV file, or a model"),
        ([], 2, "name a CSV file, or a model"),
    ],
)
def test_what_is_wrong_with_a_model_is_told(folder: Path, arguments: list[str], status: int, words: str) -> None:
    write_model(folder / "m.onnx")
    ran = umo("plan", *arguments, cwd=folder)
    assert ran.returncode == status
    assert words in ran.stderr and ran.stderr.startswith("umo: ") and ran.stderr.count("\n") == 1


def test_first_fit_is_what_no_plan_costs() -> None:
    buffers = [Buffer("a", 0, 2, 10), Buffer("b", 1, 3, 5), Buffer("c", 2, 4, 11), Buffer("d", 2, 4, 9, 4)]
    assert planning.first_fit(buffers) == 15 + 11  # c finds no gap, d does
