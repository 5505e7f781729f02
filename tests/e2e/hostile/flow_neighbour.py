"""The neighbour of those who attack sequences, streams and ragged batches: it uses all three, as neighbour.py does.

python -m hostile.flow_neighbour HTTP_PORT GRPC_PORT
"""

from __future__ import annotations

import functools
import mmap
import secrets
import sys
import threading

import numpy as np
from hostile import mark
from hostile.flow_models import LINES, RAGGED, RESPONSES, STEP, STREAMS
from hostile.flow_requests import Line, ask_stream, names_of, shape_of
from hostile.neighbour import SIZES, Seen, watch
from hostile.wire import Answer, Grpc, Http, Place, Segment, Tensor, become

ROOM = SIZES[-1] * 4
REGION = 2 * ROOM + 2 * mmap.PAGESIZE


class Client:
    """One request at a time to one model, over shared memory or in the request; every answer is verified."""

    def __init__(self, model: str, http: Http, grpc: Grpc, seen: Seen, seed: int) -> None:
        self.model, self.http, self.grpc, self.seen = model, http, grpc, seen
        self.rng = np.random.default_rng(seed)
        self.segment = Segment(REGION)
        self.memory = np.frombuffer(mmap.mmap(self.segment.file, REGION), np.uint8)
        self.image = self.rng.integers(0, 256, REGION, dtype=np.uint8)  # what the segment has to hold
        self.memory[:] = self.image
        self.turn = 0
        # Whoever knows a sequence's number is in it, so this one is a secret.
        self.line = Line(model, secrets.randbits(62) + 1)
        self.stream = grpc.stream(timeout_s=3600)  # of the whole stream: as long as the neighbour lives

    def ask(self) -> None:
        self.turn += 1
        count = STEP if self.model in LINES else int(self.rng.choice(SIZES))
        x = mark.marked(self.rng, count)
        source, target = (int(self.rng.integers(0, 16)) * 256 for _ in range(2))
        target += REGION // 2
        size = 4 * count
        given_name, wanted_name = names_of(self.model)
        shared = self.turn % 4 != 0
        if shared:
            self.memory[source : source + size] = self.image[source : source + size] = x.view(np.uint8)
            given = Tensor(
                given_name, "FP32", shape_of(self.model, count), place=Place(self.segment.name, source, size)
            )
            wanted = Tensor(wanted_name, "FP32", [], place=Place(self.segment.name, target, size))
        else:
            given = Tensor(given_name, "FP32", shape_of(self.model, count), x.tobytes())
            wanted = Tensor(wanted_name, "FP32", [])
        answer, got, want = self.send(given, wanted, x)
        what = f"{self.model}, turn {self.turn}, {count} floats, shared {shared}"
        if answer.error:
            self.seen.add(0, f"{what}: {answer.error}")
            return
        if shared:
            got = [self.memory[target : target + size].tobytes()]
            self.image[target : target + size] = np.frombuffer(want, np.uint8)
            if got == [want] and not np.array_equal(self.memory, self.image):
                self.seen.add(0, f"{what}: bytes beside the answer changed")
            self.memory[:] = self.image
        elif self.model in STREAMS and len(got) != RESPONSES:
            self.seen.add(0, f"{what}: {len(got)} responses")
        self.seen.add(1, "" if all(one == want for one in got) else f"{what}: a wrong answer")

    def send(self, given: Tensor, wanted: Tensor, x: np.ndarray) -> tuple[Answer, list[bytes], bytes]:
        """The answer, what came with it, and what should have."""
        transport = self.grpc if self.turn % 2 else self.http
        if self.model in STREAMS:
            return *ask_stream(self.stream, self.model, given, wanted), x.tobytes()
        if self.model in LINES:
            # Now and then a new sequence: somebody else's may not be in its place.
            answer, right = self.line.ask(transport, given, wanted, x, end=self.turn % 50 == 0)
            assert right is not None
            return answer, list(answer.outputs.values()), right.tobytes()
        answer = transport.infer(self.model, [given], [wanted, Tensor("OUTPUT1", "INT32", [])])
        if not answer.error and answer.outputs["OUTPUT1"] != len(x).to_bytes(4, "little"):
            answer = Answer(error="another request's number of elements")
        return answer, [answer.outputs.get("OUTPUT0", b"")], x.tobytes()


def work(seen: Seen, stop: threading.Event, model: str, seed: int, ports: tuple[int, int]) -> None:
    with Http(ports[0]) as http, Grpc(ports[1]) as grpc:
        client = Client(model, http, grpc, seen, seed)
        try:
            said = http.register(client.segment.name, client.segment.key, REGION)
            if said:
                seen.add(0, f"register: {said}")
            while not stop.wait(0.001):
                client.ask()
        finally:
            client.stream.close()
            client.segment.close()
        http.unregister(client.segment.name)


def main() -> None:
    become()
    ports = int(sys.argv[1]), int(sys.argv[2])
    watch(
        [
            functools.partial(work, model=model, seed=seed, ports=ports)
            for seed, model in enumerate(LINES + STREAMS + RAGGED)
        ]
    )


if __name__ == "__main__":
    main()
