"""Recording another process into a file: what `umo record` does.

One thread drains, this one packs and writes, so that a disk or a processor that is slow for a moment does not cost
events; what waits between them is bounded, and what does not fit there waits in the process's own ring.
"""

from __future__ import annotations

import contextlib
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .binary import BLOCK_EVENTS, Writer, read_binary
from .files import Replacing
from .model import Profile
from .recorder import ROOM, Figures, Recorder

_WAITING = 64  # takes of at most 65,536 events
# What one take waits for, and so how long stopping may last. Python that wakes on a machine at work finds its caches
# cold: some 4 ms, however few events there are.
_TAKE_S = 1.0


@dataclass
class Result:
    events: int
    figures: Figures
    seconds: float
    size_bytes: int
    facts: dict[str, Any]


def step_back() -> None:
    """Has this process yield to the one that it looks at: what waits meanwhile waits in a ring that is large enough."""
    with contextlib.suppress(OSError):
        os.nice(10)


def command_of(pid: int) -> str:
    """Its command line, as far as it can be read."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return ""
    text = " ".join(word.decode("utf-8", "replace") for word in words if word)
    return "".join(c if c.isprintable() else "?" for c in text)[:400]


class _Drain(threading.Thread):
    def __init__(self, recorder: Recorder, stop: threading.Event, until: float) -> None:
        super().__init__(name="umo-record", daemon=True)
        self.recorder = recorder
        self.stop = stop
        self.until = until  # on time.monotonic()
        self.taken: queue.Queue[tuple[np.ndarray, list[tuple[str, int, str]]] | None] = queue.Queue(_WAITING)
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            last = False
            while not last:
                # Looked at before: what was recorded until then is in this pass.
                left_s = self.until - time.monotonic()
                last = self.stop.is_set() or left_s <= 0
                if last:
                    self.recorder.stop()
                events, names = self.recorder.take(0.0 if last else min(left_s, _TAKE_S))
                if len(events) or names:
                    self.taken.put((events, names))
                if self.recorder.taken == ROOM:
                    last = False  # there is more
                elif self.recorder.figures.ended:
                    last = self.recorder.taken == 0
        except Exception as failure:  # told by the thread that writes
            self.failure = failure
        finally:
            self.taken.put(None)


def _write(writer: Writer, drain: _Drain) -> None:
    held: list[np.ndarray] = []
    count = 0
    more = True
    while more:
        item = drain.taken.get()
        more = item is not None
        if item is not None:
            if item[1]:
                writer.names(item[1])
            held.append(item[0])
            count += len(item[0])
        if count >= BLOCK_EVENTS or (not more and count):
            writer.add(np.concatenate(held))
            held, count = [], 0
    if drain.failure is not None:
        raise drain.failure


def _record(recorder: Recorder, file: BinaryIO, pid: int, stop: threading.Event, seconds: float | None) -> Result:
    facts: dict[str, Any] = {"pid": pid, "command": command_of(pid), "umo": recorder.version, "started": time.time_ns()}
    start = time.monotonic()
    writer = Writer(file, facts)
    drain = _Drain(recorder, stop, start + seconds if seconds is not None else float("inf"))
    drain.start()
    try:
        _write(writer, drain)
    finally:
        stop.set()
        while drain.is_alive():  # it may wait for room
            with contextlib.suppress(queue.Empty):
                drain.taken.get(timeout=0.01)
        drain.join()
    figures = recorder.figures
    end = {
        "duration_ns": int((time.monotonic() - start) * 1e9),
        "clock_ns": figures.start_ns,
        "capacity": figures.capacity,
        "memory_bytes": figures.memory_bytes,
        "gaps": figures.gaps,
        "ended": figures.ended,
    }
    writer.end(figures.lost, figures.names_lost, end)
    return Result(writer.events, figures, end["duration_ns"] / 1e9, 0, facts | end)


def record(
    pid: int,
    path: Path,
    stop: threading.Event,
    seconds: float | None = None,
    memory_bytes: int = 0,
    convert: Callable[[BinaryIO, Profile], None] | None = None,
) -> Result:
    """Records until `stop` is set, `seconds` are over or the process ends.

    The file at `path` appears whole or not at all. `convert` writes another form than .umo, out of what was recorded.

    Raises RecorderError, OSError.
    """
    with Recorder(pid) as recorder, Replacing(path) as target:
        recorder.start(memory_bytes)
        if convert is None:
            result = _record(recorder, target.file, pid, stop, seconds)
        else:
            with tempfile.TemporaryFile() as between:
                result = _record(recorder, between, pid, stop, seconds)
                recorder.close()
                between.seek(0)
                convert(target.file, read_binary(path, between, False))
        result.size_bytes = target.commit()
        return result
