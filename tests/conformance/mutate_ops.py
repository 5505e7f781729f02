#!/usr/bin/env python3
"""Which inputs of which operators must not change while ONNX Runtime works on them: tried, and written down.

A thread changes one input's bytes during thousands of runs, for every operator of the onnx package's node tests, small
as they are and grown to some pages. What is harmful then ends the process, hangs, or answers with bytes that are
nobody's. The same values without the changing tell what a snapshot cannot help: the engine falls for the value itself.

    mutate_ops.py                  try all, add what is seen to mutate_ops.json (about 10 minutes)
    mutate_ops.py --only TopK      try some and print

The table is evidence for one release; whether a race is won is chance, so it grows with every run until the release
changes. That an operator was never seen to fail proves nothing: the list of harmless ones (graph.c of the backend) is
made by reading, and held against the table by test_mutation.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper

sys.path.insert(0, str(Path(__file__).parent))
import awkward
import cases as suite
from cases import Case

TABLE = Path(__file__).with_suffix(".json")
GROWN_BYTES = 32 << 10
GROWN_SECONDS = 0.1  # what takes longer runs too seldom to show anything
CASES_AN_OPERATOR = 3
TRUSTED = {"unified_memory": '{"trusted_clients": true}'}


# --- cases ----------------------------------------------------------------------------------------------------------


def _loosened(case: Case) -> onnx.ModelProto:
    """The model without the sizes of its tensors."""
    model = onnx.load_from_string(case.model)
    for i, info in enumerate(model.graph.input):
        rank = len(info.type.tensor_type.shape.dim)
        dims = [f"d{i}_{d}" for d in range(rank)]
        info.CopyFrom(helper.make_tensor_value_info(info.name, info.type.tensor_type.elem_type, dims))
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    return model


def _tiled(case: Case, axis: int, alike: bool, factor: int) -> list[tuple[str, int, np.ndarray]] | None:
    first = case.inputs[0][2]
    made = []
    for i, (name, element, array) in enumerate(case.inputs):
        grows = i == 0 or (alike and array.ndim > 0 and array.shape[axis] == first.shape[axis])
        if grows:
            repeats = [1] * array.ndim
            repeats[axis] = factor
            array = np.tile(array, repeats)
        made.append((name, element, array))
    return made


def grown(case: Case) -> Case | None:
    """The case on some pages of data, where its operator runs on that."""
    first = case.inputs[0][2]
    if first.ndim == 0 or first.size == 0 or first.dtype == np.object_:
        return None
    factor = max(2, GROWN_BYTES // first.nbytes)
    model = _loosened(case).SerializeToString()
    for alike in (True, False):
        for axis in (0, -1):
            inputs = _tiled(case, axis, alike, factor)
            made = Case(f"{case.name}_grown", case.kind, model, inputs, case.outputs, case.rtol, case.atol)
            start = time.monotonic()
            answer = suite.alone(made)
            if not isinstance(answer, str) and time.monotonic() - start < GROWN_SECONDS:
                return made
    return None


def _few(found: Iterable[Case]) -> dict[str, list[Case]]:
    """Some cases of each operator: those whose inputs differ most in number, type and size."""
    by_operator: dict[str, list[Case]] = defaultdict(list)
    for case in found:
        operators = case.operators
        if case.kind == "node" and len(operators) == 1 and not isinstance(suite.alone(case), str):
            by_operator[operators[0]].append(case)
    for operator, listed in by_operator.items():
        listed.sort(key=lambda c: (-len(c.inputs), -sum(a.nbytes for _, _, a in c.inputs if a.dtype != np.object_)))
        kinds: dict[Any, list[Case]] = defaultdict(list)
        for case in listed:
            kinds[tuple(element for _, element, _ in case.inputs)].append(case)
        ordered = [group[i] for i in range(CASES_AN_OPERATOR) for group in kinds.values() if i < len(group)]
        by_operator[operator] = ordered[:CASES_AN_OPERATOR]
    return dict(by_operator)


def own() -> list[Case]:
    """Operators that need another shape than the package's to fall: long sorts, and selections of half."""
    rng = np.random.default_rng(3)
    x = rng.random(20000, np.float32)
    half = np.array([10000], np.int64)
    found = [
        awkward.case("topk_half", "TopK", [x, half], [np.float32, np.int64]),
        awkward.case("topk_int", "TopK", [rng.integers(0, 9999, 20000), half], [np.int64, np.int64]),
        awkward.case("unique_long", "Unique", [x], [np.float32, np.int64, np.int64, np.int64]),
        awkward.case("nonzero_long", "NonZero", [x], [np.int64]),
        awkward.case("compress_long", "Compress", [x, x > 0.5], [np.float32]),
    ]
    return [case for case in found if case is not None]


def chosen(only: Sequence[str] = ()) -> list[Case]:
    """What is tried, in one order: per operator the small cases, then the grown ones."""
    made = [case for case in own() if not only or case.operators[0] in only]
    for operator, listed in sorted(_few(suite.collect()).items()):
        if only and operator not in only:
            continue
        made += listed + [big for big in map(grown, listed) if big is not None]
    return made


# --- trying ---------------------------------------------------------------------------------------------------------


def input_index(case: Case, name: str) -> int:
    """The place of a graph's input among the operator's own."""
    node = onnx.load_from_string(case.model).graph.node[0]
    return list(node.input).index(name)


Outcomes = dict[tuple[str, int, str], set[str]]


def outcomes(found: Sequence[Case], milliseconds: int, calm: bool, work: Path) -> Outcomes:
    """What was seen, by operator, input and type: "crash", "hang" and "foreign"; nothing is good."""
    options = [str(milliseconds), *(["calm"] if calm else [])]
    seen: Outcomes = defaultdict(set)
    for answer in suite.run(found, work, "mutate", options, **TRUSTED):
        case = found[answer.index]
        types = {name: suite.TYPES[element][0] for name, element, _ in case.inputs}
        name = answer.words[0]
        if name not in types:
            continue  # not loaded
        what = seen[case.operators[0], input_index(case, name), types[name]]
        if answer.kind in ("crashed", "hung"):
            what.add({"crashed": "crash", "hung": "hang"}[answer.kind])
        elif answer.foreign:
            what.add("foreign")
    return dict(seen)


def try_all(found: Sequence[Case], milliseconds: int, work: Path) -> list[dict[str, Any]]:
    """Rows of the table: every operator, input and type, what changing bytes did, what unchanging ones did."""
    changing = outcomes(found, milliseconds, False, work)
    harmful = {operator for (operator, _, _), seen in changing.items() if seen}
    calm = outcomes([c for c in found if c.operators[0] in harmful], milliseconds, True, work)
    return [
        {
            "operator": operator,
            "input": index,
            "type": kind,
            "changing": sorted(seen),
            "unchanging": sorted(calm.get((operator, index, kind), ())),
        }
        for (operator, index, kind), seen in sorted(changing.items())
    ]


def read_table() -> dict[str, Any]:
    return json.loads(TABLE.read_text())


def with_known(rows: list[dict[str, Any]], known: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows, and what earlier runs have seen beyond them."""
    merged = {(row["operator"], row["input"], row["type"]): row for row in known}
    for row in rows:
        before = merged.get((row["operator"], row["input"], row["type"]), row)
        for what in ("changing", "unchanging"):
            row[what] = sorted({*row[what], *before[what]})
        merged[row["operator"], row["input"], row["type"]] = row
    return [merged[key] for key in sorted(merged)]


def write_table(rows: list[dict[str, Any]]) -> None:
    versions = {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__, "machine": platform.machine()}
    if TABLE.exists():
        before = read_table()
        if all(before[key] == value for key, value in versions.items()):
            rows = with_known(rows, before["harmful"])
    table = {
        **versions,
        "tried": sorted(f"{row['operator']} {row['input']} {row['type']}" for row in rows if not row["changing"]),
        "harmful": [row for row in rows if row["changing"]],
    }
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="*", default=[], help="operators")
    parser.add_argument("--milliseconds", type=int, default=400, help="an input")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        rows = try_all(chosen(args.only), args.milliseconds, Path(work))
    harmful = [row for row in rows if row["changing"]]
    for row in harmful:
        print(json.dumps(row))
    print(f"{len(rows)} inputs of operators, {len(harmful)} harmful")
    if not args.only:
        write_table(rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
