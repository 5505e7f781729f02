"""A server under attack, the neighbour on it, and what every attack has to leave alone.

The attacker is another process under another uid, and so is the neighbour: a good client that runs beside every test
and verifies each of its answers and each byte of its segment. What a test draws at random comes from one seed, which
changes by the day and is printed with a failure; UMO_HOSTILE_SEED fixes it.
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
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hostile.wire import PREFIX, SHARED, Http

from umo.server import HOST, TritonServer

HERE = Path(__file__).resolve().parents[1]
SEED = int(os.environ.get("UMO_HOSTILE_SEED", datetime.datetime.now(datetime.UTC).strftime("%Y%m%d")))
ATTACKER, NEIGHBOUR = 65534, 65533


def as_uid(uid: int) -> dict[str, str]:
    """The environment of a client. Without root all have our own uid, which takes nothing from the attacks but that.

    A client becomes its uid by itself, once it has read its program: nobody else may be able to.
    """
    return environment() | ({"UMO_HOSTILE_UID": str(uid)} if os.getuid() == 0 else {})


class ServerDied(AssertionError):
    """The one thing that no attack may do; `log` is the end of the server's."""

    def __init__(self, what: str, log: str) -> None:
        super().__init__(f"{what}: the server died\n{log}")
        self.log = log

    @property
    def in_the_front_end(self) -> bool:
        """Whether the stack that the server left has frames of its own program and of the system alone."""
        frames = re.findall(r"^ *\d+# .* in (\S+)$", self.log, re.M)
        return bool(frames) and all(re.search(r"/(tritonserver|lib(c|stdc\+\+)\.so[.\d]*)$", f) for f in frames)


class Neighbour:
    """The good client's process."""

    def __init__(self, server: TritonServer, program: str) -> None:
        self.lock = threading.Lock()
        self.process = subprocess.Popen(
            [sys.executable, "-m", program, str(server.http_port), str(server.grpc_port)],
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
    """A server under attack and the neighbour on it."""

    server: TritonServer
    neighbour: Neighbour
    attacker: str  # a module's name, as the neighbour's
    version: str  # the server's

    @classmethod
    def build(
        cls,
        repository: Path,
        attacker: str = "hostile.attacker",
        neighbour: str = "hostile.neighbour",
        env: Mapping[str, str] | None = None,
    ) -> Stage:
        server = TritonServer(repository, env=env)
        server.start()
        stage = cls(server, Neighbour(server, neighbour), attacker, version(server))
        stage.wait_for_neighbour()
        return stage

    @property
    def alive(self) -> bool:
        return self.server.running and self.neighbour.process.poll() is None

    def ended(self, mourned: bool) -> bool:
        """Whether the server is no more. One whose clients already mourn it may have a moment to go.

        The kernel closes a dying process's sockets before anybody can learn that it died.
        """
        end = time.monotonic() + (5 if mourned else 0)
        while self.server.running and time.monotonic() < end:
            time.sleep(0.01)
        return not self.server.running

    def wait_for_neighbour(self, answers: int = 30) -> None:
        """Until it has been answered so often; that much of every model is warm then."""
        end = time.monotonic() + 60
        while (report := self.neighbour.report())["answers"] < answers:
            assert report["troubles"] == []
            assert time.monotonic() < end, "the neighbour is not answered"
            time.sleep(0.05)

    def close(self, patient: bool = True) -> None:
        """A server waits for sequences that nobody ended, unless it is made to go at once."""
        self.neighbour.stop()
        if not patient and self.server.running:
            os.kill(self.server.pid, signal.SIGKILL)
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
            self.attacker,
            name,
            str(self.server.http_port),
            str(self.server.grpc_port),
        ]
        command += ["--seed", str(seed), "--seconds", str(seconds)]
        limit = 60 + 4 * seconds
        answers = self.neighbour.report()["answers"]
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=limit, env=as_uid(ATTACKER))
        again = f"attack {name}, UMO_HOSTILE_SEED={seed}"
        neighbour = self.neighbour.report()
        if self.ended(mourned=any("the server is gone" in trouble for trouble in neighbour["troubles"])):
            raise ServerDied(again, self.server.log()[-1500:])
        assert neighbour["troubles"] == [], f"{again}: {neighbour['troubles'][:5]}"
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


def kept_stage(stages: list[Stage], build: Callable[[], Stage]) -> Iterator[Stage]:
    """A fixture's body: the stage that a file keeps, made anew when a test has brought it down."""
    if not stages:
        stages.append(build())
    yield stages[0]
    if not stages[0].alive:
        stages.pop().close()
    sweep()


def regions(server: TritonServer) -> list[str]:
    connection = http.client.HTTPConnection(HOST, server.http_port, timeout=30)
    try:
        connection.request("GET", "/v2/systemsharedmemory/status")
        return [region["name"] for region in json.loads(connection.getresponse().read())]
    finally:
        connection.close()


def version(server: TritonServer) -> str:
    connection = http.client.HTTPConnection(HOST, server.http_port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/v2")
        return json.loads(connection.getresponse().read())["version"]


def sweep() -> None:
    """Removes the files that killed clients could not."""
    for path in SHARED.glob(f"{PREFIX}-*"):
        if not Path(f"/proc/{path.name.split('-')[2]}").exists():
            path.unlink(missing_ok=True)


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
