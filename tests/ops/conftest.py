"""One server for all of these tests, and what it showed after it had worked."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

import served  # noqa: E402

from umo.server import TritonServer  # noqa: E402


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with served.start(tmp_path_factory.mktemp("models")) as running:
        served.work(running)
        yield running


@pytest.fixture(scope="session")
def scraped(server: TritonServer) -> str:
    return served.scrape(server)


@pytest.fixture(scope="session")
def promtool() -> str:
    found = served.promtool()
    if found is None:
        pytest.skip("no promtool: run scripts/setup, or set UMO_PROMTOOL")
    return found
