"""A good client under a uid of its own that verifies every answer and every byte beside it, until told to stop.

    python -m hostile.neighbour HTTP_PORT GRPC_PORT

Each line on stdin asks for a report: one line of JSON, the answers so far and what was wrong since the last report.
What it sends bears a mark that no attacker's data has: so an attacker can tell when it is shown this client's bytes.
"""

from __future__ import annotations

import functools
import json
import mmap
import sys
import threading
import traceback
from collections.abc import Callable, Sequence

import numpy as np
from hostile import mark
from hostile.models import FLOATS
from hostile.wire import Grpc, Http, Place, Segment, Tensor, become

PAGE = mmap.PAGESIZE
SIZES = (16, 1024, 3000, 16384)  # floats; an attacker sends the same, so that both get into one batch
REGION = 8 * 16384 * 4


class Seen:
    """What is reported; two threads add to it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.answers = 0
        self.troubles: list[str] = []

    def add(self, answers: int, trouble: str = "") -> None:
        with self.lock:
            self.answers += answers
            if trouble and len(self.troubles) < 20:
                self.troubles.append(trouble)

    def take(self) -> dict[str, object]:
        with self.lock:
            taken = {"answers": self.answers, "troubles": self.troubles}
            self.troubles = []
        return taken


class Client:
    """One request at a time, over shared memory or in the request, over HTTP or gRPC."""

    def __init__(self, http: Http, grpc: Grpc, seen: Seen, seed: int) -> None:
        self.http, self.grpc, self.seen = http, grpc, seen
        self.rng = np.random.default_rng(seed)
        self.segment = Segment(REGION)
        self.memory = np.frombuffer(mmap.mmap(self.segment.file, REGION), np.uint8)
        self.image = self.rng.integers(0, 256, REGION, dtype=np.uint8)  # what the segment has to hold
        self.memory[:] = self.image
        self.turn = 0

    def open(self) -> None:
        said = self.http.register(self.segment.name, self.segment.key, REGION)
        if said:
            self.seen.add(0, f"register: {said}")

    def close(self) -> None:
        try:
            self.http.unregister(self.segment.name)
        finally:
            self.segment.close()

    def ask(self) -> None:
        self.turn += 1
        model = FLOATS[self.turn % len(FLOATS)]
        count = int(self.rng.choice(SIZES))
        x = mark.marked(self.rng, count)
        want = model.reference(x).tobytes()
        shared = self.turn % 4 != 0
        transport = self.grpc if self.turn % 2 else self.http
        # Two halves, each with room around: on a page, or anywhere that suits a float.
        step = PAGE if self.turn % 3 else 4
        room = REGION // 2 - 4 * count
        source = int(self.rng.integers(0, room // step)) * step
        target = REGION // 2 + int(self.rng.integers(0, room // step)) * step
        if shared:
            self.memory[source : source + 4 * count] = self.image[source : source + 4 * count] = x.view(np.uint8)
            given = Tensor("IN", "FP32", [1, count], place=Place(self.segment.name, source, 4 * count))
            wanted = Tensor("OUT", "FP32", [], place=Place(self.segment.name, target, 4 * count))
        else:
            given, wanted = Tensor("IN", "FP32", [1, count], x.tobytes()), Tensor("OUT", "FP32", [])
        what = f"{model.name}, {count} floats, {type(transport).__name__}, shared {shared}, {source} to {target}"
        answer = transport.infer(model.name, [given], [wanted])
        if answer.error:
            self.seen.add(0, f"{what}: {answer.error}")
            return
        if shared:
            got = self.memory[target : target + 4 * count].tobytes()
            self.image[target : target + 4 * count] = np.frombuffer(want, np.uint8)
            if got == want and not np.array_equal(self.memory, self.image):
                at = np.flatnonzero(self.memory != self.image)
                self.seen.add(0, f"{what}: {at.size} bytes beside the answer changed, the first at {at[0]}")
            self.memory[:] = self.image
        else:
            got = answer.outputs.get("OUT", b"")
        self.seen.add(1, "" if got == want else f"{what}: a wrong answer")


def watch(works: Sequence[Callable[[Seen, threading.Event], None]]) -> None:
    """Runs all in threads of their own until stdin ends, and reports for each line."""
    seen, stop = Seen(), threading.Event()

    def guarded(work: Callable[[Seen, threading.Event], None]) -> None:
        try:
            work(seen, stop)
        except OSError as trouble:
            seen.add(0, f"the server is gone: {trouble}")
        except Exception:
            seen.add(0, traceback.format_exc())

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for _ in sys.stdin:
        print(json.dumps(seen.take()), flush=True)
    stop.set()
    for thread in threads:
        thread.join()


def main() -> None:
    become()
    http_port, grpc_port = int(sys.argv[1]), int(sys.argv[2])

    def work(seen: Seen, stop: threading.Event, seed: int) -> None:
        with Http(http_port) as http, Grpc(grpc_port) as grpc:
            client = Client(http, grpc, seen, seed)
            try:
                client.open()
                while not stop.is_set():
                    client.ask()
            finally:
                client.close()

    watch([functools.partial(work, seed=seed) for seed in (1, 2)])


if __name__ == "__main__":
    main()
