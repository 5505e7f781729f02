"""The guide's example runs, and its types are those of the extension."""

from __future__ import annotations

import doctest
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from umo import paths

ROOT = Path(__file__).parents[2]


def test_the_guides_example_runs() -> None:
    done = doctest.testfile(str(ROOT / "docs" / "python.md"), module_relative=False)
    assert done.attempted >= 8 and done.failed == 0


def mypy(*arguments: str, module: str = "mypy") -> None:
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT / "python",
        env=os.environ | {"MYPYPATH": str(ROOT / "python"), "UMO_BUILD": str(paths.build())},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_the_types_are_the_extensions(tmp_path: Path) -> None:
    allowed = tmp_path / "allowed"
    # The buffer protocol's methods have been visible from Python since 3.12.
    allowed.write_text(r"umo\._core\..*\.__(release_)?buffer__" + "\n")
    mypy("--allowlist", str(allowed), "--ignore-unused-allowlist", "umo._core", module="mypy.stubtest")


@pytest.mark.slow
def test_the_types_are_complete() -> None:
    mypy("--strict", "--follow-imports=silent", "umo/__init__.py", "umo/_core.pyi", "umo/bench/python_api.py")
