"""What recording costs a real server: its throughput while `umo record` looks on, against off, in turns.

One server with umo_onnxruntime and umo_kernel, small and large tensors over shared memory, answers verified before a
time counts. A turn asks each model for a while without a recorder and with one that drains into a file; which of the
two comes first alternates, so that what else the machine does hits both. The figure is the median over the turns of the
quotient within a turn. The recorder is a process of its own and shares the machine with server and client: what it
takes from them is in the figure.

The machine's other work blurs that. recorded_instructions is blind to it: with callgrind it counts all that a server
spends on the cheapest request there is (umo_identity touching nothing, HTTP, tensors in shared memory), recorded and
not, in turns. What a model computes comes on top of it, so recording is a smaller part of any other request.

    python bench/recorded.py [--turns 9] [--instructions]

Prints JSON lines; the claims keep their names.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))
sys.path.insert(0, str(ROOT / "tests" / "inproc"))
import kit  # noqa: E402
from instructions import self_costs  # noqa: E402
from overhead import MEAN, STD, io, ort_config  # noqa: E402

from umo.bench.recorded import MEMORY_MIB, Recorder, case, row, shown_kib  # noqa: E402
from umo.demo.transports import Asker  # noqa: E402
from umo.models import big, onnx_graph, photo  # noqa: E402
from umo.models.repository import write_repository  # noqa: E402
from umo.server import TritonServer  # noqa: E402

BUILD = Path(os.environ.get("UMO_BUILD", ROOT / "build" / "release"))
COUNTED = 100  # requests, of each measurement
os.environ["UMO_BENCH_COMMAND"] = "make bench (bench/recorded.py)"


def write_models(folder: Path) -> tuple[str, str]:
    graph = big.relu()
    names = graph.graph.input[0].name, graph.graph.output[0].name
    write_repository(folder, models=("image_prep",))
    (folder / "relu" / "1").mkdir(parents=True, exist_ok=True)
    config = ort_config(io(names[0], "FP32", "-1"), io(names[1], "FP32", "-1"), True)
    (folder / "relu" / "config.pbtxt").write_text(f'name: "relu"\n{config}')
    onnx_graph.save(graph, folder / "relu" / "1" / "model.onnx")
    return names


def control(pid: int, *command: str) -> None:
    """Tells callgrind inside of the server something."""
    told = ["callgrind_control", *command, str(pid)]
    subprocess.run(told, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def instructions(folder: Path, turns: int) -> None:
    """What the server spends on a request over HTTP, tensors in shared memory, recorded as a part of not recorded."""
    version = folder / "counted" / "one" / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(kit.CONFIG)
    out = folder / "callgrind"
    prefix = ("valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}")
    environment = {"LD_PRELOAD": str(BUILD / "lib" / "libumo_duplicate.so")}
    tensor = np.zeros((1, 16), np.float32)
    totals: dict[bool, list[float]] = {False: [], True: []}
    own: dict[bool, list[float]] = {False: [], True: []}
    events = 0
    with TritonServer(
        version.parent.parent, backend_directory=BUILD / "backends", command_prefix=prefix, env=environment
    ) as server:
        recorder = Recorder(server.pid, folder / "counted.umo")
        with Asker("shm", server, {"INPUT0": tensor}, {"OUTPUT0": np.empty_like(tensor)}) as asker:

            def ask(count: int) -> None:
                for _ in range(count):
                    asker.ask("one")

            control(server.pid, "-i", "on")
            for number in range(2 * turns):
                on = number % 4 in (1, 2)
                if on:
                    recorder.tell("on")
                ask(20)
                control(server.pid, "-z")
                ask(COUNTED)
                control(server.pid, "-d")
                events += recorder.tell("off")["events"] if on else 0
                costs = self_costs(f"{out}.{number + 1}")
                totals[on].append(sum(costs.values()) / COUNTED)
                own[on].append(sum(cost for path, cost in costs.items() if any(n in path for n in kit.OURS)) / COUNTED)
        recorder.close()
    off = statistics.median(totals[False])
    row(
        "recorded_instructions",
        statistics.median(totals[True]),
        "instructions/request",
        f"the same request while nobody records: {off:.0f} instructions",
        [on / off for on, off in zip(totals[True], totals[False], strict=True)],
        events_a_request=round(events / turns / (COUNTED + 20), 1),
        added_by_umo=round(statistics.median(own[True]) - statistics.median(own[False])),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--instructions", action="store_true", help="nothing but recorded_instructions")
    options = parser.parse_args()
    if options.instructions:
        with tempfile.TemporaryDirectory() as temporary:
            instructions(Path(temporary), options.turns)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        instructions(folder, options.turns)
        relu_in, relu_out = write_models(folder / "models")
        with TritonServer(folder / "models", backend_directory=BUILD / "backends") as server:
            recorder = Recorder(server.pid, folder / "recorded.umo")
            most_kib = 0
            for size, floats, side in (("small", 64, 16), ("large", 4 << 20, 1600)):
                values = np.random.default_rng(5).standard_normal(floats).astype(np.float32)
                want = {relu_out: np.maximum(values, 0)}
                claim = f"recorded_onnxruntime_{size}"
                kib = case(claim, server, recorder, "relu", {relu_in: values}, want, options.turns)
                image = photo.photo(1600, 1600)[:side, :side].copy()
                tensor = np.transpose((image.astype(np.float32) / 255 - MEAN) / STD, (2, 0, 1)).copy()
                claim = f"recorded_kernel_{size}"
                inputs, want = {"IMAGE": image}, {"TENSOR": tensor}
                most_kib = max(
                    most_kib, kib, case(claim, server, recorder, "image_prep_on", inputs, want, options.turns)
                )
            recorder.close()
            row(
                "recorded_memory",
                most_kib / 1024,
                "MiB",
                f"--memory {MEMORY_MIB}: the most that the server may keep",
                [most_kib / 1024 / MEMORY_MIB] * 2,
                left_mib=round(shown_kib(server.pid) / 1024, 2),
            )


if __name__ == "__main__":
    main()
