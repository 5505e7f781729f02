"""``python -m umo.demo``: serves three models with the real server and shows what unified memory saves."""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from tritonclient.utils import InferenceServerException

from umo.demo import report
from umo.demo.measure import Cell, WrongAnswer, count_bytes, new_cells, time_requests
from umo.demo.transports import TRANSPORTS, Asker
from umo.demo.workloads import Workload, build_workloads, denormalised
from umo.models.repository import MODELS, write_repository
from umo.paths import source_tree
from umo.prove import ProvedServer
from umo.server import ServerError, TritonServer, default_backend_directory

START = time.monotonic()


class DemoError(RuntimeError):
    """A step failed: what, why, what to do."""

    def __init__(self, what: str, why: object, remedy: str) -> None:
        super().__init__(f"demo failed: {what}\n  why:        {why}\n  what to do: {remedy}")


def say(text: str) -> None:
    """One line of progress."""
    print(f"demo [{time.monotonic() - START:3.0f} s] {text}", flush=True)


def keep_freed_memory() -> None:
    """Lets malloc keep what is freed. Otherwise most of a client's time with large answers goes into faulting in fresh
    pages for each one, and hides what the server does."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        library.mallopt(-4, 0)  # M_MMAP_MAX
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m umo.demo", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller tensors and fewer requests")
    parser.add_argument("--model", action="append", choices=MODELS, help="only this model (may be repeated)")
    parser.add_argument(
        "--transport", action="append", choices=TRANSPORTS, help="only this transport (may be repeated)"
    )
    parser.add_argument("--out", type=Path, help="folder of demo.json and demo.png (default: build)")
    return parser.parse_args()


def check_backends(folder: Path, models: list[str]) -> None:
    """Fails early, and by name, where something is not built."""
    needed = {"image_prep": "umo_kernel", "minilm": "umo_onnxruntime", "big_normalise": "umo_onnxruntime"}
    for backend in sorted({needed[model] for model in models}):
        library = folder / backend / f"libtriton_{backend}.so"
        if not library.exists():
            raise DemoError(f"the backend {backend} is missing", f"there is no {library}", "run `make build`")


def last_answer(server: TritonServer, workload: Workload) -> dict[str, np.ndarray]:
    """One answer over gRPC with unified memory on, kept after the connection."""
    with Asker("gRPC", server, workload.inputs, workload.expected) as asker:
        return {name: array.copy() for name, array in asker.outputs(asker.ask(f"{workload.model}_on")).items()}


def serve_options(root: Path, log_name: str, models: list[str]) -> dict[str, object]:
    return {
        "log_path": root / "build" / log_name,
        "explicit": True,
        "load_models": [f"{model}_{mode}" for model in models for mode in ("off", "on")],
    }


def run(args: argparse.Namespace, console: Console) -> None:
    root = source_tree()
    if root is None:
        raise DemoError("no source tree", "the example models are part of it", "run this from a clone of umo")
    models = [model for model in MODELS if model in (args.model or MODELS)]
    transports = [name for name in TRANSPORTS if name in (args.transport or TRANSPORTS)]
    out: Path = args.out or root / "build"
    backends = default_backend_directory()
    check_backends(backends, models)

    say("the model repository in build/models")
    repository = write_repository(root / "build" / "models", MODELS, say)
    workloads = [
        workload
        for workload in build_workloads(repository, root / "build" / "model-files", args.quick, say)
        if workload.model in models
    ]
    pairs: list[dict[str, Cell]] = []
    jobs: list[tuple[Workload, str, dict[str, Cell]]] = []
    for workload in workloads:
        for transport in transports:
            cells = new_cells(workload, transport)
            pairs.append(cells)
            jobs.append((workload, transport, cells))

    budget_s, most = (0.3, 10) if args.quick else (0.8, 100)
    embeddings = picture = None
    say("starting the server (log: build/demo-server.log)")
    with TritonServer(repository, **serve_options(root, "demo-server.log", models)) as server:
        for workload, transport, cells in jobs:
            say(f"time: {workload.model} over {transport}, off and on in turns")
            time_requests(server, workload, transport, cells, budget_s, most)
        for workload in workloads:
            if workload.model == "minilm":
                embeddings = last_answer(server, workload)["sentence_embedding"]
            elif workload.model == "image_prep":
                picture = denormalised(last_answer(server, workload)["TENSOR"])
    say("starting a second server, with the symbol spy in it (log: build/demo-spied.log)")
    with ProvedServer(repository, **serve_options(root, "demo-spied.log", models)) as proved:
        for workload, transport, cells in jobs:
            say(f"bytes: {workload.model} over {transport}")
            count_bytes(proved, workload, transport, cells)

    console.print()
    if picture is not None:
        path = report.save_picture(picture, out / "demo.png")
        console.print(f"[bold]The picture[/bold] made of the tensor that image_prep returned: {path}")
        report.show_picture(console, picture)
    if embeddings is not None:
        report.show_nearest(console, embeddings)
    console.print()
    console.print(report.table(pairs))
    path = report.write_json(out / "demo.json", pairs, embeddings, args.quick, time.monotonic() - START)
    say(f"done; the same figures are in {path}; both servers have stopped")


def main() -> int:
    args = parse_arguments()
    keep_freed_memory()
    # Where the width is unknown (a log, a pipe) the table must not be folded to 80 columns.
    console = Console() if sys.stdout.isatty() and "COLUMNS" not in os.environ else Console(width=200)
    try:
        run(args, console)
    except KeyboardInterrupt:
        print("demo: interrupted; the server was stopped", file=sys.stderr)
        return 130
    except DemoError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except ServerError as error:
        print(
            f"\n{DemoError('the server did not start', error, 'mend what is said above, then run this again')}",
            file=sys.stderr,
        )
        return 1
    except InferenceServerException as error:
        wrong = DemoError(
            "the server refused a request", error, "look into build/demo-server.log and build/demo-spied.log"
        )
        print(f"\n{wrong}", file=sys.stderr)
        return 1
    except WrongAnswer as error:
        print(
            f"\n{DemoError('an answer is wrong', error, 'please report this with build/demo-server.log')}",
            file=sys.stderr,
        )
        return 1
    except MemoryError as error:
        print(f"\n{DemoError('not enough memory', error, 'see above')}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
