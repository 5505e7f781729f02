"""Traces of allocations unlike the recorded ones, made from a seed: for bounds that must hold on what nobody has seen.

    python bench/traces.py FOLDER [--seed N]

Writes NAME.events.csv for each, in the form of the recorded ones: t (ns), op (a|f), id, size, thread.

  drift      sizes that grow by a per mille each, always at the limit: no size comes back, so what was freed never fits
  lifetimes  sizes over three decades, lifetimes over four, no order at all: crumbs between blocks that stay
  bursts     four threads; a burst is allocated by one and freed by another, sizes as a server's with many tensors
  growing    sequences whose keys and values are reallocated one step longer for each token, many sequences at once
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Callable, Iterator
from pathlib import Path

Event = tuple[str, int, int, int]  # op, id, size, thread
KIB = 1 << 10
MIB = 1 << 20


class Live:
    """Numbers blocks and remembers their sizes."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.next = 0
        self.total = 0

    def take(self, size: int, thread: int = 0) -> Event:
        event = ("a", self.next, size, thread)
        self.sizes[self.next] = size
        self.total += size
        self.next += 1
        return event

    def give(self, block: int, thread: int = 0) -> Event:
        size = self.sizes.pop(block)
        self.total -= size
        return ("f", block, size, thread)


def drift(rng: random.Random) -> Iterator[Event]:
    live = Live()
    held: list[int] = []
    scale = 1.0
    for _ in range(4000):
        scale *= 1.0008
        size = int(rng.choice((12 * KIB, 48 * KIB, 200 * KIB, 700 * KIB)) * scale * rng.uniform(0.97, 1.03))
        event = live.take(size)
        held.append(event[1])
        yield event
        while live.total > 96 * MIB:
            # Mostly the oldest, at times one from the middle.
            at = 0 if rng.random() < 0.8 else rng.randrange(len(held))
            yield live.give(held.pop(at))


def lifetimes(rng: random.Random) -> Iterator[Event]:
    live = Live()
    ends: list[tuple[float, int]] = []
    for now in range(12000):
        while ends and (ends[0][0] <= now or live.total > 200 * MIB):
            yield live.give(heapq.heappop(ends)[1])
        event = live.take(int(4 * KIB * 1000 ** rng.random() ** 1.5))
        heapq.heappush(ends, (now + 10 ** rng.uniform(0, 4), event[1]))
        yield event


def bursts(rng: random.Random) -> Iterator[Event]:
    live = Live()
    waiting: list[tuple[int, list[int]]] = []
    sizes = (8 * KIB, 65576, 65576, 65576, 65576, 150528, 602112, 1 * MIB, 3 * MIB + 64)
    for _ in range(400):
        maker = rng.randrange(4)
        blocks = []
        for _ in range(rng.choice((3, 10, 40, 90))):
            event = live.take(rng.choice(sizes), maker)
            blocks.append(event[1])
            yield event
        waiting.append((maker, blocks))
        while len(waiting) > rng.choice((1, 2, 6)):
            maker, blocks = waiting.pop(rng.randrange(len(waiting)))
            other = (maker + rng.randrange(1, 4)) % 4
            rng.shuffle(blocks)
            for block in blocks:
                yield live.give(block, other)


def growing(rng: random.Random) -> Iterator[Event]:
    live = Live()
    layers, row = 12, 1024
    # One sequence: its length, the length at which it ends, its blocks.
    running: list[tuple[int, int, list[int]]] = []
    for _ in range(700):
        if len(running) < 12 and (len(running) < 3 or rng.random() < 0.2):
            length = rng.randrange(8, 400)
            blocks = []
            for _ in range(layers):
                event = live.take(length * row)
                blocks.append(event[1])
                yield event
            running.append((length, length + rng.randrange(20, 300), blocks))
        at = rng.randrange(len(running))
        length, end, blocks = running[at]
        if length >= end:
            for block in blocks:
                yield live.give(block)
            running.pop(at)
            continue
        steps = rng.randrange(1, 6)
        for step in range(1, steps + 1):
            scratch = live.take(rng.choice((16, 64)) * KIB + 4 * (length + step))
            yield scratch
            for layer in range(layers):
                event = live.take((length + step) * row)
                yield event
                yield live.give(blocks[layer])
                blocks[layer] = event[1]
            yield live.give(scratch[1])
        running[at] = (length + steps, end, blocks)


MADE: dict[str, Callable[[random.Random], Iterator[Event]]] = {
    "drift": drift,
    "lifetimes": lifetimes,
    "bursts": bursts,
    "growing": growing,
}


def write(folder: Path, seed: int = 1) -> list[Path]:
    """Makes all of them; the same seed makes the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, make in MADE.items():
        path = folder / f"synthetic_{name}.events.csv"
        lines = ["t,op,id,size,thread"]
        events = make(random.Random(f"{name} {seed}"))
        lines += [f"{1000 * t},{op},{block},{size},{thread}" for t, (op, block, size, thread) in enumerate(events, 1)]
        path.write_text("\n".join(lines) + "\n")
        paths.append(path)
    return paths


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for made in write(options.folder, options.seed):
        print(made)
