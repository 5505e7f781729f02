"""`umo bench`: what is measured is compared with the README's figures, and a difference gets its reason."""

import json
import re
from pathlib import Path

import pytest

from umo import bench
from umo.bench import MEASUREMENTS, Measurement, Run, judge, less_is_better, reference
from umo.cli import app

ROOT = Path(__file__).parents[2]


def row(ratio, spread, value=10.0, unit="us", claim="client_x"):
    return {"claim": claim, "ratio": ratio, "spread": spread, "value": value, "unit": unit, "opponent": "it"}


def umo(capsys, *words):
    with pytest.raises(SystemExit) as end:
        app(["bench", *words], prog_name="umo")
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


SAME, MUCH_LESS, MUCH_MORE = row(12, [11, 13]), row(4, [3, 5]), row(40, [39, 41])


@pytest.mark.parametrize(
    ("here", "there", "busy", "words"),
    [
        (SAME, None, 0, "no figure"),
        (row(10, [9, 11]), row(12, [11.5, 13]), 0, "as there"),
        (row(4, [3, 12]), SAME, 0, "as there"),  # the spreads meet
        (MUCH_LESS, SAME, 0, "less: umo takes what it takes there, and .* is 3.0 x as fast here"),
        (row(4, [3, 5], value=30), SAME, 0, "less: umo takes 3.0 x as long here, .* as long as there; `umo doctor`"),
        (MUCH_MORE, SAME, 0, "better: umo takes what it takes there, and .* takes 3.3 x as long here"),
        (row(40, [39, 41], value=3), SAME, 0, "better: umo is 3.3 x as fast here, .* takes as long as there"),
        (MUCH_LESS, SAME, 3.2, "less: the machine did other work .3.2 runnable"),
        (row(4, [3, 5], unit="requests/s"), row(12, [11, 13], unit="requests/s"), 0, "less: another processor"),
        (row(0, [0, 0]), row(0, [0, 0]), 0, "as there"),
        (row(0.4, [0.4, 0.4], claim="batch_ring_copied_x"), row(0, [0, 0]), 0, "one of the two is 0"),
        # less is better
        (row(2, [2, 2], claim="python_roundtrip_us"), row(4, [4, 4]), 0, "better: umo takes what it takes there"),
        (row(8, [8, 8], 20, claim="python_roundtrip_us"), row(4, [4, 4]), 0, "less: umo takes 2.0 x .* as there"),
    ],
)
def test_a_difference_gets_its_reason(here, there, busy, words):
    assert re.match(words, judge(here, there, busy).words), judge(here, there, busy).words


def test_a_wide_spread_is_named_noise():
    assert judge(row(10, [5, 11]), None, 0).noisy and not judge(row(10, [8, 11]), None, 0).noisy
    assert less_is_better("python_import_ms") and not less_is_better("batch_ring_16MB_ort")


def test_the_figures_to_compare_with_are_those_of_the_page():
    """scripts/readme-tables writes both."""
    rows = reference()["rows"]
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    table = {
        cells[1].strip(" `"): cells[3].strip().replace(",", "")
        for cells in (line.split("|") for line in page.splitlines() if line.startswith("| `"))
    }
    starts = tuple(start for measurement in MEASUREMENTS for start in measurement.claims)
    there = {claim: float(ratio) for claim, ratio in table.items() if claim.startswith(starts)}
    assert there and {claim: rows[claim]["ratio"] for claim in there if claim in rows} == there
    assert reference()["machine"]


def test_reference_is_made_of_the_rows_of_the_benchmarks(tmp_path):
    from umo.bench.pack import select, write

    known = {**row(2, [1, 3], claim="client_a"), "command": "x", "more": 1}
    other = row(2, [1, 3], claim="pool_a")
    lines = "".join(json.dumps(line) + "\n" for line in (known, other)) + "not a row\n"
    assert select(lines) == {"client_a": {key: known[key] for key in ("value", "unit", "opponent", "ratio", "spread")}}
    (tmp_path / "bench.jsonl").write_text(lines)
    assert write(tmp_path / "bench.jsonl", tmp_path / "out.json") == 1
    assert json.loads((tmp_path / "out.json").read_text())["rows"].keys() == {"client_a"}


def test_the_packed_model_is_the_one_of_the_models():
    big = pytest.importorskip("umo.models.big", reason="onnx is not installed")
    from umo.bench.batch import RELU

    assert RELU.read_bytes() == big.relu_batched().SerializeToString()


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Measurements of the test's own: name -> code."""

    def make(**programs):
        for name, code in programs.items():
            (tmp_path / f"made_{name}.py").write_text(code)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(bench, "MEASUREMENTS", tuple(Measurement(n, f"made_{n}", n, (n,)) for n in programs))

    return make


GOOD = (
    f"import sys; print('words'); print({json.dumps(row(5, [5, 5], claim='good_a'))!r})\n"
    "print('left out: x (no y)', file=sys.stderr)"
)
BAD = f"print({json.dumps(row(5, [5, 5], claim='bad_a'))!r}, flush=True); raise SystemExit('wrong answer of z')"
DEAD = "import os; os.abort()"


def test_one_that_breaks_is_named_and_the_others_go_on(made, capsys):
    made(bad=BAD, dead=DEAD, good=GOOD)
    status, out, err = umo(capsys)
    assert status == 1 and err.count("\n") == 1
    assert "bad (wrong answer of z)" in err and "dead (it ended with -6)" in err and "good (" not in err
    assert "good_a" in out and "left out: x (no y)" in out and "FAILED: wrong answer of z" in out
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_json_has_all_of_it(made, capsys):
    made(bad=BAD, good=GOOD)
    status, out, _ = umo(capsys, "--json")
    said = json.loads(out)
    assert status == 1 and said["failed"] == {"bad": "wrong answer of z"} and said["notes"] == ["left out: x (no y)"]
    assert [line["claim"] for line in said["rows"]] == ["bad_a", "good_a"]
    assert {"there", "factor", "noisy", "words", "load", "measurement"} <= said["rows"][0].keys()


def test_nothing_measured_is_another_status(made, capsys):
    made(dead=DEAD)
    status, _, err = umo(capsys)
    assert status == 3 and "umo doctor" in err


def test_a_wrong_name_says_which_there_are(capsys):
    status, _, err = umo(capsys, "--only", "zork")
    assert status == 2 and "wrap, numpy, client, batch, recorder" in err


def test_what_is_measured_first_is_measured_here(capsys):
    status, out, err = umo(capsys, "--only", "wrap", "--quick", "--json")
    assert status == 0, err
    rows = {line["claim"]: line for line in json.loads(out)["rows"]}
    assert rows.keys() == {"python_wrap_1MB", "python_wrap_16MB"}
    # A wrap does not depend on the size, a copy does.
    assert rows["python_wrap_16MB"]["ratio"] > 2 * rows["python_wrap_1MB"]["ratio"] > 2


def test_the_names_of_claims_belong_to_one_measurement():
    for claim in reference()["rows"]:
        assert sum(claim.startswith(measurement.claims) for measurement in MEASUREMENTS) == 1, claim


@pytest.mark.slow
@pytest.mark.parametrize("name", ["numpy", "client", "batch", "recorder"])
def test_each_measurement_runs(name):
    (measurement,) = [m for m in MEASUREMENTS if m.name == name]
    run = Run(measurement, quick=True)
    claims = [line["claim"] for line in run.rows()]
    assert run.trouble == "" and claims and all(claim.startswith(measurement.claims) for claim in claims)
