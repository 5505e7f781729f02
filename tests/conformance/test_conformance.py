"""Every case of the onnx package that Triton can express, through the kit and umo_onnxruntime.

Each runs with its inputs in three places (cases.PLACES): ending at an inaccessible page, where any read or write past
a tensor's end ends the process; at odd addresses; and in memory that a client shares. Outputs end at such a page too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import awkward
import cases as suite
import numpy as np
import pytest
from cases import PLACES, Answer, Case

Results = tuple[list[Case], list[Answer]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Results:
    found = suite.collect()
    return found, suite.run(found, tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    found = awkward.collect()
    return found, suite.run(found, tmp_path_factory.mktemp("blocks"))


def close(got: np.ndarray, expected: np.ndarray, case: Case) -> bool:
    expected = expected.reshape(expected.shape or (1,))  # Triton has no scalars
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return False
    if got.dtype == np.object_ or got.dtype.kind in "biu":
        return got.tolist() == expected.tolist()
    return np.allclose(got.astype(np.float64), expected.astype(np.float64), case.rtol, case.atol, equal_nan=True)


def all_close(got: Sequence[np.ndarray], expected: Sequence[np.ndarray], case: Case) -> bool:
    return all(close(g, e, case) for g, e in zip(got, expected, strict=True))


def answers_of(results: Results, kind: str) -> Iterator[tuple[Case, Answer]]:
    found, answers = results
    return ((found[answer.index], answer) for answer in answers if answer.kind == kind)


def wrong(case: Case, answer: Answer) -> list[str]:
    """The places where the answer is neither the reference's nor the other one that the engine alone has there."""
    reference = [array for _, array in case.outputs]
    bad = [p for p, got in zip(PLACES, answer.places, strict=True) if not all_close(got, reference, case)]
    if not bad:
        return []
    own = suite.alone(case)
    assert not isinstance(own, str), f"{case.name}: umo answers and the engine alone does not: {own}"
    return [p for p, got in zip(PLACES, answer.places, strict=True) if p in bad and not all_close(got, own, case)]


def is_random(case: Case) -> bool:
    """Each run of one session draws anew, so only the first one can be compared."""
    return "Dropout" in case.operators and "training" in case.name


def test_answers_are_those_of_the_reference(node: Results) -> None:
    done = list(answers_of(node, "outputs"))
    assert len(done) >= 1600, "too few cases run for this to show anything"
    found = [(case, wrong(case, answer)) for case, answer in done]
    assert [(case.name, places) for case, places in found if places and not is_random(case)] == []
    assert [(case.name, places) for case, places in found if is_random(case) and PLACES[0] in places] == []


def test_nothing_fails_that_the_engine_alone_can_do(node: Results) -> None:
    refused = [*answers_of(node, "not loaded"), *answers_of(node, "failed")]
    assert [(case.name, answer.text) for case, answer in refused if not isinstance(suite.alone(case), str)] == []


def test_no_case_leaves_its_memory_or_breaks_a_rule_of_the_server(node: Results) -> None:
    for kind in ("crashed", "hung", "broken"):
        assert [(case.name, answer.text) for case, answer in answers_of(node, kind)] == []


def test_operators_that_work_in_blocks_stay_within_tensors_of_odd_sizes(blocks: Results) -> None:
    found, answers = blocks
    assert len(found) >= 2500, "too few cases run for this to show anything"
    assert [(found[a.index].name, a.kind, a.text) for a in answers if a.kind != "outputs"] == []
    assert [(case.name, places) for case, a in answers_of(blocks, "outputs") if (places := wrong(case, a))] == []


def test_read_past_the_end_ends_the_process_unless_it_is_declared(tmp_path: Path) -> None:
    case = awkward.reads_on()
    (answer,) = suite.run([case], tmp_path)
    assert (answer.kind, answer.text) == ("crashed", "edge: touched byte 0 behind input X0")
    (answer,) = suite.run([case], tmp_path, over_read_bytes="16")
    assert answer.kind == "outputs", answer.text
    for places in answer.places:
        np.testing.assert_array_equal(places[0], case.outputs[0][1])
