"""umo top: what two readings make, and how figures are written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parent))

from top_rig import MIB, model, process, reading, three  # noqa: E402

from umo.top.columns import BLOCKS, COLUMNS, SORTS, amount, fitting, ordered, percent, spark  # noqa: E402
from umo.top.plain import health, limits  # noqa: E402
from umo.top.rates import Tracker, chosen  # noqa: E402
from umo.top.source import Model, ModelKey, Reading, printable  # noqa: E402

KEY = ModelKey("bert", "1")


def test_one_reading_makes_no_rates_and_two_do() -> None:
    tracker = Tracker()
    row = tracker.take(three(100)).rows[KEY]
    assert row.fresh and row.copied == 0 and not row.trend
    row = tracker.take(three(104)).rows[KEY]
    assert not row.fresh
    assert row.copied == pytest.approx(30 * MIB)
    assert row.saved == pytest.approx(10 * MIB)
    assert row.saved_share == pytest.approx(0.25)
    assert row.moves == pytest.approx(10)
    assert row.hits == pytest.approx(0.75)
    assert list(row.trend) == [pytest.approx(30 * MIB)]
    assert tracker.state.sum("saved") == pytest.approx(810 * MIB)
    assert tracker.state.restarts == 0


def test_a_server_that_was_started_anew_is_counted_from_nought() -> None:
    tracker = Tracker()
    for seconds in (1000, 1002):
        tracker.take(reading(seconds, bert=model(seconds, copied=MIB)))
    again = reading(1004, bert=model(2, copied=MIB))
    row = tracker.take(again).rows[KEY]
    assert row.copied == pytest.approx(MIB)
    assert row.saved >= 0 and tracker.state.restarts == 1
    tracker.take(reading(1006, bert=model(4, copied=MIB)))
    assert tracker.state.restarts == 1


def test_models_come_and_go() -> None:
    tracker = Tracker()
    tracker.take(reading(0, a=model(0)))
    state = tracker.take(reading(2, a=model(2), b=model(2, copied=MIB)))
    assert state.rows[ModelKey("b", "1")].copied == pytest.approx(MIB)  # all of it since the last reading
    state = tracker.take(reading(4, b=model(4, copied=MIB)))
    assert [key.name for key in state.rows] == ["b"]
    state = tracker.take(Reading(6))
    assert state.rows == {} and state.trend == []
    state = tracker.take(reading(8, a=model(100, copied=MIB)))
    assert state.rows[ModelKey("a", "1")].trend.maxlen == 240


def test_a_reason_that_comes_late_is_counted_from_nought() -> None:
    tracker = Tracker()
    tracker.take(reading(0, bert=Model({("avoided", "in"): 5})))
    row = tracker.take(reading(1, bert=Model({("avoided", "in"): 5, ("copied", "limit", "out"): 7}))).rows[KEY]
    assert [(reason.label, reason.direction, reason.bytes_s) for reason in row.reasons()] == [("limit", "out", 7.0)]


def test_a_failed_reading_leaves_the_figures_and_says_why() -> None:
    tracker = Tracker()
    tracker.take(three(0))
    tracker.take(three(2))
    state = tracker.fail("no answer")
    assert state.error == "no answer" and state.rows[KEY].copied > 0
    state = tracker.take(three(8))  # the time between is that between the two that came
    assert state.error is None and state.rows[KEY].copied == pytest.approx(30 * MIB)
    assert state.seconds == 6


def test_a_reading_of_the_same_time_changes_nothing() -> None:
    tracker = Tracker()
    tracker.take(three(1))
    tracker.take(three(2))
    assert tracker.take(three(2)).readings == 2


FIGURES = st.dictionaries(
    st.sampled_from([("copied", "limit", "in"), ("crossed", "host_to_device", "performed"), ("avoided", "out")]),
    st.integers(0, 2**53).map(float),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from("abc"), FIGURES), min_size=2, max_size=6))
def test_no_rate_is_ever_below_nought_and_shares_are_parts(
    steps: list[dict[str, dict[tuple[str, ...], float]]],
) -> None:
    tracker = Tracker()
    for time_s, models in enumerate(steps):
        made = {ModelKey(name, "1"): Model(dict(figures)) for name, figures in models.items()}
        state = tracker.take(Reading(float(time_s), made))
        assert set(state.rows) == set(made)
        for row in state.rows.values():
            assert all(rate >= 0 for rate in row.rates.values())
            assert row.saved_share is None or 0 <= row.saved_share <= 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.4, "0.4"),
        (7, "7"),
        (999, "999"),
        (1000, "1.0K"),
        (1024, "1.0K"),
        (10 * 1024, "10K"),
        (1023 * 1024, "1.0M"),
        (1.5 * MIB, "1.5M"),
        (5e15, "4.4P"),
        (1e30, "many"),
    ],
)
def test_amounts(value: float | None, text: str) -> None:
    assert amount(value) == text and len(text) <= 6


def test_nearly_all_is_not_written_as_all() -> None:
    assert [percent(share) for share in (None, 0, 0.5, 0.9951, 0.99999, 1)] == [
        "-",
        "0%",
        "50%",
        "99.5%",
        "99.9%",
        "100%",
    ]


def test_a_trend_ends_on_the_right() -> None:
    assert spark([0, 1, 2, 4], 6) == "  " + BLOCKS[0] + BLOCKS[2] + BLOCKS[4] + BLOCKS[7]
    assert spark([9, 0, 0], 2) == BLOCKS[0] * 2
    assert spark([], 3) == "   "
    assert spark([0, 4], 2, "_#") == "_#"


def test_columns_are_left_out_from_the_end_until_they_fit() -> None:
    for width in range(20, 300):
        columns = fitting(width)
        assert sum(wide for _, wide in columns) <= max(width, 20)
        assert [column.key for column, _ in columns] == [column.key for column in COLUMNS[: len(columns)]]
    assert [column.key for column, _ in fitting(80)] == ["name", "moved", "saved", "share", "trend", "live", "events"]
    assert len(fitting(None)) == len(COLUMNS)


def test_every_order_puts_the_greatest_first_and_names_from_a() -> None:
    tracker = Tracker()
    tracker.take(three(0))
    rows = list(tracker.take(three(2)).rows.values())
    assert [row.name for row in ordered(rows, "moved")] == ["bert", "idle", "resnet"]
    assert [row.name for row in ordered(rows, "saved")] == ["resnet", "bert", "idle"]
    assert [row.name for row in ordered(rows, "name")] == ["bert", "idle", "resnet"]
    assert [row.name for row in ordered(rows, "name", True)] == ["resnet", "idle", "bert"]
    for key in SORTS:
        assert len(ordered(rows, key)) == 3
    assert [row.name for row in chosen(rows, "ES")] == ["resnet"]


def test_the_limit_that_is_nearest_comes_first() -> None:
    tracker = Tracker()
    state = tracker.take(three(0))
    assert [name for name, _, _ in limits(state.process.gauges)] == ["cgroup", "physical"]
    assert health(state) == "ready; pressure none; memory 3.0G of 4.0G (75%, cgroup); cache 12 views, 40 bindings"
    assert health(state, 60) == "ready; pressure none; memory 3.0G of 4.0G (75%, cgroup)"
    bad = three(2)
    bad.process = process(level=3, ready=0)
    assert health(tracker.take(bad)).startswith("NOT READY: requests are refused; pressure critical")


def test_names_from_elsewhere_cannot_steer_a_terminal() -> None:
    assert printable("a\x1b[2Jb\n\u202ec") == "a?[2Jb??c"
    assert len(printable("x" * 1000)) == 120
