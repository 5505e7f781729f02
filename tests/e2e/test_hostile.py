"""Hostile clients against the real server: it lives, and nobody else's answers, bytes or memory are touched.

The attacker is another process under another uid, and so is the neighbour: a good client that runs beside every test
and verifies each of its answers and each byte of its segment (hostile/). What a test draws at random comes from one
seed, which changes by the day and is printed with a failure; UMO_HOSTILE_SEED fixes it.
"""

from __future__ import annotations

import contextlib
import datetime
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from umo.server import HOST, TritonServer

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from hostile import models  # noqa: E402
from hostile.wire import PREFIX, SHARED, Http  # noqa: E402

SEED = int(os.environ.get("UMO_HOSTILE_SEED", datetime.datetime.now(datetime.UTC).strftime("%Y%m%d")))
ATTACKER, NEIGHBOUR = 65534, 65533


def as_uid(uid: int) -> dict[str, str]:
    """The environment of a client. Without root all have our own uid, which takes nothing from the attacks but that.

    A client becomes its uid by itself, once it has read its program: nobody else may be able to.
    """
    return environment() | ({"UMO_HOSTILE_UID": str(uid)} if os.getuid() == 0 else {})


class Neighbour:
    """The good client's process."""

    def __init__(self, server: TritonServer) -> None:
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "hostile.neighbour", str(server.http_port), str(server.grpc_port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=as_uid(NEIGHBOUR),
        )

    def report(self) -> dict[str, Any]:
        """How many answers it has had in all, and what was wrong since the last report."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with self.lock:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
            return json.loads(self.process.stdout.readline())

    def stop(self) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def environment() -> dict[str, str]:
    paths = f"{HERE}{os.pathsep}{HERE.parents[1] / 'python'}"
    return {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}


@dataclass
class Stage:
    """A server under attack and the neighbour on it; both are started anew when a test has brought them down."""

    repository: Path
    server: TritonServer
    neighbour: Neighbour

    @classmethod
    def build(cls, repository: Path) -> Stage:
        server = TritonServer(repository)
        server.start()
        stage = cls(repository, server, Neighbour(server))
        stage.wait_for_neighbour()
        return stage

    def wait_for_neighbour(self, answers: int = 30) -> None:
        """Until it has been answered so often; that much of every model is warm then."""
        end = time.monotonic() + 60
        while (report := self.neighbour.report())["answers"] < answers:
            assert report["troubles"] == []
            assert time.monotonic() < end, "the neighbour is not answered"
            time.sleep(0.05)

    def close(self) -> None:
        self.neighbour.stop()
        self.server.stop()
        sweep()

    def attack(
        self, name: str, seconds: float, seed: int = SEED, dies: bool = False, crowded: bool = False
    ) -> dict[str, int]:
        """Runs one attack to its end, then demands what every attack leaves alone. Returns what the server said.

        Where attacks crowd, the neighbour waits its turn: that it was answered is for the caller to demand.
        """
        command = [
            sys.executable,
            "-m",
            "hostile.attacker",
            name,
            str(self.server.http_port),
            str(self.server.grpc_port),
        ]
        command += ["--seed", str(seed), "--seconds", str(seconds)]
        limit = 60 + 4 * seconds
        answers = self.neighbour.report()["answers"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit, env=as_uid(ATTACKER))
        again = f"attack {name}, UMO_HOSTILE_SEED={seed}"
        assert self.server.running, f"{again}: the server died\n{self.server.log()[-1500:]}"
        neighbour = self.neighbour.report()
        assert neighbour["troubles"] == [], again
        assert crowded or neighbour["answers"] > answers, f"{again}: the neighbour was not answered meanwhile"
        if dies:
            assert ran.returncode == -9, f"{again}: {ran.stderr[-2000:]}"
            return {}
        assert ran.returncode == 0, f"{again}: {ran.stderr[-2000:]}"
        report = json.loads(ran.stdout)
        assert report["troubles"] == [], f"{again}\nthe server said {report['said']}"
        return report["said"]

    def forget(self) -> None:
        """Unregisters what attackers left behind."""
        with Http(self.server.http_port) as http:
            mine = f"{PREFIX}-{self.neighbour.process.pid}-"
            for name in regions(self.server):
                if not name.startswith(mine):
                    assert http.unregister(name) == ""


def regions(server: TritonServer) -> list[str]:
    connection = http.client.HTTPConnection(HOST, server.http_port, timeout=30)
    try:
        connection.request("GET", "/v2/systemsharedmemory/status")
        return [region["name"] for region in json.loads(connection.getresponse().read())]
    finally:
        connection.close()


def sweep() -> None:
    """Removes the files that killed clients could not."""
    for path in SHARED.glob(f"{PREFIX}-*"):
        if not Path(f"/proc/{path.name.split('-')[2]}").exists():
            path.unlink(missing_ok=True)


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
    if not kept:
        kept.append(Stage.build(repository))
    yield kept[0]
    if not kept[0].server.running or kept[0].neighbour.process.poll() is not None:
        kept.pop().close()
    sweep()


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


@dataclass
class Level:
    """What the server's process holds."""

    mappings: int
    regions: int  # mappings of clients' segments, the neighbour's left out
    anonymous: int  # bytes
    shared: int  # bytes

    @classmethod
    def of(cls, stage: Stage) -> Level:
        process = Path(f"/proc/{stage.server.pid}")
        maps = (process / "maps").read_text().splitlines()
        own = f"{PREFIX}-{stage.neighbour.process.pid}-"
        status = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (process / "status").read_text(), re.M))
        return cls(
            len(maps),
            sum(PREFIX in line and own not in line for line in maps),
            int(status["RssAnon"]) << 10,
            int(status["RssShmem"]) << 10,
        )


def settle(stage: Stage, timeout_s: float = 60) -> Level:
    """Waits until nothing of the attackers' memory is mapped any more; on a busy machine umo looks less often."""
    stage.forget()
    end = time.monotonic() + timeout_s
    while (level := Level.of(stage)).regions > 0 and time.monotonic() < end:
        time.sleep(0.1)
    return level


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
