"""A hostile client: one process, one uid, one way to attack.

    python -m hostile.attacker ATTACK HTTP_PORT GRPC_PORT --seed N --seconds S

Prints one line of JSON: what the server said how often, and `troubles`, which are the attack's own demands that did not
hold (a wrong answer to a fair request, a byte beside a range that changed, a neighbour's bytes). All that is random
comes from the seed, but for the order in which threads run.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import mmap
import os
import re
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hostile import mark
from hostile.models import BY_NAME, FLOATS, TABLE, TOP
from hostile.neighbour import SIZES
from hostile.wire import PREFIX, SHARED, Answer, Grpc, Http, Place, Segment, Tensor, become

PAGE = mmap.PAGESIZE


class Report:
    """What was seen, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.said: collections.Counter[str] = collections.Counter()
        self.troubles: list[str] = []

    def answered(self, answer: Answer) -> bool:
        """Counts an answer, and looks for the neighbour in it. True unless it is a refusal."""
        # Numbers and names vary; the sentence is what counts.
        text = re.sub(r"\d+", "N", re.sub(rf"{PREFIX}[\w.-]*", "REGION", answer.error)) if answer.error else "answered"
        with self._lock:
            self.said[text[:160]] += 1
        for data in answer.outputs.values():
            self.look(data, "an answer")
        return not answer.error

    def look(self, data: bytes, where: str) -> None:
        if mark.bears(data):
            self.trouble(f"a neighbour's bytes in {where}")

    def trouble(self, text: str) -> None:
        with self._lock:
            if len(self.troubles) < 20:
                self.troubles.append(text)


class Attack:
    """What every attack has: the ports, a seed, an end, a report, and threads that end with it."""

    def __init__(self, http_port: int, grpc_port: int, seed: int, seconds: float) -> None:
        self.http_port, self.grpc_port, self.seed = http_port, grpc_port, seed
        self.seconds = seconds
        self.end = time.monotonic() + seconds
        self.report = Report()
        self.stop = threading.Event()

    def rng(self, *which: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *which])

    def going(self) -> bool:
        return not self.stop.is_set() and time.monotonic() < self.end

    def http(self) -> Http:
        return Http(self.http_port)

    def together(self, *works: Callable[[], None]) -> None:
        """Runs all until they return; what one of them throws stops the others."""

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except OSError as trouble:
                self.report.trouble(f"the server is gone: {trouble}")
                self.stop.set()
            except Exception:
                self.report.trouble(traceback.format_exc())
                self.stop.set()

        threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def floats_request(region: str, count: int, source: int, target: int) -> tuple[Tensor, Tensor]:
    return (
        Tensor("IN", "FP32", [1, count], place=Place(region, source, 4 * count)),
        Tensor("OUT", "FP32", [], place=Place(region, target, 4 * count)),
    )


class Shrink(Attack):
    """Truncates, grows, replaces and unlinks its segment at any moment, with requests in flight on it."""

    SIZE = 8 * SIZES[-1] * 4
    WORKERS = 4

    def run(self) -> None:
        self.segment = Segment(self.SIZE)
        self.changes = 0  # odd while the segment may be anything; a request that sees one even number is a fair one
        with self.http() as http:
            self.register(http)
        try:
            self.together(*(lambda n=n: self.work(n) for n in range(self.WORKERS)), self.change)
        finally:
            self.segment.close()

    def register(self, http: Http) -> None:
        http.unregister(self.segment.name)
        said = http.register(self.segment.name, self.segment.key, self.SIZE)
        if said:
            self.report.trouble(f"register: {said}")

    def change(self) -> None:
        rng = self.rng(0)
        with self.http() as http:
            while self.going():
                time.sleep(float(rng.choice([0, 0.0003, 0.002, 0.01])))
                self.changes += 1
                what = rng.choice(["cut", "cut", "cut", "empty", "grow", "replace", "unlink"])
                if what == "cut":
                    self.segment.truncate(int(rng.integers(0, self.SIZE)))
                elif what == "empty":
                    self.segment.truncate(0)
                elif what == "grow":
                    self.segment.truncate(2 * self.SIZE)
                elif what == "unlink":
                    self.segment.unlink()
                time.sleep(float(rng.choice([0, 0, 0.0003, 0.002])))
                if what in ("replace", "unlink"):
                    self.segment.replace()
                    self.register(http)
                self.segment.truncate(self.SIZE)
                self.changes += 1

    def work(self, number: int) -> None:
        rng = self.rng(1, number)
        share = self.SIZE // self.WORKERS  # each worker writes into its own part
        with self.http() as http, Grpc(self.grpc_port) as grpc:
            for turn in itertools.count():
                if not self.going():
                    return
                model = FLOATS[int(rng.integers(len(FLOATS)))]
                count = int(rng.choice(SIZES[:-1]))
                at = number * share + int(rng.integers(0, share // 2 - 4 * count) // 4) * 4
                to = at + share // 2
                x = mark.plain(rng, count)
                before = self.changes
                if before % 2 == 0:
                    self.segment.put(at, x.tobytes())
                answer = (http if turn % 2 else grpc).infer(
                    model.name, *map(lambda t: [t], floats_request(self.segment.name, count, at, to))
                )
                fine = self.report.answered(answer)
                got = self.segment.get(to, 4 * count)
                self.report.look(got, f"an output of {model.name}")
                if before % 2 == 0 and before == self.changes:
                    if not fine:
                        self.report.trouble(f"a fair request to {model.name} was refused: {answer.error}")
                    elif got != model.reference(x).tobytes():
                        self.report.trouble(f"a fair request to {model.name} got a wrong answer")


class Mutate(Attack):
    """Changes the bytes of its inputs while engines read them, those that steer above all."""

    ROOM = 1 << 16

    def run(self) -> None:
        self.together(*(lambda n=n: self.work(n) for n in range(5)))

    def inputs(
        self, number: int, rng: np.random.Generator
    ) -> tuple[str, list[tuple[str, str, list[int], bytes]], str, int]:
        """A model, its inputs with good data, its output, and the most bytes that it may have."""
        if number == 0:
            index = rng.integers(0, TABLE, 2000, dtype=np.int64)
            return "gather", [("INDEX", "INT64", [1, 2000], index.tobytes())], "OUT", 8000
        if number == 1:
            return "top", [("IN", "FP32", [TOP], mark.plain(rng, TOP).tobytes())], "OUT", TOP * 2
        if number == 2:
            where = rng.integers(0, TABLE, 2000, dtype=np.int32)
            rows = [
                ("FROM", "FP32", [TABLE], mark.plain(rng, TABLE).tobytes()),
                ("WHERE", "INT32", [2000], where.tobytes()),
            ]
            return "pick", rows, "OUT", 8000
        if number == 3:
            words = b"".join(len(w).to_bytes(4, "little") + w for w in [b"word%d" % i for i in range(500)])
            return (
                str(rng.choice(["strings", "strings_identity"])),
                [("TEXT", "BYTES", [500], words)],
                "SAME",
                len(words),
            )
        name = str(rng.choice(list(BY_NAME)))
        return name, [("IN", "FP32", [1, 3000], mark.plain(rng, 3000).tobytes())], "OUT", 12000

    def work(self, number: int) -> None:
        rng = self.rng(number)
        segment = Segment(2 * self.ROOM)
        quiet = threading.Event()
        try:
            with self.http() as http, Grpc(self.grpc_port) as grpc:
                http.register(segment.name, segment.key, segment.size)
                spoiler = threading.Thread(target=self.spoil, args=(segment, number, quiet))
                spoiler.start()
                try:
                    while self.going():
                        model, rows, output, most = self.inputs(number, rng)
                        at, given = 0, []
                        for name, kind, shape, data in rows:
                            segment.put(at, data)
                            given.append(Tensor(name, kind, shape, place=Place(segment.name, at, len(data))))
                            at += -(-len(data) // 64) * 64
                        wanted = Tensor(output, "", [], place=Place(segment.name, self.ROOM, most))
                        # What is said to spoiled data is the server's choice: an answer or a refusal.
                        self.report.answered((http if rng.random() < 0.5 else grpc).infer(model, given, [wanted]))
                        self.report.look(segment.get(self.ROOM, self.ROOM), f"an output of {model}")
                finally:
                    quiet.set()
                    spoiler.join()
                http.unregister(segment.name)
        finally:
            segment.close()

    def spoil(self, segment: Segment, number: int, quiet: threading.Event) -> None:
        """Writes through a mapping of its own, which is faster than any call: the file never shrinks here."""
        rng = self.rng(number, 1)
        memory = np.frombuffer(mmap.mmap(segment.file, segment.size), np.uint8)
        wide = memory[: self.ROOM].view(np.uint64)
        bad = np.array([0, 2**63 - 1, 2**64 - 1, 2**40, 0x7FFFFFFF_7FFFFFFF, 0x00000001_00000000], np.uint64)
        while not quiet.is_set():
            at = rng.integers(0, 2048, 64)
            wide[at] = rng.choice(bad, 64)
            memory[rng.integers(0, 16384, 16)] = rng.integers(0, 256, 16, dtype=np.uint8)
            time.sleep(0)


class Die(Attack):
    """Kills itself with requests in flight, its segment registered; leaves everything behind."""

    WORKERS = 8

    def run(self) -> None:
        rng = self.rng(0)
        segment = Segment(8 << 20)
        with self.http() as http:
            http.register(segment.name, segment.key, segment.size)
        flying = threading.Semaphore(0)

        def work(number: int) -> None:
            own = self.rng(1, number)
            share = segment.size // self.WORKERS
            with self.http() as http, Grpc(self.grpc_port) as grpc:
                while True:
                    model = FLOATS[int(own.integers(len(FLOATS)))]
                    count = int(own.choice([*SIZES, share // 8]))
                    given, wanted = floats_request(segment.name, count, number * share, number * share + share // 2)
                    if own.random() < 0.3:  # not in shared memory: the connection breaks in the middle of a body
                        given = Tensor("IN", "FP32", [1, count], mark.plain(own, count).tobytes())
                    (http if own.random() < 0.5 else grpc).infer(model.name, [given], [wanted])
                    flying.release()

        for number in range(self.WORKERS):
            threading.Thread(target=work, args=(number,), daemon=True).start()
        for _ in range(self.WORKERS):
            flying.acquire()  # all are at it
        time.sleep(float(rng.uniform(0, 0.05)))
        os.kill(os.getpid(), signal.SIGKILL)


class Regions(Attack):
    """Registers and unregisters 1,000 regions at random under 64 requests in flight; addresses are soon used again."""

    COUNT = 1000
    FLIGHT = 64

    def run(self) -> None:
        self.locks = [threading.Lock() for _ in range(self.COUNT)]  # one user of a region's bytes at a time
        self.live: dict[int, Segment] = {}
        self.changed = threading.Lock()
        with self.http() as http:
            for number in range(self.COUNT):
                self.register(http, self.rng(0, number), number)
        self.end = time.monotonic() + self.seconds
        try:
            self.together(
                lambda: self.change(0),
                lambda: self.change(1),
                *(lambda n=n: self.work(n) for n in range(self.FLIGHT)),
            )
        finally:
            with self.http() as http:
                for number, segment in list(self.live.items()):
                    http.unregister(self.name(number))
                    segment.close()

    def name(self, number: int) -> str:
        return f"{PREFIX}-{os.getpid()}-region-{number}"

    def register(self, http: Http, rng: np.random.Generator, number: int, segment: Segment | None = None) -> None:
        """A new file, or one that was registered before, now with another size."""
        if segment is None:
            # Seldom another size than before: then the same address comes back, with another file behind it.
            segment = Segment(PAGE * int(rng.choice([2, 2, 2, 3, 8])) + int(rng.choice([0, 0, 100])))
        else:
            segment.size = PAGE * int(rng.integers(2, os.fstat(segment.file).st_size // PAGE + 1))
        said = http.register(self.name(number), segment.key, segment.size)
        if rng.random() < 0.5:
            segment.unlink()
        if said:
            self.report.trouble(f"register: {said}")
        self.live[number] = segment

    def change(self, number: int) -> None:
        rng = self.rng(1, number)
        with self.http() as http:
            while self.going():
                which = int(rng.integers(self.COUNT))
                with self.changed:
                    segment = self.live.get(which)
                    if segment is None:
                        self.register(http, rng, which)
                        continue
                    said = http.unregister(self.name(which), patience_s=0)  # refused while in use
                    if not said:
                        del self.live[which]
                        # Whoever still uses the bytes holds the lock; the file goes when nobody does.
                        with self.locks[which]:
                            if segment.path.exists():
                                self.register(http, rng, which, segment)
                            else:
                                segment.close()

    def work(self, number: int) -> None:
        rng = self.rng(2, number)
        grpc = self.shared_grpc()
        while self.going():
            which = int(rng.integers(self.COUNT))
            if not self.locks[which].acquire(blocking=False):
                continue
            try:
                segment = self.live.get(which)
                if segment is not None:
                    self.ask(grpc, rng, which, segment)
            finally:
                self.locks[which].release()

    def shared_grpc(self) -> Grpc:
        with self.changed:
            if not hasattr(self, "_grpc"):
                self._grpc = Grpc(self.grpc_port)
            return self._grpc

    def ask(self, grpc: Grpc, rng: np.random.Generator, which: int, segment: Segment) -> None:
        model = FLOATS[int(rng.integers(len(FLOATS)))]
        half = segment.size // 2 // 4 * 4
        count = int(rng.choice([16, 1000]))
        x = mark.plain(rng, count)
        segment.put(0, x.tobytes())
        segment.put(half, b"\xff" * (segment.size - half))
        given, wanted = floats_request(self.name(which), count, 0, half)
        answer = grpc.infer(model.name, [given], [wanted])
        fine = self.report.answered(answer)
        got = segment.get(0, segment.size)
        self.report.look(got, "a region")
        if fine and self.live.get(which) is segment:
            if got[half : half + 4 * count] != model.reference(x).tobytes():
                self.report.trouble(f"{model.name}: a wrong answer in region {which}")
            if got[: 4 * count] != x.tobytes() or got[half + 4 * count :].strip(b"\xff"):
                self.report.trouble(f"{model.name}: bytes beside the answer changed in region {which}")


class Bounds(Attack):
    """Offsets and sizes at every boundary, of inputs and outputs, over both protocols, in a region of known bytes."""

    REGION = 5 * PAGE + 24
    COUNT = 1024  # floats

    def numbers(self) -> list[int]:
        size = self.REGION
        near = [0, 1, 4, PAGE, size - 4 * self.COUNT, size - 4 * self.COUNT + 1, size - 1, size, size + 1]
        far = [2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 4 * self.COUNT, 2**64 - 4096, 2**64 - 1, 2**64, -1]
        return near + far

    def sizes(self) -> list[int]:
        full = 4 * self.COUNT
        return [full, 0, 1, full - 1, full + 1, self.REGION, self.REGION + 1, 2**31, 2**32 + full, 2**63, 2**64 - 1, -1]

    def run(self) -> None:
        self.together(*(lambda m=m: self.table(m.name) for m in FLOATS))

    def cases(self) -> Iterator[tuple[int, int]]:
        full = 4 * self.COUNT
        yield from ((offset, full) for offset in self.numbers())
        yield from ((offset, size) for size in self.sizes()[1:] for offset in (0, PAGE))
        # Sums that come out small, or just right, when nobody looks for the carry.
        yield from ((2**64 - full, full), (2**64 - full + 4, full), (2**64 - 8, full), (2**63, 2**63), (8, 2**64 - 8))

    def table(self, name: str) -> None:
        model = BY_NAME[name]
        rng = self.rng(FLOATS.index(model))
        full = 4 * self.COUNT
        segment = Segment(self.REGION)
        guard = rng.integers(0, 256, self.REGION, dtype=np.uint8).tobytes()
        data = mark.plain(rng, self.REGION // 4).tobytes()
        try:
            with self.http() as http, Grpc(self.grpc_port) as grpc:
                http.register(segment.name, segment.key, self.REGION)
                for (offset, told), transport in itertools.product(self.cases(), (http, grpc)):
                    what = f"{name}, {type(transport).__name__}, offset {offset}, {told} bytes"
                    size = told % 2**64 if transport is grpc else told  # what the server makes of it
                    inside = offset >= 0 and size >= 0 and offset + size <= self.REGION
                    # As an input: exactly the tensor's bytes; the answer comes in the answer.
                    image = data + guard[len(data) :]
                    segment.put(0, image)
                    given = Tensor("IN", "FP32", [1, self.COUNT], place=Place(segment.name, offset, told))
                    answer = self.send(transport, name, [given], [Tensor("OUT", "FP32", [])])
                    if self.report.answered(answer):
                        want = np.frombuffer(image, np.float32, self.COUNT, offset) if inside and size == full else None
                        if want is None or answer.outputs["OUT"] != model.reference(want).tobytes():
                            self.report.trouble(f"input: {what}: was answered")
                    elif inside and size == full:
                        self.report.trouble(f"input: {what}: {answer.error}")
                    if segment.get(0, self.REGION) != image:
                        self.report.trouble(f"input: {what}: bytes of the region changed")
                    # As an output: at least the tensor's bytes, of which the first are written.
                    segment.put(0, guard)
                    x = mark.plain(rng, self.COUNT)
                    wanted = Tensor("OUT", "FP32", [], place=Place(segment.name, offset, told))
                    answer = self.send(transport, name, [Tensor("IN", "FP32", [1, self.COUNT], x.tobytes())], [wanted])
                    image = guard
                    # The server takes a size that carries past 2^64 for a small one. What is written stays the same.
                    fits = offset >= 0 and offset + full <= self.REGION and size >= full
                    if self.report.answered(answer):
                        if fits:
                            image = guard[:offset] + model.reference(x).tobytes() + guard[offset + full :]
                        else:
                            self.report.trouble(f"output: {what}: was answered")
                    elif inside and fits:
                        self.report.trouble(f"output: {what}: {answer.error}")
                    if segment.get(0, self.REGION) != image:
                        self.report.trouble(f"output: {what}: bytes beside the answer changed")
                http.unregister(segment.name)
        finally:
            segment.close()

    @staticmethod
    def send(transport: Http | Grpc, name: str, given: list[Tensor], wanted: list[Tensor]) -> Answer:
        try:
            return transport.infer(name, given, wanted)
        except ValueError as trouble:  # not even a message of the protocol can hold the number
            return Answer(error=f"not sent: {trouble}")


class Beyond(Attack):
    """Outputs that begin inside a region and end behind it, told in a size that carries past 2^64."""

    REGION = 1 << 18
    WITNESSES = 12

    def run(self) -> None:
        rng = self.rng(0)
        count = 4 * PAGE  # more bytes than pages lie between two mappings
        segments = [Segment(self.REGION) for _ in range(self.WITNESSES)]
        image = mark.plain(rng, self.REGION // 4).tobytes()
        try:
            with self.http() as http, Grpc(self.grpc_port) as grpc:
                for segment in segments:
                    segment.put(0, image)
                    http.register(segment.name, segment.key, segment.size)
                for model, segment, left, transport in itertools.product(FLOATS, segments, (8, PAGE), (http, grpc)):
                    at = self.REGION - left
                    # gRPC's sizes are signed; the server makes the same number of both.
                    for size in (
                        -1 if transport is grpc else 2**64 - 1,
                        -at + 64 if transport is grpc else 2**64 - at + 64,
                    ):
                        given = Tensor("IN", "FP32", [1, count], mark.plain(rng, count).tobytes())
                        wanted = Tensor("OUT", "FP32", [], place=Place(segment.name, at, size))
                        if self.report.answered(transport.infer(model.name, [given], [wanted])):
                            self.report.trouble(f"{model.name}: an output that ends behind its region was answered")
                        for other in segments:
                            if other.get(0, self.REGION)[:at] != image[:at] or (
                                other is not segment and other.get(0, self.REGION) != image
                            ):
                                self.report.trouble(f"{model.name}: bytes of another region were written")
                                other.put(0, image)
                        segment.put(0, image)
                for segment in segments:
                    http.unregister(segment.name)
        finally:
            for segment in segments:
                segment.close()


class Overlap(Attack):
    """Inputs and outputs over each other, under one name or two: the answer is the conventional way's."""

    COUNT = 3000

    def run(self) -> None:
        size = 6 * PAGE + 4 * self.COUNT
        segment = Segment(2 * size)
        alias = Segment(1)  # its name becomes a second one of the same file
        alias.unlink()
        os.link(segment.path, SHARED / alias.name)
        rng = self.rng(0)
        full = 4 * self.COUNT
        try:
            with self.http() as http, Grpc(self.grpc_port) as grpc:
                for one in (segment, alias):
                    said = http.register(one.name, one.key, segment.size)
                    if said:
                        self.report.trouble(f"register: {said}")
                shifts = [0, 4, 64, PAGE - 4, PAGE, full - 4, full, full + 4]
                for shift, second, model in itertools.product(shifts, (segment, alias), FLOATS):
                    for source, target in ((PAGE + 8, PAGE + 8 + shift), (PAGE + 8 + shift, PAGE + 8)):
                        noise = mark.plain(rng, segment.size // 4).tobytes()
                        ends = []
                        for name in (model.name, f"{model.name}_off"):
                            segment.put(0, noise)
                            given = Tensor("IN", "FP32", [1, self.COUNT], place=Place(segment.name, source, full))
                            wanted = Tensor("OUT", "FP32", [], place=Place(second.name, target, full))
                            answer = (http if shift % 8 else grpc).infer(name, [given], [wanted])
                            self.report.answered(answer)
                            ends.append((answer.error, segment.get(0, segment.size)))
                        x = np.frombuffer(noise, np.float32, self.COUNT, source)
                        right = noise[:target] + model.reference(x).tobytes() + noise[target + full :]
                        what = f"{model.name}, {source} to {target}, {'one name' if second is segment else 'two names'}"
                        if ends[0][1] != ends[1][1]:
                            self.report.trouble(f"{what}: not the conventional way's bytes")
                        if ends[0] != ("", right):
                            self.report.trouble(f"{what}: not the right bytes {ends[0][0]}")
                for one in (segment, alias):
                    http.unregister(one.name)
        finally:
            alias.close()
            segment.close()


class Same(Attack):
    """Eight requests at a time with one output, or each with its output over the next one's input."""

    COUNT = 3000
    FLIGHT = 8

    def run(self) -> None:
        full = 4 * self.COUNT
        lane = self.FLIGHT * full
        self.segment = Segment(2 * lane + 2 * PAGE)
        rng = self.rng(0)
        image = mark.plain(rng, self.segment.size // 4).tobytes()
        rows = [np.frombuffer(image, np.float32, self.COUNT, i * full) for i in range(self.FLIGHT)]
        shared = lane + PAGE + 8
        try:
            with self.http() as http, Grpc(self.grpc_port) as grpc, ThreadPoolExecutor(self.FLIGHT) as pool:
                http.register(self.segment.name, self.segment.key, self.segment.size)
                for turn in itertools.count():
                    if not self.going():
                        break
                    model = FLOATS[turn % len(FLOATS)]
                    targets = [shared] * self.FLIGHT if turn % 2 else [(i + 1) * full for i in range(self.FLIGHT)]
                    self.segment.put(0, image)
                    asked = [
                        pool.submit(self.ask, grpc, model.name, i * full, target) for i, target in enumerate(targets)
                    ]
                    for answer in asked:
                        if not self.report.answered(answer.result()):
                            self.report.trouble(f"{model.name}: {answer.result().error}")
                    # Every float written is one of the requests', whichever came first; no other byte has changed.
                    may = np.stack(
                        [model.reference(row) for row in rows] + [model.reference(model.reference(r)) for r in rows]
                    )
                    got = self.segment.get(0, self.segment.size)
                    for target in set(targets):
                        said = np.frombuffer(got, np.float32, self.COUNT, target)
                        if not (may == said).any(axis=0).all():
                            self.report.trouble(f"{model.name}: an output holds what no request computed")
                    first, last = min(targets), max(targets) + full
                    if got[:first] != image[:first] or got[last:] != image[last:]:
                        self.report.trouble(f"{model.name}: bytes beside the outputs changed")
                http.unregister(self.segment.name)
        finally:
            self.segment.close()

    def ask(self, grpc: Grpc, model: str, source: int, target: int) -> Answer:
        given, wanted = floats_request(self.segment.name, self.COUNT, source, target)
        return grpc.infer(model, [given], [wanted])


ATTACKS: dict[str, type[Attack]] = {
    "shrink": Shrink,
    "mutate": Mutate,
    "die": Die,
    "regions": Regions,
    "bounds": Bounds,
    "beyond": Beyond,
    "overlap": Overlap,
    "same": Same,
}


def main_of(attacks: Mapping[str, type[Attack]]) -> None:
    become()
    parser = argparse.ArgumentParser()
    parser.add_argument("attack", choices=attacks)
    parser.add_argument("http_port", type=int)
    parser.add_argument("grpc_port", type=int)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--seconds", type=float, default=3)
    options = parser.parse_args()
    attack = attacks[options.attack](options.http_port, options.grpc_port, options.seed, options.seconds)
    try:
        attack.run()  # type: ignore[attr-defined]
    except OSError as trouble:
        attack.report.trouble(f"the server is gone: {trouble}")
    print(json.dumps({"said": attack.report.said, "troubles": attack.report.troubles}), flush=True)


if __name__ == "__main__":
    main_of(ATTACKS)
