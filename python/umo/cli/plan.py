"""`umo plan`: where buffers with known lifetimes lie in one block of memory."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import Exit, app, stop

if TYPE_CHECKING:
    from .. import planning

_EPILOG = (
    "Exit status: 0 a plan; 1 none of that capacity, or the file is wrong; 2 no such file; 3 libumo, onnx or Pillow "
    "is not there, or a file cannot be read or written; 130 Ctrl-C (the best plan so far is written all the same)."
)
_PROOFS = {
    "open": "none: a better plan may exist",
    "at_bound": "optimal: as long as what is in use at once",
    "exhausted": "optimal: all that is shorter was tried",
    "infeasible": "no plan fits the capacity",
}


def _show(plan: planning.Plan) -> None:
    rows = [("buffers", f"{len(plan.buffers):,}"), ("bound", f"{plan.bound:,} bytes")]
    if plan.peak is not None:
        rows += [("peak", f"{plan.peak:,} bytes"), ("gap", f"{plan.gap or 0:.2%}")]
    rows += [("proof", _PROOFS[plan.proof]), ("search", f"{plan.nodes:,} nodes, {plan.seconds:.3f} s")]
    for name, value in rows:
        print(f"{name:8} {value}")


def _shapes(texts: list[str]) -> dict[str, list[int]]:
    shapes = {}
    for text in texts:
        name, _, numbers = text.rpartition("=")
        sizes = numbers.split("x")
        if not name or not all(n.isdecimal() and int(n) > 0 for n in sizes):
            raise stop(f"--shape {text!r}: write name=1x3x224x224", Exit.USAGE)
        shapes[name] = [int(n) for n in sizes]
    return shapes


@contextmanager
def _at(path: Path) -> Iterator[None]:
    """What the system says has no name where a disk is full, and that of a file beside it elsewhere."""
    try:
        yield
    except OSError as error:
        error.filename = str(path)
        raise


def _try(path: Path, *, replaced: bool) -> None:
    """Raises what writing it would, before the search and not after it; what is there stays as it is."""
    with _at(path):
        if path.is_dir() or (path.is_file() and not replaced):
            path.open("ab").close()
        elif path.is_file() or not path.exists():  # else a pipe or a device, which opening would change
            tempfile.TemporaryFile(dir=os.path.dirname(os.path.realpath(path))).close()


def _try_outputs(output: Path | None, svg: Path | None, png: Path | None) -> None:
    if png is not None:
        try:
            import PIL.Image  # noqa: F401
        except ImportError as error:
            raise stop("--png needs Pillow; install umo[demo], or use --svg", Exit.CANNOT_RUN) from error
    for path in (output, svg, png):
        if path is not None:
            _try(path, replaced=path is output)


def _write(plan: planning.Plan, output: Path | None, svg: Path | None, png: Path | None) -> None:
    from .. import planning

    if output is not None:
        with _at(output):
            planning.write(output, plan.buffers, plan.offsets)
    if svg is not None:
        with _at(svg):
            svg.write_text(planning.svg(plan), encoding="utf-8")
    if png is not None:
        with _at(png):
            planning.png(plan, png)


def _read(file: Path | None, onnx: Path | None, shape: list[str]) -> tuple[Sequence[planning.Buffer], list[int] | None]:
    from .. import planning

    shapes = _shapes(shape)
    try:
        if file is not None:
            return planning.read(file)
        assert onnx is not None
        graph = planning.from_onnx(onnx, shapes)
    except ImportError as error:
        raise stop("--onnx needs the package onnx; install it (pip install onnx)", Exit.CANNOT_RUN) from error
    except planning.PlanError as error:
        raise stop(f"{error}; correct it there", Exit.FOUND) from error
    except FileNotFoundError as error:
        if error.errno is None:  # not the file: the library, in words of its own
            raise stop(str(error), Exit.CANNOT_RUN) from error
        raise stop(f"{file or onnx}: no such file; check the path", Exit.USAGE) from error
    if graph.unknown:
        print(f"umo: {len(graph.unknown)} tensors of no known size left out; give --shape", file=sys.stderr)
    return graph.buffers, None


def _check(source: Path | None, buffers: Sequence[planning.Buffer], offsets: list[int], as_json: bool) -> None:
    from .. import planning

    peak, wrong = None, None
    try:
        peak = planning.check(buffers, offsets)
    except planning.PlanError as error:
        wrong = error
    if as_json:
        print(json.dumps({"buffers": len(buffers), "valid": wrong is None, "peak": peak}, indent=2))
    elif wrong is None:
        print(f"valid    peak {peak:,} bytes")
    if wrong is not None:
        raise stop(f"{source}: {wrong}; correct it there", Exit.FOUND)


@app.command(epilog=_EPILOG)
def plan(
    file: Annotated[Path | None, typer.Argument(help="CSV: id,lower,upper,size and maybe alignment.")] = None,
    onnx: Annotated[Path | None, typer.Option(help="Plan an ONNX model's tensors between its nodes instead.")] = None,
    shape: Annotated[list[str] | None, typer.Option(help="With --onnx: an input's, as name=1x3x224x224.")] = None,
    capacity: Annotated[int, typer.Option(help="Bytes that will do; 0 looks for the shortest block.", min=0)] = 0,
    time: Annotated[float, typer.Option(help="Seconds to look for a better plan.", min=0.001, max=1e9)] = 10.0,
    seed: Annotated[int, typer.Option(help="Another number tries things in another order.", min=0)] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write the plan: the CSV and offset.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Draw the plan.")] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the plan; needs Pillow.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Check the offsets in FILE instead of making others.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on the standard output.")] = False,
) -> None:
    """Find where buffers with known lifetimes lie in one block of memory, and how short it can be."""
    from .. import planning

    if (file is None) == (onnx is None):
        raise stop("name a CSV file, or a model with --onnx; see `umo plan --help`", Exit.USAGE)
    if shape and onnx is None:
        raise stop(f"--shape {shape[0]} is of a model's input; name the model with --onnx", Exit.USAGE)
    unused = (("--output", output), ("--svg", svg), ("--png", png), ("--capacity", capacity))
    if check and (given := [name for name, value in unused if value]):
        raise stop(f"--check makes no plan and has no use for {', '.join(given)}; leave out either", Exit.USAGE)
    if capacity >= 2**63:
        raise stop(f"a capacity of {capacity} bytes is too much; give 2^63 - 1 at most", Exit.USAGE)
    if seed >= 2**64:
        raise stop(f"a seed of {seed} is too much; give 2^64 - 1 at most", Exit.USAGE)
    buffers, offsets = _read(file, onnx, shape or [])
    source = file or onnx
    if check:
        if offsets is None:
            raise stop(f"{source} has no column offset; make a plan with `umo plan -o`", Exit.FOUND)
        _check(source, buffers, offsets, as_json)
        return
    _try_outputs(output, svg, png)
    try:
        made = planning.solve(buffers, capacity=capacity, seconds=time, seed=seed)
    except planning.PlanError as error:
        raise stop(f"{source}: {error}; correct it there", Exit.FOUND) from error
    fits = planning.first_fit(buffers) if onnx is not None else None
    try:
        if made.offsets is not None:
            _write(made, output, svg, png)
    except planning.PlanError as error:  # a model's names may be none that a CSV file can have
        raise stop(f"{source}: {error}; correct it there", Exit.FOUND) from error
    finally:  # what has been found is told also where the disk is full
        if as_json:
            fields = ("peak", "bound", "live", "gap", "proof", "optimal", "interrupted", "nodes", "seconds")
            figures = {name: getattr(made, name) for name in fields}
            head = {"buffers": len(buffers), "capacity": capacity or None}
            print(json.dumps({**head, **figures, "first_fit": fits}, indent=2))
        else:
            _show(made)
            if fits is not None:
                print(f"unplanned {fits:,} bytes (first fit as they come), all apart {sum(b.size for b in buffers):,}")
    if made.interrupted:
        raise typer.Exit(Exit.INTERRUPTED)
    if made.complaint:
        more = "allow more bytes" if made.proof == "infeasible" else "allow more bytes or more --time"
        raise stop(f"{made.complaint}; {more}", Exit.FOUND)
