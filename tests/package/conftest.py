"""One wheel of this tree and one environment that has it, for all tests of a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parent))

from package_rig import Environment, copy_distribution, declared, empty_environment, find_wheel, make_wheel, taken  # noqa: E402, I001

from umo.server import free_ports  # noqa: E402


@pytest.fixture(scope="session")
def wheel() -> Path:
    """This tree's, for Linux on x86-64."""
    make_wheel("--platform", "linux-x86_64", "--no-check")
    return find_wheel("manylinux_*_x86_64")


def environment_of(wheel: Path, extra: str, folder: Path) -> Environment:
    made = empty_environment(folder)
    for name in declared(wheel, extra):
        copy_distribution(name, made.site)
    made.install(wheel)
    return made


@pytest.fixture(scope="session")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with `umo[server]`."""
    return environment_of(wheel, "server", tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="session")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with `umo` and no extra: no server, no engine."""
    return environment_of(wheel, "", tmp_path_factory.mktemp("plain"))


@pytest.fixture
def ports() -> Iterator[tuple[int, int, int]]:
    """The usual ones, which the commands in the documents use, else others."""
    usual = (8000, 8001, 8002)
    if not any(map(taken, usual)):
        yield usual
        return
    http, grpc, metrics = free_ports(3)
    yield http, grpc, metrics
