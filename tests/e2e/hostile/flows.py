"""A hostile client of sequences, streams and ragged batches: attacker.py's ways, and those that only these have.

python -m hostile.flows ATTACK HTTP_PORT GRPC_PORT --seed N --seconds S
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
from hostile import mark
from hostile.attacker import PAGE, Attack, Shrink, main_of
from hostile.flow_models import LINES, RAGGED, RESPONSES, SIDE, STEP, STREAMS
from hostile.flow_requests import Line, ask_stream, names_of, shape_of
from hostile.neighbour import SIZES
from hostile.wire import Answer, Grpc, Http, Place, Segment, Stream, Tensor

MODELS = (*LINES, *STREAMS, *RAGGED)
FULL = 4 * STEP


class Client:
    """Asks one model for a step's floats, by whatever its kind needs."""

    def __init__(self, model: str, sequence: int, http: Http, grpc: Grpc) -> None:
        self.model, self.http, self.grpc = model, http, grpc
        self.line = Line(model, sequence)
        self.stream: Stream = grpc.stream()
        self.responses: list[bytes] = []

    def ask(self, given: Place | bytes, wanted: Place | None, x: np.ndarray | None, count: int = STEP) -> Answer:
        """x is what the input is, if it is certain."""
        answer, _ = self.ask_and_tell(given, wanted, x, count)
        return answer

    def ask_and_tell(
        self, given: Place | bytes, wanted: Place | None, x: np.ndarray | None, count: int = STEP
    ) -> tuple[Answer, np.ndarray | None]:
        """Likewise; with the answer that is right, if that is certain."""
        names = names_of(self.model)
        shape = shape_of(self.model, count)
        if isinstance(given, Place):
            source = Tensor(names[0], "FP32", shape, place=given)
        else:
            source = Tensor(names[0], "FP32", shape, given)
        target = Tensor(names[1], "FP32", [], place=wanted)
        if self.model in STREAMS:
            answer, self.responses = ask_stream(self.stream, self.model, source, target)
            if answer.error == "the stream has ended":
                self.stream = self.grpc.stream()
            return answer, x
        transport = self.grpc if given is not None and count % 2 == 0 else self.http
        if self.model in LINES:
            return self.line.ask(transport, source, target, x)
        return transport.infer(self.model, [source], [target]), x

    def outputs(self, answer: Answer) -> list[bytes]:
        """What came without shared memory."""
        return self.responses if self.model in STREAMS else list(answer.outputs.values())

    def close(self) -> None:
        self.stream.close()


class FlowShrink(Shrink):
    """Truncates, grows, replaces, unlinks its segment in the middle of sequences, streams and batches.

    A step that failed leaves its sequence where it was. After one that was hit and answered all the same nobody can
    tell what the state is; the next fair one makes it known again.
    """

    WORKERS = len(MODELS)
    SIZE = 2 * WORKERS * SIZES[-1] * 4

    def work(self, number: int) -> None:
        rng = self.rng(1, number)
        model = MODELS[number]
        share = self.SIZE // self.WORKERS
        with self.http() as http, Grpc(self.grpc_port) as grpc:
            client = Client(model, self.seed * 100 + number + 1, http, grpc)
            while self.going():
                count = STEP if model in LINES else int(rng.choice(SIZES[:-1]))
                at = number * share + int(rng.integers(0, share // 2 - 4 * count) // 4) * 4
                to = at + share // 2
                x = mark.plain(rng, count)
                before = self.changes
                if before % 2 == 0:
                    self.segment.put(at, x.tobytes())
                places = Place(self.segment.name, at, 4 * count), Place(self.segment.name, to, 4 * count)
                answer, right = client.ask_and_tell(*places, x, count)
                fine = self.report.answered(answer)
                got = self.segment.get(to, 4 * count)
                self.report.look(got, f"an output of {model}")
                fair = before % 2 == 0 and before == self.changes
                if fair and not fine:
                    self.report.trouble(f"a fair request to {model} was refused: {answer.error}")
                elif fair and right is not None and got != right.tobytes():
                    self.report.trouble(f"a fair request to {model} got a wrong answer")
                if fine and not fair:
                    client.line.past = None
            client.close()


class FlowBounds(Attack):
    """Places at every boundary for each kind of model, in a region of known bytes."""

    REGION = 3 * PAGE + 24

    def places(self) -> Iterator[tuple[int, int]]:
        size = self.REGION
        for offset in (0, 4, 1, size - FULL, size - FULL + 4, size, size + 1, 2**31, 2**63 - 1, -1, -FULL):
            yield offset, FULL
        for told in (0, 1, FULL - 4, FULL + 4, size, size + 1, 2**32 + FULL, 2**63 - 1, -1, -4096, -size + FULL):
            yield PAGE, told

    def run(self) -> None:
        self.together(*(lambda n=n, m=m: self.table(n, m) for n, m in enumerate(MODELS)))

    def table(self, number: int, model: str) -> None:
        rng = self.rng(number)
        segment = Segment(self.REGION)
        guard = rng.integers(0, 256, self.REGION, dtype=np.uint8).tobytes()
        data = (mark.plain(rng, self.REGION // 4).tobytes() + guard)[: self.REGION]
        try:
            with self.http() as http, Grpc(self.grpc_port) as grpc:
                http.register(segment.name, segment.key, self.REGION)
                client = Client(model, self.seed * 100 + number + 50, http, grpc)
                for offset, told in self.places():
                    what = f"{model}, offset {offset}, {told} bytes"
                    inside = offset >= 0 and told >= 0 and offset + told <= self.REGION
                    segment.put(0, data)
                    x = np.frombuffer(data, np.float32, STEP, offset) if inside and told == FULL else None
                    self.check(client, f"input: {what}", Place(segment.name, offset, told), None, x, x is not None)
                    if segment.get(0, self.REGION) != data:
                        self.report.trouble(f"input: {what}: bytes of the region changed")
                    segment.put(0, guard)
                    x = mark.plain(rng, STEP)
                    # The server takes a size that carries past 2^64 for a small one; what is written stays the same.
                    fits = 0 <= offset <= self.REGION - FULL and told % 2**64 >= FULL
                    fits = fits and (offset + told - 1) % 2**64 < self.REGION
                    right = self.check(
                        client, f"output: {what}", x.tobytes(), Place(segment.name, offset, told), x, fits
                    )
                    image = guard
                    if fits and right is not None:
                        image = guard[:offset] + right.tobytes() + guard[offset + FULL :]
                    if segment.get(0, self.REGION) != image:
                        self.report.trouble(f"output: {what}: not the right bytes, or others beside them")
                client.close()
                http.unregister(segment.name)
        finally:
            segment.close()

    def check(
        self, client: Client, what: str, given: Place | bytes, wanted: Place | None, x: np.ndarray | None, fits: bool
    ) -> np.ndarray | None:
        answer, right = client.ask_and_tell(given, wanted, x)
        if self.report.answered(answer) != fits:
            self.report.trouble(f"{what}: {answer.error or 'was answered'}")
        for said in client.outputs(answer) if fits and wanted is None else []:
            if len(said) == FULL and (right is None or said != right.tobytes()):
                self.report.trouble(f"{what}: a wrong answer")
        return right


class FlowOverlap(Attack):
    """Outputs over inputs: a state is what the client sent, ragged parts stay apart, and each response is whole.

    A stream's first response replaces what it lies on, so the next ones are made of that, unless the request was in a
    batch and so copied.
    """

    def run(self) -> None:
        self.together(*(lambda n=n, m=m: self.table(n, m) for n, m in enumerate(MODELS)))

    def table(self, number: int, model: str) -> None:
        rng = self.rng(number)
        segment = Segment(8 * PAGE)
        try:
            with self.http() as http, Grpc(self.grpc_port) as grpc:
                http.register(segment.name, segment.key, segment.size)
                client = Client(model, self.seed * 100 + number + 20, http, grpc)
                for shift, back in itertools.product((0, 4, 64, PAGE - 4, FULL - 4, FULL), (False, True)):
                    source, target = PAGE + 8, PAGE + 8 + shift
                    if back:
                        source, target = target, source
                    noise = mark.plain(rng, segment.size // 4).tobytes()
                    segment.put(0, noise)
                    x = np.frombuffer(noise, np.float32, STEP, source)
                    places = Place(segment.name, source, FULL), Place(segment.name, target, FULL)
                    answer, right = client.ask_and_tell(*places, x)
                    assert right is not None
                    what = f"{model}, {source} to {target}"
                    if not self.report.answered(answer):
                        self.report.trouble(f"{what}: {answer.error}")
                        continue
                    once = repeated = noise[:target] + right.tobytes() + noise[target + FULL :]
                    for _ in range(RESPONSES - 1 if model in STREAMS else 0):
                        again = repeated[source : source + FULL]
                        repeated = repeated[:target] + again + repeated[target + FULL :]
                    if segment.get(0, segment.size) not in (once, repeated):
                        self.report.trouble(f"{what}: not the right bytes")
                client.close()
                http.unregister(segment.name)
        finally:
            segment.close()


class FlowSame(Attack):
    """Many requests of each kind at a time with one output: each float there is one that somebody computed."""

    FLIGHT = 2

    def run(self) -> None:
        self.segment = Segment(FULL + 2 * PAGE)
        rng = self.rng(0)
        self.image = mark.plain(rng, self.segment.size // 4).tobytes()
        self.segment.put(0, self.image)
        self.may = {0.0}
        # Few values, so that whatever is there can be told.
        self.values = [np.full(STEP, value, np.float32) for value in (1, 2, 3, 4)]
        with self.http() as http:
            http.register(self.segment.name, self.segment.key, self.segment.size)
            self.together(*(lambda n=n, m=m: self.work(n, m) for n, m in enumerate(MODELS * self.FLIGHT)))
            got = self.segment.get(0, self.segment.size)
            if not set(np.frombuffer(got, np.float32, STEP, PAGE)) <= {0, 1, 2, 3, 4}:
                self.report.trouble("an output holds what no request computed")
            if got[:PAGE] != self.image[:PAGE] or got[PAGE + FULL :] != self.image[PAGE + FULL :]:
                self.report.trouble("bytes beside the output changed")
            http.unregister(self.segment.name)
        self.segment.close()

    def work(self, number: int, model: str) -> None:
        with self.http() as http, Grpc(self.grpc_port) as grpc:
            client = Client(model, self.seed * 1000 + number + 1, http, grpc)
            for turn in itertools.count():
                if not self.going():
                    break
                x = self.values[turn % 4]
                answer = client.ask(x.tobytes(), Place(self.segment.name, PAGE, FULL), x)
                if not self.report.answered(answer):
                    self.report.trouble(f"{model}: {answer.error}")
            client.close()


class Misuse(Attack):
    """Sequences that never end, that nobody began, that end twice; numbers and names of every kind; wrong shapes."""

    def run(self) -> None:
        self.together(*(lambda n=n: self.work(n) for n in range(4)))

    def sequence(self, rng: np.random.Generator) -> int | str:
        kinds = [
            0,
            1,
            -1,
            2**63 - 1,
            2**64 - 1,
            int(rng.integers(1, 40)),
            int(rng.integers(1, 2**62)),
            "",
            "a",
            "n" * 128,
            "n" * 129,
            "n" * 5000,
            "\x00\x01",
            "%s%n",
        ]
        return kinds[int(rng.integers(len(kinds)))]

    def work(self, number: int) -> None:
        rng = self.rng(number)
        with self.http() as http, Grpc(self.grpc_port) as grpc:
            while self.going():
                model = str(rng.choice([*LINES, *SIDE[:2]]))
                flags: dict[str, object] = {}
                if rng.random() < 0.9:
                    flags["sequence_id"] = self.sequence(rng)
                for name in ("sequence_start", "sequence_end"):
                    if rng.random() < 0.7:
                        flags[name] = bool(rng.random() < (0.6 if name == "sequence_start" else 0.3))
                if rng.random() < 0.1:
                    flags["sequence_start"] = "yes"
                answer = (http if rng.random() < 0.5 else grpc).infer(model, [self.step(rng, model)], [], flags)
                self.report.answered(answer)

    def step(self, rng: np.random.Generator, model: str) -> Tensor:
        if model == "line_words":
            words = [b"", b"word", b"w" * 3000, b"\xff" * 7]
            data = b"".join(len(w).to_bytes(4, "little") + w for w in (words[i] for i in rng.integers(0, 4, 2)))
            bad = rng.random()
            if bad < 0.2:
                data = b"\xff\xff\xff\xff" + data[4:]
            elif bad < 0.3:
                data = data[:-1]
            return Tensor("IN", "BYTES", [1, 2], data)
        count = int(rng.choice([STEP, STEP, STEP, 0, 1, STEP + 1]))
        return Tensor("IN", "FP32", [1, count], mark.plain(rng, count).tobytes())


class Cancel(Attack):
    """Streams that are dropped at any moment, never read, left half open, or asked for what never ends."""

    def run(self) -> None:
        self.together(*(lambda n=n: self.work(n) for n in range(4)))

    def work(self, number: int) -> None:
        rng = self.rng(number)
        segment = Segment(4 * PAGE)
        try:
            with self.http() as http:
                http.register(segment.name, segment.key, segment.size)
                while self.going():
                    with Grpc(self.grpc_port) as grpc:
                        self.round(rng, grpc, segment)
        finally:
            segment.close()

    def round(self, rng: np.random.Generator, grpc: Grpc, segment: Segment) -> None:
        model = str(rng.choice([*STREAMS, "endless"]))
        stream = grpc.stream()
        shared = rng.random() < 0.5
        for _ in range(int(rng.integers(1, 6))):
            shape = [1, STEP] if model == "stream_rows" else [STEP]
            given = Tensor("IN", "FP32", shape, mark.plain(rng, STEP).tobytes())
            if shared:
                given = Tensor("IN", "FP32", shape, place=Place(segment.name, 0, FULL))
            wanted = Tensor("OUT", "FP32", [], place=Place(segment.name, 2 * PAGE, FULL) if shared else None)
            stream.ask(model, [given], [wanted])
        for _ in range(int(rng.integers(0, RESPONSES + 2))):
            answer, _ = stream.take()
            self.report.answered(answer)
        time.sleep(float(rng.choice([0, 0, 0.001, 0.01])))
        if rng.random() < 0.3:
            segment.truncate(0)
            segment.truncate(4 * PAGE)
        if rng.random() < 0.7 or model == "endless":
            stream.cancel()
        else:
            stream.close()  # the connection goes with what is under way


class FlowDie(Attack):
    """Kills itself in the middle of sequences and batches; leaves everything behind."""

    MODELS = (*LINES, *RAGGED)

    def run(self) -> None:
        rng = self.rng(0)
        segment = Segment(1 << 20)
        with self.http() as http:
            http.register(segment.name, segment.key, segment.size)
        flying = threading.Semaphore(0)

        def work(number: int, model: str) -> None:
            with self.http() as http, Grpc(self.grpc_port) as grpc:
                client = Client(model, self.seed * 1000 + number + 500, http, grpc)
                at = number * 2 * FULL
                while True:
                    client.ask(Place(segment.name, at, FULL), Place(segment.name, at + FULL, FULL), None)
                    flying.release()

        def endless() -> None:
            with Grpc(self.grpc_port) as grpc:
                stream = grpc.stream()
                given = Tensor("IN", "FP32", [STEP], place=Place(segment.name, 0, FULL))
                stream.ask("endless", [given], [Tensor("OUT", "FP32", [], place=Place(segment.name, FULL, FULL))])
                while True:
                    stream.take()
                    flying.release()

        for number, model in enumerate(self.MODELS * 2):
            threading.Thread(target=work, args=(number, model), daemon=True).start()
        if STREAMS[0] in self.MODELS:
            threading.Thread(target=endless, daemon=True).start()
        for _ in range(8 * len(self.MODELS)):
            flying.acquire()
        time.sleep(float(rng.uniform(0, 0.05)))
        os.kill(os.getpid(), signal.SIGKILL)


class FlowDieStreaming(FlowDie):
    """Likewise with streams under way."""

    MODELS = STREAMS


class Greedy(Attack):
    """Ragged requests of far more memory than there is, from a file without pages, into the neighbour's batches."""

    REGION = 1 << 44

    def run(self) -> None:
        self.segment = Segment(self.REGION)
        with self.http() as http:
            said = http.register(self.segment.name, self.segment.key, self.REGION)
            if said:
                self.report.trouble(f"register: {said}")
            self.together(*(lambda n=n: self.work(n) for n in range(4)))
            http.unregister(self.segment.name)
        self.segment.close()

    def work(self, number: int) -> None:
        rng = self.rng(number)
        with Grpc(self.grpc_port) as grpc:
            while self.going():
                count = 1 << int(rng.integers(37, 41))
                given = Tensor("INPUT0", "FP32", [1, count], place=Place(self.segment.name, 0, 4 * count))
                answer = grpc.infer(str(rng.choice(RAGGED)), [given], [])
                if self.report.answered(answer):
                    self.report.trouble("there is no such memory")


ATTACKS: dict[str, type[Attack]] = {
    "shrink": FlowShrink,
    "bounds": FlowBounds,
    "overlap": FlowOverlap,
    "same": FlowSame,
    "misuse": Misuse,
    "cancel": Cancel,
    "die": FlowDie,
    "die_streaming": FlowDieStreaming,
    "greedy": Greedy,
}

if __name__ == "__main__":
    main_of(ATTACKS)
