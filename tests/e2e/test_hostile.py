"""Hostile clients against the real server: it lives, and nobody else's answers, bytes or memory are touched.

hostile/stage.py says who is there; hostile/attacker.py has the attacks.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hostile import models  # noqa: E402
from hostile.stage import SEED, Level, Stage, kept_stage, settle  # noqa: E402


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    models.write(folder)
    return folder


@pytest.fixture(scope="module")
def kept(repository: Path) -> Iterator[list[Stage]]:
    stages: list[Stage] = []
    yield stages
    for stage in stages:
        stage.close()


@pytest.fixture
def stage(kept: list[Stage], repository: Path) -> Iterator[Stage]:
    yield from kept_stage(kept, lambda: Stage.build(repository))


# --- attacks ---------------------------------------------------------------------------------------------------------


def test_segments_that_shrink_grow_and_vanish_end_no_server(stage: Stage) -> None:
    said = stage.attack("shrink", 3)
    assert said.get("answered", 0) > 50
    assert len(said) > 1, "no request was hit"


def test_bytes_that_change_under_the_engine_are_survived(stage: Stage) -> None:
    said = stage.attack("mutate", 3)
    assert said.get("answered", 0) > 50


def test_clients_that_die_with_requests_in_flight_leave_the_others_alone(stage: Stage) -> None:
    for round_ in range(3):
        stage.attack("die", 10, SEED + round_, dies=True)
    stage.forget()


def test_a_thousand_regions_come_and_go_under_64_requests(stage: Stage) -> None:
    said = stage.attack("regions", 3)
    assert said.get("answered", 0) > 200


def test_places_at_every_boundary_are_refused_or_exact(stage: Stage) -> None:
    said = stage.attack("bounds", 30)
    assert said.get("answered", 0) >= 24


def test_an_output_that_ends_behind_its_region_writes_nothing(stage: Stage) -> None:
    try:
        stage.attack("beyond", 30)
    except BaseException:
        os.kill(stage.server.pid, signal.SIGKILL)  # who knows what was overwritten in it
        raise


def test_outputs_over_inputs_are_as_in_the_conventional_way(stage: Stage) -> None:
    said = stage.attack("overlap", 30)
    assert said["answered"] >= 8 * 2 * 3 * 2 * 2
    assert len(said) == 1, said


def test_requests_with_one_output_harm_nobody(stage: Stage) -> None:
    said = stage.attack("same", 2)
    assert said["answered"] > 50


# --- memory ----------------------------------------------------------------------------------------------------------


def test_memory_returns_to_its_level_after_a_storm(stage: Stage) -> None:
    def storm(seed: int) -> Level:
        stage.attack("regions", 2, seed)
        stage.attack("die", 10, seed, dies=True)
        return settle(stage)

    before = storm(SEED)  # made whatever is made once: threads' heaps, pools
    after = storm(SEED + 1)
    assert after.regions == 0, f"{after.regions} mappings of segments that nobody has registered"
    assert after.mappings - before.mappings <= 30, (before, after)
    assert after.anonymous - before.anonymous < 16 << 20, (before, after)
    assert after.shared - before.shared < 4 << 20, (before, after)


# --- all of it, for long ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("attack", ["shrink", "mutate", "regions", "same"])
def test_every_attack_for_long(stage: Stage, attack: str) -> None:
    for round_ in range(3):
        stage.attack(attack, 20, SEED + 100 + round_)


@pytest.mark.slow
def test_all_attacks_at_once(stage: Stage) -> None:
    answers = stage.neighbour.report()["answers"]
    with ThreadPoolExecutor(4) as pool:
        names = ("shrink", "mutate", "regions", "same")
        storms = [pool.submit(stage.attack, name, 30, SEED, crowded=True) for name in names]
        for round_ in range(20):
            stage.attack("die", 10, SEED + round_, dies=True, crowded=True)
        for storm in storms:
            storm.result()
    assert stage.neighbour.report()["answers"] > answers
    assert settle(stage).regions == 0
