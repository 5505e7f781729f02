"""scripts/gen-reasons: the page follows the lists, and a list out of form is refused with its line."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIST = '/* Reasons (all of them). */\nUMO_REASON(NONE, "none", "a | b",\n           "c" /* and */ " \\"d\\"")\n'
STATUSES = 'UMO_STATUS(OK, "it went well", "nothing to do")\n'


def generate(root: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        str(ROOT / "scripts" / "gen-reasons"),
        "--root",
        str(root),
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "include" / "umo" / "reasons.inc"
    path.parent.mkdir(parents=True)
    path.write_text(LIST)
    path.with_name("statuses.inc").write_text(STATUSES)
    return path


def test_the_committed_page_is_up_to_date() -> None:
    ran = generate(ROOT, "--check")
    assert ran.returncode == 0, ran.stdout


def test_the_page_has_a_row_for_each_reason(source: Path, tmp_path: Path) -> None:
    assert generate(tmp_path).returncode == 0
    page = (tmp_path / "docs" / "reasons.md").read_text()
    assert '|---|---|---|\n| `none` | a \\| b | c "d" |\n' in page
    assert page.endswith("|---|---|---|\n| `OK` | it went well | nothing to do |\n")
    assert generate(tmp_path, "--check").returncode == 0


def test_a_stale_or_missing_page_is_found(source: Path, tmp_path: Path) -> None:
    ran = generate(tmp_path, "--check")
    assert ran.returncode == 1
    assert not (tmp_path / "docs").exists()
    assert generate(tmp_path).returncode == 0
    source.write_text(LIST + 'UMO_REASON(MODE, "mode", "e", "f")\n')
    ran = generate(tmp_path, "--check")
    assert ran.returncode == 1
    assert "+| `mode` | e | f |" in ran.stdout
    assert "docs/reasons.md:1: stale" in ran.stdout


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('UMO_REASON(MODE, "mod", "e", "f")', "MODE has the label 'mod', not 'mode'"),
        ('UMO_REASON(MODE, "mode", "", "f")', "MODE needs a cause and a remedy"),
        ('UMO_REASON(MODE, "mode", "e", "")', "MODE needs a cause and a remedy"),
        ('UMO_REASON(NONE, "none", "e", "f")', "NONE is there twice"),
        ('UMO_REASON(MODE, "mode", "e")', "expected ,, found )"),
        ('UMO_REASON(MODE, "mode", "e", f)', "expected a string, found f"),
        ('UMO_RAISIN(MODE, "mode", "e", "f")', "expected UMO_REASON, found UMO_RAISIN"),
        ('UMO_REASON(MODE, "mode", "e", "f"', "expected ), found end of file"),
        ('UMO_REASON(MODE, "mode", "e", "f);', "unexpected '\"'"),
    ],
)
def test_a_list_out_of_form_is_refused(source: Path, tmp_path: Path, row: str, message: str) -> None:
    source.write_text(LIST + row + "\n")
    ran = generate(tmp_path)
    assert ran.returncode == 1
    # Where the list ends too early, that is one line further.
    assert ran.stderr.rstrip() in [f"include/umo/reasons.inc:{line}: {message}" for line in (4, 5)]
    assert not (tmp_path / "docs").exists()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('UMO_STATUS(BUSY, "", "f")', "BUSY needs a cause and a remedy"),
        ('UMO_STATUS(BUSY, "e")', "expected ,, found )"),
        ('UMO_STATUS(OK, "e", "f")', "OK is there twice"),
        ('UMO_REASON(BUSY, "e", "f")', "expected UMO_STATUS, found UMO_REASON"),
    ],
)
def test_a_list_of_results_out_of_form_is_refused(source: Path, tmp_path: Path, row: str, message: str) -> None:
    source.with_name("statuses.inc").write_text(STATUSES + row + "\n")
    ran = generate(tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.rstrip() == f"include/umo/statuses.inc:2: {message}"
