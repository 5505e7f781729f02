"""What the oracle tests share: the header's rows, the oracles of today and of macOS 13."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

# The modules beside the tests are the package `oracle`; last, so that no folder of tests hides a package.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from oracle import compare, fetch, rows  # noqa: E402


def oracles(version: str) -> compare.Oracles:
    try:
        return compare.read_oracles(version)
    except fetch.OracleOffline as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def today() -> compare.Oracles:
    return oracles("")


@pytest.fixture(scope="session")
def macos13() -> compare.Oracles:
    return oracles("13")


@pytest.fixture(scope="session")
def ours(tmp_path_factory: pytest.TempPathFactory) -> rows.Rows:
    return rows.read(tmp_path_factory.mktemp("rows"))
