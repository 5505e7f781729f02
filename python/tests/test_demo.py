"""The demonstration's own arithmetic: it must be able to say that an answer is wrong."""

import numpy as np
import pytest

from umo.demo import report, workloads
from umo.demo.measure import Cell
from umo.demo.workloads import SENTENCES, Workload, denormalised, prepared_by_numpy
from umo.models import repository


def workload(expected: np.ndarray) -> Workload:
    return Workload("m", "", 1, {"IN": np.zeros(2, np.uint8)}, {"OUT": expected}, 0.0)


@pytest.mark.parametrize(
    ("answer", "difference"),
    [
        (np.array([1, 2], np.float32), 0.0),
        (np.array([1, 2.5], np.float32), 0.5),
        (np.array([1, np.nan], np.float32), float("inf")),
        (np.array([1, 2], np.float64), float("inf")),
        (np.array([[1, 2]], np.float32), float("inf")),
    ],
)
def test_difference_sees_a_wrong_answer(answer, difference):
    assert workload(np.array([1, 2], np.float32)).difference({"OUT": answer}) == difference


def test_missing_output_is_a_wrong_answer():
    assert workload(np.zeros(1, np.float32)).difference({}) == float("inf")


def test_percentiles_are_nearest_ranks():
    cell = Cell("m", "shm", "on", 1, 0, 0, times_ms=[float(n) for n in range(100, 0, -1)])
    assert (cell.percentile(0.5), cell.percentile(0.99)) == (50, 99)
    assert Cell("m", "shm", "on", 1, 0, 0, times_ms=[7.0]).percentile(0.99) == 7


def test_prepared_picture_comes_back():
    image = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
    assert np.array_equal(denormalised(prepared_by_numpy(image)), image)


def test_nearest_orders_by_likeness():
    vectors = np.eye(len(SENTENCES) + 1, dtype=np.float32)
    vectors[0, :] = 0
    vectors[0, 3], vectors[0, 1] = 0.9, 0.4
    assert [sentence for _, sentence in report.nearest(vectors, 2)] == [SENTENCES[2], SENTENCES[0]]


def test_variants_differ_in_one_word():
    for name in repository.MODELS:
        text = (repository.examples_folder() / name / "config.pbtxt").read_text()
        on, off = (repository.variant_config(text, variant).split() for variant in ("on", "off"))
        assert [(a, b) for a, b in zip(on, off, strict=True) if a != b] == [("true}'", "false}'")]
    with pytest.raises(ValueError, match="exactly once"):
        repository.variant_config("backend: 'x'", "on")


def test_query_and_sentences_fit_into_the_tokens():
    tokens = workloads.sentence_tokens()
    assert tokens.input_ids.shape == (16, 32)
    assert (tokens.attention_mask.sum(1) < 32).all()
