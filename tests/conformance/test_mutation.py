"""A client that changes its bytes while the engine works on them: what was seen to fail is kept from it.

mutate_ops.json is the evidence (mutate_ops.py makes it): operators that crash, hang or hand out foreign bytes when they
work in a client's memory. Here the backend stands between, as it is configured by default.
"""

from __future__ import annotations

import datetime
from pathlib import Path

import cases as suite
import mutate_ops
import onnxruntime
import pytest
from cases import TYPES, Case

TABLE = mutate_ops.read_table()
MILLISECONDS = 60
DAYS = 21


def operator_of(case: Case) -> str:
    return case.operators[0]


def single(found: list[Case]) -> list[Case]:
    return [case for case in found if case.kind == "node" and len(case.operators) == 1]


def values_that_harm_by_themselves() -> set[tuple[str, int]]:
    """What a snapshot cannot help: the engine falls for the value, or computes for as long as it says."""
    return {
        (row["operator"], row["input"]) for row in TABLE["harmful"] if row["unchanging"] or "hang" in row["changing"]
    }


def test_table_is_of_the_release_that_is_tested() -> None:
    assert TABLE["onnxruntime"] == onnxruntime.__version__, "run tests/conformance/mutate_ops.py for this release"
    assert len(TABLE["tried"]) + len(TABLE["harmful"]) >= 400
    # The two that it began with, and a sort: a table without them was not made by a working tool.
    seen = {(row["operator"], row["input"]) for row in TABLE["harmful"]}
    assert {("Gather", 1), ("TopK", 0)} <= seen


def test_what_was_seen_to_fail_is_not_left_in_a_clients_memory(tmp_path: Path) -> None:
    harmful = {(row["operator"], row["input"], row["type"]) for row in TABLE["harmful"]}
    names = {operator for operator, _, _ in harmful}
    found = [case for case in single(suite.collect()) if operator_of(case) in names]
    found += [case for case in mutate_ops.own() if operator_of(case) in names]
    checked, left = set(), []
    for answer in suite.run(found, tmp_path):
        case = found[answer.index]
        for (name, element, _), control in zip(case.inputs, answer.control, strict=False):
            key = (operator_of(case), mutate_ops.input_index(case, name), TYPES[element][0])
            if key in harmful:
                checked.add(key)
                left += [] if control else [(case.name, name)]
    assert left == []
    assert checked == harmful


def survives(found: list[Case], milliseconds: int, work: Path) -> None:
    excused = values_that_harm_by_themselves()
    found = [c for c in found if not any(operator_of(c) == operator for operator, _ in excused)]
    assert found
    answers = suite.run(found, work, "mutate", [str(milliseconds)])
    bad = [(found[a.index].name, a.kind, a.text) for a in answers if a.kind not in ("mutated", "not loaded")]
    assert bad == []
    assert [(found[a.index].name, a.text, a.foreign) for a in answers if a.foreign] == []
    assert sum(a.runs for a in answers) >= 10 * len(found), "too few runs for this to show anything"


def test_operators_of_the_day_survive_a_client_that_changes_its_bytes(tmp_path: Path) -> None:
    part = datetime.date.today().toordinal() % DAYS
    # A part has whole operators, so that one is tried small and grown on the same day.
    names = sorted({operator_of(case) for case in single(suite.collect())})
    survives(mutate_ops.chosen(names[part::DAYS]), MILLISECONDS, tmp_path)


@pytest.mark.slow
def test_all_operators_survive_a_client_that_changes_its_bytes(tmp_path: Path) -> None:
    survives(mutate_ops.chosen(), MILLISECONDS, tmp_path)
