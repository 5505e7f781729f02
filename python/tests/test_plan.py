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
        ("id,lower,upper,size,offset\na,0,2,5,0\nb,1,3,1,4\n", ["--check"], 1, "buffers 0 and 1 are in use at once"),
        (INPUT, ["--capacity", str(2**63)], 2, "2^63 - 1 at most"),
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
