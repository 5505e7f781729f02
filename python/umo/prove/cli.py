"""The command line of umo-prove."""

from __future__ import annotations

import json
import os
import platform
import sys
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from ..cli.run import App, stop
from ..server import ServerError, default_backend_directory
from .census import CensusError, CensusUnavailable
from .classify import ROLES, Classifier
from .proof import Observation, failures, observe, page_failures, slope_failures, slope_inputs
from .served import ProvedServer
from .slope import DEFAULT_SIZES, FLAT, Fit, SlopeError, SlopeReport, SlopeUnavailable, slope
from .spy import SpyError
from .traffic import TRANSPORTS, ModelSpec, TrafficError, describe


class Exit(IntEnum):
    """The exit status."""

    PROVED = 0  # the figures were taken; with --expect-zero they prove it
    NOT_ZERO = 1  # --expect-zero, --max-pages: a witness saw more
    USAGE = 2  # the command line is wrong
    CANNOT_RUN = 3  # the server, the model or the spy did not come up, or a request failed
    WRONG_ANSWER = 4  # the answers differ between transports, or from --expected
    NO_WITNESS = 5  # a witness that was asked for is not available here


app = App(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)

_EPILOG = (
    "Exit status: 0 the figures were taken and hold what was asked; 1 a witness saw more than --expect-zero or "
    "--max-pages allow; 2 wrong command line; 3 the server, the model or the spy did not come up, or a request "
    "failed; 4 answers differ; 5 a witness that was asked for is not available on this machine."
)


def _pairs(values: list[str], what: str) -> list[tuple[str, str]]:
    pairs = []
    for value in values:
        key, sign, rest = value.partition("=")
        if not sign or not key or not rest:
            raise typer.BadParameter(f"{value!r} is no pair; {what}")
        pairs.append((key, rest))
    return pairs


def _dims(values: list[str]) -> dict[str, list[int]]:
    dims = {}
    for value in values:
        name, _, rest = value.rpartition(":")
        try:
            dims[name] = [int(part) for part in rest.split(",")] if rest else []
        except ValueError:
            name = ""
        if not name:
            raise typer.BadParameter(f"--shape {value!r} is no shape; write INPUT:1,2,-1, without the batch")
    return dims


def _numbers(text: str, option: str, scale: float = 1.0) -> list[int]:
    try:
        numbers = [int(float(part) * scale) for part in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"{option} {text!r} is no list of numbers; write them with commas between") from error
    if not numbers or any(number < 1 for number in numbers):
        raise typer.BadParameter(f"{option} {text!r} has a number below 1; give positive ones")
    return numbers


def _size(count: int) -> str:
    if count < 4096:
        return f"{count} B"
    for unit, scale in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if count >= scale:
            return f"{count / scale:.1f}".removesuffix(".0") + f" {unit}"
    raise AssertionError(count)


def _table(model: str, observations: list[Observation], slopes: SlopeReport | None) -> Table:
    columns: list[tuple[str, Any]] = [
        ("transport", lambda seen: seen.transport),
        ("batch", lambda seen: str(seen.batch)),
        ("in", lambda seen: _size(seen.bytes_in)),
        ("out", lambda seen: _size(seen.bytes_out)),
        ("server", lambda seen: _size(seen.copied["server"])),
        ("backend", lambda seen: _size(seen.copied["backend"])),
        ("engine", lambda seen: _size(seen.copied["engine"])),
    ]
    caption = (
        "Bytes in copies of 4 KiB and more, by who made them. pages: dirtied outside shared outputs, the server's own"
    )
    caption += " included."
    if any(sum(seen.device_copied.values()) for seen in observations):
        columns.append(("by device", lambda seen: _size(seen.device_copied["backend"])))
        caption += " by device: the backend's part that went through OpenCL or CUDA."
    if any(seen.copied["other"] + seen.copied["runtime"] for seen in observations):
        columns.append(("other", lambda seen: _size(seen.copied["other"] + seen.copied["runtime"])))
    columns.append(("pages", lambda seen: "-" if seen.pages_outside is None else str(seen.pages_outside)))
    if any(seen.pages_floor is not None for seen in observations):
        columns.append(("floor", lambda seen: "-" if seen.pages_floor is None else str(seen.pages_floor)))
        caption += " floor: those of a model that touches nothing."
    backend = slopes.by_role.get("backend") if slopes else None
    if backend is not None:
        columns.append(("instr/B", lambda _: f"{backend.swing:.4f}"))
        caption += " instr/B: what a byte more costs the backend, asked in one process."
    columns.append(("answers", lambda seen: "differ" if seen.wrong else "right" if seen.compared else "not compared"))
    table = Table(title=f"{model}: what one request copies and dirties", caption=caption)
    for name, _ in columns:
        table.add_column(name, justify="left" if name in ("transport", "answers") else "right", no_wrap=True)
    for seen in observations:
        table.add_row(*(show(seen) for _, show in columns))
    return table


def _slope_table(report: SlopeReport, judge: Classifier) -> Table:
    sizes = ", ".join(_size(size) for size in report.sizes)
    caption = f"Inputs of {sizes}. swing: costliest less cheapest, a byte."
    table = Table(title="instructions a request = base + slope x bytes in", caption=caption)
    for name in ("object", "role", "slope", "swing", "base", "residual"):
        table.add_column(name, justify="left" if name in ("object", "role") else "right")

    def add(name: str, role: str, line: Fit) -> None:
        # + 0.0: no "-0.00000"
        table.add_row(
            name, role, f"{round(line.slope, 5) + 0.0:.5f}", f"{line.swing:.5f}", f"{line.base:,.0f}",
            f"{line.residual:,.0f}",
        )  # fmt: skip

    for name, line in sorted(report.by_object.items(), key=lambda item: -item[1].swing):
        add(Path(name).name or name, judge.role(name), line)
    add("all but the engine", "", report.total)
    return table


@app.command(epilog=_EPILOG)
def prove(
    model: Annotated[str, typer.Argument(help="The model to ask.")],
    model_repository: Annotated[Path, typer.Option(help="The folder with the models.", exists=True, file_okay=False)],
    backend_directory: Annotated[
        Path | None, typer.Option(help="The folder with the backends; default: the release build's.", file_okay=False)
    ] = None,
    tritonserver: Annotated[
        Path | None, typer.Option(help="The server program; default: the one of the nvidia-pytriton package.")
    ] = None,
    transports: Annotated[str, typer.Option(help="Which of shm, http, grpc, with commas between.")] = "shm,http,grpc",
    batch: Annotated[str, typer.Option(help="Batch sizes, with commas between.")] = "1",
    size: Annotated[float, typer.Option(help="MiB that an input of open shape gets.")] = 16.0,
    shape: Annotated[list[str] | None, typer.Option(help="INPUT:1,2,-1 without the batch dimension; repeat.")] = None,
    requests: Annotated[int, typer.Option(help="Requests measured in each way.", min=1)] = 3,
    warmup: Annotated[int, typer.Option(help="Requests before them.", min=0)] = 2,
    census: Annotated[bool, typer.Option(help="Count dirtied pages.")] = True,
    instructions: Annotated[bool, typer.Option("--slope/--no-slope", help="Measure the instruction slope.")] = True,
    slope_sizes: Annotated[str, typer.Option(help="MiB of the slope's points.")] = ",".join(
        str(size >> 20) for size in DEFAULT_SIZES
    ),
    slope_limit: Annotated[float, typer.Option(help="Instructions a byte that still count as flat.")] = FLAT,
    engine: Annotated[str | None, typer.Option(help="Pattern of further libraries that are the engine.")] = None,
    role: Annotated[list[str] | None, typer.Option(help="ROLE=PATTERN: what libraries count as; repeat.")] = None,
    backend_config: Annotated[list[str] | None, typer.Option(help="BACKEND,KEY=VALUE for the server; repeat.")] = None,
    expected: Annotated[
        Path | None,
        typer.Option(help=".npz with inputs in_NAME and right answers out_NAME.", exists=True, dir_okay=False),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="How far answers may differ; 0: not by a bit.", min=0)] = 0.0,
    verify: Annotated[bool, typer.Option(help="Compare the answers.")] = True,
    expect_zero: Annotated[
        bool, typer.Option(help="Fail unless the backend copied nothing, by all witnesses.")
    ] = False,
    floor: Annotated[
        str | None, typer.Option(help="A model of the same form that touches nothing: its pages are taken off.")
    ] = None,
    max_pages: Annotated[
        int | None, typer.Option(help="Fail if a request over shm dirties more pages outside its outputs.", min=0)
    ] = None,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="Write every figure to this file; - prints it.")
    ] = None,
) -> None:
    """Asks MODEL over shared memory, HTTP and gRPC, and has three independent witnesses say what was copied by whom.

    Works with any backend. The symbol spy counts bytes through memcpy and device copy calls, but is blind to
    intrinsics, rep movsb and loops; the census counts the pages that a request dirtied, whoever wrote them; the
    slope counts instructions over the tensor's size. A claim of zero needs all three.
    """
    ways = [part.strip() for part in transports.split(",") if part.strip()]
    for way in ways:
        if way not in TRANSPORTS:
            raise typer.BadParameter(f"--transports: {way!r} is no transport; write some of {', '.join(TRANSPORTS)}")
    batches = _numbers(batch, "--batch")
    sizes = _numbers(slope_sizes, "--slope-sizes", 1 << 20)
    if instructions and len(set(sizes)) < 2:
        raise typer.BadParameter("--slope-sizes has one size, and a slope needs two; give another")
    dims = _dims(shape or [])
    rules = _pairs(role or [], f"write ROLE=PATTERN, ROLE one of {', '.join(ROLES)}")
    settings: dict[str, dict[str, str]] = {}
    for key, value in _pairs(backend_config or [], "write BACKEND,KEY=VALUE"):
        name, _, setting = key.partition(",")
        settings.setdefault(name, {})[setting] = value
    try:
        classifier = Classifier([*rules, *([("engine", engine)] if engine else [])])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if max_pages is not None and not census:
        raise typer.BadParameter("--max-pages counts with the census; leave --no-census out")

    console = Console(stderr=str(json_path) == "-")
    if not console.is_terminal:
        console = Console(stderr=console.stderr, width=max(console.width, 110))
    notes: list[str] = []
    missing: list[str] = []
    inputs, right = _read_expected(expected)
    if tritonserver is not None:
        os.environ["UMO_TRITONSERVER"] = str(tritonserver)
    observations: list[Observation] = []
    slopes: SlopeReport | None = None
    try:
        with console.status("starting the server") as status:
            with ProvedServer(
                model_repository,
                backend_directory,
                backend_config=settings,
                explicit=True,
                load_models=[model] + ([floor] if floor else []),
            ) as server:
                spec = describe(model, server.http_url)
                lowest = describe(floor, server.http_url) if floor else None
                why = server.census.why_unavailable() if census else "not asked for"
                if census and why:
                    missing.append(f"census: {why}")
                for count in batches:
                    observations += observe(
                        server, spec, batch=count, size_bytes=int(size * (1 << 20)), dims=dims, transports=ways,
                        requests=requests, warmup=warmup, census=not why, floor=lowest, verify=verify,
                        expected=right, inputs=inputs, tolerance=tolerance, classifier=classifier,
                        progress=status.update,
                    )  # fmt: skip
            if instructions:
                slopes = _slopes(
                    spec,
                    model_repository,
                    backend_directory or default_backend_directory(),
                    dims,
                    sizes,
                    classifier,
                    settings,
                    notes,
                    missing,
                    status.update,
                )
    except (ServerError, SpyError, TrafficError, CensusError, SlopeError, TimeoutError) as error:
        raise stop(error, Exit.CANNOT_RUN) from error
    except CensusUnavailable as error:
        raise stop(error, Exit.NO_WITNESS) from error

    console.print(_table(model, observations, slopes))
    if slopes is not None:
        console.print(_slope_table(slopes, classifier))
    for line in [*notes, *(f"not available: {line}" for line in missing)]:
        console.print(line, markup=False, highlight=False)

    wrong = [f"{o.transport}, batch {o.batch}: {line}" for o in observations for line in o.wrong]
    refused: list[str] = []
    for seen in observations:
        if expect_zero:
            refused += failures(seen)
        if expect_zero or max_pages is not None:
            refused += page_failures(seen, max_pages)
    if expect_zero and slopes is not None:
        refused += slope_failures(slopes, slope_limit)
    _write_json(json_path, model, observations, slopes, classifier, notes, missing, wrong, refused)
    for line in wrong + refused:
        console.print(line, style="red", markup=False, highlight=False)
    if wrong:
        raise typer.Exit(Exit.WRONG_ANSWER)
    if refused:
        raise typer.Exit(Exit.NOT_ZERO)
    if missing and (expect_zero or max_pages is not None):
        raise typer.Exit(Exit.NO_WITNESS)
    if expect_zero:
        console.print("the backend copied 0 bytes", style="green")


def _slopes(
    spec: ModelSpec, repository: Path, backends: Path, dims: dict[str, list[int]], sizes: list[int],
    classifier: Classifier, settings: dict[str, dict[str, str]], notes: list[str], missing: list[str], progress: Any,
) -> SlopeReport | None:  # fmt: skip
    build = slope_inputs(spec, dims)
    if len({tuple(build(size)) for size in sizes}) < 2:
        notes.append(
            "no slope: every shape of this model is fixed; open one with --shape INPUT:...,-1, or say --no-slope"
        )
        missing.append("slope: the model has one size only")
        return None
    extra = [f"{name},{key}={value}" for name, pairs in settings.items() for key, value in pairs.items()]
    try:
        return slope(
            spec.name, repository, backends, build, sizes=sizes, classifier=classifier, progress=progress,
            extra_args=[part for text in extra for part in ("--config", text)],
        )  # fmt: skip
    except SlopeUnavailable as error:
        missing.append(f"slope: {error}")
        return None


def _read_expected(path: Path | None) -> tuple[dict[str, np.ndarray] | None, dict[str, np.ndarray] | None]:
    if path is None:
        return None, None
    try:
        with np.load(path) as held:
            inputs = {name[3:]: held[name] for name in held.files if name.startswith("in_")}
            right = {name[4:]: held[name] for name in held.files if name.startswith("out_")}
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"--expected {path} cannot be read ({error}); give a file of numpy.savez") from error
    if not inputs or not right:
        raise typer.BadParameter(f"--expected {path} lacks arrays; save some named in_NAME and out_NAME")
    return inputs, right


def _write_json(
    path: Path | None, model: str, observations: list[Observation], slopes: SlopeReport | None, classifier: Classifier,
    notes: list[str], missing: list[str], wrong: list[str], refused: list[str],
) -> None:  # fmt: skip
    if path is None:
        return
    whole = {
        "model": model,
        "kernel": platform.release(),
        "observations": [seen.as_json(classifier) for seen in observations],
        "slope": slopes.as_json() if slopes else None,
        "notes": notes,
        "not_available": missing,
        "wrong_answers": wrong,
        "refused": refused,
    }
    text = json.dumps(whole, indent=2) + "\n"
    if str(path) == "-":
        sys.stdout.write(text)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
