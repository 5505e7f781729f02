"""The commands of docs/install.md as a new user types them: the dependencies come from the package index."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from package_rig import Environment, empty_environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def from_index(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """`pip install 'umo[server]'`, with umo itself from this tree's wheel."""
    made = empty_environment(tmp_path_factory.mktemp("index"))
    command = [sys.executable, "-m", "pip", "--python", str(made.python), "install", "-q", "--only-binary=:all:"]
    ran = subprocess.run(
        [*command, "--disable-pip-version-check", f"umo[server] @ {wheel.as_uri()}"],
        capture_output=True,
        text=True,
        cwd=made.home,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return made


def test_the_newest_of_everything_gives_an_answer(from_index: Environment) -> None:
    ran = from_index.run("umo", "example", "--ask", "--json", timeout_s=120)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["species"] == "versicolor"


def test_pip_finds_no_conflict(from_index: Environment) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(from_index.python), "check"]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=from_index.home, check=False)
    assert ran.returncode == 0, ran.stdout
