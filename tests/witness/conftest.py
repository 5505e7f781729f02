"""What the tests of the witnesses share: the build they run against, a program under the spy, a model repository."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from umo.prove import Reading, Spy

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("UMO_BUILD_DIR", ROOT / "build" / "release"))
os.environ.setdefault("UMO_SPY_LIBRARY", str(BUILD / "lib" / "libumo_spy.so"))
os.environ.setdefault("UMO_INPROC_INFER", str(BUILD / "bin" / "inproc_infer"))
os.environ.setdefault("UMO_BACKENDS", str(BUILD / "backends"))

CONFIG = """backend: "{backend}"
max_batch_size: {batch}
input [{{ name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }}]
output [{{ name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
"""


@pytest.fixture(scope="session")
def probe() -> Path:
    """The program that copies in known amounts."""
    program = BUILD / "tests" / "witness" / "spy_probe"
    assert program.is_file(), f"{program} is not built"
    return program


MIXED = """backend: "copying"
max_batch_size: 0
input [
  { name: "A" data_type: TYPE_INT64 dims: [ -1, 2 ] },
  { name: "B" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "C" data_type: TYPE_FP16 dims: [ 3, -1 ] },
  { name: "D" data_type: TYPE_BOOL dims: [ 5 ] }
]
output [
  { name: "OA" data_type: TYPE_INT64 dims: [ -1, 2 ] },
  { name: "OB" data_type: TYPE_STRING dims: [ -1 ] },
  { name: "OC" data_type: TYPE_FP16 dims: [ 3, -1 ] },
  { name: "OD" data_type: TYPE_BOOL dims: [ 5 ] }
]
instance_group [{ kind: KIND_CPU count: 1 }]
"""


@pytest.fixture
def spied(probe: Path, tmp_path: Path) -> Callable[..., tuple[Reading, Spy, subprocess.CompletedProcess[str]]]:
    """Runs a scenario of the probe under the spy to its end."""

    def run(*arguments: str, status: int = 0) -> tuple[Reading, Spy, subprocess.CompletedProcess[str]]:
        path = tmp_path / "spy"
        env = {**os.environ, **Spy.environment(path, census=False)}
        done = subprocess.run(
            [str(probe), *arguments],
            env=env,
            capture_output=True,
            text=True,
            timeout=120,
        )
        if done.returncode == 77:
            pytest.skip(f"{' '.join(arguments)}: not possible on this machine: {done.stderr.strip()}")
        assert done.returncode == status, done.stderr
        spy = Spy(path, wait_s=0)
        return spy.read(), spy, done

    return run


@pytest.fixture(scope="session")
def backends() -> Path:
    """The backends of the build, with those that the tests need."""
    folder = Path(os.environ["UMO_BACKENDS"])
    for name in ("null", "copying", "sneaky"):
        assert (folder / name / f"libtriton_{name}.so").is_file(), f"backend {name} is not built in {folder}"
    return folder


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One float model for each measuring backend, unbatched, and one that takes batches."""
    folder = tmp_path_factory.mktemp("models")
    for name, backend, batch in (
        ("null", "null", 0),
        ("copying", "copying", 0),
        ("copying_batched", "copying", 8),
        ("sneaky", "sneaky", 0),
    ):
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "config.pbtxt").write_text(CONFIG.format(backend=backend, batch=batch))
    (folder / "mixed" / "1").mkdir(parents=True)
    (folder / "mixed" / "config.pbtxt").write_text(MIXED)
    return folder


@pytest.fixture(scope="session", autouse=True)
def nothing_left_in_shared_memory() -> Iterator[None]:
    """Every test must take its shared objects back."""

    def mine() -> set[str]:
        names = (f"umo-prove-{os.getpid()}", f"umo-witness-{os.getpid()}")
        return {path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(names)}

    before = mine()
    yield
    assert mine() <= before
