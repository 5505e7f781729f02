"""What recording costs a real server: its throughput while `umo record` looks on, against off, in turns.

Answers are verified before a time counts. A turn asks a model for a while without a recorder and with one that drains
into a file; which of the two comes first alternates, so that what else the machine does hits both. The first second of
each is a figure of its own (first_ratio): the pages of the ring are touched for the first time then. The figure is the
median over the turns of the quotient within a turn. The recorder is a process of its own and shares the machine with
server and client: what it takes from them is in the figure.

    python -m umo.bench.recorded [--turns 9] [--quick]

Prints JSON lines; the claims keep their names. bench/recorded.py measures another model with the same parts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from umo.bench.batch import RELU
from umo.demo.transports import Asker
from umo.server import TritonServer, find_onnxruntime

COMMAND = "umo bench --only recorder"
CONFIG = """backend: "umo_onnxruntime"
max_batch_size: 8
input [ { name: "X" data_type: TYPE_FP32 dims: [ -1 ] } ]
output [ { name: "Y" data_type: TYPE_FP32 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU count: 1 } ]
parameters { key: "intra_op_thread_count" value { string_value: "1" } }
"""
SLICE_S = 2.0  # twice what `umo record` waits for before its Python wakes, so that this is in it
FIRST_S = 1.0  # of each slice, not counted: the ring's pages come, see first_ratio
PAIRS = 2  # of slices in a turn
MEMORY_MIB = 4


class Recorder:
    """A process that records another one while it is told to."""

    def __init__(self, pid: int, path: Path) -> None:
        command = [sys.executable, "-m", "umo.bench.recorded", "--record", str(pid), str(path)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._line()

    def _line(self) -> dict:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("the recorder has ended")
        return json.loads(line)

    def tell(self, word: str) -> dict:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return self._line()

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)


def recorder_main(pid: int, path: Path) -> None:
    """The other end of Recorder: what `umo record` does, in a process that has been started already."""
    from umo.profile import record

    record.step_back()
    print("{}", flush=True)
    result: list[record.Result] = []
    stop, thread = threading.Event(), threading.Thread()
    for line in sys.stdin:
        if line.strip() == "on":
            stop, result = threading.Event(), []
            thread = threading.Thread(
                target=lambda stop=stop, result=result: result.append(
                    record.record(pid, path, stop, None, MEMORY_MIB << 20)
                )
            )
            thread.start()
            time.sleep(0.05)
            print("{}", flush=True)
        else:
            stop.set()
            thread.join()
            figures = result[0].figures
            print(json.dumps({"events": result[0].events, "lost": figures.lost, "gaps": figures.gaps}), flush=True)


def shown_kib(pid: int) -> int:
    """What the process holds for its recorder."""
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if "umo-recorder" in str(link.readlink()):
                total += link.stat().st_blocks // 2
    return total


def running_ns(pid: int) -> int:
    """Processor time of all its threads."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            total += int(task.joinpath("schedstat").read_text().split()[0])
    return total


def asked(asker: Asker, model: str, seconds: float) -> tuple[int, float]:
    """Requests in so many seconds, and how many it were."""
    start = time.perf_counter()
    count = 0
    while time.perf_counter() - start < seconds:
        asker.ask(model)
        count += 1
    return count, time.perf_counter() - start


def turn(server: int, asker: Asker, model: str, recorder: Recorder, first_on: bool) -> tuple[float, float, dict]:
    """Requests a second off and on, slice by slice in turns, and what was recorded."""
    spent = {False: 0, True: 0}
    counts, times = {False: 0, True: 0}, {False: 0.0, True: 0.0}
    first = {False: 0.0, True: 0.0}
    total: dict = {"events": 0, "lost": 0, "gaps": 0, "most_kib": 0, "started_ns": 0}
    drained = 0
    for number in range(2 * PAIRS):
        on = (number % 4 in (0, 3)) == first_on
        idle = running_ns(recorder.pid)
        if on:
            recorder.tell("on")
        count, seconds = asked(asker, model, FIRST_S)
        first[on] += count / seconds
        total["started_ns"] += running_ns(recorder.pid) - idle if on else 0
        before, idle = running_ns(server), running_ns(recorder.pid)
        count, seconds = asked(asker, model, SLICE_S)
        spent[on] += running_ns(server) - before
        if on:
            drained += running_ns(recorder.pid) - idle
            total["most_kib"] = max(total["most_kib"], shown_kib(server))
            for key, value in recorder.tell("off").items():
                total[key] += value
        counts[on] += count
        times[on] += seconds
    total["requests"] = round(counts[True] * (1 + FIRST_S / SLICE_S))
    total["recorder"] = drained / 1e9 / times[True]
    total["first"] = first[True] / first[False]
    total["server"] = spent[True] / counts[True] / (spent[False] / counts[False])
    return counts[False] / times[False], counts[True] / times[True], total


def row(claim: str, value: float, unit: str, opponent: str, ratios: list[float], **more: object) -> None:
    quartiles = statistics.quantiles(ratios, n=4)
    fields = {"claim": claim, "value": round(value, 2), "unit": unit, "opponent": opponent}
    fields |= {"ratio": round(statistics.median(ratios), 4), "spread": [round(quartiles[0], 4), round(quartiles[2], 4)]}
    print(json.dumps({**fields, **more, "command": os.environ.get("UMO_BENCH_COMMAND", COMMAND)}), flush=True)


def case(
    claim: str, server: TritonServer, recorder: Recorder, model: str, inputs: dict, expected: dict, turns: int
) -> int:
    """One row: throughput while recorded, as a part of that while not. Returns the most memory, in KiB."""
    outputs = {name: np.empty_like(want) for name, want in expected.items()}
    with Asker("shm", server, inputs, outputs) as asker:
        asker.poison()
        got = asker.outputs(asker.ask(model))
        for name, want in expected.items():
            if float(np.max(np.abs(got[name] - want))) > 1e-4:
                raise SystemExit(f"{model}: wrong answer")
        for _ in range(20):
            asker.ask(model)
        figures = [turn(server.pid, asker, model, recorder, number % 2 == 0) for number in range(turns)]
    ratios = [on / off for off, on, _ in figures]
    total = {key: sum(f[2][key] for f in figures) for key in ("events", "lost", "gaps", "requests")}
    row(
        claim,
        statistics.median(on for _, on, _ in figures),
        "requests/s",
        f"the same server while nobody records: {statistics.median(off for off, _, _ in figures):.0f} requests/s",
        ratios,
        events_a_request=round(total["events"] / max(1, total["requests"]), 1),
        started_ms=round(statistics.median(f[2]["started_ns"] for f in figures) / PAIRS / 1e6, 1),
        first_ratio=round(statistics.median(f[2]["first"] for f in figures), 4),
        server_processor_ratio=round(statistics.median(f[2]["server"] for f in figures), 4),
        recorder_processors=round(statistics.median(f[2]["recorder"] for f in figures), 4),
        lost=total["lost"],
        gaps=total["gaps"],
    )
    return max(f[2]["most_kib"] for f in figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="few turns")
    parser.add_argument("--record", nargs=2, metavar=("PID", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.record is not None:
        recorder_main(int(options.record[0]), Path(options.record[1]))
        return
    if find_onnxruntime() is None and "UMO_ONNXRUNTIME" not in os.environ:
        raise SystemExit("no ONNX Runtime to record a model with; pip install onnxruntime")
    with tempfile.TemporaryDirectory(prefix="umo-bench-") as temporary:
        folder = Path(temporary)
        model = folder / "models" / "relu"
        (model / "1").mkdir(parents=True)
        (model / "config.pbtxt").write_text(CONFIG)
        (model / "1" / "model.onnx").write_bytes(RELU.read_bytes())
        with TritonServer(folder / "models") as server:
            recorder = Recorder(server.pid, folder / "recorded.umo")
            for size, floats in (("small", 64), ("large", 4 << 20)):
                values = np.random.default_rng(5).standard_normal((1, floats)).astype(np.float32)
                want = {"Y": np.maximum(values, 0)}
                turns = 3 if options.quick else options.turns
                case(f"recorded_onnxruntime_{size}", server, recorder, "relu", {"X": values}, want, turns)
            recorder.close()


if __name__ == "__main__":
    main()
