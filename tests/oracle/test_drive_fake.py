"""The fake Metal obeys Apple's own callers: a program written against metal-cpp's headers drives it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from oracle import drive, fetch, rows

SCENARIOS = re.findall(r'\{"(\w+)", \w+\}', (fetch.HERE / "drive_fake.cc").read_text())


@pytest.fixture(scope="module")
def headers() -> Path:
    try:
        return fetch.oracle("metal-cpp")
    except fetch.OracleOffline as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def program(headers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drive.build(headers, tmp_path_factory.mktemp("drive") / "drive_fake")


def test_every_scenario_is_run(program: Path) -> None:
    assert sorted(drive.drive(program).stdout.split()) == sorted(SCENARIOS)
    assert len(SCENARIOS) >= 15


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_apples_caller_is_served(scenario: str, program: Path, tmp_path: Path) -> None:
    done = drive.drive(program, scenario, str(tmp_path))
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def encodings(program: Path, ours: rows.Rows) -> dict[str, str]:
    asked = [f"{'+' if m.on_class else ''}{m.owner} {m.selector}" for m in ours.messages]
    told = [line.split("\t") for line in drive.drive(program, "encodings", given="\n".join(asked)).stdout.splitlines()]
    assert [f"{owner} {selector}" for owner, selector, _ in told] == asked
    return {m.field: encoding for m, (_, _, encoding) in zip(ours.messages, told, strict=True)}


def test_the_fakes_methods_have_the_encodings_of_the_rows(program: Path, ours: rows.Rows) -> None:
    assert encodings(program, ours) == {m.field: m.encoding for m in ours.messages}


@pytest.mark.parametrize("kind", ["selector", "encoding"])
def test_a_fake_with_a_wrong_row_is_noticed(kind: str, headers: Path, ours: rows.Rows, tmp_path: Path) -> None:
    right = '"setSignaledValue:", "v@:Q"'
    wrong = {"selector": '"setSignalledValue:", "v@:Q"', "encoding": '"setSignaledValue:", "v@:q"'}[kind]
    changed = []

    def change(name: str, text: str) -> str:
        if right in text:
            changed.append(name)
        return text.replace(right, wrong)

    mutant = drive.build(headers, tmp_path / "drive_fake", change)
    assert len(changed) == 1
    expected = {m.field: m.encoding for m in ours.messages}
    told = encodings(mutant, ours)
    assert {name for name in expected if told[name] != expected[name]} == {"event_set"}
    assert (drive.drive(mutant, "events", str(tmp_path)).returncode != 0) == (kind == "selector")
