"""The switches of docs/views.md, on the real server.

Without PROCMAP_QUERY, as on older kernels, all holds that holds with it, but for outputs that the server lets end
behind a region: nobody knows where a small one's region ends. Without the handler of SIGBUS a client can end
the server by cutting its file short, and all else holds.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hostile import models  # noqa: E402
from hostile.stage import ServerDied, Stage, kept_stage, settle  # noqa: E402
from hostile.wire import Http, Place, Segment, Tensor  # noqa: E402

TURNS = 3  # what reading the map costs is measured, and now and then at a moment when it costs far more
MODES = ("UMO_SIGBUS", "UMO_PROCMAP_QUERY")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    models.write(folder)
    return folder


@pytest.fixture(scope="module", params=MODES)
def kept(request: pytest.FixtureRequest) -> Iterator[tuple[str, list[Stage]]]:
    stages: list[Stage] = []
    yield request.param, stages
    for stage in stages:
        stage.close()


@pytest.fixture
def stage(kept: tuple[str, list[Stage]], repository: Path) -> Iterator[Stage]:
    mode, stages = kept
    yield from kept_stage(stages, lambda: Stage.build(repository, env={mode: "off"}))


def test_places_at_every_boundary_are_refused_or_exact(stage: Stage) -> None:
    assert stage.attack("bounds", 30).get("answered", 0) >= 24


def test_clients_that_die_leave_nothing_mapped(stage: Stage) -> None:
    stage.attack("die", 10, dies=True)
    assert settle(stage).regions == 0


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["overlap", "mutate", "regions", "same", "beyond"])
def test_the_other_attacks(stage: Stage, kept: tuple[str, list[Stage]], attack: str) -> None:
    if (kept[0], attack) == ("UMO_PROCMAP_QUERY", "beyond"):
        pytest.skip(
            "where a region ends is not asked about for tensors that are cheaper to copy: docs/hostile-clients.md"
        )
    said = stage.attack(attack, 3)
    assert said.get("answered", 0) > 50 or attack == "beyond"


def test_large_tensors_are_used_where_they_lie(stage: Stage) -> None:
    """Without PROCMAP_QUERY too: to read the process's map costs less than to copy so much."""
    size = 32 << 20  # far more than the neighbour's requests move meanwhile
    x = np.arange(size // 4, dtype=np.float32)
    segment = Segment(2 * size)
    segment.put(0, x.tobytes())
    given = Tensor("IN", "FP32", [1, size // 4], place=Place(segment.name, 0, size))
    wanted = Tensor("OUT", "FP32", [], place=Place(segment.name, size, size))
    try:
        with Http(stage.server.http_port) as http:
            assert http.register(segment.name, segment.key, segment.size) == ""
            unmoved = set()
            for _ in range(TURNS):
                before = stage.server.metrics()
                for name in ("identity", "kernel"):
                    assert http.infer(name, [given], [wanted]).error == ""
                    assert segment.get(size, size) == models.BY_NAME[name].reference(x).tobytes()
                moved = stage.server.metrics().since(before)
                for name in ("identity", "kernel"):
                    if moved.value("umo_copy_bytes_total", model=name) < size:
                        unmoved.add(name)
            assert http.unregister(segment.name) == ""
    finally:
        segment.close()
    assert unmoved == {"identity", "kernel"}


def test_a_file_that_is_cut_short(stage: Stage, kept: tuple[str, list[Stage]]) -> None:
    if kept[0] == "UMO_PROCMAP_QUERY":
        said = stage.attack("shrink", 2)
        assert said.get("answered", 0) > 50 and len(said) > 1
        return
    with pytest.raises(ServerDied):
        stage.attack("shrink", 10)
    assert stage.server.wait() == -signal.SIGBUS
