"""The command line: its exit status says what its table says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def prove(repository: Path, backends: Path):
    def run(*arguments: str, status: int) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "umo.prove",
            "--model-repository",
            str(repository),
        ]
        command += [
            "--backend-directory",
            str(backends),
            "--size",
            "4",
            "--requests",
            "1",
            "--warmup",
            "1",
            *arguments,
        ]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "python")}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


def test_zero_is_proved_for_a_backend_that_touches_nothing(prove):
    done = prove("null", "--expect-zero", "--no-verify", "--slope-sizes", "1,4", status=0)
    assert "the backend copied 0 bytes" in done.stdout
    assert "libtriton_null.so" in done.stdout


def test_a_copying_backend_fails_with_the_bytes_named_and_writes_all_figures(prove, tmp_path):
    out = tmp_path / "deep" / "proof.json"
    done = prove("copying", "--expect-zero", "--no-slope", "--json", str(out), status=1)
    assert "the backend copied 8388608 bytes a request" in done.stdout
    whole = json.loads(out.read_text())
    assert [o["transport"] for o in whole["observations"]] == ["shm", "http", "grpc"]
    assert all(o["copied"]["backend"] == 2 * (4 << 20) for o in whole["observations"])
    assert whole["refused"] and whole["wrong_answers"] == [] and whole["slope"] is None
    rows = whole["observations"][0]["spy"]["rows"]
    assert any(r["role"] == "backend" and r["kind"] == "memcpy" and r["bytes"] == 8388608 for r in rows)


def test_hidden_copies_fail_by_the_pages_alone(prove):
    done = prove("sneaky", "--expect-zero", "--no-slope", "--transports", "shm", status=1)
    assert "pages were dirtied outside the outputs" in done.stdout


def test_json_goes_to_stdout_alone(prove):
    done = prove(
        "copying",
        "--no-slope",
        "--no-census",
        "--transports",
        "shm",
        "--json",
        "-",
        status=0,
    )
    assert json.loads(done.stdout)["model"] == "copying"
    assert "copying" in done.stderr


def test_answers_that_differ_have_a_status_of_their_own(prove, tmp_path):
    import numpy as np

    values = np.arange(1000, dtype=np.float32)
    np.savez(tmp_path / "right.npz", in_IN=values, out_OUT=values)
    np.savez(tmp_path / "wrong.npz", in_IN=values, out_OUT=values + 1)
    options = (
        "copying",
        "--no-slope",
        "--no-census",
        "--transports",
        "grpc,shm",
        "--expected",
    )
    prove(*options, str(tmp_path / "right.npz"), status=0)
    done = prove(*options, str(tmp_path / "wrong.npz"), status=4)
    assert "1000 of 1000 elements differ" in done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["null", "--transports", "pigeon"], "write some of shm, http, grpc"),
        (["null", "--shape", "IN=3"], "write INPUT:1,2,-1"),
        (["null", "--batch", "0"], "give positive ones"),
        (["null", "--slope-sizes", "4"], "a slope needs two; give another"),
        (["null", "--role", "nobody=x"], "unknown role"),
        (["null", "--max-pages", "3", "--no-census"], "leave --no-census out"),
    ],
)
def test_a_wrong_command_line_names_what_is_wrong(prove, arguments, words):
    done = prove(*arguments, status=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("umo: ") and words in line


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["nowhere"], "nowhere"),
        (["null", "--shape", "OTHER:5"], "has no input OTHER; it has IN"),
        (["null", "--batch", "3"], "takes batches of at most 0, not 3"),
        (["null", "--tritonserver", "/nowhere/tritonserver"], "no executable file"),
    ],
)
def test_what_cannot_run_says_why(prove, arguments, words):
    done = prove(*arguments, "--no-slope", "--no-census", status=3)
    said = " ".join(done.stderr.split())
    assert said.startswith("umo: ") and words in said


def test_a_missing_witness_is_not_passed_over(prove, monkeypatch):
    monkeypatch.setenv("UMO_INPROC_INFER", "/nowhere/inproc_infer")
    done = prove("null", "--expect-zero", "--no-verify", "--transports", "shm", status=5)
    assert "not available: slope: no in-process host" in done.stdout
