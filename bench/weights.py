"""What a second user of the same weights costs: memory and time, of instances and of models.

The real server, MiniLM (90 MB of weights) in umo_onnxruntime. The opponent is the conventional way in the same backend:
`"enable": false` with one session an instance, which is what the official onnxruntime backend does (it needs 145, 291
and 583 MB for 1, 2 and 4 instances: docs/weights.md). Every figure is what the server process holds beyond one that
has loaded a tiny model, so that libraries and threads do not dilute the ratio: PSS of /proc/PID/smaps_rollup, which
counts the pages of a mapped file too; the anonymous part is shown beside it. Every instance and model has answered the
same number of clients before memory is read, and each answer is the engine's own, bit for bit.

    python bench/weights.py [--turns 5]

Prints JSON lines; the claims keep their names.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "python"))

from umo.demo.transports import Asker  # noqa: E402
from umo.models import big, minilm, onnx_graph  # noqa: E402
from umo.server import TritonServer  # noqa: E402

COMMAND = "make bench (bench/weights.py)"
TOKENS = 32
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OFFICIAL = "enable: false, one session an instance, as the official backend"


def config(name: str, instances: int, conventional: bool) -> str:
    tensors = ", ".join(f'{{ name: "{i}" data_type: TYPE_INT64 dims: [ -1 ] }}' for i in INPUTS)
    text = (
        f'name: "{name}"\nbackend: "umo_onnxruntime"\nmax_batch_size: 8\ninput [ {tensors} ]\n'
        'output [ { name: "sentence_embedding" data_type: TYPE_FP32 dims: [ 384 ] } ]\n'
        f"instance_group [ {{ kind: KIND_CPU count: {instances} }} ]\n"
    )
    return text + parameters({"intra_op_thread_count": "1"}, conventional)


def parameters(values: dict[str, str], conventional: bool) -> str:
    if conventional:
        values = values | {"unified_memory": '{"enable": false}', "share_session": "false"}
    return "".join(
        f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(value)} }} }}\n"
        for key, value in values.items()
    )


class Repository:
    """The models of one way: tiny, one and four instances, and four entries with one file."""

    def __init__(self, folder: Path, model: Path, conventional: bool) -> None:
        self.folder = folder
        self.conventional = conventional
        self._entry("tiny", 'name: "tiny"\nbackend: "umo_onnxruntime"\n' + parameters({}, conventional))
        onnx_graph.save(big.relu(), folder / "tiny" / "1" / "model.onnx")
        for name, instances in (("instances_1", 1), ("instances_4", 4)):
            os.link(model, self._entry(name, config(name, instances, conventional)))
        for turn in range(4):
            name = f"linked_{turn}"
            os.link(model, self._entry(name, config(name, 1, conventional)))
            name = f"copied_{turn}"
            shutil.copyfile(model, self._entry(name, config(name, 1, conventional)))

    def _entry(self, name: str, text: str) -> Path:
        version = self.folder / name / "1"
        version.mkdir(parents=True)
        (self.folder / name / "config.pbtxt").write_text(text)
        return version / "model.onnx"

    def server(self) -> TritonServer:
        return TritonServer(self.folder, explicit=True, load_models=["tiny"])


def memory_mb(server: TritonServer) -> dict[str, float]:
    """PSS and anonymous megabytes of the server's process."""
    found: dict[str, float] = {}
    for line in Path(f"/proc/{server.pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value = line.split()[:2]
        found[key.rstrip(":")] = int(value) / 1024
    return {"pss": found["Pss"], "anonymous": found["Anonymous"]}


class Question:
    """One request and the engine's own answer to it."""

    def __init__(self, model: Path) -> None:
        import onnxruntime

        rng = np.random.default_rng(3)
        self.inputs = {
            "input_ids": rng.integers(1000, 20000, (1, TOKENS), dtype=np.int64),
            "attention_mask": np.ones((1, TOKENS), np.int64),
            "token_type_ids": np.zeros((1, TOKENS), np.int64),
        }
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        alone = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.expected = alone.run(None, self.inputs)[0]

    def ask(self, server: TritonServer, name: str, clients: int, requests: int) -> None:
        """From several clients at once, so that all instances have worked."""

        def client(_: int) -> None:
            outputs = {"sentence_embedding": np.empty((1, 384), np.float32)}
            with Asker("shm", server, self.inputs, outputs) as asker:
                for _ in range(requests):
                    asker.poison()
                    got = asker.outputs(asker.ask(name))["sentence_embedding"]
                    if not np.array_equal(got.view(np.uint32), self.expected.view(np.uint32)):
                        raise SystemExit(f"{name}: not the engine's own answer")

        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            list(pool.map(client, range(clients)))


def loaded_mb(repository: Repository, question: Question, names: list[str], clients: int) -> dict[str, float]:
    """Megabytes that these models add to a server."""
    with repository.server() as server:
        before = memory_mb(server)
        for name in names:
            server.load(name)
        for name in names:
            question.ask(server, name, clients, 10)
        after = memory_mb(server)
        return {key: after[key] - before[key] for key in after}


def two_loads(repository: Repository, names: tuple[str, str]) -> dict[str, float]:
    """Milliseconds and megabytes of the first and the second of two models."""
    figures: dict[str, float] = {}
    with repository.server() as server:
        for turn, name in enumerate(names, 1):
            before = memory_mb(server)["pss"]
            start = time.perf_counter()
            server.load(name)
            figures[f"ms_{turn}"] = (time.perf_counter() - start) * 1e3
            figures[f"mb_{turn}"] = memory_mb(server)["pss"] - before
    return figures


def row(claim: str, value: float, unit: str, opponent: str, ratios: list[float], **more: object) -> None:
    quartiles = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    print(
        json.dumps(
            {
                "claim": claim,
                "value": round(value, 1),
                "unit": unit,
                "opponent": opponent,
                "ratio": round(statistics.median(ratios), 4),
                "spread": [round(quartiles[0], 4), round(quartiles[2], 4)],
                **more,
                "command": COMMAND,
            }
        ),
        flush=True,
    )


def median(values: list[dict[str, float]], key: str) -> float:
    return round(statistics.median(value[key] for value in values), 1)


def four_to_one(figures: dict[str, list[dict[str, float]]], way: str, key: str) -> list[float]:
    """What four use as a multiple of what one does, turn by turn."""
    return [four[key] / one[key] for one, four in zip(figures[f"{way}_1"], figures[f"{way}_4"], strict=True)]


def ratio(figures: dict[str, list[dict[str, float]]], way: str, key: str) -> float:
    return round(statistics.median(four_to_one(figures, way, key)), 4)


def memory_claim(
    claim: str, ways: dict[str, Repository], question: Question, one: list[str], four: list[str], turns: int
) -> None:
    figures: dict[str, list[dict[str, float]]] = {}
    for _ in range(turns):
        for way, repository in ways.items():
            figures.setdefault(f"{way}_1", []).append(loaded_mb(repository, question, one, 4))
            figures.setdefault(f"{way}_4", []).append(loaded_mb(repository, question, four, 4))
    row(
        claim,
        median(figures["umo_4"], "pss"),
        "MB",
        "one of them alone, PSS",
        four_to_one(figures, "umo", "pss"),
        anonymous_ratio=ratio(figures, "umo", "anonymous"),
        **{f"{key}_pss_mb": median(values, "pss") for key, values in figures.items()},
        **{f"{key}_anonymous_mb": median(values, "anonymous") for key, values in figures.items()},
        conventional=OFFICIAL,
        conventional_ratio=ratio(figures, "conventional", "pss"),
        conventional_anonymous_ratio=ratio(figures, "conventional", "anonymous"),
    )


def load_claim(claim: str, ways: dict[str, Repository], names: tuple[str, str], turns: int) -> None:
    figures: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(turns):
        for way, repository in ways.items():
            figures[way].append(two_loads(repository, names))
    ratios = {way: [f["ms_2"] / f["ms_1"] for f in figures[way]] for way in ways}
    row(
        claim,
        median(figures["umo"], "ms_2"),
        "ms",
        "loading the first one",
        ratios["umo"],
        first_ms=median(figures["umo"], "ms_1"),
        memory_ratio=round(statistics.median(f["mb_2"] / f["mb_1"] for f in figures["umo"]), 4),
        conventional=OFFICIAL,
        conventional_ratio=round(statistics.median(ratios["conventional"]), 4),
        conventional_first_ms=median(figures["conventional"], "ms_1"),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=5)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory(prefix="umo-weights-", dir=ROOT / "build") as made:
        folder = Path(made)
        model = folder / "model.onnx"
        minilm.write(model)
        ways = {}
        for way in ("umo", "conventional"):
            (folder / way).mkdir()
            ways[way] = Repository(folder / way, model, way == "conventional")
        question = Question(model)
        memory_claim("weights_memory_4_instances", ways, question, ["instances_1"], ["instances_4"], turns)
        for kind in ("linked", "copied"):
            names = [f"{kind}_{turn}" for turn in range(4)]
            suffix = "" if kind == "linked" else "_copied"
            memory_claim(f"weights_memory_4_models{suffix}", ways, question, names[:1], names, turns)
            load_claim(f"weights_second_load_time{suffix}", ways, (names[0], names[1]), turns + 2)


if __name__ == "__main__":
    main()
