"""`umo explain` and umo.words: the library's words, whole, and found in whatever a user pastes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from umo import words

ROOT = Path(__file__).resolve().parents[2]


def explain(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "umo", "explain", *arguments],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, env={**os.environ, **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("source", "macro", "rows"),
    [("reasons.inc", "UMO_REASON", words.reasons), ("statuses.inc", "UMO_STATUS", words.results)],
)
def test_all_rows_of_the_library_are_there(source, macro, rows):
    listed = re.findall(rf"^{macro}\((\w+)", (ROOT / "include" / "umo" / source).read_text(), re.MULTILINE)
    assert [row.label.upper() for row in rows()] == listed
    assert all(row.cause and row.remedy for row in rows())


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        (["control_data"], {"control_data"}),
        (["Control_Data"], {"control_data"}),
        (["NOMEM"], {"NOMEM"}),
        (["UMO_E_NOMEM"], {"NOMEM"}),
        (["UMO_REASON_OVERLAP"], {"overlap"}),
        (["limit"], {"limit"}),
        (["LIMIT"], {"LIMIT"}),
        (['umo_copy_bytes_total{model="m",reason="partial_page"}', "4096"], {"partial_page"}),
        (["UNAVAILABLE: LIMIT: 5 bytes would pass the budget of 'm'"], {"LIMIT"}),
    ],
)
def test_what_is_pasted_is_explained(text, labels):
    done = explain(*text, "--json")
    assert done.returncode == 0, done.stderr
    assert {row["label"] for row in json.loads(done.stdout)} == labels


def test_without_a_word_all_is_listed_in_80_columns():
    done = explain()
    assert done.returncode == 0
    assert all(f"\n{row.label} (" in "\n" + done.stdout for row in (*words.reasons(), *words.results()))
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.parametrize(("word", "hint"), [("contol_data", "control_data"), ("xyzzy", "lists all"), ("", "lists all")])
def test_an_unknown_word_is_said_to_be_one(word, hint):
    done = explain(word)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("umo: ") and hint in done.stderr and done.stderr.count("\n") == 1


def test_no_library_is_said_in_words(tmp_path):
    done = explain("NOMEM", UMO_BUILD=str(tmp_path))
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("umo: ") and "make build" in done.stderr and done.stderr.count("\n") == 1
